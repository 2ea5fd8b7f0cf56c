"""Text encoders: from texts to vectors, whichever library knows how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.models import load_tokenizer
from codeact.scoring.sentence_settings import SentenceSettings, read_sentence_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Encoder(Protocol):
    """Makes one vector of each text."""

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens a text is cut to."""
        ...

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(num_texts, dim) vectors of a batch."""
        ...


def load_encoder(source: str, device: torch.device, max_length: int | None) -> Encoder:
    """The encoder in a folder or under a Hugging Face id, in float32.

    Whatever a ``modules.json`` asks for beyond a mean over tokens is left to sentence-transformers.
    A mean is taken here even where that library is installed, so that the vectors of a model do
    not depend on it (they are equal).

    Raises:
        InputError: the model cannot be loaded, or needs the library and that is missing.
    """
    tokenizer = _padding_tokenizer(source)
    settings = read_sentence_settings(source)
    if settings is not None and settings.beyond_mean is not None:
        return LibraryEncoder(source, device, max_length, settings.beyond_mean)
    return MeanEncoder(source, tokenizer, device, max_length, settings)


class MeanEncoder:
    """The mean over a text's tokens of the last layer, length 1 unless the model says otherwise.

    A text without any token, as a tokenizer without special ones makes of ``""``, is embedded as
    the token that a text could begin with: a mean of nothing would be no number.
    """

    def __init__(
        self,
        source: str,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        max_length: int | None,
        settings: SentenceSettings | None,
    ) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModel

        try:
            model: PreTrainedModel = AutoModel.from_pretrained(source, dtype=torch.float32)
        except (OSError, ValueError, SafetensorError) as error:
            raise _not_loaded(source, error) from error
        self.tokenizer = tokenizer
        self.model: PreTrainedModel = torch.nn.Module.to(model, device).eval()
        self.normalises = settings is None or settings.normalises
        # Some tokenizers state no limit (a number near 1e30); the position table then does.
        positions = getattr(model.config, "max_position_embeddings", 512)
        self.max_length = min(max_length or positions, tokenizer.model_max_length, positions)
        start = tokenizer.bos_token or tokenizer.eos_token or tokenizer.pad_token
        self._blank = "" if tokenizer("")["input_ids"] else str(start)

    @property
    def dim(self) -> int:
        """As in :class:`Encoder`."""
        size: int = self.model.config.hidden_size
        return size

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """As in :class:`Encoder`."""
        inputs: Any = self.tokenizer(
            [text or self._blank for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.model.device)
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        if self.normalises:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        vectors: NDArray[np.float32] = pooled.float().cpu().numpy()
        return vectors


class LibraryEncoder:
    """A model as sentence-transformers runs it, with the settings it came with."""

    def __init__(
        self, source: str, device: torch.device, max_length: int | None, reason: str
    ) -> None:
        from safetensors import SafetensorError

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InputError(
                f"embedding model {source!r} {reason}, which needs sentence-transformers: "
                "pip install 'codeact[embed]'"
            ) from None
        try:
            self.model = SentenceTransformer(
                source, device=str(device), model_kwargs={"dtype": torch.float32}
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise _not_loaded(source, error) from error
        if max_length is not None:
            self.model.max_seq_length = min(max_length, self.model.max_seq_length or max_length)
        self.max_length = int(self.model.max_seq_length or 0)

    @property
    def dim(self) -> int:
        """As in :class:`Encoder`."""
        return len(self.encode(["a"])[0])

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """As in :class:`Encoder`."""
        vectors: Any = self.model.encode(
            texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


def _not_loaded(source: str, error: Exception) -> InputError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"embedding model {source!r} cannot be loaded: {reason}")


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
