"""The pruning metrics at the size of the paper's set: time beside a floor or a rival, and error.

    python benchmarks/bench_selection_metrics.py
    python benchmarks/bench_selection_metrics.py --only diversity --whole
    python benchmarks/bench_selection_metrics.py --embeddings embeddings.npy

`density` times all rows against all, and a slice of them beside scikit-learn's exact KernelDensity,
whose time for all rows is that of the slice times their ratio. `diversity` is measured beside the
bare matrix product of rows and queries, in blocks that are thrown away.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from embedding_data import made_embeddings, read_embeddings
from harness import NO_RECORD, Case, measure, record, report, short_time, time_call
from numpy.typing import NDArray

from codeact.ops import log_density
from codeact.selection.pruning_metrics import (
    density_scores,
    diversity_scores,
    nearest_neighbour_distances,
)
from codeact.selection.reduction import reduce_dimensions

SCRIPT = "bench_selection_metrics"
Floats = NDArray[np.float32]


def reduced(options: argparse.Namespace) -> Floats:
    """Rows in 10 dimensions, of unit length."""
    points = options.matrix if options.matrix is not None else made_embeddings(options.rows, 64)
    return reduce_dimensions(points, 10).vectors


def density(options: argparse.Namespace) -> None:
    """Kernel density in 10 dimensions."""
    from sklearn.neighbors import KernelDensity

    vectors = reduced(options)
    num_rows, dim = vectors.shape
    bandwidth = num_rows ** (-1 / (dim + 4))
    tree = KernelDensity(bandwidth=bandwidth).fit(vectors)
    piece = vectors[: max(1, num_rows // options.slice)]
    samples = torch.from_numpy(vectors)
    case = Case(
        name=f"density, {len(piece)} of {num_rows} rows x {dim}",
        contenders={
            "log_density": lambda: log_density(samples[: len(piece)], samples, bandwidth=bandwidth),
            "scikit-learn": lambda: tree.score_samples(piece),
        },
        amounts={"pairs": len(piece) * num_rows},
    )
    measured = measure(case, rounds=options.rounds)
    print(report(case, measured, SCRIPT))
    rival = min(measured["scikit-learn"].cpu_seconds) * num_rows / len(piece)
    once(f"density_scores, {num_rows} x {dim}", partial(density_scores, vectors), rival)
    found = density_scores(vectors[:3000], whiten=False)
    truth = KernelDensity(bandwidth="scott").fit(vectors[:3000].astype(np.float64))
    wanted = truth.score_samples(vectors[:3000].astype(np.float64))
    error(f"density_scores, {min(3000, num_rows)} x {dim}", found, wanted)


def diversity(options: argparse.Namespace) -> None:
    """Distance to the nearest of a tenth of the rows, in all dimensions."""
    vectors = options.matrix
    if vectors is None:
        vectors = made_embeddings(options.rows, options.dim)
    num_queries = len(vectors) // 10
    if not options.whole:  # rows beside the queries add time in proportion
        vectors = vectors[: max(num_queries + 1, len(vectors) // 9)]
    queries = np.arange(num_queries)
    points = torch.from_numpy(vectors)
    block = torch.empty(2048, num_queries)

    def bare_product() -> None:
        for rows in points.split(len(block)):
            torch.mm(rows, points[:num_queries].t(), out=block[: len(rows)])

    case = Case(
        name=f"diversity, {len(vectors)} x {vectors.shape[1]} against {num_queries}",
        contenders={
            "bare product": bare_product,
            "diversity_scores": lambda: diversity_scores(vectors, queries, device="cpu"),
        },
        amounts={"rows": len(vectors)},
    )
    print(report(case, measure(case, rounds=options.rounds), SCRIPT))
    found = diversity_scores(vectors[: num_queries + 500], queries, device="cpu")[num_queries:]
    products = vectors[num_queries : num_queries + 500].astype(np.float64) @ vectors[queries].T
    error(f"diversity_scores, 500 x {vectors.shape[1]}", found, 1 - products.max(axis=1))


def nearest(options: argparse.Namespace) -> None:
    """Nearest neighbours in 10 dimensions, beside scikit-learn's k-d tree."""
    from sklearn.neighbors import NearestNeighbors

    vectors = reduced(options)
    tree = NearestNeighbors(n_neighbors=2, algorithm="kd_tree")
    case = Case(
        name=f"nearest neighbour, {len(vectors)} x 10",
        contenders={
            "nearest_neighbour_distances": lambda: nearest_neighbour_distances(vectors),
            "scikit-learn k-d tree": lambda: tree.fit(vectors).kneighbors(),
        },
        amounts={"rows": len(vectors)},
    )
    print(report(case, measure(case, rounds=options.rounds), SCRIPT))
    truth = tree.fit(vectors.astype(np.float64)).kneighbors()[0][:, 0]
    error(case.name, nearest_neighbour_distances(vectors), truth)


def once(name: str, call: Callable[[], object], rival_cpu: float) -> None:
    """Time one whole run, and say what the rival's would be."""
    cpu, wall = time_call(call)
    print(
        f"{name}: {short_time(wall)} wall, {short_time(cpu)} of CPU; scikit-learn by its slice "
        f"{short_time(rival_cpu)} of CPU\n"
    )
    facts = {"cpu_seconds": cpu, "wall_seconds": wall, "extrapolated_rival_cpu": rival_cpu}
    record({"script": SCRIPT, "case": name, "contender": "density_scores", **facts})


def error(name: str, found: NDArray[np.float64], truth: NDArray[np.float64]) -> None:
    worst = float(np.abs(found - truth).max())
    print(f"{name}: largest difference from float64 {worst:.1e}\n")
    record({"script": SCRIPT, "case": f"error, {name}", "max": worst})


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "density": density,
    "diversity": diversity,
    "nearest": nearest,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections; all by default")
    parser.add_argument("--embeddings", type=Path, help="(rows, dim) .npy in place of made rows")
    parser.add_argument("--rows", type=int, default=185_000)
    parser.add_argument("--dim", type=int, default=1536, help="of the rows of diversity")
    parser.add_argument("--slice", type=int, default=200, help="scikit-learn's part: 1 in so many")
    parser.add_argument("--whole", action="store_true", help="diversity of all rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.dim, options.slice, options.rounds = 3000, 64, 10, 1
    options.matrix = None
    if options.embeddings is not None:
        points = read_embeddings(options.embeddings, None)
        options.matrix = reduce_dimensions(points, None).vectors
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    for section in options.only or SECTIONS:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
