"""Adam's moments: read from files as optimizers write them, made by a warm-up, divided by."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from codeact.errors import InputError
from codeact.models import ScoredSequence, load_model, parameter_names, scored_from
from codeact.models.stream.gradient import loss_gradient
from codeact.scoring.influence.adam import AdamState, warm_up
from codeact.scoring.influence.adam_file import decay_rule
from codeact.scoring.influence.oracle import AdamWStep, one_step_influence


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return load_model(tiny_model_folder, device="cpu").model


def sequences(num_rows: int = 6) -> list[ScoredSequence]:
    rng = np.random.default_rng(0)
    return [
        scored_from(rng.integers(3, 200, size=n).astype(np.int32), 3)
        for n in rng.integers(8, 30, size=num_rows)
    ]


def take_steps(
    named: list[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, torch.Tensor]]:
    """The optimizer's own moments by name, after three steps on random gradients."""
    torch.manual_seed(1)
    for _ in range(3):
        for _, parameter in named:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return {name: optimizer.state[parameter] for name, parameter in named}


def twin_of(model: PreTrainedModel) -> PreTrainedModel:
    """Weights of its own, to be stepped upon."""
    twin: PreTrainedModel = LlamaForCausalLM(model.config)
    return twin


def assert_same(state: AdamState, truth: dict[str, dict[str, torch.Tensor]]) -> None:
    assert state.step == 3
    assert list(state.exp_avg) == list(state.exp_avg_sq) == list(truth)
    for name, moments in truth.items():
        assert torch.equal(state.exp_avg[name], moments["exp_avg"]), name
        assert torch.equal(state.exp_avg_sq[name], moments["exp_avg_sq"]), name


def trainer_groups(
    model: torch.nn.Module, decays: Any, weight_decay: float = 0.1
) -> list[dict[str, Any]]:
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if decays(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
    ]


def test_a_real_trainer_checkpoint(model: PreTrainedModel, tmp_path: Path) -> None:
    """As transformers writes it, after training it took part in."""
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    twin = twin_of(model)
    rows = [
        {"input_ids": s.input_ids[:8].tolist(), "labels": s.labels[:8].tolist()}
        for s in sequences(8)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, save_steps=3, per_device_train_batch_size=2,
        use_cpu=True, weight_decay=0.1, adam_beta2=0.95, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=twin, args=arguments, train_dataset=rows)  # type: ignore[arg-type]
    trainer.train()
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    truth = {name: optimizer.state[p] for name, p in twin.named_parameters()}
    state = AdamState.load(tmp_path / "checkpoint-3", model)
    assert_same(state, truth)
    assert (state.betas, state.eps) == ((0.9, 0.95), 1e-8)
    assert state.decay_of("model.layers.0.mlp.up_proj.weight") == 0.1
    assert state.decay_of("model.layers.0.input_layernorm.weight") == 0.0
    assert any(moment.any() for moment in state.exp_avg.values())


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen3"])
def test_the_rule_of_decay_is_the_trainers(shape: str) -> None:
    from transformers import GPT2Config, Qwen3Config, Trainer

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
    config = {
        "llama": LlamaConfig(**sizes, num_key_value_heads=1, intermediate_size=16),
        "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32),
        "qwen3": Qwen3Config(
            **sizes, num_key_value_heads=1, intermediate_size=16, head_dim=8, attention_bias=True
        ),
    }[shape]
    model = AutoModelForCausalLM.from_config(config)
    theirs = set(Trainer.get_decay_parameter_names(SimpleNamespace(), model))  # type: ignore[arg-type]
    decays = decay_rule(model)
    assert {name for name, _ in model.named_parameters() if decays(name)} == theirs & {
        name for name, _ in model.named_parameters()
    }
    assert 0 < len(theirs) < len(list(model.named_parameters()))


@pytest.mark.parametrize(
    "kind", ["plain", "fused", "foreach", "named", "ddp", "old-trainer", "fsdp"]
)
def test_every_way_to_write_it(model: PreTrainedModel, tmp_path: Path, kind: str) -> None:
    twin = twin_of(model)
    named = list(twin.named_parameters())
    given: Any = {
        "named": [(n, p) for n, p in reversed(named)],
        "ddp": [(f"module.{n}", p) for n, p in reversed(named)],
        "old-trainer": trainer_groups(twin, lambda name: "bias" not in name),
    }.get(kind, [p for _, p in named])
    flags = {kind: True} if kind in ("fused", "foreach") else {}
    optimizer = torch.optim.AdamW(given, lr=1e-3, betas=(0.8, 0.9), eps=1e-6, **flags)
    truth = take_steps(named, optimizer)
    saved: dict[str, Any] = optimizer.state_dict()
    if kind == "fsdp":  # keyed by name, as a full optimizer state dict is
        names = [name for name, _ in named]
        saved["state"] = {name: saved["state"][index] for index, name in enumerate(names)}
        saved["param_groups"][0]["params"] = names
    torch.save(saved, tmp_path / "optimizer.pt")
    state = AdamState.load(tmp_path / "optimizer.pt", model)
    assert_same(state, truth)
    assert (state.betas, state.eps) == ((0.8, 0.9), 1e-6)


