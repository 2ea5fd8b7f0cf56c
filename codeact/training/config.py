"""What a training run is told: one flat, checked set of options, and the papers' settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from codeact.errors import InputError
from codeact.packing import BinPlan
from codeact.strict_yaml import read_mapping, shown, suggestion

Method = Literal["full", "lora", "qlora"]
LRScheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Optimizer = Literal["adamw", "sgd"]
Precision = Literal["auto", "float32", "bfloat16"]

_MAX_SEED = 2**32 - 1
# Two ways to say one thing: who gives the key takes back what a preset or a file says by the value.
_REPLACES = {"accumulation": "samples_per_step", "warmup_ratio": "warmup_steps"}


def _check_choices(config: TrainConfig) -> None:
    choices = {
        "method": get_args(Method), "lr_scheduler": get_args(LRScheduler),
        "optimizer": get_args(Optimizer), "precision": get_args(Precision),
    }  # fmt: skip
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise InputError(
                f"{name} must be one of {', '.join(allowed)}, got {shown(getattr(config, name))}"
            )
    for name in ("gradient_checkpointing", "compile", "fsdp"):
        if not isinstance(getattr(config, name), bool):
            raise InputError(f"{name} must be true or false, got {shown(getattr(config, name))}")
    targets: Any = config.lora_targets
    names = targets if isinstance(targets, tuple) else (targets,)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"lora_targets must be names of layers, got {shown(targets)}")


def _check_number(name: str, value: Any, rule: str, holds: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # An int may be larger than any float, which isfinite does not take.
    if not number or not abs(value) <= sys.float_info.max or not holds(value):
        raise InputError(f"{name} must be {rule}, got {shown(value)}")


def _check_count(
    name: str, value: Any, least: int, *, most: int | None = None, or_none: bool = False
) -> None:
    if value is None and or_none:
        return
    is_count = isinstance(value, int) and not isinstance(value, bool)
    if not is_count or value < least or (most is not None and value > most):
        rule = f"{least} or more" if most is None else f"between {least} and {most}"
        raise InputError(f"{name} must be a whole number, {rule}, got {shown(value)}")


@dataclass(frozen=True)
class TrainConfig:
    """Options of a run, named as in ``transformers.TrainingArguments`` where it has them.

    Attributes:
        method: ``"full"`` trains every weight; ``"lora"`` low-rank updates of frozen layers
            (arXiv:2106.09685); ``"qlora"`` the same over 4-bit weights (arXiv:2305.14314).
        epochs: passes over the plan's examples.
        learning_rate: the peak.
        lr_scheduler: how the rate falls from it.
        warmup_ratio: share of the optimizer steps in which the rate rises to it, rounded down.
        warmup_steps: their number, instead of the share.
        optimizer: ``"adamw"`` or plain ``"sgd"``.
        weight_decay: of all weights but biases and norms.
        max_grad_norm: gradients longer than this are scaled down; 0 leaves them.
        capacity: tokens of a bin, for whoever makes the plan: ``fine_tune`` is given one.
        accumulation: bins that a rank adds up for an optimizer step.
        samples_per_step: examples of an optimizer step over all ranks, on average, instead of
            ``accumulation`` (:func:`resolve_accumulation`).
        max_steps: optimizer steps after which the run ends, before ``epochs`` do.
        precision: of the computation, whatever the weights are stored in. ``"bfloat16"`` is
            autocast over float32 weights, ``"auto"`` that on a GPU and float32 on a CPU. Weights
            that are bfloat16 already are computed with as they are.
        gradient_checkpointing: recompute activations in the backward pass.
        compile: ``torch.compile`` each decoder layer; where that fails, a warning and no compiling.
        lora_rank, lora_alpha, lora_dropout: of the low-rank updates, scaled by alpha / rank.
        lora_targets: names of the layers that get one, in a tuple or between commas;
            ``"all-linear"`` is every linear layer but the output projection.
        save_steps: optimizer steps from one checkpoint to the next; None writes none.
        fsdp: shard weights, gradients and optimizer states over the ranks.
        seed: of the run's dropout and of new adapters; the order of the data is the plan's.

    Raises:
        InputError: a value of another type or out of its range.
    """

    method: Method = "full"
    epochs: float = 3.0
    learning_rate: float = 5e-5
    lr_scheduler: LRScheduler = "cosine"
    warmup_ratio: float = 0.03
    warmup_steps: int | None = None
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    capacity: int = 2048
    accumulation: int | None = 4
    samples_per_step: int | None = None
    max_steps: int | None = None
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_targets: str | tuple[str, ...] = "all-linear"
    save_steps: int | None = None
    fsdp: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("epochs", "learning_rate"):
            _check_number(name, getattr(self, name), "a number above 0", lambda x: x > 0)
        for name in ("weight_decay", "max_grad_norm"):
            _check_number(name, getattr(self, name), "a number, 0 or more", lambda x: x >= 0)
        for name in ("warmup_ratio", "lora_dropout"):
            _check_number(name, getattr(self, name), "a number in [0, 1)", lambda x: 0 <= x < 1)
        for name in ("capacity", "lora_rank", "lora_alpha"):
            _check_count(name, getattr(self, name), 1)
        for name in ("accumulation", "samples_per_step", "max_steps", "save_steps"):
            _check_count(name, getattr(self, name), 1, or_none=True)
        _check_count("warmup_steps", self.warmup_steps, 0, or_none=True)
        _check_count("seed", self.seed, 0, most=_MAX_SEED)
        if self.accumulation is None and self.samples_per_step is None:
            raise InputError("accumulation or samples_per_step must be given, got neither")
        if not self.target_names:
            raise InputError(f"lora_targets must name a layer, got {shown(self.lora_targets)}")
        if self.fsdp and self.optimizer == "sgd" and self.save_steps is not None:
            # torch cannot read back a sharded optimizer that holds no tensor.
            raise InputError(
                "fsdp writes checkpoints of optimizer = adamw only: leave out save_steps"
            )
        if self.method == "qlora" and self.fsdp:
            raise InputError("fsdp shards no 4-bit weights: method = qlora needs fsdp = false")

    @property
    def target_names(self) -> tuple[str, ...]:
        """``lora_targets`` one by one."""
        given: Any = self.lora_targets
        names = given.split(",") if isinstance(given, str) else given
        return tuple(name.strip() for name in names if name.strip())


# Settings of the papers' own runs, on full weights in bfloat16. Their batches are of examples, so
# samples_per_step keeps the examples of a step when they are packed.
PRESETS: dict[str, TrainConfig] = {
    # arXiv:2408.02193 (CodeACT), section 4.1
    "codeact": TrainConfig(
        learning_rate=5e-5, lr_scheduler="cosine", warmup_steps=15, epochs=3.0,
        samples_per_step=512, capacity=2048, gradient_checkpointing=True,
    ),
    # arXiv:2407.05040 (Code Less, Align More)
    "code-less": TrainConfig(
        learning_rate=5e-5, lr_scheduler="linear", warmup_steps=15, epochs=2.0,
        samples_per_step=512, capacity=4096, gradient_checkpointing=True,
    ),
    # arXiv:2410.10209 (EffiCoder)
    "efficoder": TrainConfig(
        learning_rate=5e-6, lr_scheduler="cosine", warmup_ratio=0.03, epochs=4.0,
        samples_per_step=128, capacity=2048, gradient_checkpointing=True,
    ),
}  # fmt: skip


def resolve_accumulation(config: TrainConfig, plan: BinPlan) -> int:
    """Bins that a rank adds up for an optimizer step.

    With ``samples_per_step`` it is ``max(1, round(samples_per_step / (e * world_size)))``, where
    ``e = num_packed / num_bins`` is the plan's mean of examples in a bin: a preset's batch of 512
    examples is 512 on average when they are packed. Else it is ``accumulation``.
    """
    if config.samples_per_step is None:
        return config.accumulation or 1
    examples_per_bin = plan.num_packed / max(plan.num_bins, 1)
    per_step = max(examples_per_bin, 1e-9) * plan.world_size
    return max(1, round(config.samples_per_step / per_step))


def num_optimizer_steps(config: TrainConfig, plan: BinPlan) -> int:
    """Optimizer steps of the whole run."""
    per_epoch = plan.num_updates(resolve_accumulation(config, plan))
    return config.max_steps or math.ceil(config.epochs * per_epoch)


def num_warmup_steps(config: TrainConfig, plan: BinPlan) -> int:
    """Optimizer steps in which the learning rate rises to its peak.

    A share is rounded down: transformers rounds it up, and its first warm-up step has a rate of 0,
    so that a run of one step would change nothing.
    """
    if config.warmup_steps is not None:
        return config.warmup_steps
    return int(config.warmup_ratio * num_optimizer_steps(config, plan))


def load_train_config(
    path: str | Path | None = None,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The options of a run: a preset's, those of a YAML file on top, and ``overrides`` over all.

    A file that gives ``accumulation`` takes back a preset's ``samples_per_step``, and
    ``warmup_ratio`` its ``warmup_steps``; overrides do so to both.

    Args:
        path: YAML with the keys of :class:`TrainConfig`, and ``preset``.
        preset: one of :data:`PRESETS`; it replaces the file's own.
        overrides: such as ``{"epochs": 2.0}``.

    Raises:
        InputError: the file is missing or no YAML, or a key or value is not one that is known; the
            text names the file, the key and the rule, and the nearest key.
    """
    values = {} if path is None else read_mapping(Path(path), "config")
    source = "" if path is None else f"{Path(path).name}: "
    named = values.pop("preset", None)
    name = named if preset is None else preset
    if name is not None and name not in [*PRESETS]:  # a list, since the file may hold anything
        # Said of the file only where the file says it.
        where = source if preset is None else ""
        raise InputError(f"{where}preset must be one of {', '.join(PRESETS)}, got {shown(name)}")
    # Not hashable as asdict's output, hence by name.
    start = {} if name is None else asdict(PRESETS[name])
    try:
        merged = _merged(start, values)
        config = TrainConfig(**merged)
    except InputError as error:
        raise InputError(f"{source}{error}") from None
    return TrainConfig(**_merged(merged, overrides)) if overrides else config


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of both, checked for unknown keys; of a pair that means one thing, the upper."""
    known = [field.name for field in fields(TrainConfig)]
    for key in above:
        if key not in known:
            raise InputError(f"{key} is not a known key{suggestion(key, [*known, 'preset'])}")
    merged = dict(below)
    for key, other in _REPLACES.items():
        if above.get(key) is not None and above.get(other) is not None:
            raise InputError(f"{key} and {other} say the same in two ways: give one of them")
        if above.get(key) is not None:
            merged[other] = None
    merged |= above
    if isinstance(merged.get("lora_targets"), list):  # as YAML has it
        merged["lora_targets"] = tuple(merged["lora_targets"])
    return merged
