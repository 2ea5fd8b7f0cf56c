"""Token columns of Arrow tables as flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError


def flat_column(table: Any, name: str) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Values and offsets (from 0) of a list column, without a copy if it is one chunk."""
    import pyarrow as pa

    if name not in table.column_names:
        raise InputError(
            f"the table has no column {name!r}, it has {', '.join(table.column_names)}"
        )
    column = table.column(name)
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise InputError(f"column {name!r} must hold lists of integers, got {kind}")
    if column.num_chunks != 1:
        # Offsets of a `list` are 32 bits wide: as `large_list` any number of tokens fits in one.
        large = column.cast(pa.large_list(kind.value_type))
        array = pa.concat_arrays(large.chunks) if large.num_chunks else pa.array([], large.type)
    else:
        array = column.chunk(0)
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    if array.null_count or values.null_count:
        raise InputError(f"column {name!r} must have no nulls")
    return values.to_numpy(zero_copy_only=True), offsets - offsets[0]
