"""The section of the report on benchmarks: pass@1 of every model, and who is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from codeact.evaluation.results import TITLES
from codeact.pipeline.report_facts import RunFacts
from codeact.pipeline.report_parts import Section, Table
from codeact.pipeline.report_words import (
    count,
    p_value,
    percent,
    verdict_sentence,
)
from codeact.pipeline.result_figures import pair_name

_METRICS = (("base", ""), ("plus", "+"))
_STYLES = {
    "chat": "in its chat template",
    "completion": "with the task's code alone",
    "deepseek": "in the form of its training",
    "alpaca": "in Alpaca's form",
}


def benchmark_section(facts: RunFacts) -> Section | None:
    """pass@1 of every model, and the pairs; None where the recipe asks for no benchmark."""
    if not facts.recipe.evaluate.benchmarks:
        return None
    title, found = "Benchmarks", facts.benchmarks
    if found is None:
        return Section("benchmarks", title, "The models have not answered the benchmarks yet.")
    text = [_setting(facts, found), *_verdicts(facts, found), *_evalplus(found)]
    tables = [_rates(facts, found), _pairs(facts, found)]
    return Section("benchmarks", title, text=text, tables=tables)


def _setting(facts: RunFacts, found: Mapping[str, Any]) -> str:
    """How the models were asked, and what counts as a pass."""
    section, base = facts.recipe.evaluate, found["arms"]["base"]
    tasks = " and ".join(
        f"{'the first ' if section.limit is not None else ''}"
        f"{count(one['num_tasks'], 'task')} of {TITLES[name]}"
        for name, one in base["benchmarks"].items()
    )
    how = (
        "each once, by the likeliest tokens"
        if section.temperature == 0
        else f"{count(section.num_samples, 'time')} each, at temperature {section.temperature:g}"
    )
    styles = {arm: _STYLES[one["style"]["name"]] for arm, one in found["arms"].items()}
    asked = (
        f"Each was asked {styles['base']}."
        if len(set(styles.values())) == 1
        else f"The model before training was asked {styles['base']}, the others "
        f"{styles['selected']}."
    )
    return (
        f"Every model answered {tasks}, {how}, in at most {count(section.max_new_tokens)} tokens. "
        f"{asked} A plus sign is a pass of EvalPlus's further tests too. All programs ran in the "
        "sandbox."
    )


def _verdicts(facts: RunFacts, found: Mapping[str, Any]) -> Iterable[str]:
    """Who is better or that nobody is, one sentence a test set, and each note once."""
    lines = [line for pair in found["pairs"] for line in pair["lines"]]
    for line in dict.fromkeys(lines):
        if not line.startswith("note: "):
            yield verdict_sentence(line, facts.arm_names)
    notes = [line.removeprefix("note: ") for line in dict.fromkeys(lines) if line[:5] == "note:"]
    for note in notes:
        yield "Note: " + verdict_sentence(note, facts.arm_names)


def _evalplus(found: Mapping[str, Any]) -> Iterable[str]:
    """Whether EvalPlus agrees."""
    kinds: Counter[str] = Counter()
    for arm in found["arms"].values():
        kinds.update(arm["disagreements"])
    errors = [arm["evalplus_error"] for arm in found["arms"].values() if arm["evalplus_error"]]
    if errors:
        yield f"There is no number of EvalPlus: {errors[0]}"
    if kinds:
        words = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in kinds.most_common())
        yield (
            f"EvalPlus differs from our check in {count(kinds.total(), 'verdict')} ({words}); each "
            "stands with its reason in the disagreements.jsonl of its model."
        )
    elif not errors:
        yield "EvalPlus, run on the same answers, agrees with every verdict."


def _rates(facts: RunFacts, found: Mapping[str, Any]) -> Table:
    """A line a model and test set."""
    lines = []
    for name in next(iter(found["arms"].values()))["benchmarks"]:
        for metric, mark in _METRICS:
            for arm, one in found["arms"].items():
                rate = one["benchmarks"][name][metric]
                evalplus = one["benchmarks"][name][f"evalplus_{metric}"]
                low, high = (f"{100 * end:.1f}" for end in rate["interval"])
                lines.append(
                    [
                        TITLES[name] + mark,
                        facts.arm_names[arm],
                        f"{100 * rate['value']:.1f}",
                        f"{low} to {high}",
                        "—" if evalplus is None else f"{100 * evalplus:.1f}",
                    ]
                )
    confidence = percent(facts.recipe.evaluate.confidence)
    head = ["tests", "model", "pass@1, %", f"{confidence} interval", "EvalPlus, %"]
    return Table(head, lines, num_text_columns=2)


def _pairs(facts: RunFacts, found: Mapping[str, Any]) -> Table:
    """A line a pair and test set, with what the tasks could have shown at all."""
    lines = []
    for pair in found["pairs"]:
        for one in pair["comparisons"]:
            adjusted = one["adjusted_p_value"]
            p_values = (one["p_value"], one["p_value"] if adjusted is None else adjusted)
            detectable = one["detectable"]
            lines.append(
                [
                    pair_name(pair, facts.arm_names),
                    TITLES[one["benchmark"]] + dict(_METRICS)[one["metric"]],
                    count(one["num_pairs"]),
                    _points(one["difference"]),
                    " to ".join(_points(end) for end in one["interval"]),
                    *(p_value(p).removeprefix("p\xa0").removeprefix("=\xa0") for p in p_values),
                    "—" if detectable is None else f"{100 * detectable:.1f}",
                ]
            )
    confidence = percent(facts.recipe.evaluate.confidence)
    head = [
        "pair", "tests", "tasks", "difference, points", f"{confidence} interval", "p",
        "p after Holm", "detectable, points",
    ]  # fmt: skip
    caption = (
        "Paired by task. Holm's correction is over the test sets of a pair. Detectable is the "
        "smallest true difference that 4 of 5 such comparisons would find: of smaller ones, no "
        "significant difference says nothing."
    )
    return Table(head, lines, caption, num_text_columns=2)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
