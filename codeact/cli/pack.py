"""``codeact pack``: what packing saves on this data, before any training."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Model, Output, Seed

if TYPE_CHECKING:
    from codeact.data import TokenizedExamples
    from codeact.packing import BinPlan, ModelCost

_ORDERS = ("shuffle", "preserve", "compat")
_OVERFLOWS = ("error", "drop", "truncate", "truncate_prompt_left", "split")


def pack(
    data: Data,
    *,
    model: Model,
    capacity: Annotated[int, typer.Option(metavar="N", help="Tokens a bin may hold.")] = 4096,
    order: Annotated[
        str,
        typer.Option(
            metavar="ORDER",
            help="shuffle, preserve (next fit in the given order) or compat (the authors').",
        ),
    ] = "shuffle",
    window: Annotated[
        int | None,
        typer.Option(metavar="N", help="Examples packed together: 4096, under compat 16."),
    ] = None,
    overflow: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Examples above the capacity: error, drop, truncate (the end), "
            "truncate_prompt_left or split.",
        ),
    ] = "error",
    world_size: Annotated[
        int, typer.Option(metavar="N", help="Ranks that train together and get like work.")
    ] = 1,
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Batch size of the padded comparison.")
    ] = 8,
    accumulation: Annotated[
        int, typer.Option(metavar="N", help="Bins, or padded batches, an optimizer step holds.")
    ] = 1,
    output: Output = None,
    column: Column = None,
    seed: Seed = 0,
) -> None:
    """Plan bins, and what padding costs.

    The report on padding and steps, beside padded batches, goes to stdout as JSON. With --output
    (.json) the bins of the first epoch are written too, as lists of row numbers; where rows are
    cut, token_ranges says which of their tokens.
    """
    from codeact.cli import checks

    checks.check_at_least(
        1, capacity=capacity, window=window, world_size=world_size, batch_size=batch_size,
        accumulation=accumulation,
    )  # fmt: skip
    checks.check_seed(seed)
    checks.check_choice("--order", order, _ORDERS)
    checks.check_choice("--overflow", overflow, _OVERFLOWS)
    checks.check_output(output, (".json",))
    tokenized = _tokenize(data, model, checks.parse_columns(column))
    if overflow == "error":
        _check_rows_fit(tokenized, capacity)
    from codeact.files import write_json
    from codeact.packing import FlatTokens, plan_bins

    store = FlatTokens(tokenized.input_ids, tokenized.labels, tokenized.offsets)
    options: dict[str, Any] = {"order": order, "overflow": overflow, "seed": seed}
    plan = plan_bins(
        store.seqlens,
        capacity,
        window="auto" if window is None else window,
        prompt_seqlens=store.prompt_seqlens,
        world_size=world_size,
        cost=_model_cost(model) if world_size > 1 else None,
        **options,
    )
    report = asdict(plan.report(batch_size=batch_size, accumulation=accumulation))
    report["num_truncated"] = 0 if overflow == "split" else plan.num_cut
    if output is not None:
        write_json(output, {**report, **_bins(plan)})
    print(json.dumps(report, indent=2))
    warning = plan.update_warning(batch_size=batch_size, accumulation=accumulation)
    if warning is not None:
        print(f"warning: in an epoch, {warning}", file=sys.stderr)


def _tokenize(data: str, model: str, columns: dict[str, str] | None) -> TokenizedExamples:
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models

    with progress_bar("Tokenise") as on_progress:
        quiet_models()
        from codeact.data import load_examples, tokenize_examples
        from codeact.models import load_tokenizer

        examples = load_examples(data, columns=columns)
        # Whole: what happens to long rows is the plan's affair, which counts what it cuts.
        return tokenize_examples(
            examples, load_tokenizer(model), max_length=2**31 - 1, on_progress=on_progress
        )


def _model_cost(model: str) -> ModelCost:
    """Of the model whose tokenizer has been loaded."""
    from transformers import AutoConfig

    from codeact.errors import InputError
    from codeact.packing import ModelCost

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"config of {model!r} cannot be loaded: {error}") from error
    return ModelCost.from_config(config)


def _bins(plan: BinPlan) -> dict[str, Any]:
    """Row numbers of each bin, and where they are not whole rows, the tokens of each.

    A rank for which no row is left has an empty bin.
    """
    filler = plan.spans.filler
    located = [
        plan.spans.locate(spans if filler is None else spans[spans != filler])
        for spans in plan.epoch(0)
    ]
    bins = {"bins": [rows.tolist() for rows, _, _ in located]}
    is_whole = all((stops - starts == plan.seqlens[rows]).all() for rows, starts, stops in located)
    if is_whole:
        return bins
    ranges = [list(zip(s.tolist(), e.tolist(), strict=True)) for _, s, e in located]
    return {**bins, "token_ranges": ranges}


def _check_rows_fit(tokenized: TokenizedExamples, capacity: int) -> None:
    from codeact.errors import InputError

    too_long = (tokenized.seqlens > capacity).nonzero()[0]
    if len(too_long):
        first = too_long[0]
        raise InputError(
            f"--capacity = {capacity} must hold every row, but row {tokenized.ids[first]} has "
            f"{tokenized.seqlens[first]} tokens and {len(too_long)} of {len(tokenized)} rows are "
            "too long; --overflow drop leaves them out, truncate, truncate_prompt_left and split "
            "cut them"
        )
