"""Rows, a tiny model, what the earlier verbs leave, and a folder of bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from codeact.cli import main


class Done(NamedTuple):
    """What a command left: its exit status and what it wrote to both streams."""

    status: int
    out: str
    err: str


class Places(NamedTuple):
    """What the words of a command may name in braces."""

    rows: Path
    scores: Path
    embeddings: Path
    recipe: Path
    model: Path
    bad: Path
    out: Path


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
def places(
    rows_file: Path,
    scores_file: Path,
    embeddings_file: Path,
    recipe_file: Path,
    tiny_model_folder: Path,
    bad: Path,
    tmp_path: Path,
) -> Places:
    """Good input, bad input, and a folder for output with an old file in it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.jsonl").write_text("old")
    return Places(rows_file, scores_file, embeddings_file, recipe_file, tiny_model_folder, bad, out)


@pytest.fixture
def codeact(places: Places, capfd: pytest.CaptureFixture[str]) -> Callable[[str], Done]:
    """Runs ``codeact`` in this process, on one line of words with places in braces."""

    def run(line: str) -> Done:
        capfd.readouterr()
        status = main([word.format(**places._asdict()) for word in line.split()])
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture
def refused(codeact: Callable[[str], Done], places: Places) -> Callable[[str, str], None]:
    """Asserts that a command ends with status 2, one line on stderr, and no trace of output."""

    def check(line: str, message: str) -> None:
        before = contents(places.out)
        done = codeact(line)
        assert (done.status, done.out) == (2, "")
        # A run says which stages it has finished, a training what it will cost; what went wrong is
        # one line all the same.
        lines = done.err.splitlines(keepends=True)
        words = [text for text in lines if not text.startswith(("✓ ", "before: "))]
        assert len(words) == 1, done.err
        assert words[0].startswith(f"codeact {line.split()[0]}: error: ")
        assert re.search(message, words[0]), words[0]
        assert words[0].endswith("\n")
        assert contents(places.out) == before

    return check


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder with its bytes, hidden ones too."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def write_rows(path: Path, num_rows: int, prefix: str = "row") -> Path:
    """Rows whose texts differ in length and content."""
    rng = np.random.default_rng(0)
    words = ["list", "sum", "graph", "sort", "prime", "node", "text", "value"]
    rows = [
        {
            "id": f"{prefix}-{row}",
            "instruction": "Write " + " ".join(rng.choice(words, rng.integers(2, 7))),
            "output": "return " + " + ".join(rng.choice(words, rng.integers(1, 8))),
            "extra": row,
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
    with one_thread():
        words = ["--model", str(tiny_model_folder), "--output", str(path)]
        assert main(["score", str(rows_file), *words]) == 0
    return path


@pytest.fixture(scope="session")
def embeddings_file(rows_file: Path, tiny_model_folder: Path) -> Path:
    """What ``codeact embed`` writes about ``rows_file``."""
    path = rows_file.with_name("embeddings.npy")
    with one_thread():
        words = ["--model", str(tiny_model_folder), "--output", str(path)]
        assert main(["embed", str(rows_file), *words]) == 0
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
def bad(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
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
        "words.jsonl": "".join(f'{{"id": "row-{i}", "ifd_ppl": "high"}}\n' for i in range(12)),
        "key.yaml": "train:\n  epoch: 3\n",
        "type.yaml": "train:\n  epochs: many\n",
        "list.yaml": "- name\n",
        "broken.yaml": "name: [\n",
        "no_data.yaml": "data: {source: none.jsonl}\nmodel: {device: cpu}\n",
        "text.npy": "no matrix",
        "empty.npy": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    latin1 = '{"instruction": "für", "output": "x"}\n'.encode("latin-1")
    (folder / "latin1.jsonl").write_bytes(latin1)
    (folder / "folder").mkdir()
    write_rows(folder / "other.jsonl", 12, prefix="other")
    write_rows(folder / "fewer.jsonl", 7)
    np.save(folder / "fewer.npy", np.eye(7, dtype=np.float32))
    np.save(folder / "nan.npy", np.full((12, 4), np.nan, dtype=np.float32))
    np.save(folder / "flat.npy", np.zeros(12, dtype=np.float32))
    _write_bad_models(folder, tiny_model_folder)
    return folder


def _write_bad_models(folder: Path, good: Path) -> None:
    left_out = {
        "no_tokenizer": ("tokenizer.json", "tokenizer_config.json"),
        "no_config": ("config.json",),
        "no_weights": ("model.safetensors",),
    }
    for name, files in left_out.items():
        shutil.copytree(good, folder / name, ignore=shutil.ignore_patterns(*files))
    cut = {
        "broken_weights": "model.safetensors",
        "broken_config": "config.json",
        "broken_tokenizer": "tokenizer.json",
    }
    for name, file in cut.items():
        shutil.copytree(good, folder / name)
        (folder / name / file).write_bytes((good / file).read_bytes()[:100])
