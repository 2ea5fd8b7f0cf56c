"""One vector a row by a text encoder: what clustering and the diversity metrics see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import resolve_device
from codeact.progress import OnProgress
from codeact.scoring.encoders import load_encoder
from codeact.scoring.pooling import EmbedText, check_text


class Embedder:
    """Vectors of a text encoder: a mean over the tokens of the last layer, of length 1.

    That is the CodeACT authors' rule (arXiv:2408.02193), with the instruction's text alone and
    ``sentence-transformers/all-mpnet-base-v2``. A sentence-transformers model (one with a
    ``modules.json``) that pools otherwise or does not normalise is taken at its word; anything
    beyond a mean needs that library (``codeact[embed]``).

    Args:
        name_or_path: folder or Hugging Face id of an encoder such as all-mpnet-base-v2 or
            all-MiniLM-L6-v2.
        text: what is embedded: ``"instruction"``, ``"response"``, or ``"both"``, the instruction,
            a newline and the response, as Code Less, Align More (arXiv:2407.05040) embeds them.
        device: ``"auto"`` is the GPU when there is one.
        batch_size: texts a forward pass holds, longest first, so that little is padding.
        max_length: tokens a text is cut to, on the right. None is what tokenizer and model take,
            as in the authors' script, which does not read the often lower ``max_seq_length`` of a
            sentence-transformers model; where the library is needed, that one.

    Raises:
        InputError: the model or its tokenizer cannot be loaded or used, the device is not there,
            ``batch_size`` or ``max_length`` is below 1, or ``text`` is another word.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        text: EmbedText = "instruction",
        device: str = "auto",
        batch_size: int = 64,
        max_length: int | None = None,
    ) -> None:
        check_text(text)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length must be at least 1, got {max_length}")
        placed = resolve_device(device)
        folder = Path(name_or_path).expanduser()
        source = str(folder) if folder.is_dir() else str(name_or_path)
        self.encoder = load_encoder(source, placed, max_length)
        self.text: EmbedText = text
        self.batch_size = batch_size
        self.max_length = self.encoder.max_length

    def embed(
        self, examples: Sequence[Example], *, on_progress: OnProgress | None = None
    ) -> NDArray[np.float32]:
        """(num_examples, dim) float32, row i for example i.

        Texts longer than the encoder takes are cut on the right.
        """
        texts = [text_of(example, self.text) for example in examples]
        longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), self.encoder.dim), dtype=np.float32)
        for start in range(0, len(texts), self.batch_size):
            chosen = longest_first[start : start + self.batch_size]
            vectors[chosen] = self.encoder.encode([texts[i] for i in chosen])
            if on_progress is not None:
                on_progress(start + len(chosen), len(texts))
        return vectors


def text_of(example: Example, text: EmbedText) -> str:
    """The part of a row that ``text`` names; ``"both"`` joins the parts by a newline."""
    if text == "both":
        return f"{example.instruction}\n{example.response}"
    return example.instruction if text == "instruction" else example.response
