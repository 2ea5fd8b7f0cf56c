"""A run folder as one HTML page: opens anywhere, offline, and reads in words first."""

from __future__ import annotations

from pathlib import Path

from codeact.pipeline.report_benchmarks import benchmark_section
from codeact.pipeline.report_facts import RunFacts, main_pair_first, read_run
from codeact.pipeline.report_page import KeyFigure, write_page
from codeact.pipeline.report_selection import (
    cluster_section,
    decontamination_section,
    example_section,
    length_section,
    score_section,
)
from codeact.pipeline.report_training import (
    packing_section,
    provenance_section,
    result_section,
    training_section,
)
from codeact.pipeline.report_words import (
    count,
    data_name,
    duration,
    interval,
    memory,
    model_name,
    p_value,
    percent,
    signed,
    verdict_sentence,
)

_SECTIONS = (
    score_section,
    length_section,
    cluster_section,
    example_section,
    packing_section,
    training_section,
    result_section,
    benchmark_section,
    decontamination_section,
    provenance_section,
)


def write_report(run: str | Path) -> Path:
    """Renders what a run folder holds as ``report.html`` inside it.

    The page carries its figures, styles and plotly.js itself, forbids itself any request (a
    content security policy), and is the same to the byte for the same run. Stages that have not
    run are named in a sentence.

    Args:
        run: The run folder; files missing from it are stages that have not run.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: ``run`` is no run folder, or a file in it is broken; the text names it.
    """
    facts = read_run(Path(run))
    return write_page(
        facts.path / "report.html",
        name=facts.recipe.name,
        version=facts.manifest.codeact,
        summary=_summary(facts),
        verdict=_verdict(facts),
        key_figures=_key_figures(facts),
        sections=[section for make in _SECTIONS if (section := make(facts)) is not None],
        footer="from the files in this folder",
        source_title="The recipe, every key written out",
    )


def _summary(facts: RunFacts) -> list[str]:
    """What was done and what was kept, in sentences."""
    model, data = model_name(facts.recipe), data_name(facts.recipe)
    if facts.scores is None:
        return [f"A run of {model} on {data} that has not scored any row yet."]
    sentences = [f"{model} scored {count(len(facts.scores['id']), 'row')} of {data}."]
    if facts.selection is not None:
        kept, tokens = facts.selection["kept"], facts.selection["num_response_tokens"]
        sentences.append(
            f"{facts.arm_names['selected']} kept {count(kept.sum())} of them "
            f"({percent(kept.mean())}), holding "
            f"{percent(tokens[kept].sum() / max(1, tokens.sum()))} of the answer tokens."
        )
    if facts.summaries:
        sentences.append(
            "The model was fine-tuned on them, and again on as many random rows of the same "
            "length profile."
        )
    return sentences


def _verdict(facts: RunFacts) -> str:
    pairs = main_pair_first(facts.comparison["pairs"]) if facts.comparison else []
    return verdict_sentence(pairs[0]["verdict"], facts.arm_names) if pairs else ""


def _key_figures(facts: RunFacts) -> list[KeyFigure]:
    """At most four: kept, result, padding, cost."""
    figures = []
    if facts.selection is not None:
        kept = facts.selection["kept"]
        note = f"{count(kept.sum())} of {count(len(kept), 'row')}"
        figures.append(KeyFigure(percent(kept.mean()), "of the rows kept", note))
    if facts.comparison and facts.comparison["pairs"]:
        pair = main_pair_first(facts.comparison["pairs"])[0]
        label = f"nats per token, {facts.arm_names[pair['a']]} against {pair['b']}"
        note = f"{interval(pair['interval'])}, {p_value(pair['p_value'])}"
        figures.append(KeyFigure(signed(pair["difference"]), label, note))
    if facts.packing and "selected" in facts.packing["arms"]:
        arm = facts.packing["arms"]["selected"]
        note = f"{percent(arm['padding_dynamic'])} when padded per batch"
        figures.append(KeyFigure(percent(arm["padding_packed"]), "padding after packing", note))
    stages = facts.manifest.stages.values()
    if stages:
        note = f"at most {memory(max(stage.peak_mib for stage in stages))} of memory"
        total = duration(sum(stage.seconds for stage in stages))
        figures.append(KeyFigure(total, "for all stages", note))
    return figures
