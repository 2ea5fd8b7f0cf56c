"""Causal attention of packed sequences and its derivative along one direction, in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._derivatives import eager_only
from codeact.ops._varlen_attention_jvp_reference import varlen_attention_jvp_reference

_TRITON_MAX_HEAD_DIM = 256


class AttentionJvp(NamedTuple):
    """What attention returns, and how it moves: both (num_tokens, num_heads, head_dim)."""

    output: Tensor
    tangent: Tensor


class _Options(NamedTuple):
    """What is not differentiated."""

    scaling: float
    sliding_window: int | None
    softcap: float | None
    backend: str


@eager_only
def varlen_attention_jvp(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_tangent: Tensor | None,
    key_tangent: Tensor | None,
    value_tangent: Tensor | None,
    cu_seqlens: Tensor,
    *,
    max_seqlen: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    backend: Backend = "auto",
) -> AttentionJvp:
    """Attention of each sequence to itself, causal, with its Jacobian-vector product.

    With ``S = cap(scaling * Q K^T)``, ``P = softmax(S)`` and ``dS`` the tangent of ``S`` the output
    is ``O = P V`` and its tangent ``P dV + (P * dS) V - rowsum(P * dS) O``. Both come from one walk
    over the keys, the scores never stored (six matrix products where attention takes two).

    Args:
        query: (num_tokens, num_heads, head_dim) float32, float16 or bfloat16 (float64: reference).
        key: (num_tokens, num_kv_heads, head_dim), of the same dtype.
        value: like ``key``.
        query_tangent: like ``query``; None is zero, and its products are left out.
        key_tangent: like ``key``, or None.
        value_tangent: like ``key``, or None.
        cu_seqlens: (num_seqs + 1,) int32 or int64, from 0 to ``num_tokens``; empty sequences are
            allowed. Values are not checked on a GPU, which would wait for the device.
        max_seqlen: not needed, taken so that the call looks like attention's other kernels.
        scaling: factor on the dot products; None is ``head_dim ** -0.5``.
        sliding_window: how many tokens back a token sees, itself included; None is all.
        softcap: ``cap(s) = softcap * tanh(s / softcap)``; None is no cap.
        backend: ``"auto"`` is Triton on CUDA tensors of half precision, ``"reference"`` elsewhere
            (it stores the scores of a block of queries at a time, and is differentiable). In
            Triton a NaN or infinity in one sequence may reach its neighbours, as in any attention
            that masks blocks.

    Returns:
        Output and tangent in the dtype of ``query``; both are computed in float32, the products'
        operands of half precision inputs rounded to their dtype.

    Raises:
        ValueError: a shape, dtype or option differs from these.
        RuntimeError: an explicit ``backend`` cannot run here.
    """
    tangents = (query_tangent, key_tangent, value_tangent)
    _check(query, key, value, tangents, cu_seqlens, scaling, sliding_window, softcap)
    options = _options(query, scaling, sliding_window, softcap, backend)
    if options.backend == "reference":
        return AttentionJvp(
            *varlen_attention_jvp_reference(query, key, value, *tangents, cu_seqlens, *options[:3])
        )
    found: tuple[Tensor, Tensor] = _AttentionJvp.apply(  # type: ignore[no-untyped-call]
        query, key, value, *tangents, cu_seqlens, options
    )
    return AttentionJvp(*found)


@eager_only
def forward_mode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention under forward-mode differentiation: the result carries its tangent.

    Takes the tangents that the inputs carry (``torch.func.jvp``, ``forward_ad.make_dual``) and
    hands all to :func:`varlen_attention_jvp`. An ``autograd.Function`` with a ``jvp`` would be
    given the tangents only after its forward, and so attend twice.

    Args:
        query: (num_tokens, num_heads, head_dim); these and the rest as there.

    Returns:
        (num_tokens, num_heads, head_dim), with a tangent if an input has one.

    Raises:
        RuntimeError: later, where a gradient is asked of the result, or a second derivative.
    """
    (query, dq), (key, dk), (value, dv) = (forward_ad.unpack_dual(x) for x in (query, key, value))
    _check(query, key, value, (dq, dk, dv), cu_seqlens, scaling, sliding_window, softcap)
    options = _options(query, scaling, sliding_window, softcap, backend)
    found: tuple[Tensor, Tensor] = _AttentionJvp.apply(  # type: ignore[no-untyped-call]
        query, key, value, dq, dk, dv, cu_seqlens, options
    )
    if dq is None and dk is None and dv is None:
        return found[0]
    dual: Tensor = forward_ad.make_dual(*found)
    return dual


