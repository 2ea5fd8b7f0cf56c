"""Sections of the report on the work: packing, training, the paired result, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codeact.pipeline.figures import SMOOTHED_FROM, loss_curves, padding_bars
from codeact.pipeline.report_cost import cost_table
from codeact.pipeline.report_facts import RunFacts, main_pair_first, mean_interval
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import (
    count,
    duration,
    interval,
    memory,
    p_value,
    percent,
    signed,
    verdict_sentence,
)
from codeact.pipeline.result_figures import forest_plot, pair_name, row_differences


def packing_section(facts: RunFacts) -> Section:
    """Padding before and after Dynamic Pack."""
    title = "Packing"
    if facts.packing is None or not facts.packing["arms"]:
        return Section("packing", title, "No packing plan has been made yet.")
    arms, capacity = facts.packing["arms"], facts.packing["capacity"]
    arm = arms.get("selected") or next(iter(arms.values()))
    caption = (
        f"Packing leaves {percent(arm['padding_packed'])} of the token slots empty. Padding to the "
        f"longest row of a batch would waste {percent(arm['padding_dynamic'])}, padding to "
        f"capacity {percent(arm['padding_max'])}."
    )
    lines = [
        [
            facts.arm_names[name],
            *(
                count(item[key])
                for key in ("num_examples", "num_tokens", "num_bins", "num_updates")
            ),
            percent(item["fill"]),
        ]
        for name, item in arms.items()
    ]
    head = ["", "rows", "tokens", "bins", "optimizer steps", "fill"]
    table = Table(
        head, lines, caption=f"Bins of {count(capacity)} tokens; fill is their used part."
    )
    figure = as_figure("packing", caption, padding_bars(arms, facts.arm_names))
    return Section("packing", title, figures=[figure], tables=[table])


def training_section(facts: RunFacts) -> Section:
    """Loss curves and what the arms cost."""
    title = "Fine-tuning"
    if not facts.logs:
        return Section("training", title, "No arm has been trained yet.")
    ends = [f"{_last_loss(log):.3f} for {facts.arm_names[arm]}" for arm, log in facts.logs.items()]
    caption = f"Training loss ends at {' and '.join(ends)}."
    if max(len(log) for log in facts.logs.values()) >= SMOOTHED_FROM:
        caption += " Thin lines are single steps, thick ones the mean of the last tenth."
    lines = [
        [
            facts.arm_names[arm],
            *(count(run[key]) for key in ("num_examples", "num_tokens", "num_steps")),
            duration(run["seconds"]),
            count(run["tokens_per_second"]),
            memory(run["peak_mib"]),
        ]
        for arm, run in facts.summaries.items()
    ]
    head = ["", "rows", "tokens", "steps", "time", "tokens per second", "peak memory"]
    return Section(
        "training",
        title,
        text=[
            "The arms train on different rows, so a lower curve says which rows are easier, not "
            "which arm is better: that is for the held-out rows to say."
        ],
        figures=[as_figure("training", caption, loss_curves(facts.logs, facts.arm_names))],
        tables=[Table(head, lines), *cost_table(facts)] if lines else [],
    )


def result_section(facts: RunFacts) -> Section:
    """Means, paired differences and single rows on the held-out set."""
    title = "Held-out result"
    if facts.comparison is None:
        return Section("result", title, "The arms have not been compared yet.")
    pairs = main_pair_first(facts.comparison["pairs"])
    figures = []
    if pairs:
        labels = [f"{signed(pair['difference'])} ({p_value(pair['p_value'])})" for pair in pairs]
        figures.append(
            as_figure(
                "forest",
                verdict_sentence(pairs[0]["verdict"], facts.arm_names),
                forest_plot(pairs, labels, facts.arm_names),
            )
        )
    if facts.held_out is not None:
        rows, method = facts.held_out, facts.arm_names["selected"]
        difference = rows["nll_selected"] - rows["nll_random"]
        better, worse = int((difference < 0).sum()), int((difference > 0).sum())
        caption = (
            f"{method} predicts {better} of {count(len(difference), 'held-out answer')} better "
            f"than random does, and {worse} worse."
        )
        ids = [str(row) for row in rows["id"]]
        plot = row_differences(rows["num_response_tokens"], difference, ids, method)
        figures.append(as_figure("rows", caption, plot))
    return Section(
        "result",
        title,
        text=[
            f"Measured as {facts.comparison['metric']}; lower is better. The same rows are scored "
            "by every model, so differences are taken row by row."
        ],
        tables=[_means_table(facts), _pairs_table(pairs, facts)],
        figures=figures,
    )


def provenance_section(facts: RunFacts) -> Section:
    """What it takes to repeat the run."""
    manifest = facts.manifest
    versions = {"codeact": manifest.codeact, **manifest.versions}
    environment = [
        ["model", facts.recipe.model.name or "packaged demo model"],
        ["data", facts.recipe.data.source or "harvested from installed packages"],
        ["device", manifest.device or "not recorded"],
        ["platform", manifest.platform or "not recorded"],
        ["seed", str(manifest.seed)],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
    ]
    stages = [
        [name, duration(stage.seconds), memory(stage.peak_mib), stage.hash[:12]]
        for name, stage in manifest.stages.items()
    ]
    tables = [Table(["", ""], environment, num_text_columns=2)]
    if stages:
        total = sum(stage.seconds for stage in manifest.stages.values())
        peak = max(stage.peak_mib for stage in manifest.stages.values())
        stages.append(["all stages", duration(total), memory(peak), ""])
        tables.append(Table(["stage", "time", "peak memory", "hash of its inputs"], stages))
    return Section("provenance", "Provenance", tables=tables, source=facts.recipe.to_yaml())


def _means_table(facts: RunFacts) -> Table:
    """Mean of each arm over all response tokens, with a bootstrap interval over rows."""
    means = facts.comparison["means"] if facts.comparison else {}
    confidence = facts.recipe.evaluate.confidence
    lines = []
    for arm, mean in means.items():
        ends = "—"
        if facts.held_out is not None:
            low, high = mean_interval(
                facts.held_out[f"nll_{arm}"],
                facts.held_out["num_response_tokens"],
                confidence=confidence,
                seed=facts.manifest.seed,
            )
            ends = f"{low:.3f} to {high:.3f}"
        lines.append([facts.arm_names[arm], f"{mean:.4f}", ends])
    head = ["model", "mean NLL", f"{percent(confidence)} interval"]
    note = (
        "Intervals of single means are wide because rows differ; what separates the models is the "
        "difference on the same rows, below."
    )
    return Table(head, lines, caption=note)


def _pairs_table(pairs: Sequence[Mapping[str, Any]], facts: RunFacts) -> Table:
    lines = [
        [
            pair_name(pair, facts.arm_names),
            pair["test"],
            count(pair["num_pairs"]),
            signed(pair["difference"]),
            interval(pair["interval"]),
            p_value(pair["p_value"]).removeprefix("p\xa0").removeprefix("=\xa0"),
        ]
        for pair in pairs
    ]
    confidence = percent(facts.recipe.evaluate.confidence)
    head = ["pair", "test", "rows", "difference", f"{confidence} interval", "p"]
    return Table(head, lines, num_text_columns=2)


def _last_loss(log: Sequence[Mapping[str, Any]]) -> float:
    """Mean loss over the last tenth of the steps: one step alone is mostly noise."""
    tail = log[-max(1, len(log) // 10) :]
    return float(np.mean([row["loss"] for row in tail]))
