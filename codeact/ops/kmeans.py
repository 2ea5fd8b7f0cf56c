"""The steps of k-means on a CPU: rows prepared once, and bounds that spare most of the products.

Costs for n rows of dim floats and k centroids, panels of 16: a first assignment reads the rows once
and takes ``2 n dim k`` operations; a later one reads ``4 n ceil(k / 16)`` bytes of bounds and, of
rows and panels, what the bounds do not decide. Nothing is n x k; the bounds are n x ceil(k / 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from codeact import _C

PANEL = 16
"""Centroids that the native code multiplies side by side."""

# Squared distances in float32 err by some 2e-7 of |x|^2 + |c|^2 at 768 dimensions; bounds allow 5
# times that.
_TOLERANCE = 2.0**-20
# The centre only keeps products small; a few thousand rows tell it well enough.
_CENTRE_ROWS = 4096
_LARGEST_SQUARE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class KMeansRows:
    """Rows of a matrix in some order, moved to about its mean.

    Attributes:
        points: (num_rows, dim) float32.
        squares: (num_rows,) float32, their squared lengths.
        centre: (dim,) float32, what was subtracted: the mean of the first 4096 in that order.
        rounder: ``(value + rounder) - rounder`` is a value's nearest multiple of a power of two,
            chosen such that sums over all rows are exact in float64 in any order. That rounds by
            at most ``2**-52 * num_rows`` of the largest absolute value.
    """

    points: NDArray[np.float32]
    squares: NDArray[np.float32]
    centre: NDArray[np.float32]
    rounder: float

    @classmethod
    def arrange(cls, points: NDArray[np.float32], order: NDArray[np.int64]) -> KMeansRows:
        """The rows ``order`` of ``points``: the one copy that is made.

        Args:
            points: (any, dim) float32, C-contiguous, finite.
            order: (num_rows,) int64, at least one.
        """
        centre = points[order[:_CENTRE_ROWS]].mean(axis=0, dtype=np.float64).astype(np.float32)
        arranged = np.empty((len(order), points.shape[1]), dtype=np.float32)
        squares = np.empty(len(order), dtype=np.float32)
        order = np.ascontiguousarray(order, dtype=np.int64)
        largest = _C.kmeans_arrange(points, order, centre, arranged, squares, _num_threads())
        # Sums of num_rows values of up to 2**exponent must fit 53 bits, with one to spare.
        exponent = math.frexp(largest)[1] if largest else -60
        grid = math.ldexp(1.0, exponent + (len(order) - 1).bit_length() - 52)
        return cls(arranged, squares, centre, 1.5 * 2.0**52 * grid)

    def part(self, start: int, stop: int) -> KMeansRows:
        """The rows [start, stop) alone, without a copy."""
        rows = slice(start, stop)
        return KMeansRows(self.points[rows], self.squares[rows], self.centre, self.rounder)

    def first(self, num_rows: int) -> KMeansRows:
        """The first rows alone, without a copy."""
        return self.part(0, num_rows)

    def rounded(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """These rows as they go into sums."""
        return (self.points[rows].astype(np.float64) + self.rounder) - self.rounder

    def variance(self) -> float:
        """Mean over the columns of their variance, as the tolerance of scikit-learn needs it."""
        num_rows, dim = self.points.shape
        mean = np.zeros(dim)
        for start in range(0, num_rows, _CENTRE_ROWS):
            mean += self.points[start : start + _CENTRE_ROWS].sum(axis=0, dtype=np.float64)
        mean /= num_rows
        whole = float(self.squares.sum(dtype=np.float64)) / num_rows - float(mean @ mean)
        return float(max(0.0, whole) / dim)

    def __len__(self) -> int:
        return len(self.points)


class Panels:
    """Centroids as the native code reads them: as rows, and 16 side by side."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        num_clusters, dim = centroids.shape
        num_panels = -(-num_clusters // PANEL)
        padded = np.zeros((num_panels * PANEL, dim), dtype=np.float32)
        padded[:num_clusters] = centroids
        self.rows = np.ascontiguousarray(centroids)
        self.panels = np.ascontiguousarray(padded.reshape(-1, PANEL, dim).transpose(0, 2, 1))
        squares = np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64)
        self.max_square = float(squares.max())
        if not self.max_square < _LARGEST_SQUARE:  # NaN is not either; the native code trusts
            raise ValueError(f"centroids must have finite squares in float32, got {squares.max()}")
        self.half_squares = np.full(num_panels * PANEL, np.inf, dtype=np.float32)
        self.half_squares[:num_clusters] = squares / 2