class _AttentionJvp(torch.autograd.Function):
    """Unwraps functorch's tensors for a launch, and says so where a derivative is missing."""

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_tangent: Tensor | None,
        key_tangent: Tensor | None,
        value_tangent: Tensor | None,
        cu_seqlens: Tensor,
        options: _Options,
    ) -> tuple[Tensor, Tensor]:
        tensors = (query, key, value, query_tangent, key_tangent, value_tangent, cu_seqlens)
        if options.backend == "reference":
            return varlen_attention_jvp_reference(*tensors, *options[:3])
        from codeact.kernels.varlen_attention_jvp import varlen_attention_jvp as launch

        return launch(*tensors, *options[:3])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass  # nothing is kept: there is no second derivative

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError(
            "attention under forward-mode differentiation has no gradient; use torch.func.grad or "
            "backward() without tangents, or varlen_attention_jvp(backend='reference')"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(
            "varlen_attention_jvp is a first derivative and has no forward-mode derivative of its "
            "own; use varlen_attention_jvp(backend='reference')"
        )


def _options(
    query: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    backend: Backend,
) -> _Options:
    chosen = resolve_backend(backend, query, supported=("triton",))
    if chosen == "triton" and (reason := _kernel_refuses(query)) is not None:
        if backend != "auto":
            raise ValueError(
                f"varlen_attention_jvp(backend='triton') {reason}; use backend='reference'"
            )
        chosen = "reference"
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    return _Options(scale, sliding_window, softcap, chosen)


def _kernel_refuses(query: Tensor) -> str | None:
    if query.shape[-1] > _TRITON_MAX_HEAD_DIM:
        return f"takes head_dim up to {_TRITON_MAX_HEAD_DIM}, got {query.shape[-1]}"
    if query.dtype in (torch.float16, torch.bfloat16):
        return None
    # Exact float32 products do not use tensor cores, and crash the LLVM of Triton 3.9 for sm_90.
    if query.dtype == torch.float32 and not query.is_cuda:
        return None
    return f"takes float16 or bfloat16 (float32 if interpreted), got {query.dtype}"


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tangents: tuple[Tensor | None, Tensor | None, Tensor | None],
    cu_seqlens: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> None:
    if (
        query.ndim != 3
        or key.ndim != 3
        or key.shape[::2] != query.shape[::2]
        or value.shape != key.shape
        or key.shape[1] == 0
        or query.shape[1] % key.shape[1] != 0
    ):
        raise ValueError(
            "varlen_attention_jvp expects query (num_tokens, num_heads, head_dim), key and value "
            "(num_tokens, num_kv_heads, head_dim), num_heads a multiple of num_kv_heads, got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    for name, x, tangent in zip(
        ("query", "key", "value"), (query, key, value), tangents, strict=True
    ):
        if x.dtype != query.dtype or x.device != query.device:
            raise ValueError(
                f"{name} must be {query.dtype} on {query.device} like query, got {x.dtype} on "
                f"{x.device}"
            )
        if tangent is not None and (
            tangent.shape != x.shape or tangent.dtype != x.dtype or tangent.device != x.device
        ):
            raise ValueError(
                f"{name}_tangent must be like {name}, {x.dtype} {tuple(x.shape)} on {x.device}, "
                f"got {tangent.dtype} {tuple(tangent.shape)} on {tangent.device}"
            )
    if not query.is_floating_point():
        raise ValueError(f"query must be floating point, got {query.dtype}")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 1 or cu_seqlens.is_floating_point():
        raise ValueError(
            f"cu_seqlens must be (num_seqs + 1,) integers, got {cu_seqlens.dtype} "
            f"{tuple(cu_seqlens.shape)}"
        )
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(f"sliding_window must be at least 1 or None, got {sliding_window}")
    for name, factor in (("scaling", scaling), ("softcap", softcap)):
        if factor is not None and not factor > 0:
            raise ValueError(f"{name} must be above 0 or None, got {factor}")
