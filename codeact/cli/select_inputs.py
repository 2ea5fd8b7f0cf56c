"""What ``codeact select`` reads: scores, matrices, strata, all of the data's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.data import Examples
    from codeact.selection.candidates import Candidates

Column = np.ndarray[Any, Any]

# What tables of different presets count alike; where they differ by their cut, the first counts.
_COUNTS = ("num_prompt_tokens", "num_response_tokens")


@dataclass
class ScoreColumns:
    """The number columns of one or several scores tables.

    Attributes:
        columns: (num_rows,) float64 by name, NaN for null.
        unusable: Why a column that is there cannot be used, by name.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path, table: Mapping[str, Sequence[Any]]) -> None:
        """Take the columns of a further table."""
        for name, values in table.items():
            numbers = _numbers(values)
            if numbers is None:
                self.unusable[name] = f"column {name} of {path} holds values that are no numbers"
            elif name not in self.columns:
                self.columns[name] = numbers
            elif name not in _COUNTS and not np.array_equal(
                self.columns[name], numbers, equal_nan=True
            ):
                self.unusable[name] = f"column {name} differs between the tables of --scores"

    def check(self, names: Iterable[str]) -> None:
        """Refuse columns that cannot be used.

        Raises:
            InputError: One of ``names`` cannot.
        """
        for name in names:
            if name in self.unusable:
                raise InputError(f"{self.unusable[name]}; give the one table that is meant")

    def required(self, name: str, path: Path) -> Column:
        """A column that has to be there.

        Raises:
            InputError: It is not, or cannot be used.
        """
        self.check([name])
        if name not in self.columns:
            raise InputError(f"{path} lacks the column {name}")
        return self.columns[name]

    def tokens(self) -> tuple[Column, Column] | None:
        """Tokens of prompt and response; None without both columns in full."""
        if not all(name in self.columns for name in _COUNTS):
            return None
        prompts, responses = (self.columns[name] for name in _COUNTS)
        if np.isnan(prompts).any() or np.isnan(responses).any():
            return None
        return prompts.astype(np.int64), responses.astype(np.int64)


@dataclass(frozen=True)
class SelectFiles:
    """What the user named, read by :meth:`read`; the options of the command have these names."""

    scores: tuple[Path, ...]
    embeddings: Path | None
    queries: Path | None
    weak_scores: Path | None
    reference: Path | None
    strata: str | None
    tokenizer: str | None

    def read(self, examples: Examples, data: str, needed: Iterable[str]) -> Candidates:
        """All that is known of the rows of ``data``.

        Args:
            examples: The rows.
            data: Where they are from, for errors.
            needed: Columns that will be read, refused here if they cannot be.

        Raises:
            InputError: A file is missing, broken, or about other rows.
        """
        from codeact.selection.candidates import Candidates

        ids = list(examples.ids)
        table = read_scores(self.scores, ids, data)
        table.check(needed)
        tokens = table.tokens()
        if tokens is None and self.tokenizer is not None:
            tokens = count_tokens(examples, self.tokenizer)
        known: dict[str, Any] = {}
        if tokens is not None:
            # Of a row without any text as well, a model gets at least the end of sequence.
            known["num_tokens"] = np.maximum(tokens[0] + tokens[1], 1)
            known["response_tokens"] = tokens[1]
        if self.embeddings is not None:
            known["embeddings"] = read_embeddings(self.embeddings, len(ids), data)
        if self.queries is not None:
            known["queries"] = read_matrix(self.queries, "--queries")
        if self.weak_scores is not None:
            weak = read_scores([self.weak_scores], ids, data, "--weak-scores")
            known["weak_rmi"] = weak.required("rmi", self.weak_scores)
        if self.reference is not None:
            known["reference"] = read_reference(self.reference, ids, data)
        if self.strata is not None:
            known["strata"] = read_strata(self.strata, examples)
        return Candidates(ids=ids, columns=table.columns, **known)


