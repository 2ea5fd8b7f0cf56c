"""What the grid says of its arms: over rows, over seeds, after Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_grid import Cell
from experiment_picture import draw, headline, lines_of
from experiment_table import markdown
from experiment_tests import Arm, Spread, compare_arms, summarise


def make_arms(shift: float, noise: float) -> dict[str, tuple[dict, np.ndarray]]:
    """Cells of two methods, two seeds: rows of ``random`` are harder by ``shift``."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.5, 2.0, 30)
    made = {}
    for method, extra in (("random", shift), ("cdas", 0.0)):
        for seed in range(2):
            # The spread between seeds moves all rows, as trainings do.
            losses = rows + extra + noise * (-1) ** seed + rng.normal(0, 0.01, 30)
            cell = Cell(method, "0.1", seed)
            row = {"name": cell.name, "method": method, "budget": "0.1", "seed": seed,
                   "num_tokens": 100, "nll": 0.0, "device": "a processor"}  # fmt: skip
            made[cell.name] = (row, losses)
    return made


@pytest.mark.parametrize(("noise", "verdict"), [(0.0, " is better than "), (0.5, "no significant")])
def test_a_difference_has_to_stand_out_from_the_spread_of_seeds(noise, verdict) -> None:
    made = make_arms(0.1, noise)
    weights = np.random.default_rng(1).integers(5, 50, 30)
    cells = {name: row for name, (row, _) in made.items()}
    losses = {name: values for name, (_, values) in made.items()}
    result = summarise(cells, losses, weights, "ifd")
    (test,) = result["tests"]
    means = {name: (values * weights).sum() / weights.sum() for name, values in losses.items()}
    a = [means["cdas-0.1-0"], means["cdas-0.1-1"]]
    b = [means["random-0.1-0"], means["random-0.1-1"]]
    assert test["difference"] == pytest.approx(np.mean(a) - np.mean(b), rel=1e-9)
    from scipy.stats import ttest_ind

    assert test["p_seeds"] == pytest.approx(ttest_ind(a, b).pvalue, rel=1e-9)
    assert test["p_value"] == max(test["p_rows"], test["p_seeds"])
    assert test["p_rows"] < 0.001
    assert verdict in test["verdict"]
    text = markdown(result)
    assert f"{test['difference']:+.4f}" in text
    assert test["verdict"] in text


def test_one_seed_is_said_to_be_one() -> None:
    made = make_arms(0.1, 0.0)
    cells = {name: row for name, (row, _) in made.items() if row["seed"] == 0}
    losses = {name: made[name][1] for name in cells}
    result = summarise(cells, losses, np.ones(30), "ifd")
    assert result["tests"][0]["p_seeds"] is None
    assert "one run each: the spread between trainings is not in this test" in markdown(result)


def test_spread_pools_over_arms() -> None:
    def arm(method: str, *means: float) -> Arm:
        losses = np.array([[mean, mean] for mean in means])
        return Arm(method, "0.1", tuple(range(len(means))), losses, {}, {})

    spread = Spread.of([arm("a", 1.0, 3.0), arm("b", 5.0, 5.0, 8.0), arm("c", 1.0)], np.ones(2))
    assert spread.df == 3
    assert spread.sd == pytest.approx(((1 + 1 + 1 + 1 + 4) / 3) ** 0.5)
    test = compare_arms(arm("a", 1.0, 3.0), arm("b", 5.0, 5.0, 8.0), np.ones(2), spread)
    assert test["comparison"].difference == pytest.approx(-4.0)


def test_holm_counts_the_tests_against_one_reference() -> None:
    made = make_arms(0.1, 0.02)
    cells = {name: row for name, (row, _) in made.items()}
    losses = {name: values for name, (_, values) in made.items()}
    for name in ("cdas-0.1-0", "cdas-0.1-1"):  # a third method, hardly different from random
        row = {**cells[name], "method": "qaq", "name": name.replace("cdas", "qaq")}
        cells[row["name"]] = row
        losses[row["name"]] = losses[name.replace("cdas", "random")] + 0.001
    result = summarise(cells, losses, np.ones(30), "ifd")
    by_method = {test["method"]: test for test in result["tests"]}
    small, large = by_method["cdas"], by_method["qaq"]
    assert small["p_value"] < large["p_value"]
    assert small["p_adjusted"] == pytest.approx(min(1, 2 * small["p_value"]))
    assert large["p_adjusted"] == max(small["p_adjusted"], large["p_value"])


def test_verdicts_of_benchmarks_are_compared_over_seeds() -> None:
    made = make_arms(0.0, 0.0)
    rng = np.random.default_rng(2)
    for row, _ in made.values():
        share = 0.8 if row["method"] == "cdas" else 0.3
        verdicts = {f"HumanEval/{task}": bool(rng.random() < share) for task in range(60)}
        row["passed"] = {"humaneval+": verdicts}
    cells = {name: row for name, (row, _) in made.items()}
    losses = {name: values for name, (_, values) in made.items()}
    result = summarise(cells, losses, np.ones(30), "ifd")
    test = next(test for test in result["tests"] if test["metric"] == "humaneval+")
    rates = [np.mean(list(row["passed"]["humaneval+"].values())) for row, _ in made.values()]
    assert test["difference"] == pytest.approx(np.mean(rates[2:]) - np.mean(rates[:2]))
    assert test["p_adjusted"] == test["p_value"] < 0.001  # alone in its family
    assert test["verdict"].startswith("humaneval+: cdas at 0.1 is better than random at 0.1")
    assert f"{np.mean(rates[2:]):.1%}" in markdown(result)


def test_the_picture_has_every_seed(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    made = make_arms(0.1, 0.01)
    result = summarise(
        {name: row for name, (row, _) in made.items()},
        {name: values for name, (_, values) in made.items()}, np.ones(30), "ifd",
    )  # fmt: skip
    assert [len(nlls) for _, nlls in lines_of(result)["cdas"]] == [2]
    assert headline(result) == "Of 1 selections 1 beat random rows of their budget, 0 lose"
    assert all(path.stat().st_size > 1000 for path in draw(result, tmp_path / "picture"))
