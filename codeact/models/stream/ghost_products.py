"""Derivatives along directions, where a backward pass meets the parameters that they move."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from codeact.models.direction import Direction
from codeact.models.hidden_states import OutputHead
from codeact.ops.segments import segment_sums

# A number read from memory takes a CPU as long as this many multiplications of a matrix product.
_READ = 16
# A block of logits: 16384 columns of 1024 rows on a CPU.
_CPU_HEAD_BYTES = 64 << 20
_CUDA_HEAD_BYTES = 512 << 20


class Call(NamedTuple):
    """A call of a module that holds parameters of interest.

    Attributes:
        module: the module.
        own: name in the model of each such parameter, by its name in the module.
        axis: of its output, (1, ...), along which the tokens of the pack lie.
        args: what it was called with, tensors detached; ``kwargs`` likewise.
    """

    module: nn.Module
    own: dict[str, str]
    axis: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def moves(self, directions: Sequence[Direction]) -> dict[int, dict[str, Tensor]]:
        """For each direction that moves a parameter of the module those parts, by local name."""
        found = {
            k: {local: direction[name] for local, name in self.own.items() if name in direction}
            for k, direction in enumerate(directions)
        }
        return {k: move for k, move in found.items() if move}


class ProductSums:
    """``<gradient of a sequence's loss, direction>`` of each sequence of a pack and direction.

    With ``b`` the gradient with respect to a module's output and ``df`` the change of the output
    along the direction, at the input that it had, the product of position t is
    ``sum_d b[t, d] * df[t, d]``: ``b . (V x + v)`` of a linear layer, ``b . V[token]`` of an
    embedding. Several directions and long sequences take less work on a CPU by ``<B^T X, V>``, the
    gradient of one sequence with respect to one matrix, made once for all directions.

    Args:
        directions: K of them.
        bounds: (num_seqs + 1) where the positions of each sequence begin.
        device: of the model.
    """

    def __init__(
        self, directions: Sequence[Direction], bounds: Sequence[int], device: torch.device
    ) -> None:
        self._directions, self._bounds = directions, bounds
        self._of_positions = torch.zeros(
            len(directions), bounds[-1], dtype=torch.float64, device=device
        )
        self._of_seqs = self._of_positions.new_zeros(len(directions), len(bounds) - 1)

    def visit(self, call: Call, gradient: Tensor) -> None:
        """Add what a module's parameters bring; ``gradient`` is of its output."""
        moves = call.moves(self._directions)
        if not moves:
            return
        if is_linear(call.module):
            b = gradient.flatten(0, -2)
            x = call.args[0].flatten(0, -2).to(b.dtype)
            self.add_matrix(b, x, _parts(moves, "weight"))
            self.add_bias(b, _parts(moves, "bias"))
        elif isinstance(call.module, nn.Embedding):
            tokens, rows = embedding_gradients(call, gradient)
            for k, weight in _parts(moves, "weight").items():
                self._of_positions[k] += _inner(rows, weight[tokens])
        else:
            for k, products in _other_products(call, gradient, moves):
                self._of_positions[k] += products

    def add_matrix(self, left: Tensor, right: Tensor, weights: Mapping[int, Tensor]) -> None:
        """Add ``sum_t left[t] . (V right[t])`` for the part ``V`` of each direction."""
        if self._is_less_work_formed(left, len(weights)):
            for seq, (start, stop) in enumerate(pairwise(self._bounds)):
                formed = left[start:stop].t() @ right[start:stop]
                for k, weight in weights.items():
                    rows = (formed * weight.to(formed.dtype)).sum(dim=-1)
                    self._of_seqs[k, seq] += rows.sum(dtype=torch.float64)
            return
        for k, weight in weights.items():
            matrix = weight.to(left.dtype)
            # b . (V x) = (b V) . x: the product with the fewer columns to write and read again.
            if len(matrix) <= matrix.shape[1]:
                self._of_positions[k] += _inner(left, right @ matrix.t())
            else:
                self._of_positions[k] += _inner(left @ matrix, right)

    def add_bias(self, left: Tensor, biases: Mapping[int, Tensor]) -> None:
        """Add ``sum_t left[t] . v``."""
        for k, bias in biases.items():
            self._of_positions[k] += left.to(wide(left)) @ bias.to(wide(left))

    def read(self, offsets: Tensor) -> Tensor:
        """(K, num_seqs) float64; ``offsets`` are the bounds, on the device."""
        of_positions = [segment_sums(row, offsets) for row in self._of_positions]
        return self._of_seqs + torch.stack(of_positions) if of_positions else self._of_seqs

    def _is_less_work_formed(self, left: Tensor, num_directions: int) -> bool:
        if left.device.type != "cpu" or wide(left) != left.dtype:
            return False
        num_seqs = len(self._bounds) - 1
        reads = _READ * num_seqs * num_directions
        return len(left) + reads < len(left) * num_directions


def _parts(moves: Mapping[int, Mapping[str, Tensor]], local: str) -> dict[int, Tensor]:
    return {k: move[local] for k, move in moves.items() if local in move}


def is_linear(module: nn.Module) -> bool:
    """Whether the module is ``x @ weight.T + bias`` and nothing else."""
    return type(module).forward is nn.Linear.forward and "forward" not in vars(module)


