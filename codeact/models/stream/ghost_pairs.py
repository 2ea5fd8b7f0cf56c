"""Inner products of the gradients of every two sequences of a pack, of one parameter at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from codeact.models.stream.ghost_products import (
    Call,
    embedding_gradients,
    is_linear,
    wide,
    with_parameters,
)
from codeact.ops.segments import segment_sums
from codeact.ops.varlen import PackedBatch

# What the gradients of all sequences with respect to one matrix may take, where forming them is
# less work than the products of every two positions.
_FORMED_BYTES = 256 << 20


class Factors(NamedTuple):
    """A use of a matrix: a sequence's gradient is ``sum_t outer(left[t], right[t])``.

    Attributes:
        left: (num_tokens, num_rows), or (num_tokens,) int64 rows of which ``left[t]`` is the unit
            vector (an embedding).
        right: (num_tokens, num_columns).
    """

    left: Tensor
    right: Tensor


class HeadFactors(NamedTuple):
    """The output head's use of its weight: ``left``, as wide as the vocabulary, is not kept.

    Attributes:
        left_gram: (num_rows, num_rows) ``left @ left.T``.
        left_tokens: (num_rows, num_tokens) ``left[:, input_ids]`` where the embedding has the same
            weight, else (num_rows, 0).
        right: (num_rows, hidden_size).
    """

    left_gram: Tensor
    left_tokens: Tensor
    right: Tensor


class GradientGram:
    """The sum over parameters of the Gram matrices of the sequences' gradients.

    For a linear layer the entry of two sequences is the sum of ``(A A^T) * (B B^T)`` over their
    positions (Wang et al., GREATS, NeurIPS 2024), inputs A and output gradients B, or from the
    gradients themselves where that is less work. A parameter with several uses (tied weights, a
    module called twice) has the cross terms too.

    Attributes:
        total: (num_seqs, num_seqs) float64, not yet whole.
        num_calls: of each parameter, to be set before the backward pass: a matrix is done with when
            the gradients of all its uses are there.
    """

    def __init__(self, names: Collection[str], bounds: Sequence[int], batch: PackedBatch) -> None:
        self._names, self._bounds, self._batch = names, bounds, batch
        self._offsets = batch.cu_seqlens
        self._row_bounds: list[int] = batch.cu_rows.tolist()
        self._row_offsets = torch.from_numpy(batch.cu_rows).to(batch.rows.device)
        self.num_calls: Counter[str] = Counter()
        self._uses: dict[str, list[Factors]] = {}
        self._head: dict[str, HeadFactors] = {}
        self._formed: dict[str, Tensor] = {}
        self.total = torch.zeros(
            batch.num_seqs, batch.num_seqs, dtype=torch.float64, device=batch.rows.device
        )

    def visit(self, call: Call, gradient: Tensor) -> None:
        """Take the factors, or the gradients, of a module's parameters."""
        own = {local: name for local, name in call.own.items() if name in self._names}
        if not own:
            return
        if is_linear(call.module):
            b = _exact(gradient.flatten(0, -2))
            if "weight" in own:
                x = call.args[0].flatten(0, -2).to(b.dtype)
                self._use(own["weight"], Factors(b, x))
            if "bias" in own:
                parts = [b[i:j].sum(dim=0, dtype=wide(b)) for i, j in pairwise(self._bounds)]
                self._form(own["bias"], torch.stack(parts))
        elif isinstance(call.module, nn.Embedding):
            tokens, rows = embedding_gradients(call, gradient)
            self._use(own["weight"], Factors(tokens, _exact(rows)))
        else:
            for local, formed in _formed_by_sequence(call, gradient, own, self._bounds):
                self._form(own[local], formed)

    def add_head(self, name: str, columns: slice, left: Tensor, right: Tensor) -> None:
        """The output head's use of a block of its weight; all of them before any module's."""
        tokens = self._batch.input_ids
        head = self._head.get(name)
        if head is None:
            num_tokens = len(tokens) if name in self.num_calls else 0
            head = self._head[name] = HeadFactors(
                left.new_zeros(len(left), len(left)), left.new_zeros(len(left), num_tokens), right
            )
        head.left_gram.addmm_(left, left.t())
        if head.left_tokens.numel():
            is_here = (tokens >= columns.start) & (tokens < columns.stop)
            found = left[:, (tokens - columns.start).clamp(0, left.shape[1] - 1)]
            head.left_tokens.add_(found * is_here)

    def add_head_bias(self, left: Tensor) -> None:
        """The output head's use of a block of its bias."""
        self._add_formed(torch.stack([left[i:j].sum(dim=0) for i, j in pairwise(self._row_bounds)]))

    def read(self) -> Tensor:
        """(num_seqs, num_seqs) float64, after the backward pass."""
        for name in list(self._uses):  # that waited for uses on which the loss does not depend
            self._take(name)
        for formed in self._formed.values():
            self._add_formed(formed)
        for head in self._head.values():
            pairs = head.left_gram * (head.right @ head.right.t())
            self.total += _sums_of_blocks(pairs, self._row_bounds, self._row_offsets)
        return self.total

    def _add_formed(self, formed: Tensor) -> None:
        """(num_seqs, any) a part of the sequences' gradients."""
        self.total += (formed @ formed.t()).double()

    def _use(self, name: str, factors: Factors) -> None:
        uses = self._uses.setdefault(name, [])
        uses.append(factors)
        if len(uses) == self.num_calls[name]:
            self._take(name)

    def _form(self, name: str, formed: Tensor) -> None:
        before = self._formed.get(name)
        self._formed[name] = formed if before is None else before + formed

    def _take(self, name: str) -> None:
        uses = self._uses.pop(name)
        head = self._head.get(name)
        if head is not None:
            for use in uses:
                pairs = head.left_tokens * (head.right @ use.right.to(head.right.dtype).t())
                crossed = _sums_of_blocks(pairs, self._row_bounds, self._offsets)
                self.total += crossed + crossed.t()
        if self._is_less_work_formed(uses):
            self._add_formed(
                torch.stack(
                    [
                        sum(_outer(use, i, j) for use in uses).flatten()  # type: ignore[union-attr]
                        for i, j in pairwise(self._bounds)
                    ]
                )
            )
            return
        for place, use in enumerate(uses):
            self.total += self._products(use, use)
            for other in uses[:place]:
                crossed = self._products(use, other)
                self.total += crossed + crossed.t()

    def _is_less_work_formed(self, uses: list[Factors]) -> bool:
        if any(use.left.ndim == 1 for use in uses):
            return False
        num_seqs, num_tokens = len(self._bounds) - 1, len(uses[0].left)
        num_rows, num_columns = uses[0].left.shape[1], uses[0].right.shape[1]
        size = num_rows * num_columns
        if num_seqs * size * uses[0].left.dtype.itemsize > _FORMED_BYTES:
            return False
        pairs = num_tokens**2 / 2 * (num_rows + num_columns) * len(uses)
        return (num_tokens * len(uses) + num_seqs**2) * size <= pairs

    def _products(self, a: Factors, b: Factors) -> Tensor:
        """(num_seqs, num_seqs), of the use ``a`` by the first sequence and ``b`` by the second."""
        found = torch.zeros_like(self.total)
        for seq, (start, stop) in enumerate(pairwise(self._bounds)):
            # Of a use with itself the half from the diagonal on is the other half too.
            first, base = (seq, start) if a is b else (0, 0)
            pairs = _left_products(a.left[start:stop], b.left[base:])
            pairs = pairs * (a.right[start:stop] @ b.right[base:].t()).to(pairs.dtype)
            sums = segment_sums(pairs.sum(dim=0), self._offsets[first:] - base)
            found[seq, first:] = sums
            if a is b:
                found[first:, seq] = sums
        return found


