"""The whole selection stage as its user runs it: ``codeact select`` on a set of a million rows.

Each command runs in a process of its own, from reading the files to writing the subset and a reason
for every row. Time and peak memory are those of that process, memory-mapped files included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import NO_RECORD, record, short_time
from selection_set import SelectionSet, write_selection_set

# By name: the method, and what else the command is given.
_PRUNE = ["cluster-prune", "--set", "num_clusters=10", "--set"]
_RUNS = {
    "cdas": ["cdas"],
    "cdas with the report": ["cdas", "--report", "report.html"],
    "cluster-prune, density": [*_PRUNE, "metric=density"],
    "cluster-prune, diversity": [*_PRUNE, "metric=diversity"],
    "kcenter": ["kcenter"],
    "length-matched-random": ["length-matched-random", "--reference", "subset.jsonl"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--budget", default="0.1")
    parser.add_argument("--only", nargs="+", default=list(_RUNS)[:4], choices=list(_RUNS))
    parser.add_argument("--folder", type=Path, help="where the files are made; kept")
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    if options.no_record or options.quick:
        os.environ[NO_RECORD] = "1"
    num_rows = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        files = SelectionSet(folder / "rows.jsonl", folder / "scores.parquet", folder / "e.npy")
        if not files.embeddings.exists():
            files = write_selection_set(folder, num_rows, options.dim)
        print(f"codeact select, {num_rows} rows x {options.dim}, budget {options.budget}")
        print(f"  {'':<26}{'cpu':>9}{'wall':>9}{'peak GiB':>10}")
        for name in options.only:
            _run(name, files, folder, num_rows, options)


def _run(
    name: str, files: SelectionSet, folder: Path, num_rows: int, options: argparse.Namespace
) -> None:
    command = [
        sys.executable, "-m", "codeact", "select", str(files.rows), "--scores", str(files.scores),
        "--embeddings", str(files.embeddings), "--budget", options.budget,
        "--output", "subset.jsonl", "--table", "reasons.parquet", "--method", *_RUNS[name],
    ]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{name} failed: {words.strip()[-400:]}")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    print(f"  {name:<26}{short_time(cpu):>9}{short_time(wall):>9}{peak:>10.1f}", flush=True)
    record(
        {
            "script": "bench_selection.py", "case": f"select {num_rows} x {options.dim}",
            "contender": name, "amounts": {"rows": num_rows}, "cpu_seconds": [cpu],
            "wall_seconds": [wall], "peak_mib": peak * 1024, "facts": {"budget": options.budget},
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
