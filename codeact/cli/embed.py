"""``codeact embed``: one vector a row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeact.cli.options import Column, Data, Device


def embed(
    data: Data,
    *,
    output: Annotated[Path, typer.Option(metavar="FILE", help="NumPy file (.npy) to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Encoder: folder or Hugging Face id; the packaged MiniLM if none."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Texts a forward pass holds.")] = 64,
    column: Column = None,
    device: Device = "auto",
) -> None:
    """Embed each instruction.

    Mean over the tokens of the last layer, length 1; row i of the matrix is row i of the data.
    """
    from codeact.cli.checks import check_at_least, check_output, parse_columns
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models

    check_at_least(1, batch_size=batch_size)
    check_output(output, (".npy",))
    columns = parse_columns(column)
    with progress_bar("Embed") as on_progress:
        quiet_models()
        from codeact.data import load_examples
        from codeact.files import write_npy
        from codeact.models import demo_embedder
        from codeact.scoring import Embedder

        examples = load_examples(data, columns=columns)
        embedder = Embedder(model or demo_embedder(), device=device, batch_size=batch_size)
        write_npy(output, embedder.embed(examples, on_progress=on_progress))
