"""Where a match found in flattened text stands in the row as it was written."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from codeact.ops.text_match import words_of

_WORD = re.compile(r"[a-z0-9_]+")
_BETWEEN = "\n\n"
_SHOWN = 200


class Excerpt(NamedTuple):
    """A place in a row.

    Attributes:
        field: ``instruction``, ``response``, or ``both``: from the one into the other.
        start: Characters of the field before it (of the instruction, for ``both``).
        end: Characters of the field up to its end (of the response, for ``both``).
        excerpt: The text there, at most 200 characters.
    """

    field: str
    start: int
    end: int
    excerpt: str


class RowText:
    """A row's text, instruction, empty line and response, and the way back from flattened text."""

    def __init__(self, instruction: str, response: str) -> None:
        self.text = instruction + _BETWEEN + response
        self._split = len(instruction) + len(_BETWEEN)

    @cached_property
    def _lowered(self) -> str:
        return self.text.lower()

    @cached_property
    def _origins(self) -> Sequence[int]:
        """For each lowered character the one it comes from: "İ" alone becomes two."""
        if len(self._lowered) == len(self.text):
            return range(len(self.text))
        return [at for at, letter in enumerate(self.text) for _ in letter.lower()]

    @cached_property
    def _pieces(self) -> list[tuple[int, int]]:
        """Spans in the lowered text of what stands between white space."""
        return [match.span() for match in re.finditer(r"\S+", self._lowered)]

    def find(self, wanted: str) -> Excerpt:
        """The first place of a flattened text that the row holds."""
        flat = " ".join(self._lowered[start:end] for start, end in self._pieces)
        lengths = (end - start + 1 for start, end in self._pieces)
        flat_starts = list(accumulate(lengths, initial=0))[:-1]
        first = flat.index(wanted)

        def lowered_place(place: int) -> int:
            piece = bisect_right(flat_starts, place) - 1
            return self._pieces[piece][0] + place - flat_starts[piece]

        return self._excerpt(lowered_place(first), lowered_place(first + len(wanted) - 1) + 1)

    def longest_run(self, document: str, ngram: int) -> Excerpt:
        """The longest run of words all of whose n-grams the document has; the row holds one."""
        known = set(_windows(words_of(document), ngram))
        spans = [match.span() for match in _WORD.finditer(self._lowered)]
        run, longest, last = 0, 0, 0  # in windows
        for window, words in enumerate(_windows([self._lowered[a:b] for a, b in spans], ngram)):
            run = run + 1 if words in known else 0
            if run > longest:
                longest, last = run, window
        return self._excerpt(spans[last - longest + 1][0], spans[last + ngram - 1][1])

    def _excerpt(self, start: int, end: int) -> Excerpt:
        """The place of a span of the lowered text, which neither begins nor ends in white space."""
        start, end = self._origins[start], self._origins[end - 1] + 1
        shown = self.text[start:end][:_SHOWN]
        if end <= self._split - len(_BETWEEN):
            return Excerpt("instruction", start, end, shown)
        if start >= self._split:
            return Excerpt("response", start - self._split, end - self._split, shown)
        return Excerpt("both", start, end - self._split, shown)


def _windows(words: list[str], width: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + width]) for at in range(len(words) - width + 1)]
