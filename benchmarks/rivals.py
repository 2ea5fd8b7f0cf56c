"""Other projects' packers, called the way they are fastest; what is not installed is left out.

Each takes lengths and gives bins of indices. Conversions that a rival's interface needs are done
before the clock starts, so that its own work is timed and nothing else.
"""

from __future__ import annotations

import importlib
from collections import defaultdict, deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int32]
Bins = list[list[int]]
# Axolotl's defaults: sample_packing_group_size, sample_packing_bin_size.
GROUP_SIZE, SEQS_PER_BIN = 100_000, 200
TRL_WINDOW = 1000  # rows that datasets.map hands to TRL's packer at a time


def missing(*packages: str) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if find_spec(package) is None]


def first_fit(seqlens: Lengths, capacity: int, group_size: int, seqs_per_bin: int) -> Lengths:
    """The bin of each sequence by first fit in the given order, as Axolotl's multipack sampler.

    Written from the description of the algorithm: sequences come in groups, nothing is sorted,
    each goes to the first bin of its group that has the tokens and a free place; a linear scan
    over the open bins finds it. Compiled by :func:`compiled_first_fit`.

    Args:
        seqlens: (num_seqs,) int32.
        capacity: tokens a bin may hold.
        group_size: sequences packed together.
        seqs_per_bin: most sequences a bin may hold.

    Returns:
        (num_seqs,) int32 bin numbers, counted on from group to group.
    """
    num_seqs = len(seqlens)
    assigned = np.empty(num_seqs, dtype=np.int32)
    free = np.empty(min(group_size, num_seqs), dtype=np.int64)
    held = np.empty(min(group_size, num_seqs), dtype=np.int64)
    first_bin = 0
    for begin in range(0, num_seqs, group_size):
        num_bins = 0
        for seq in range(begin, min(begin + group_size, num_seqs)):
            seqlen = seqlens[seq]
            place = num_bins
            for candidate in range(num_bins):
                if free[candidate] >= seqlen and held[candidate] < seqs_per_bin:
                    place = candidate
                    break
            if place == num_bins:
                free[place], held[place] = capacity, 0
                num_bins += 1
            free[place] -= seqlen
            held[place] += 1
            assigned[seq] = first_bin + place
        first_bin += num_bins
    return assigned


def compiled_first_fit() -> Callable[[Lengths, int, int, int], Lengths]:
    """:func:`first_fit` as machine code; needs numba."""
    compiled: Callable[[Lengths, int, int, int], Lengths] = importlib.import_module("numba").njit(
        first_fit
    )
    return compiled


def lightbinpack_obfd(seqlens: Lengths, capacity: int) -> Callable[[], Bins]:
    """LightBinPack's best fit decreasing by counting sort; it wants a list of Python integers."""
    obfd = importlib.import_module("lightbinpack").obfd
    lengths = seqlens.tolist()
    return lambda: obfd(lengths, capacity)


def trl_loop(seqlens: Lengths, capacity: int) -> Callable[[], Bins]:
    """The packing loop of TRL's ``bfd`` alone, with TRL's own tree of free spaces.

    ``_pack_bfd`` moves the tokens in the same function; this leaves that out, as the other packers
    here move none. The tree answers which of the spaces in use is the smallest that holds a
    length; its root for an empty bin is always in it.
    """
    tree_of = importlib.import_module("trl.data_utils")._SegmentTree
    order = np.argsort(-seqlens, kind="stable").tolist()
    lengths = seqlens.tolist()

    def pack() -> Bins:
        tree, with_space = tree_of(capacity), defaultdict(deque)
        tree.add(capacity)
        bins: Bins = []
        for seq in order:
            space = tree.search(lengths[seq])
            if space == capacity:
                held: list[int] = []
                bins.append(held)
            else:
                held = with_space[space].popleft()
                if not with_space[space]:
                    tree.remove(space)
            held.append(seq)
            if left := space - lengths[seq]:
                with_space[left].append(held)
                tree.add(left)
        return bins

    return pack


def trl_windows(seqlens: Lengths, capacity: int) -> Callable[[], list[Any]]:
    """TRL's ``_pack_bfd`` as it ships, in windows of 1,000 rows whose tokens are one byte each."""
    import pyarrow as pa

    pack = importlib.import_module("trl.data_utils")._pack_bfd
    offsets = np.concatenate([[0], np.cumsum(seqlens, dtype=np.int64)])
    values = pa.array(np.zeros(offsets[-1], dtype=np.int8))
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    table = pa.table({"input_ids": tokens})
    windows = [table.slice(row, TRL_WINDOW) for row in range(0, len(seqlens), TRL_WINDOW)]
    return lambda: [pack(part, capacity) for part in windows]


def trl_rows(
    offsets: NDArray[np.int64], capacity: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows that TRL's ``pack_dataset`` makes of a flat store, by its default strategy.

    What it packs are positions in the store instead of tokens, so that ids and labels follow from
    its answer.

    Args:
        offsets: (num_examples + 1,) int64.
        capacity: TRL's ``max_length``.

    Returns:
        For each row, positions (num_tokens,) in the flat arrays and the lengths of its sequences.
    """
    import datasets
    import pyarrow as pa

    positions = pa.array(np.arange(offsets[-1], dtype=np.int64))
    column = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), positions)
    datasets.disable_progress_bars()
    data = datasets.Dataset(pa.table({"input_ids": column}))
    pack = importlib.import_module("trl").pack_dataset
    packed = pack(data, capacity, map_kwargs={"keep_in_memory": True}).with_format("numpy")
    return [(row["input_ids"], row["seq_lengths"]) for row in packed]
