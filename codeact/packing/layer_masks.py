"""The attention masks that a model's layers need, for attentions that read no boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from codeact.errors import InputError
from codeact.ops.masks import PackedBlockMask, block_mask, dense_mask

Mask = Literal["dense", "additive", "flex"]
Windows = int | Mapping[str, int | None] | None


def attention_masks(cu_seqlens: Tensor, mask: Mask, windows: Windows) -> Any:
    """``attention_mask`` for transformers: one mask, or one for each type of layer.

    Args:
        cu_seqlens: (num_seqs + 1,) int32 on the CPU.
        mask: the kind, see :class:`PackedCollator`.
        windows: as of :func:`layer_windows`.
    """
    if isinstance(windows, Mapping):
        return {kind: _one_mask(cu_seqlens, mask, window) for kind, window in windows.items()}
    return _one_mask(cu_seqlens, mask, windows)


def _one_mask(cu_seqlens: Tensor, mask: Mask, window: int | None) -> Tensor | PackedBlockMask:
    if mask == "flex":
        return block_mask(cu_seqlens, sliding_window=window)
    dtype = torch.bool if mask == "dense" else torch.float32
    return dense_mask(cu_seqlens, sliding_window=window, dtype=dtype)


def layer_windows(config: Any) -> Windows:
    """What :class:`PackedCollator` needs to know of a transformers config as ``sliding_window``.

    Raises:
        InputError: a kind of layer other than full and sliding attention.
    """
    config = config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := kinds - {"full_attention", "sliding_attention"}:
        raise InputError(f"no mask is known for layers of {', '.join(sorted(other))}")
    if len(kinds) == 2:
        return {"full_attention": None, "sliding_attention": window}
    return None if kinds == {"full_attention"} else window
