"""Every overflow policy says which tokens it loses, and loses no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.packing.plan import plan_bins
from codeact.packing.spans import OVERFLOWS, Spans


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 25),
    st.sampled_from([policy for policy in OVERFLOWS if policy != "error"]),
    st.integers(1, 3),
)
def test_tokens_are_in_bins_or_counted_as_lost(
    rows: list[tuple[int, float]], capacity: int, overflow: str, world_size: int
) -> None:
    lengths = np.array([length for length, _ in rows])
    prompts = np.array([int(length * share) for length, share in rows])
    try:
        plan = plan_bins(
            lengths, capacity, overflow=overflow, prompt_seqlens=prompts, world_size=world_size
        )
    except InputError as error:
        assert "every rank needs a sequence" in str(error)  # noqa: PT017
        return
    seen = np.concatenate([*plan.epoch(0)])
    seen = seen[seen != plan.spans.filler] if world_size > 1 else seen
    examples, starts, stops = plan.spans.locate(seen)
    counts = [np.zeros(length, dtype=int) for length in lengths]
    for example, start, stop in zip(examples, starts, stops, strict=True):
        assert 0 < stop - start <= capacity
        counts[example][start:stop] += 1
    flat = np.concatenate(counts)
    assert flat.max() == 1
    assert (flat == 0).sum() == plan.num_lost_tokens
    assert flat.sum() == plan.num_tokens
    assert plan.num_empty == (lengths == 0).sum()
    whole = sum(bool(count.all()) and len(count) > 0 for count in counts)
    if overflow != "split":
        assert whole + plan.num_cut + plan.num_dropped + plan.num_empty == len(lengths)
    assert (plan.spans.example[seen] == examples).all()
    assert (plan.spans.start[seen] == starts).all()


def spans_of(lengths: list[int], **options: object) -> list[list[int]]:
    """``[example, start, stop]`` of what bins of 10 tokens hold, by example."""
    plan = plan_bins(lengths, 10, **options)
    seen = np.sort(np.concatenate([*plan.epoch(0)]))
    return np.stack(plan.spans.locate(seen), axis=1).tolist()


def test_split_makes_pieces() -> None:
    assert spans_of([25, 3, 20], overflow="split") == [
        [0, 0, 10], [0, 10, 20], [0, 20, 25], [1, 0, 3], [2, 0, 10], [2, 10, 20],
    ]  # fmt: skip
    assert plan_bins([25, 3, 20], 10, overflow="split").num_cut == 2


def test_truncate_keeps_the_start() -> None:
    assert spans_of([25, 3], overflow="truncate") == [[0, 0, 10], [1, 0, 3]]


def test_truncate_prompt_left_keeps_the_end_or_drops() -> None:
    """20 tokens: 11 of prompt leave a response of 9 and one token to predict it from; 10 do not."""
    plan = plan_bins(
        [20, 20, 20, 5], 10, overflow="truncate_prompt_left", prompt_seqlens=[20, 11, 10, 0]
    )
    kept = spans_of(
        [20, 20, 20, 5], overflow="truncate_prompt_left", prompt_seqlens=[20, 11, 10, 0]
    )
    assert kept == [[0, 10, 20], [1, 10, 20], [3, 0, 5]]
    assert (plan.num_cut, plan.num_dropped, plan.num_lost_tokens) == (2, 1, 40)


def test_drop_is_counted() -> None:
    plan = plan_bins([3, 19, 4, 0], 7, overflow="drop")
    assert sorted(np.concatenate([*plan.epoch(0)]).tolist()) == [0, 2]
    assert (plan.num_dropped, plan.num_empty, plan.num_cut, plan.num_lost_tokens) == (1, 1, 0, 19)


def test_whole_spans_share_the_lengths_memory() -> None:
    lengths = np.arange(1, 9, dtype=np.int32)
    spans = plan_bins(lengths, 10).spans
    assert np.shares_memory(spans.stop, lengths)
    assert spans.start.strides == (0,)
    assert spans.example.tolist() == list(range(8))


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_filler_is_the_last_span(cut: bool) -> None:
    example, start = np.array([4, 4], np.int32), np.array([0, 5], np.int32)
    spans = Spans(example, start, np.array([5, 9], np.int32)) if cut else None
    spans = spans or Spans(None, None, np.array([5, 9], np.int32))
    with_filler = spans.with_filler(1)
    assert (len(with_filler), with_filler.filler) == (3, 2)
    assert with_filler.example.tolist() == ([4, 4, 1] if cut else [0, 1, 1])
    assert with_filler.start.tolist() == ([0, 5, 0] if cut else [0, 0, 0])
    assert with_filler.seqlens.tolist() == ([5, 4, 1] if cut else [5, 9, 1])
    assert with_filler.without_filler().example.tolist() == spans.example.tolist()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, "needs prompt_seqlens"),
        ([1], "must be one for each of 2 examples, got 1"),
        ([1, 12], r"prompt_seqlens\[1\] = 12 is more than seqlens\[1\] = 11"),
        ([1.0, 2.0], "prompt_seqlens must be a non-empty row of integers"),
    ],
)
def test_prompt_lengths_refused(prompts: list[int] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_bins([3, 11], 10, overflow="truncate_prompt_left", prompt_seqlens=prompts)
