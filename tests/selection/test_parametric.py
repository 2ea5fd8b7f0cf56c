"""The parametric selector against the published loss under autograd, and its assignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.selection import TokenBudget
from codeact.selection import centroid_descent as descent
from codeact.selection.nearest_untaken import nearest_untaken
from codeact.selection.parametric import Parametric
from codeact.selection.rows import Rows


def clustered(num_rows: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, dim))[rng.integers(8, size=num_rows)]
    points: NDArray[np.float32] = centres + 0.5 * rng.normal(size=(num_rows, dim))
    return points.astype(np.float32)


def published_loss(rows: Tensor, free: Tensor, temperature: float, balance: float) -> Tensor:
    """The loss as the follow-up's code states it: whole matrices, gradients by autograd."""
    unit = F.normalize(free, dim=1)
    positive, nearest = torch.max(torch.exp(rows @ unit.T / temperature), dim=1)
    crowd = torch.exp(unit.detach() @ unit.T / temperature).sum(dim=0)
    ratio = torch.log(positive) - torch.log(positive + crowd[nearest] * balance)
    return -ratio.mean()


def published_descent(rows: Tensor, start: Tensor, num_steps: int) -> tuple[Tensor, list[float]]:
    free = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([free], lr=1e-3)
    losses = []
    for _ in range(num_steps):
        loss = published_loss(rows, free, 0.07, 1.0)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(loss.item())
    return F.normalize(free.detach(), dim=1), losses


def published_assignment(rows: Tensor, centroids: Tensor) -> list[int]:
    """Each centroid in turn walks down all rows by similarity to the first that is free."""
    taken: list[int] = []
    for ranking in (centroids @ rows.T).sort(dim=1, descending=True, stable=True).indices.tolist():
        taken.append(next(row for row in ranking if row not in taken))
    return taken


@pytest.mark.parametrize("block", [1 << 22, 64], ids=["one block", "small blocks"])
@pytest.mark.parametrize(("temperature", "balance"), [(0.07, 1.0), (0.5, 0.3)])
def test_gradient_is_autograds(
    temperature: float, balance: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "_BLOCK", block)
    rows = F.normalize(torch.from_numpy(clustered(200)).double(), dim=1)
    unit = rows[::10].clone()
    free = unit.clone().requires_grad_()
    loss = published_loss(rows, free, temperature, balance)
    (expected,) = torch.autograd.grad(loss, free)
    found = descent.loss_gradient(rows, unit, temperature=temperature, balance=balance)
    along = (found.gradient * unit).sum(dim=1, keepdim=True) * unit  # autograd's is tangential
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.gradient - along, expected, rtol=1e-9, atol=1e-13)
    assert found.labels.tolist() == (rows @ unit.T).argmax(dim=1).tolist()


def test_descent_is_the_published_one() -> None:
    rows = F.normalize(torch.from_numpy(clustered(200)).double(), dim=1)
    start = rows[::13]
    expected, losses = published_descent(rows, start, 300)
    settings = {"temperature": 0.07, "balance": 1.0, "learning_rate": 1e-3, "num_steps": 300}
    centroids, found = descent.descend(rows, start, **settings)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, losses, rtol=1e-9)
    torch.testing.assert_close(centroids, expected, rtol=0, atol=1e-8)
    assert found[-1] < found[0] - 0.1


def test_keeps_the_rows_of_the_published_method() -> None:
    points = clustered(200)
    found = Parametric(20).fit(points)
    names = Rows(200, content=points)
    start = names.order[np.argsort(names.keys(42, "parametric")[names.order])[:20]]
    rows = F.normalize(torch.from_numpy(points), dim=1)
    expected, losses = published_descent(rows, rows[torch.from_numpy(start)], 300)
    assert set(found.selected_.tolist()) == set(published_assignment(rows, expected))
    # 300 steps in float32: Adam lets rounding of near-zero gradients grow.
    np.testing.assert_allclose(found.centroids_, expected.numpy(), atol=2e-3)
    assert found.report_.first_loss == pytest.approx(losses[0], rel=1e-5)
    assert found.report_.last_loss == pytest.approx(losses[-1], rel=1e-4)


def test_no_row_is_taken_twice() -> None:
    rows = F.normalize(torch.from_numpy(clustered(60)), dim=1)
    centroids = rows[:1].repeat(60, 1)  # all want the same rows
    taken = nearest_untaken(rows, centroids)
    assert sorted(taken.tolist()) == list(range(60))
    assert taken.tolist() == published_assignment(rows, centroids)


def test_best_rows_are_those_of_the_largest_centroids() -> None:
    points = clustered(300)
    found = Parametric(25, num_steps=20).fit(points)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    products = unit @ found.centroids_.T
    sizes = np.bincount(products.argmax(axis=1), minlength=25)
    order = Rows(300, content=points).order
    taken = order[
        published_assignment(torch.from_numpy(unit[order]), torch.from_numpy(found.centroids_))
    ]
    size_of = dict(zip(taken.tolist(), sizes.tolist(), strict=True))
    kept = [size_of[row] for row in found.selected_.tolist()]
    assert kept == sorted(sizes.tolist(), reverse=True)
    np.testing.assert_allclose(found.similarities_, products.max(axis=1), atol=1e-6)
    best = int(found.selected_[0])
    assert found.reasons_[best] == (
        f"kept: place 1 of 25, nearest free row of a centroid of {kept[0]} rows"
    )


def test_batches_of_rows_lower_the_loss_of_all_rows() -> None:
    points = clustered(400)
    batched = Parametric(20, batch_rows=100).fit(points)
    rows = F.normalize(torch.from_numpy(points), dim=1)
    end = published_loss(rows, torch.from_numpy(batched.centroids_), 0.07, 1.0).item()
    whole = Parametric(20).fit(points).report_
    assert end < whole.first_loss - 0.7 * (whole.first_loss - whole.last_loss)


def test_starts_at_the_farthest_rows() -> None:
    points = clustered(100)
    found = Parametric(10, init="farthest", num_steps=1, learning_rate=1e-9).fit(points)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    kept = unit[found.selected_]
    np.testing.assert_allclose(np.sort((kept @ found.centroids_.T).max(axis=1)), 1, atol=1e-5)
    gaps = np.linalg.norm(kept[:, None] - kept[None], axis=2)[np.triu_indices(10, 1)]
    away = np.linalg.norm(unit[:, None] - kept[None], axis=2).min(axis=1)
    assert gaps.min() >= away.max() - 1e-5  # what farthest-first guarantees


def test_a_token_budget_is_filled() -> None:
    points = clustered(150)
    tokens = np.random.default_rng(1).integers(20, 300, size=150)
    found = Parametric(TokenBudget(3000), num_steps=5).fit(points, num_tokens=tokens)
    left = 3000 - tokens[found.selected_].sum()
    assert 0 <= left < tokens[np.setdiff1d(np.arange(150), found.selected_)].min()
    assert found.report_.num_centroids == round(3000 / tokens.mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"balance": -1.0}, "balance must be above 0, got -1.0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_rows": 0}, "batch_rows must be at least 1 or None, got 0"),
        ({"init": "fps"}, "init must be random or farthest, got 'fps'"),
    ],
)
def test_refuses_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Parametric(2, **options).fit(clustered(10))  # type: ignore[arg-type]
