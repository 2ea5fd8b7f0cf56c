"""Streamed row reductions against float64, in every backend that runs here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import product

import pytest
import torch

from codeact.ops import Logits, row_lse, row_lse_tangent, row_max
from codeact.ops._streamed_reference import row_logits

BACKENDS = ["cpu", "reference", "triton", "auto"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INF, NAN = float("inf"), float("nan")


def runs(backend: str, device: torch.device) -> str:
    if backend == "triton":
        pytest.importorskip("triton")
    if backend == "cpu" and device.type != "cpu":
        pytest.skip("needs CPU tensors")
    return backend


def make(
    num_rows: int, num_columns: int, dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_rows + num_columns + dim)
    rows = torch.randn(num_rows, dim, generator=generator)
    columns = torch.randn(num_columns, dim, generator=generator) / dim**0.5
    bias = torch.randn(num_columns, generator=generator)
    labels = torch.randint(0, num_columns, (num_rows,), generator=generator)
    return tuple(x.to(device) for x in (rows.to(dtype), columns.to(dtype), bias, labels))  # type: ignore[return-value]


# Tiles are 512 rows by 1024 columns on the CPU: both edges, one below, one above.
SHAPES = [(1, 1, 1), (3, 2, 8), (31, 63, 24), (7, 1023, 5), (5, 1025, 16), (513, 65, 8)]


def shapes(backend: str, device: torch.device) -> list[tuple[int, int, int]]:
    """Triton's interpreter is slow; its edges are in tests/kernels."""
    return SHAPES[1:3] if backend == "triton" and device.type == "cpu" else SHAPES


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "logits", [Logits(), Logits(0.5, 4.0, 1.7)], ids=["plain", "scaled-capped-warm"]
)
def test_row_lse_matches_float64(backend, dtype, logits, device):
    for (num_rows, num_columns, dim), with_bias in product(shapes(backend, device), [False, True]):
        rows, columns, bias, labels = make(num_rows, num_columns, dim, dtype, device)
        given = bias if with_bias else None
        truth = row_logits(rows.double(), columns.double(), given, *logits)
        found = row_lse(
            rows, columns, labels, bias=given, logits=logits, expectation=True,
            backend=runs(backend, device),
        )  # fmt: skip
        p = truth.softmax(dim=1)
        expected = (found.lse, found.label_logits, found.expected)
        for value, true in zip(
            expected,
            (truth.logsumexp(1), truth.gather(1, labels[:, None])[:, 0], (p * truth).sum(1)),
            strict=True,
        ):
            assert value.dtype == torch.float32
            assert (value - true).abs().max() <= 3e-6 * max(1, truth.abs().max())


def tangent_truth(
    inputs: Sequence[torch.Tensor],
    tangents: Sequence[torch.Tensor | None],
    labels: torch.Tensor,
    logits: Logits,
) -> list[torch.Tensor]:
    """lse, label's logit and the tangents of both, by torch in float64."""

    def both(
        x: torch.Tensor, w: torch.Tensor, b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        z = row_logits(x, w, b, *logits)
        return z.logsumexp(1), z.gather(1, labels[:, None])[:, 0]

    along = [torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True)]
    values, moved = torch.func.jvp(
        both, tuple(x.double() for x in inputs), tuple(t.double() for t in along)
    )
    return [*values, *moved]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("logits", [Logits(), Logits(0.5, 4.0, 1.7)], ids=["plain", "all"])
