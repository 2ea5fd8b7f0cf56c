"""What a sequence costs a model: floating-point operations, or seconds after a calibration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Float64Array = NDArray[np.float64]

_MIN_STEPS = 3
# Columns of unit length whose smallest singular value is below this differ by less than timings do.
_MIN_SINGULAR = 1e-3


class AttentionCost(NamedTuple):
    """Layers of one kind: what a pair of query and key costs each, and how far back keys go.

    ``window`` counts the keys of a query, itself included; None is all before it.
    """

    num_layers: int
    flops_per_pair: float
    window: int | None = None

    def of(self, seqlens: Float64Array) -> Float64Array:
        """Cost of the causal pairs of each sequence: L (L + 1) / 2 without a window."""
        reach = seqlens if self.window is None else np.minimum(seqlens, self.window)
        pairs = reach * (reach + 1) / 2 + (seqlens - reach) * reach
        cost: Float64Array = self.num_layers * self.flops_per_pair * pairs
        return cost


@dataclass(frozen=True)
class ModelCost:
    """Forward cost of a sequence of L tokens: linear layers, and attention over its pairs.

    ``flops_per_token * L`` plus, for each kind of attention, layers times ``flops_per_pair`` times
    causal pairs. A backward pass multiplies both alike, so ratios hold for training. Norms,
    activations, softmax and the state of linear-attention layers are left out: they are below 2 %
    of either part at usual shapes. The sequences of a bin do not see each other, so costs add.

    Attributes:
        flops_per_token: two for each weight that a token is multiplied with.
        attention: the kinds of attention layers.
        per_step: what a step costs besides its sequences; 0 unless calibrated.
        unit: ``"flops"``, or ``"seconds"`` after :meth:`calibrated`.
    """

    flops_per_token: float
    attention: tuple[AttentionCost, ...] = ()
    per_step: float = 0.0
    unit: str = "flops"

    def __call__(self, seqlens: ArrayLike) -> Float64Array:
        """Forward cost of each sequence, of the shape of ``seqlens``."""
        lengths = np.asarray(seqlens, dtype=np.float64)
        return self.flops_per_token * lengths + self._of_attention(lengths)

    def of_step(self, seqlens: ArrayLike) -> float:
        """Cost of a step on one bin with these sequences."""
        return self.per_step + float(self(seqlens).sum())

    def _of_attention(self, lengths: Float64Array) -> Float64Array:
        return sum((kind.of(lengths) for kind in self.attention), np.zeros_like(lengths))

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> ModelCost:
        """Count the weights and attention heads of a transformers causal language model.

        The model is built without memory (``meta`` device). Every matrix of a linear layer counts,
        the output projection too, also where it shares the embeddings' weights; embeddings do not.
        Of the experts of a layer those that a token is sent to count. Attention takes heads, head
        sizes (also of latent attention, as in DeepSeek-V3), ``layer_types`` and ``sliding_window``
        from the config; linear-attention layers cost no pairs.

        Args:
            config: a ``PretrainedConfig``; of a multimodal model the text part is taken.

        Raises:
            InputError: transformers has no causal language model for it.
        """
        # A copy: from_config writes the attention it builds with into the config, which a loaded
        # model would then compute with.
        text: Any = deepcopy(config.get_text_config(decoder=True))
        return cls(2.0 * _num_active_weights(text), tuple(_attention_kinds(text)))

    def calibrated(
        self, seqlens_of_steps: Sequence[ArrayLike], seconds: Sequence[float]
    ) -> ModelCost:
        """This cost in seconds, fitted to timed steps.

        Non-negative least squares of ``per_step + a * tokens + b * attention`` with the attention
        of this cost: a and b differ from machine to machine, as kernels reach different shares of
        the peak.

        Args:
            seqlens_of_steps: the sequences of each timed step.
            seconds: (num_steps,) how long each took.

        Raises:
            InputError: fewer than three different steps, steps too alike to tell the parts apart,
                times that are not positive or do not grow with the work.
        """
        times = np.asarray(seconds, dtype=np.float64)
        if times.shape != (len(seqlens_of_steps),) or not (times > 0).all():
            raise InputError(
                f"seconds must be one positive number for each of {len(seqlens_of_steps)} steps, "
                f"got {seconds!r}"
            )
        features = np.array([self._features(seqlens) for seqlens in seqlens_of_steps])
        per_step, per_token, factor = _fit(features.reshape(-1, 3), times)
        attention = tuple(
            kind._replace(flops_per_pair=kind.flops_per_pair * factor) for kind in self.attention
        )
        return replace(
            self, flops_per_token=per_token, attention=attention, per_step=per_step, unit="seconds"
        )

    def _features(self, seqlens: ArrayLike) -> tuple[float, float, float]:
        lengths = np.asarray(seqlens, dtype=np.float64)
        return 1.0, float(lengths.sum()), float(self._of_attention(lengths).sum())


def _fit(features: Float64Array, times: Float64Array) -> tuple[float, float, float]:
    """Non-negative least squares: the best of the unconstrained fits of every set of columns."""
    used = [column for column in range(3) if features[:, column].any()]
    num_distinct = len(np.unique(features, axis=0))
    if num_distinct < _MIN_STEPS:
        raise InputError(f"a calibration needs {_MIN_STEPS} different steps, got {num_distinct}")
    scale = np.linalg.norm(features[:, used], axis=0)
    columns = features[:, used] / scale
    if np.linalg.svd(columns, compute_uv=False)[-1] < _MIN_SINGULAR:
        raise InputError(
            "the timed steps are too alike to tell tokens from attention: vary the number of "
            "tokens and the length of the sequences"
        )
    best, least = np.zeros(3), np.inf
    for size in range(1, len(used) + 1):
        for chosen in map(list, combinations(range(len(used)), size)):
            found = np.linalg.lstsq(columns[:, chosen], times, rcond=None)[0]
            error = float(((columns[:, chosen] @ found - times) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(3), error
                best[np.array(used)[chosen]] = found / scale[chosen]
    if not best[1:].any():
        raise InputError("the times do not grow with the tokens or the attention of the steps")
    return float(best[0]), float(best[1]), float(best[2])


def _num_active_weights(config: Any) -> float:
    """Weights that one token is multiplied with."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    except ValueError as error:
        raise InputError(f"no cost for this model: {str(error).splitlines()[0]}") from None
    top_k = _first(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")
    total = 0.0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding):
            continue
        for key, weight in module.named_parameters(recurse=False):
            is_matrix = weight.ndim >= 2 and not key.endswith("bias")
            if is_matrix:
                total += weight.numel() * _active_share(model, name, module, weight, top_k)
    return total


def _active_share(model: Any, name: str, module: Any, weight: Any, top_k: int | None) -> float:
    """The share of a weight that works on a token: below 1 for experts only."""
    import torch

    one_of_many = re.match(r"(.*\bexperts)\.\d+\b", name)  # a module list of linear layers
    if one_of_many is not None:
        num_experts = len(model.get_submodule(one_of_many[1]))
    elif weight.ndim == 3 and not isinstance(module, torch.nn.Conv1d):
        num_experts = len(weight)
    else:
        return 1.0
    if top_k is None:
        raise InputError(f"no cost for this model: {name} has experts, but the config no top-k")
    return min(1.0, top_k / num_experts)


def _attention_kinds(config: Any) -> Iterator[AttentionCost]:
    num_heads = config.num_attention_heads
    head_dim = _first(config, "head_dim") or config.hidden_size // num_heads
    key_dim = _first(config, "qk_head_dim") or head_dim
    value_dim = _first(config, "v_head_dim") or head_dim
    windows = _windows(config)
    for window in dict.fromkeys(windows):
        # Queries times keys, and weights times values: two operations a number.
        yield AttentionCost(windows.count(window), 2.0 * num_heads * (key_dim + value_dim), window)


def _windows(config: Any) -> list[int | None]:
    """The window of each layer that attends to pairs."""
    sliding = _first(config, "sliding_window")
    if _first(config, "use_sliding_window") is False:
        sliding = None
    kinds = _first(config, "layer_types")
    if kinds is None:
        return [sliding] * config.num_hidden_layers
    # A chunk is counted as a window of its size, about twice what it costs.
    reach = {
        "full_attention": None,
        "sliding_attention": sliding,
        "chunked_attention": _first(config, "attention_chunk_size"),
    }
    return [reach[kind] for kind in kinds if kind in reach]


def _first(config: Any, *names: str) -> Any:
    """The first attribute that the config has a value for."""
    return next((v for v in (getattr(config, name, None) for name in names) if v is not None), None)
