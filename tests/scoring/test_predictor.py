"""The predictor of influence: what it finds, what it must not find, and that it stays gated."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from codeact.errors import InputError
from codeact.scoring.influence.held_out import bootstrap_in_folds, interval, spearman_in_folds
from codeact.scoring.influence.predictor import InfluencePredictor

DIM = 24


def linear_rows(num_rows: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and an influence with heavy tails that a direction of them tells in part."""
    weights = np.random.default_rng(99).normal(size=DIM) / np.sqrt(DIM)
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(num_rows, DIM))
    truth = np.sinh(2 * (traits @ weights + noise * rng.normal(size=num_rows)))
    return traits * np.geomspace(0.01, 10, DIM) + 3, truth


@pytest.fixture(scope="module")
def predictable() -> tuple[np.ndarray, np.ndarray]:
    return linear_rows(300, noise=0.3)


@pytest.fixture(scope="module")
def fitted(predictable: tuple[np.ndarray, np.ndarray]) -> InfluencePredictor:
    return InfluencePredictor().fit(*predictable)


def test_passes_and_ranks_new_rows(fitted: InfluencePredictor) -> None:
    points, truth = linear_rows(3000, noise=0.3, seed=1)
    assert fitted.passes_
    reached = spearmanr(fitted.predict(points), truth)[0]
    # What the gate promises of unseen rows they give; a little more, as no fold is left out now.
    low, high = fitted.interval_
    assert low < fitted.spearman_ < high
    assert low < reached < fitted.spearman_ + 0.03


def test_predictions_are_on_the_scale_of_influence(
    fitted: InfluencePredictor, predictable: tuple[np.ndarray, np.ndarray]
) -> None:
    points, truth = predictable
    predicted = fitted.predict(points)
    assert predicted.dtype == np.float64
    assert truth.min() <= predicted.min() < 0 < predicted.max() <= truth.max()
    assert spearmanr(predicted, truth)[0] > 0.9
    assert abs(np.median(predicted) - np.median(truth)) < 0.2 * np.std(truth)


def test_held_out_predictions_see_nothing_of_their_fold(
    predictable: tuple[np.ndarray, np.ndarray],
) -> None:
    """The same folds by hand, with one penalty: rows of a fold never reach its fit."""
    points, truth = (part[:120] for part in predictable)
    one = InfluencePredictor(num_folds=4, alphas=(100.0,), seed=5).fit(points, truth)
    folds = np.array_split(np.random.default_rng(5).permutation(120), 4)
    found = []
    for rows in folds:
        others = np.delete(np.arange(120), rows)
        scaler = StandardScaler().fit(points[others])
        ranks = np.argsort(np.argsort(truth[others])) + 0.5
        ridge = Ridge(alpha=100.0).fit(
            scaler.transform(points[others]), norm.ppf(ranks / len(others))
        )
        found.append(
            spearmanr(ridge.predict(scaler.transform(points[rows])), truth[rows]).statistic
        )
    assert one.spearman_ == pytest.approx(np.mean(found), abs=1e-12)
    assert one.alpha_ == 100.0


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_influence_fails_the_gate(
    seed: int, predictable: tuple[np.ndarray, np.ndarray]
) -> None:
    points, truth = predictable
    shuffled = np.random.default_rng(seed).permutation(truth)
    for gate in (0.5, 0.1):
        found = InfluencePredictor(gate=gate, seed=seed).fit(points, shuffled)
        assert abs(found.spearman_) < 0.2
        assert not found.passes_
        with pytest.raises(InputError, match=r"influence is not predicted: the predictor .+ not"):
            found.predict(points)


def test_unpredictable_influence_is_near_zero_on_average() -> None:
    """Not below: a pooled correlation would be, as each fold's level follows the other folds."""
    rng = np.random.default_rng(0)
    found = [
        InfluencePredictor(num_folds=10, alphas=(1e6,), seed=seed)
        .fit(rng.normal(size=(100, 4)), rng.normal(size=100))
        .spearman_
        for seed in range(12)
    ]
    assert abs(np.mean(found)) < 0.12  # deviation of one 0.11, of the mean 0.03


def test_heavy_tails_do_not_decide(predictable: tuple[np.ndarray, np.ndarray]) -> None:
    points, truth = predictable
    wild = truth.copy()
    wild[np.random.default_rng(1).permutation(300)[:6]] *= 1e9
    assert InfluencePredictor().fit(points, wild).spearman_ > 0.8


def test_gate_is_of_the_lower_end(predictable: tuple[np.ndarray, np.ndarray]) -> None:
    points, truth = linear_rows(80, noise=1.0, seed=3)
    found = InfluencePredictor(gate=0.0).fit(points, truth)
    low, high = found.interval_
    between = (low + found.spearman_) / 2
    strict = InfluencePredictor(gate=between).fit(points, truth)
    assert strict.interval_ == (low, high)
    assert strict.spearman_ > between > low
    assert not strict.passes_
    assert InfluencePredictor(gate=max(0.0, low)).fit(points, truth).passes_
    numbers = f"{found.spearman_:.2f} (95 % interval {low:.2f} to {high:.2f}, 80 measured rows)"
    assert f"does not pass its gate: held-out Spearman {numbers}" in strict.verdict_
    with pytest.raises(InputError, match=re.escape(numbers)):
        strict.predict(points)