def test_bfloat16_moments_become_float32(model: PreTrainedModel, tmp_path: Path) -> None:
    twin = twin_of(model).to(torch.bfloat16)
    named = list(twin.named_parameters())
    optimizer = torch.optim.AdamW([p for _, p in named])
    truth = take_steps(named, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = AdamState.load(tmp_path, model)
    for name, moments in truth.items():
        assert state.exp_avg_sq[name].dtype == torch.float32
        assert torch.equal(state.exp_avg_sq[name], moments["exp_avg_sq"].float())


def test_an_adapter(model: PreTrainedModel, tmp_path: Path) -> None:
    """Its checkpoint has the adapter's moments only; the names are those inside the base model."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(twin_of(model), config)
    named = [(n, p) for n, p in wrapped.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainer_groups(wrapped, decay_rule(wrapped)))
    truth = take_steps(named, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    inner = wrapped.get_base_model()
    inner.requires_grad_(False)  # as a model that is loaded to score with
    names = parameter_names(inner, "lora")
    state = AdamState.load(tmp_path, inner, names)
    assert_same(
        state, {n.removeprefix("base_model.model."): moments for n, moments in truth.items()}
    )
    with pytest.raises(InputError, match=r"no state of model\.embed_tokens\.weight.*lora"):
        AdamState.load(tmp_path, inner)
    with pytest.raises(InputError, match=r"8 \+ 0 tensors.* load the adapter"):
        AdamState.load(tmp_path, model)


def save_optimizer(model: PreTrainedModel, folder: Path, make: Any) -> None:
    named = list(model.named_parameters())
    optimizer = make([p for _, p in named])
    take_steps(named, optimizer)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.SGD(p, momentum=0.9), "lacks exp_avg, it has momentum_buffer"),
        (lambda p: torch.optim.SGD(p, momentum=0.0), "not of Adam|no moments"),
        (torch.optim.Adafactor, "lacks exp_avg, it has step, row_var"),
        (torch.optim.RMSprop, "lacks exp_avg, it has step, square_avg"),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), "AMSGrad"),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), "decay inside the gradient"),
    ],
    ids=["momentum", "sgd", "adafactor", "rmsprop", "amsgrad", "adam"],
)
def test_other_optimizers_are_refused(
    model: PreTrainedModel, tmp_path: Path, make: Any, message: str
) -> None:
    save_optimizer(twin_of(model), tmp_path, make)
    with pytest.raises(InputError, match=message):
        AdamState.load(tmp_path, model)


def test_other_shapes_are_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    config = LlamaConfig.from_dict({**model.config.to_dict(), "intermediate_size": 64})
    save_optimizer(LlamaForCausalLM(config), tmp_path, torch.optim.AdamW)
    with pytest.raises(
        InputError,
        match=r"layers\.0\.mlp\.gate_proj\.weight is \(64, 32\) there and \(48, 32\) here",
    ):
        AdamState.load(tmp_path, model)
    config = LlamaConfig.from_dict({**model.config.to_dict(), "num_hidden_layers": 1})
    save_optimizer(LlamaForCausalLM(config), tmp_path, torch.optim.AdamW)
    with pytest.raises(InputError, match="12 tensors, which do not fit the 21 parameters"):
        AdamState.load(tmp_path, model)


def test_files_that_are_none(model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no optimizer\.pt"):
        AdamState.load(tmp_path, model)
    with pytest.raises(InputError, match="is no file"):
        AdamState.load(tmp_path / "none", model)
    (tmp_path / "optimizer.pt").write_text(json.dumps({"state": {}}))
    with pytest.raises(InputError, match="cannot be read as an optimizer state: "):
        AdamState.load(tmp_path, model)
    torch.save({"weights": torch.ones(2)}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="must hold the state_dict of an optimizer"):
        AdamState.load(tmp_path, model)


def test_code_in_a_file_is_not_run(model: PreTrainedModel, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, (str(tmp_path / "trapped"), "w"))  # type: ignore[return-value]

    torch.save({"state": Trap(), "param_groups": []}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="cannot be read"):
        AdamState.load(tmp_path, model)
    assert not (tmp_path / "trapped").exists()


def test_precondition_is_the_frozen_denominator() -> None:
    gradient = {"w": torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)}
    second = torch.tensor([4.0, 0.25, 0.0])
    state = AdamState({"w": torch.zeros(3)}, {"w": second}, step=2, betas=(0.9, 0.5), eps=1e-3)
    found = state.precondition(gradient, rms_floor=0.0)["w"]
    roots = np.sqrt(np.array([4.0, 0.25, 0.0]) / (1 - 0.5**2))
    np.testing.assert_allclose(found, np.array([1.0, -2.0, 3.0]) / (roots + 1e-3), rtol=1e-12)
    assert found.dtype == torch.float64
    floored = state.precondition(gradient, rms_floor=0.5)["w"]
    least = 0.5 * np.sqrt((roots**2).mean())
    assert roots[1] < least < roots[0]
    expected = np.array([1.0, -2.0, 3.0]) / (np.maximum(roots, least) + 1e-3)
    np.testing.assert_allclose(floored, expected, rtol=1e-12)
    with pytest.raises(InputError, match="no second moment of other"):
        state.precondition({"other": torch.ones(1)})
    with pytest.raises(InputError, match="no step"):
        AdamState({}, {}, step=0).precondition(gradient)


def test_precondition_is_the_step_adamw_would_take_without_momentum() -> None:
    """With a learning rate of 1 and moments that a repeated gradient has made."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    gradient = torch.tensor([0.1, -2.0, 30.0, 1e-4])
    optimizer = torch.optim.AdamW([parameter], lr=1.0, betas=(0.0, 0.99), weight_decay=0.0)
    for _ in range(5):
        parameter.grad = gradient.clone()
        before = parameter.detach().clone()
        optimizer.step()
    moments = optimizer.state[parameter]
    state = AdamState({"w": moments["exp_avg"]}, {"w": moments["exp_avg_sq"]}, 5, (0.0, 0.99))
    direction = state.precondition({"w": gradient}, rms_floor=0.0)["w"]
    torch.testing.assert_close(before - parameter.detach(), direction, rtol=1e-5, atol=1e-6)


def test_warm_up_is_adam_at_weights_that_stand_still(model: PreTrainedModel) -> None:
    rows, names = sequences(6), parameter_names(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # All rows fill a batch, so that every gradient is that of the mean token loss of all.
    betas = (0.9, 0.99)
    state = warm_up(model, rows, names, num_batches=3, batch_tokens=10_000, betas=betas)
    num_scored = sum(len(s.input_ids) - 3 for s in rows)
    gradient = loss_gradient(model, rows, np.full(6, 1 / num_scored), names).gradient
    twin = twin_of(model)
    parameters = dict(twin.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, betas=betas)
    for _ in range(3):
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].clone()
        optimizer.step()
    assert state.betas[1] ** state.step < 1e-12  # the start at zero is corrected for, and forgotten
    for name, parameter in parameters.items():
        moments = zip(
            ("exp_avg", "exp_avg_sq"), (state.exp_avg, state.exp_avg_sq), betas, strict=True
        )
        for moment, found, beta in moments:
            truth = optimizer.state[parameter][moment] / (1 - beta**3)
            assert (found[name] - truth).norm() <= 1e-4 * truth.norm(), (name, moment)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_warmed_state_is_nearly_frozen(model: PreTrainedModel) -> None:
    """Preconditioned products rank rows as exact steps do, though no batch had half the tokens."""
    rng, names = np.random.default_rng(0), parameter_names(model)
    task, *rows = (scored_from(rng.integers(3, 30, size=12).astype(np.int32), 3) for _ in range(17))
    others = [scored_from(rng.integers(15, 200, size=30).astype(np.int32), 3) for _ in range(20)]
    state = warm_up(model, others, names, num_batches=8, batch_tokens=60)

    def gradient_of(row: ScoredSequence) -> dict[str, torch.Tensor]:
        weight = np.array([1 / (row.labels[1:] != -100).sum()])
        return loss_gradient(model, [row], weight, names).gradient

    exact = one_step_influence(model, rows, {"task": [task]}, AdamWStep(1e-6, state))[:, 0]
    agreement = {}
    for floor in (0.0, 0.1):
        direction = state.precondition(gradient_of(task), rms_floor=floor)
        fast = [
            sum(float((part * direction[name]).sum()) for name, part in gradient_of(row).items())
            for row in rows
        ]
        agreement[floor] = spearmanr(fast, exact)[0]
    assert agreement[0.1] > 0.8, agreement  # of random weights, whose gradients are sharp
    assert agreement[0.0] < 0.6, agreement


def test_warm_up_draws_by_seed(model: PreTrainedModel) -> None:
    rows = [*sequences(6), scored_from(np.arange(3, 9, dtype=np.int32), 6)]
    names, seen = ["lm_head.weight"], []
    options: dict[str, Any] = {"num_batches": 4, "batch_tokens": 20}
    first, again, other = (
        warm_up(
            model, rows, names, seed=seed, **options,
            on_progress=lambda done, total: seen.append((done, total)),
        ).exp_avg["lm_head.weight"]
        for seed in (0, 0, 1)
    )  # fmt: skip
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] * 3


@pytest.mark.parametrize("change", [{"sequences": []}, {"num_batches": 0}])
def test_warm_up_needs_something(model: PreTrainedModel, change: dict[str, Any]) -> None:
    options = {"sequences": sequences(), "num_batches": 2, **change}
    with pytest.raises(InputError, match="at least one batch and one row"):
        warm_up(model, names=["lm_head.weight"], **options)
