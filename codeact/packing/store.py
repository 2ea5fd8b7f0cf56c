"""Where tokens are kept: flat arrays in memory, in files or in Arrow, none of it copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.files import replacing_folder
from codeact.ops.gather import TOKEN_DTYPES
from codeact.packing.arrow import flat_column
from codeact.packing.checks import checked_tokens
from codeact.packing.scored import count_scored, prompt_seqlens

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

TokenArray = NDArray[np.integer[Any]]

_FILES = ("input_ids", "labels", "offsets")


class TokenStore(Protocol):
    """Tokenised examples: ``store[i]`` has ``input_ids`` and ``labels``, or is a dict of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@runtime_checkable
class FlatStore(Protocol):
    """Tokenised examples end to end: example k is ``[offsets[k], offsets[k + 1])`` of the arrays.

    ``TokenizedExamples`` is one, :class:`FlatTokens` makes one of files, Arrow tables and rows.
    """

    input_ids: TokenArray
    labels: TokenArray
    offsets: NDArray[np.int64]

    def __len__(self) -> int: ...


class TokenRow(NamedTuple):
    """One example: views of a store, both (seqlen,) integers."""

    input_ids: TokenArray
    labels: TokenArray


class FlatTokens:
    """Examples end to end in two arrays, which may be memory maps or Arrow buffers.

    Attributes:
        input_ids: (total,) int16, uint16, int32, uint32 or int64.
        labels: (total,) of these too, aligned with ``input_ids``, unshifted, ``IGNORE_INDEX`` where
            a token carries no loss.
        offsets: (num_examples + 1,) int64.

    Raises:
        InputError: an array of another shape or kind, or offsets that fall or leave the arrays.
    """

    def __init__(self, input_ids: TokenArray, labels: TokenArray, offsets: Any) -> None:
        self.input_ids, self.labels = input_ids, labels
        self.offsets: NDArray[np.int64] = np.asarray(offsets, dtype=np.int64)
        self._folder: Path | None = None
        for name, array in (("input_ids", input_ids), ("labels", labels)):
            if array.ndim != 1 or array.dtype not in TOKEN_DTYPES:
                kinds = ", ".join(dtype.name for dtype in TOKEN_DTYPES)
                raise InputError(
                    f"{name} must be a row of {kinds}, got {array.dtype} of shape {array.shape}"
                )
        if len(input_ids) != len(labels):
            raise InputError(
                f"labels must be as long as input_ids ({len(input_ids)} tokens), got {len(labels)}"
            )
        bounds = self.offsets
        falls = bounds.ndim != 1 or len(bounds) == 0 or bool((np.diff(bounds) < 0).any())
        if falls or bounds[0] < 0 or bounds[-1] > len(input_ids):
            raise InputError(
                f"offsets must rise within the {len(input_ids)} tokens, one more than examples"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> TokenRow:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        index %= len(self)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return TokenRow(self.input_ids[span], self.labels[span])

    def __iter__(self) -> Iterator[TokenRow]:
        return (self[index] for index in range(len(self)))

    @property
    def seqlens(self) -> NDArray[np.int32]:
        """(num_examples,) int32 tokens of each example."""
        return np.diff(self.offsets).astype(np.int32)

    @cached_property
    def num_scored(self) -> NDArray[np.int32]:
        """(num_examples,) int32 labels that carry a loss; the first of an example never does."""
        return count_scored(self.labels, self.offsets[:-1], self.offsets[1:])

    @cached_property
    def prompt_seqlens(self) -> NDArray[np.int32]:
        """(num_examples,) int32 tokens before the first scored one; all of them without any."""
        return prompt_seqlens(self.labels, self.offsets[:-1], self.offsets[1:])

    @classmethod
    def from_rows(cls, rows: Iterable[Any]) -> FlatTokens:
        """Copies rows that have ``input_ids`` and ``labels`` (attributes or keys), as int32."""
        ids, labels, offsets = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [0]
        for index, row in enumerate(rows):
            columns = [
                checked_tokens(f"{name} of row {index}", part)
                for name, part in zip(_FILES, row_columns(row), strict=False)
            ]
            if columns[0].shape != columns[1].shape:
                raise InputError(
                    f"row {index} needs labels as long as input_ids, got shapes "
                    f"{columns[0].shape} and {columns[1].shape}"
                )
            ids.append(columns[0])
            labels.append(columns[1])
            offsets.append(offsets[-1] + len(columns[0]))
        return cls(np.concatenate(ids), np.concatenate(labels), offsets)

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table | datasets.Dataset,
        *,
        input_ids: str = "input_ids",
        labels: str | None = "labels",
    ) -> FlatTokens:
        """The token columns of an Arrow table or a Hugging Face dataset.

        Nothing is copied from columns in one chunk, and memory-mapped tables stay on disk. Columns
        in several chunks (a dataset of several files) are concatenated, and so are a dataset's rows
        after ``select``, ``shuffle`` or ``filter``; save the result and open it again to have it
        on disk.

        Args:
            table: with list columns (``list`` or ``large_list``) of integers, no nulls.
            input_ids: name of the column of tokens.
            labels: name of the column of labels; None scores every token.

        Raises:
            InputError: a column is missing or of another type, has nulls, or labels differ in
                length from input_ids.
        """
        if hasattr(table, "with_format"):
            table = table.with_format("arrow")[:]
        ids, offsets = flat_column(table, input_ids)
        if labels is None:
            return cls(ids, ids, offsets)
        label_values, label_offsets = flat_column(table, labels)
        if not np.array_equal(offsets, label_offsets):
            row = int((np.diff(offsets) != np.diff(label_offsets)).argmax())
            raise InputError(f"row {row} of {labels!r} is not as long as that of {input_ids!r}")
        return cls(ids, label_values, offsets)

    def save(self, folder: str | Path) -> None:
        """Write ``input_ids.npy``, ``labels.npy`` and ``offsets.npy``: all of them or nothing.

        Raises:
            InputError: the folder exists and is not empty.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} must not exist yet, or be empty")
        with replacing_folder(folder) as temporary:
            for name in _FILES:
                np.save(temporary / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def open(cls, folder: str | Path) -> FlatTokens:
        """Map what :meth:`save` wrote; tokens are read from disk when a batch asks for them.

        Raises:
            InputError: a file is missing or broken.
        """
        folder = Path(folder)
        try:
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES]
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} cannot be opened: {error}") from None
        # np.asarray drops the subclass: slices of np.memmap are ten times as slow.
        store = cls(*(np.asarray(array) for array in arrays))
        store._folder = folder.absolute()
        return store

    def __reduce__(self) -> Any:
        """A worker process maps the files again instead of receiving the tokens."""
        if self._folder is not None:
            return FlatTokens.open, (self._folder,)
        return FlatTokens, (self.input_ids, self.labels, self.offsets)


def row_columns(row: Any) -> tuple[Any, Any]:
    """``input_ids`` and ``labels`` of a row of a store, which is an object or a dict."""
    if isinstance(row, Mapping):
        return row["input_ids"], row["labels"]
    return row.input_ids, row.labels
