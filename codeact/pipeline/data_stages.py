"""Load, validate, decontaminate, and set rows aside for the comparison."""

from __future__ import annotations

import numpy as np

from codeact.data import (
    Examples,
    decontaminate,
    find_benchmarks,
    harvest_functions,
    load_examples,
    tokenize_examples,
)
from codeact.errors import InputError
from codeact.files import write_json
from codeact.pipeline.rows import write_examples
from codeact.pipeline.selection_inputs import budget_of
from codeact.pipeline.stage import StageContext, StageResult, count_statuses
from codeact.selection import TokenBudget, resolve_budget


def load_stage(context: StageContext) -> StageResult:
    """Rows that can be trained on, in a random order; writes ``pool.jsonl``."""
    section = context.recipe.data
    if section.source is None:
        examples = harvest_functions(seed=context.recipe.seed)
    else:
        examples = load_examples(section.source, columns=section.columns)
    tokenizer = context.load_tokenizer()
    tokenized = tokenize_examples(
        examples, tokenizer, max_length=section.max_tokens, on_progress=context.on_progress
    )
    usable = np.flatnonzero(np.array(tokenized.status) == "ok")
    if len(usable) == 0:
        raise InputError(
            f"data.source: none of the {len(examples)} rows has an instruction, an answer and at "
            f"most data.max_tokens = {section.max_tokens} tokens: "
            f"{count_statuses(tokenized.status)}"
        )
    order = np.random.default_rng(context.recipe.seed).permutation(usable)
    write_examples(context.folder / "pool.jsonl", examples.select(order))
    left_out = count_statuses(status for status in tokenized.status if status != "ok")
    return StageResult(
        ["pool.jsonl"],
        f"{len(usable)} of {len(examples)} rows of {examples.source} used, of at most "
        f"{section.max_tokens} tokens" + (f"; left out: {left_out}" if left_out else ""),
    )


def decontaminate_stage(context: StageContext) -> StageResult:
    """Leave out benchmark tasks, then split; writes ``examples.jsonl`` and ``held_out.jsonl``."""
    section = context.recipe.data
    pool = context.examples("pool.jsonl")
    benchmarks = find_benchmarks(section.benchmarks)
    result = decontaminate(pool, benchmarks, on_progress=context.on_progress)
    clean = pool.select(result.kept)
    wanted = len(clean) - section.num_held_out
    num_examples = min(section.num_examples or wanted, wanted)
    num_clusters = context.recipe.select.num_clusters
    if isinstance(num_clusters, int) and num_examples < num_clusters:
        raise InputError(
            f"data has {len(clean)} usable rows; {section.num_held_out} held out and "
            f"{num_clusters} clusters need more"
        )
    budget = budget_of(context.recipe)
    if not isinstance(budget, TokenBudget):
        resolve_budget(budget, num_examples)  # before hours of scoring
    held_out, examples = _split(clean, section.num_held_out, num_examples)
    write_examples(context.folder / "held_out.jsonl", held_out)
    write_examples(context.folder / "examples.jsonl", examples)
    note = (
        f"checked against {', '.join(b.name for b in benchmarks)}"
        if benchmarks
        else "no benchmark files found, so nothing was checked: put HumanEval and MBPP files in a "
        "folder and name it in data.benchmarks"
    )
    write_json(
        context.folder / "decontamination.json",
        {
            "num_examples": len(pool),
            "benchmarks": [
                {"name": b.name, "num_tasks": len(b.tasks), "path": str(b.path)} for b in benchmarks
            ],
            "removed": [hit._asdict() for hit in result.removed],
            "note": note,
        },
    )
    removed = len(pool) - len(clean)
    return StageResult(
        ["examples.jsonl", "held_out.jsonl", "decontamination.json"],
        f"{removed} rows removed ({note}); {len(examples)} to choose from, "
        f"{len(held_out)} held out",
    )


def _split(clean: Examples, num_held_out: int, num_examples: int) -> tuple[Examples, Examples]:
    """The pool is shuffled already: the first rows are held out, the next are the candidates."""
    return (
        clean.select(range(num_held_out)),
        clean.select(range(num_held_out, num_held_out + num_examples)),
    )
