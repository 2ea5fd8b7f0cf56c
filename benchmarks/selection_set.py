"""A made-up instruction set of any size as its user has it: JSONL, a scores table, embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_data import made_embeddings

_BLOCK = 65_536  # rows made at a time: 192 MiB of 768 float32
_WORDS = "sort merge parse graph index queue matrix string cache tree token search buffer prime"
_LANGUAGES = ("python", "javascript", "java", "go", "rust", "cpp")


class SelectionSet(NamedTuple):
    """The files."""

    rows: Path
    scores: Path
    embeddings: Path


def write_selection_set(folder: Path, num_rows: int, dim: int, seed: int = 0) -> SelectionSet:
    """Writes the three files into ``folder``.

    Lengths are log-normal, and IFD follows them.
    """
    files = SelectionSet(*(folder / name for name in ("rows.jsonl", "scores.parquet", "e.npy")))
    rng = np.random.default_rng(seed)
    _write_vectors(files.embeddings, num_rows, dim)
    prompts = np.clip(rng.lognormal(4.0, 0.6, num_rows), 4, 900).astype(np.int32)
    answers = np.clip(rng.lognormal(5.2, 0.7, num_rows), 4, 1800).astype(np.int32)
    ifd = 0.1 * np.log(answers) + rng.normal(0.1, 0.12, num_rows)
    table = {
        "id": [f"row-{row:07d}" for row in range(num_rows)],
        "num_prompt_tokens": prompts,
        "num_response_tokens": answers,
        "ifd_ppl": np.abs(ifd),
        "status": ["ok"] * num_rows,
    }
    pq.write_table(pa.table(table), files.scores)
    words = _WORDS.split()
    with files.rows.open("w") as lines:
        for row, (prompt, answer) in enumerate(
            zip(prompts.tolist(), answers.tolist(), strict=True)
        ):
            language = _LANGUAGES[row % len(_LANGUAGES)]
            text = " ".join(words[(row + step) % len(words)] for step in range(min(prompt, 40)))
            code = f"```{language}\n" + "x = 1\n" * min(answer // 3, 60) + "```"
            example = {"id": f"row-{row:07d}", "instruction": f"{text} {row}", "output": code}
            lines.write(json.dumps(example) + "\n")
    return files


def _write_vectors(path: Path, num_rows: int, dim: int) -> None:
    out = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, dim))
    for part, start in enumerate(range(0, num_rows, _BLOCK)):
        size = min(_BLOCK, num_rows - start)
        out[start : start + size] = made_embeddings(size, dim, part)
    out.flush()
