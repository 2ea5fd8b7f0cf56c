"""Coming back to a run: nothing is done twice, nothing stale stays, a kill changes no byte."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.errors import InputError
from codeact.files import write_text
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.run import STAGES, run_recipe
from codeact.scoring import Scorer

ALL = [stage.name for stage in STAGES]
AFTER_SCORE = ["select", "pack", "train-selected", "train-random", "evaluate", "report"]
NUM_EXAMPLES, SHARD_SIZE = 32, 10


@pytest.fixture
def copied(finished: Any, tmp_path: Path) -> Path:
    """The finished run with its time stamps, for tests that change it."""
    return Path(shutil.copytree(finished.folder, tmp_path / "small"))


def changed(recipe: Recipe, **sections: Mapping[str, Any]) -> Recipe:
    values = recipe.model_dump()
    for name, keys in sections.items():
        values[name] |= keys
    return Recipe.model_validate(values)


def stamps(folder: Path) -> dict[str, int]:
    """When each file that a stage wrote was written."""
    written_by_each_run = {"manifest.json", "recipe.yaml", ".lock"}
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in written_by_each_run
    }


def test_running_again_does_nothing(finished: Any, copied: Path, announced: Any) -> None:
    before, listener = stamps(copied), announced()
    manifest = (copied / "manifest.json").read_bytes()
    run_recipe(finished.recipe, copied, listener)
    assert (listener.begun, listener.skipped) == ([], ALL)
    assert stamps(copied) == before
    assert (copied / "manifest.json").read_bytes() == manifest


def test_new_budget_repeats_selection_and_what_follows(
    finished: Any, copied: Path, announced: Any
) -> None:
    listener = announced()
    run_recipe(changed(finished.recipe, select={"budget": 8}), copied, listener)
    assert listener.begun == AFTER_SCORE
    assert listener.skipped == ["load", "decontaminate", "score", "embed", "cluster"]
    assert sum(pq.read_table(copied / "selection.parquet")["kept"].to_pylist()) == 8
    assert len((copied / "subset.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("section", "keys", "first"),
    [
        ("data", {"max_tokens": 210}, ALL),
        # The scoring model embeds here, so how it reads texts changes the vectors too.
        ("score", {"max_length": 300}, ["score", "embed", "cluster", *AFTER_SCORE]),
        ("embed", {"batch_size": 3}, ["embed", "cluster", *AFTER_SCORE]),
        ("select", {"num_clusters": 2}, ["cluster", *AFTER_SCORE]),
        ("train", {"epochs": 2.0}, AFTER_SCORE[1:]),
        ("evaluate", {"confidence": 0.9}, AFTER_SCORE[4:]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_changed_section_repeats_only_what_depends_on_it(
    finished: Any, copied: Path, announced: Any, section: str, keys: Any, first: list[str]
) -> None:
    listener = announced()
    run_recipe(changed(finished.recipe, **{section: keys}), copied, listener)
    assert listener.begun == first


def test_changed_rows_repeat_everything(finished: Any, copied: Path, announced: Any) -> None:
    rows = copied.parent / "rows.jsonl"
    text = Path(finished.recipe.data.source).read_text()
    rows.write_text(text)
    recipe, listener = changed(finished.recipe, data={"source": str(rows)}), announced()
    run_recipe(recipe, copied, listener)
    assert listener.begun == ALL
    rows.write_text(text.replace("sort", "merge"))
    listener = announced()
    run_recipe(recipe, copied, listener)
    assert listener.begun == ALL


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("pool.jsonl", "load"),
        ("held_out.jsonl", "decontaminate"),
        ("scores.parquet", "score"),
        ("embeddings.npy", "embed"),
        ("clusters.parquet", "cluster"),
        ("subset.jsonl", "select"),
        ("packing.json", "pack"),
        ("evaluation/held_out.parquet", "evaluate"),
        ("report.html", "report"),
    ],
)
@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_a_damaged_file_repeats_its_stage_alone(
    finished: Any, copied: Path, announced: Any, file: str, stage: str, damage: str
) -> None:
    """What comes out is the same to the byte, so that nothing after it has to be repeated."""
    if damage == "gone":
        (copied / file).unlink()
    else:
        (copied / file).write_bytes((copied / file).read_bytes()[:-1] + b"?")
    listener = announced()
    run_recipe(finished.recipe, copied, listener)
    assert listener.begun == [stage]
    if file != "report.html":  # it tells how long the stages took, this one anew
        assert (copied / file).read_bytes() == (finished.folder / file).read_bytes()


def test_a_damaged_model_is_trained_and_compared_again(
    finished: Any, copied: Path, announced: Any
) -> None:
    weights = copied / "train/selected/model/model.safetensors"
    expected = weights.read_bytes()
    weights.write_bytes(expected[:-1])
    listener = announced()
    run_recipe(finished.recipe, copied, listener)
    assert listener.begun == ["train-selected", "evaluate", "report"]  # the log holds new seconds
    assert weights.read_bytes() == expected


def test_a_stage_that_comes_out_otherwise_repeats_what_follows(
    finished: Any, copied: Path, announced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change in a package that scoring uses, which no hash sees."""
    (copied / "scores.parquet").unlink()
    score = Scorer.ifd

    def halved(self: Scorer, *words: Any, **options: Any) -> pa.Table:
        found = score(self, *words, **options)
        place = found.schema.get_field_index("ifd_ppl")
        return found.set_column(place, "ifd_ppl", pa.array(np.array(found["ifd_ppl"]) / 2))

    monkeypatch.setattr(Scorer, "ifd", halved)
    listener = announced()
    run_recipe(finished.recipe, copied, listener)
    assert listener.begun == ["score", *AFTER_SCORE]


