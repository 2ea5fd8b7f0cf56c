"""One training record, and an immutable list of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from codeact.files import replacing


class Message(NamedTuple):
    """One turn of a conversation; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A training record.

    Attributes:
        id: Unique in its set.
        messages: The turns in order. An instruction and its response are two of them.
        fields: The row as it came, so that a subset can be written back unchanged.
    """

    id: str
    messages: tuple[Message, ...]
    fields: Mapping[str, Any]

    @property
    def instruction(self) -> str:
        """System and user turns before the last assistant turn, joined by a newline."""
        before = self.messages[: self._last_assistant()]
        return "\n".join(turn.content for turn in before if turn.role != "assistant")

    @property
    def response(self) -> str:
        """The last assistant turn, ``""`` if there is none."""
        last = self._last_assistant()
        return self.messages[last].content if last < len(self.messages) else ""

    def _last_assistant(self) -> int:
        """Index of the last assistant turn, the number of turns if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "assistant":
                return index
        return len(self.messages)


class Examples(Sequence[Example]):
    """Immutable sequence of examples with unique ids.

    Args:
        examples: The records, in order.
        source: The path or id they came from; words for a reader, not a key.

    Raises:
        ValueError: Two records carry the same id.
    """

    def __init__(self, examples: Sequence[Example], source: str) -> None:
        self._examples = tuple(examples)
        self.source = source
        first: dict[str, int] = {}
        for index, example in enumerate(self._examples):
            if first.setdefault(example.id, index) != index:
                raise ValueError(
                    f"examples must have unique ids, {example.id!r} is at "
                    f"{first[example.id]} and {index}"
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids in order."""
        return tuple(example.id for example in self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self._examples[index], self.source)
        return self._examples[index]

    def __repr__(self) -> str:
        return f"Examples({len(self)} from {self.source})"

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Examples:
        """The examples at ``indices``, in that order.

        Args:
            indices: 1-D integers in [0, len(self)), without repeats.

        Raises:
            ValueError: ``indices`` is a boolean mask or holds another type than integers, repeats
                one or leaves the range.
        """
        positions = as_indices(indices, len(self))
        return Examples([self._examples[position] for position in positions], self.source)

    def content_hash(self) -> str:
        """sha256 (hex) over ids and messages in order; the other fields do not count."""
        digest = hashlib.sha256()
        for example in self._examples:
            # JSON quotes every string, so that no two different rows give the same bytes.
            digest.update(json.dumps([example.id, example.messages]).encode("ascii") + b"\n")
        return digest.hexdigest()

    def write_jsonl(self, path: str | Path) -> None:
        """Write one JSON object a line: the original fields plus ``id``.

        The file appears whole or not at all (temporary name, then rename). A name ending in
        ``.gz`` is compressed, with no time stamp, so that equal sets give equal bytes. Values that
        JSON does not know (dates of a Parquet file) are written as their ``str``.
        """
        path = Path(path)
        with replacing(path) as temporary, temporary.open("wb") as file:
            if path.suffix != ".gz":
                self._write_lines(file)
                return
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                self._write_lines(packed)

    def _write_lines(self, out: IO[bytes] | gzip.GzipFile) -> None:
        """Line by line: the text of a whole set need not fit in memory a second time."""
        for example in self:
            out.write(_json_line({**example.fields, "id": example.id}))


def _json_line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, legal in JSON as an escape only
        return json.dumps(row, default=str).encode("ascii") + b"\n"


def as_indices(indices: Sequence[int] | NDArray[np.integer[Any]], size: int) -> list[int]:
    """Checked positions as Python integers (see :meth:`Examples.select`)."""
    array = np.asarray(indices)
    if array.size == 0:
        return []
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"indices must be 1-D integers, got {array.ndim}-D {array.dtype}")
    if array.min() < 0 or array.max() >= size:
        raise ValueError(
            f"indices must lie in [0, {size}), got {int(array.min())} to {int(array.max())}"
        )
    positions: list[int] = array.tolist()
    return positions