def embedding_gradients(call: Call, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (num_tokens,) and the gradient of each one's row of the weight, (num_tokens, dim).

    An embedding that does more than look up (Gemma 3 scales) is differentiated on the rows looked
    up instead of the whole weight. The row of ``padding_idx`` has no gradient in PyTorch, hence
    none here, wherever its token stands.
    """
    module: Any = call.module
    (tokens,) = (x.flatten() for x in (*call.args, *call.kwargs.values()) if _is_tokens(x))
    rows = gradient.flatten(0, -2)
    if type(module).forward is not nn.Embedding.forward or "forward" in vars(module):
        looked_up = module.weight.detach()[tokens].requires_grad_()
        local = with_parameters(module, {"weight": looked_up})
        local.padding_idx = None
        places = torch.arange(len(tokens), device=tokens.device)[None]
        with torch.enable_grad():
            (rows,) = torch.autograd.grad(local(places), looked_up, gradient)
    if module.padding_idx is not None:
        rows = rows.masked_fill((tokens == module.padding_idx)[:, None], 0.0)
    return tokens, rows


def _is_tokens(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point()


def _other_products(
    call: Call, gradient: Tensor, moves: Mapping[int, Mapping[str, Tensor]]
) -> Iterator[tuple[int, Tensor]]:
    """Of a module of any kind, such as a norm: the change of its output is never formed.

    With a weight ``u[t]`` on each position, ``<d/dw sum_t u[t] b[t] . f(x; w)[t], v>`` is linear in
    ``u``, and its derivative with respect to ``u[t]`` is the product of position t. This takes
    reverse mode only: dual numbers have one level in a process, and packs run in threads.
    """
    weights = {local: getattr(call.module, local).detach().requires_grad_() for local in call.own}
    with torch.enable_grad():
        output = with_parameters(call.module, weights).forward(*call.args, **call.kwargs)
        shape = [-1 if axis == call.axis else 1 for axis in range(output.ndim)]
        scale = torch.ones(output.shape[call.axis], dtype=output.dtype, device=output.device)
        scale.requires_grad_()
        weighted = gradient.to(output.dtype) * scale.view(shape)
        parts = torch.autograd.grad(output, list(weights.values()), weighted, create_graph=True)
        by_local = dict(zip(weights, parts, strict=True))
        for k, move in moves.items():
            along = torch.stack([(by_local[local] * move[local]).sum() for local in move]).sum()
            (found,) = torch.autograd.grad(along, scale, retain_graph=True)
            yield k, found.to(wide(found))


def with_parameters(module: nn.Module, parameters: Mapping[str, Tensor]) -> Any:
    """A copy of a module, of its own parameters these, and without hooks.

    ``torch.func.functional_call`` changes the module itself, which other threads are using.

    Raises:
        RuntimeError: ``forward`` was replaced on the instance: it would run with the old ones.
    """
    if "forward" in vars(module):
        raise RuntimeError(
            f"the forward of a {type(module).__name__} was replaced; use derivative='forward'"
        )
    other = copy.copy(module)
    other._parameters = {**module._parameters, **parameters}  # type: ignore[dict-item]
    other._forward_hooks, other._forward_hooks_with_kwargs = {}, {}
    return other


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """(num_rows,) inner products of rows, multiplied and summed in float32 or wider."""
    return (a.to(wide(a)) * b.to(wide(a))).sum(dim=-1)


def wide(tensor: Tensor) -> torch.dtype:
    """float32, or float64 of float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def head_gradients(
    head: OutputHead, states: Tensor, targets: Tensor, nll: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """The losses' derivatives in ``scale * states @ weight.T + bias``, by blocks of the vocabulary.

    Args:
        states: (num_rows, hidden_size) detached, of the dtype of the weight.
        targets: (num_rows,).
        nll: (num_rows,) losses: with the logits of the targets they give the log-sum-exps.

    Yields:
        Columns of the vocabulary and (num_rows, num_columns) float32 (float64 of float64).
    """
    weight, bias = head.weight.detach(), None if head.bias is None else head.bias.detach()
    dtype, num_rows = nll.dtype, len(states)
    of_targets = (states.to(dtype) * weight[targets].to(dtype)).sum(dim=1).mul_(head.scale)
    if bias is not None:
        of_targets += bias[targets]
    lse = nll + (of_targets if head.softcap is None else _capped(of_targets, head.softcap)[0])
    budget = _CPU_HEAD_BYTES if states.device.type == "cpu" else _CUDA_HEAD_BYTES
    width = max(1, budget // (num_rows * dtype.itemsize))
    for start in range(0, len(weight), width):
        columns = slice(start, min(start + width, len(weight)))
        block = weight[columns]
        if states.is_cuda and states.dtype != dtype:  # summed in float32, and not rounded after
            u = torch.mm(states, block.t(), out_dtype=dtype)
        else:
            u = states.to(dtype) @ block.to(dtype).t()
        u *= head.scale
        if bias is not None:
            u += bias[columns]
        slope = None
        if head.softcap is not None:
            u, slope = _capped(u, head.softcap)
        gradient = u.sub_(lse[:, None]).exp_()
        is_here = (targets >= columns.start) & (targets < columns.stop)
        place = torch.where(is_here, targets - columns.start, 0)[:, None]
        gradient.scatter_add_(1, place, -is_here.to(dtype)[:, None])
        yield columns, gradient if slope is None else gradient.mul_(slope)


def _capped(u: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """``softcap * tanh(u / softcap)`` and its derivative."""
    tanh = torch.tanh(u / softcap)
    return softcap * tanh, 1.0 - tanh * tanh
