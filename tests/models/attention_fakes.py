"""Packed attention by its definition, and stand-ins for the packages that are not here."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from codeact.models.attention import choice, flash, torch_varlen
from codeact.models.attention.capability import Need

# Those of flash_attn 2.8, hopper/ and flash_attn/cute of August 2026; the fakes bind no others.
FLASH_PARAMETERS = {
    "fa2": (
        "q k v cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k dropout_p softmax_scale causal "
        "window_size softcap alibi_slopes deterministic return_attn_probs block_table"
    ),
    "fa3": (
        "q k v cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k seqused_q seqused_k "
        "softmax_scale causal qv q_descale k_descale v_descale window_size attention_chunk "
        "softcap num_splits pack_gqa deterministic sm_margin return_attn_probs"
    ),
    "fa4": (
        "q k v qv cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k min_seqlen_k seqused_q "
        "seqused_k gather_kv_indices page_table softmax_scale causal window_size learnable_sink "
        "softcap num_splits pack_gqa deterministic score_mod score_mod_bwd mask_mod "
        "block_sparse_tensors aux_tensors aux_scalars return_lse scheduler_metadata "
        "seqlen_k_per_split disable_scheduler_metadata"
    ),
}
FLASH_MODULES = {"fa2": "flash_attn", "fa3": "flash_attn_interface", "fa4": "flash_attn.cute"}


def dense(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float | None, left: int, cap: float
) -> Tensor:
    """Packed causal attention by its definition; a negative ``left`` is no window."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    token = torch.arange(len(q), device=q.device)
    sequence = torch.bucketize(token, bounds[1:], right=True)
    back = token[:, None] - token
    seen = (sequence[:, None] == sequence) & (back >= 0)
    if left >= 0:
        seen &= back <= left
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


def fake_flash(name: str) -> Callable[..., Any]:
    """What the package would compute, from the arguments that it would read."""
    names = FLASH_PARAMETERS[name].split()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(n, kind, default=None) for n in names])

    def flash_attn_varlen_func(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        bounds = given["cu_seqlens_q"]
        assert given["cu_seqlens_k"] is bounds
        assert bounds.dtype == torch.int32
        assert given["max_seqlen_q"] == given["max_seqlen_k"]
        if not torch.compiler.is_compiling():  # a number that a graph does not know
            assert given["max_seqlen_q"] == int(bounds.diff().max())
        assert given["causal"] is True
        left, right = given["window_size"]
        endless = None if name == "fa4" else -1
        assert right == (endless if left == endless else 0)
        output = dense(
            given["q"], given["k"], given["v"], bounds, given["softmax_scale"],
            -1 if left is None else left, given["softcap"],
        )  # fmt: skip
        return (output, None) if name == "fa4" else output

    return flash_attn_varlen_func


def new_varlen_attn(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int,
    max_k: int, *, return_aux: Any = None, scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False, seqused_k: Any = None,
    block_table: Any = None, num_splits: Any = None,
) -> Tensor:  # fmt: skip
    """PyTorch 2.11 and later."""
    assert enable_gqa is (query.shape[1] != key.shape[1])
    assert window_size[1] == 0
    assert cu_seq_q is cu_seq_k
    assert max_q == max_k == int(cu_seq_q.diff().max())
    return dense(query, key, value, cu_seq_q, scale, window_size[0], 0.0)


def old_varlen_attn(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int,
    max_k: int, is_causal: bool = False, return_aux: Any = None,
) -> Tensor:  # fmt: skip
    """PyTorch 2.10."""
    assert is_causal
    assert query.shape == key.shape
    return dense(query, key, value, cu_seq_q, None, -1, 0.0)


class Installer:
    """``install("fa2", "varlen_attn", ...)``: these packages and no others are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, *names: str, varlen_attn: Callable[..., Any] = new_varlen_attn) -> None:
        for module in (*FLASH_MODULES.values(), "flash_attn_3", "torch.nn.attention.varlen"):
            self.monkeypatch.setitem(sys.modules, module, None)  # its import fails
        for name in ("fa2", "fa3", "fa4"):
            if name in names:
                self._add(FLASH_MODULES[name], flash_attn_varlen_func=fake_flash(name))
        if "fa4" in names and "fa2" not in names:
            self._add("flash_attn")  # the folder that version 4 lies in
        if "varlen_attn" in names:
            self._add("torch.nn.attention.varlen", varlen_attn=varlen_attn)
        self.forget()

    def _add(self, name: str, **contents: Any) -> None:
        module = ModuleType(name)
        vars(module).update(contents)
        self.monkeypatch.setitem(sys.modules, name, module)

    @staticmethod
    def forget() -> None:
        """What the library remembers of earlier imports and choices."""
        flash._FOUND.clear()
        torch_varlen._parameters.cache_clear()
        choice._CHOSEN.clear()


def make_need(**changes: Any) -> Need:
    defaults: dict[str, Any] = {
        "device": "cuda", "sm": (9, 0), "dtype": torch.bfloat16, "head_dim": 64,
        "value_head_dim": 64, "sliding_window": None, "softcap": None, "backward": True,
        "transform": False,
    }  # fmt: skip
    return Need(**defaults | changes)


def make_inputs(
    num_kv_heads: int = 2, head_dim: int = 8, value_head_dim: int = 8
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    make = {"generator": generator, "dtype": torch.float64}
    q = torch.randn(20, 4, head_dim, **make)
    k = torch.randn(20, num_kv_heads, head_dim, **make)
    v = torch.randn(20, num_kv_heads, value_head_dim, **make)
    return q, k, v, torch.tensor([0, 7, 7, 8, 20, 20], dtype=torch.int32)
