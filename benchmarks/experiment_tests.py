"""What the cells of ``experiment.py`` say together: arms of several seeds, and paired tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from experiment_grid import BASE, FULL, LENGTH_MATCHED, RANDOM
from numpy.typing import NDArray
from scipy.stats import t as student

from codeact.evaluation import Comparison, compare_losses
from codeact.evaluation.comparing.effect_sizes import holm
from codeact.evaluation.comparing.seeds import compare_runs, seeds_warning

Floats = NDArray[np.float64]
Cells = Mapping[str, Mapping[str, Any]]
_CONFIDENCE = 0.95
_RESAMPLES = 10_000
# Of a finished cell; the table has their means over seeds.
_FIGURES = (
    "nll", "num_rows", "num_tokens", "num_steps", "score_seconds", "select_seconds",
    "train_seconds", "tokens_per_second", "peak_mib",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A method at a budget, over its seeds.

    Attributes:
        method, budget: of the cells.
        seeds: those that are finished, ascending.
        losses: (num_seeds, num_held_out) mean NLL of each row.
        means: of the figures of the cells.
        passed: benchmark -> (num_seeds, num_tasks) verdicts, tasks in the order of their ids.
    """

    method: str
    budget: str
    seeds: tuple[int, ...]
    losses: Floats
    means: Mapping[str, float]
    passed: Mapping[str, NDArray[np.bool_]]

    @property
    def name(self) -> str:
        """As readers see it."""
        return self.method if self.method in (BASE, FULL) else f"{self.method} at {self.budget}"


def arms_of(cells: Cells, losses: Mapping[str, Floats]) -> dict[tuple[str, str], Arm]:
    """Cells that differ by their seed alone, put together; cells that failed are left out."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(cells.values(), key=lambda row: row["seed"]):
        if row["name"] in losses:
            grouped[row["method"], row["budget"]].append(row)
    arms = {}
    for (method, budget), rows in grouped.items():
        figures = [name for name in _FIGURES if all(name in row for row in rows)]
        passed = {
            benchmark: np.array(
                [[row["passed"][benchmark][task] for task in sorted(tasks)] for row in rows]
            )
            for benchmark, tasks in rows[0].get("passed", {}).items()
        }
        arms[method, budget] = Arm(
            method, budget, tuple(row["seed"] for row in rows),
            np.array([losses[row["name"]] for row in rows]),
            {name: float(np.mean([row[name] for row in rows])) for name in figures}, passed,
        )  # fmt: skip
    return arms


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the held-out NLL between seeds of one arm, pooled over arms.

    ``sd = sqrt(sum of squared deviations from the arms' means / df)``, ``df`` the number of cells
    less the number of arms. The arms of one budget share it, as with two seeds each an arm's own
    says little; budgets do not, as small sets leave more to chance. NaN with one seed.

    Arms that draw nothing may vary less than random rows do, which makes it too small for a test
    against these: with three of five arms at 0.3 of the deviation and 2 seeds, 11 % false alarms
    at the level of 5 % (simulated; the test over rows must reject as well).
    """

    sd: float
    df: int

    @classmethod
    def of(cls, arms: Sequence[Arm], weights: Floats) -> Spread:
        """Of the trained arms."""
        squares, df = 0.0, 0
        for arm in arms:
            means = arm.losses @ weights / weights.sum()
            squares += float(((means - means.mean()) ** 2).sum())
            df += len(means) - 1
        return cls(math.sqrt(squares / df) if df else math.nan, df)

    def test(self, difference: float, num_a: int, num_b: int) -> tuple[float, float]:
        """p-value of a difference of means over seeds by Student's t, and its half interval."""
        if not self.df:
            return math.nan, math.nan
        error = self.sd * math.sqrt(1 / num_a + 1 / num_b)
        p_value = 2 * float(student.sf(abs(difference) / error, self.df)) if error else 0.0
        return p_value, error * float(student.ppf((1 + _CONFIDENCE) / 2, self.df))


def compare_arms(a: Arm, b: Arm, weights: Floats, spread: Spread) -> dict[str, Any]:
    """The paired comparison of two arms on the held-out rows, lower is better.

    Rows are paired, each with its mean loss over seeds: ``compare_losses``, weighted by answer
    tokens. That test takes the trained models as they are, and two trainings with different seeds
    differ too; so the difference also has to stand out from the spread between seeds. The p-value
    is the larger of the two: a method is called better when it would be on other rows, and after
    other trainings.
    """
    rows = compare_losses(
        a.losses.mean(axis=0), b.losses.mean(axis=0), weights=weights, confidence=_CONFIDENCE,
        num_resamples=_RESAMPLES,
    )  # fmt: skip
    p_seeds, half = spread.test(rows.difference, len(a.seeds), len(b.seeds))
    test = "sign flips over rows"
    if spread.df:
        test += f" and t({spread.df}) over seeds, the larger p"
    whole = replace(rows, p_value=float(np.nanmax([rows.p_value, p_seeds])), test=test)
    return {
        **_names(a, b, "nll"),
        "p_rows": rows.p_value,
        "p_seeds": p_seeds,
        "half_interval_seeds": half,
        "sd_seeds": spread.sd,
        "comparison": whole,
    }


