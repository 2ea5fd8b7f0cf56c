"""The greedy methods against the plain loops and libraries that people use.

python benchmarks/bench_diverse.py                                 sizes of the README
python benchmarks/bench_diverse.py --only kcenter --rows 20000 --kept 2000
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from embedding_data import made_embeddings, read_embeddings
from harness import NO_RECORD, Case, measure, report
from numpy.typing import NDArray

from codeact.selection.coverage import Coverage
from codeact.selection.deita import Deita
from codeact.selection.facility_location import FacilityLocation
from codeact.selection.kcenter import KCenter
from codeact.selection.parametric import Parametric

Matrix = NDArray[np.float32]
# Rows and kept rows by default: a real set, and what the rival can do in the time.
SIZES = {
    "kcenter": (100_000, 10_000),
    "facility-location": (8_000, 800),
    "deita": (100_000, 10_000),
    "parametric": (20_000, 500),
}
QUICK = (600, 60)
DIM = 384


def unit_rows(num_rows: int, path: Path | None) -> Matrix:
    """Unit rows, of a file or made up."""
    points = made_embeddings(num_rows, DIM) if path is None else read_embeddings(path, num_rows)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def plain_kcenter(points: Matrix, count: int) -> float:
    """The follow-up's loop: one column of distances a centre; the mean over 100 centres."""
    from sklearn.metrics import pairwise_distances

    nearest = pairwise_distances(points, points[:1])
    for _ in range(count - 1):
        newest = points[int(np.argmax(nearest))].reshape(1, -1)
        nearest = np.minimum(nearest, pairwise_distances(points, newest))
    return float(nearest.max())


def submodlib_rows(points: Matrix, count: int) -> list[int]:
    """Superfiltering's call."""
    from submodlib.functions.facilityLocation import FacilityLocationFunction

    function = FacilityLocationFunction(
        n=len(points), mode="dense", data=points, metric="euclidean"
    )
    found = function.maximize(
        budget=count,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        verbose=False,
        show_progress=False,
    )
    return [row for row, _ in found]


def plain_deita(points: Matrix, scores: NDArray[np.float64], count: int) -> list[int]:
    """DEITA's filter at its default batch size of 1, on rows that are already normalised."""
    order = np.argsort(-scores)
    sorted_points = points[order]
    kept = [0]
    for row in range(1, len(points)):
        if not (sorted_points[kept] @ sorted_points[row] > 0.9).any():
            kept.append(row)
        if len(kept) >= count:
            break
    return order[kept].tolist()  # type: ignore[no-any-return]


def plain_parametric(points: Matrix, count: int, num_steps: int) -> None:
    """The follow-up's loss under autograd."""
    rows = torch.from_numpy(points)
    free = torch.nn.Parameter(rows[:count].clone())
    adam = torch.optim.Adam([free], lr=1e-3)
    for _ in range(num_steps):
        unit = torch.nn.functional.normalize(free, dim=1)
        positive, nearest = torch.max(torch.exp(rows @ unit.T / 0.07), dim=1)
        crowd = torch.exp(unit.detach() @ unit.T / 0.07).sum(dim=0)
        loss = -(torch.log(positive) - torch.log(positive + crowd[nearest])).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()


def contenders(method: str, points: Matrix, count: int) -> dict[str, Callable[[], object]]:
    """Ours first."""
    if method == "kcenter":
        part = min(100, count)
        return {
            "KCenter": lambda: KCenter(count).fit(points),
            f"plain loop, {part} of {count} centres": lambda: plain_kcenter(points, part),
        }
    if method == "facility-location":
        ways: dict[str, Callable[[], object]] = {
            "FacilityLocation": lambda: FacilityLocation(count).fit(points),
            "8 partitions": lambda: FacilityLocation(count, partitions=8).fit(points),
            "first pass alone": lambda: Coverage(torch.from_numpy(points), "euclidean").gains(None),
        }
        if importlib.util.find_spec("submodlib"):
            ways["submodlib"] = lambda: submodlib_rows(points, count)
        return ways
    if method == "deita":
        scores = np.random.default_rng(1).uniform(1, 36, size=len(points))
        ones = np.ones(len(points))
        part = min(1000, count)
        return {
            "Deita": lambda: Deita(count).fit(scores, ones, points),
            f"plain loop, {part} of {count} rows": lambda: plain_deita(points, scores, part),
        }
    return {
        "Parametric, 30 steps": lambda: Parametric(count, num_steps=30).fit(points),
        "autograd, 30 steps": lambda: plain_parametric(points, count, 30),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SIZES, action="append", help="methods, all by default")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--kept", type=int)
    parser.add_argument("--embeddings", type=Path, help="a .npy matrix of real embeddings")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="tiny sets")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    for method in options.only or SIZES:
        num_rows, count = QUICK if options.quick else SIZES[method]
        num_rows, count = options.rows or num_rows, options.kept or count
        points = unit_rows(num_rows, options.embeddings)
        case = Case(
            name=f"{method} {num_rows} x {points.shape[1]}, {count} kept",
            contenders=contenders(method, points, count),
            amounts={"rows": num_rows},
        )
        print(report(case, measure(case, rounds=options.rounds), "bench_diverse"), flush=True)


if __name__ == "__main__":
    main()
