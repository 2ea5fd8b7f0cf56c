"""What the reduced loss never makes: all logits, or the gradient of what is frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codeact.ops.linear_nll_loss import linear_nll_loss


class Made(TorchDispatchMode):
    """Records the tensors that operators return: the most memory behind one, and their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = 0
        self.new_shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.most_bytes = max(self.most_bytes, value.untyped_storage().nbytes())
                if value._base is None:
                    self.new_shapes.add(tuple(value.shape))
        return result


def make_inputs(
    num_tokens: int, dim: int, vocab_size: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(num_tokens, dim, generator=generator).to(device),
        torch.randn(vocab_size, dim, generator=generator).to(device),
        torch.randn(vocab_size, generator=generator).to(device),
        torch.randint(0, vocab_size, (num_tokens,), generator=generator).to(device),
    )


@pytest.mark.parametrize(("backend", "num_tokens"), [("cpu", 5000), ("triton", 60)])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_never_holds_tokens_times_vocabulary(
    backend: Any, num_tokens: int, with_gradient: bool, device: torch.device
) -> None:
    vocab_size = 500
    x, w, _, targets = make_inputs(num_tokens, 8, vocab_size, device)
    x.requires_grad_(with_gradient)
    w.requires_grad_(with_gradient)
    workspace_bytes = num_tokens // 10 * vocab_size * 4
    with Made() as made:
        loss = linear_nll_loss(x, w, targets, workspace_bytes=workspace_bytes, backend=backend)
        if with_gradient:
            loss.backward()
    assert made.most_bytes < num_tokens * vocab_size * 4 / 2


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("wanted", [0, 1, 2], ids=["hidden-states", "weight", "bias"])
def test_frozen_inputs_cost_nothing(backend: Any, wanted: int, device: torch.device) -> None:
    x, w, b, targets = make_inputs(9, 8, 31, device)

    def gradients(*which: int) -> tuple[list[Tensor | None], Made]:
        inputs = [t.clone().requires_grad_(i in which) for i, t in enumerate((x, w, b))]
        with Made() as made:
            linear_nll_loss(*inputs[:2], targets, bias=inputs[2], backend=backend).backward()
        return [t.grad for t in inputs], made

    everything, _ = gradients(0, 1, 2)
    found, made = gradients(wanted)
    for i in range(3):
        if i == wanted:
            torch.testing.assert_close(found[i], everything[i], rtol=1e-6, atol=1e-6)
        else:
            assert found[i] is None
    # A tensor like the weight is made where its gradient is, and nowhere else.
    assert (tuple(w.shape) in made.new_shapes) == (wanted == 1)
