"""HDBSCAN's spanning tree by streamed Boruvka, beside the hdbscan package on the same rows.

    python benchmarks/bench_hdbscan.py                           # 10 k made-up rows of 384
    python benchmarks/bench_hdbscan.py --embeddings e.npy --rows 10000
    python benchmarks/bench_hdbscan.py --rows 185000 --dim 1536 --no-rival    # on a GPU

The tree needs torch alone and is made on a GPU if torch sees one. The package, if it is installed,
makes clusters of both trees: `ARI` is the adjusted Rand index of the two. Its time grows with the
square of the rows, 2 minutes for 10 k rows of 384 on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import NO_RECORD, Case, measure, record, report, short_count, short_time, time_call
from numpy.typing import NDArray

from codeact.selection.clustering.boruvka import reachability_tree

MIN_CLUSTER_SIZE = MIN_SAMPLES = 5


def made_up(num_rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in topics of unequal size and density, their spectrum falling like 1 / rank."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)
    num_topics = max(2, num_rows // 60)
    topics = rng.standard_normal((num_topics, dim), dtype=np.float32) * scale
    own = (num_topics * rng.random(num_rows) ** 2).astype(np.int64)
    spread = rng.uniform(0.2, 1.2, num_topics).astype(np.float32)
    rows = rng.standard_normal((num_rows, dim), dtype=np.float32)
    rows *= scale * spread[own][:, None]
    rows += topics[own]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def real(path: Path, num_rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows drawn from a file of embeddings."""
    rows = np.load(path, mmap_mode="r")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:num_rows]
    return np.ascontiguousarray(rows[np.sort(chosen)], dtype=np.float32)


def agreement(ours: Callable[[], object], package: Callable[[], object]) -> dict[str, object]:
    """What the clusters of both trees have in common."""
    from sklearn.metrics import adjusted_rand_score

    mine, theirs = np.asarray(ours()), np.asarray(package())
    return {
        "ARI": f"{adjusted_rand_score(mine, theirs):.6f}",
        "clusters": f"{mine.max() + 1} and {theirs.max() + 1}",
        "noise": f"{(mine < 0).mean():.3f} and {(theirs < 0).mean():.3f}",
    }


def package_labels(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """The package's own clusters, exact, on one core."""
    import hdbscan

    labels: NDArray[np.int64] = hdbscan.HDBSCAN(
        min_cluster_size=MIN_CLUSTER_SIZE,
        min_samples=MIN_SAMPLES,
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
    ).fit_predict(points.astype(np.float64))
    return labels


def our_labels(points: NDArray[np.float32], device: str) -> NDArray[np.int64]:
    """The clusters of our tree, rows in the order given as the package takes them."""
    from codeact.selection.clustering.hdbscan import boruvka_labels

    return boruvka_labels(points, MIN_CLUSTER_SIZE, MIN_SAMPLES, device)


def once(points: NDArray[np.float32], device: str) -> None:
    """A run without one before it to warm up, for sets that take many minutes."""
    cpu, wall = time_call(partial(our_labels, points, device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    name = f"HDBSCAN of {points.shape[0]} x {points.shape[1]}, once"
    print(f"{name}: {short_time(wall)} wall, {short_time(cpu)} of CPU, peak {peak:.0f} MiB")
    record(
        {
            "script": "bench_hdbscan", "case": name, "contender": f"ours, {device}",
            "amounts": {"rows": len(points)}, "cpu_seconds": [cpu], "wall_seconds": [wall],
            "peak_mib": peak,
        }
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384, help="of made-up rows")
    parser.add_argument("--embeddings", type=Path, help="a .npy file of (num_rows, dim)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-rival", action="store_true", help="only the spanning tree")
    parser.add_argument("--once", action="store_true", help="our clusters alone, one single run")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.embeddings is None:
        points = made_up(options.rows, options.dim)
    else:
        points = real(options.embeddings, options.rows)
    num_rows, dim = points.shape
    if options.once:
        once(points, device)
        return
    ours = torch.from_numpy(points).to(device)
    contenders: dict[str, Callable[[], object]] = {
        f"spanning tree, {device}": partial(reachability_tree, ours, min_samples=MIN_SAMPLES)
    }
    facts: dict[str, dict[str, object]] = {}
    print(f"lists of neighbours: {short_count(2.0 * num_rows**2 * dim)}FLOP of float32 products")
    if importlib.util.find_spec("hdbscan") is None:
        print("hdbscan is not installed: the tree alone")
    elif not options.no_rival:
        labels = {
            "ours, with labels": partial(our_labels, points, device),
            "hdbscan package": partial(package_labels, points),
        }
        facts["ours, with labels"] = agreement(*labels.values())
        contenders |= labels
    case = Case(f"HDBSCAN of {num_rows} x {dim}", contenders, {"rows": num_rows}, facts)
    print(report(case, measure(case, rounds=options.rounds), "bench_hdbscan"))


if __name__ == "__main__":
    main()
