"""Many strings and n-grams looked for in many texts, in one pass over each text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codeact import _C

_WORD = re.compile(r"[a-z0-9_]+")
_MAX_INT32 = 2**31 - 1


class TextMatches(NamedTuple):
    """What occurs where.

    Attributes:
        found: (num_found, 2) int32 rows of text and pattern, ascending; each pair once.
        overlaps: (num_overlaps, 3) int32 rows of text, document, and how many different n-grams of
            the document the text holds; ascending.
    """

    found: npt.NDArray[np.int32]
    overlaps: npt.NDArray[np.int32]


def flat_text(text: str) -> str:
    """The text in lower case, runs of white space as one space, none at the ends."""
    return " ".join(text.lower().split())


def words_of(text: str) -> list[str]:
    """The words ``[a-z0-9_]+`` of a text in lower case."""
    return _WORD.findall(text.lower())


class TextIndex:
    """Patterns and documents, prepared to be looked for in any number of texts.

    Patterns are found exactly, as strings in strings, after :func:`flat_text` on both. A document
    is the set of its n-grams of words, each known by a 64-bit hash: two different n-grams are taken
    for each other with a chance of 2^-64 a pair. The pass over a text costs about one look-up in a
    cached bitmap a byte, however many patterns and documents there are.

    Args:
        patterns: Strings that hold more than white space; equal ones are all found.
        documents: Strings, also empty ones.
        ngram: Words in an n-gram, at least 1.

    Attributes:
        num_ngrams: (num_documents,) int32, how many different n-grams each document has.

    Raises:
        ValueError: A pattern of white space only, ``ngram`` below 1, or more than 2 GiB.
    """

    def __init__(self, patterns: Sequence[str], documents: Sequence[str], *, ngram: int) -> None:
        self._index, self.num_ngrams = _C.text_index(
            [_encoded(text) for text in patterns], [_encoded(text) for text in documents], ngram
        )

    def find(
        self, texts: Sequence[str], *, needed: npt.ArrayLike = 1, num_threads: int = 1
    ) -> TextMatches:
        """Every pattern that a text holds, and every document it shares enough n-grams with.

        Args:
            texts: At most 2 GiB.
            needed: N-grams that a document must share to be named, at least 1: one number, or
                (num_documents,) integers. Numbers above 2**31 - 1 count as that.
            num_threads: The result does not depend on it.

        Raises:
            ValueError: ``needed`` is below 1, no whole numbers, or not one for each document.
        """
        least = np.broadcast_to(np.asarray(needed), self.num_ngrams.shape)
        if least.size and least.dtype.kind not in "iu":
            raise ValueError(f"needed must be whole numbers, got {least.dtype}")
        if least.size and least.min() < 1:
            raise ValueError(f"needed must be at least 1, got {least.min()}")
        least = np.ascontiguousarray(np.minimum(least, _MAX_INT32), dtype=np.int32)
        encoded = [_encoded(text) for text in texts]
        return TextMatches(*_C.find_texts(self._index, encoded, least, num_threads))


def _encoded(text: str) -> bytes:
    if text.isascii():  # the native pass lowers these itself
        return text.encode("ascii")
    return text.lower().encode("utf-8", "surrogatepass")  # JSON can hold half a pair


def find_texts_reference(
    patterns: Sequence[str],
    documents: Sequence[str],
    texts: Sequence[str],
    *,
    ngram: int,
    needed: npt.ArrayLike = 1,
) -> TextMatches:
    """The definition of :meth:`TextIndex.find`: two loops over texts and strings."""
    flat = [flat_text(pattern) for pattern in patterns]
    wanted = [_ngrams(document, ngram) for document in documents]
    least = np.broadcast_to(np.asarray(needed), len(documents)).tolist()
    found, overlaps = [], []
    for number, text in enumerate(texts):
        row, grams = flat_text(text), _ngrams(text, ngram)
        found += [(number, index) for index, pattern in enumerate(flat) if pattern in row]
        shared = [len(grams & document) for document in wanted]
        overlaps += [
            (number, index, count)
            for index, count in enumerate(shared)
            if count >= max(1, least[index])
        ]
    return TextMatches(
        np.asarray(found, dtype=np.int32).reshape(-1, 2),
        np.asarray(overlaps, dtype=np.int32).reshape(-1, 3),
    )


def _ngrams(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)}
