"""Find training rows that hold benchmark tasks.

No loop over rows x benchmark strings: words become integers, n-grams become 64-bit hashes, and both
rules are joins of two arrays of hashes. A substring is verified as text where the rarest n-gram
inside it occurs, so the first rule is exact; a false match of the second needs two n-grams with one
64-bit hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.data.benchmarks import Benchmark, BenchmarkTask, find_benchmarks
from codeact.data.example import Example
from codeact.errors import InputError
from codeact.progress import OnProgress

__all__ = [
    "Benchmark",
    "BenchmarkTask",
    "Decontamination",
    "Hit",
    "decontaminate",
    "find_benchmarks",
]

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

_WORD = re.compile(r"[a-z0-9_]+")
# Shorter texts ("return x + y", "return len(string)") are idioms, not tasks. The reference keeps a
# list of four of HumanEval's solutions for this.
_MIN_WORDS = 5
# A task needs some n-grams before a share of them means anything: one idiom is one of two.
_MIN_NGRAMS = 8
_ANCHOR_WORDS = 8
_ROWS_PER_STEP = 1024
_EXCERPT = 80
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Hit(NamedTuple):
    """Why a row goes: ``rule`` is ``substring`` or ``ngram``, ``match`` what was found."""

    id: str
    benchmark: str
    task_id: str
    rule: str
    match: str


@dataclass(frozen=True, eq=False)
class Decontamination:
    """Outcome of :func:`decontaminate`.

    Attributes:
        kept: (num_kept,) int64 positions of the rows without a hit, ascending.
        removed: At most one hit for each row and benchmark, in the order of the rows.
        counts: Rows hit by each benchmark compared with, zeros included.
    """

    kept: Indices
    removed: tuple[Hit, ...]
    counts: dict[str, int]

    @property
    def num_removed(self) -> int:
        """Rows with at least one hit; a row may hit several benchmarks."""
        return len({hit.id for hit in self.removed})


class _Text(NamedTuple):
    """A benchmark string to look for, as :func:`_normalise` leaves it."""

    task: int
    text: str


class _Postings(NamedTuple):
    """Sorted n-gram hashes of ``width`` words, each with one owner; a hash may repeat."""

    width: int
    hashes: Hashes
    owners: Indices


def decontaminate(
    examples: Sequence[Example],
    benchmarks: Sequence[Benchmark],
    *,
    ngram: int = 10,
    ngram_share: float = 0.5,
    on_progress: OnProgress | None = None,
) -> Decontamination:
    """Split a set into rows without and with benchmark material.

    A row is its instruction, an empty line and its response. Two rules remove it:

    - ``substring``, that of StarCoder (arXiv:2305.06161) and Magicoder (arXiv:2312.02120): the
      lower-cased row contains a task's words or its solution. Runs of white space count as one
      space here, so that indenting a solution does not hide it, and texts of fewer than 5 words are
      never looked for, in place of the reference's list of four trivial solutions.
    - ``ngram``: of the different ``ngram``-word sequences of a task's prompt and solution (words
      are lower-cased ``[A-Za-z0-9_]+``), at least ``ngram_share`` occur in the row. A single common
      sequence, the usual rule, also finds idioms such as a primality loop: on real sets it takes
      up to 4 % of the rows, and the strongest of them, read by hand, are no copies. A share finds
      the copy with renamed parts and leaves the idiom. Tasks with fewer than 8 sequences are left
      to the first rule.

    Args:
        examples: ``Examples`` or any sequence of them.
        benchmarks: From :func:`find_benchmarks`; an empty list keeps every row.
        ngram: Words in a sequence, at least 1.
        ngram_share: In (0, 1].
        on_progress: Called with rows done and in all.

    Raises:
        InputError: ``ngram`` or ``ngram_share`` out of range.
    """
    if ngram < 1:
        raise InputError(f"ngram must be at least 1, got {ngram}")
    if not 0 < ngram_share <= 1:
        raise InputError(f"ngram_share must lie in (0, 1], got {ngram_share}")
    index = _Index(benchmarks, ngram)
    removed: list[Hit] = []
    kept: list[int] = []
    for start in range(0, len(examples), _ROWS_PER_STEP):
        stop = min(start + _ROWS_PER_STEP, len(examples))
        rows = [examples[row] for row in range(start, stop)]
        hits = index.find(rows, ngram_share)
        removed += (hit for row in sorted(hits) for hit in hits[row].values())
        kept += (start + row for row in range(len(rows)) if row not in hits)
        if on_progress is not None:
            on_progress(stop, len(examples))
    found = Counter(hit.benchmark for hit in removed)
    counts = {benchmark.name: found[benchmark.name] for benchmark in benchmarks}
    return Decontamination(np.asarray(kept, dtype=np.int64), tuple(removed), counts)


class _Index:
    """N-grams of all tasks, ready to be joined with those of a block of rows."""

    def __init__(self, benchmarks: Sequence[Benchmark], ngram: int) -> None:
        self.tasks = [(b.name, task) for b in benchmarks for task in b.tasks]
        self.vocabulary: dict[str, int] = {}
        documents = [self._learn(_words(_normalise(task.document))) for _, task in self.tasks]
        self.texts = [
            _Text(number, text)
            for number, (_, task) in enumerate(self.tasks)
            for text in map(_normalise, task.texts)
            if len(_words(text)) >= _MIN_WORDS
        ]
        # The first and last word may be part of a longer one in a row; those between are whole.
        inner = [self._learn(_words(text.text)[1:-1]) for text in self.texts]
        self.anchors = _anchors(inner)
        grams = [np.unique(_ngram_hashes(words, ngram)) for words in documents]
        self.num_ngrams = np.asarray([len(found) for found in grams], dtype=np.int64)
        self.ngrams = _postings(ngram, grams)

    def _learn(self, words: list[str]) -> Hashes:
        known = self.vocabulary
        return _mix([known.setdefault(word, len(known) + 1) for word in words])

    def find(self, rows: Sequence[Example], ngram_share: float) -> dict[int, dict[str, Hit]]:
        """Hits by row and benchmark; the substring rule names a hit before the n-gram rule."""
        texts = [_normalise(f"{row.instruction}\n\n{row.response}") for row in rows]
        words = [_words(text) for text in texts]
        known = self.vocabulary
        stream = _mix([known.get(word, 0) for row in words for word in row])
        row_of_word = np.repeat(np.arange(len(rows)), [len(row) for row in words])
        hits: dict[int, dict[str, Hit]] = {}

        def add(row: int, task: int, rule: str, match: str) -> None:
            name, found = self.tasks[task]
            hit = Hit(rows[row].id, name, found.task_id, rule, match)
            hits.setdefault(row, {}).setdefault(name, hit)

        for postings in self.anchors:
            for row, number in _join(postings, stream, row_of_word, len(self.texts)).tolist():
                task, text = self.texts[number]
                if text in texts[row]:
                    add(row, task, "substring", text[:_EXCERPT])
        pairs = _join(self.ngrams, stream, row_of_word, len(self.tasks), distinct_hashes=True)
        pairs, shared = np.unique(pairs, axis=0, return_counts=True)
        total = self.num_ngrams[pairs[:, 1]]
        enough = (shared >= ngram_share * total) & (total >= _MIN_NGRAMS)
        order = np.flatnonzero(enough)
        for pair in order[np.argsort(-shared[order] / total[order], kind="stable")]:
            row, task = pairs[pair].tolist()
            match = f"{shared[pair]} of {total[pair]} {self.ngrams.width}-grams"
            add(row, task, "ngram", match)
        return hits


def _normalise(text: str) -> str:
    return " ".join(text.lower().split())


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _mix(numbers: list[int]) -> Hashes:
    """Scatter word numbers over 64 bits (splitmix64), so that sums of products rarely meet."""
    mixed = np.asarray(numbers, dtype=np.uint64) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _ngram_hashes(words: Hashes, width: int) -> Hashes:
    """Polynomial hash modulo 2^64 of each window of ``width`` words; empty if there is none."""
    num_windows = max(len(words) - width + 1, 0)
    hashes = np.zeros(num_windows, dtype=np.uint64)
    for shift in range(width):
        hashes = hashes * _MULTIPLIER + words[shift : shift + num_windows]
    return hashes


def _postings(width: int, hashes: Sequence[Hashes]) -> _Postings:
    owners = np.repeat(np.arange(len(hashes)), [len(found) for found in hashes])
    flat = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
    order = np.argsort(flat, kind="stable")
    return _Postings(width, flat[order], owners[order])


def _anchors(inner: Sequence[Hashes]) -> list[_Postings]:
    """For each text the window that the fewest other texts have, grouped by width."""
    windows = [_ngram_hashes(words, min(len(words), _ANCHOR_WORDS)) for words in inner]
    frequency = Counter(value for found in windows for value in found.tolist())
    nothing = np.zeros(0, dtype=np.uint64)
    anchors = []
    for width in range(1, _ANCHOR_WORDS + 1):
        chosen = [
            np.asarray([min(found.tolist(), key=frequency.__getitem__)], dtype=np.uint64)
            if min(len(words), _ANCHOR_WORDS) == width
            else nothing
            for words, found in zip(inner, windows, strict=True)
        ]
        postings = _postings(width, chosen)
        if len(postings.hashes):
            anchors.append(postings)
    return anchors


def _join(
    postings: _Postings,
    words: Hashes,
    row_of_word: Indices,
    num_owners: int,
    *,
    distinct_hashes: bool = False,
) -> Indices:
    """(num_pairs, 2) int64 pairs of row and owner that share an n-gram.

    Unique and ordered by row; with ``distinct_hashes`` a pair comes once for each n-gram shared.
    """
    hashes = _ngram_hashes(words, postings.width)
    rows = row_of_word[: len(hashes)]
    whole = rows == row_of_word[postings.width - 1 :][: len(hashes)]  # not across two rows
    first = np.searchsorted(postings.hashes, hashes, side="left")
    last = np.searchsorted(postings.hashes, hashes, side="right")
    windows = np.flatnonzero(whole & (last > first))
    if distinct_hashes:  # a row that repeats an n-gram holds it once
        keys = np.stack([rows[windows], first[windows]], axis=1)
        windows = windows[np.unique(keys, axis=0, return_index=True)[1]]
    repeats = (last - first)[windows]
    ends = np.cumsum(repeats)
    step = np.arange(int(repeats.sum())) - np.repeat(ends - repeats, repeats)
    owners = postings.owners[np.repeat(first[windows], repeats) + step]
    pairs = np.stack([np.repeat(rows[windows], repeats), owners], axis=1)
    return pairs if distinct_hashes else np.unique(pairs, axis=0)
