"""Log-sum-exp of a product on Hopper: ``csrc/cuda/row_lse.cu``, bfloat16 only.

Only on request: ``"auto"`` takes Triton until the two have been measured beside each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codeact import _C

# What the copy engine asks of an address and of the distance between rows.
_ALIGNED = 16


def row_lse(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
    expectation: bool,
) -> tuple[Tensor, Tensor, None]:
    """As ``_streamed_reference.row_lse``; the mean logit is not computed here.

    Raises:
        ValueError: another dtype than bfloat16, rows of no element, or a mean logit is asked for.
        RuntimeError: the device is no Hopper.
    """
    if rows.dtype != torch.bfloat16:
        raise ValueError(f"backend 'cuda' takes bfloat16, got {rows.dtype}; use 'triton'")
    if expectation:
        raise ValueError("backend 'cuda' makes no mean logit and no entropy; use 'triton'")
    num_rows = len(rows)
    if rows.shape[1] == 0:
        raise ValueError("backend 'cuda' takes rows of at least one element; use 'reference'")
    rows, columns = _copyable(rows), _copyable(columns)
    if labels is None:
        labels = torch.full((num_rows,), -1, dtype=torch.int64, device=rows.device)
    bias = None if bias is None else bias.float()
    lse, label_logits = rows.new_empty((2, num_rows), dtype=torch.float32)
    shape = (num_rows, len(columns), rows.shape[1], rows.stride(0), columns.stride(0))
    with torch.cuda.device(rows.device):
        workspace = lse.new_empty(_C.row_lse_workspace(*shape))
        _C.row_lse(
            rows.data_ptr(),
            columns.data_ptr(),
            labels.data_ptr(),
            *shape,
            0 if bias is None else bias.data_ptr(),
            scale,
            softcap or 0.0,
            temperature,
            # No label has this value, so no row is left out.
            torch.iinfo(torch.int64).min if skip is None else skip,
            workspace.data_ptr(),
            lse.data_ptr(),
            label_logits.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
    return lse, label_logits, None


def _copyable(matrix: Tensor) -> Tensor:
    """``matrix`` with rows that begin on multiples of 16 bytes: a copy where they do not."""
    pitch = matrix.stride(0) * matrix.element_size()
    aligned = pitch % _ALIGNED == 0 and matrix.data_ptr() % _ALIGNED == 0
    if aligned and pitch > 0 and matrix.stride(1) == 1:
        return matrix
    num_rows, dim = matrix.shape
    padded = -dim % (_ALIGNED // matrix.element_size()) + dim
    return matrix.new_empty(num_rows, padded)[:, :dim].copy_(matrix)