def compare_passes(a: Arm, b: Arm, benchmark: str) -> dict[str, Any]:
    """The same of a benchmark's verdicts: :func:`codeact.evaluation.compare_runs`."""
    comparison = compare_runs(
        a.passed[benchmark], b.passed[benchmark], confidence=_CONFIDENCE, num_resamples=_RESAMPLES
    )
    return {**_names(a, b, benchmark), "comparison": comparison}


def _names(a: Arm, b: Arm, metric: str) -> dict[str, Any]:
    return {
        "metric": metric,
        "method": a.method,
        "budget": a.budget,
        "reference": b.method,
        "names": [a.name, b.name],
        "num_seeds": [len(a.seeds), len(b.seeds)],
    }


def pairs_of(arms: Mapping[tuple[str, str], Arm], control_of: str) -> list[tuple[Arm, Arm]]:
    """Each arm against random rows of its budget, its length-matched control, the full set."""
    trained = [arm for arm in arms.values() if arm.method != BASE]
    full = next((arm for arm in trained if arm.method == FULL), None)
    pairs = []
    for reference, methods in (
        (RANDOM, None), (LENGTH_MATCHED, (control_of,)), (FULL, None)
    ):  # fmt: skip
        for arm in trained:
            other = full if reference == FULL else arms.get((reference, arm.budget))
            if other is not None and other is not arm and (not methods or arm.method in methods):
                pairs.append((arm, other))
    return [(a, b) for a, b in pairs if a.method != FULL]


def summarise(
    cells: Cells, losses: Mapping[str, Floats], weights: Floats, control_of: str
) -> dict[str, Any]:
    """Arms, tests with Holm's correction among those against one reference, and failures.

    Args:
        cells: lines of finished cells by name.
        losses: (num_held_out,) of the cells that did not fail.
        weights: (num_held_out,) answer tokens.
        control_of: the method that ``length-matched-random`` is the control of.
    """
    weights = np.asarray(weights, dtype=np.float64)
    arms = arms_of(cells, losses)
    tests = []
    for a, b in pairs_of(arms, control_of):
        alike = [arm for arm in arms.values() if arm.budget in (a.budget, b.budget)]
        tests.append(compare_arms(a, b, weights, Spread.of(alike, weights)))
        tests += [compare_passes(a, b, name) for name in a.passed if name in b.passed]
    families: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    for test in tests:
        families[test["reference"], test["metric"] == "nll"].append(test)
    for family in families.values():
        adjusted = holm([test["comparison"].p_value for test in family])
        for test, p_value in zip(family, adjusted, strict=True):
            _settle(test, p_value)
    return {
        "arms": [_as_row(arm, weights) for arm in arms.values()],
        "tests": tests,
        "failed": {row["name"]: row["error"] for row in cells.values() if "error" in row},
        "devices": sorted({row["device"] for row in cells.values() if "device" in row}),
    }


def _settle(test: dict[str, Any], p_value: float) -> None:
    """Put the comparison's fields, its adjusted p-value and a verdict into the test, for JSON."""
    plain: Comparison = test.pop("comparison")
    lower_is_better = test["metric"] == "nll"
    changed = {"p_value": p_value} if lower_is_better else {"adjusted_p_value": p_value}
    adjusted = replace(plain, **changed)
    words = adjusted.verdict(*test["names"], lower_is_better)
    warning = seeds_warning(*test["num_seeds"], *test["names"])
    if lower_is_better:
        words = f"held-out NLL: {words.replace(plain.test, f'{plain.test}, Holm')}"
    else:
        words = f"{test['metric']}: {words}"
    test |= {**asdict(plain), "p_adjusted": p_value}
    test["verdict"] = f"{words}; {warning}" if warning else words
    for name, value in test.items():
        if isinstance(value, float) and math.isnan(value):
            test[name] = None


def _as_row(arm: Arm, weights: Floats) -> dict[str, Any]:
    means = arm.losses @ weights / weights.sum()
    rates = {name: verdicts.mean(axis=1).tolist() for name, verdicts in arm.passed.items()}
    return {
        "method": arm.method,
        "budget": arm.budget,
        "seeds": list(arm.seeds),
        "nlls": means.tolist(),
        **arm.means,
        "pass_at_1": rates,
    }
