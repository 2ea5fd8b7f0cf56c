"""Row reductions of a product that is never stored: log-sum-exp, its tangent, and the maximum.

With ``u = scale * (rows[i] @ columns[j]) + bias[j]`` a logit is ``z[i, j] = cap(u) / temperature``,
where ``cap(u) = softcap * tanh(u / softcap)`` if a softcap is given. Each function reduces ``z``
over ``j``. Products, exponentials and sums are float32 whatever the inputs are; float64 goes to the
reference, which then is float64 throughout. None has a derivative: where a gradient or a tangent is
in reach they raise. ``_streamed_reference.py`` is the definition, all logits at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from codeact.ops import _streamed_cpu, _streamed_cuda, _streamed_reference
from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._derivatives import refuse_derivatives

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Logits(NamedTuple):
    """How a product becomes a logit: scaled, biased, capped, divided by the temperature."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0


class RowLse(NamedTuple):
    """Log-sum-exp of each row of logits, and what was read on the way."""

    lse: Tensor  # (num_rows,) float32; NaN for a row with NaN or +inf
    label_logits: Tensor  # (num_rows,) float32; NaN where the label is no column
    expected: Tensor | None  # (num_rows,) float32, sum_j softmax(z)_j z_j; NaN if all are -inf


class RowLseTangent(NamedTuple):
    """:class:`RowLse` beside its forward-mode derivative, each (num_rows,) float32."""

    lse: Tensor
    label_logits: Tensor
    lse_tangent: Tensor
    label_tangent: Tensor


class RowMax(NamedTuple):
    """The largest value of each row and where it stands; of equal values the lowest column."""

    values: Tensor  # (num_rows,) float32; -inf where no column counts
    indices: Tensor  # (num_rows,) int64; -1 where no column that counts is above -inf


PLAIN = Logits()


def row_lse(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    *,
    bias: Tensor | None = None,
    logits: Logits = PLAIN,
    skip: int | None = None,
    expectation: bool = False,
    backend: Backend = "auto",
) -> RowLse:
    """Log-sum-exp of each row of logits, its label's logit and, if asked for, its mean logit.

    The label's logit comes from the same product as the sum, so that ``lse - label_logits``, a
    negative log-likelihood, is below zero by rounding at most.

    Args:
        rows: (num_rows, dim) float32, float16 or bfloat16.
        columns: (num_columns, dim), of the same dtype.
        labels: (num_rows,) int64 or None; values are not checked, which would wait for the device.
        bias: (num_columns,) of any floating dtype, or None.
        logits: the way from a product to a logit.
        skip: a row with this label may be left out; its values are unspecified.
        expectation: return ``expected`` too; the entropy of a row is ``lse - expected``.
        backend: ``"cpu"`` (tiles that stay in cache), ``"triton"``, ``"reference"``, or ``"cuda"``:
            bfloat16 on Hopper without ``expectation``, which ``"auto"`` does not take.
    """
    _check("row_lse", rows, columns, labels, bias, logits)
    refuse_derivatives("row_lse", rows, columns, bias)
    chosen = choose_backend(backend, rows, forward_only=True)
    order = None if labels is None else _order(chosen, labels, skip)
    found = _launcher(chosen, "row_lse")(
        _taken(rows, order),
        columns,
        _dense(_taken(labels, order)),
        _dense(bias),
        *logits,
        skip,
        expectation,
    )
    return RowLse(*_put_back(found, order, len(rows)))


def row_lse_tangent(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    rows_tangent: Tensor | None,
    columns_tangent: Tensor | None,
    *,
    bias: Tensor | None = None,
    bias_tangent: Tensor | None = None,
    logits: Logits = PLAIN,
    skip: int | None = None,
    backend: Backend = "auto",
) -> RowLseTangent:
    """:func:`row_lse` and its derivative along tangents of its inputs, in one walk.

    ``z'[i, j] = (scale * (rows'[i] @ columns[j] + rows[i] @ columns'[j]) + bias'[j])
    * (1 - tanh(u / softcap)**2) / temperature``; the tangent of ``lse`` is ``sum_j p_j z'[i, j]``.

    Args:
        rows_tangent: like ``rows``, or None for zero; likewise ``columns_tangent`` and
            ``bias_tangent``, which needs no ``bias``.

    The other arguments are those of :func:`row_lse`.
    """
    _check("row_lse_tangent", rows, columns, labels, bias, logits)
    for name, tangent, shape in (
        ("rows_tangent", rows_tangent, rows.shape),
        ("columns_tangent", columns_tangent, columns.shape),
        ("bias_tangent", bias_tangent, columns.shape[:1]),
    ):
        if tangent is not None and (tangent.shape != shape or tangent.device != rows.device):
            raise ValueError(
                f"{name} must be {tuple(shape)} on {rows.device}, "
                f"got {tuple(tangent.shape)} on {tangent.device}"
            )
    given = (rows, columns, bias, rows_tangent, columns_tangent, bias_tangent)
    refuse_derivatives("row_lse_tangent", *given)
    chosen = choose_backend(backend, rows)
    order = _order(chosen, labels, skip)
    found = _launcher(chosen, "row_lse_tangent")(
        _taken(rows, order),
        columns,
        _dense(_taken(labels, order)),
        _taken(None if rows_tangent is None else rows_tangent.to(rows.dtype), order),
        None if columns_tangent is None else columns_tangent.to(columns.dtype),
        _dense(bias),
        _dense(bias_tangent),
        *logits,
        skip,
    )
    return RowLseTangent(*_put_back(found, order, len(rows)))


