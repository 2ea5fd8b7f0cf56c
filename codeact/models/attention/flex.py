"""FlexAttention (arXiv:2412.05496) over the blocks that the boundaries name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from codeact.models.attention.capability import HALF, AttentionBackend, AttentionCall, Capability
from codeact.models.attention.pack_bounds import once_per_tensor
from codeact.ops.masks import PackedBlockMask, block_mask


@lru_cache(maxsize=8)
def _score_mod(softcap: float) -> Callable[..., Tensor]:
    """One function object for one cap: another object would be compiled again."""

    def cap(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _attend(call: AttentionCall) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (x.transpose(0, 1)[None] for x in call[:3])
    run: Callable[..., Any] = flex_attention
    if q.is_cuda and not torch.compiler.is_compiling():  # for a CPU it takes half a minute
        run = _compiled()
    output: Any = run(
        q, k, v,
        score_mod=None if call.softcap is None else _score_mod(call.softcap),
        block_mask=_block_mask(call.cu_seqlens, call.sliding_window, q.device),
        scale=call.scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    result: Tensor = output[0].transpose(0, 1)
    return result


def _block_mask(
    cu_seqlens: Tensor, sliding_window: int | None, device: torch.device
) -> PackedBlockMask:
    return once_per_tensor(
        cu_seqlens,
        ("block mask", sliding_window, device),
        lambda bounds: block_mask(bounds, sliding_window=sliding_window, device=device),
    )


def _nothing_missing() -> None:
    return None


def _capability(device: str, sm: tuple[int, int] | None) -> Capability | None:
    if device == "cpu":  # in plain PyTorch; torch has no backward for it there
        return Capability(
            dtypes=(*HALF, torch.float32, torch.float64), other_value_head_dim=True, backward=False
        )
    if device != "cuda" or sm is None or sm < (8, 0):
        return None
    return Capability(  # tl.dot wants at least 16 columns
        dtypes=(*HALF, torch.float32), head_dims=range(16, 257), other_value_head_dim=True
    )


FLEX = AttentionBackend(
    name="flex",
    kernel="PyTorch's flex_attention",
    missing=_nothing_missing,
    capability=_capability,
    runs_on="a CPU or a CUDA GPU of compute capability 8.0 or more",
    attend=_attend,
)
