"""The map of the rows: neighbours stay together, whatever the order of the rows."""

from __future__ import annotations

import numpy as np

from codeact.pipeline.selection_map import map_rows


def test_map_keeps_neighbours_and_ignores_the_order_of_rows() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 150)
    points = (rng.normal(size=(4, 20)) * 10)[labels] + rng.normal(size=(150, 20))
    ids = [f"row-{row}" for row in range(150)]
    found = map_rows(points.astype(np.float32), ids, seed=1, max_shown=120)
    assert found.method == "t-SNE"
    assert len(np.unique(found.rows)) == 120
    gaps = np.linalg.norm(found.places[:, None] - found.places[None], axis=-1)
    np.fill_diagonal(gaps, np.inf)
    assert (labels[found.rows] == labels[found.rows][gaps.argmin(1)]).mean() > 0.98
    order = rng.permutation(150)
    other = map_rows(
        points[order].astype(np.float32), [ids[row] for row in order], seed=1, max_shown=120
    )
    np.testing.assert_array_equal(order[other.rows], found.rows)
    np.testing.assert_array_equal(other.places, found.places)


def test_few_rows_stand_at_their_principal_components() -> None:
    rng = np.random.default_rng(6)
    points = rng.normal(size=(30, 5)) @ np.diag([5.0, 3.0, 1.0, 0.1, 0.1])
    found = map_rows(points.astype(np.float32), [str(row) for row in range(30)])
    assert found.method == "principal components"
    centred = points[found.rows] - points.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(abs(found.places), abs(u[:, :2] * s[:2]), rtol=1e-4, atol=1e-4)
    one = map_rows(np.ones((3, 1), dtype=np.float32), ["a", "b", "c"])
    assert one.places.tolist() == [[0.0, 0.0]] * 3
