"""Let the model answer HumanEval+ and MBPP+ before training and after it on either arm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.evaluation import evaluate, mean_pass_at_k
from codeact.evaluation.comparing.run_report import compare_run_pair
from codeact.evaluation.comparing.runs import Run, read_run
from codeact.evaluation.judging.problems import find_problems
from codeact.evaluation.judging.task_list import read_task_list
from codeact.evaluation.results import BENCHMARKS, METRICS
from codeact.files import read_json, write_json
from codeact.pipeline.run_folder import file_sha256
from codeact.pipeline.stage import StageContext, StageResult
from codeact.pipeline.training_stages import load_arm
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe

ARMS = ("base", "random", "selected")
PAIRS = (("selected", "random"), ("selected", "base"))
FOLDER = "evaluation/benchmarks"
_STAGE = "benchmarks"
_INPUTS = "inputs.json"
_GENERATE, _TEST = "Generate", "Run the tests"  # what `evaluate` announces


def problem_files(recipe: Recipe) -> dict[str, Path]:
    """The file of each benchmark that a recipe asks for.

    Raises:
        InputError: There is none.
    """
    section = recipe.evaluate
    try:
        return {name: find_problems(name, section.benchmark_data) for name in section.benchmarks}
    except InputError as error:
        raise InputError(f"evaluate.benchmarks: {error}") from None


def check_problems(recipe: Recipe) -> None:
    """Refuse files of benchmarks that cannot be used, before hours of training.

    Raises:
        InputError: A file is not there, or is no list of tasks of its benchmark.
    """
    for name, path in problem_files(recipe).items():
        for task_id in read_task_list(name, path).task_ids:
            if not task_id.startswith(BENCHMARKS[name]):
                raise InputError(
                    f"evaluate.benchmarks: {path} must hold tasks of {name}, whose ids begin with "
                    f"{BENCHMARKS[name]}, got {task_id!r:.60}"
                )


def check_sandbox() -> None:
    """Refuse to begin what could not be ended here: answers are programs that nobody trusts.

    Raises:
        SandboxUnavailable: Programs cannot be run safely on this machine.
    """
    from codeact.sandbox import Sandbox

    with Sandbox():
        pass


def benchmark_stage(context: StageContext) -> StageResult:
    """Answers, verdicts and paired comparisons; writes ``evaluation/benchmarks/``.

    The folder of each arm is one of :func:`codeact.evaluation.evaluate`, so that ``codeact
    compare`` reads it. A run that was killed goes on within an arm. Weights have the recipe's dtype
    (``auto`` is bfloat16 on a GPU), as generation usually has; the held-out loss is of float32.
    """
    root = context.folder / FOLDER
    _clear_stale(context, root)
    write_json(root / _INPUTS, {"stage_hash": context.stage_hash})
    for index, arm in enumerate(ARMS):
        if not _is_done(root / arm):
            _evaluate_arm(context, arm, index)
    runs = {arm: read_run(root / arm) for arm in ARMS}
    comparison = _comparison(context, runs)
    write_json(root / "comparison.json", comparison)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return StageResult(
        [path.relative_to(context.folder.path).as_posix() for path in files],
        comparison["pairs"][0]["lines"][0],
    )


def _evaluate_arm(context: StageContext, arm: str, index: int) -> None:
    section = context.recipe.evaluate
    loaded = load_arm(context, arm, full_precision=False)
    # Training writes rows in this form where the tokenizer has no template; a model that was not
    # trained so is asked as suits it best.
    is_plain = arm != "base" and not loaded.tokenizer.chat_template
    evaluate(
        loaded,
        output=context.folder / FOLDER / arm,
        benchmarks=section.benchmarks,
        data=_data(context.recipe),
        style="deepseek" if is_plain else "auto",
        num_samples=section.num_samples,
        temperature=section.temperature,
        max_new_tokens=section.max_new_tokens,
        limit=section.limit,
        seed=context.recipe.seed,
        workers=len(os.sched_getaffinity(0)),
        announce=_announced(context, index),
    )


def _data(recipe: Recipe) -> Path | None:
    source = recipe.evaluate.benchmark_data
    return None if source is None else Path(source).expanduser()


def _announced(context: StageContext, index: int) -> Callable[[str, str], OnProgress]:
    """Progress of all arms: a step is an answer that is written, or one that is tested."""
    section = context.recipe.evaluate
    num_tasks = [
        len(read_task_list(name, path).task_ids[: section.limit])
        for name, path in problem_files(context.recipe).items()
    ]
    num_answers = sum(num_tasks) * section.num_samples
    begin = {
        _GENERATE: 2 * num_answers * index,
        _TEST: 2 * num_answers * index + num_answers,
    }

    def announce(title: str, unit: str) -> OnProgress:
        def progress(done: int, total: int) -> None:
            if title in begin:
                context.on_progress(begin[title] + done, 2 * num_answers * len(ARMS))

        return progress

    return announce


def _clear_stale(context: StageContext, root: Path) -> None:
    """Remove answers from other inputs, and all of an arm with a file that is not as it was."""
    marked = root / _INPUTS
    hash_there = read_json(marked).get("stage_hash") if marked.is_file() else None
    if hash_there != context.stage_hash:
        shutil.rmtree(root, ignore_errors=True)
        return
    recorded = context.folder.manifest.stages.get(_STAGE)
    for file, digest in recorded.files.items() if recorded is not None else ():
        path = context.folder / file
        arm = Path(file).relative_to(FOLDER).parts[0]
        if arm in ARMS and not (path.is_file() and file_sha256(path) == digest):
            shutil.rmtree(root / arm, ignore_errors=True)


def _is_done(folder: Path) -> bool:
    described = folder / "evaluation.json"
    return described.is_file() and read_json(described).get("summary") is not None


def _comparison(context: StageContext, runs: dict[str, Run]) -> dict[str, Any]:
    """pass@1 of every arm with its interval, and the pairs in words and numbers."""
    recipe = context.recipe
    options: dict[str, Any] = {"confidence": recipe.evaluate.confidence, "seed": recipe.seed}
    pairs = []
    for a, b in PAIRS:
        report = compare_run_pair(runs[a], runs[b], **options)
        pairs.append({**report.to_json(), "lines": report.lines()})
    return {
        "arms": {arm: _arm_facts(context, arm, run, options) for arm, run in runs.items()},
        "pairs": pairs,
    }


def _arm_facts(
    context: StageContext, arm: str, run: Run, options: dict[str, Any]
) -> dict[str, Any]:
    summary = read_json(context.folder / FOLDER / arm / "evaluation.json")["summary"]
    (results,) = run.seeds
    benchmarks = {}
    for name, found in summary["benchmarks"].items():
        rates = {
            metric: asdict(mean_pass_at_k(results.verdicts(name, metric), 1, **options))
            for metric in METRICS
        }
        benchmarks[name] = {**found, **rates}
    kept = ("style", "disagreements", "evalplus_error")
    return {"benchmarks": benchmarks, **{name: summary[name] for name in kept}}