def test_rows_without_influence_are_left_out(predictable: tuple[np.ndarray, np.ndarray]) -> None:
    points, truth = predictable
    holes = truth.copy()
    holes[200:] = np.nan
    partly = InfluencePredictor().fit(points, holes, num_response_tokens=np.arange(300))
    alone = InfluencePredictor().fit(points[:200], truth[:200])
    assert partly.num_rows_ == 200
    assert (partly.spearman_, partly.interval_) == (alone.spearman_, alone.interval_)
    np.testing.assert_array_equal(partly.predict(points[200:]), alone.predict(points[200:]))


def test_length_that_tells_as_much_is_said_to() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 500, 200)
    truth = -np.log(lengths) + 0.1 * rng.normal(size=200)
    points = np.column_stack([np.sqrt(lengths), rng.normal(size=(200, 8))])
    found = InfluencePredictor().fit(points, truth, num_response_tokens=lengths)
    assert found.passes_
    assert found.length_explains_
    assert found.length_spearman_ == pytest.approx(spearmanr(lengths, truth)[0], abs=0.02)
    assert "the length of the response alone tells as much (Spearman -0.9" in found.verdict_
    unrelated = InfluencePredictor().fit(points, truth, num_response_tokens=rng.permutation(200))
    assert not unrelated.length_explains_
    assert abs(unrelated.length_spearman_ or 0.0) < 0.2
    assert "tells as much" not in unrelated.verdict_


def test_constants_rank_nothing() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    flat = InfluencePredictor().fit(points, np.ones(60))
    assert (flat.spearman_, flat.interval_, flat.passes_) == (0.0, (0.0, 0.0), False)


def test_a_predictor_that_is_nearly_always_right_passes() -> None:
    """A few draws of folds of 12 rows rank all alike: a correlation of 1, which has no atanh."""
    points = np.random.default_rng(0).normal(size=(60, 8))
    found = InfluencePredictor().fit(points, points[:, 2])
    assert 0.99 < found.spearman_ < 1
    assert 0.95 < found.interval_[0] < found.spearman_ < found.interval_[1] < 1
    assert found.passes_
    assert interval(1.0, np.ones(9)) == pytest.approx((1, 1))
    assert interval(-0.9, np.array([-1.0, -0.9, -0.8])) < (-0.9, -0.9)


def test_spearman_in_folds_with_ties_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 90).astype(float), rng.integers(0, 6, 90).astype(float)
    folds = np.array_split(rng.permutation(90), 4)
    expected = np.mean([spearmanr(first[f], second[f]).statistic for f in folds])
    assert spearman_in_folds(first, second, folds) == pytest.approx(expected, abs=1e-12)


def test_bootstrap_is_centred_and_as_wide_as_theory() -> None:
    """For rho = 0 the deviation of Spearman's rho is 1 / sqrt(n - 1)."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400))
    folds = np.array_split(np.arange(400), 4)
    draws = bootstrap_in_folds(first[None], second, folds, num_resamples=800, seed=1)
    assert draws.shape == (800, 1)
    low, high = interval(0.0, draws[:, 0])
    assert high == -low == pytest.approx(1.96 / np.sqrt(99) / 2, rel=0.15)
    assert draws.mean() == pytest.approx(spearman_in_folds(first, second, folds), abs=0.01)
    assert draws.std() == pytest.approx(1 / np.sqrt(99) / 2, rel=0.15)


@pytest.mark.parametrize(
    ("options", "fit", "message"),
    [
        ({"gate": 1.5}, {}, "gate must be a correlation from 0 to 1, got 1.5"),
        ({"num_folds": 1}, {}, "num_folds must be at least 2, got 1"),
        ({"alphas": (0.0, 1.0)}, {}, "alphas must be numbers above 0"),
        ({}, {"influence": np.zeros(59)}, r"influence must be 60 finite numbers .+\(59,\)"),
        ({}, {"influence": [np.inf] * 60}, "with 60 infinities"),
        ({}, {"influence": [np.nan] * 11 + [1.0] * 49}, "at least 50 rows .+ got 49"),
        ({}, {"embeddings": np.full((60, 2), np.nan)}, "embeddings must be finite numbers"),
        ({}, {"embeddings": np.zeros((60, 0))}, r"\(num_rows, dim\), got shape \(60, 0\)"),
        ({}, {"embeddings": np.zeros(60)}, r"\(num_rows, dim\), got shape \(60,\)"),
        ({}, {"num_response_tokens": [1, 2]}, r"must be 60 counts, got shape \(2,\)"),
    ],
)
def test_refuses(options: dict, fit: dict, message: str) -> None:
    given = {"embeddings": np.zeros((60, 2)), "influence": np.arange(60.0), **fit}
    with pytest.raises(InputError, match=message):
        InfluencePredictor(**options).fit(**given)


def test_predict_refuses(fitted: InfluencePredictor) -> None:
    with pytest.raises(InputError, match="call fit first"):
        InfluencePredictor().predict(np.zeros((2, DIM)))
    with pytest.raises(InputError, match=f"must have the {DIM} columns of the fit, got 3"):
        fitted.predict(np.zeros((2, 3)))
