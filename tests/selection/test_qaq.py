"""QAQ against a plain port of its two rules."""

from __future__ import annotations

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.selection import QAQ, TokenBudget


def ranks_in_bins(rmi: np.ndarray, ppl: np.ndarray, num_bins: int) -> np.ndarray:
    """Rank of each row by RMI among the rows of its bin of equal size, in (0, 1)."""
    ranks = np.zeros(len(rmi))
    for members in np.array_split(np.argsort(ppl), num_bins):
        for place, row in enumerate(sorted(members, key=lambda row: rmi[row])):
            ranks[row] = (place + 0.5) / len(members)
    return ranks


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    ppl = np.exp(rng.normal(2, 0.5, 400))
    rmi = rng.normal(0.5, 0.3, 400) + 0.2 * np.log(ppl)
    return rmi, ppl, rmi + rng.normal(0, 0.2, 400)


def test_a_quarter_is_the_published_band(scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rmi, ppl, _ = scores
    ranks = ranks_in_bins(rmi, ppl, 10)
    qaq = QAQ(0.25).fit(rmi, ppl)
    assert qaq.rmi_ranks_ == pytest.approx(ranks)
    assert sorted(qaq.selected_) == np.flatnonzero((ranks > 0.5) & (ranks < 0.75)).tolist()
    report = qaq.report_
    assert (report.lowest, report.highest) == pytest.approx((20.5 / 40, 29.5 / 40))


def test_other_budgets_narrow_or_widen_the_band_in_every_bin(
    scores: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    rmi, ppl, _ = scores
    bins = np.empty(400, dtype=int)
    bins[np.argsort(ppl)] = np.arange(400) // 40
    few, many = (set(QAQ(budget).fit(rmi, ppl).selected_.tolist()) for budget in (50, 300))
    quarter = set(QAQ(100).fit(rmi, ppl).selected_.tolist())
    assert few < quarter < many
    for kept, per_bin in ((few, 5), (many, 30)):
        assert (np.bincount(bins[list(kept)]) == per_bin).all()
        away = np.abs(ranks_in_bins(rmi, ppl, 10) - 0.625)
        left = [row for row in range(400) if row not in kept]
        for index in range(10):
            inside = [row for row in kept if bins[row] == index]
            outside = [row for row in left if bins[row] == index]
            assert max(away[inside]) <= min(away[outside]) + 1e-12


def test_difference(scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rmi, ppl, weak = scores
    expected = ranks_in_bins(rmi, ppl, 10) - ranks_in_bins(weak, ppl, 10)
    qaq = QAQ(80, rule="difference").fit(rmi, ppl, weak_rmi=weak)
    assert qaq.differences_ == pytest.approx(expected)
    kept = qaq.selected_
    assert (np.diff(expected[kept]) <= 1e-12).all()
    assert expected[kept].min() >= np.delete(expected, kept).max() - 1e-12
    assert qaq.report_.lowest == pytest.approx(expected[kept].min())


def test_difference_above_the_papers_threshold(
    scores: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    rmi, ppl, weak = scores
    difference = ranks_in_bins(rmi, ppl, 10) - ranks_in_bins(weak, ppl, 10)
    above = np.flatnonzero(difference > 0.1 + 1e-9)
    selector = QAQ(len(above), rule="difference", min_difference=0.1)
    assert sorted(selector.fit(rmi, ppl, weak_rmi=weak).selected_) == above.tolist()
    with pytest.raises(InputError, match=r"have a difference of 0\.1 or less"):
        selector.set_params(budget=len(above) + 1).fit(rmi, ppl, weak_rmi=weak)


def test_equal_scores_share_a_rank() -> None:
    qaq = QAQ(1, num_bins=1).fit([0.2, 0.2, 0.5, 0.7], [1.0, 2.0, 3.0, 4.0])
    assert qaq.rmi_ranks_.tolist() == [0.25, 0.25, 0.625, 0.875]
    assert qaq.selected_.tolist() == [2]


def test_rows_without_scores_are_in_no_bin() -> None:
    assert QAQ(1).fit([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]).report_.num_bins == 3
    qaq = QAQ(2, num_bins=2).fit([0.1, None, 0.3, 0.4, 0.5], [1.0, 2.0, None, 4.0, 5.0])
    assert not {1, 2} & set(qaq.selected_.tolist())
    assert qaq.reasons_[1] == qaq.reasons_[2] == "dropped: no RMI"
    assert (qaq.report_.num_no_score, qaq.report_.num_eligible) == (2, 3)
    assert np.isnan(qaq.rmi_ranks_[[1, 2]]).all()


def test_token_budget(scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rmi, ppl, _ = scores
    num_tokens = np.random.default_rng(0).integers(10, 100, 400)
    qaq = QAQ(TokenBudget(5000)).fit(rmi, ppl, num_tokens=num_tokens)
    assert 4990 < num_tokens[qaq.selected_].sum() <= 5000
    assert qaq.report_.tokens_kept == num_tokens[qaq.selected_].sum()


@pytest.mark.parametrize(
    ("options", "weak", "message"),
    [
        ({"rule": "difference"}, None, "weak_rmi, the RMI by a weaker model, must be given"),
        ({"rule": "difference"}, [0.1], "weak_rmi must be 2 numbers"),
        ({"rule": "other"}, None, "rule must be band or difference, got 'other'"),
        ({"band": (0.8, 0.5)}, None, "band must be two rising ranks"),
        ({"num_bins": 0}, None, "num_bins must be at least 1, got 0"),
    ],
)
def test_refuses(options: dict, weak: list[float] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        QAQ(1, **options).fit([0.1, 0.2], [1.0, 2.0], weak_rmi=weak)
