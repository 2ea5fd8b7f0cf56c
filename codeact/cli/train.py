"""``codeact train``: fine-tune on a set, packed, and say what it costs before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Device, Dtype, Model
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.training import TrainConfig


def train(
    data: Data,
    *,
    model: Model,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="New folder for the fine-tuned model.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML with the keys of TrainConfig.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A paper's settings: codeact, code-less or efficoder."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="METHOD", help="full, lora or qlora.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="X", help="Passes over the data: 3.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Peak learning rate: 5e-5.")
    ] = None,
    capacity: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens a bin may hold: 2048.")
    ] = None,
    accumulation: Annotated[
        int | None, typer.Option(metavar="N", help="Bins a rank adds up for an optimizer step: 4.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after so many steps.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Recompute activations to save memory.",
        ),
    ] = None,
    save_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps between checkpoints.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from the last checkpoint.")
    ] = True,
    full_set: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="What DATA was selected from, to compare costs with."),
    ] = None,
    dpo: Annotated[
        bool, typer.Option("--dpo", help="DATA holds pairs, as codeact measure writes them.")
    ] = False,
    beta: Annotated[
        float | None,
        typer.Option(metavar="X", help="How strongly --dpo holds on to the start: 0.1."),
    ] = None,
    forecast_only: Annotated[
        bool, typer.Option("--forecast-only", help="Predict time and memory, and stop.")
    ] = False,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of everything random: 42.")
    ] = None,
) -> None:
    """Fine-tune a model on packed rows.

    Options override --config, which overrides --preset. Rows longer than the capacity are cut.
    What it will cost and what it cost goes to stderr; a summary to stdout as JSON. With
    --save-steps, the same command goes on where it stopped. Under torchrun or accelerate launch it
    trains on all ranks.
    """
    from codeact.cli import checks

    given = {
        "method": method, "epochs": epochs, "learning_rate": learning_rate, "capacity": capacity,
        "accumulation": accumulation, "max_steps": max_steps, "save_steps": save_steps,
        "gradient_checkpointing": gradient_checkpointing, "seed": seed,
    }  # fmt: skip
    if beta is not None and not dpo:
        raise InputError("--beta is of --dpo, which is not given")
    _check(given, output, beta=beta, forecast_only=forecast_only)
    columns = checks.parse_columns(column)
    from codeact.cli.quiet import quiet_models

    quiet_models()
    from codeact.cli.train_run import TrainJob, run_job

    job = TrainJob(
        data, model, output, _config(config, preset, given), columns=columns, device=device,
        dtype=dtype, resume=resume, full_set=full_set, beta=(beta or 0.1) if dpo else None,
        forecast_only=forecast_only,
    )  # fmt: skip
    summary = run_job(job)
    if summary is not None:  # ranks but the first one say nothing
        print(json.dumps(summary, indent=2))


def _check(
    given: dict[str, Any], output: Path | None, *, beta: float | None, forecast_only: bool
) -> None:
    """What can be refused before anything is loaded, by the names of the options."""
    from codeact.cli import checks

    numbers = {"epochs": given["epochs"], "learning_rate": given["learning_rate"], "beta": beta}
    checks.check_positive(**{name: x for name, x in numbers.items() if x is not None})
    counts = ("capacity", "accumulation", "max_steps", "save_steps")
    checks.check_at_least(1, **{name: given[name] for name in counts})
    if given["seed"] is not None:
        checks.check_seed(given["seed"])
    if given["method"] is not None:
        checks.check_choice("--method", given["method"], ("full", "lora", "qlora"))
    if output is not None:
        checks.check_new_folder(output)
    elif not forecast_only:
        raise InputError("--output is needed: a new folder for the fine-tuned model")


def _config(path: Path | None, preset: str | None, given: dict[str, Any]) -> TrainConfig:
    """Only the options that were given override the file and the preset."""
    from codeact.training import load_train_config

    overrides = {name: value for name, value in given.items() if value is not None}
    return load_train_config(path, preset=preset, overrides=overrides)
