"""Rows, a tiny model and what the earlier verbs leave, for commands run in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from codeact.cli import main


def quietly(*words: str | Path) -> None:
    """A command that must work, outside of a test."""
    with one_thread():
        assert main([str(word) for word in words]) == 0


class Done(NamedTuple):
    """What a command left: its exit status and what it wrote to both streams."""

    status: int
    out: str
    err: str


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices of 32 columns are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def codeact(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs ``codeact`` in this process."""

    def run(*words: str | Path) -> Done:
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Done(status, out, err)

    return run


def write_rows(path: Path, num_rows: int, seed: int = 0) -> Path:
    """Rows whose texts differ in length and content."""
    rng = np.random.default_rng(seed)
    words = ["list", "sum", "graph", "sort", "prime", "node", "text", "value"]
    rows = [
        {
            "id": f"row-{row}",
            "instruction": "Write " + " ".join(rng.choice(words, rng.integers(2, 7))),
            "output": "return " + " + ".join(rng.choice(words, rng.integers(1, 8))),
            "kept_as_is": row,
        }
        for row in range(num_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 rows as JSON lines."""
    return write_rows(tmp_path_factory.mktemp("cli") / "rows.jsonl", 12)


@pytest.fixture(scope="session")
def scores_file(rows_file: Path, tiny_model_folder: Path) -> Path:
    """What ``codeact score`` writes about ``rows_file``."""
    path = rows_file.with_name("scores.parquet")
    quietly("score", rows_file, "--model", tiny_model_folder, "--output", path)
    return path


@pytest.fixture(scope="session")
def embeddings_file(rows_file: Path, tiny_model_folder: Path) -> Path:
    """What ``codeact embed`` writes about ``rows_file``."""
    path = rows_file.with_name("embeddings.npy")
    quietly("embed", rows_file, "--model", tiny_model_folder, "--output", path)
    return path


@pytest.fixture(scope="session")
def recipe_file(rows_file: Path, tiny_model_folder: Path) -> Path:
    """A run of seconds: two optimizer steps an arm."""
    path = rows_file.with_name("recipe.yaml")
    path.write_text(
        f"name: tiny\n"
        f"model: {{name: {tiny_model_folder}, device: cpu}}\n"
        f"data: {{source: {rows_file}, num_held_out: 3, max_tokens: 200}}\n"
        f"embed: {{model: scoring-model}}\n"
        f"select: {{num_clusters: 2, budget: 4}}\n"
        f"pack: {{capacity: 300}}\n"
        f"train: {{max_steps: 2}}\n"
        f"evaluate: {{num_resamples: 100}}\n"
    )
    return path


@pytest.fixture(scope="session")
def bad(tmp_path_factory: pytest.TempPathFactory, rows_file: Path, tiny_model_folder: Path) -> Path:
    """A folder of things that a command must refuse."""
    folder = tmp_path_factory.mktemp("bad")
    good = '{"instruction": "add", "output": "a + b"}\n'
    texts = {
        "empty.jsonl": "",
        "broken.jsonl": good + "\n" + '{"instruction": "add", \n',
        "fields.jsonl": '{"foo": 1, "bar": "x"}\n',
        "type.jsonl": good + '{"instruction": 5, "output": "x"}\n',
        "no_object.jsonl": good + "[1]\n",
        "no_answers.jsonl": '{"instruction": "add", "output": ""}\n' * 3,
        "rows.csv": "instruction,output\n",
        "key.yaml": "train:\n  epoch: 3\n",
        "type.yaml": "train:\n  epochs: many\n",
        "list.yaml": "- name\n",
        "broken.yaml": "name: [\n",
        "no_data.yaml": "data: {source: none.jsonl}\nmodel: {device: cpu}\n",
        "a file": "",
        "text.npy": "no matrix",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin1.jsonl").write_bytes('{"instruction": "für", "output": "x"}\n'.encode("latin-1"))
    (folder / "folder").mkdir()
    write_rows(folder / "other.jsonl", 12, seed=1)
    write_rows(folder / "fewer.jsonl", 7)
    np.save(folder / "fewer.npy", np.eye(7, dtype=np.float32))
    np.save(folder / "nan.npy", np.full((12, 4), np.nan, dtype=np.float32))
    np.save(folder / "flat.npy", np.zeros(12, dtype=np.float32))
    (folder / "empty.npy").write_bytes(b"")
    _bad_models(folder, tiny_model_folder)
    return folder


def _bad_models(folder: Path, good: Path) -> None:
    left_out = {
        "no_tokenizer": ("tokenizer.json", "tokenizer_config.json"),
        "no_config": ("config.json",),
        "no_weights": ("model.safetensors",),
    }
    for name, files in left_out.items():
        shutil.copytree(good, folder / name, ignore=lambda _, names, files=files: [*files])
    for name, file in (
        ("broken_weights", "model.safetensors"),
        ("broken_config", "config.json"),
        ("broken_tokenizer", "tokenizer.json"),
    ):
        shutil.copytree(good, folder / name)
        (folder / name / file).write_bytes((good / file).read_bytes()[:100])
