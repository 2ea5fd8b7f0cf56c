"""Superfiltering.D against its two published steps on plain lists and a full matrix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from codeact.errors import InputError
from codeact.selection import TokenBudget
from codeact.selection.rows import Rows
from codeact.selection.superfilter_d import SuperfilterD


def clustered(num_rows: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 12))[rng.integers(6, size=num_rows)]
    points = (centres + 0.5 * rng.normal(size=(num_rows, 12))).astype(np.float32)
    points = points[Rows(num_rows, content=points).order]  # in the order in which ties go
    ifd = rng.uniform(0.3, 1.3, size=num_rows)
    ifd[[5, 50]] = np.nan
    ifd[60] = 1.0
    return ifd, points


def published(
    ifd: NDArray[np.float64], points: NDArray[np.float32], ifd_num: int, count: int
) -> list[int]:
    """do_ifd, then do_fla by a naive greedy on submodlib's euclidean similarities.

    Of gains equal to 2e-6 the first row comes next: two rows that cover but each other are equal.
    """
    below = [row for row in range(len(ifd)) if ifd[row] < 1]
    listed = sorted(below, key=lambda row: ifd[row], reverse=True)[:ifd_num]
    listed.sort()
    matrix = points[listed].astype(np.float64)
    kernel = np.exp(-cdist(matrix, matrix) / matrix.shape[1])
    chosen: list[int] = []
    covered = np.zeros(len(listed))
    for _ in range(count):
        wins = np.maximum(kernel - covered[:, None], 0).sum(axis=0)
        wins[chosen] = -np.inf
        chosen.append(int(np.argmax(wins >= wins.max() * (1 - (2e-6 if chosen else 0)))))
        covered = np.maximum(covered, kernel[:, chosen[-1]])
    return [listed[place] for place in chosen]


@pytest.mark.parametrize(("budget", "share", "listed"), [(20, 0.2, 80), (0.02, 0.5, 200)])
def test_keeps_the_rows_of_the_published_steps(
    budget: int | float, share: float, listed: int
) -> None:
    ifd, points = clustered()
    found = SuperfilterD(budget, share=share).fit(ifd, points)
    expected = published(ifd, points, listed, 20 if budget == 20 else 8)
    assert found.selected_.tolist() == expected
    top = sorted((row for row in range(400) if ifd[row] < 1), key=lambda row: -ifd[row])[:listed]
    assert found.short_listed_.tolist() == top
    assert found.report_.num_short_listed == listed
    assert found.report_.lowest_ifd == ifd[top[-1]]
    kernel = np.exp(-cdist(points[top], points[expected]) / 12)
    assert found.report_.objective == pytest.approx(kernel.max(axis=1).sum(), rel=1e-6)


def test_the_list_grows_to_the_budget_and_to_nothing_else() -> None:
    ifd, points = clustered()
    found = SuperfilterD(150, share=0.2).fit(ifd, points)
    assert found.report_.num_short_listed == 150
    assert set(found.selected_.tolist()) == set(found.short_listed_.tolist())
    below = int((ifd < 1).sum())
    assert SuperfilterD(10, share=1.0).fit(ifd, points).report_.num_short_listed == below


def test_counts_and_reasons_say_who_was_out() -> None:
    ifd, points = clustered()
    found = SuperfilterD(10).fit(ifd, points)
    assert found.report_.num_no_score == 2
    assert found.report_.num_over_cap == int((ifd >= 1).sum())
    assert found.report_.num_eligible == int((ifd < 1).sum())
    assert found.reasons_[5] == "dropped: no score"
    assert found.reasons_[60] == "dropped: IFD 1 is not below 1"
    lowest = int(np.nanargmin(ifd))
    assert found.reasons_[lowest] == (
        f"dropped: IFD {ifd[lowest]:.4g} is not among the 80 highest below the cap"
    )
    assert found.reasons_[found.selected_[0]].startswith("kept: place 1 of 10, adds ")
    off = np.setdiff1d(np.arange(400), found.short_listed_)
    assert np.isnan(found.similarities_[off]).all()
    assert (found.similarities_[found.selected_] == 1).all()


def test_without_a_cap_high_ifd_comes_first() -> None:
    ifd, points = clustered()
    found = SuperfilterD(80, share=0.2, cap=None).fit(ifd, points)
    assert set(found.selected_.tolist()) == set(np.argsort(-np.nan_to_num(ifd))[:80].tolist())
    assert found.report_.num_over_cap == 0


def test_a_token_budget_lists_enough_rows_to_fill_it() -> None:
    ifd, points = clustered()
    tokens = np.random.default_rng(2).integers(10, 100, size=400)
    found = SuperfilterD(TokenBudget(9000), share=0.05).fit(ifd, points, num_tokens=tokens)
    listed = tokens[found.short_listed_]
    assert listed.sum() >= 9000 > listed[:-1].sum()
    left = 9000 - tokens[found.selected_].sum()
    others = np.setdiff1d(found.short_listed_, found.selected_)
    assert 0 <= left < tokens[others].min()


def test_what_the_list_leaves_free_goes_to_the_rows_behind_it() -> None:
    ifd, points = clustered()
    order = [row for row in np.argsort(-ifd) if ifd[row] < 1]
    tokens = np.full(400, 50)
    tokens[order[-3:]] = [7, 5, 4]
    found = SuperfilterD(TokenBudget(9), share=0.05).fit(ifd, points, num_tokens=tokens)
    assert len(found.short_listed_) == 20
    assert found.selected_.tolist() == [order[-3]]
    assert found.reasons_[order[-3]] == "kept: place 1 of 1, fills what was free"
    assert found.reasons_[order[-1]].endswith("is not among the 20 highest below the cap")
    found = SuperfilterD(TokenBudget(62), share=0.05).fit(ifd, points, num_tokens=tokens)
    assert found.selected_[1:].tolist() == [order[-3], order[-2]]
    assert np.isnan(found.gains_).tolist() == [False, True, True]
    assert found.report_.tokens_kept == 62


def test_refuses_a_negative_ifd() -> None:
    ifd, points = clustered()
    ifd[9] = -0.1
    with pytest.raises(InputError, match=r"ifd must be 0 or more, got -0\.1 in row 9"):
        SuperfilterD().fit(ifd, points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        ({"cap": 0.0}, "cap must be above 0 or None, got 0.0"),
        ({"budget": 0.999, "cap": None}, "2 too few: 2 rows have no score$"),
        ({"similarity": "dot"}, "similarity must be euclidean or cosine, got 'dot'"),
        (
            {"budget": 0.9},
            r"only \d+ are eligible, .* 2 rows have no score, \d+ have an IFD of 1 or",
        ),
    ],
)
def test_refuses_bad_options(options: dict[str, object], message: str) -> None:
    ifd, points = clustered()
    with pytest.raises(InputError, match=message):
        SuperfilterD(**options).fit(ifd, points)  # type: ignore[arg-type]
