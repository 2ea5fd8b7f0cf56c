"""Candidates and tasks in, measurements and training records out: the work of one command."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeact.efficiency.comparing.comparison import compare_origins
from codeact.efficiency.comparing.efficiency_comparison import EfficiencyComparison
from codeact.efficiency.inputs.candidates import Candidate, load_candidates
from codeact.efficiency.instruct.build import MIN_GAP, MIN_SPREAD, build_effi_instruct
from codeact.efficiency.instruct.choose import ChoiceRule
from codeact.efficiency.racing.measure import measure
from codeact.efficiency.racing.measurements import REFERENCE, Measurements
from codeact.errors import InputError
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.progress import OnProgress
from codeact.sandbox import Sandbox
from codeact.tasks.task_file import Task, load_tasks

MEASUREMENTS = "measurements.jsonl"


@dataclass(frozen=True)
class MeasureJob:
    """What ``codeact measure`` does.

    Args:
        candidates: File of candidates, see ``load_candidates``.
        tasks: File of tasks, see ``load_tasks``.
        output: Folder for measurements and training records; None keeps nothing.
        builds: Whether training records are built.
        compare: Two origins to compare, or none.
        limit: At most so many of the tasks that have candidates, drawn by ``seed``.
        rule: See ``build_effi_instruct``, as the next four.
        include_reference: A task's own solution may be chosen.
        min_gap: Of a pair.
        min_spread: Of a task.
        confirm: Measure pairs afresh.
        options: Further arguments of ``measure``.
        seed: Of everything random.
    """

    candidates: str
    tasks: str
    output: Path | None = None
    builds: bool = True
    compare: Sequence[str] = ()
    limit: int | None = None
    rule: ChoiceRule = "lexicographic"
    include_reference: bool = True
    min_gap: float = MIN_GAP
    min_spread: float = MIN_SPREAD
    confirm: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def run(self, sandbox: Sandbox, bars: Callable[[str], OnProgress]) -> EfficiencyFacts:
        """Everything, in a sandbox of the caller's.

        Args:
            sandbox: Where programs run.
            bars: Starts a bar with a title and gives what moves it.

        Raises:
            InputError: Files or options that cannot be used, or no candidate for any task.
            HostTooNoisyError: The machine is too busy, and ``options`` do not allow that.
        """
        tasks, candidates = self._inputs(sandbox)
        self._check_origins(tasks, candidates)
        measured = measure(
            tasks,
            candidates,
            output=None if self.output is None else self.output / MEASUREMENTS,
            sandbox=sandbox,
            seed=self.seed,
            on_progress=bars("Measure"),
            **self.options,
        )
        built = None
        if self.builds:
            progress = bars("Measure pairs again" if self.confirm else "Choose")
            built = build_effi_instruct(
                measured,
                tasks,
                candidates,
                output=self.output,
                rule=self.rule,
                include_reference=self.include_reference,
                min_gap=self.min_gap,
                min_spread=self.min_spread,
                confirm=self.confirm,
                sandbox=sandbox,
                measure_options={**self.options, "on_progress": progress},
                seed=self.seed,
            )
        comparisons, why_not = self._comparisons(measured, candidates)
        return EfficiencyFacts(measured, tasks, candidates, built, comparisons, why_not)

    def _comparisons(
        self, measured: Measurements, candidates: Sequence[Candidate]
    ) -> tuple[tuple[EfficiencyComparison, ...], str]:
        """What was asked for, or why there is none: hours of measuring are not lost for that."""
        if not self.compare:
            return (), ""
        one, other = self.compare
        try:
            found = compare_origins(measured, one, other, candidates=candidates, seed=self.seed)
        except InputError as error:
            return (), str(error)
        return (found,), ""

    def _inputs(self, sandbox: Sandbox) -> tuple[list[Task], list[Candidate]]:
        tasks = load_tasks(self.tasks, sandbox=sandbox)
        candidates = load_candidates(self.candidates, tasks)
        answered = {one.task_id for one in candidates}
        tasks = [task for task in tasks if task.id in answered]
        if not tasks:
            raise InputError(f"{self.candidates} holds no candidate for any task of {self.tasks}")
        if self.limit is not None and self.limit < len(tasks):
            drawn = sorted(random.Random(self.seed).sample(range(len(tasks)), self.limit))
            tasks = [tasks[place] for place in drawn]
            kept = {task.id for task in tasks}
            candidates = [one for one in candidates if one.task_id in kept]
        return tasks, candidates

    def _check_origins(self, tasks: Sequence[Task], candidates: Sequence[Candidate]) -> None:
        """Refuses a comparison of unknown origins before anything is measured."""
        if not self.compare:
            return
        known = list(dict.fromkeys(one.origin for one in candidates))
        known += [REFERENCE] if any(task.reference for task in tasks) else []
        for origin in self.compare:
            if origin not in known:
                raise InputError(
                    f"--compare must be an origin of the candidates, one of {', '.join(known)}, "
                    f"got {origin!r}"
                )
        if len(set(self.compare)) < len(self.compare):
            raise InputError(f"--compare must name two origins, got {self.compare[0]!r} twice")