def _exact(factor: Tensor) -> Tensor:
    """A sum of squares of activations passes the largest float16."""
    return factor.float() if factor.dtype == torch.float16 else factor


def _outer(use: Factors, start: int, stop: int) -> Tensor:
    left, right = use.left[start:stop], use.right[start:stop]
    product: Tensor = (left.t() @ right).to(wide(left))
    return product


def _left_products(a: Tensor, b: Tensor) -> Tensor:
    """(len(a), len(b)) products of left factors, in float32 or wider."""
    if a.ndim == 1 and b.ndim == 1:
        return (a[:, None] == b[None, :]).float()
    if a.ndim == 1:
        return b[:, a].t().to(wide(b))
    if b.ndim == 1:
        return a[:, b].to(wide(a))
    return (a @ b.t()).to(wide(a))


def _sums_of_blocks(pairs: Tensor, rows: Sequence[int], columns: Tensor) -> Tensor:
    """(num_seqs, num_seqs) float64 sums of the blocks between bounds of rows and of columns."""
    return torch.stack([segment_sums(pairs[i:j].sum(dim=0), columns) for i, j in pairwise(rows)])


def _formed_by_sequence(
    call: Call, gradient: Tensor, own: dict[str, str], bounds: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's gradients, (num_seqs, its size), from the module called on each sequence.

    Raises:
        RuntimeError: the module takes more than values of each position.
    """
    given = [x for x in (*call.args, *call.kwargs.values()) if isinstance(x, Tensor)]
    axis = call.axis
    if not given or any(len(x) != 1 or x.shape[axis : axis + 1] != (bounds[-1],) for x in given):
        raise RuntimeError(
            f"{next(iter(own.values()))} is of a {type(call.module).__name__} that cannot be "
            "called on one sequence of a pack: no inner products of its gradients"
        )
    weights = {local: getattr(call.module, local).detach().requires_grad_() for local in own}
    local_module = with_parameters(call.module, weights)
    found: list[tuple[Tensor, ...]] = []
    for start, stop in pairwise(bounds):

        def part(value: Any, start: int = start, stop: int = stop) -> Any:
            return value.narrow(axis, start, stop - start) if isinstance(value, Tensor) else value

        with torch.enable_grad():
            output = local_module.forward(
                *map(part, call.args), **{key: part(x) for key, x in call.kwargs.items()}
            )
            of_output = part(gradient).to(output.dtype)
            found.append(torch.autograd.grad(output, list(weights.values()), of_output))
    for local, parts in zip(weights, zip(*found, strict=True), strict=True):
        yield local, torch.stack([x.flatten().to(wide(x)) for x in parts])
