from __future__ import annotations

import pytest
import torch
from attention_jvp import (
    SLACK,
    assert_close,
    make_inputs,
    truth,
)

from codeact.ops import varlen_attention_jvp


@pytest.mark.gpu
def test_auto_takes_the_kernel_for_half_precision_alone(device, monkeypatch):
    import codeact.kernels.varlen_attention_jvp as kernel

    def never(*args, **kwargs):
        raise NotImplementedError("the kernel")

    monkeypatch.setattr(kernel, "varlen_attention_jvp", never)
    inputs = make_inputs(device=device)
    assert_close(varlen_attention_jvp(*inputs), truth(inputs), 1e-4)
    with pytest.raises(NotImplementedError, match="the kernel"):
        varlen_attention_jvp(*inputs.map(lambda x: x.half()))


LONG = {
    "one long": (4096,),
    "instructions": tuple(50 + 37 * n % 750 for n in range(10)),
    "short": (3,) * 700 + (129, 0, 640),
}


@pytest.mark.gpu
@pytest.mark.parametrize("seqlens", LONG.values(), ids=LONG)
@pytest.mark.parametrize("options", [{}, {"sliding_window": 200, "softcap": 30.0}], ids=str)
@pytest.mark.parametrize(("head_dim", "heads"), [(64, (14, 2)), (128, (8, 8)), (256, (8, 4))])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_real_shapes(seqlens, options, head_dim, heads, dtype, device):
    inputs = make_inputs(
        seqlens=seqlens, heads=heads, head_dim=head_dim, dtype=dtype, device=device
    )
    found = varlen_attention_jvp(*inputs, **options, backend="triton")
    again = varlen_attention_jvp(*inputs, **options, backend="triton")
    exact = inputs.map(lambda x: x.double())
    expected = varlen_attention_jvp(*exact, **options, backend="reference")
    assert_close(found, expected, SLACK[dtype])
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.gpu
def test_the_launch_does_not_wait_for_the_device(device):
    inputs = make_inputs(seqlens=(300, 20), head_dim=64, dtype=torch.bfloat16, device=device)
    varlen_attention_jvp(*inputs, backend="triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = varlen_attention_jvp(*inputs, sliding_window=50, backend="triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close(found, truth(inputs, sliding_window=50), SLACK[torch.bfloat16])
