"""Generate answers to HumanEval+ and MBPP+, judge them twice, say what came out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codeact.errors import InputError
from codeact.evaluation.answering.asking import Asking, answered, settings_of
from codeact.evaluation.answering.given_samples import (
    GivenSamples,
    benchmarks_of,
    given_samples,
    read_rows,
)
from codeact.evaluation.evaluation_folder import EvaluationFolder, check_folder, sha256_of
from codeact.evaluation.judging.disagreements import disagreements, write_disagreements
from codeact.evaluation.judging.problems import BENCHMARKS, Problem, find_problems, load_problems
from codeact.evaluation.judging.second_opinion import with_evalplus
from codeact.evaluation.judging.task_list import TaskList, read_task_list
from codeact.evaluation.judging.verdicts import judged_rows, keep_rows
from codeact.evaluation.summary import Evaluation, summarise
from codeact.files import write_jsonl
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.evaluation.answering.prompts import PromptStyle
    from codeact.evaluation.results import ResultRow
    from codeact.evaluation.samples import Sample
    from codeact.models import LoadedModel
    from codeact.sandbox import Sandbox

_LOG = logging.getLogger(__name__)

Announce = Callable[[str, str], OnProgress]
"""Called with the title of a stage and the unit of its progress."""


def evaluate(
    model: str | Path | LoadedModel | None,
    *,
    output: str | Path,
    samples: str | Path | None = None,
    benchmarks: Sequence[str] | None = None,
    data: str | Path | None = None,
    style: str = "auto",
    response_prefix: bool = True,
    num_samples: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 1024,
    limit: int | None = None,
    seed: int = 0,
    evalplus: bool | None = None,
    workers: int | None = None,
    adapter: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = True,
    sandbox: Sandbox | None = None,
    announce: Announce | None = None,
) -> Evaluation:
    """pass@1 of a model on HumanEval(+) and MBPP(+), by our own check and by EvalPlus.

    Answers are generated in this process, in batches, and run in the sandbox alone. Everything is
    kept in ``output`` as it comes: the same call goes on from there.

    Args:
        model: Folder or hub id, or a model that is loaded; None with ``samples``.
        output: Folder of the evaluation, new or to go on with.
        samples: Judge the answers of this file and generate none: lines of ``samples.jsonl``, or
            EvalPlus's with ``task_id`` and ``solution`` or ``completion``, packed with gzip or not.
        benchmarks: ``"humaneval"`` and ``"mbpp"``; None is both, or those of ``samples``. Answers
            to another benchmark are left out.
        data: File or folder of ``HumanEvalPlus*.jsonl[.gz]`` and ``MbppPlus*.jsonl[.gz]``; None
            looks as :func:`codeact.evaluation.judging.problems.find_problems` does.
        style: How a task is put: :func:`codeact.evaluation.answering.prompts.choose_style`.
        response_prefix: Begin the model's answers for it, as EvalPlus does.
        num_samples: Answers to each task; None is 1, or as many as ``samples`` has.
        temperature: 0 is greedy, and then there is one sample only.
        top_p: Nucleus sampling.
        max_new_tokens: Where an answer is cut.
        limit: The first so many tasks of each benchmark only.
        seed: Of the sampling.
        evalplus: Also run EvalPlus; None if it is installed.
        workers: Programs at a time; None is one a CPU.
        adapter: Folder of a PEFT adapter of the model.
        device: Of the model.
        dtype: Of its weights.
        resume: False throws away what an earlier evaluation has left in ``output``.
        sandbox: One to use; None makes one of ``workers``.
        announce: Told of each stage.

    Raises:
        InputError: An argument or file cannot be used, or ``output`` has other settings.
        SandboxUnavailable: Programs cannot be run safely here.
        ImportError: ``evalplus`` is asked for and not installed; with the command.
    """
    if (model is None) == (samples is None):
        raise InputError("evaluate needs either a model or samples, got both or neither")
    asking = Asking(
        model, style, response_prefix, temperature, top_p, max_new_tokens, seed, adapter, device,
        dtype,
    )  # fmt: skip
    if samples is None:
        asking.check(num_samples)
    job = _Job(Path(output), limit, evalplus, announce or _silent, resume)
    job.check()
    rows = [] if samples is None else read_rows(Path(samples))
    names = _benchmarks(benchmarks, None if samples is None else benchmarks_of(rows))
    rows = [row for row in rows if benchmarks_of([row]) <= set(names)]
    job.tasks = [read_task_list(name, find_problems(name, _path(data))) for name in names]
    with ExitStack() as stack:
        job.sandbox = sandbox or stack.enter_context(_sandbox(workers))
        if samples is None:
            return job.of_model(asking, num_samples or 1)
        return job.of_file(rows, Path(samples), num_samples)


@dataclass
class _Job:
    """What several steps of one evaluation need."""

    output: Path
    limit: int | None
    evalplus: bool | None
    announce: Announce
    resume: bool
    tasks: list[TaskList] = field(default_factory=list)
    sandbox: Sandbox = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse before any work what would be refused after it."""
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit must be at least 1, got {self.limit}")
        check_folder(self.output)
        if self.evalplus:
            from codeact.evaluation.judging.evalplus_files import find_evalplus

            find_evalplus()

    def of_model(self, asking: Asking, num_samples: int) -> Evaluation:
        """Generate, then judge."""
        model = asking.prepared()
        folder = self.folder(settings_of(model))
        problems = self.problems()
        with self.timed("generate"):
            found = answered(
                model, folder, problems, num_samples, self.announce("Generate", "answers")
            )
        return self.judged(folder, problems, found, {}, num_samples, model.style, ())

    def of_file(
        self, rows: list[dict[str, object]], path: Path, num_samples: int | None
    ) -> Evaluation:
        """Judge what a file holds."""
        problems = self.problems()
        known = frozenset(task_id for tasks in self.tasks for task_id in tasks.task_ids)
        given: GivenSamples = given_samples(rows, path, problems, known, num_samples)
        # After all checks of the file: --no-resume throws away what is there.
        folder = self.folder({"samples": sha256_of(rows), "num_samples": num_samples})
        words = tuple(given.words())
        for line in words:
            _LOG.warning("%s: %s", path, line)
        write_jsonl(folder.samples, (vars(sample) for sample in given.samples.values()))
        faults = dict.fromkeys(given.missing, "missing")
        faults |= dict.fromkeys(given.duplicated, "duplicated")
        return self.judged(folder, problems, given.samples, faults, given.num_samples, None, words)

    def folder(self, settings: dict[str, object]) -> EvaluationFolder:
        """The output, checked against what is in it."""
        hashes = {tasks.benchmark: tasks.md5 for tasks in self.tasks}
        return EvaluationFolder(self.output, settings, hashes, resume=self.resume)

    def problems(self) -> list[Problem]:
        """With their expected answers, from the cache or from the canonical solutions."""
        found: list[Problem] = []
        for tasks in self.tasks:
            progress = self.announce("Read the problems", "tasks")
            task_ids = tasks.task_ids[: self.limit]
            found += load_problems(
                tasks.benchmark, tasks.path, self.sandbox, task_ids=task_ids, on_progress=progress
            )
        return found

    def judged(
        self,
        folder: EvaluationFolder,
        problems: Sequence[Problem],
        samples: dict[tuple[str, str, int], Sample],
        faults: dict[tuple[str, str, int], str],
        num_samples: int,
        style: PromptStyle | None,
        words: tuple[str, ...],
    ) -> Evaluation:
        """Both opinions, and all files."""
        with self.timed("judge"):
            progress = self.announce("Run the tests", "answers")
            rows: list[ResultRow] = judged_rows(
                folder, problems, samples, faults, self.sandbox, on_progress=progress
            )
        keep_rows(folder, rows)
        error: str | None = None
        if self.evalplus is not False:
            with self.timed("evalplus"):
                self.announce("Run EvalPlus", "answers")
                rows, error = with_evalplus(
                    rows, samples, self.tasks, folder, self.sandbox.workers, self.evalplus
                )
            keep_rows(folder, rows)
        differing = disagreements(rows)
        write_disagreements(folder.disagreements, differing)
        summaries = tuple(
            summarise(tasks.benchmark, rows, samples.values(), num_samples) for tasks in self.tasks
        )
        evaluation = Evaluation(
            folder.path, summaries, tuple(rows), tuple(differing), style, words, error,
            {name: round(seconds, 2) for name, seconds in self.seconds.items()},
        )  # fmt: skip
        folder.finish(evaluation.to_json())
        return evaluation

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Wall time of a step."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


def _benchmarks(asked: Sequence[str] | None, there: frozenset[str] | None) -> list[str]:
    for name in asked or ():
        if name not in BENCHMARKS:
            raise InputError(f"benchmarks must be among {', '.join(BENCHMARKS)}, got {name!r}")
    if asked is not None and not asked:
        raise InputError("benchmarks must name at least 1 benchmark, got none")
    if asked is None and there is not None and not there:
        raise InputError("samples must be of HumanEval or MBPP, no task_id begins as theirs do")
    chosen = asked or there or BENCHMARKS
    return [name for name in BENCHMARKS if name in chosen]


def _path(data: str | Path | None) -> Path | None:
    return None if data is None else Path(data)


def _sandbox(workers: int | None) -> Sandbox:
    from codeact.sandbox import Sandbox

    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    return Sandbox(workers=workers or len(os.sched_getaffinity(0)))


def _silent(title: str, unit: str) -> OnProgress:
    return lambda done, total: None
