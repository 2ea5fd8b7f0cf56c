"""One vector an instruction: what clustering and the diversity metrics see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import load_tokenizer, resolve_device
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Embedder:
    """Mean-pooled, L2-normalised vectors of a transformers encoder.

    The CodeACT authors' rule (arXiv:2408.02193): the instruction's text alone, mean over the tokens
    of the last layer, length 1. Their model is ``sentence-transformers/all-mpnet-base-v2``.

    Args:
        name_or_path: folder or Hugging Face id of an encoder such as all-mpnet-base-v2 or
            all-MiniLM-L6-v2.
        device: ``"auto"`` is the GPU when there is one.
        batch_size: texts a forward pass holds, longest first, so that little is padding.
        max_length: tokens a text is cut to; None is what tokenizer and model take.

    Raises:
        InputError: the model or its tokenizer cannot be loaded or used, the device is not there, or
            ``batch_size`` is below 1.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        device: str = "auto",
        batch_size: int = 64,
        max_length: int | None = None,
    ) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModel

        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        placed = resolve_device(device)
        folder = Path(name_or_path).expanduser()
        source = str(folder) if folder.is_dir() else str(name_or_path)
        self.tokenizer: PreTrainedTokenizerBase = _padding_tokenizer(source)
        try:
            model: PreTrainedModel = AutoModel.from_pretrained(source, dtype=torch.float32)
        except (OSError, ValueError, SafetensorError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(f"embedding model {source!r} cannot be loaded: {reason}") from error
        self.model: PreTrainedModel = torch.nn.Module.to(model, placed).eval()
        self.batch_size = batch_size
        # Some tokenizers state no limit (a number near 1e30); the position table then does.
        positions = getattr(model.config, "max_position_embeddings", 512)
        self.max_length = min(max_length or positions, self.tokenizer.model_max_length, positions)

    def embed(
        self, examples: Sequence[Example], *, on_progress: OnProgress | None = None
    ) -> NDArray[np.float32]:
        """(num_examples, dim) float32, row i for example i, each of length 1.

        Texts longer than the encoder takes are cut on the right.
        """
        texts = [example.instruction for example in examples]
        longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(texts), self.batch_size):
            chosen = longest_first[start : start + self.batch_size]
            vectors[chosen] = self._embed_batch([texts[i] for i in chosen])
            if on_progress is not None:
                on_progress(start + len(chosen), len(texts))
        return vectors

    @torch.inference_mode()
    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        inputs: Any = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        normalised: NDArray[np.float32] = (
            torch.nn.functional.normalize(pooled, dim=1).float().cpu().numpy()
        )
        return normalised


def _padding_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """A tokenizer that can fill a batch: many of causal language models have no padding token.

    Which token fills does not matter, since the mask keeps it out of attention and mean. The side
    does: padding on the left would move every text away from position 0.
    """
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"tokenizer of {source!r} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer
