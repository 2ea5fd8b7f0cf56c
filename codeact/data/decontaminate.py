"""Find training rows that hold benchmark tasks, in one native pass over the rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.data.benchmarks import Benchmark, BenchmarkTask, find_benchmarks, read_benchmark
from codeact.data.example import Example
from codeact.data.excerpt import RowText
from codeact.errors import InputError
from codeact.ops.text_match import TextIndex, flat_text, words_of
from codeact.progress import OnProgress

__all__ = [
    "Benchmark",
    "BenchmarkTask",
    "Decontamination",
    "Hit",
    "decontaminate",
    "find_benchmarks",
    "read_benchmark",
]

# Shorter texts ("return x + y", "return len(string)") are idioms, not tasks. The reference keeps a
# list of four of HumanEval's solutions for this.
_MIN_WORDS = 5
# A task needs some n-grams before a share of them means anything: one idiom is one of two.
_MIN_NGRAMS = 8
_ROWS_PER_STEP = 1024
_MATCH_SHOWN = 80
_NEVER = 2**31 - 1


class Hit(NamedTuple):
    """Why a row goes.

    Attributes:
        id: The row.
        benchmark: Name of the benchmark.
        task_id: Its task.
        rule: ``substring`` or ``ngram``.
        match: The beginning of the text found, or how many n-grams of the task the row holds.
        field: Where the match is: ``instruction``, ``response``, or ``both`` where it runs from
            the one into the other. Under the n-gram rule it is the longest run of words that the
            task has too.
        start: Offset of its beginning in the characters of the field, or of the instruction.
        end: Offset of its end in the characters of the field, or of the response.
        excerpt: What the row says there, at most 200 characters.
    """

    id: str
    benchmark: str
    task_id: str
    rule: str
    match: str
    field: str
    start: int
    end: int
    excerpt: str


@dataclass(frozen=True, eq=False)
class Decontamination:
    """Outcome of :func:`decontaminate`.

    Attributes:
        kept: (num_kept,) int64 positions of the rows without a hit, ascending.
        hits: Every task that a row holds, once, by its text rather than by its n-grams. In the
            order of the rows; within one, texts in the order of the tasks, then n-grams by share.
        counts: Rows hit by each benchmark compared with, zeros included.
    """

    kept: NDArray[np.int64]
    hits: tuple[Hit, ...]
    counts: dict[str, int]

    @cached_property
    def removed(self) -> tuple[Hit, ...]:
        """One hit for each row and benchmark: by text before n-grams, then the largest share."""
        first: dict[tuple[str, str], Hit] = {}
        for hit in self.hits:
            first.setdefault((hit.id, hit.benchmark), hit)
        return tuple(first.values())

    @property
    def num_removed(self) -> int:
        """Rows with at least one hit; a row may hit several benchmarks."""
        return len({hit.id for hit in self.hits})


def decontaminate(
    examples: Sequence[Example],
    benchmarks: Sequence[Benchmark],
    *,
    ngram: int = 10,
    ngram_share: float = 0.5,
    num_threads: int = 1,
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
        benchmarks: From :func:`find_benchmarks` or :func:`read_benchmark`; an empty list keeps
            every row.
        ngram: Words in a sequence, at least 1.
        ngram_share: In (0, 1].
        num_threads: Of the native pass; the result does not depend on it.
        on_progress: Called with rows done and in all.

    Raises:
        InputError: ``ngram``, ``ngram_share`` or ``num_threads`` out of range.
    """
    if not 1 <= ngram < 2**31:
        raise InputError(f"ngram must be at least 1, got {ngram}")
    if not 0 < ngram_share <= 1:
        raise InputError(f"ngram_share must lie in (0, 1], got {ngram_share}")
    if not 1 <= num_threads <= 1024:
        raise InputError(f"num_threads must be from 1 to 1024, got {num_threads}")
    index = _Index(benchmarks, ngram, ngram_share)
    hits: list[Hit] = []
    kept: list[int] = []
    for start in range(0, len(examples), _ROWS_PER_STEP):
        stop = min(start + _ROWS_PER_STEP, len(examples))
        rows = [examples[row] for row in range(start, stop)]
        found = index.find(rows, num_threads)
        for row in sorted(found):
            hits += index.hits(rows[row], found[row])
        kept += (start + row for row in range(len(rows)) if row not in found)
        if on_progress is not None:
            on_progress(stop, len(examples))
    pairs = Counter(name for name, _ in {(hit.benchmark, hit.id) for hit in hits})
    counts = {benchmark.name: pairs[benchmark.name] for benchmark in benchmarks}
    return Decontamination(np.asarray(kept, dtype=np.int64), tuple(hits), counts)


class _Found(NamedTuple):
    """A task in a row: by ``text``, or by ``shared`` n-grams where that is None."""

    task: int
    text: str | None
    shared: int


class _Index:
    """Texts and n-grams of all tasks; tasks of two benchmarks may have the same text."""

    def __init__(self, benchmarks: Sequence[Benchmark], ngram: int, ngram_share: float) -> None:
        self.tasks = [(b.name, task) for b in benchmarks for task in b.tasks]
        owners: dict[str, dict[int, None]] = {}  # a dict in place of a set: in order
        for number, (_, task) in enumerate(self.tasks):
            for text in map(flat_text, task.texts):
                if len(words_of(text)) >= _MIN_WORDS:
                    owners.setdefault(text, {})[number] = None
        self.texts = list(owners)
        self.owners = [list(numbers) for numbers in owners.values()]
        self.ngram = ngram
        documents = [task.document for _, task in self.tasks]
        self.matcher = TextIndex(self.texts, documents, ngram=ngram)
        self.num_ngrams: list[int] = self.matcher.num_ngrams.tolist()
        self.needed = [_needed(ngram_share, total) for total in self.num_ngrams]

    def find(self, rows: Sequence[Example], num_threads: int) -> dict[int, list[_Found]]:
        """Tasks by row, each once: those found by a text in order, then by n-grams, most first."""
        texts = [f"{row.instruction}\n\n{row.response}" for row in rows]
        matches = self.matcher.find(texts, needed=self.needed, num_threads=num_threads)
        found: dict[int, dict[int, _Found]] = {}
        for row, number in matches.found.tolist():
            for task in self.owners[number]:
                found.setdefault(row, {}).setdefault(task, _Found(task, self.texts[number], 0))
        for row, task, shared in matches.overlaps.tolist():
            found.setdefault(row, {}).setdefault(task, _Found(task, None, shared))
        return {row: sorted(tasks.values(), key=self._rank) for row, tasks in found.items()}

    def _rank(self, found: _Found) -> tuple[bool, float, int]:
        share = found.shared / max(self.num_ngrams[found.task], 1)
        return found.text is None, -share, found.task

    def hits(self, row: Example, found: Sequence[_Found]) -> Iterator[Hit]:
        """What was found in a row, with the place."""
        text = RowText(row.instruction, row.response)
        for task, wanted, shared in found:
            name, owner = self.tasks[task]
            if wanted is not None:
                rule, match, place = "substring", wanted[:_MATCH_SHOWN], text.find(wanted)
            else:
                rule = "ngram"
                match = f"{shared} of {self.num_ngrams[task]} {self.ngram}-grams"
                place = text.longest_run(owner.document, self.ngram)
            yield Hit(row.id, name, owner.task_id, rule, match, *place)


def _needed(share: float, num_ngrams: int) -> int:
    """The smallest count that is at least a share of all."""
    if num_ngrams < _MIN_NGRAMS:
        return _NEVER
    least = max(1, math.floor(share * num_ngrams))
    return least if least >= share * num_ngrams else least + 1
