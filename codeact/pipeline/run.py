"""A run: every stage in order, each skipped when its files are there from the same inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import codeact
from codeact.errors import InputError
from codeact.files import write_text
from codeact.models import PeakMemory, resolve_device
from codeact.pipeline.benchmark_stage import benchmark_stage, check_problems, check_sandbox
from codeact.pipeline.data_stages import decontaminate_stage, load_stage
from codeact.pipeline.inputs import outside_inputs
from codeact.pipeline.report import write_report
from codeact.pipeline.run_folder import RunFolder
from codeact.pipeline.selection_inputs import check_method
from codeact.pipeline.selection_stages import (
    cluster_stage,
    embed_stage,
    score_stage,
    select_stage,
)
from codeact.pipeline.stage import Announcer, Stage, StageContext, StageResult
from codeact.pipeline.training_stages import (
    ARMS,
    check_training,
    evaluate_stage,
    pack_stage,
    train_arm,
)
from codeact.sandbox import SandboxUnavailable

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe


def _report_stage(context: StageContext) -> StageResult:
    path = write_report(context.folder.path)
    context.on_progress(1, 1)
    return StageResult([path.name], str(path))


STAGES = (
    Stage(
        "load", "Load and validate", "rows", ("data", "model", "seed"), ("source", "model"), (),
        load_stage,
    ),
    Stage(
        "decontaminate", "Decontaminate", "rows", ("data",), ("benchmarks",), ("load",),
        decontaminate_stage,
    ),
    Stage(
        "score", "Score", "rows", ("model", "score", "seed"), ("model", "machine"),
        ("decontaminate",), score_stage,
    ),
    Stage(
        "embed", "Embed", "rows", ("embed", "model", "select.queries"),
        ("embedder", "queries", "machine"), ("decontaminate",),
        embed_stage,
    ),
    Stage(
        "cluster", "Cluster by k-means", "runs",
        ("select.num_clusters", "select.method", "select.options", "seed"), (), ("embed",),
        cluster_stage,
    ),
    Stage(
        "select", "Select", "runs", ("select", "score", "seed"), ("machine",), ("score", "cluster"),
        select_stage,
    ),
    Stage(
        "pack", "Plan Dynamic Pack", "arms", ("pack", "train", "data", "seed"), (), ("select",),
        pack_stage,
    ),
    *(
        Stage(
            f"train-{arm}", f"Fine-tune on {arm}", "steps",
            ("model", "train", "pack", "data", "seed"), ("model", "machine"), ("select",),
            partial(train_arm, arm=arm),
        )
        for arm in ARMS
    ),
    Stage(
        "evaluate", "Compare on held-out rows", "rows",
        ("evaluate.confidence", "evaluate.num_resamples", "model", "score", "seed"),
        ("model", "machine"), tuple(f"train-{arm}" for arm in ARMS), evaluate_stage,
    ),
    Stage(
        "report", "Write the report", "files", ("name",), (), ("pack", "evaluate"), _report_stage,
    ),
)  # fmt: skip

# Of runs whose recipe names benchmarks.
BENCHMARK_STAGE = Stage(
    "benchmarks", "Answer the benchmarks", "steps",
    (
        "evaluate.benchmarks", "evaluate.confidence", "evaluate.num_samples",
        "evaluate.temperature", "evaluate.max_new_tokens", "evaluate.limit", "model", "seed",
    ),
    ("model", "machine", "problems"), tuple(f"train-{arm}" for arm in ARMS), benchmark_stage,
)  # fmt: skip


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a run, in order."""
    if not recipe.evaluate.benchmarks:
        return STAGES
    *before, report = STAGES
    needs = (*report.needs, BENCHMARK_STAGE.name)
    return (*before, BENCHMARK_STAGE, replace(report, needs=needs))


def run_recipe(recipe: Recipe, folder: str | Path, announcer: Announcer) -> Path:
    """Run every stage that is not done yet and return the path of the report.

    Args:
        recipe: what to do.
        folder: the run folder; an interrupted run in it goes on where it stopped.
        announcer: who shows the progress.

    Raises:
        InputError: something in the recipe or the data cannot be used, or another process is
            working in the folder. Finished stages stay; a folder made for nothing does not.
        SandboxUnavailable: the recipe names benchmarks, and programs cannot be run safely here.
    """
    check_method(recipe)
    check_training(recipe)
    check_problems(recipe)
    run = RunFolder(folder)
    device = resolve_device(recipe.model.device)
    is_new = not run.path.exists()
    with run.locked():
        try:
            run.begin(device=str(device), seed=recipe.seed)
            outside = outside_inputs(recipe)
            _forget_stale(recipe, run, outside)  # before the new recipe stands beside their files
            if recipe.evaluate.benchmarks and BENCHMARK_STAGE.name not in run.manifest.stages:
                check_sandbox()
            write_text(run / "recipe.yaml", recipe.to_yaml())
            _run_stages(recipe, run, outside, announcer)
        except (InputError, SandboxUnavailable):
            if is_new and not run.manifest.stages:
                shutil.rmtree(run.path)
            raise
    return run / "report.html"


def _run_stages(
    recipe: Recipe, run: RunFolder, outside: Mapping[str, str], announcer: Announcer
) -> None:
    outputs: dict[str, str] = {}
    for stage in stages_of(recipe):
        stage_hash = _stage_hash(recipe, stage, outside, outputs)
        if run.stage_is_current(stage.name, stage_hash):
            announcer.skip(stage)
        else:
            _run_stage(stage, recipe, run, stage_hash, announcer)
            _forget_stale(recipe, run, outside)
        # Content counts too: a stage that is repeated and comes out otherwise repeats what follows.
        outputs[stage.name] = run.output_hash(stage.name)


def _forget_stale(recipe: Recipe, run: RunFolder, outside: Mapping[str, str]) -> None:
    """Drop every stage that has other inputs now, and all that depend on it, files and all.

    A run that stops midway would otherwise leave an old comparison beside a new selection. A stage
    with a damaged file has the inputs it had: it is repeated alone where it comes out the same.
    """
    recorded = run.manifest.stages
    outputs: dict[str, str] = {}
    for stage in stages_of(recipe):
        if stage.name in recorded and all(name in outputs for name in stage.needs):
            stage_hash = _stage_hash(recipe, stage, outside, outputs)
            if recorded[stage.name].hash == stage_hash:
                outputs[stage.name] = run.output_hash(stage.name)
    known = (*STAGES, BENCHMARK_STAGE)
    run.forget([stage.name for stage in known if stage.name not in outputs])


def _stage_hash(
    recipe: Recipe, stage: Stage, outside: Mapping[str, str], outputs: Mapping[str, str]
) -> str:
    """Hash of all that a stage depends on; two versions of this package may differ in numbers."""
    inputs = {f"{name} read": outside[name] for name in stage.reads}
    inputs |= {name: outputs[name] for name in stage.needs}
    return recipe.section_hash(*stage.sections, version=codeact.__version__, **inputs)


def _run_stage(
    stage: Stage, recipe: Recipe, run: RunFolder, stage_hash: str, announcer: Announcer
) -> None:
    start = time.perf_counter()
    with PeakMemory() as memory:
        context = StageContext(recipe, run, announcer.begin(stage), stage_hash)
        result = stage.run(context)
    run.record_stage(
        stage.name,
        stage_hash,
        seconds=time.perf_counter() - start,
        peak_mib=memory.mib,
        files=result.files,
    )
    announcer.end(stage, result.summary)
