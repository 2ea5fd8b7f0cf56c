"""What lies outside the run folder counts: a change repeats the stages that read it, no other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import codeact
from codeact.errors import InputError
from codeact.models import load_model
from codeact.pipeline.inputs import model_fingerprint, outside_inputs
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.report import write_report
from codeact.pipeline.run import STAGES, run_recipe
from codeact.pipeline.run_folder import RunFolder
from codeact.pipeline.stage import StageContext

ALL = [stage.name for stage in STAGES]
TASK = {"task_id": "HumanEval/0", "prompt": "def f():\n    pass\n", "canonical_solution": "  x"}


def changed(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    values = recipe.model_dump()
    for name, keys in sections.items():
        values[name] |= keys
    return Recipe.model_validate(values)


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


@pytest.fixture
def repeated(announced: Any) -> Any:
    """Runs a recipe in a folder; the stages that it did not skip."""

    def run(recipe: Recipe, folder: Path) -> list[str]:
        listener = announced()
        run_recipe(recipe, folder, listener)
        return list(listener.begun)

    return run


def test_settings_that_cannot_train_are_refused_before_anything(
    tmp_path: Path, announced: Any
) -> None:
    recipe = Recipe.model_validate({"train": {"lora_targets": ","}})
    with pytest.raises(InputError, match="lora_targets must name a layer"):
        run_recipe(recipe, tmp_path / "run", announced())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("named_by", ["recipe", "environment"])
def test_benchmark_files(
    finished: Any, copied: Path, tmp_path: Path, repeated: Any,
    monkeypatch: pytest.MonkeyPatch, named_by: str,
) -> None:  # fmt: skip
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "HumanEval.jsonl").write_text(json.dumps(TASK) + "\n")
    recipe = finished.recipe
    if named_by == "recipe":
        recipe = changed(recipe, data={"benchmarks": str(folder)})
    else:
        monkeypatch.setenv("CODEACT_BENCHMARKS", str(folder))
        assert repeated(recipe, copied)[0] == "decontaminate"
    repeated(recipe, copied)
    assert repeated(recipe, copied) == []
    touch(folder / "HumanEval.jsonl")
    (folder / "README").write_text("no benchmark")
    assert repeated(recipe, copied) == []
    (folder / "HumanEval.jsonl").write_text(json.dumps({**TASK, "task_id": "HumanEval/1"}) + "\n")
    assert repeated(recipe, copied)[0] == "decontaminate"


def test_model_folder(finished: Any, tmp_path: Path, copied: Path, repeated: Any) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished.recipe.model.name, model)
    recipe = changed(finished.recipe, model={"name": str(model)})
    assert repeated(recipe, copied) == ALL
    (model / "README.md").write_text("a card")
    assert repeated(recipe, copied) == []
    touch(model / "model.safetensors")
    assert repeated(recipe, copied) == ALL


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_each_file_of_a_model_counts(finished: Any, tmp_path: Path, file: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished.recipe.model.name, model)
    before = model_fingerprint(str(model))
    assert model_fingerprint(str(model)) == before
    (model / file).write_bytes((model / file).read_bytes() + b" ")
    assert model_fingerprint(str(model)) != before


def test_a_hub_id_counts_as_its_name() -> None:
    assert model_fingerprint("org/name") == "org/name"
    assert model_fingerprint(None) != model_fingerprint("org/name")


def test_what_auto_stands_for_counts(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outside_inputs(finished.recipe)
    assert before["machine"] == "cpu torch.float32"
    monkeypatch.setattr("codeact.models.resolve_device", lambda name: torch.device("cuda"))
    after = outside_inputs(finished.recipe)
    assert after == {**before, "machine": "cuda torch.bfloat16"}
    assert {stage.name for stage in STAGES if "machine" in stage.reads} == {
        "score", "embed", "select", "train-selected", "train-random", "evaluate"
    }  # fmt: skip


def test_version(
    finished: Any, copied: Path, repeated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repeated(finished.recipe, copied) == []
    monkeypatch.setattr(codeact, "__version__", "99.0")
    assert repeated(finished.recipe, copied) == ALL


@pytest.mark.parametrize("stop_at", ["select", "train-selected"])
def test_a_run_stopped_midway_shows_nothing_of_the_recipe_before(
    finished: Any, copied: Path, announced: Any, stop_at: str
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == stop_at:
            raise KeyboardInterrupt

    result = "nats per token, CDAS against random"
    assert result in write_report(copied).read_text()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(changed(finished.recipe, select={"budget": 8}), copied, announced(stop))
    assert not (copied / "evaluation/comparison.json").exists()
    assert not (copied / "train/random/log.jsonl").exists()
    assert not (copied / "train/selected/log.jsonl").exists()
    done = ALL[: ALL.index(stop_at)]
    assert list(RunFolder(copied).manifest.stages) == done
    assert result not in write_report(copied).read_text()


def test_forgotten_files_are_those_of_the_stage_and_in_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(device="cpu", seed=0)
    for name in ("a", "b"):
        (run / f"{name}.txt").write_text(name)
        run.record_stage(name, "0", seconds=0, peak_mib=0, files=[f"{name}.txt"])
    (tmp_path / "outside.txt").write_text("stays")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["b"]["files"]["../outside.txt"] = "0"
    (run / "manifest.json").write_text(json.dumps(manifest))
    run.forget(["b", "unknown"])
    assert list(run.manifest.stages) == ["a"]
    assert [(run / f"{name}.txt").exists() for name in ("a", "b")] == [True, False]
    assert (tmp_path / "outside.txt").exists()


def test_training_empties_its_folder(finished: Any, copied: Path, repeated: Any) -> None:
    stray = copied / "train/selected/model/model-00002-of-00002.safetensors"
    stray.write_bytes(b"of an earlier model")
    recipe = changed(finished.recipe, train={"learning_rate": 2e-3})
    assert repeated(recipe, copied)[1:] == ["train-selected", "train-random", "evaluate", "report"]
    assert not stray.exists()


def test_comparing_loads_what_training_loads(
    finished: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU ``auto`` is bfloat16 for scoring; both arms are trained and compared in float32."""
    from codeact.pipeline import training_stages

    loaded = []

    def load(path: Any, *, dtype: str, device: str, **adapter: Any) -> Any:
        assert set(adapter.values()) == {None}
        loaded.append((Path(path).parent.name, dtype))
        return load_model(path, dtype="float32", device="cpu")

    monkeypatch.setattr("codeact.models.load_model", load)
    context = StageContext(finished.recipe, RunFolder(copied), lambda done, total: None)
    training_stages.evaluate_stage(context)
    assert [dtype for _, dtype in loaded] == ["float32"] * 3
    context.load_model()
    assert loaded[-1][1] == "auto"
