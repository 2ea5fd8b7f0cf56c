"""What a training took, against counts by hand and against the report of the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codeact.errors import InputError
from codeact.packing import BinPlan, ModelCost, plan_bins
from codeact.packing.cost import AttentionCost
from codeact.training import StepLog, TrainResult
from codeact.training.cost import peak_flops
from codeact.training.cost.peak_flops import PeakFlops
from codeact.training.cost.spending import spending

PEAK = PeakFlops(1e6, "a bare matrix product")
LINEAR = ModelCost(100.0)
QUADRATIC = ModelCost(100.0, (AttentionCost(1, 10.0),))


@pytest.fixture
def plan() -> BinPlan:
    return plan_bins(np.random.default_rng(0).integers(5, 60, size=50), 64)


def result_of(plan: BinPlan, *, seconds: float, num_ranks: int = 1) -> TrainResult:
    """One epoch, a step a bin; half of the tokens carry a loss."""
    tokens = [int(n) for n in plan.epoch(0).num_tokens]
    steps = tuple(
        StepLog(k + 1, 1.0, count // 2, count, 1e-3, 0.0) for k, count in enumerate(tokens)
    )
    return TrainResult(steps, seconds, sum(tokens), 123.0, 0, num_ranks)


def forward(length: int) -> float:
    return 100.0 * length + 10.0 * length * (length + 1) / 2


@pytest.mark.parametrize("frozen_weights", [False, True])
def test_speed_and_utilisation_by_hand(plan: BinPlan, frozen_weights: bool) -> None:
    result = result_of(plan, seconds=10.0, num_ranks=2)
    spent = spending(
        result, plan, QUADRATIC, peak=PEAK, accumulation=1,
        frozen_weights=frozen_weights, head_flops=20.0,
    )  # fmt: skip
    linear = 2 if frozen_weights else 3
    lengths = [int(length) for length in plan.seqlens]
    flops = sum(linear * 100.0 * n + 3 * 10.0 * n * (n + 1) / 2 for n in lengths)
    num_scored = sum(step.num_loss_tokens for step in result.steps)
    flops -= linear * 20.0 * (sum(lengths) - num_scored)
    assert spent.tokens_per_second == sum(lengths) / 10.0
    assert spent.flops_per_second == pytest.approx(flops / 10.0 / 2)
    assert spent.mfu == pytest.approx(flops / 10.0 / 2 / 1e6)
    assert (spent.peak_mib, spent.seconds, spent.num_steps) == (123.0, 10.0, plan.num_bins)
    assert spent.padding == 1 - plan.fill


@pytest.mark.parametrize("batch_size", [1, 8, 50])
def test_saving_by_tokens_is_the_padding_of_the_report(plan: BinPlan, batch_size: int) -> None:
    """Where attention costs nothing, the share saved is the share of padding."""
    result = result_of(plan, seconds=10.0)
    spent = spending(result, plan, LINEAR, peak=PEAK, accumulation=1, batch_size=batch_size)
    share = plan.report(batch_size=batch_size).padding_dynamic
    assert spent.saved_by_packing.share == pytest.approx(share, abs=1e-12)
    assert spent.saved_by_packing.seconds == pytest.approx(10 * share / (1 - share))


def test_padded_slots_of_attention_count(plan: BinPlan) -> None:
    result = result_of(plan, seconds=10.0)
    spent = spending(result, plan, QUADRATIC, peak=PEAK, accumulation=1, batch_size=50)
    lengths = [int(length) for length in plan.seqlens]
    ours, padded = sum(map(forward, lengths)), 50 * forward(max(lengths))
    assert spent.saved_by_packing.share == pytest.approx(1 - ours / padded)


def test_against_the_full_set(plan: BinPlan) -> None:
    full = [*plan.seqlens.tolist(), 60, 64, 64]
    result = result_of(plan, seconds=10.0)
    spent = spending(
        result, plan, QUADRATIC, peak=PEAK, accumulation=1, full_seqlens=full, batch_size=53
    )
    ours, whole = sum(map(forward, plan.seqlens.tolist())), sum(map(forward, full))
    assert spent.saved_by_selection is not None
    assert spent.saved_in_all is not None
    assert spent.saved_by_selection.share == pytest.approx(1 - ours / whole)
    assert spent.saved_by_selection.seconds == pytest.approx(10.0 * (whole / ours - 1))
    assert spent.saved_in_all.share == pytest.approx(1 - ours / (53 * forward(64)))
    with pytest.raises(InputError, match="full set has no example"):
        spending(result, plan, QUADRATIC, peak=PEAK, accumulation=1, full_seqlens=[])


def test_pairs_are_two_sequences_and_two_rows() -> None:
    pairs = np.array([[10, 20], [30, 15], [12, 40]])
    plan = plan_bins(pairs.sum(axis=1), 64)
    result = result_of(plan, seconds=10.0)
    spent = spending(
        result, plan, QUADRATIC, peak=PEAK, accumulation=1, seqlens=pairs, batch_size=3
    )
    ours = sum(forward(int(length)) for length in pairs.ravel())
    assert spent.flops_per_second == pytest.approx(3 * ours / 10.0)
    assert spent.saved_by_packing.share == pytest.approx(1 - ours / (6 * forward(40)))


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", torch.bfloat16, None),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989.4e12),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H100 NVL", torch.bfloat16, 835.5e12),
        ("NVIDIA H200", torch.bfloat16, 989.4e12),
        ("NVIDIA B200", torch.bfloat16, 2250e12),
        ("NVIDIA L40S", torch.bfloat16, 362.05e12),
        ("NVIDIA L4", torch.bfloat16, 121e12),
        ("NVIDIA A10", torch.bfloat16, 125e12),
        ("NVIDIA A10G", torch.bfloat16, 70e12),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16, None),
        ("NVIDIA GeForce RTX 3090", torch.float32, 35.6e12),
        ("Tesla V100-SXM2-16GB", torch.float32, 15.7e12),
        ("Tesla V100-SXM2-16GB", torch.bfloat16, None),
        ("Tesla T4", torch.float32, 8.1e12),
        ("NVIDIA A100-SXM4-80GB", torch.float16, None),
        ("Some GPU", torch.bfloat16, None),
    ],
)
def test_peaks_by_name(name: str, dtype: torch.dtype, expected: float | None) -> None:
    found = peak_flops._from_table(name, dtype)
    assert (None if found is None else found.flops) == (
        None if expected is None else pytest.approx(expected)
    )


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "highest", 19.5e12),
        ("NVIDIA A100-SXM4-80GB", "high", 156e12),
        ("Tesla T4", "high", 8.1e12),  # it has no such unit
    ],
)
def test_float32_is_tf32_where_that_is_allowed(
    name: str, precision: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    found = peak_flops._from_table(name, torch.float32)
    assert found is not None
    assert found.flops == pytest.approx(expected)


def test_a_cpu_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[Any] = []
    multiply = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda *args, **kwargs: products.append(args) or multiply(*args, **kwargs)
    )
    peak_flops._timed_product.cache_clear()
    first = peak_flops.peak_flops(torch.device("cpu"), torch.float32)
    count = len(products)
    assert count >= 3
    assert peak_flops.peak_flops(torch.device("cpu"), torch.float32) == first
    assert len(products) == count
    assert first.source == "a bare matrix product"
    # A CPU of this century, and no faster than the fastest GPU there is.
    assert 1e8 < first.flops < 1e15
