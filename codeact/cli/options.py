"""Arguments and options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="JSON, JSONL or Parquet file, dataset folder, or Hugging Face id."
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=NAME",
        help="Name of a column, as instruction=problem or response=solution; repeatable.",
    ),
]
Model = Annotated[
    str,
    typer.Option(metavar="MODEL", help="Causal language model: folder or Hugging Face id."),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write here instead of to stdout.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(metavar="DTYPE", help="auto, float32, bfloat16 or float16.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, as train.epochs=2; repeatable.",
    ),
]
