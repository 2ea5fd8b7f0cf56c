"""One config for every run: presets, files, flags, and what each refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.packing import plan_bins
from codeact.training import (
    PRESETS,
    TrainConfig,
    load_train_config,
    num_optimizer_steps,
    resolve_accumulation,
)
from codeact.training.config import num_warmup_steps


def test_presets_are_the_papers_settings() -> None:
    """arXiv:2408.02193 4.1, arXiv:2407.05040, arXiv:2410.10209: rate, schedule, warm-up, ..."""
    found = {
        name: (c.method, c.learning_rate, c.lr_scheduler, c.warmup_steps, c.warmup_ratio,
               c.epochs, c.samples_per_step, c.capacity)
        for name, c in PRESETS.items()
    }  # fmt: skip
    assert found == {
        "codeact": ("full", 5e-5, "cosine", 15, 0.03, 3.0, 512, 2048),
        "code-less": ("full", 5e-5, "linear", 15, 0.03, 2.0, 512, 4096),
        "efficoder": ("full", 5e-6, "cosine", None, 0.03, 4.0, 128, 2048),
    }


@pytest.mark.parametrize("world_size", [1, 3])
def test_samples_per_step_holds_on_average(world_size: int) -> None:
    seqlens = np.random.default_rng(0).integers(50, 700, size=3000)
    plan = plan_bins(seqlens, 2048, world_size=world_size)
    config = TrainConfig(samples_per_step=128, epochs=2.0)
    accumulation = resolve_accumulation(config, plan)
    per_step = accumulation * world_size * 3000 / plan.num_bins
    assert per_step == pytest.approx(128, rel=0.1)
    steps_of_epoch = -(-plan.num_bins // (accumulation * world_size))
    assert num_optimizer_steps(config, plan) == 2 * steps_of_epoch
    few = TrainConfig(samples_per_step=1)
    assert resolve_accumulation(few, plan) == 1
    assert resolve_accumulation(TrainConfig(accumulation=7), plan) == 7


def test_warm_up_is_rounded_down() -> None:
    plan = plan_bins(np.full(60, 100), 100)
    config = TrainConfig(epochs=1, accumulation=2, warmup_ratio=0.06)  # 30 steps
    assert num_warmup_steps(config, plan) == 1
    assert num_warmup_steps(TrainConfig(warmup_ratio=0.5, warmup_steps=3), plan) == 3
    assert num_warmup_steps(TrainConfig(max_steps=5, warmup_ratio=0.5), plan) == 2


def test_file_over_preset_and_flags_over_both(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "preset: codeact\nlearning_rate: 1e-4\naccumulation: 2\nlora_targets: [q_proj, v_proj]\n"
    )
    config = load_train_config(path, overrides={"epochs": 1.0, "warmup_ratio": 0.1})
    assert (config.learning_rate, config.lr_scheduler) == (1e-4, "cosine")
    # The other way to say it, which the preset uses, is taken back.
    assert (config.accumulation, config.samples_per_step) == (2, None)
    assert (config.epochs, config.warmup_ratio, config.warmup_steps) == (1.0, 0.1, None)
    assert config.target_names == ("q_proj", "v_proj")
    other = load_train_config(path, preset="efficoder")
    assert (other.epochs, other.learning_rate) == (4.0, 1e-4)
    assert load_train_config() == TrainConfig()
    assert load_train_config(preset="codeact") == PRESETS["codeact"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "learning_rat: 1",
            r"train.yaml: learning_rat is not a known key; did you mean learning_r",
        ),
        ("presett: codeact", r"train.yaml: presett is not a known key; did you mean preset\?"),
        ("preset: papers", "train.yaml: preset must be one of codeact, .*got 'papers'"),
        ("preset: [codeact]", r"preset must be one of codeact, .*got \['codeact'\]"),
        (f"epochs: 1{'0' * 400}", "epochs must be a number above 0, got 10000"),
        ("epochs: '2'", "train.yaml: epochs must be a number above 0, got '2'"),
        ("learning_rate: .nan", "learning_rate must be a number above 0, got nan"),
        ("seed: -1", "seed must be a whole number, between 0 and 4294967295, got -1"),
        ("accumulation: true", "accumulation must be a whole number, 1 or more, got True"),
        ("accumulation: null", "accumulation or samples_per_step must be given"),
        ("accumulation: 2\nsamples_per_step: 3", "say the same in two ways"),
        ("warmup_ratio: 1", r"warmup_ratio must be a number in \[0, 1\), got 1"),
        ("method: dora", "method must be one of full, lora, qlora, got 'dora'"),
        ("compile: 1", "compile must be true or false, got 1"),
        ("lora_targets: ' , '", "lora_targets must name a layer"),
        ("lora_targets: [1]", "lora_targets must be names of layers"),
        ("method: qlora\nfsdp: true", "fsdp shards no 4-bit weights"),
        ("epochs: 1\nepochs: 2", "the key epochs comes twice"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load_train_config(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epoch": 1}, "epoch is not a known key; did you mean epochs"),
        ({"learning_rate": "1"}, "learning_rate must be a number above 0, got '1'"),
        ({"fsdp": True, "optimizer": "sgd", "save_steps": 1}, "optimizer = adamw only"),
    ],
)
def test_flags_are_checked(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_train_config(overrides=overrides)
