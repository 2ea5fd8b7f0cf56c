"""What selections kept of each part of a set, and how much they have in common: counts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError

NUM_BANDS = 10


@dataclass(frozen=True)
class GroupCounts:
    """Rows of each group, and how many of them each selection kept.

    Attributes:
        groups: Names, in the order in which they are shown.
        sizes: (num_groups,) int64 rows of the set.
        kept: (num_groups,) int64 for each selection, by its name.
    """

    groups: tuple[str, ...]
    sizes: NDArray[np.int64]
    kept: Mapping[str, NDArray[np.int64]]

    def shares(self, selection: str) -> NDArray[np.float64]:
        """(num_groups,) share of each group that a selection kept; every group has a row."""
        shares: NDArray[np.float64] = self.kept[selection] / self.sizes
        return shares


def count_by_group(
    groups: Sequence[str], selections: Mapping[str, ArrayLike], *, order: Sequence[str] = ()
) -> GroupCounts:
    """Count.

    Args:
        groups: (num_rows,) the group of each row.
        selections: Row indices that were kept, by the name of the selection.
        order: The groups that come first, in this order; the others follow by falling size, then
            by name. Groups without a row are left out.
    """
    names, codes, sizes = np.unique(
        np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
    )
    first = {name: place for place, name in enumerate(order)}
    shown = sorted(
        range(len(names)),
        key=lambda code: (first.get(str(names[code]), len(first)), -sizes[code], names[code]),
    )
    kept = {
        name: np.bincount(codes[np.asarray(rows, dtype=np.int64)], minlength=len(names))[shown]
        for name, rows in selections.items()
    }
    return GroupCounts(tuple(str(names[code]) for code in shown), sizes[shown], kept)


@dataclass(frozen=True)
class Bands:
    """Rows by the tenth of a number that they are in.

    Attributes:
        labels: (num_rows,) name of the band of each row.
        order: Names of the bands, from low to high, then that of rows without a number.
    """

    labels: tuple[str, ...]
    order: tuple[str, ...]


def decile_bands(
    values: ArrayLike, *, whole: bool = False, missing: str = "none", num_bands: int = NUM_BANDS
) -> Bands:
    """Cut rows into bands of equal size by a number; equal numbers share a band.

    An edge is the smallest value with at least its share of the rows at or below it, so that there
    are fewer bands where many rows are equal. A band is named after the smallest and the largest
    number in it.

    Args:
        values: (num_rows,) numbers, NaN where there is none.
        whole: They are counts.
        missing: Name of the band of rows without a number.
        num_bands: Most bands.
    """
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return Bands((missing,) * len(numbers), (missing,))
    ordered = np.sort(numbers[finite])
    # Rows at or below each edge, in integers: shares as floats would round past one of them.
    places = -(-np.arange(1, num_bands) * len(ordered) // num_bands) - 1
    edges = np.unique(ordered[np.maximum(places, 0)])
    codes = np.searchsorted(edges, numbers, side="left")
    inside = {code: numbers[finite & (codes == code)] for code in np.unique(codes[finite]).tolist()}
    ends = [(float(band.min()), float(band.max())) for band in inside.values()]
    names = dict(zip(inside, _names(ends, whole), strict=True))
    labels = tuple(
        names[code] if known else missing
        for code, known in zip(codes.tolist(), finite.tolist(), strict=True)
    )
    order = tuple(names.values())
    return Bands(labels, order if finite.all() else (*order, missing))


def _names(ends: Sequence[tuple[float, float]], whole: bool) -> list[str]:
    """Lowest and highest number of each band, with as many digits as tell the bands apart."""
    for form in [",.0f"] if whole else [".3g", ".4g", ".6g", ".9g", ".17g"]:
        texts = [[format(end, form).replace("-", "\u2212") for end in pair] for pair in ends]
        names = [low if low == high else f"{low} to {high}" for low, high in texts]
        if len(set(names)) == len(names):
            break
    return names


def jaccard(selections: Mapping[str, ArrayLike], num_rows: int) -> NDArray[np.float64]:
    """(num_selections, num_selections) rows that two selections share, of those in either.

    Args:
        selections: At least one row index each, by name.
        num_rows: Of the set.

    Raises:
        InputError: A selection is empty.
    """
    masks = np.zeros((len(selections), num_rows), dtype=bool)
    for mask, (name, rows) in zip(masks, selections.items(), strict=True):
        mask[np.asarray(rows, dtype=np.int64)] = True
        if not mask.any():
            raise InputError(f"selections[{name!r}] must hold at least one row, got none")
    shared = np.array([[(a & b).sum() for b in masks] for a in masks], dtype=np.float64)
    sizes = np.diag(shared)
    return np.asarray(shared / (sizes[:, None] + sizes[None, :] - shared))


def expected_jaccard(size: int, other: int, num_rows: int) -> float:
    """What two random selections of these sizes share on average, as :func:`jaccard`.

    The expected overlap ``size * other / num_rows`` over the union that it leaves; exact in the
    limit of large sets.
    """
    shared = size * other / num_rows
    return shared / (size + other - shared)