def read_scores(
    paths: Sequence[Path], ids: Sequence[str], data: str, option: str = "--scores"
) -> ScoreColumns:
    """The columns of all tables, each of which holds the rows of the data in their order.

    Raises:
        InputError: A table is missing or broken, or has other rows; file, option and row are named.
    """
    scores = ScoreColumns()
    for path in paths:
        table = _read_columns(path)
        _check_rows(table.pop("id"), ids, data, path, option)
        scores.add(path, table)
    return scores


def _read_columns(path: Path) -> dict[str, Sequence[Any]]:
    """Every column of a Parquet or JSONL table; at least ``id``."""
    from codeact.files import read_jsonl, read_parquet

    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        read_parquet(path, ["id"])  # its errors name the file
        table = pq.read_table(path)
        # Losses of single tokens are the bulk of a table and no score.
        names = [field.name for field in table.schema if not hasattr(field.type, "value_type")]
        return {name: table[name].to_pylist() for name in names}
    rows = list(read_jsonl(path))
    names = list(dict.fromkeys(["id", *(name for row in rows[:1] for name in row)]))
    for number, row in enumerate(rows, start=1):
        if "id" not in row:
            raise InputError(f"{path} row {number} lacks the field id")
    return {name: [row.get(name) for row in rows] for name in names}


def _numbers(values: Sequence[Any]) -> Column | None:
    """float64 with NaN for null; None when a value is something else."""
    if any(isinstance(value, (str, bool, list, dict)) for value in values):
        return None
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _check_rows(
    names: Sequence[str], ids: Sequence[str], data: str, path: Path, option: str
) -> None:
    _check_count(len(names), len(ids), data, path, option)
    for row, (id_, other) in enumerate(zip(ids, names, strict=True)):
        if id_ != other:
            raise InputError(
                f"{option} must hold the rows of {data} in their order, but row {row} is {id_!r} "
                f"there and {other!r} in {path}"
            )


def _check_count(count: int, wanted: int, data: str, path: Path, option: str) -> None:
    if count != wanted:
        raise InputError(f"{option} must hold the {wanted} rows of {data}, got {count} in {path}")


def read_matrix(path: Path, option: str) -> Column:
    """A matrix of vectors.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    try:
        matrix = np.load(path)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{option} {path} cannot be read as .npy: {reason}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        raise InputError(f"{option} {path} must hold one matrix, a vector a row")
    return matrix


def read_embeddings(path: Path, num_rows: int, data: str) -> Column:
    """The matrix of the data's rows.

    Raises:
        InputError: It cannot be read or has another number of rows.
    """
    matrix = read_matrix(path, "--embeddings")
    _check_count(len(matrix), num_rows, data, path, "--embeddings")
    return matrix


def read_reference(path: Path, ids: Sequence[str], data: str) -> np.ndarray[Any, Any]:
    """Row indices of a subset, by the ids in its file.

    Raises:
        InputError: It cannot be read, is empty, or has a row that the data has not.
    """
    from codeact.data import load_examples

    place = {id_: row for row, id_ in enumerate(ids)}
    names = load_examples(path).ids
    unknown = [name for name in names if name not in place]
    if unknown:
        raise InputError(
            f"--reference must hold rows of {data}, but {unknown[0]!r} of {path} is none"
        )
    return np.array([place[name] for name in names], dtype=np.int64)


def read_strata(name: str, examples: Examples) -> list[str]:
    """The value of a field of each row, or its language where that is asked for.

    Raises:
        InputError: No row has the field.
    """
    if name == "language":
        from codeact.data.language import detect_language

        return [detect_language(example) for example in examples]
    if not any(name in example.fields for example in examples):
        known = ", ".join(dict.fromkeys(key for example in examples for key in example.fields))
        raise InputError(
            f"--strata must be language or a field of the rows ({known}), got {name!r}"
        )
    return [str(example.fields.get(name, "")) for example in examples]


def count_tokens(examples: Examples, tokenizer: str) -> tuple[Column, Column]:
    """Tokens of prompt and response of each row, by the chat template of a model's tokenizer."""
    from codeact.data import tokenize_examples
    from codeact.models import load_tokenizer

    tokens = tokenize_examples(examples, load_tokenizer(tokenizer), max_length=2**31 - 1)
    responses = tokens.num_response_tokens.astype(np.int64)
    return tokens.seqlens - responses, responses
