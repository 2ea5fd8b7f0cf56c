"""Minimum spanning tree of mutual reachability by Boruvka's algorithm over streamed distances.

Each round finds the lightest edge out of every component and joins what it connects (Boruvka, 1926;
for HDBSCAN with search trees instead of streamed products: McInnes and Healy, arXiv:1705.07321).
Most of these edges follow from lists of nearest neighbours: a listed neighbour outside the
component is the nearest one if it is no farther than the list reaches. A point that this leaves
open is searched from only if its lower bound is below the lightest edge known of its component;
what a search finds stays a bound, for components only grow. The largest component is never searched
from, since the others' edges are enough to go on.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.ops.neighbours import PointCloud, nearest_k, nearest_outside
from codeact.selection.clustering.prim_order import prim_order

_LOGGER = logging.getLogger(__name__)

# Neighbours listed of each point: of 17000 MiniLM embeddings 16 leave 2401 searches, 32 leave 1078
# and 64 leave 354, but make longer lists.
NUM_LISTED = 32
# Searches from each component before its bound is looked at again: the first mostly settle it.
_SEARCHES = [4**step for step in range(1, 32)]
_FEW_ROWS = 512  # so many are searched from at once: fewer leave the product's tiles half empty
# Share of components that the lists must settle, or else there is a search.
_ENOUGH_SETTLED = 0.1


class SpanningTree(NamedTuple):
    """A minimum spanning tree, in the order in which Prim's algorithm takes its edges."""

    edges: NDArray[np.int64]  # (num_points - 1, 2)
    weights: NDArray[np.float64]  # (num_points - 1,), mutual reachability
    core: NDArray[np.float64]  # (num_points,), distance to the min_samples-th nearest other point


def reachability_tree(
    points: torch.Tensor, *, min_samples: int, num_listed: int = NUM_LISTED
) -> SpanningTree:
    """Minimum spanning tree of ``max(core_i, core_j, |x_i - x_j|)``.

    Exact: distances that decide are float64, from the differences of the points as given. Costs
    ``2 * num_points^2 * dim`` operations for the lists and ``2 * num_points * dim`` for each
    search, of which there are at most log2(num_points) a point (6 for 100 points on embeddings).
    Memory is that of the points, twice, and of the lists. The edges stand in the order of
    :func:`~codeact.selection.clustering.prim_order.prim_order`.

    Args:
        points: (num_points, dim) float32, finite; the work is done on their device.
        min_samples: The core distance is that to so many-th nearest other point; fewer if there
            are fewer.
        num_listed: Neighbours listed of each point, at least ``min_samples``.
    """
    if len(points) == 1:
        nothing = np.zeros((0, 2), np.int64), np.zeros(0)
        return SpanningTree(*nothing, np.zeros(1))
    forest = _Forest(points, min(min_samples, len(points) - 1), num_listed)
    while forest.num_components > 1:
        forest.grow()
    ties, tied = forest.ties(min_samples)
    edges = np.concatenate([np.array(forest.edges), ties])
    weights = np.concatenate([np.array(forest.weights), tied])
    return SpanningTree(*prim_order(edges, weights, len(points)), forest.core)


class _Known(NamedTuple):
    """The nearest point of another component that is known for each point."""

    nearest: NDArray[np.float64]  # inf where none is known
    ends: NDArray[np.int64]


