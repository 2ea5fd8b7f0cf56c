"""The loop behind :mod:`codeact.ops.linear_nll_gradient`: chunk after chunk of rows.

A chunk's logits are one matrix product into a float32 buffer that all chunks share. They are turned
in place into the loss's derivative with respect to them, then one product more makes each gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from codeact.ops._products import add_product, wide_blocks
from codeact.ops._softmax_gradient import softmax_gradient
from codeact.ops.streamed import Logits

# Every chunk reads and writes the weight's gradient: rank-one updates would be all traffic, and 1.7
# times less exact than one product.
_CPU_LEAST_ROWS = 16
# Liger's chunks of 256 rows reach 487 TFLOP/s on an H100, those of 4096 rows 736.
_CUDA_LEAST_ROWS = 1024
_CUDA_ROWS_MULTIPLE = 128  # the tile of a matrix product
_PITCH_MULTIPLE = 8  # 16 bytes of half precision, the alignment that tensor cores ask for
_FLOAT16_PEAK = 2.0**15  # the largest power of two that float16 holds


class Gradients(NamedTuple):
    """Losses, and those gradients that were asked for."""

    nll: Tensor  # (num_tokens,) float32, not weighted; 0 at ignored positions
    hidden_states: Tensor | None  # (num_tokens, hidden_size); 0 at ignored positions
    weight: Tensor | None  # (vocab_size, hidden_size)
    bias: Tensor | None  # (vocab_size,)


class Request(NamedTuple):
    """What is to be made, and how."""

    logits: Logits
    ignore_index: int
    wanted: tuple[bool, bool, bool]  # the gradients of hidden states, weight and bias
    workspace_bytes: int
    backend: str


def gradients_by_chunks(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    row_gradients: Tensor | None,
    bias: Tensor | None,
    request: Request,
) -> Gradients:
    """Losses of all rows, and unrounded gradients of their sum weighted by ``row_gradients``."""
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    num_rows, vocab_size = len(targets), len(weight)
    targets = targets.contiguous()
    bias = None if bias is None else bias.to(dtype).contiguous()
    row_gradients = None if row_gradients is None else row_gradients.to(dtype).contiguous()
    unit = None
    if request.backend == "triton" and hidden_states.dtype == torch.float16:
        row_gradients, unit = _fitted_to_float16(row_gradients, targets, request)
    chunk_rows = _chunk_rows(num_rows, vocab_size, dtype, hidden_states.is_cuda, request)
    pitch = -(-vocab_size // _PITCH_MULTIPLE) * _PITCH_MULTIPLE
    buffer = hidden_states.new_empty((chunk_rows, pitch), dtype=dtype)[:, :vocab_size]
    made = hidden_states.dtype if request.backend == "triton" else dtype
    nll = hidden_states.new_empty(num_rows, dtype=dtype)
    # Tensor cores take half precision and sum in float32; elsewhere factors are widened.
    factor = made if hidden_states.is_cuda else dtype
    sums = _Sums(hidden_states, weight, dtype, request.wanted)
    for start in range(0, num_rows, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_rows))
        # An ignored row's gradient is 0, but 0 times whatever padding holds may be NaN.
        ignored = (targets[rows] == request.ignore_index)[:, None]
        states = hidden_states[rows].to(factor).masked_fill(ignored, 0.0)
        products = buffer[: len(states)]
        for columns, block in wide_blocks(weight, factor):
            add_product(products[:, columns], states, block.t(), keep=False)
        nll[rows], gradient = softmax_gradient(
            products,
            targets[rows],
            None if row_gradients is None else row_gradients[rows],
            bias,
            request.logits,
            request.ignore_index,
            dtype=made,
            backend=request.backend,
        )
        sums.add(rows, states, gradient.to(factor), request.logits.scale)
    return Gradients(nll, *sums.times(unit))


class _Sums:
    """The gradients, while chunk after chunk is added."""

    def __init__(
        self,
        hidden_states: Tensor,
        weight: Tensor,
        dtype: torch.dtype,
        wanted: tuple[bool, bool, bool],
    ) -> None:
        want_hidden, want_weight, want_bias = wanted
        self._projection = weight
        # Chunks write all of the first, and the first chunk all of the second.
        make = hidden_states.new_empty if len(hidden_states) else hidden_states.new_zeros
        self._hidden = make(hidden_states.shape, dtype=dtype) if want_hidden else None
        self._weight = make(weight.shape, dtype=dtype) if want_weight else None
        self._bias = hidden_states.new_zeros(len(weight), dtype=dtype) if want_bias else None

    def add(self, rows: slice, states: Tensor, gradient: Tensor, scale: float) -> None:
        """Add what rows with these hidden states and gradients of their products bring."""
        if self._hidden is not None:
            for columns, block in wide_blocks(self._projection, gradient.dtype):
                part, first = gradient[:, columns], columns.start == 0
                add_product(self._hidden[rows], part, block, alpha=scale, keep=not first)
        if self._weight is not None:
            add_product(self._weight, gradient.t(), states, alpha=scale, keep=rows.start > 0)
        if self._bias is not None:
            self._bias += gradient.sum(dim=0, dtype=self._bias.dtype)

    def times(self, unit: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of hidden states, weight and bias, in units of ``unit``."""
        found = (self._hidden, self._weight, self._bias)
        if unit is not None:
            for gradient in found:
                if gradient is not None:
                    gradient *= unit
        return found


def _chunk_rows(
    num_rows: int, vocab_size: int, dtype: torch.dtype, on_cuda: bool, request: Request
) -> int:
    """Rows of a chunk: as many as the workspace holds, spread evenly over the chunks."""
    multiple, least = (_CUDA_ROWS_MULTIPLE, _CUDA_LEAST_ROWS) if on_cuda else (1, _CPU_LEAST_ROWS)
    fitting = request.workspace_bytes // (dtype.itemsize * max(1, vocab_size))
    fitting = max(least, fitting // multiple * multiple)
    num_chunks = max(1, -(-num_rows // fitting))
    even = -(-num_rows // num_chunks)
    return max(1, min(num_rows, -(-even // multiple) * multiple))


def _fitted_to_float16(
    row_gradients: Tensor | None, targets: Tensor, request: Request
) -> tuple[Tensor, Tensor]:
    """Row gradients that put the largest gradient of a logit at the top of float16, and their unit.

    A loss divided by its number of tokens would otherwise leave most of a softmax below the least
    float16.
    """
    if row_gradients is None:
        row_gradients = torch.ones_like(targets, dtype=torch.float32)
    row_gradients = row_gradients.masked_fill(targets == request.ignore_index, 0.0)
    if not len(row_gradients):
        return row_gradients, row_gradients.new_ones(())
    unit = row_gradients.abs().amax() / (_FLOAT16_PEAK * request.logits.temperature)
    unit = unit.clamp(min=torch.finfo(torch.float32).tiny)
    return row_gradients / unit, unit
