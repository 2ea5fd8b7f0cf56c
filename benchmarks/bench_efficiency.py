"""Is a 5 % difference in work seen, how far do repeated measurements scatter, what is peak memory?

python benchmarks/bench_efficiency.py --tasks leetcode.jsonl.gz

Three parts (``--only``): ``order`` races pairs of programs whose work differs by 5 % on real tasks
and counts how many come out in the right order; ``spread`` runs one program a task over and over
and takes the coefficient of variation of CPU time, TMU and peak memory, beside wall time as others
measure; ``memory`` takes the peak of a known allocation while this process holds 1 GB.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence

from efficiency_pairs import pair_of, repeated, wrappable
from harness import record

from codeact.efficiency import measure
from codeact.efficiency.racing.host import race_cores
from codeact.sandbox import Limits, Sandbox
from codeact.sandbox.execute import Measured, execute
from codeact.sandbox.programs.program import Program
from codeact.tasks.task_file import Task, load_tasks

_SCRIPT = "bench_efficiency.py"


def usable(tasks: Sequence[Task], sandbox: Sandbox, count: int, seed: int) -> list[Task]:
    """Tasks drawn by seed whose wrapped reference passes."""
    drawn = random.Random(seed).sample(list(tasks), len(tasks))
    found = []
    for task in drawn:
        if not wrappable(task):
            continue
        program = Program("python", repeated(task, 2))
        if execute(sandbox, program, task.tests).verdict.status == "passed":
            found.append(task)
        if len(found) == count:
            break
    return found


def order(tasks: Sequence[Task], sandbox: Sandbox, trials: int) -> None:
    """Share of races whose winner is the program with less work."""
    right, single, total, singles = 0, 0, 0, 0
    gaps = []
    for trial in range(trials):
        pairs = [pair_of(task, 20, 21) for task in tasks]
        found = measure(
            [task for task, _ in pairs],
            [candidate for _, both in pairs for candidate in both],
            sandbox=sandbox, workers=1, seed=trial, allow_noise=True,
        )  # fmt: skip
        for records in found.by_task().values():
            less, more = sorted(records, key=lambda one: one.origin)
            if less.rank is None or more.rank is None:
                print(f"  {less.task_id}: {less.status} {more.status}: not ranked")
                continue
            total += 1
            right += less.rank < more.rank
            if less.rank > more.rank:
                ratio = more.et_seconds / less.et_seconds
                print(f"  {less.task_id}: wrong by {more.tie_rule}, seen {ratio - 1:+.1%}, "
                      f"counts {less.instructions} and {more.instructions}")  # fmt: skip
            gaps.append(more.et_seconds / less.et_seconds - 1)
            for one, other in zip(less.samples, more.samples, strict=False):
                singles += 1
                single += one.cpu_seconds < other.cpu_seconds
    print(
        f"order: {right} of {total} races right ({right / total:.1%}), median gap seen "
        f"{statistics.median(gaps):.1%} (true: 5.0 %); of single runs {single / singles:.1%} right"
    )
    record(
        {
            "script": _SCRIPT, "case": "programs 5 % apart", "tasks": len(tasks),
            "races": total, "right": right, "single_runs_right": single / singles,
            "median_gap": statistics.median(gaps),
        }
    )  # fmt: skip


def variation(values: Sequence[float]) -> float:
    return statistics.stdev(values) / statistics.mean(values)


def spread(tasks: Sequence[Task], sandbox: Sandbox, runs: int) -> None:
    """Coefficient of variation over runs of one program, median over tasks."""
    core = race_cores()[0]
    measured = Measured(core=core)
    names = ("cpu_seconds", "memory_byte_seconds", "peak_memory_bytes", "wall_seconds",
             "memory_byte_wall_seconds")  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in names}
    for task in tasks:
        program = Program("python", repeated(task, 20))
        repeats = 1
        while True:
            run = execute(sandbox, program, task.tests, repeats=repeats, measured=measured)
            if run.cpu_seconds >= 0.1:
                break
            repeats = max(repeats + 1, round(repeats * min(20, 0.13 / run.cpu_seconds)))
        taken = [
            execute(sandbox, program, task.tests, repeats=repeats, measured=measured)
            for _ in range(runs)
        ]
        for name in names:
            found[name].append(variation([getattr(one, name) for one in taken]))
    medians = {name: statistics.median(values) for name, values in found.items()}
    worst = {name: max(values) for name, values in found.items()}
    for name in names:
        print(f"spread: {name:<25} CV {medians[name]:6.2%} (median of {len(tasks)} tasks), "
              f"worst {worst[name]:.2%}")  # fmt: skip
    record(
        {
            "script": _SCRIPT, "case": "coefficient of variation", "tasks": len(tasks),
            "runs": runs, "median": medians, "worst": worst,
        }
    )  # fmt: skip


def memory(sandbox: Sandbox) -> None:
    """Peak of a known allocation, while this process is large."""
    ballast = bytearray(10**9)
    ballast[::4096] = b"x" * len(ballast[::4096])
    limits = Limits(memory_bytes=2**31)
    errors = {}
    empty = sandbox.run(["/bin/true"]).peak_memory_bytes
    for mebibytes in (64, 256, 1024):
        script = f"x = bytearray({mebibytes} << 20)\nx[::4096] = b'x' * len(x[::4096])\n"
        command = ["/usr/bin/python3", "-I", "-S", "-B", "-c"]
        base = sandbox.run([*command, "pass"], limits=limits).peak_memory_bytes
        run = sandbox.run([*command, script], limits=limits)
        # The right value beside the allocation: the interpreter, and the slice on its right.
        truth = base + mebibytes * 2**20 * (1 + 1 / 4096)
        errors[mebibytes] = run.peak_memory_bytes / truth - 1
        print(f"memory: {mebibytes} MiB reported with an error of {errors[mebibytes]:+.2%}")
    print(f"memory: an empty program beside {len(ballast) / 1e9:.0f} GB: {empty / 2**20:.2f} MiB")
    record(
        {
            "script": _SCRIPT, "case": "peak memory beside 1 GB",
            "errors": errors, "empty_bytes": empty,
        }
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", help="task file, such as the LeetCode set")
    parser.add_argument("--count", type=int, default=20, help="tasks")
    parser.add_argument("--trials", type=int, default=5, help="races a task")
    parser.add_argument("--runs", type=int, default=20, help="runs a task for the spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("order", "spread", "memory"))
    arguments = parser.parse_args()
    with Sandbox(workers=1) as sandbox:
        print(f"sandbox {sandbox.tier}")
        if arguments.only in (None, "memory"):
            memory(sandbox)
        if arguments.only == "memory" or not arguments.tasks:
            return
        tasks = usable(load_tasks(arguments.tasks), sandbox, arguments.count, arguments.seed)
        if arguments.only in (None, "spread"):
            spread(tasks, sandbox, arguments.runs)
        if arguments.only in (None, "order"):
            order(tasks, sandbox, arguments.trials)


if __name__ == "__main__":
    main()
