"""K-means of embeddings beside scikit-learn's KMeans: CPU time to the same end, and the inertia.

python benchmarks/bench_kmeans.py --clusters 10
python benchmarks/bench_kmeans.py --rows 60000 --clusters 200 --embeddings vectors.npy
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from embedding_data import made_embeddings, read_embeddings
from harness import NO_RECORD, Case, measure, report
from numpy.typing import NDArray

from codeact.selection.clustering import cluster_kmeans
from codeact.selection.clustering.kmeans import Algorithm

ROWS, DIM = 185_000, 768
QUICK_ROWS, QUICK_DIM = 2000, 32


def scikit_learn(points: NDArray[np.float32], num_clusters: int, seed: int) -> float:
    """Its own defaults, as many threads as torch has. Returns the inertia."""
    import torch
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=torch.get_num_threads()):
        found = KMeans(num_clusters, n_init=1, random_state=seed).fit(points)
    print(f"  scikit-learn: {found.n_iter_} iterations of {len(points)} rows", flush=True)
    return float(found.inertia_)


def ways(options: argparse.Namespace) -> dict[str, Callable[[NDArray[np.float32]], float]]:
    """Contender to a call that returns the inertia."""

    def ours(algorithm: Algorithm) -> Callable[[NDArray[np.float32]], float]:
        return lambda points: (
            cluster_kmeans(
                points,
                num_clusters=options.clusters,
                seed=options.seed,
                algorithm=algorithm,
                ids=[str(row) for row in range(len(points))],
            ).inertia
        )

    return {
        "codeact full": ours("full"),
        "codeact mini-batch": ours("mini-batch"),
        "scikit-learn": lambda points: scikit_learn(points, options.clusters, options.seed),
    }


def compare(points: NDArray[np.float32], options: argparse.Namespace) -> None:
    """Time each in turn, and say how good what it found is."""
    inertias: dict[str, dict[str, object]] = {}
    # The round that does not count is there to load libraries; all rows would double the hour that
    # scikit-learn takes for 1000 clusters.
    few = points[: 4 * options.clusters]

    def noted(name: str, call: Callable[[NDArray[np.float32]], float]) -> Callable[[], None]:
        def run() -> None:
            warm = name in inertias
            inertias[name] = {"inertia": call(points if warm else few)}

        return run

    found = ways(options)
    case = Case(
        name=f"k-means {len(points)} x {points.shape[1]}, {options.clusters} clusters",
        contenders={name: noted(name, call) for name, call in found.items()},
        amounts={"rows": len(points)},
        facts=inertias,
    )
    measured = measure(case, rounds=options.rounds)
    theirs = inertias["scikit-learn"]["inertia"]
    for facts in inertias.values():
        facts["of scikit-learn's"] = f"{facts['inertia'] / theirs:.4f}"
    print(report(case, measured, "bench_kmeans"), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help=f"default {ROWS}, or those of the file")
    parser.add_argument("--dim", type=int, default=DIM, help="of made embeddings")
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--embeddings", type=Path, help="a .npy file instead of made embeddings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1, help="after one that does not count")
    parser.add_argument("--quick", action="store_true", help="a tiny matrix, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    if options.quick:
        options.rows, options.dim, options.rounds = QUICK_ROWS, QUICK_DIM, 1
    if options.embeddings is None:
        points = made_embeddings(options.rows or ROWS, options.dim)
    else:
        points = read_embeddings(options.embeddings, options.rows)
    compare(points, options)


if __name__ == "__main__":
    main()
