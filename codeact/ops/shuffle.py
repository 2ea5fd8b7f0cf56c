"""Random permutations that are the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codeact import _C
from codeact.ops._seqlens import checked_int

_MAX_UINT64 = 2**64 - 1


def shuffled(num_items: int, *, seed: int, epoch: int = 0) -> npt.NDArray[np.int32]:
    """A random permutation of ``0 .. num_items - 1``, a pure function of the three arguments.

    Fisher-Yates: for i = num_items - 1 down to 1, items i and ``floor(u_i (i + 1) / 2**64)``
    change places. ``u_i`` is 64 random bits of the counter-based generator Philox4x32-10 (Salmon
    et al., SC 2011): the first half (i even) or the second (i odd) of the block with ``seed`` as
    key and ``(i // 2, epoch)`` as counter. The result depends on no platform, NumPy version or
    number of cores, and different seeds or epochs share no random bits.

    Args:
        num_items: from 0 to 2**31 - 1.
        seed: from 0 to 2**64 - 1.
        epoch: from 0 to 2**64 - 1.

    Returns:
        (num_items,) int32.

    Raises:
        ValueError: an argument is out of range or no integer.
    """
    return _C.shuffled(
        checked_int("num_items", num_items, least=0),
        checked_int("seed", seed, least=0, most=_MAX_UINT64),
        checked_int("epoch", epoch, least=0, most=_MAX_UINT64),
    )


def shuffled_reference(num_items: int, *, seed: int, epoch: int = 0) -> npt.NDArray[np.int32]:
    """The definition of :func:`shuffled`, one draw at a time."""
    items = list(range(num_items))
    for i in reversed(range(1, num_items)):
        words = philox((i // 2, 0, epoch % 2**32, epoch >> 32), (seed % 2**32, seed >> 32))
        low, high = words[2 * (i % 2) :][:2]
        j = (high << 32 | low) * (i + 1) >> 64
        items[i], items[j] = items[j], items[i]
    return np.array(items, dtype=np.int32)


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of Philox4x32-10: four 32-bit words, low words first in counter and key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = b >> 32 ^ c1 ^ k0, b % 2**32, a >> 32 ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3
