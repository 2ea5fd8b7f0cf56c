"""``torch.compile`` of a model's decoder layers, where it works."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from codeact.packing import PackedCollator
from codeact.training.loss import packed_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# Two packs of other lengths, so that what is compiled is not for the lengths of one.
_PROBE_SEQLENS = ((33, 20, 11), (40, 57))


def compile_layers(model: PreTrainedModel, *, backend: Any = "inductor") -> bool:
    """Compile every decoder layer in place, for packs of any length; returns whether it worked.

    Names of weights and modules stay. The layers share what is compiled, since they are of one
    class; attention runs as it is, as the kernel that it is. Two random packs go forward and back
    before any step of the training depends on it: where that raises, a warning says why and all
    layers are as they were. Gradients and the random state are left as they were.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True, backend=backend)
    try:
        _probe(model)
    except Exception as error:  # whatever a compiler makes of a model
        uncompile_layers(model)
        reason = str(error).strip().splitlines()
        logger.warning(
            "torch.compile does not work here and is left out: %s: %s",
            type(error).__name__,
            reason[0] if reason else "",
        )
        return False
    return True


def uncompile_layers(model: PreTrainedModel) -> None:
    """Undo :func:`compile_layers`."""
    for layer in decoder_layers(model):
        layer._compiled_call_impl = None


def decoder_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules of a transformers model that its decoder repeats."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _probe(model: PreTrainedModel) -> None:
    """Forward and backward passes over packs of random tokens."""
    vocab_size = model.config.get_text_config().vocab_size
    rng = np.random.default_rng(0)
    was_training = model.training
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)  # a pass adds to a gradient in place
    model.train()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            for seqlens in _PROBE_SEQLENS:
                rows = [rng.integers(0, vocab_size, size=seqlen) for seqlen in seqlens]
                batch: dict[str, Any] = dict(
                    PackedCollator()([{"input_ids": row, "labels": row} for row in rows])
                )
                batch = {
                    key: value.to(model.device) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
                packed_loss(model, batch, float(sum(seqlens))).backward()
    finally:
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        model.train(was_training)
