"""``codeact train``: fine-tune on a set, packed."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Device, Dtype, Model, Seed

if TYPE_CHECKING:
    from codeact.training import TrainResult


def train(
    data: Data,
    *,
    model: Model,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder for the fine-tuned model.")
    ],
    epochs: Annotated[float, typer.Option(metavar="X", help="Passes over the data.")] = 3.0,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Peak learning rate.")] = 5e-5,
    capacity: Annotated[int, typer.Option(metavar="N", help="Tokens a bin may hold.")] = 2048,
    accumulation: Annotated[
        int, typer.Option(metavar="N", help="Bins an optimizer step holds.")
    ] = 4,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after so many steps.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option(help="Recompute activations to save memory.")
    ] = False,
    column: Column = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    seed: Seed = 42,
) -> None:
    """Fine-tune a model on packed rows.

    Rows longer than the capacity are cut, and counted in the summary that goes to stdout as JSON.
    """
    from codeact.cli import checks
    from codeact.cli.allocator import keep_freed_memory
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models
    from codeact.errors import InputError
    from codeact.files import replacing_folder

    checks.check_positive(epochs=epochs, learning_rate=learning_rate)
    checks.check_at_least(1, capacity=capacity, accumulation=accumulation, max_steps=max_steps)
    checks.check_seed(seed)
    checks.check_new_folder(output)
    columns = checks.parse_columns(column)
    with tempfile.TemporaryDirectory() as scratch, progress_bar("Train", "steps") as on_progress:
        keep_freed_memory()
        quiet_models()
        from codeact.data import load_examples, tokenize_examples
        from codeact.models import load_model
        from codeact.packing import plan_bins
        from codeact.training import TrainConfig, fine_tune

        config = TrainConfig(
            epochs=epochs, learning_rate=learning_rate, accumulation=accumulation,
            max_steps=max_steps, gradient_checkpointing=gradient_checkpointing, seed=seed,
        )  # fmt: skip
        examples = load_examples(data, columns=columns)
        loaded = load_model(model, device=device, dtype=dtype)
        tokenized = tokenize_examples(examples, loaded.tokenizer, max_length=capacity)
        subset = tokenized.select(tokenized.num_response_tokens.nonzero()[0])
        if not len(subset):
            raise InputError(
                f"none of the {len(examples)} rows of {data} has an answer that begins within "
                f"--capacity = {capacity} tokens"
            )
        plan = plan_bins(subset.seqlens, capacity, seed=seed)
        result = fine_tune(
            loaded.model,
            subset,
            plan,
            config,
            scratch=Path(scratch),
            on_step=lambda step, total: on_progress(step.step, total),
        )
    with replacing_folder(output) as folder:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    rows = dict(Counter(tokenized.status))
    print(json.dumps({"rows": rows, "fill": plan.fill, **_summary(result)}, indent=2))


def _summary(result: TrainResult) -> dict[str, Any]:
    return {
        "num_steps": len(result.steps),
        "num_tokens": result.num_tokens,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "peak_mib": result.peak_mib,
        "first_loss": result.steps[0].loss,
        "last_loss": result.steps[-1].loss,
    }
