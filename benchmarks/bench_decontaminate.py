"""Rows against all strings of the benchmarks: one native pass, and the published loop.

python benchmarks/bench_decontaminate.py --data a.jsonl b.jsonl.gz --benchmarks FOLDER
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import NO_RECORD, record, short_time, time_call

from codeact.data import (
    Benchmark,
    BenchmarkTask,
    Example,
    decontaminate,
    find_benchmarks,
    harvest_functions,
    load_examples,
)
from codeact.ops.text_match import TextIndex, flat_text, words_of

# Rows of the Magicoder Evol-Instruct and OSS-Instruct sets together, as CodeACT trains on them.
WHOLE_SET = 185_000
# HumanEval's trivial solutions, which the published loop leaves out by name.
TRIVIAL = ("return x + y", "return len(string)", "return n**2", 'return " ".join(strings)')


def strings_of(benchmarks: Sequence[Benchmark]) -> list[str]:
    texts = (text.strip() for b in benchmarks for task in b.tasks for text in task.texts)
    return [text for text in texts if text and text not in TRIVIAL]


def published_loop(rows: Sequence[Example], strings: Sequence[str]) -> int:
    """Rows found by bigcode-dataset's and Magicoder's rule; each string is lowered each time."""
    found = 0
    for row in rows:
        content = "\n\n".join([row.instruction.lower(), row.response.lower()])
        for string in strings:
            if string.lower() in content:
                found += 1
                break
    return found


def loop_lowered_once(rows: Sequence[Example], strings: Sequence[str]) -> int:
    """The same with the strings lowered beforehand."""
    lowered = [string.lower() for string in strings]
    found = 0
    for row in rows:
        content = "\n\n".join([row.instruction.lower(), row.response.lower()])
        found += any(string in content for string in lowered)
    return found


def check_equal(rows: Sequence[Example], benchmarks: Sequence[Benchmark]) -> int:
    """Pairs of row and text that both find, with the same white space and the same texts."""
    texts = {flat_text(text) for b in benchmarks for task in b.tasks for text in task.texts}
    patterns = sorted(text for text in texts if len(words_of(text)) >= 5)
    whole = [f"{row.instruction}\n\n{row.response}" for row in rows] + patterns
    ours = TextIndex(patterns, [], ngram=10).find(whole).found.tolist()
    flat = [flat_text(text) for text in whole]
    plain = [
        [row, at] for row, text in enumerate(flat) for at, p in enumerate(patterns) if p in text
    ]
    if ours != plain:
        raise AssertionError(f"{len(ours)} pairs found, the plain loop finds {len(plain)}")
    return len(plain)


def synthetic(rows: Sequence[Example]) -> list[Benchmark]:
    """As many tasks as HumanEval, MBPP and the EvalPlus versions have, out of the rows."""
    tasks = tuple(
        BenchmarkTask(row.id, (row.instruction, row.response), f"{row.instruction}{row.response}")
        for row in rows[:1680]
    )
    return [Benchmark("functions of installed packages", tasks)]


def read(options: argparse.Namespace) -> tuple[list[Example], list[Benchmark]]:
    """Rows, repeated where there are not enough, and benchmarks."""
    sources = [load_examples(path) for path in options.data] or [harvest_functions()]
    found = [row for examples in sources for row in examples]
    if options.benchmarks:
        benchmarks = find_benchmarks(options.benchmarks)
    else:
        benchmarks, found = synthetic(found[::2]), found[1::2]
    return [found[at % len(found)] for at in range(options.rows)], benchmarks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="files of rows")
    parser.add_argument("--benchmarks", type=Path, help="folder with HumanEval and MBPP files")
    parser.add_argument("--rows", type=int, default=WHOLE_SET, help="repeated if there are fewer")
    parser.add_argument(
        "--loop-rows", type=int, default=2000, help="evenly spread, that the loops are given"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    if options.quick:
        options.rows, options.loop_rows, options.rounds = 200, 20, 1
    rows, benchmarks = read(options)
    strings = strings_of(benchmarks)
    sample = rows[:: max(1, len(rows) // options.loop_rows)]
    substrings = [
        Benchmark(b.name, tuple(BenchmarkTask(t.task_id, t.texts, "") for t in b.tasks))
        for b in benchmarks
    ]
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "published loop": (len(sample), lambda: published_loop(sample, strings)),
        "lowered once": (len(sample), lambda: loop_lowered_once(sample, strings)),
        "substrings": (len(rows), lambda: decontaminate(rows, substrings)),
        "both rules": (len(rows), lambda: decontaminate(rows, benchmarks)),
    }
    print(
        f"{len(rows)} rows against {len(strings)} strings; the loops on {len(sample)} of the rows"
    )
    per_row: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, (num_rows, call) in contenders.items():
            per_row[name].append(time_call(call)[0] / num_rows)
    for name, seconds in per_row.items():
        median = statistics.median(seconds)
        pairs = zip(per_row["published loop"], seconds, strict=True)
        ratio = statistics.median(loop / ours for loop, ours in pairs)
        whole = short_time(median * WHOLE_SET)
        print(
            f"  {name:<15} {short_time(median):>8} of CPU a row, {whole:>7} for {WHOLE_SET} rows, "
            f"{ratio:.1f} times the published loop's speed"
        )
        record(
            {"script": "bench_decontaminate", "contender": name, "rows": contenders[name][0],
             "strings": len(strings), "cpu_seconds_per_row": seconds, "speedup": ratio}
        )  # fmt: skip
    num_pairs = check_equal(sample[:500], benchmarks)
    print(f"  the same {num_pairs} pairs of row and text as the loop, with the same white space")


if __name__ == "__main__":
    main()
