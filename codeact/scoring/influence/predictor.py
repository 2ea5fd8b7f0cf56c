"""Influence predicted from embeddings, for use only where held-out rows show that it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.scoring.influence.held_out import bootstrap_in_folds, interval, spearman_in_folds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 13))
_NUM_RESAMPLES = 1000
_LEAST_ROWS_PER_FOLD = 10

Values = NDArray[np.float64]


class InfluencePredictor:
    """Ridge regression of influence on embeddings, behind a gate of held-out rank correlation.

    DIScore's authors find that small predictors of it do not beat random rows (arXiv:2604.07769),
    so a predictor is used only if it shows on rows it has not seen that it ranks them. Rows are
    split into folds; for each, embeddings are standardised and the penalty is chosen by
    leave-one-out error on the other folds alone, and the fold is predicted. The gate is passed when
    the lower end of the 95 % interval of the held-out Spearman correlation reaches it.

    The target is the normal score of the rank (``Phi^-1((rank - 1/2) / n)``, ties by mean rank),
    not the influence itself: one row of extreme influence would decide a squared error, and ranks
    are all that selection and gate look at. (On 280 real rows without such extremes, influence on
    MBPP through the last layer of SmolLM2-135M, normal scores, ranks and plain influence held out
    alike, within 0.01 of each other.) Predictions go back to the scale of influence through the
    sorted measured values, so they never leave their range; being shrunk towards the middle,
    predicted rows reach the ends less often than measured ones do.

    Args:
        gate: Least lower end of the interval, in [0, 1].
        num_folds: At least 2; a fold has at least 10 rows, or ``fit`` refuses.
        alphas: Penalties to choose from, on standardised embeddings.
        seed: Of the folds and of the bootstrap.

    Attributes:
        spearman_: Held-out Spearman correlation, the mean over the folds.
        interval_: Its 95 % interval, see :func:`codeact.scoring.influence.held_out.interval`, by
            1000 bootstrap draws of the held-out rows within folds. Each fold is predicted by a fit
            on fewer rows than ``predict`` has, so both ends stand rather low.
        passes_: ``interval_[0] >= gate``.
        length_spearman_: The same correlation of the number of response tokens with influence, with
            its sign; None when it was not given.
        length_explains_: Whether length alone, signed as on the other rows, ranks held-out rows as
            well as the embeddings do: the interval of the difference holds 0 or less.
        alpha_: Penalty of the fit on all measured rows.
        num_rows_: Measured rows.
        verdict_: One sentence about all this.
    """

    def __init__(
        self,
        *,
        gate: float = 0.5,
        num_folds: int = 5,
        alphas: Sequence[float] = _ALPHAS,
        seed: int = 0,
    ) -> None:
        if not 0 <= gate <= 1:
            raise InputError(f"gate must be a correlation from 0 to 1, got {gate!r}")
        if num_folds < 2:
            raise InputError(f"num_folds must be at least 2, got {num_folds!r}")
        if not len(alphas) or min(alphas) <= 0:
            raise InputError(f"alphas must be numbers above 0, got {tuple(alphas)!r}")
        self.gate = gate
        self.num_folds = num_folds
        self.alphas = tuple(alphas)
        self.seed = seed

    def fit(
        self,
        embeddings: ArrayLike,
        influence: ArrayLike,
        *,
        num_response_tokens: ArrayLike | None = None,
    ) -> Self:
        """Fit on the measured rows, and measure on held-out ones how well that works.

        Args:
            embeddings: (num_rows, dim) finite.
            influence: (num_rows,); rows of NaN or None were not measured and are left out.
            num_response_tokens: (num_rows,), to compare with what length alone tells.

        Raises:
            InputError: Shapes differ, a value is infinite, or too few rows are measured.
        """
        points, truth, lengths = self._check(embeddings, influence, num_response_tokens)
        rng = np.random.default_rng(self.seed)
        folds = np.array_split(rng.permutation(len(truth)), self.num_folds)
        columns = [self._held_out(points, truth, folds)]
        self.spearman_ = spearman_in_folds(columns[0], truth, folds)
        self.length_spearman_: float | None = None
        if lengths is not None:
            self.length_spearman_ = spearman_in_folds(lengths, truth, folds)
            columns.append(_signed_lengths(lengths, truth, folds))
        draws = bootstrap_in_folds(
            np.stack(columns), truth, folds, num_resamples=_NUM_RESAMPLES, seed=self.seed
        )
        self.interval_ = interval(self.spearman_, draws[:, 0])
        self.passes_ = self.interval_[0] >= self.gate
        self.length_explains_ = False
        if lengths is not None:
            lead = self.spearman_ - spearman_in_folds(columns[1], truth, folds)
            self.length_explains_ = bool(lead <= 1.96 * (draws[:, 0] - draws[:, 1]).std())
        self.num_rows_, self.dim_ = points.shape
        self._model, self.alpha_ = self._fit_ridge(points, _normal_scores(truth))
        self._sorted = np.sort(truth)
        self.verdict_ = self._verdict()
        return self

    def predict(self, embeddings: ArrayLike) -> Values:
        """(num_rows,) float64 predicted influence.

        Raises:
            InputError: The gate is not passed, or the embeddings are of another kind.
        """
        if not hasattr(self, "verdict_"):
            raise InputError("predict needs a fitted InfluencePredictor: call fit first")
        if not self.passes_:
            raise InputError(f"influence is not predicted: {self.verdict_}")
        points = _check_points(embeddings)
        if points.shape[1] != self.dim_:
            raise InputError(
                f"embeddings must have the {self.dim_} columns of the fit, got {points.shape[1]}"
            )
        return self._to_influence(self._model.predict(points))

    def _check(
        self, embeddings: ArrayLike, influence: ArrayLike, num_response_tokens: ArrayLike | None
    ) -> tuple[Values, Values, Values | None]:
        """The measured rows of all three."""
        points = _check_points(embeddings)
        truth = np.asarray(influence, dtype=np.float64)
        lengths = None
        if truth.shape != (len(points),) or np.isinf(truth).any():
            raise InputError(
                f"influence must be {len(points)} finite numbers or nulls, one for each row of "
                f"embeddings, got shape {truth.shape} with {np.isinf(truth).sum()} infinities"
            )
        measured = ~np.isnan(truth)
        if num_response_tokens is not None:
            lengths = np.asarray(num_response_tokens, dtype=np.float64)
            if lengths.shape != truth.shape or not np.isfinite(lengths).all():
                raise InputError(
                    f"num_response_tokens must be {len(truth)} counts, got shape {lengths.shape}"
                )
            lengths = lengths[measured]
        least = _LEAST_ROWS_PER_FOLD * self.num_folds
        if measured.sum() < least:
            raise InputError(
                f"influence must be known of at least {least} rows to fit on and hold out, "
                f"{_LEAST_ROWS_PER_FOLD} for each of {self.num_folds} folds, got {measured.sum()}"
            )
        return points[measured], truth[measured], lengths

    def _held_out(
        self, points: Values, truth: Values, folds: Sequence[NDArray[np.int64]]
    ) -> Values:
        """(num_rows,) what the fit on the other folds predicts of each row."""
        predicted = np.empty(len(truth))
        for rows in folds:
            others = np.setdiff1d(np.arange(len(truth)), rows)
            model, _ = self._fit_ridge(points[others], _normal_scores(truth[others]))
            predicted[rows] = model.predict(points[rows])
        return predicted

    def _fit_ridge(self, points: Values, target: Values) -> tuple[Any, float]:
        """The fitted pipeline and its penalty, chosen among these rows alone."""
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.array(self.alphas)))
        model.fit(points, target)
        return model, float(model[-1].alpha_)

    def _to_influence(self, scores: Values) -> Values:
        """Normal scores as the influence of the same rank among the measured rows."""
        from scipy.stats import norm

        places = norm.cdf(scores) * self.num_rows_ - 0.5
        return np.asarray(np.interp(places, np.arange(self.num_rows_), self._sorted))

    def _verdict(self) -> str:
        low, high = self.interval_
        numbers = (
            f"held-out Spearman {self.spearman_:.2f} (95 % interval {low:.2f} to {high:.2f}, "
            f"{self.num_rows_} measured rows)"
        )
        does = "passes" if self.passes_ else "does not pass"
        words = (
            f"the predictor of influence {does} its gate: {numbers}, whose lower end must reach "
            f"{self.gate:g}"
        )
        if self.length_explains_:
            words += (
                f"; the length of the response alone tells as much (Spearman "
                f"{self.length_spearman_:.2f})"
            )
        return words


def _check_points(embeddings: ArrayLike) -> Values:
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or not points.shape[1] or not np.isfinite(points).all():
        raise InputError(
            f"embeddings must be finite numbers (num_rows, dim), got shape {points.shape}"
        )
    return points


def _normal_scores(values: Values) -> Values:
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)), dtype=np.float64)


def _signed_lengths(lengths: Values, truth: Values, folds: Sequence[NDArray[np.int64]]) -> Values:
    """Lengths times the sign of their correlation on the other folds: all that length predicts."""
    signed = np.empty_like(lengths)
    for rows in folds:
        others = np.setdiff1d(np.arange(len(truth)), rows)
        sign = 1.0 if spearman_in_folds(lengths, truth, [others]) >= 0 else -1.0
        signed[rows] = sign * lengths[rows]
    return signed