def test_interrupted_scoring_goes_on(
    finished: Any, tmp_path: Path, announced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "score" and done >= SHARD_SIZE:
            raise KeyboardInterrupt

    folder = tmp_path / "small"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(finished.recipe, folder, announced(interrupt))
    assert not (folder / "scores.parquet").exists()
    assert len(list(folder.glob("scores.parts/*/*.parquet"))) == 1
    check_goes_on(finished, folder, announced, monkeypatch)


_KILLED = """
import os, signal, sys
from codeact.pipeline import selection_stages
from codeact.pipeline.recipe import load_recipe
from codeact.pipeline.run import run_recipe

class Killer:
    def begin(self, stage):
        def on_progress(done, total):
            if stage.name == "score" and done >= 10:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_progress
    def end(self, stage, summary): pass
    def skip(self, stage): pass

selection_stages.SHARD_SIZE = 10
run_recipe(load_recipe(sys.argv[1]), sys.argv[2], Killer())
"""


def test_killed_scoring_goes_on(
    finished: Any, tmp_path: Path, announced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "recipe.yaml", finished.recipe.to_yaml())
    folder = tmp_path / "small"
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "recipe.yaml"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / "scores.parquet").exists()
    check_goes_on(finished, folder, announced, monkeypatch)


def check_goes_on(
    finished: Any, folder: Path, announced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard is not scored again, and the table is that of a run without a break."""
    score, scored = Scorer.ifd, []

    def counting(self: Scorer, examples: Any, **options: Any) -> pa.Table:
        scored.append(len(examples))
        return score(self, examples, **options)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "embed":
            raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "ifd", counting)
    listener = announced(stop)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(finished.recipe, folder, listener)
    assert listener.skipped == ["load", "decontaminate"]
    assert sum(scored) == NUM_EXAMPLES - SHARD_SIZE
    whole = finished.folder / "scores.parquet"
    assert (folder / "scores.parquet").read_bytes() == whole.read_bytes()
    assert not (folder / "scores.parts").exists()


def test_a_budget_above_the_set_is_refused_before_scoring(
    finished: Any, tmp_path: Path, announced: Any
) -> None:
    listener = announced()
    with pytest.raises(InputError, match=r"budget must be a count from 1 to 32 .*, got 33"):
        run_recipe(changed(finished.recipe, select={"budget": 33}), tmp_path / "new", listener)
    assert listener.begun == ["load", "decontaminate"]


def test_the_authors_rule_may_keep_too_little(finished: Any, copied: Path, announced: Any) -> None:
    """``int(eligible * budget)`` is 0 in every cluster."""
    recipe = changed(finished.recipe, select={"budget": 0.01, "options": {"exact_budget": False}})
    with pytest.raises(InputError, match=r"select\.budget = 0\.01 keeps none of 32 rows: the"):
        run_recipe(recipe, copied, announced())


def test_a_run_that_cannot_begin_leaves_no_folder(
    finished: Any, tmp_path: Path, announced: Any
) -> None:
    recipe = changed(finished.recipe, data={"source": str(tmp_path / "none.jsonl")})
    with pytest.raises(InputError, match=r"none\.jsonl: file not found"):
        run_recipe(recipe, tmp_path / "runs/new", announced())
    assert not (tmp_path / "runs/new").exists()
