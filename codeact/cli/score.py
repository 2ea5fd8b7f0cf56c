"""``codeact score``: IFD of every row."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Column, Data, Device, Dtype, Model, Output

if TYPE_CHECKING:
    from codeact.data import Examples
    from codeact.scoring import Scorer


def score(
    data: Data,
    *,
    model: Model,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="codeact, superfiltering or cherry.")
    ] = "codeact",
    max_length: Annotated[
        int | None,
        typer.Option(metavar="N", help="Longest prompt plus answer in tokens."),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tokens of one forward pass; what suits the device if none."
        ),
    ] = None,
    output: Output = None,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Score each row by IFD.

    IFD is how much the instruction helps to predict its answer. Every row keeps its place, with a
    status where it cannot be scored. With --output (.parquet or .jsonl), an interrupted command
    goes on where it stopped.
    """
    from codeact.cli.checks import check_at_least, check_output, parse_columns
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models
    from codeact.cli.tables import write_table

    check_at_least(2, max_length=max_length)
    check_at_least(1, token_budget=token_budget)
    check_output(output)
    columns = parse_columns(column)
    with tempfile.TemporaryDirectory() as scratch:
        with progress_bar("Score") as on_progress:
            quiet_models()
            from codeact.data import load_examples
            from codeact.models import load_model
            from codeact.pipeline.selection_stages import score_in_shards
            from codeact.pipeline.stage import count_statuses
            from codeact.scoring import Scorer, ifd_preset

            ifd_preset(preset)  # before the model is read
            examples = load_examples(data, columns=columns)
            loaded = load_model(model, device=device, dtype=dtype)
            scorer = Scorer(loaded, preset=preset, max_length=max_length, token_budget=token_budget)
            parts = Path(scratch) if output is None else _parts(output, scorer, examples, model)
            table = score_in_shards(scorer, examples, parts, on_progress)
        write_table(table, output)
        if output is not None:
            shutil.rmtree(parts)
    print(f"{len(examples)} rows: {count_statuses(table['status'].to_pylist())}", file=sys.stderr)


def _parts(output: Path, scorer: Scorer, examples: Examples, model: str) -> Path:
    """Where finished rows wait for the rest, under a name that only this command comes back to."""
    from codeact.pipeline.inputs import model_fingerprint

    options = (
        examples.content_hash(), model, model_fingerprint(model), scorer.preset.name,
        scorer.max_length, scorer.token_budget, str(scorer.model.dtype), str(scorer.model.device),
    )  # fmt: skip
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
    return Path(f"{output}.parts-{key}")
