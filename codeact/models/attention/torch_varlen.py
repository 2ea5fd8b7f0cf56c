"""PyTorch's own ``varlen_attn``: FlashAttention without another package."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from torch import Tensor

from codeact.models.attention.capability import HALF, AttentionBackend, AttentionCall, Capability
from codeact.models.attention.pack_bounds import max_seqlen_of


@lru_cache(maxsize=1)
def _parameters() -> frozenset[str]:
    """Parameters of ``varlen_attn``; none before it existed (2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _missing() -> str | None:
    # Until 2.10 there is none; what came later is told apart by its parameters.
    return None if _parameters() else "needs PyTorch 2.10 or later; pip install -U torch"


def _capability(device: str, sm: tuple[int, int] | None) -> Capability | None:
    if device != "cuda" or sm is None or sm < (8, 0):
        return None
    return Capability(
        dtypes=HALF,
        head_dims=range(8, 257, 8),
        sliding_window="window_size" in _parameters(),
        softcap=False,
    )


def _attend(call: AttentionCall) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    parameters = _parameters()
    query, key, value = call[:3]
    options: dict[str, Any] = {}
    if "window_size" in parameters:
        window = call.sliding_window
        options["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        options["is_causal"] = True
    groups = query.shape[1] // key.shape[1]
    if "enable_gqa" in parameters:
        options["enable_gqa"] = groups > 1
    elif groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if "scale" in parameters:
        options["scale"] = call.scaling
    elif call.scaling is not None:
        query = query * (call.scaling * query.shape[-1] ** 0.5)
    bounds, longest = call.cu_seqlens, max_seqlen_of(call.cu_seqlens, call.max_seqlen)
    output: Any = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
    result: Tensor = output
    return result


TORCH_VARLEN = AttentionBackend(
    name="varlen_attn",
    kernel="PyTorch's varlen_attn",
    missing=_missing,
    capability=_capability,
    runs_on="a CUDA GPU of compute capability 8.0 or more",
    attend=_attend,
)
