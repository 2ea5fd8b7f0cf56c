"""Training on packs optimises exactly the per-token loss of the same rows unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codeact.data import TokenizedExamples, load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, load_model
from codeact.packing import plan_bins
from codeact.training import StepLog, TrainConfig, fine_tune


@pytest.fixture
def loaded(tiny_model_folder: Path) -> LoadedModel:
    return load_model(tiny_model_folder, device="cpu")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    words = ["add", "list", "return", "x", "def", "sum", "for"]
    return [
        {
            "instruction": " ".join(rng.choice(words, size=rng.integers(1, 6))),
            "output": " ".join(rng.choice(words, size=rng.integers(1, 9))),
        }
        for _ in range(12)
    ]


def tokenised(loaded: LoadedModel, rows: list[dict[str, str]]) -> TokenizedExamples:
    return tokenize_examples(load_examples(rows), loaded.tokenizer, max_length=200)


def unpacked_loss(model: torch.nn.Module, examples: TokenizedExamples) -> torch.Tensor:
    """Mean over all response tokens of the set, one row at a time, full logits."""
    total, count = torch.zeros(()), 0
    for row in range(len(examples)):
        ids, labels = (torch.from_numpy(np.array(x)).long() for x in examples[row])
        logits = model(ids[None], use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
        count += int((labels[1:] != -100).sum())
    return total / count


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
    result = fine_tune(model, examples, plan, config, scratch=tmp_path)
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
        loaded.model, examples, plan, config, scratch=tmp_path,
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
        result = fine_tune(model, examples, plan, TrainConfig(epochs=1), scratch=tmp_path)
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
        fine_tune(
            loaded.model, examples, plan_bins(examples.seqlens, 400), config, scratch=tmp_path
        )


def test_nothing_to_learn_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    examples = tokenised(loaded, [{"instruction": "a", "output": ""}])
    with pytest.raises(InputError, match="at least one response token"):
        fine_tune(
            loaded.model,
            examples,
            plan_bins(examples.seqlens, 400),
            TrainConfig(),
            scratch=tmp_path,
        )
