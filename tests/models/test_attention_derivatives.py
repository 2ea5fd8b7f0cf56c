"""Gradients and tangents of packed attention are right, eager and compiled, or an exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attention_fakes import Installer, dense, make_inputs
from torch import Tensor

from codeact.models.attention.varlen import varlen_attention


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_reverse_transforms(softcap: float | None) -> None:
    q, k, v, bounds = make_inputs()

    def loss(q: Tensor, k: Tensor) -> Tensor:
        return varlen_attention(q, k, v, bounds, 12, None, 4, softcap).square().sum()

    def truth(q: Tensor, k: Tensor) -> Tensor:
        return dense(q, k, v, bounds, None, 3, softcap or 0.0).square().sum()

    for ours, theirs in zip(
        torch.func.grad(loss, (0, 1))(q, k), torch.func.grad(truth, (0, 1))(q, k), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.func.vjp(loss, q, k)[0], truth(q, k))
    both = torch.func.vmap(loss, in_dims=(0, None))(torch.stack([q, 2 * q]), k)
    torch.testing.assert_close(both, torch.stack([truth(q, k), truth(2 * q, k)]))


def compiled(f: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    result: Callable[..., Tensor] = torch.compile(f, backend="eager")
    return result


def around_compiled(f: Callable[[Tensor], Tensor], x: Tensor, tangent: Tensor) -> Tensor:
    graph = compiled(f)
    graph(x)  # the one without a tangent exists already
    found: Tensor = torch.func.jvp(graph, (x,), (tangent,))[1]
    return found


FORWARD_MODES: dict[str, Callable[..., Tensor]] = {
    "torch.func": lambda f, x, t: torch.func.jvp(f, (x,), (t,))[1],
    "linearize": lambda f, x, t: torch.func.linearize(f, x)[1](t),
    "around compiled": around_compiled,
    "in compiled": lambda f, x, t: compiled(lambda x: torch.func.jvp(f, (x,), (t,))[1])(x),
}


@pytest.mark.parametrize(
    ("mode", "backend"), [*((mode, "auto") for mode in FORWARD_MODES), ("torch.func", "flex")]
)
def test_tangent_is_right(mode: str, backend: str) -> None:
    q, k, v, bounds = make_inputs()
    tangent = torch.randn(q.shape, dtype=q.dtype, generator=torch.Generator().manual_seed(1))

    def attend(q: Tensor) -> Tensor:
        return varlen_attention(q, k * 2, v, bounds, 12, None, 4, None, backend)

    truth = torch.func.jvp(lambda q: dense(q, k * 2, v, bounds, None, 3, 0), (q,), (tangent,))[1]
    found = FORWARD_MODES[mode](attend, q, tangent)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-11)


def test_tangent_inside_another_transform_is_seen() -> None:
    q, k, v, bounds = make_inputs()

    def loss(q: Tensor) -> Tensor:
        return varlen_attention(q, k, v, bounds, 12, None, None, 1.5).square().sum()

    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(torch.func.grad(loss), (q,), (q,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, q)
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.func.grad(loss)(dual)
        plain = torch.func.grad(loss)(q)  # no tangent here: the reverse mode goes on
    torch.testing.assert_close(plain, torch.func.grad(loss)(q))


@pytest.mark.usefixtures("on_hopper")
def test_whole_graph_compiles(install: Installer) -> None:
    """Under a kernel that Dynamo can trace, and with boundaries given, nothing breaks the graph."""
    install("fa3")
    q, k, v, bounds = make_inputs()

    def attend(q: Tensor) -> Tensor:
        return varlen_attention(q, k, v, bounds, 12, None, 4, None)

    attend(q)
    torch._dynamo.reset()
    found = torch.compile(attend, backend="eager", fullgraph=True)(q)
    torch.testing.assert_close(found, dense(q, k, v, bounds, None, 3, 0.0))
