"""One whole run on a tiny model, and an announcer that can stop one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from codeact.pipeline import selection_stages
from codeact.pipeline.recipe import Recipe, load_recipe
from codeact.pipeline.run import run_recipe
from codeact.pipeline.stage import Stage
from codeact.progress import OnProgress

NUM_OK, NUM_HELD_OUT, SHARD_SIZE = 40, 8, 10


class Announced:
    """An announcer that writes down what it hears; ``on_progress`` may stop the run."""

    def __init__(self, on_progress: Callable[[str, int, int], None] | None = None) -> None:
        self.begun: list[str] = []
        self.skipped: list[str] = []
        self.summaries: dict[str, str] = {}
        self._on_progress = on_progress

    def begin(self, stage: Stage) -> OnProgress:
        self.begun.append(stage.name)

        def progress(done: int, total: int) -> None:
            assert 0 <= done <= total
            if self._on_progress is not None:
                self._on_progress(stage.name, done, total)

        return progress

    def end(self, stage: Stage, summary: str) -> None:
        self.summaries[stage.name] = summary

    def skip(self, stage: Stage) -> None:
        self.skipped.append(stage.name)


class Finished(NamedTuple):
    folder: Path
    recipe: Recipe
    announced: Announced


def write_rows(path: Path) -> None:
    """40 rows that can be used, and four that cannot, between them."""
    rng = np.random.default_rng(0)
    words = ["list", "sum", "graph", "sort", "prime", "node", "text", "value"]
    pairs = [
        ("Write " + " ".join(rng.choice(words, rng.integers(2, 8))),
         "return " + " + ".join(rng.choice(words, rng.integers(1, 9))))
        for _ in range(NUM_OK)
    ]  # fmt: skip
    pairs[3:3] = [("no answer", ""), ("too long", "x" * 500)]
    pairs[20:20] = [("", "no instruction"), ("no answer again", "")]
    rows = [
        {"id": f"row-{row}", "instruction": question, "output": answer, "extra": [row]}
        for row, (question, answer) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """One thread, since matrices of 32 columns are slower on two, and four shards of scores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_stages, "SHARD_SIZE", SHARD_SIZE)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="package")
def _every_run_is_forecast() -> Iterator[None]:
    """As only long ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeact.pipeline.training_stages._WORTH_A_FORECAST", 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    """A run from beginning to end; tests that write work in a copy."""
    folder = tmp_path_factory.mktemp("runs")
    write_rows(folder / "rows.jsonl")
    recipe = load_recipe(
        None,
        [
            "name=small",
            f"model.name={tiny_model_folder}",
            "model.device=cpu",
            f"data.source={folder / 'rows.jsonl'}",
            f"data.num_held_out={NUM_HELD_OUT}",
            "data.max_tokens=220",
            "embed.model=scoring-model",
            "select.num_clusters=3",
            "select.budget=0.5",
            "pack.capacity=300",
            "train.learning_rate=1e-3",
            "evaluate.num_resamples=100",
        ],
    )
    announced = Announced()
    assert run_recipe(recipe, folder / "small", announced) == folder / "small/report.html"
    return Finished(folder / "small", recipe, announced)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The finished run with its time stamps, for tests that change it."""
    return Path(shutil.copytree(finished.folder, tmp_path / "small"))


@pytest.fixture
def announced() -> type[Announced]:
    """The announcer's class: ``announced()`` listens, ``announced(function)`` may stop a run."""
    return Announced
