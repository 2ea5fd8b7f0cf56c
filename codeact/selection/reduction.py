"""Fewer dimensions: principal components, then vectors of unit length."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.clustering import check_embeddings

# A row whose length is below this share of the longest embedding is rounding, not a direction.
_ZERO = 1e-6
_BLOCK = 2048  # rows widened to float64 at a time


class Reduced(NamedTuple):
    """Vectors of unit length, and how much of the variance they keep."""

    vectors: NDArray[np.float32]  # (num_rows, num_components)
    explained_variance: float | None  # share of that of what PCA was fitted on; None without PCA


def reduce_dimensions(
    points: NDArray[np.float32], num_components: int | None, fit_on: ArrayLike | None = None
) -> Reduced:
    """PCA to ``num_components``, then division of each row by its Euclidean length.

    The PCA is scikit-learn's ``PCA(svd_solver="covariance_eigh")``: exact, from the (dim, dim)
    covariance, without a copy of the embeddings, each component's sign chosen so that its largest
    weight is positive. So equal rows in the same order give the same bits.

    Args:
        points: (num_rows, dim), as :func:`check_embeddings` gives them.
        num_components: At least 1; as many as there are if rows or dimensions are fewer. None
            leaves the embeddings as they are, but for their length.
        fit_on: (num_others, dim) to take mean and components from instead of ``points``. Where it
            is a benchmark, as in the paper (arXiv:2407.05040), what is selected depends on the test
            data; hence the warning.

    Raises:
        InputError: ``num_components`` is not above 0, ``fit_on`` has other dimensions, or a row has
            no direction: it is zero, or with PCA at the mean.
    """
    longest = float(np.sqrt(np.einsum("ij,ij->i", points, points).max()))
    explained = None
    vectors = points
    if num_components is not None:
        vectors, explained = _principal(points, num_components, fit_on)
    elif fit_on is not None:
        raise InputError("pca_fit_on needs pca_components, got None: there is no PCA to fit")
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    zero = np.flatnonzero(lengths <= _ZERO * longest)
    if len(zero):
        what = "zero" if num_components is None else "at the mean of the PCA"
        raise InputError(
            f"embeddings must have a direction, got {len(zero)} of {len(points)} rows that are "
            f"{what}"
        )
    scaled = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):  # a quotient is float64
        rows = slice(start, start + _BLOCK)
        scaled[rows] = vectors[rows] / lengths[rows, None]
    return Reduced(scaled, explained)


def _principal(
    points: NDArray[np.float32], num_components: int, fit_on: ArrayLike | None
) -> tuple[NDArray[np.float32], float]:
    from sklearn.decomposition import PCA

    if num_components < 1:
        raise InputError(f"pca_components must be at least 1 or None, got {num_components}")
    source = points
    if fit_on is not None:
        source = check_embeddings(fit_on)
        if source.shape[1] != points.shape[1]:
            raise InputError(
                f"pca_fit_on must have the {points.shape[1]} columns of the embeddings, "
                f"got {source.shape[1]}"
            )
        warnings.warn(
            "pca_fit_on: the components come from other data than the rows to choose from; if that "
            "is a benchmark, the selection has seen the test set",
            UserWarning,
            stacklevel=4,  # the caller of ClusterPruner.fit
        )
    pca = PCA(n_components=min(num_components, *source.shape), svd_solver="covariance_eigh")
    if len(source) < 2:
        raise InputError(f"pca_components needs at least 2 rows to fit on, got {len(source)}")
    pca.fit(source)
    return pca.transform(points), float(pca.explained_variance_ratio_.sum())
