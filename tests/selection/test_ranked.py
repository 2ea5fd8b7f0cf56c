"""Top IFD, perplexity and length against the published scripts in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.selection import LongestResponse, TokenBudget, TopIFD, TopPerplexity

SCORES = st.lists(
    st.one_of(st.sampled_from([0.5, 0.9, 1.0]), st.floats(0, 2), st.just(math.nan)),
    min_size=1,
    max_size=40,
).filter(lambda scores: not all(map(math.isnan, scores)))


def superfiltering(scores: list[float], count: int, cap: float) -> list[int]:
    """Superfiltering's select_data.py: rows below the threshold, highest first."""
    rows = [row for row, score in enumerate(scores) if score < cap]
    return sorted(rows, key=lambda row: scores[row], reverse=True)[:count]


@given(scores=SCORES, data=st.data(), cap=st.sampled_from([1.0, None]))
def test_top_ifd_is_superfiltering(
    scores: list[float], data: st.DataObject, cap: float | None
) -> None:
    count = data.draw(st.integers(1, len(scores)))
    expected = superfiltering(scores, count, math.inf if cap is None else cap)
    selector = TopIFD(count, cap)
    if len(expected) < count:
        with pytest.raises(InputError, match=f"only {len(expected)} are eligible"):
            selector.fit(scores)
        return
    assert selector.fit(scores).selected_.tolist() == expected


def test_reasons_and_ranks_of_top_ifd() -> None:
    top = TopIFD(1).fit([0.3, None, 1.25, 0.6])
    assert list(top.reasons_) == [
        "dropped: place 2 of 2 by IFD",
        "dropped: no IFD",
        "dropped: IFD 1.25 is not below 1.0",
        "kept: place 1 of 2 by IFD",
    ]
    assert top.ranks_.tolist() == [1, -1, -1, 0]
    report = top.report_
    assert (report.num_examples, report.num_eligible, report.num_kept) == (4, 2, 1)
    with pytest.raises(InputError, match="1 rows have no score, 1 have an IFD of 1 or more"):
        TopIFD(3).fit([0.3, None, 1.25, 0.6])


def test_ties_go_by_name() -> None:
    ids = [f"row-{row}" for row in range(30)]
    order = np.random.default_rng(0).permutation(30)
    kept = TopIFD(7).fit(np.full(30, 0.5), ids=ids)
    again = TopIFD(7).fit(np.full(30, 0.5), ids=[ids[row] for row in order])
    assert order[again.selected_].tolist() == kept.selected_.tolist()


@given(scores=st.lists(st.floats(1, 50), min_size=3, max_size=40, unique=True), data=st.data())
def test_perplexity(scores: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    rising = sorted(range(len(scores)), key=scores.__getitem__)
    highest = TopPerplexity(count).fit(scores)
    assert highest.selected_.tolist() == rising[::-1][:count]
    lowest = TopPerplexity(count, keep="lowest").fit(scores)
    assert lowest.selected_.tolist() == rising[:count]
    middle = TopPerplexity(count, keep="middle").fit(scores)
    # A run of neighbours in rank with as many left out on either side, give or take one.
    places = sorted(rising.index(row) for row in middle.selected_)
    assert places == list(range(places[0], places[0] + count))
    assert abs(places[0] - (len(scores) - 1 - places[-1])) <= 1


def test_longest_response() -> None:
    longest = LongestResponse(2).fit([5, 0, 9, 7, None])
    assert longest.selected_.tolist() == [2, 3]
    assert longest.reasons_[1] == longest.reasons_[4] == "dropped: no response"
    assert longest.report_.num_eligible == 3


def test_longest_leaves_its_input_alone() -> None:
    lengths = np.array([3.0, 0.0, 5.0])
    LongestResponse(1).fit(lengths)
    assert lengths.tolist() == [3.0, 0.0, 5.0]


def test_token_budget_passes_over_what_does_not_fit() -> None:
    top = TopIFD(TokenBudget(10)).fit([0.9, 0.8, 0.7, 0.6], num_tokens=[6, 5, 4, 1])
    assert top.selected_.tolist() == [0, 2]
    assert (top.report_.tokens_kept, top.report_.tokens_asked) == (10, 10)
    assert top.report_.num_asked is None


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: TopIFD(1).fit([0.5, -0.1]), "ifd must be 0 or more, got -0.1 in row 1"),
        (lambda: TopIFD(1, cap=-1.0).fit([0.5]), "cap must be above 0 or None, got -1.0"),
        (lambda: TopPerplexity(1, keep="top").fit([2.0]), "keep must be highest, lowest or middle"),
        (lambda: LongestResponse(1).fit([3, -2]), "response_tokens must be 0 or more, got -2"),
        (lambda: LongestResponse(1).fit([0, 0]), "only 0 are eligible"),
    ],
)
def test_refuses(fit: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit()  # type: ignore[operator]
