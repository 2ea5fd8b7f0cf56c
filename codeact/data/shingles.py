"""Runs of words that a text is known by, and their MinHash signatures in bands."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
# A pair exactly at the threshold is compared with at least this probability.
_RECALL = 0.99

Shingles = frozenset[tuple[str, ...]]


def shingles_of(text: str, width: int) -> Shingles:
    """The different runs of ``width`` words (``\\w+`` in lower case); all words if they are fewer.

    A text without a word has none.
    """
    words = _WORD.findall(text.lower())
    last = max(len(words) - width, 0) if words else -1
    return frozenset(tuple(words[at : at + width]) for at in range(last + 1))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared shingles over all of both; 0 where one has none."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def signatures(
    texts: Sequence[str], width: int, num_perm: int, seed: int
) -> npt.NDArray[np.uint64]:
    """(num_texts, num_perm) uint64 MinHash signatures (Broder 1997) of the shingles of each text.

    Two texts agree in each column with the probability of their Jaccard similarity. Shingles are
    hashed to 64 bits; equal ones always agree, and a collision only makes two texts look alike.
    """
    from datasketch import MinHash

    hashes = (_shingle_hashes(text, width).tolist() for text in texts)
    made = MinHash.generator(
        hashes, num_perm=num_perm, seed=seed, hashfunc=_itself, scheme="affine64"
    )
    rows = np.empty((len(texts), num_perm), dtype=np.uint64)
    for row, minhash in enumerate(made):
        rows[row] = minhash.hashvalues
    return rows


def _itself(value: int) -> int:
    return value


def _shingle_hashes(text: str, width: int) -> npt.NDArray[np.uint64]:
    words = _WORD.findall(text.lower())
    codes = np.array(
        [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], dtype=np.uint64
    )
    codes = (codes + np.uint64(1)) * _BASE
    codes ^= codes >> np.uint64(32)
    width = min(width, len(words))
    hashes = np.zeros(max(len(words) - width + 1, 0) if words else 0, dtype=np.uint64)
    for shift in range(width):
        hashes = hashes * _BASE + codes[shift : shift + len(hashes)]
    return np.unique(hashes)


def rows_in_a_band(threshold: float, num_perm: int) -> int:
    """Signature columns that must agree together for two texts to be compared.

    The most for which a pair of similarity ``threshold`` agrees in at least one of
    ``num_perm // rows`` bands with a probability of 0.99; the fewest candidates that this allows.
    """
    rows = 1
    while rows < num_perm:
        missed = (1 - threshold ** (rows + 1)) ** (num_perm // (rows + 1))
        if missed > 1 - _RECALL:
            break
        rows += 1
    return rows


def buckets(values: npt.NDArray[np.uint64], rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Band after band, the sets of at least two texts whose columns agree in it."""
    for start in range(0, values.shape[1] - rows + 1, rows):
        band = np.ascontiguousarray(values[:, start : start + rows])
        keys = band.view(np.dtype((np.void, band.itemsize * rows))).ravel()
        _, labels = np.unique(keys, return_inverse=True)
        order = np.argsort(labels, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            if len(members) > 1:
                yield members