class _Forest:
    """The components so far, and what is known of each point's nearest one outside its own."""

    def __init__(self, points: torch.Tensor, min_samples: int, num_listed: int) -> None:
        num_points = len(points)
        self.cloud = PointCloud(points)
        num_listed = min(max(num_listed, min_samples), num_points - 1)
        lists = nearest_k(self.cloud, num_listed)
        self.listed = lists.indices.cpu().numpy()
        distances = lists.distances.cpu().numpy()
        self.core = distances[:, min_samples - 1].copy()
        # A point that is not listed is at least as far as the last one listed.
        all_listed = num_listed == num_points - 1
        self.bound = np.full(num_points, np.inf) if all_listed else distances[:, -1].copy()
        reach = np.maximum(self.core[:, None], self.core[self.listed])
        self.reach = np.maximum(reach, distances)
        self.found = np.full(num_points, -1)  # by a search, at the distance `bound`
        self.component = np.arange(num_points)
        self.num_components = num_points
        self.edges: list[list[int]] = []
        self.weights: list[float] = []
        self.num_searches = 0

    def grow(self) -> None:
        """One round: join the components whose lightest edge out is known, by search if need be."""
        known = self._known()
        settled = self._settled(known)
        if settled.mean() < _ENOUGH_SETTLED:
            searched = ~settled
            searched[np.bincount(self.component).argmax()] = False
            for most in _SEARCHES:
                if not self._search(known, searched, most):
                    break
            settled |= searched
        self._join(known, settled)

    def ties(self, min_samples: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Edges as long as the core distance of an end, which may be as light as one of the tree.

        All of these lead to one of the ``min_samples`` nearest.
        """
        place, column = np.nonzero(self.reach[:, :min_samples] == self.core[:, None])
        ends = np.stack([place, self.listed[place, column]], axis=1)
        return ends, self.core[place]

    def _known(self) -> _Known:
        """The nearest known point of another component: by the lists, or by an earlier search."""
        outside = self.component[self.listed] != self.component[:, None]
        reach = np.where(outside, self.reach, np.inf)
        column = reach.argmin(axis=1)
        row = np.arange(len(reach))
        nearest, ends = reach[row, column], self.listed[row, column]
        valid = (self.found >= 0) & (self.component[self.found] != self.component)
        better = valid & (self.bound < nearest)
        return _Known(np.where(better, self.bound, nearest), np.where(better, self.found, ends))

    def _lightest(self, known: _Known) -> NDArray[np.float64]:
        """(num_components,) weight of the lightest edge known out of each, from either end."""
        weights = np.full(self.num_components, np.inf)
        np.minimum.at(weights, self.component, known.nearest)
        np.minimum.at(weights, self.component[known.ends], known.nearest)
        return weights

    def _open(self, known: _Known) -> NDArray[np.bool_]:
        """The points that may have a lighter edge out than is known of their component."""
        lightest = self._lightest(known)[self.component]
        return (self.bound < known.nearest) & (self.bound < lightest)

    def _settled(self, known: _Known) -> NDArray[np.bool_]:
        settled = np.ones(self.num_components, dtype=bool)
        settled[self.component[self._open(known)]] = False
        return settled

    def _search(self, known: _Known, searched: NDArray[np.bool_], most: int) -> bool:
        """Search from up to ``most`` open points of each component; False if there are none."""
        rows = np.flatnonzero(self._open(known) & searched[self.component])
        if len(rows) > _FEW_ROWS:
            rows = rows[np.lexsort((self.bound[rows], self.component[rows]))]
            components = self.component[rows]
            place = np.arange(len(rows)) - np.searchsorted(components, components)
            rows = rows[place < most]
        if len(rows) == 0:
            return False
        device = self.cloud.points.device
        found = nearest_outside(
            self.cloud,
            torch.from_numpy(self.component.astype(np.int32)).to(device),
            torch.from_numpy(self.core).to(device),
            rows=torch.from_numpy(rows).to(device),
        )
        self.num_searches += len(rows)
        known.nearest[rows] = self.bound[rows] = found.distances.cpu().numpy()
        known.ends[rows] = self.found[rows] = found.indices.cpu().numpy()
        return True

    def _join(self, known: _Known, settled: NDArray[np.bool_]) -> None:
        """Add the lightest edge of every settled component, unless it would close a circle.

        One edge a component, of equal ones that with the lowest ends: two might meet again by way
        of an edge lighter than both that is not known yet.
        """
        lightest = np.where(settled, self._lightest(known), -1)
        here, there = self.component, self.component[known.ends]
        from_here, from_there = known.nearest == lightest[here], known.nearest == lightest[there]
        points = np.flatnonzero(from_here | from_there)
        ends = np.sort(np.stack([points, known.ends[points]], axis=1), axis=1)
        weights = known.nearest[points]
        order = np.lexsort((ends[:, 1], ends[:, 0], weights))
        roots = list(range(self.num_components))
        waits = settled.tolist()  # for its edge
        for edge, weight, a, b, of_a, of_b in zip(
            ends[order].tolist(),
            weights[order].tolist(),
            here[points][order].tolist(),
            there[points][order].tolist(),
            from_here[points][order].tolist(),
            from_there[points][order].tolist(),
            strict=True,
        ):
            if not (of_a and waits[a]) and not (of_b and waits[b]):
                continue
            waits[a] &= not of_a
            waits[b] &= not of_b
            a, b = _root(roots, a), _root(roots, b)
            if a != b:
                roots[b] = a
                self.edges.append(edge)
                self.weights.append(weight)
        joined = np.array([_root(roots, component) for component in range(len(roots))])
        self.component = np.unique(joined, return_inverse=True)[1][self.component]
        self.num_components = int(self.component.max()) + 1
        _LOGGER.debug("%d components, %d searches so far", self.num_components, self.num_searches)


def _root(roots: list[int], component: int) -> int:
    while roots[component] != component:
        roots[component] = roots[roots[component]]
        component = roots[component]
    return component