class KMeansStep:
    """The assignment of rows to centroids, call after call, and the sums of the clusters.

    Raises:
        ValueError: A row or a centroid holds NaN, or its squared length is none of float32.

    Attributes:
        labels: (num_rows,) int32, the nearest centroid of each row; of equally near ones, as
            computed, the one it has, else the lowest of the first panel.
        sums: (num_clusters, dim) float64, exact sums of the rows of each cluster.
        counts: (num_clusters,) int64.
        centroids: (num_clusters, dim) float32 of the last call.
        num_products: Products of a row with a centroid so far, padding included.
    """

    def __init__(self, rows: KMeansRows, num_clusters: int) -> None:
        if not np.isfinite(rows.squares).all():  # the native code trusts
            raise ValueError("rows must be finite, and so must their squares in float32")
        self.rows = rows
        self.labels = np.full(len(rows), -1, dtype=np.int32)
        self.sums = np.zeros((num_clusters, rows.points.shape[1]))
        self.counts = np.zeros(num_clusters, dtype=np.int64)
        self.num_products = 0
        self._upper = np.empty(len(rows), dtype=np.float32)
        self._lower = np.empty((len(rows), -(-num_clusters // PANEL)), dtype=np.float32)
        self.centroids: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)

    def assign(self, centroids: NDArray[np.float32]) -> int:
        """Give each row its nearest centroid; returns how many rows have another one than before.

        Args:
            centroids: (num_clusters, dim) float32, moved by ``rows.centre`` like the rows.
        """
        shifts, panel_shifts = self._shifts(centroids)
        packed = Panels(centroids)
        num_moved, num_panels = _C.kmeans_assign(
            self.rows.points,
            self.rows.squares,
            packed.rows,
            packed.panels,
            packed.half_squares,
            shifts,
            panel_shifts,
            _TOLERANCE,
            packed.max_square,
            self.labels,
            self._upper,
            self._lower,
            self.rows.rounder,
            self.sums,
            self.counts,
            _num_threads(),
        )
        self.centroids = packed.rows
        self.num_products += num_panels * PANEL
        return num_moved

    def means(self) -> NDArray[np.float32]:
        """(num_clusters, dim) means of the clusters; an empty one keeps the centroid it had."""
        return cluster_means(self.sums, self.counts, self.centroids)

    def move(self, row: int, cluster: int) -> None:
        """Give one row another label by hand."""
        value = self.rows.rounded(np.array([row]))[0]
        for label, sign in ((self.labels[row], -1), (cluster, 1)):
            self.sums[label] += sign * value
            self.counts[label] += sign
        self.labels[row] = cluster
        self._upper[row] = np.inf
        self._lower[row] = 0

    def distances(self) -> NDArray[np.float32]:
        """(num_rows,) Euclidean distance of each row to the centroid that it was assigned to."""
        return own_distances(self.rows.points, self.centroids, self.labels)

    def inertia(self) -> float:
        """Sum of the squared distances."""
        return float((self.distances().astype(np.float64) ** 2).sum())

    def _shifts(
        self, centroids: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """How far each centroid moved since the last call, and the farthest of each panel."""
        if not len(self.centroids):
            return None, None
        shifts = np.zeros(self._lower.shape[1] * PANEL, dtype=np.float32)
        moved = np.linalg.norm(centroids.astype(np.float64) - self.centroids, axis=1)
        # Bounds are float32: what their sums round by is added, where anything moved at all.
        shifts[: len(moved)] = moved * (1 + 2.0**-20)
        slack = 2.0**-22 * math.sqrt(float(self.rows.squares.max(initial=0)))
        shifts[shifts > 0] += slack
        return shifts[: len(moved)].copy(), shifts.reshape(-1, PANEL).max(axis=1)


def cluster_means(
    sums: NDArray[np.float64], counts: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(num_clusters, dim) float32 ``sums / counts``; an empty cluster keeps its centroid."""
    means = np.divide(sums, counts[:, None], where=counts[:, None] > 0, out=np.zeros_like(sums))
    return np.where(counts[:, None] > 0, means, centroids).astype(np.float32)


def candidate_distances(
    rows: KMeansRows,
    candidates: NDArray[np.float32],
    nearest: NDArray[np.float32],
    left: NDArray[np.float32],
) -> NDArray[np.float64]:
    """What each of at most 16 candidates would leave of ``nearest``, for k-means++.

    Args:
        rows: Of them.
        candidates: (num_candidates, dim) float32, moved like the rows.
        nearest: (num_rows,) float32 squared distance to the nearest centroid so far, or inf.
        left: (num_rows, 16) float32, out: ``min(nearest[i], |rows[i] - candidates[j]|**2)``, 0
            where that is below the error of float32.

    Returns:
        (num_candidates,) float64, the column sums of ``left``.
    """
    packed = Panels(candidates)
    potentials = np.empty(PANEL)
    _C.kmeans_candidates(
        rows.points,
        rows.squares,
        packed.rows,
        packed.panels,
        packed.half_squares,
        _TOLERANCE,
        nearest,
        left,
        potentials,
        _num_threads(),
    )
    return potentials[: len(candidates)]


def own_distances(
    points: NDArray[np.float32], centroids: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Euclidean distance of each point to the centroid of its label; NaN for label -1.

    By direct difference, which cancels nothing.
    """
    distances = np.empty(len(points), dtype=np.float32)
    _C.kmeans_distances(points, centroids, labels, distances, _num_threads())
    return distances


def _num_threads() -> int:
    return torch.get_num_threads()
