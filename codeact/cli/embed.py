"""``codeact embed``: one vector a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Column, Data, Device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from codeact.data import Examples
    from codeact.progress import OnProgress

    Embed = Callable[[Examples, OnProgress], NDArray[np.float32]]

_Output = Annotated[Path, typer.Option(metavar="FILE", help="NumPy file (.npy) to write.")]
_Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Folder or Hugging Face id: an encoder, the packaged MiniLM if none; with --pool a "
        "causal language model.",
    ),
]
_Text = Annotated[
    str | None,
    typer.Option(
        metavar="instruction|response|both",
        help="What of a row is embedded; instruction if none, with --pool both.",
    ),
]
_Pool = Annotated[
    str | None,
    typer.Option(
        metavar="mean|rds",
        help="Average the hidden states of a causal language model: plainly, or weighed by "
        "position as RDS+ does.",
    ),
]
_Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="With --pool, whose template is put around a row; codeact."),
]
_MaxLength = Annotated[
    int | None, typer.Option(metavar="N", help="Tokens a text is cut to; what the model takes.")
]
_BatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Texts an encoder's forward pass holds; 64 if none.")
]
_TokenBudget = Annotated[
    int | None, typer.Option(metavar="N", help="With --pool, tokens of one forward pass.")
]
_Dtype = Annotated[
    str | None,
    typer.Option(metavar="DTYPE", help="With --pool, auto, float32, bfloat16 or float16."),
]


def embed(
    data: Data,
    *,
    output: _Output,
    model: _Model = None,
    text: _Text = None,
    pool: _Pool = None,
    preset: _Preset = None,
    max_length: _MaxLength = None,
    batch_size: _BatchSize = None,
    token_budget: _TokenBudget = None,
    column: Column = None,
    device: Device = "auto",
    dtype: _Dtype = None,
) -> None:
    """Embed each row, or each query of a file of queries.

    Row i of the matrix is row i of the data. An encoder gives the mean over the tokens of its last
    layer, length 1, or what its own settings say; --pool the hidden states of the model to train.
    """
    from codeact.cli import checks
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models

    checks.check_at_least(1, batch_size=batch_size, token_budget=token_budget)
    checks.check_at_least(2, max_length=max_length)
    checks.check_choice("--text", text or "both", ("instruction", "response", "both"))
    checks.check_choice("--pool", pool or "mean", ("mean", "rds"))
    of_states = {"--preset": preset, "--token-budget": token_budget, "--dtype": dtype}
    _check_effect(pool, model, of_states, {"--batch-size": batch_size})
    checks.check_output(output, (".npy",))
    columns = checks.parse_columns(column)
    with progress_bar("Embed") as on_progress:
        quiet_models()
        from codeact.data import load_examples
        from codeact.files import write_npy

        examples = load_examples(data, columns=columns, needs_response=text == "response")
        if pool is None or model is None:
            run = _encoder(model, device, text, batch_size, max_length)
        else:
            run = _hidden_states(model, device, dtype, text, pool, preset, max_length, token_budget)
        write_npy(output, run(examples, on_progress))


def _check_effect(
    pool: str | None,
    model: str | None,
    of_states: Mapping[str, object],
    of_encoders: Mapping[str, object],
) -> None:
    """Refuse options that would do nothing."""
    from codeact.errors import InputError

    if pool is not None and model is None:
        raise InputError("--pool needs --model, a causal language model")
    useless = of_states if pool is None else of_encoders
    for name, value in useless.items():
        if value is not None:
            raise InputError(f"{name} {'needs' if pool is None else 'has no effect with'} --pool")


def _encoder(
    model: str | None,
    device: str,
    text: str | None,
    batch_size: int | None,
    max_length: int | None,
) -> Embed:
    from codeact.models import demo_embedder
    from codeact.scoring import Embedder

    embedder = Embedder(
        model or demo_embedder(),
        text=text or "instruction",  # type: ignore[arg-type]  # checked
        device=device,
        batch_size=batch_size or 64,
        max_length=max_length,
    )
    return lambda examples, on_progress: embedder.embed(examples, on_progress=on_progress)


def _hidden_states(
    model: str,
    device: str,
    dtype: str | None,
    text: str | None,
    pool: str,
    preset: str | None,
    max_length: int | None,
    token_budget: int | None,
) -> Embed:
    from codeact.models import load_model
    from codeact.scoring import Scorer

    scorer = Scorer(
        load_model(model, device=device, dtype=dtype or "auto"),
        preset=preset or "codeact",
        max_length=max_length,
        token_budget=token_budget,
    )
    return lambda examples, on_progress: scorer.embed(
        examples,
        pool=pool,  # type: ignore[arg-type]  # checked
        text=text or "both",  # type: ignore[arg-type]  # checked
        on_progress=on_progress,
    )
