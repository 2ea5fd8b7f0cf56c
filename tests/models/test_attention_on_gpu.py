"""The attention kernels that a GPU machine has, in bfloat16, against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attention_fakes import dense, make_inputs, make_need
from torch import Tensor

from codeact.models import attention_backends
from codeact.models.attention.choice import ATTENTION_BACKENDS, choose_backend
from codeact.models.attention.varlen import varlen_attention

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", ATTENTION_BACKENDS)
@pytest.mark.parametrize("softcap", [None, 8.0])
@pytest.mark.parametrize("window", [None, 33])
@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_on_gpu(backend: str, softcap: float | None, window: int | None, num_kv_heads: int) -> None:
    """Output and gradients in bfloat16, no further from float64 than twice a plain computation."""
    states = {state.name: state for state in attention_backends()}
    if not states[backend].available:
        pytest.skip(states[backend].reason)
    q, k, v, bounds = make_inputs(num_kv_heads, head_dim=64, value_head_dim=64)
    inputs = [x.repeat(10, 1, 1).to("cuda", torch.bfloat16) for x in (q, k, v)]
    bounds = torch.tensor([0, 1, 90, 90, 200], dtype=torch.int32, device="cuda")
    need = make_need(sm=torch.cuda.get_device_capability(), sliding_window=window, softcap=softcap)
    left = -1 if window is None else window - 1

    def results(attend: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        output = attend(*leaves)
        return [output, *torch.autograd.grad(output.square().sum(), leaves)]

    def ours(*leaves: Tensor) -> Tensor:
        return varlen_attention(*leaves, bounds, 110, 0.2, window, softcap, backend)

    def plain(*leaves: Tensor) -> Tensor:
        return dense(*leaves, bounds, 0.2, left, softcap or 0.0)

    try:
        choose_backend(backend, need)
    except ValueError as refusal:
        with pytest.raises(ValueError, match=f"attention backend '{backend}'"):
            ours(*inputs)
        pytest.skip(str(refusal))
    truths = results(plain, torch.float64)
    for found, slack, truth in zip(
        results(ours, torch.bfloat16), results(plain, torch.bfloat16), truths, strict=True
    ):
        allowed = 2 * (slack - truth).abs().max() + 1e-3 * truth.abs().max()
        assert (found - truth).abs().max() <= allowed


def test_auto_on_gpu_reads_boundaries_once() -> None:
    """With ``max_seqlen`` left out, each layer would otherwise wait for the device."""
    q, k, v, bounds = (x.cuda() for x in make_inputs(head_dim=64, value_head_dim=64))
    q, k, v = (x.bfloat16() for x in (q, k, v))
    first = varlen_attention(q, k, v, bounds, None, None, None, None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = varlen_attention(q, k, v, bounds, None, None, None, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(again, first, rtol=0, atol=0)
