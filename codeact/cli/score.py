"""``codeact score``: IFD and its relatives, of every row."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import codeact
from codeact.cli.options import Column, Data, Device, Dtype, Model, Output, Seed

if TYPE_CHECKING:
    from codeact.data import Examples
    from codeact.pipeline.score_method import ScoreMethod
    from codeact.scoring import Scorer

_Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="codeact, superfiltering, cherry (IFD), tshirt (S-IFD) or qaq (RMI)."
    ),
]
_Turns = Annotated[
    str, typer.Option(metavar="all|last", help="Pool all assistant turns, or score the last one.")
]
_MaxLength = Annotated[
    int | None, typer.Option(metavar="N", help="Longest prompt plus answer in tokens.")
]
_TokenBudget = Annotated[
    int | None,
    typer.Option(metavar="N", help="Tokens of one forward pass; what suits the device if none."),
]
_TokenNll = Annotated[bool, typer.Option("--token-nll", help="Add the loss of every scored token.")]
_Embeddings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also write the mean hidden states of each row (.npy)."),
]
_Pool = Annotated[
    str | None,
    typer.Option(
        metavar="sequence|prompt|rds",
        help="Tokens that --embeddings averages over; sequence if none.",
    ),
]
_NumCopies = Annotated[
    int | None, typer.Option(metavar="N", help="Noisy copies of each row, of tshirt; 30 if none.")
]


def score(
    data: Data,
    *,
    model: Model,
    preset: _Preset = "codeact",
    turns: _Turns = "all",
    max_length: _MaxLength = None,
    token_budget: _TokenBudget = None,
    token_nll: _TokenNll = False,
    embeddings: _Embeddings = None,
    pool: _Pool = None,
    num_copies: _NumCopies = None,
    seed: Seed = 0,
    output: Output = None,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Score each row by IFD or a relative.

    IFD, the first three presets, is how much the instruction helps to predict its answer. S-IFD
    counts only the tokens for which it matters; RMI turns the question round. Every row keeps its
    place, with a status where it cannot be scored. With --output (.parquet or .jsonl)
    or --embeddings, an interrupted command goes on where it stopped.
    """
    from codeact.cli import checks
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models
    from codeact.cli.tables import write_table

    checks.check_at_least(2, max_length=max_length)
    checks.check_at_least(1, token_budget=token_budget)
    checks.check_at_least(0, num_copies=num_copies)
    checks.check_choice("--turns", turns, ("all", "last"))
    checks.check_choice("--pool", pool or "sequence", ("sequence", "prompt", "rds"))
    checks.check_seed(seed)
    checks.check_output(output)
    checks.check_output(embeddings, (".npy",), option="--embeddings")
    columns = checks.parse_columns(column)
    with ExitStack() as kept:
        with progress_bar("Score") as on_progress:
            quiet_models()
            from codeact.data import load_examples
            from codeact.files import write_npy
            from codeact.pipeline.score_cost import clock_in, score_cost, with_cost
            from codeact.pipeline.selection_stages import score_in_shards
            from codeact.pipeline.stage import count_statuses

            method = _method(preset, token_nll, embeddings, pool, num_copies, seed)
            examples = load_examples(data, columns=columns)
            scorer = _scorer(model, device, dtype, preset, max_length, token_budget, turns)
            parts = kept.enter_context(
                _parts(output or embeddings, scorer, method, examples, model)
            )
            with clock_in(parts) as clock:
                shards = score_in_shards(scorer, examples, parts, on_progress, method)
            table, vectors = method.finish(shards)
            table = with_cost(table, score_cost(scorer, method, table, model, clock.seconds))
        if embeddings is not None and vectors is not None:
            write_npy(embeddings, vectors)
        write_table(table, output)
    print(f"{len(examples)} rows: {count_statuses(table['status'].to_pylist())}", file=sys.stderr)


def _method(
    preset: str,
    token_nll: bool,
    embeddings: Path | None,
    pool: str | None,
    num_copies: int | None,
    seed: int,
) -> ScoreMethod:
    """What is asked for, before the model is read; refuses options that would do nothing."""
    from codeact.errors import InputError
    from codeact.pipeline.score_method import ScoreMethod
    from codeact.scoring import ifd_preset

    name = ifd_preset(preset).method
    if pool is not None and embeddings is None:
        raise InputError("--pool needs --embeddings")
    if num_copies is not None and name != "s_ifd":
        raise InputError(f"--num-copies needs --preset tshirt, got {preset}")
    return ScoreMethod(
        name=name,
        token_nlls=token_nll,
        pool=None if embeddings is None else pool or "sequence",  # type: ignore[arg-type]  # checked
        seed=seed,
        **({} if num_copies is None else {"num_copies": num_copies}),
    )


def _scorer(
    model: str,
    device: str,
    dtype: str,
    preset: str,
    max_length: int | None,
    token_budget: int | None,
    turns: str,
) -> Scorer:
    from codeact.models import load_model
    from codeact.scoring import Scorer

    return Scorer(
        load_model(model, device=device, dtype=dtype),
        preset=preset,
        max_length=max_length,
        token_budget=token_budget,
        turns=turns,  # type: ignore[arg-type]  # checked
    )


@contextmanager
def _parts(
    kept: Path | None, scorer: Scorer, method: ScoreMethod, examples: Examples, model: str
) -> Iterator[Path]:
    """Where finished rows wait for the rest: beside a file, or nowhere that anyone comes back to.

    The name beside a file is one that only this command comes back to. The folder goes when the
    block ends well.
    """
    from codeact.pipeline.inputs import model_fingerprint

    if kept is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    options = (
        codeact.__version__, examples.content_hash(), model, model_fingerprint(model),
        scorer.preset.name, scorer.turns, scorer.max_length, scorer.token_budget,
        str(scorer.model.dtype), str(scorer.model.device), method,
    )  # fmt: skip
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
    folder = Path(f"{kept}.parts-{key}")
    yield folder
    shutil.rmtree(folder)
