"""How many untrusted candidates a core can judge in a second, each in a sandbox of its own.

python benchmarks/bench_sandbox.py

Wall time with one worker and with one a core, beside the same interpreter without a sandbox.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import record

from codeact.efficiency.racing.host import usable_cpus
from codeact.sandbox import Sandbox
from codeact.sandbox.execute import check
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests

_SOURCE = "def add(a, b):\n    return a + b\n"


def tests(count: int) -> FunctionTests:
    calls = tuple(Call((number, 2)) for number in range(count))
    return FunctionTests("add", calls, tuple(number + 2 for number in range(count)))


def rate(call: Callable[[int], object], count: int, workers: int) -> float:
    """Calls a second and worker."""
    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, range(count)))
    return count / (time.perf_counter() - start) / workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="candidates a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cores = len(usable_cpus())
    bare = [sys._base_executable, "-I", "-S", "-B", "-c", _SOURCE]  # type: ignore[attr-defined]
    native = ["/bin/true"]
    with Sandbox(workers=cores) as sandbox:

        def judge(number_of_tests: int) -> Callable[[int], None]:
            wanted = tests(number_of_tests)

            def one(number: int) -> None:
                program = Program("python", f"{_SOURCE}# {number}\n")
                verdict = check(sandbox, program, wanted)
                assert verdict.status == "passed", verdict

            return one

        contenders: dict[str, tuple[Callable[[int], object], int]] = {
            "1 test, one worker": (judge(1), 1),
            "1 test, a worker a core": (judge(1), cores),
            "100 tests, one worker": (judge(100), 1),
            "100 tests, a worker a core": (judge(100), cores),
            "a program that ends at once, one worker": (lambda _: sandbox.run(native), 1),
            "python without a sandbox, one worker": (lambda _: subprocess.run(bare), 1),
        }
        for call, _ in contenders.values():
            call(0)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.rounds):
            for name, (call, workers) in contenders.items():
                rates[name].append(rate(call, arguments.count, workers))
        for name, values in rates.items():
            middle, best = statistics.median(values), max(values)
            print(f"{name:<42} {middle:7.1f} /s/core  (best round {best:.1f})")
            record(
                {
                    "script": Path(__file__).name, "case": "candidates a second and core",
                    "contender": name, "rates": values, "median": middle, "sandbox": sandbox.tier,
                }
            )  # fmt: skip


if __name__ == "__main__":
    main()
