"""Our own verdict on an answer to a problem: its base tests, then the ones EvalPlus adds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from codeact.errors import InputError
from codeact.sandbox.execute import check
from codeact.sandbox.programs.program import Program
from codeact.sandbox.verdict import Verdict

if TYPE_CHECKING:
    from codeact.evaluation.judging.problems import Problem
    from codeact.sandbox.sandbox import Sandbox

_AHEAD_PER_WORKER = 4  # answers handed to the pool before the first of them is asked for


class Answer(Protocol):
    """What :func:`judge_all` reads of a sample."""

    @property
    def benchmark(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def solution(self) -> str: ...


AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Judged:
    """The verdicts on one answer.

    Attributes:
        base: On the benchmark's own tests.
        plus: On these and the tests that EvalPlus adds: passes only if ``base`` does.
    """

    base: Verdict
    plus: Verdict


def judge(problem: Problem, solution: str, sandbox: Sandbox) -> Judged:
    """Run a complete program on all tests of a problem, base first, in one sandboxed process.

    The base tests pass if the first failure is beyond them. A failure that belongs to no test (a
    syntax error, a forged frame, a bad end) fails both.

    Raises:
        RuntimeError: The sandbox itself failed, which says nothing of the answer.
    """
    verdict = check(sandbox, Program("python", solution), problem.tests, limits=problem.limits)
    if verdict.status == "sandbox_error":
        raise RuntimeError(f"the sandbox failed: {verdict.reason}")
    return Judged(_base_verdict(verdict, problem.num_base), verdict)


def judge_all(
    problems: Iterable[Problem],
    samples: Sequence[AnswerT],
    sandbox: Sandbox,
    *,
    on_result: Callable[[AnswerT, Judged], None] | None = None,
) -> Iterator[tuple[AnswerT, Judged]]:
    """Judge many answers, ``sandbox.workers`` at a time; yields them in their order.

    Equal programs for one problem are judged once: sampling at a low temperature repeats itself.

    Raises:
        InputError: A sample is of a problem that is not among ``problems``.
    """
    known = {(problem.benchmark, problem.task_id): problem for problem in problems}
    for sample in samples:
        if (sample.benchmark, sample.task_id) not in known:
            raise InputError(
                f"samples must be of the problems given, got {sample.task_id!r} "
                f"of {sample.benchmark!r}"
            )
    with ThreadPoolExecutor(sandbox.workers) as pool:
        started: dict[tuple[str, str, str], Future[Judged]] = {}

        def start(sample: AnswerT) -> Future[Judged]:
            key = (sample.benchmark, sample.task_id, sample.solution)
            if key not in started:
                started[key] = pool.submit(judge, known[key[:2]], sample.solution, sandbox)
            return started[key]

        waiting: deque[tuple[AnswerT, Future[Judged]]] = deque()
        remaining = iter(samples)
        num_ahead = _AHEAD_PER_WORKER * sandbox.workers
        try:
            while True:
                for sample in islice(remaining, num_ahead - len(waiting)):
                    waiting.append((sample, start(sample)))
                if not waiting:
                    return
                sample, future = waiting.popleft()
                judged = future.result()
                if on_result is not None:
                    on_result(sample, judged)
                yield sample, judged
        finally:  # also when the caller stops early: what has not begun never does
            pool.shutdown(wait=True, cancel_futures=True)


def _base_verdict(verdict: Verdict, num_base: int) -> Verdict:
    if verdict.passed or (verdict.first_failed is not None and verdict.first_failed >= num_base):
        return Verdict("passed", "", num_base, num_base, None)
    return replace(verdict, num_tests=num_base, num_passed=min(verdict.num_passed, num_base))
