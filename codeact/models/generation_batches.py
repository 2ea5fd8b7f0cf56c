"""Keys and values of sequences that are being continued: packed prefill, then one row each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from codeact.models.isolation import assert_isolated
from codeact.ops.varlen import pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TokenIds = NDArray[np.integer[Any]]


def why_not_packed(model: PreTrainedModel) -> str | None:
    """Why prompts of a model cannot be packed, nor its cache be cut into rows; None if they can.

    Recurrent layers have a state and no keys and values; some attention has positions or sinks
    that packing does not know (:func:`codeact.models.assert_isolated` finds them).
    """
    if getattr(model, "_is_stateful", False):
        return f"{type(model).__name__} has recurrent layers"
    try:
        assert_isolated(model)
        layers = CachedRows.prefill(model, [np.array([0])], [1])[0].cache.layers
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        return " ".join(str(error).split())
    kinds = {type(layer).__name__ for layer in layers}
    return None if kinds == {"DynamicLayer"} else f"its cache has {', '.join(sorted(kinds))}"


class CachedRows:
    """The keys and values of sequences that grow together.

    Every layer holds (num_rows, num_kv_heads, width, head_dim), the rows aligned at their ends
    with what is no token on the left, so that a sliding window counts back through tokens alone.
    Layers with a sliding window are kept whole.

    Attributes:
        cache: The ``DynamicCache`` a model reads and lengthens.
        seqlens: Tokens of each row.
    """

    def __init__(self, cache: Any, seqlens: list[int]) -> None:
        self.cache = cache
        self.seqlens = seqlens

    @property
    def width(self) -> int:
        """Tokens that a row has room for."""
        return max(self.seqlens, default=0)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token takes in all layers."""
        tensors = [t for layer in self.cache.layers for t in (layer.keys, layer.values)]
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    @classmethod
    @torch.no_grad()
    def prefill(
        cls, model: PreTrainedModel, prompts: Sequence[TokenIds], copies: Sequence[int]
    ) -> tuple[CachedRows, Tensor]:
        """Read prompts in one flat pass, none of it padding, and give each so many rows.

        Args:
            model: As :func:`why_not_packed` asks for.
            prompts: Token ids, at least one each.
            copies: Rows of each prompt, which are computed once.

        Returns:
            The rows, and the (num_rows, vocab_size) logits of the tokens that follow.
        """
        from transformers import DynamicCache

        batch = pack_sequences(prompts, prompts).to(model.device)
        ends = np.cumsum([len(prompt) for prompt in prompts])
        # No config: with one, layers with a sliding window would forget what rows still need.
        cache = DynamicCache()
        inputs = {**batch.model_inputs(), "use_cache": True, "past_key_values": cache}
        last = torch.from_numpy(ends - 1).to(model.device)
        logits: Tensor = model(**inputs, logits_to_keep=last).logits[0]
        if len(logits) != len(prompts):  # a model that does not know logits_to_keep gives them all
            logits = logits[last]
        repeats = torch.tensor(list(copies), device=model.device)
        seqlens = np.repeat([len(prompt) for prompt in prompts], copies)
        _lay_out(cache, seqlens, np.repeat(ends, copies))
        return cls(cache, seqlens.tolist()), logits.repeat_interleave(repeats, dim=0)

    @torch.no_grad()
    def step(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Append one token to every row.

        Args:
            model: The one the rows are of.
            tokens: (num_rows,) int64.

        Returns:
            (num_rows, vocab_size) logits of the tokens that follow.
        """
        lengths = torch.tensor(self.seqlens, device=tokens.device)
        mask = None
        if min(self.seqlens) < self.width:
            columns = torch.arange(self.width, -1, -1, device=tokens.device)
            mask = (columns <= lengths[:, None]).long()
        with _decoding(model):
            output: Any = model(
                input_ids=tokens[:, None],
                position_ids=lengths[:, None],
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
            )
        self.seqlens = [seqlen + 1 for seqlen in self.seqlens]
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Forget the other rows, and the columns that no row needs any more."""
        index = torch.tensor(list(rows), device=self.cache.layers[0].keys.device)
        self.seqlens = [self.seqlens[row] for row in rows]
        for layer in self.cache.layers:
            begin = layer.keys.shape[2] - self.width
            layer.keys = layer.keys[index, :, begin:]
            layer.values = layer.values[index, :, begin:]

    def join(self, others: CachedRows) -> None:
        """Take the rows of another behind these."""
        width = max(self.width, others.width)
        for mine, theirs in zip(self.cache.layers, others.cache.layers, strict=True):
            mine.keys = torch.cat([_widened(x.keys, width) for x in (mine, theirs)])
            mine.values = torch.cat([_widened(x.values, width) for x in (mine, theirs)])
        self.seqlens = self.seqlens + others.seqlens


def _lay_out(cache: Any, seqlens: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Turns a flat stream in a cache into rows; ``ends[row]`` is where its sequence ends."""
    columns = ends[:, None] - np.arange(int(seqlens.max()), 0, -1)
    # Columns before a sequence point at some token: nobody reads them, but they must be finite.
    index = torch.from_numpy(columns.clip(min=0)).to(cache.layers[0].keys.device)
    for layer in cache.layers:
        layer.keys = layer.keys[0][:, index].transpose(0, 1)
        layer.values = layer.values[0][:, index].transpose(0, 1)


def _widened(states: Tensor, width: int) -> Tensor:
    return F.pad(states, (0, 0, width - states.shape[2], 0))


@contextmanager
def _decoding(model: PreTrainedModel) -> Iterator[None]:
    """Attention for padded rows: ``sdpa`` has no cap on the scores, ``eager`` has."""
    before = model.config._attn_implementation
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if not capped or before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
