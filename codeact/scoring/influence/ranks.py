"""Spearman's rank correlation, of many samples at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def rank_correlations(first: Values, second: Values) -> Values:
    """Pearson's correlation of the ranks in each row of two matrices, ties at their mean rank.

    ``codeact.evaluation.spearman`` is that of one pair of columns, with its interval; scoring
    cannot import it, and the bootstrap would call it a thousand times.

    Args:
        first: (num_samples, num_rows) finite.
        second: (num_samples, num_rows) finite.

    Returns:
        (num_samples,) in [-1, 1]; NaN where a side is constant or has fewer than two rows.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (first, second)]
    lengths = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    products = (ranks[0] * ranks[1]).sum(axis=1)
    rho: Values = np.full_like(products, np.nan)
    np.divide(products, lengths, out=rho, where=lengths > 0)
    return rho.clip(-1, 1)
