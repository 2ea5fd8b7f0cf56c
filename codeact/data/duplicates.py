"""Rows that say the same as another row, and which one of them stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.data.example import Example
from codeact.data.shingles import (
    Shingles,
    buckets,
    jaccard,
    rows_in_a_band,
    shingles_of,
    signatures,
)
from codeact.errors import InputError
from codeact.ops.text_match import flat_text
from codeact.progress import OnProgress

On = Literal["both", "instruction", "response"]
_ROWS_PER_STEP = 1024
_SHINGLES_HELD = 1 << 14  # texts whose shingles stay in memory while candidates are compared


class Duplicate(NamedTuple):
    """A row that goes.

    Attributes:
        id: The row.
        kept: Id of the row that stays in its place.
        rule: ``exact`` where both are equal in lower case and up to white space, else ``near``.
        similarity: Jaccard similarity of the two. Below the threshold where the row is tied to the
            kept one through others between them.
    """

    id: str
    kept: str
    rule: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Outcome of :func:`find_duplicates`.

    Attributes:
        kept: (num_kept,) int64 positions of the rows that stay, ascending.
        groups: (num_examples,) int64: for each row the position of the one that stays for it, its
            own where it stays itself.
        removed: The rows that go, in their order.
    """

    kept: NDArray[np.int64]
    groups: NDArray[np.int64]
    removed: tuple[Duplicate, ...]


def find_duplicates(
    examples: Sequence[Example],
    *,
    threshold: float = 0.7,
    on: On = "both",
    shingle_words: int = 5,
    num_perm: int = 128,
    seed: int = 42,
    on_progress: OnProgress | None = None,
) -> Duplicates:
    """Group rows that are copies or nearly so, and keep one of each group.

    Two rows are tied if their text is equal in lower case with runs of white space as one space, or
    if the Jaccard similarity of their sets of 5-word runs is at least ``threshold``, the rule of
    BigCode (StarCoder, arXiv:2305.06161). Candidates come from MinHash signatures (datasketch) in
    bands, and each is then compared exactly: no pair is tied by chance, and a pair just at the
    threshold is overlooked with a probability of at most 1 % (of others less, the more alike they
    are). Groups are what ties connect, so that two ends of a chain may be less alike than the
    threshold. The row with the longest response stays; of equally long ones the first by the text
    of response and instruction, then by id. The order of the rows changes nothing, as long as their
    ids stay theirs.

    Args:
        examples: ``Examples`` or any sequence of them.
        threshold: In (0, 1].
        on: Which text counts: instruction and response, or one of them. Rows where it is empty are
            kept.
        shingle_words: Words in a run, at least 1; a text of fewer words is one run.
        num_perm: Columns of a signature, at least 16: more find pairs at the threshold as surely
            with fewer comparisons.
        seed: Of the signatures.
        on_progress: Called with rows signed and in all.

    Raises:
        InputError: An option out of range.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must lie in (0, 1], got {threshold}")
    if on not in ("both", "instruction", "response"):
        raise InputError(f"on must be both, instruction or response, got {on!r}")
    if shingle_words < 1:
        raise InputError(f"shingle_words must be at least 1, got {shingle_words}")
    if not 16 <= num_perm <= 4096:
        raise InputError(f"num_perm must be from 16 to 4096, got {num_perm}")
    texts = [flat_text(_text(example, on)) for example in examples]
    equal: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        if text:
            equal[text].append(row)
    different = list(equal)
    signed = _sign(different, shingle_words, num_perm, seed, on_progress)
    roots = _tie(different, signed, threshold, shingle_words)
    groups = np.arange(len(texts))
    members: dict[int, list[int]] = defaultdict(list)
    for root, rows in zip(roots, equal.values(), strict=True):
        members[root] += rows
    for rows in members.values():
        groups[rows] = min(rows, key=lambda row: _preference(examples[row]))
    return _outcome(examples, texts, groups, shingle_words)


def _text(example: Example, on: On) -> str:
    if on == "both":
        return f"{example.instruction}\n\n{example.response}"
    return example.instruction if on == "instruction" else example.response


def _preference(example: Example) -> tuple[int, str, str, str]:
    """Smaller goes first: the longest response, then what does not depend on the row's place."""
    return -len(example.response), example.response, example.instruction, example.id


def _sign(
    texts: Sequence[str],
    width: int,
    num_perm: int,
    seed: int,
    on_progress: OnProgress | None,
) -> NDArray[np.uint64]:
    parts = [np.empty((0, num_perm), dtype=np.uint64)]
    for start in range(0, len(texts), _ROWS_PER_STEP):
        step = texts[start : start + _ROWS_PER_STEP]
        parts.append(signatures(step, width, num_perm, seed))
        if on_progress is not None:
            on_progress(start + len(step), len(texts))
    return np.concatenate(parts)


def _tie(
    texts: Sequence[str], signed: NDArray[np.uint64], threshold: float, width: int
) -> list[int]:
    """For each text the number of its group: that of one of its members."""
    parents = list(range(len(texts)))

    def root(text: int) -> int:
        while parents[text] != text:
            parents[text] = parents[parents[text]]
            text = parents[text]
        return text

    @lru_cache(maxsize=_SHINGLES_HELD)
    def shingles(text: int) -> Shingles:
        return shingles_of(texts[text], width)

    apart: set[tuple[int, int]] = set()  # compared and found different
    for bucket in buckets(signed, rows_in_a_band(threshold, signed.shape[1])):
        members = bucket.tolist()
        for place, a in enumerate(members):
            for b in members[place + 1 :]:
                if (a, b) in apart or root(a) == root(b):
                    continue
                if jaccard(shingles(a), shingles(b)) >= threshold:
                    parents[root(a)] = root(b)
                else:
                    apart.add((a, b))
    return [root(text) for text in range(len(texts))]


def _outcome(
    examples: Sequence[Example], texts: Sequence[str], groups: NDArray[np.int64], width: int
) -> Duplicates:
    removed = []
    for row in np.flatnonzero(groups != np.arange(len(groups))).tolist():
        kept = int(groups[row])
        exact = texts[row] == texts[kept]
        alike = 1.0 if exact else jaccard(*(shingles_of(texts[at], width) for at in (row, kept)))
        rule = "exact" if exact else "near"
        removed.append(Duplicate(examples[row].id, examples[kept].id, rule, alike))
    positions = np.flatnonzero(groups == np.arange(len(groups)))
    return Duplicates(positions, groups, tuple(removed))