def row_max(
    rows: Tensor,
    columns: Tensor,
    *,
    bias: Tensor | None = None,
    excluded: Tensor | None = None,
    backend: Backend = "auto",
) -> RowMax:
    """Largest ``rows[i] @ columns[j] + bias[j]`` of each row, and the lowest column that has it.

    Args:
        excluded: (num_rows,) int64, a column that does not count for the row, or -1; or None.

    The other arguments are those of :func:`row_lse`. A NaN in a row is its largest value.
    """
    _check("row_max", rows, columns, excluded, bias, PLAIN)
    refuse_derivatives("row_max", rows, columns, bias)
    chosen = choose_backend(backend, rows)
    return RowMax(*_launcher(chosen, "row_max")(rows, columns, _dense(bias), _dense(excluded)))


def choose_backend(
    backend: Backend, rows: Tensor, *, forward_only: bool = False
) -> Literal["reference", "triton", "cuda", "cpu"]:
    """The backend of a streamed product: float64 goes to the reference under ``"auto"``.

    ``forward_only`` admits ``"cuda"``, which has a log-sum-exp and nothing else.
    """
    if rows.dtype not in _DTYPES:
        if backend in ("auto", "reference"):
            return "reference"
        raise ValueError(
            f"backend {backend!r} takes float32, float16 or bfloat16, got {rows.dtype}"
        )
    if backend != "cuda":
        return resolve_backend(backend, rows, supported=("triton", "cpu"))
    if not forward_only:
        raise ValueError(
            "backend 'cuda' has no gradient, tangent or maximum; use 'triton' or 'auto'"
        )
    return resolve_backend(backend, rows, supported=("cuda",))


def _launcher(backend: str, operation: str) -> Any:
    """All backends of an operation take the same arguments and return the same tuple."""
    if backend == "triton":  # optional, so imported only here
        return getattr(importlib.import_module(f"codeact.kernels.{operation}"), operation)
    modules = {"cpu": _streamed_cpu, "cuda": _streamed_cuda, "reference": _streamed_reference}
    return getattr(modules[backend], operation)


def _order(backend: str, labels: Tensor, skip: int | None) -> Tensor | None:
    """The rows to walk over, None for all of them as they stand.

    On the CPU these are the rows that count. On a GPU their number is unknown without waiting for
    the device: they come first, and blocks of skipped rows leave at once.
    """
    if skip is None or backend == "reference":
        return None
    skipped = labels == skip
    if labels.is_cuda:
        return torch.argsort(skipped.to(torch.uint8), stable=True)
    return (~skipped).nonzero()[:, 0] if bool(skipped.any()) else None


def _taken(values: Tensor | None, order: Tensor | None) -> Tensor | None:
    return values if values is None or order is None else values.index_select(0, order)


def _dense(vector: Tensor | None) -> Tensor | None:
    """Kernels get the address of a vector and take its elements to be adjacent."""
    return None if vector is None else vector.contiguous()


def _put_back(found: Sequence[Any], order: Tensor | None, num_rows: int) -> Sequence[Any]:
    """Results of the rows in ``order`` at their places among all; 0 for the rows left out."""
    if order is None:
        return found
    return [
        None if values is None else values.new_zeros(num_rows).index_copy_(0, order, values)
        for values in found
    ]


def _check(
    operation: str,
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    logits: Logits,
) -> None:
    if (
        rows.ndim != 2
        or columns.ndim != 2
        or len(columns) == 0
        or columns.shape[1] != rows.shape[1]
        or (labels is not None and labels.shape != rows.shape[:1])
        or (bias is not None and bias.shape != columns.shape[:1])
    ):
        shapes = [None if x is None else tuple(x.shape) for x in (rows, columns, labels, bias)]
        raise ValueError(
            f"{operation} expects rows (num_rows, dim), columns (num_columns > 0, dim), one label "
            f"a row and one bias a column, got {', '.join(map(str, shapes))}"
        )
    if rows.dtype != columns.dtype or not rows.is_floating_point():
        raise ValueError(
            f"{operation} expects one floating dtype, got {rows.dtype} and {columns.dtype}"
        )
    if labels is not None and labels.dtype != torch.int64:
        raise ValueError(f"{operation} expects int64 labels, got {labels.dtype}")
    if bias is not None and not bias.is_floating_point():
        raise ValueError(f"{operation} expects a floating bias, got {bias.dtype}")
    devices = {x.device for x in (rows, columns, labels, bias) if x is not None}
    if len(devices) > 1:
        raise ValueError(f"{operation} expects one device, got {sorted(map(str, devices))}")
    if not logits.temperature > 0 or not (logits.softcap is None or logits.softcap > 0):
        raise ValueError(f"softcap and temperature must be positive, got {logits}")
