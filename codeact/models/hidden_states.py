"""Last-layer hidden states of a packed batch, and the projection that turns them into logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codeact.ops.linear_nll import linear_nll
from codeact.ops.varlen import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class OutputHead:
    """How a causal language model turns hidden states into logits.

    ``logits = cap(scale * (hidden_states @ weight.T) + bias)``, ``cap`` as in :func:`linear_nll`.
    """

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    scale: float

    def nll(self, hidden_states: Tensor, targets: Tensor) -> Tensor:
        """(num_rows,) float32 losses of (num_rows, hidden_size) states, logits never whole."""
        hidden_states = hidden_states.to(self.weight.dtype)  # they differ under autocast
        return linear_nll(
            hidden_states,
            self.weight,
            targets,
            bias=self.bias,
            softcap=self.softcap,
            logit_scale=self.scale,
        )


def output_head(model: PreTrainedModel) -> OutputHead:
    """The output projection of a transformers causal language model.

    Gemma 2's final softcap, Cohere's ``logit_scale`` and Granite's ``logits_scaling`` are read from
    the config; :func:`codeact.models.assert_isolated` compares the result with the model's logits.

    Raises:
        ValueError: the model has no linear output projection.
    """
    projection: Any = model.get_output_embeddings()
    if projection is None or getattr(projection, "weight", None) is None:
        raise ValueError(f"{type(model).__name__} has no linear output projection")
    config = model.config.get_text_config()
    return OutputHead(
        weight=projection.weight,
        bias=getattr(projection, "bias", None),
        softcap=getattr(config, "final_logit_softcapping", None),
        scale=float(getattr(config, "logit_scale", None) or 1.0)
        / float(getattr(config, "logits_scaling", None) or 1.0),
    )


def hidden_states(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """(num_tokens, hidden_size) states after the last norm, by one pass of the decoder."""
    output = model.get_decoder()(**batch.model_inputs())
    states: Tensor = output.last_hidden_state[0]
    return states


@torch.no_grad()
def packed_nll(model: PreTrainedModel, head: OutputHead, batch: PackedBatch) -> Tensor:
    """(num_rows,) float32 loss of every scored row of a batch, in nats."""
    return head.nll(hidden_states(model, batch)[batch.rows], batch.targets)
