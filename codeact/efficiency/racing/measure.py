"""Candidates in, measurements out: correctness first, then a race for each task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codeact.efficiency.racing.field import RaceOptions
from codeact.efficiency.racing.host import race_cores, usable_cpus
from codeact.efficiency.racing.journal import Journal, journal_path, key_of
from codeact.efficiency.racing.measurements import Measurements
from codeact.efficiency.racing.stages import Work, collect, run_checks, run_races
from codeact.efficiency.racing.worklist import Worklist
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate
    from codeact.efficiency.racing.meter import Meter
    from codeact.progress import OnProgress
    from codeact.sandbox.limits import Limits
    from codeact.sandbox.sandbox import Sandbox
    from codeact.tasks.task_file import Task


def measure(
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    *,
    output: str | Path | None = None,
    sandbox: Sandbox | None = None,
    rounds: int = 5,
    max_rounds: int = 9,
    target_seconds: float = 0.05,
    workers: int | None = None,
    limits: Limits | None = None,
    instructions: Literal["ties", "never"] = "ties",
    seed: int = 0,
    allow_noise: bool = False,
    meter: Meter | None = None,
    on_progress: OnProgress | None = None,
) -> Measurements:
    """Runs every candidate once for correctness, then races those of a task that passed.

    A task's reference is a candidate too, of origin ``"reference"``. Risky and non-algorithmic
    candidates (`filters.py`) are marked and not run. A race holds the candidates of one task and
    language: same CPU, alternating order, minimum over rounds of CPU time net of an empty program
    in the same sandbox; see :func:`codeact.efficiency.racing.race.race`.

    Args:
        tasks: With unique ids. Those without a candidate are left out, unless there are no
            candidates at all: then the references alone are measured.
        candidates: With ids unique in their task.
        output: Where the measurements are written, as JSON lines. A journal beside it takes every
            finished unit; the same call goes on where a killed one stopped.
        sandbox: Where programs run; one with ``workers`` places is made and closed by default.
        rounds: Rounds of those within 1.5 times the best.
        max_rounds: Rounds of those that three pooled spreads do not tell from the best.
        target_seconds: Net CPU time of one run of the fastest, which repeats are chosen for; a
            race whose fastest stays below 0.02 is not ranked.
        workers: Candidates checked at a time, all CPUs by default. Races use fewer: one CPU each,
            one physical core left alone.
        limits: Of one run of all tests; None: the language's.
        instructions: Count instructions where first places tie (``"ties"``), or not at all.
        seed: Of the order within a round.
        allow_noise: Warn of a noisy host and go on.
        meter: Who runs and reads the clock, in place of a sandbox.
        on_progress: Told of candidates checked and races run, together.

    Raises:
        InputError: An option or id that cannot be used, or a journal of another measurement.
        HostTooNoisyError: CPU time of one and the same loop varies by more than 5 %.
        SandboxUnavailable: No tier of the sandbox works here.
    """
    options = RaceOptions(rounds, max_rounds, target_seconds, instructions, seed)
    _check_options(options, workers)
    if output and Path(output).is_dir():  # said now, not after hours
        raise InputError(f"output must be a file, got the folder {output}")
    worklist = Worklist.of(tasks, candidates)
    workers = workers or len(usable_cpus())
    with _metered(meter, sandbox, limits, workers) as metered:
        host = metered.host(worklist.languages)
        key = key_of(worklist.units, options, limits, host)
        with Journal(journal_path(output) if output else None, key) as journal:
            cores = race_cores()[:workers]
            work = Work(worklist, metered, journal, options, on_progress)
            run_checks(work, workers)
            run_races(work, cores, allow_noise=allow_noise)
            found = collect(work, host, _described(options, limits))
    if output:
        found.write(output)
    return found


@contextmanager
def _metered(
    meter: Meter | None, sandbox: Sandbox | None, limits: Limits | None, workers: int
) -> Iterator[Meter]:
    """The meter to use; a sandbox made here is closed here."""
    if meter is not None:
        yield meter
        return
    from codeact.efficiency.racing.meter import SandboxMeter
    from codeact.sandbox.sandbox import Sandbox

    if sandbox is not None:
        yield SandboxMeter(sandbox, limits=limits)
        return
    with Sandbox(workers=workers) as own:
        yield SandboxMeter(own, limits=limits)


def _described(options: RaceOptions, limits: Limits | None) -> dict[str, Any]:
    return {**asdict(options), "limits": None if limits is None else asdict(limits)}


def _check_options(options: RaceOptions, workers: int | None) -> None:
    if options.rounds < 1:
        raise InputError(f"rounds must be at least 1, got {options.rounds}")
    if options.max_rounds < options.rounds:
        raise InputError(
            f"max_rounds must be at least rounds = {options.rounds}, got {options.max_rounds}"
        )
    if not 0.02 <= options.target_seconds <= 10:
        raise InputError(
            f"target_seconds must be between 0.02 and 10, got {options.target_seconds}"
        )
    if options.instructions not in ("ties", "never"):
        raise InputError(f'instructions must be "ties" or "never", got {options.instructions!r}')
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
