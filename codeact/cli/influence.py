"""``codeact influence``: how much a step on each row helps at coding tasks."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Device, Dtype, Model, Output, Seed

if TYPE_CHECKING:
    pass

_LEAST_MEASURED = 50  # ten rows for each of the predictor's five folds

_Validation = Annotated[
    list[str],
    typer.Option(
        metavar="[NAME=]FILE",
        help="Task: a HumanEval or MBPP file, or rows with solutions; repeatable.",
    ),
]
_By = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="Split it into tasks by a field of its rows, or language."),
]
_Style = Annotated[
    str,
    typer.Option(metavar="instruction|completion", help="Text around a problem: a template, none."),
]
_Limit = Annotated[
    int | None, typer.Option(metavar="N", help="At most so many problems a task, drawn at random.")
]
_Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER",
        help="Measure at this checkpoint or adapter of --model instead; repeatable.",
    ),
]
_Optimizer = Annotated[str, typer.Option(metavar="sgd|adamw", help="What the step is taken by.")]
_State = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Trainer checkpoint with the moments of adamw."),
]
_Parameters = Annotated[
    str, typer.Option(metavar="all|lora|last:K", help="Weights that the step moves.")
]
_Derivative = Annotated[
    str,
    typer.Option(metavar="auto|forward|ghost|difference", help="How rows follow the gradient."),
]
_Tokens = Annotated[
    bool, typer.Option("--token-influence", help="Add what each answer token contributes.")
]
_Overlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Go on if rows hold problems of the validation.")
]
_Oracle = Annotated[
    int | None, typer.Option(metavar="N", help="Check N rows by an exact optimizer step on each.")
]
_Step = Annotated[
    float | None, typer.Option(metavar="RATE", help="Learning rate of that step of --oracle.")
]
_Embeddings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Matrix of codeact embed (.npy), for --predict-from."),
]
_PredictFrom = Annotated[
    int | None, typer.Option(metavar="N", help="Measure N rows, predict the others if that works.")
]
_Gate = Annotated[
    float, typer.Option(metavar="RHO", help="Rank correlation that a predictor has to reach.")
]
_Report = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write a page about it (.html).")
]
_Preset = Annotated[
    str, typer.Option(metavar="NAME", help="Template: codeact, superfiltering, cherry or tshirt.")
]
_MaxLength = Annotated[
    int | None, typer.Option(metavar="N", help="Longest prompt plus answer in tokens.")
]
_TokenBudget = Annotated[
    int | None, typer.Option(metavar="N", help="Tokens of one pass; what suits the device if none.")
]


def influence(
    data: Data,
    *,
    model: Model,
    validation: _Validation,
    validation_by: _By = None,
    style: _Style = "instruction",
    limit: _Limit = None,
    checkpoints: _Checkpoints = None,
    optimizer: _Optimizer = "sgd",
    optimizer_state: _State = None,
    parameters: _Parameters = "all",
    derivative: _Derivative = "auto",
    token_influence: _Tokens = False,
    allow_overlap: _Overlap = False,
    oracle: _Oracle = None,
    step: _Step = None,
    embeddings: _Embeddings = None,
    predict_from: _PredictFrom = None,
    gate: _Gate = 0.5,
    report: _Report = None,
    preset: _Preset = "codeact",
    max_length: _MaxLength = None,
    token_budget: _TokenBudget = None,
    seed: Seed = 0,
    output: Output = None,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure how each row helps at coding tasks.

    Influence is how much a step on a row lowers the loss of their solutions, to first order and
    per unit of the learning rate: larger is more helpful, below 0 is harmful. Every row keeps its
    place, with a status where it cannot be scored. With --output (.parquet or .jsonl), an
    interrupted command goes on where it stopped.
    """
    from codeact.cli import checks
    from codeact.cli.allocator import keep_freed_memory
    from codeact.cli.quiet import quiet_models
    from codeact.cli.tables import write_table

    checks.check_at_least(1, limit=limit, oracle=oracle, token_budget=token_budget)
    checks.check_at_least(2, max_length=max_length)
    checks.check_at_least(_LEAST_MEASURED, predict_from=predict_from)
    checks.check_choice("--style", style, ("instruction", "completion"))
    checks.check_choice("--optimizer", optimizer, ("sgd", "adamw"))
    checks.check_choice("--derivative", derivative, ("auto", "forward", "ghost", "difference"))
    checks.check_seed(seed)
    checks.check_output(output)
    checks.check_output(report, (".html",), option="--report")
    _check_options(optimizer, optimizer_state, derivative, token_influence)
    _check_extras(oracle, step, embeddings, predict_from, gate)
    columns = checks.parse_columns(column)
    keep_freed_memory()
    from codeact.cli.display import Bars, command_line

    with ExitStack() as kept, Bars() as bars:
        bars("Influence")
        quiet_models()
        from codeact.data import load_examples
        from codeact.data.overlap import refuse_overlap
        from codeact.data.validation import load_validations
        from codeact.pipeline.influence.check import result_words
        from codeact.pipeline.influence.checkpoints import find_checkpoints
        from codeact.pipeline.influence.model import InfluenceSettings
        from codeact.pipeline.influence.stage import InfluenceJob, report_facts

        settings = InfluenceSettings(
            optimizer, optimizer_state, parameters,
            # The only derivative that has a value of each token.
            "forward" if token_influence else derivative,  # type: ignore[arg-type]  # checked
            token_influence, preset, style,  # type: ignore[arg-type]  # checked
            max_length, token_budget, device, dtype, seed,
        )  # fmt: skip
        pool = load_examples(data, columns=columns)
        tasks = load_validations(validation, style=style, by=validation_by, limit=limit, seed=seed)  # type: ignore[arg-type]  # checked
        overlaps = refuse_overlap(pool, tasks, allow=allow_overlap)
        job = InfluenceJob(
            pool=pool, validation=tasks,
            checkpoints=find_checkpoints(model, checkpoints or ()), settings=settings,
            num_measured=predict_from, embeddings=_matrix(embeddings, len(pool), data),
            gate=gate, num_exact=oracle, step=step,
        )  # fmt: skip
        result = job.run(kept.enter_context(_parts(output, job.key())), bars)
        if report is not None:
            from codeact.pipeline.influence.report import write_influence_report

            bars("Report")
            write_influence_report(report_facts(job, result, command_line()), report)
        write_table(result.table, output)
    if overlaps:
        rows = len({overlap.pool_id for overlap in overlaps})
        print(f"{rows} rows hold problems of the validation, as allowed", file=sys.stderr)
    for line in result_words(result):
        print(line, file=sys.stderr)


