"""Agglomerative clusters of a set as large as the paper's: time, and the peak of the process.

    python benchmarks/bench_agglomerative.py

Ward's linkage on 10 components, in a process of its own, so that its peak memory is all there is.
scikit-learn's would hold the square of the rows: 68 GiB for 185,000 float32 distances.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

from embedding_data import made_embeddings
from harness import NO_RECORD, record, short_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=185_000)
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="2,000 rows")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    if options.no_record or options.quick:
        os.environ[NO_RECORD] = "1"
    from codeact.selection.clustering import cluster_agglomerative

    num_rows = 2_000 if options.quick else options.rows
    points = made_embeddings(num_rows, options.dim)
    wall, cpu = time.perf_counter(), time.process_time()
    found = cluster_agglomerative(points, num_clusters=options.clusters)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"ward, {num_rows} x {options.dim}, {found.num_clusters} clusters: {short_time(cpu)} of "
        f"CPU time, {short_time(wall)}, peak {peak:.0f} MiB of the process"
    )
    record(
        {
            "script": "bench_agglomerative", "case": f"ward {num_rows} x {options.dim}",
            "contender": "codeact", "amounts": {"rows": num_rows}, "cpu_seconds": [cpu],
            "wall_seconds": [wall], "peak_mib": peak,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
