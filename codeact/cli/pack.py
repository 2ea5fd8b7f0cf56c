"""``codeact pack``: what packing saves on this data, before any training."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Column, Data, Model, Output, Seed

if TYPE_CHECKING:
    from codeact.data import TokenizedExamples


def pack(
    data: Data,
    *,
    model: Model,
    capacity: Annotated[int, typer.Option(metavar="N", help="Tokens a bin may hold.")] = 4096,
    window: Annotated[int, typer.Option(metavar="N", help="Examples packed together.")] = 4096,
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Batch size of the padded comparison.")
    ] = 8,
    overflow: Annotated[
        str,
        typer.Option(metavar="RULE", help="Examples above the capacity: error, drop or truncate."),
    ] = "error",
    output: Output = None,
    column: Column = None,
    seed: Seed = 0,
) -> None:
    """Plan bins, and what padding costs.

    The report on padding and steps, beside padded batches, goes to stdout as JSON. With --output
    (.json) the bins themselves are written too, as lists of row numbers.
    """
    from codeact.cli import checks
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models

    checks.check_at_least(1, capacity=capacity, window=window, batch_size=batch_size)
    checks.check_seed(seed)
    checks.check_choice("--overflow", overflow, ("error", "drop", "truncate"))
    checks.check_output(output, (".json",))
    columns = checks.parse_columns(column)
    with progress_bar("Tokenise") as on_progress:
        quiet_models()
        from codeact.data import load_examples, tokenize_examples
        from codeact.models import load_tokenizer
        from codeact.packing import plan_bins
        from codeact.files import write_json

        examples = load_examples(data, columns=columns)
        tokenized = tokenize_examples(
            examples,
            load_tokenizer(model),
            max_length=capacity if overflow == "truncate" else 2**31 - 1,
            on_progress=on_progress,
        )
    if overflow != "drop":
        _check_rows_fit(tokenized, capacity)
    plan = plan_bins(tokenized.seqlens, capacity, window=window, overflow="drop", seed=seed)
    report = asdict(plan.report(batch_size=batch_size))
    report["num_truncated"] = tokenized.status.count("truncated")
    if output is not None:
        write_json(output, {**report, "bins": [bin_.tolist() for bin_ in plan.epoch(0)]})
    print(json.dumps(report, indent=2))


def _check_rows_fit(tokenized: TokenizedExamples, capacity: int) -> None:
    from codeact.errors import InputError

    too_long = (tokenized.seqlens > capacity).nonzero()[0]
    if len(too_long):
        first = too_long[0]
        raise InputError(
            f"--capacity = {capacity} must hold every row, but row {tokenized.ids[first]} has "
            f"{tokenized.seqlens[first]} tokens and {len(too_long)} of {len(tokenized)} rows are "
            "too long; --overflow drop leaves them out, --overflow truncate cuts them"
        )