def test_row_lse_tangent_matches_float64(backend, dtype, logits, device):
    for num_rows, num_columns, dim in shapes(backend, device):
        rows, columns, bias, labels = make(num_rows, num_columns, dim, dtype, device)
        along = [x.flip(0) for x in make(num_rows, num_columns, dim, dtype, device)[:3]]
        for mask in ((True, False, False), (False, True, False), (False, False, True), (True,) * 3):
            tangents = [x if on else None for x, on in zip(along, mask, strict=True)]
            truth = tangent_truth((rows, columns, bias), tangents, labels, logits)
            found = row_lse_tangent(
                rows, columns, labels, tangents[0], tangents[1], bias=bias,
                bias_tangent=tangents[2], logits=logits, backend=runs(backend, device),
            )  # fmt: skip
            for value, true in zip(found, truth, strict=True):
                assert value.dtype == torch.float32
                assert (value - true).abs().max() <= 1e-5 * max(1, true.abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_row_max_matches_float64(backend, dtype, device):
    for num_rows, num_columns, dim in shapes(backend, device):
        rows, columns, bias, labels = make(num_rows, num_columns, dim, dtype, device)
        excluded = labels.where(torch.arange(num_rows, device=device) % 2 == 0, -1)
        truth = row_logits(rows.double(), columns.double(), bias)
        column = torch.arange(num_columns, device=device)
        truth = truth.masked_fill(column == excluded[:, None], -INF)
        found = row_max(rows, columns, bias=bias, excluded=excluded, backend=runs(backend, device))
        best, index = truth.max(dim=1)
        counted = best > -INF
        assert torch.equal(found.indices >= 0, counted)
        assert torch.equal(found.values[~counted], torch.full_like(found.values[~counted], -INF))
        # Random values differ by more than rounding, so the column is the same one.
        assert torch.equal(found.indices[counted], index[counted])
        assert ((found.values - best)[counted].abs() <= 1e-5 * best[counted].abs() + 1e-6).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_values_name_the_lowest_column(backend, device):
    rows = torch.ones(3, 2, device=device)
    columns = torch.zeros(2100, 2, device=device)
    columns[[70, 1500, 2099]] = 1.0
    excluded = torch.tensor([-1, 70, 5], device=device)
    found = row_max(rows, columns, excluded=excluded, backend=runs(backend, device))
    assert found.indices.tolist() == [70, 1500, 70]
    assert found.values.tolist() == [2, 2, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_and_undefined_logits(backend, device):
    backend = runs(backend, device)
    rows = torch.ones(4, 2, device=device)
    rows[1] = NAN
    columns = torch.ones(1100, 2, device=device)
    bias = torch.zeros(1100, device=device)
    labels = torch.tensor([1050, 1050, 0, 1100], device=device)
    bias[:1040] = -INF  # the whole first tile
    found = row_lse(rows, columns, labels, bias=bias, expectation=True, backend=backend)
    truth = 2 + torch.tensor(60.0).log().item()
    assert found.lse.tolist() == pytest.approx([truth, NAN, truth, truth], rel=1e-6, nan_ok=True)
    assert found.label_logits.tolist() == pytest.approx([2, NAN, -INF, NAN], nan_ok=True)
    assert found.expected.tolist() == pytest.approx([2, NAN, 2, 2], rel=1e-6, nan_ok=True)
    best = row_max(rows, columns, bias=bias, backend=backend)
    assert best.indices.tolist()[0::2] == [1040, 1040]
    assert best.values.isnan().tolist() == [False, True, False, False]
    bias[:] = -INF
    nothing = row_lse(rows[:1], columns, None, bias=bias, expectation=True, backend=backend)
    assert nothing.lse.tolist() == [-INF]
    assert nothing.expected.isnan().all()
    best = row_max(rows[:1], columns, bias=bias, backend=backend)
    assert (best.values.item(), best.indices.item()) == (-INF, -1)
    bias[3] = INF
    assert row_lse(rows[:1], columns, None, bias=bias, backend=backend).lse.isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_skipped_rows_are_left_out(backend, device):
    backend = runs(backend, device)
    rows, columns, bias, labels = make(40, 70, 8, torch.float32, device)
    whole = row_lse(rows, columns, labels, bias=bias, backend=backend)
    skipped = torch.arange(40, device=device) % 3 != 0
    labels[skipped] = -100
    found = row_lse(rows, columns, labels, bias=bias, skip=-100, expectation=True, backend=backend)
    for value, true in zip(found[:2], whole[:2], strict=True):
        assert (value - true)[~skipped].abs().max() <= 1e-6 * true.abs().max()
    tangent = row_lse_tangent(rows, columns, labels, rows, None, skip=-100, backend=backend)
    for row in (0, 39):
        alone = row_lse_tangent(
            rows[[row]], columns, labels[[row]], rows[[row]], None, backend=backend
        )
        assert abs(tangent.lse_tangent[row] - alone.lse_tangent[0]) <= 1e-5
    nothing = row_lse(rows, columns, labels.fill_(-100), skip=-100, backend=backend)
    assert nothing.lse.shape == (40,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_do_not_matter(backend, device):
    backend = runs(backend, device)
    rows, columns, bias, labels = make(9, 130, 6, torch.float32, device)
    along = [x.flip(0) for x in (rows, columns, bias)]

    def every_other(x: torch.Tensor) -> torch.Tensor:
        """The same values, none beside the next."""
        return x.repeat_interleave(2, dim=-1)[..., ::2]

    def all_of(*given: torch.Tensor) -> list[torch.Tensor]:
        x, w, b, y, x_tangent, w_tangent, b_tangent = given
        return [
            *row_lse(x, w, y, bias=b, backend=backend)[:2],
            *row_lse_tangent(
                x, w, y, x_tangent, w_tangent, bias=b, bias_tangent=b_tangent, backend=backend
            ),
            *row_max(x, w, bias=b, excluded=y, backend=backend),
        ]

    given = [rows, columns, bias, labels, *along]
    for value, true in zip(all_of(*map(every_other, given)), all_of(*given), strict=True):
        assert (value - true).abs().max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_value_for_all_columns(backend, device):
    """An expanded tensor is one element in memory."""
    rows, columns, _, labels = make(5, 70, 6, torch.float32, device)
    same = torch.full((1,), 3.0, device=device).expand(70)
    found = row_lse_tangent(
        rows, columns, labels, None, None, bias=same, bias_tangent=same,
        backend=runs(backend, device),
    )  # fmt: skip
    truth = 3 + (rows.double() @ columns.double().T).logsumexp(1)
    assert (found.lse - truth).abs().max() <= 1e-5
    assert (found.lse_tangent - 3).abs().max() <= 1e-5


def test_no_rows(device):
    columns = torch.ones(5, 3, device=device)
    rows, labels = columns[:0], torch.empty(0, dtype=torch.int64, device=device)
    for backend in ("auto", "reference"):
        assert row_lse(rows, columns, labels, backend=backend).lse.shape == (0,)
        assert row_max(rows, columns, backend=backend).indices.shape == (0,)
        assert row_lse_tangent(rows, columns, labels, rows, None, backend=backend).lse.shape == (0,)


def test_calls_from_several_threads_do_not_meet():
    inputs = [make(200 + i, 2100, 32, torch.bfloat16, torch.device("cpu")) for i in range(4)]
    alone = [row_lse(x, w, y, bias=b).lse for x, w, b, y in inputs]
    found: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        torch.set_num_threads(1)
        x, w, b, y = inputs[index]
        for _ in range(5):
            found[index] = row_lse(x, w, y, bias=b).lse

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, truth in enumerate(alone):
        assert (found[index] - truth).abs().max() <= 1e-6 * truth.abs().max()


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_derivatives_are_refused(backend, device):
    rows, columns, _, labels = make(4, 6, 3, torch.float32, device)
    calls = [
        lambda x: row_lse(x, columns, labels, backend=backend).lse,
        lambda x: row_lse_tangent(x, columns, labels, rows, None, backend=backend).lse,
        lambda x: row_lse_tangent(rows, columns, labels, x, None, backend=backend).lse_tangent,
        lambda x: row_max(x, columns, backend=backend).values,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="no derivative"):
            call(rows.clone().requires_grad_())
        with pytest.raises(RuntimeError, match="no derivative"):
            torch.func.jvp(call, (rows,), (rows,))
        with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError):
            call(torch.autograd.forward_ad.make_dual(rows, rows))
        with torch.no_grad():
            call(rows.clone().requires_grad_())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, y, b: {"rows": x[0]}, "expects rows"),
        (lambda x, w, y, b: {"columns": w[:, :-1]}, "expects rows"),
        (lambda x, w, y, b: {"columns": w[:0], "bias": None}, "expects rows"),
        (lambda x, w, y, b: {"labels": y[:-1]}, "expects rows"),
        (lambda x, w, y, b: {"bias": b[:-1]}, "expects rows"),
        (lambda x, w, y, b: {"columns": w.half()}, "one floating dtype"),
        (lambda x, w, y, b: {"labels": y.int()}, "int64"),
        (lambda x, w, y, b: {"bias": b.int()}, "floating bias"),
        (lambda x, w, y, b: {"logits": Logits(temperature=0.0)}, "must be positive"),
        (lambda x, w, y, b: {"logits": Logits(softcap=0.0)}, "must be positive"),
        (lambda x, w, y, b: {"backend": "tiled"}, "backend must be"),
        (lambda x, w, y, b: {"rows": x.double(), "columns": w.double(), "backend": "cpu"}, "takes"),
    ],
)
def test_refused(change, message, device):
    rows, columns, bias, labels = make(4, 6, 3, torch.float32, device)
    given = {"rows": rows, "columns": columns, "labels": labels, "bias": bias}
    with pytest.raises(ValueError, match=message):
        row_lse(**(given | change(rows, columns, labels, bias)))
