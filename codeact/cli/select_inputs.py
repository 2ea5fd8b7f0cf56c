"""What ``codeact select`` reads: scores, matrices, strata, all of the data's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from codeact.cli.score_columns import Column, ScoreColumns, check_count, read_scores
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.data import Examples
    from codeact.selection.candidates import Candidates


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

    @property
    def all_scores(self) -> tuple[Path, ...]:
        """Every scores table, that of the weaker model too: each has cost something."""
        return self.scores if self.weak_scores is None else (*self.scores, self.weak_scores)

    def check_use(self, methods: Sequence[str]) -> None:
        """Refuse a file that none of the methods reads.

        Raises:
            InputError: There is one.
        """
        from codeact.selection.registry import METHODS

        read = {name for method in methods for name in METHODS[method].inputs}
        read |= {name for method in methods for name in METHODS[method].optional}
        inputs = {
            "queries": "queries", "weak_scores": "weak_rmi", "reference": "reference",
            "strata": "strata",
        }  # fmt: skip
        for option, name in inputs.items():
            if getattr(self, option) is not None and name not in read:
                words = f"--{option.replace('_', '-')}"
                raise InputError(f"{words} has no use: {' and '.join(methods)} do without")

    def read(
        self,
        examples: Examples,
        data: str,
        needed: Iterable[Sequence[str]],
        columns: Mapping[str, str] | None = None,
    ) -> Candidates:
        """All that is known of the rows of ``data``.

        Args:
            examples: The rows.
            data: Where they are from, for errors.
            needed: Score columns that each method reads, refused here if they cannot be used.
            columns: Of ``data``, and so of a subset of it.

        Raises:
            InputError: A file is missing, broken, or about other rows.
        """
        from codeact.selection.candidates import Candidates

        ids = list(examples.ids)
        table = read_scores(self.scores, ids, data)
        groups = [list(names) for names in needed]
        table.settle(*groups)
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
            known["reference"] = read_reference(self.reference, ids, data, columns)
        if self.strata is not None:
            known["strata"] = read_strata(self.strata, examples)
        if any(name.startswith("influence") for names in groups for name in names):
            known |= task_influence(table)
        return Candidates(ids=ids, columns=table.columns, **known)


def read_matrix(path: Path, option: str) -> Column:
    """A matrix of vectors.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    try:
        matrix = np.load(path)
    except (OSError, EOFError, ValueError, BadZipFile) as error:
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
    check_count(len(matrix), num_rows, data, path, "--embeddings")
    return matrix


def read_reference(
    path: Path, ids: Sequence[str], data: str, columns: Mapping[str, str] | None = None
) -> np.ndarray[Any, Any]:
    """Row indices of a subset, by the ids in its file, whose columns have the names of the data's.

    Raises:
        InputError: It cannot be read, is empty, or has a row that the data has not.
    """
    from codeact.data import load_examples

    place = {id_: row for row, id_ in enumerate(ids)}
    names = load_examples(path, columns=columns).ids
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


def task_influence(table: ScoreColumns) -> dict[str, Any]:
    """The columns ``influence_<task>`` as one matrix and the names of the tasks, if there are any.

    Columns of one checkpoint, ``influence_<task>@<checkpoint>``, are no tasks of their own: their
    mean is there beside them.

    Raises:
        InputError: A column differs between tables.
    """
    prefix = "influence_"
    names = [name for name in table.columns if name.startswith(prefix) and "@" not in name]
    if not names:
        return {}
    table.settle(names)
    matrix = np.stack([table.columns[name] for name in names], axis=1)
    return {
        "task_influence": matrix,
        "task_names": [name.removeprefix(prefix) for name in names],
    }


def count_tokens(examples: Examples, tokenizer: str) -> tuple[Column, Column]:
    """Tokens of prompt and response of each row, by the chat template of a model's tokenizer."""
    from codeact.data import tokenize_examples
    from codeact.models import load_tokenizer

    tokens = tokenize_examples(examples, load_tokenizer(tokenizer), max_length=2**31 - 1)
    responses = tokens.num_response_tokens.astype(np.int64)
    return tokens.seqlens - responses, responses
