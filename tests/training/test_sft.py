"""Training on packs optimises exactly the per-token loss of the same rows unpacked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import make_rows, unpacked_loss

from codeact.data import TokenizedExamples, load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, load_model
from codeact.packing import PackedCollator, PackedDataset, plan_bins
from codeact.training import StepLog, TrainConfig, fine_tune, packed_loss
from codeact.training.compiling import compile_layers


@pytest.fixture
def loaded(tiny_model_folder: Path) -> LoadedModel:
    return load_model(tiny_model_folder, device="cpu")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return make_rows(12)


def tokenised(loaded: LoadedModel, rows: list[dict[str, str]]) -> TokenizedExamples:
    return tokenize_examples(load_examples(rows), loaded.tokenizer, max_length=200)


@pytest.mark.parametrize(("capacity", "accumulation"), [(2000, 1), (200, 1000), (400, 1000)])
def test_one_step_equals_unpacked(
    loaded: LoadedModel,
    rows: list[dict[str, str]],
    tmp_path: Path,
    capacity: int,
    accumulation: int,
) -> None:
    """All rows in one optimizer step, however they are spread over bins and accumulation."""
    examples = tokenised(loaded, rows)
    model = loaded.model
    reference = load_model(model.name_or_path, device="cpu", attn_implementation="eager").model
    loss = unpacked_loss(reference, examples)
    loss.backward()
    optimizer = torch.optim.SGD(reference.parameters(), lr=1.0)
    optimizer.step()
    plan = plan_bins(examples.seqlens, capacity)
    config = TrainConfig(
        epochs=1, learning_rate=1.0, lr_scheduler="constant", warmup_ratio=0.0,
        max_grad_norm=1e9, accumulation=accumulation, optimizer="sgd",
    )  # fmt: skip
    result = fine_tune(model, examples, plan, config, folder=tmp_path)
    assert len(result.steps) == 1
    assert result.steps[0].loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.num_tokens == examples.seqlens.sum()
    assert result.steps[0].num_loss_tokens == examples.num_response_tokens.sum()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_loss_goes_down(loaded: LoadedModel, rows: list[dict[str, str]], tmp_path: Path) -> None:
    examples = tokenised(loaded, rows)
    plan = plan_bins(examples.seqlens, 400)
    seen: list[tuple[StepLog, int]] = []
    config = TrainConfig(epochs=6, learning_rate=1e-2, accumulation=2)
    before = unpacked_loss(loaded.model, examples).item()
    result = fine_tune(
        loaded.model, examples, plan, config, folder=tmp_path,
        on_step=lambda step, total: seen.append((step, total)),
    )  # fmt: skip
    assert unpacked_loss(loaded.model, examples).item() < before - 0.5
    assert [step for step, _ in seen] == list(result.steps)
    assert seen[-1][1] == len(result.steps) == 6 * plan.num_updates(2)
    assert result.num_tokens == 6 * examples.seqlens.sum()
    assert not loaded.model.training


def test_same_seed_same_run(
    loaded: LoadedModel, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    losses = []
    for _ in range(2):
        model = load_model(loaded.model.name_or_path, device="cpu").model
        examples = tokenised(loaded, rows)
        plan = plan_bins(examples.seqlens, 400)
        result = fine_tune(model, examples, plan, TrainConfig(epochs=1), folder=tmp_path)
        losses.append([step.loss for step in result.steps])
    assert losses[0] == losses[1]


def test_diverged_loss_is_one_line(
    loaded: LoadedModel, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    examples = tokenised(loaded, rows)
    config = TrainConfig(
        epochs=20, learning_rate=1e30, lr_scheduler="constant", warmup_ratio=0.0, max_grad_norm=1e9
    )
    with pytest.raises(InputError, match=r"loss became (nan|inf) at step \d+"):
        fine_tune(loaded.model, examples, plan_bins(examples.seqlens, 400), config, folder=tmp_path)


@pytest.mark.parametrize(("warmup_steps", "warned"), [(2, True), (1, False)])
def test_nothing_but_warm_up_is_said(
    loaded: LoadedModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    warmup_steps: int,
    warned: bool,
) -> None:
    examples = tokenised(loaded, make_rows(2))
    config = TrainConfig(max_steps=2, warmup_steps=warmup_steps)
    with caplog.at_level(logging.WARNING, logger="codeact"):
        fine_tune(loaded.model, examples, plan_bins(examples.seqlens, 400), config, folder=tmp_path)
    words = "all 2 optimizer steps are warm-up (2 steps): the learning rate never reaches 5e-05"
    assert (words in caplog.text) is warned


def test_nothing_to_learn_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    examples = tokenised(loaded, [{"instruction": "a", "output": ""}])
    with pytest.raises(InputError, match="at least one response token"):
        fine_tune(
            loaded.model,
            examples,
            plan_bins(examples.seqlens, 400),
            TrainConfig(),
            folder=tmp_path,
        )


def test_compiled_layers_compute_the_same(loaded: LoadedModel, rows: list[dict[str, str]]) -> None:
    """Traced, but not translated to C++: that takes a minute and changes rounding alone."""
    model: Any = loaded.model
    model.model.layers = model.model.layers[:1]  # tracing takes seconds for each
    examples = tokenised(loaded, rows)
    dataset = PackedDataset(examples, plan_bins(examples.seqlens, 400))
    batches = [PackedCollator()([dataset[int(i)] for i in bin_]) for bin_ in dataset.plan.epoch(0)]

    def losses_and_gradient() -> tuple[list[float], torch.Tensor]:
        model.zero_grad()
        losses = [packed_loss(model, batch, 100.0) for batch in batches]
        sum(losses).backward()  # type: ignore[union-attr]
        return [x.item() for x in losses], model.model.layers[0].mlp.up_proj.weight.grad.clone()

    losses, gradient = losses_and_gradient()
    names, state = list(model.state_dict()), torch.get_rng_state()
    torch._dynamo.reset()
    graphs: list[Any] = []

    def as_traced(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    assert compile_layers(model, backend=as_traced)
    assert graphs
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        model.model.layers[0].mlp.up_proj.weight.grad, gradient
    )  # the probe's is gone
    ours, compiled_gradient = losses_and_gradient()
    assert ours == pytest.approx(losses, rel=1e-4)
    assert (compiled_gradient - gradient).abs().max() <= 1e-4 * gradient.abs().max()
    assert list(model.state_dict()) == names


def test_what_does_not_compile_runs_as_it_is(
    loaded: LoadedModel, rows: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    ids = torch.arange(3, 40)[None]
    before = loaded.model(input_ids=ids).logits
    torch._dynamo.reset()
    with caplog.at_level(logging.WARNING, logger="codeact"):
        assert not compile_layers(loaded.model, backend=broken)
    assert "torch.compile does not work here and is left out" in caplog.text
    assert torch.equal(loaded.model(input_ids=ids).logits, before)
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
