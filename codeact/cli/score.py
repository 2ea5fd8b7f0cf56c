"""``codeact score``: IFD and its relatives, of every row."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Column, Data, Device, Dtype, Model, Output, Seed

if TYPE_CHECKING:
    from codeact.data import Examples
    from codeact.pipeline.score_method import ScoreMethod
    from codeact.scoring import Scorer


def score(
    data: Data,
    *,
    model: Model,
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="codeact, superfiltering, cherry (IFD), tshirt (S-IFD) or qaq (RMI).",
        ),
    ] = "codeact",
    turns: Annotated[
        str,
        typer.Option(metavar="all|last", help="Pool all assistant turns, or score the last one."),
    ] = "all",
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
    token_nll: Annotated[
        bool, typer.Option("--token-nll", help="Add the loss of every scored token.")
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the mean hidden states of each row (.npy)."),
    ] = None,
    pool: Annotated[
        str,
        typer.Option(metavar="sequence|prompt", help="Tokens that --embeddings averages over."),
    ] = "sequence",
    num_copies: Annotated[
        int, typer.Option(metavar="N", help="Noisy copies of each row, of tshirt.")
    ] = 30,
    seed: Seed = 0,
    output: Output = None,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Score each row by IFD or a relative.

    IFD, the first three presets, is how much the instruction helps to predict its answer. S-IFD
    counts only the tokens for which it matters; RMI turns the question round. Every row keeps its
    place, with a status where it cannot be scored. With --output (.parquet or .jsonl), an
    interrupted command goes on where it stopped.
    """
    from codeact.cli import checks
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models
    from codeact.cli.tables import write_table

    checks.check_at_least(2, max_length=max_length)
    checks.check_at_least(1, token_budget=token_budget)
    checks.check_at_least(0, num_copies=num_copies)
    checks.check_choice("--turns", turns, ("all", "last"))
    checks.check_choice("--pool", pool, ("sequence", "prompt"))
    checks.check_seed(seed)
    checks.check_output(output)
    checks.check_output(embeddings, (".npy",), option="--embeddings")
    columns = checks.parse_columns(column)
    with tempfile.TemporaryDirectory() as scratch:
        with progress_bar("Score") as on_progress:
            quiet_models()
            from codeact.data import load_examples
            from codeact.files import write_npy
            from codeact.models import load_model
            from codeact.pipeline.score_method import ScoreMethod
            from codeact.pipeline.selection_stages import score_in_shards
            from codeact.pipeline.stage import count_statuses
            from codeact.scoring import Scorer, ifd_preset

            method = ScoreMethod(  # before the model is read
                name=ifd_preset(preset).method,
                token_nlls=token_nll,
                pool=None if embeddings is None else pool,  # type: ignore[arg-type]  # checked
                num_copies=num_copies,
                seed=seed,
            )
            examples = load_examples(data, columns=columns)
            scorer = Scorer(
                load_model(model, device=device, dtype=dtype),
                preset=preset,
                max_length=max_length,
                token_budget=token_budget,
                turns=turns,  # type: ignore[arg-type]  # checked above
            )
            kept = output or embeddings
            parts = Path(scratch) if kept is None else _parts(kept, scorer, method, examples, model)
            table, vectors = method.finish(
                score_in_shards(scorer, examples, parts, on_progress, method)
            )
        if embeddings is not None and vectors is not None:
            write_npy(embeddings, vectors)
        write_table(table, output)
        if kept is not None:
            shutil.rmtree(parts)
    print(f"{len(examples)} rows: {count_statuses(table['status'].to_pylist())}", file=sys.stderr)


def _parts(
    output: Path, scorer: Scorer, method: ScoreMethod, examples: Examples, model: str
) -> Path:
    """Where finished rows wait for the rest, under a name that only this command comes back to."""
    from codeact.pipeline.inputs import model_fingerprint

    options = (
        examples.content_hash(), model, model_fingerprint(model), scorer.preset.name, scorer.turns,
        scorer.max_length, scorer.token_budget, str(scorer.model.dtype), str(scorer.model.device),
        method,
    )  # fmt: skip
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
    return Path(f"{output}.parts-{key}")