def _check_options(
    optimizer: str, optimizer_state: Path | None, derivative: str, token_influence: bool
) -> None:
    """Refuse options that would do nothing, or cannot be had together."""
    from codeact.errors import InputError

    if optimizer_state is not None and optimizer != "adamw":
        raise InputError(f"--optimizer-state needs --optimizer adamw, got {optimizer}")
    if token_influence and derivative in ("ghost", "difference"):
        raise InputError(
            f"--token-influence needs --derivative forward, got {derivative}, which has no value "
            "of a single token"
        )


def _check_extras(
    oracle: int | None,
    step: float | None,
    embeddings: Path | None,
    predict_from: int | None,
    gate: float,
) -> None:
    from codeact.cli import checks
    from codeact.errors import InputError

    if step is not None:
        checks.check_positive(step=step)
        if oracle is None:
            raise InputError("--step needs --oracle: it is the step of that check alone")
    if (embeddings is None) != (predict_from is None):
        given, missing = "--embeddings", "--predict-from"
        if embeddings is None:
            given, missing = missing, given
        raise InputError(f"{given} needs {missing}: the two predict influence together")
    if not 0 <= gate <= 1:
        raise InputError(f"--gate must be a correlation from 0 to 1, got {gate}")


def _matrix(path: Path | None, num_rows: int, data: str) -> Any:
    """The embeddings of all rows, None if there are none."""
    from codeact.cli.select_inputs import read_embeddings

    return None if path is None else read_embeddings(path, num_rows, data)


@contextmanager
def _parts(output: Path | None, key: str) -> Iterator[Path]:
    """Where finished rows wait for the rest: beside the output, or nowhere to come back to.

    The folder goes when the block ends well, or is refused before a row is measured.
    """
    from codeact.errors import InputError

    if output is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder = Path(f"{output}.parts-{key}")
    try:
        yield folder
    except InputError:
        if not any(folder.rglob("*.parquet")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)
