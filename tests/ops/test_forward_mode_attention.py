from __future__ import annotations

import pytest
import torch
from attention_jvp import BACKENDS, SLACK, Inputs, assert_close, make_inputs, truth
from torch.autograd import forward_ad

from codeact.ops import forward_mode_attention


def attention_of(inputs: Inputs, backend: str = "reference", **options):
    def attention(q, k, v):
        window, softcap = options.get("sliding_window"), options.get("softcap")
        return forward_mode_attention(
            q, k, v, inputs.cu_seqlens, None, None, window, softcap, backend
        )

    return attention


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_under_both_interfaces(backend, device):
    inputs = make_inputs(seqlens=(20, 3), device=device)
    attention = attention_of(inputs, backend, softcap=2.0)
    expected = truth(inputs, softcap=2.0)
    found = torch.func.jvp(attention, inputs[:3], inputs[3:6])
    assert_close(found, expected, SLACK[torch.float32])
    with forward_ad.dual_level():
        duals = (forward_ad.make_dual(x, t) for x, t in zip(inputs[:3], inputs[3:6], strict=True))
        found = forward_ad.unpack_dual(attention(*duals))
        assert_close(found, expected, SLACK[torch.float32])


def test_forward_mode_of_some_inputs_or_none():
    inputs = make_inputs()
    attention = attention_of(inputs)
    some = inputs._replace(query_tangent=None, value_tangent=None)
    found = torch.func.jvp(
        lambda k: attention(inputs.query, k, inputs.value), inputs[1:2], inputs[4:5]
    )
    assert_close(found, truth(some), SLACK[torch.float32])
    output = attention(*inputs[:3])
    assert forward_ad.unpack_dual(output).tangent is None
    assert_close((output,), truth(inputs)[:1], SLACK[torch.float32])


def test_a_gradient_is_refused():
    inputs = make_inputs(seqlens=(5,))
    query = inputs.query.requires_grad_()
    output = forward_mode_attention(
        query, inputs.key, inputs.value, inputs.cu_seqlens, None, None, None, None
    )
    with pytest.raises(RuntimeError, match="has no gradient"):
        output.sum().backward()


@pytest.mark.parametrize("order", ["jvp-of-jvp", "grad-of-jvp", "vmap-of-jvp"])
def test_other_derivatives_are_refused(order):
    inputs = make_inputs(seqlens=(5,))
    attention = attention_of(inputs)
    _, key, value, direction = inputs[:4]

    def tangent(query, direction=direction):
        return torch.func.jvp(lambda q: attention(q, key, value), (query,), (direction,))[1]

    orders = {
        "jvp-of-jvp": lambda q: torch.func.jvp(tangent, (q,), (direction,)),
        "grad-of-jvp": torch.func.grad(lambda q: tangent(q).sum()),
        "vmap-of-jvp": lambda q: torch.func.vmap(lambda d: tangent(q, d))(direction[None]),
    }
    with pytest.raises(RuntimeError, match=r"first derivative|no gradient|vmap support"):
        orders[order](inputs.query)


@pytest.mark.parametrize("inside", [True, False], ids=["jvp-of-compiled", "compiled-jvp"])
def test_compiled_it_is_right_or_raises(inside):
    """torch.compile drops the jvp of an autograd.Function silently (pytorch#192985)."""
    inputs = make_inputs(seqlens=(11, 4))
    attention = attention_of(inputs)

    def layer(q, k, v):
        return 2 * attention(q.sin(), k, v)

    def tangent(function):
        return torch.func.jvp(function, inputs[:3], inputs[3:6])[1]

    torch._dynamo.reset()
    if inside:
        run = torch.compile(layer, backend="eager")
        found = tangent(run)
    else:
        found = torch.compile(lambda: tangent(layer), backend="eager")()
    assert_close((found,), (tangent(layer).double(),), 1e-6)
