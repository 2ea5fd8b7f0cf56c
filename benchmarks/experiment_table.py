"""The table of ``experiment.py`` for a person: a line an arm, and the verdicts below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from experiment_grid import RANDOM


def markdown(result: Mapping[str, Any]) -> str:
    """The table for a person, and the verdicts below it."""
    benchmarks = sorted({name for arm in result["arms"] for name in arm["pass_at_1"]})
    titles = [
        "method", "budget", "seeds", "rows", "tokens trained", "held-out NLL", "± seeds",
        "against random", "p (Holm)", "scoring s", "training s", "peak MiB", *benchmarks,
    ]  # fmt: skip
    against = {
        (test["method"], test["budget"]): test
        for test in result["tests"]
        if test["reference"] == RANDOM and test["metric"] == "nll"
    }
    lines = [f"| {' | '.join(titles)} |", "|---|---|" + "--:|" * (len(titles) - 2)]
    for arm in result["arms"]:
        test = against.get((arm["method"], arm["budget"]))
        lines.append(f"| {' | '.join(_line(arm, test, benchmarks))} |")
    lines += ["", f"Settings: {_settings(result)}", ""]
    lines += [f"- {test['verdict']}" for test in result["tests"]]
    lines += [f"- {name} failed: {error}" for name, error in result["failed"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _line(
    arm: Mapping[str, Any], test: Mapping[str, Any] | None, benchmarks: Sequence[str]
) -> list[str]:
    """Cells of a line; a figure that there is not is a dash."""
    nlls = arm["nlls"]
    spread = f"{np.std(nlls, ddof=1):.4f}" if len(nlls) > 1 else "–"
    interval, p_value = "–", "–"
    if test is not None:
        low, high = test["interval"]
        interval = f"{test['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        p_value = f"{test['p_adjusted']:.3f}" if test["p_adjusted"] >= 0.001 else "< 0.001"

    def figure(name: str, form: str) -> str:
        return format(arm[name], form) if name in arm else "–"

    rates = (arm["pass_at_1"].get(name) for name in benchmarks)
    return [
        arm["method"], arm["budget"] or "–", str(len(nlls)), figure("num_rows", ",.0f"),
        figure("num_tokens", ",.0f"), f"{np.mean(nlls):.4f}", spread, interval, p_value,
        figure("score_seconds", ".0f"), figure("train_seconds", ".1f"), figure("peak_mib", ",.0f"),
        *("–" if rate is None else f"{np.mean(rate):.1%}" for rate in rates),
    ]  # fmt: skip


def _settings(result: Mapping[str, Any]) -> str:
    """A line about what the cells share, where it is known."""
    settings = result.get("settings")
    if settings is None:
        return "not kept"
    train = settings["train"]
    return (
        f"{settings['model'].rpartition('/')[2]}, {settings['num_rows']:,} rows to select from, "
        f"{settings['num_held_out']:,} held out, up to {settings['max_length']:,} tokens, "
        f"{train['epochs']:g} epochs, learning rate {train['learning_rate']:g}, bins of "
        f"{train['capacity']:,} tokens x {train['accumulation']} a step; "
        f"{', '.join(result['devices'])}"
    )
