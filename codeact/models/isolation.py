"""Does a model keep packed sequences apart? Asked once, before any result depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.models.attention.capability import HALF
from codeact.models.hidden_states import output_head, packed_nll
from codeact.ops.varlen import PackedBatch, pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_SEQLENS = (9, 17, 5)
# Relative to the largest logit. Neighbours change no shape, hence no order of summation: their
# effect is 0. Another attention kernel sums in another order; through 30 layers of a real model
# that comes to 2e-5 in float32, while a wrong mask moves logits by a tenth and more.
_LEAK = {torch.float64: 1e-6, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-3}
_ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# In half precision rounding alone moves single tokens of some models by all of a logit: under
# eager attention up to 2 of these 31 of SmolLM2-135M in bfloat16. A wrong mask moves all tokens of
# a sequence but the first, which are 4 or more.
_STEADY = 0.9
# Their angles depend on the longest position in the whole pack, hence on the neighbours.
_PACK_WIDE_ROPE = ("dynamic", "longrope")
_CHECKED = "_codeact_isolated"

ModelInputs = Callable[[PackedBatch], Mapping[str, Any]]


@torch.no_grad()
def assert_isolated(model: PreTrainedModel, *, model_inputs: ModelInputs | None = None) -> None:
    """Raise unless packed neighbours leave each other's logits alone; runs once per model.

    Three short random sequences are packed. The first is then replaced by other tokens: the logits
    of the second and third must not move. Each packed sequence must also give the logits it gives
    alone under transformers' ``eager`` attention, which catches attention variants that the packed
    kernel does not know, and the loss computed without logits must equal the loss from them.

    Two things three short sequences cannot show are refused by the config: rotary embeddings whose
    angles depend on the longest position of a pack, and attention in chunks.

    On another kind of device, in another dtype or with other attention the model is checked again.

    Args:
        model: a transformers causal language model.
        model_inputs: what a training loop passes to the model for a batch, where that is not
            ``PackedBatch.model_inputs``; then the check runs at each call. (Without ``use_cache``,
            for one, transformers' ``sdpa`` and ``eager`` mix the sequences.)

    Raises:
        RuntimeError: a neighbour, the packing itself or the output projection changes the numbers;
            the text names which, with the size of the change.
    """
    # Each of these may choose another attention kernel, so it is checked apart.
    device = model.device.type
    autocast = torch.is_autocast_enabled(device)
    setting = (model.config._attn_implementation, model.dtype, device, autocast)
    if model_inputs is None and getattr(model, _CHECKED, None) == setting:
        return
    _refuse_by_config(model)
    if model_inputs is None:
        _refuse_adapted_head(model)
    was_training = model.training
    model.eval()
    try:
        _probe(model, PackedBatch.model_inputs if model_inputs is None else model_inputs)
    finally:
        model.train(was_training)
    if model_inputs is None:
        setattr(model, _CHECKED, setting)


def _refuse_by_config(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # One set of parameters, or one for each kind of layer.
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    for kind in kinds:
        name = str(kind.get("rope_type", ""))
        if any(part in name for part in _PACK_WIDE_ROPE):
            raise RuntimeError(
                f"packed sequences are not isolated: rope_type {name!r} takes its angles from the "
                "longest position of the whole pack"
            )
    if chunk := getattr(config, "attention_chunk_size", None):
        raise RuntimeError(
            f"packed sequences are not supported with attention_chunk_size = {chunk}"
        )


def _refuse_adapted_head(model: PreTrainedModel) -> None:
    """A fresh adapter changes no logit, but it has a gradient, which the loss would not have."""
    projection = model.get_output_embeddings()
    if hasattr(projection, "base_layer"):  # as PEFT calls what its layers are around
        raise RuntimeError(
            "the loss without logits leaves out the adapter on the output projection of "
            f"{type(model).__name__}: merge it, or train an adapter of the other layers alone"
        )


def _probe(model: PreTrainedModel, model_inputs: ModelInputs) -> None:
    vocab_size = output_head(model).weight.shape[0]
    rng = np.random.default_rng(0)
    sequences = [rng.integers(3, vocab_size, size=n) for n in _PROBE_SEQLENS]
    neighbour = [rng.integers(3, vocab_size, size=_PROBE_SEQLENS[0]), *sequences[1:]]
    logits = _logits(model, sequences, model_inputs)
    scale = float(logits.abs().max()) + 1e-6
    rounding = _ROUNDING[logits.dtype]
    # Routing gives an expert more or fewer tokens, and its products another order of summation.
    has_experts = getattr(model.config.get_text_config(), "num_local_experts", None) or getattr(
        model.config.get_text_config(), "num_experts", None
    )
    leak = rounding if has_experts else _LEAK[logits.dtype]
    others = slice(_PROBE_SEQLENS[0], None)
    _require(
        _distance(logits[others], _logits(model, neighbour, model_inputs)[others]) / scale,
        leak,
        "another sequence in the pack",
    )
    alone = torch.cat(_eager_logits(model, sequences))
    apart = (logits.float() - alone.float()).abs().amax(dim=1)  # of each token
    change = apart.max() if logits.dtype not in HALF else apart.quantile(_STEADY)
    _require(float(change) / scale, rounding, "packing")
    batch = _batch(model, sequences)
    from_logits = F.cross_entropy(logits[batch.rows].float(), batch.targets, reduction="none")
    without = packed_nll(model, output_head(model), batch)
    _require(_distance(from_logits, without) / scale, rounding, "leaving out the logits")


def _batch(model: PreTrainedModel, sequences: list[np.ndarray]) -> PackedBatch:
    return pack_sequences(sequences, sequences).to(model.device)


def _logits(
    model: PreTrainedModel, sequences: list[np.ndarray], model_inputs: ModelInputs
) -> Tensor:
    logits: Tensor = model(**model_inputs(_batch(model, sequences))).logits[0]
    return logits


def _eager_logits(model: PreTrainedModel, sequences: list[np.ndarray]) -> list[Tensor]:
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return [
            model(input_ids=torch.from_numpy(ids)[None].to(model.device), use_cache=False).logits[0]
            for ids in sequences
        ]
    finally:
        model.set_attn_implementation(implementation)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def _require(change: float, tolerance: float, cause: str) -> None:
    if not change <= tolerance:  # a NaN must fail too
        raise RuntimeError(
            f"packed sequences are not isolated: {cause} changes the result by {change:.1e} of the "
            f"largest logit (allowed {tolerance:.0e}); load the model with "
            "attn_implementation='codeact', or do without packing"
        )
