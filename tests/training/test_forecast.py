"""What a training will take: counts to the token, and nothing left behind in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeact.data import TokenizedExamples, load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import load_model
from codeact.packing import ModelCost, plan_bins
from codeact.packing.cost import AttentionCost
from codeact.training import TrainConfig, fine_tune, resolve_accumulation
from codeact.training.cost import dry_run
from codeact.training.cost.dry_run import computes_in
from codeact.training.cost.forecast import Forecast, forecast
from codeact.training.cost.workload import training_cost, workload

COST = ModelCost(100.0, (AttentionCost(2, 8.0),))
LINEARS = "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    return load_model(tiny_model_folder, device="cpu").model


@pytest.fixture(scope="module")
def examples(tiny_model_folder: Path) -> TokenizedExamples:
    rng = np.random.default_rng(0)
    words = ["add", "list", "return", "x", "def", "sum", "for"]
    rows = [
        {
            "instruction": " ".join(rng.choice(words, size=rng.integers(1, 6))),
            "output": " ".join(rng.choice(words, size=rng.integers(1, 9))),
        }
        for _ in range(16)
    ]
    tokenizer = load_model(tiny_model_folder, device="cpu").tokenizer
    return tokenize_examples(load_examples(rows), tokenizer, max_length=200)


def sequence_cost(length: int) -> float:
    """Forward, counted pair by pair."""
    pairs = sum(1 for query in range(length) for key in range(length) if key <= query)
    return 100.0 * length + 2 * 8.0 * pairs


@pytest.mark.parametrize(("world_size", "num_steps"), [(1, 2), (1, 7), (2, 3), (3, 8)])
def test_workload_counts_every_bin(world_size: int, num_steps: int) -> None:
    seqlens = np.random.default_rng(1).integers(5, 40, size=30)
    plan = plan_bins(seqlens, 64, world_size=world_size)
    found = workload(plan, COST, num_steps=num_steps, accumulation=2)
    tokens, total, slowest, step, epoch = 0, 0.0, 0.0, 0, 0
    while step < num_steps:
        micro_steps = plan.epoch(epoch)
        rows = [micro_steps[k : k + world_size] for k in range(0, len(micro_steps), world_size)]
        for first in range(0, len(rows), 2):
            if step == num_steps:
                break
            for ranks in rows[first : first + 2]:
                lengths = [[int(plan.spans.seqlens[span]) for span in spans] for spans in ranks]
                costs = [sum(map(sequence_cost, bin_lengths)) for bin_lengths in lengths]
                tokens += sum(map(sum, lengths))
                total += sum(costs)
                slowest += max(costs)
            step += 1
        epoch += 1
    assert (found.num_steps, found.num_tokens) == (num_steps, tokens)
    assert found.cost == pytest.approx(total, rel=1e-12)
    # Whole epochs count as epoch 0, whose bins pair up otherwise.
    assert found.cost_of_slowest == pytest.approx(slowest, rel=1e-12 if world_size == 1 else 0.1)


def test_backward_costs_twice_forward_and_once_beside_frozen_weights() -> None:
    length, pairs = 10, 55
    full = training_cost(COST, frozen_weights=False)([length])
    frozen = training_cost(COST, frozen_weights=True)([length])
    assert full == pytest.approx(3 * (100 * length + 16 * pairs))
    assert frozen == pytest.approx(2 * 100 * length + 3 * 16 * pairs)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1.5, "accumulation": 2},
        {"max_steps": 5, "accumulation": 1},
        {"samples_per_step": 6},
        {"method": "lora", "epochs": 1.0, "accumulation": 3},
    ],
    ids=lambda options: "-".join(options),
)
def test_steps_and_tokens_are_those_of_the_training(
    model: Any, examples: TokenizedExamples, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = TrainConfig(**options)
    plan = plan_bins(examples.seqlens, 200)
    found = forecast(model, examples, plan, config)
    result = fine_tune(model, examples, plan, config, folder=tmp_path)
    assert found.num_steps == len(result.steps)
    assert found.num_tokens == result.num_tokens
    assert found.accumulation == resolve_accumulation(config, plan)
    assert 0 < found.optimizer_seconds < found.seconds
    assert found.padding == 1 - examples.seqlens.sum() / (plan.num_bins * 200)
    # A process that has loaded PyTorch takes hundreds of MiB, and the tiny model none.
    assert found.peak_mib == pytest.approx(result.peak_mib, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"method": "lora", "lora_dropout": 0.5, "gradient_checkpointing": True},
    ],
    ids=["full", "lora"],
)
def test_training_after_a_forecast_is_the_same_to_the_bit(
    tiny_model_folder: Path, examples: TokenizedExamples, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = TrainConfig(epochs=1.0, learning_rate=1e-2, accumulation=2, **options)
    plan = plan_bins(examples.seqlens, 200)
    found = []
    for with_forecast in (False, True):
        trained = load_model(tiny_model_folder, device="cpu").model
        torch.manual_seed(3)
        if with_forecast:
            forecast(trained, examples, plan, config)
        drawn = torch.rand(4)
        result = fine_tune(trained, examples, plan, config, folder=tmp_path)
        weights = [parameter.detach().clone() for parameter in trained.parameters()]
        found.append(([step.loss for step in result.steps], drawn, weights))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    for without, after in zip(found[0][2], found[1][2], strict=True):
        assert torch.equal(without, after)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_model_is_left_as_it_was(model: Any, examples: TokenizedExamples, method: str) -> None:
    names = dict(model.named_parameters())
    frozen, with_gradient = (list(names.values())[k] for k in (0, 1))
    frozen.requires_grad_(False)
    with_gradient.grad = torch.full_like(with_gradient, 3.0)
    before = {name: parameter.detach().clone() for name, parameter in names.items()}
    attributes = set(vars(model))
    config = TrainConfig(method=method, gradient_checkpointing=True)  # type: ignore[arg-type]
    forecast(model, examples, plan_bins(examples.seqlens, 200), config)
    assert model.config._attn_implementation == "codeact"
    after = dict(model.named_parameters())
    assert list(after) == list(names)
    for name, parameter in after.items():
        assert parameter is names[name]
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == (parameter is not frozen)
        if parameter is with_gradient:
            assert torch.equal(parameter.grad, torch.full_like(parameter, 3.0))
        else:
            assert parameter.grad is None
    assert set(vars(model)) == attributes
    assert not model.training
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_bytes_of_what_is_trained(
    model: Any, examples: TokenizedExamples, method: Any, optimizer: Any
) -> None:
    config = TrainConfig(method=method, optimizer=optimizer, lora_rank=4)
    plan = plan_bins(examples.seqlens, 200)
    run = dry_run.dry_run(model, examples, plan, config, cost=COST, keeps_gradients=True)
    whole = sum(parameter.numel() for parameter in model.parameters())
    linears = [m for name, m in model.named_modules() if name.rpartition(".")[2] in LINEARS]
    adapters = sum(4 * (linear.in_features + linear.out_features) for linear in linears)
    trained = whole if method == "full" else adapters
    assert run.gradient_bytes == 4 * trained
    assert run.optimizer_bytes == (8 * trained if optimizer == "adamw" else 0)
    assert run.weight_bytes == 4 * (whole + (0 if method == "full" else adapters))


def test_out_of_memory_is_advice_and_leaves_no_trace(
    model: Any, examples: TokenizedExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(dry_run, "packed_loss", exhausted)
    names = set(dict(model.named_parameters()))
    with pytest.raises(InputError, match=r"asked for 2\.00 GiB\).+method = qlora"):
        forecast(model, examples, plan_bins(examples.seqlens, 200), TrainConfig(method="lora"))
    assert set(dict(model.named_parameters())) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("precision", "weights", "expected"),
    [
        ("auto", torch.float32, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("float32", torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_products_are_computed_in(
    model: Any, precision: Any, weights: torch.dtype, expected: torch.dtype
) -> None:
    assert computes_in(TrainConfig(precision=precision), model.to(weights)) == expected


def test_it_fits_or_not() -> None:
    found = Forecast(1, 1, 1, 0.0, 1.0, 0.1, peak_mib=100.0, device_mib=99.0)
    assert not found.fits
