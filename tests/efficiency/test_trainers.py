"""The files as trainers read them: datasets, TRL's SFT and DPO, and our own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_measurements import Made, MadeTask, candidates_of, make, reference, tasks_of

from codeact.data import load_examples
from codeact.efficiency.instruct.build import build_effi_instruct

TASKS = [
    MadeTask("0", [reference(0.02), Made("a", [0.010]), Made("b", [0.040])], prompt_code="def f"),
    # No reference, an answer in words, another language: columns must still have one type each.
    MadeTask(
        "1",
        [
            Made("c", [0.010], response="So:\n```python\ndef f(x):\n    return x  # c\n```\nDone."),
            Made("d", [0.030]),
        ],
        has_reference=False,
    ),
    MadeTask("2", [Made("e", [0.01], language="cpp"), Made("g", [0.05], language="cpp")]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_effi_instruct(
        make(TASKS), tasks_of(TASKS), candidates_of(TASKS), confirm=False, output=folder
    )
    return folder


def read(path: Path) -> Any:
    from datasets import load_dataset

    cache = str(path.parent / "cache")
    return load_dataset("json", data_files=str(path), split="train", cache_dir=cache)


def options(folder: Path, name: str) -> dict[str, Any]:
    return {
        "output_dir": str(folder / name),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
    }


def train(trainer: Any) -> tuple[float, bool]:
    """Loss of one step, and whether it moved every matrix that a loss reaches."""
    model = trainer.model
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    loss = trainer.train().training_loss
    moved = [bool((weight != before[name]).any()) for name, weight in model.named_parameters()]
    return loss, all(moved)


@pytest.mark.parametrize("name", ["effi_instruct.jsonl", "effi_instruct_unoptimised.jsonl"])
def test_sft_trainer_takes_a_step(folder: Path, tiny_model_folder: Path, name: str):
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(**options(folder, "sft"), max_length=256)
    trainer = SFTTrainer(str(tiny_model_folder), config, train_dataset=read(folder / name))
    loss, moved = train(trainer)
    assert 0 < loss < 20
    assert moved
    # The answer is among the tokens trained on, whole, with its fence.
    texts = [trainer.processing_class.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert len(texts) == 3
    assert all("<|im_start|>assistant\n" in text and "```" in text for text in texts)


def test_dpo_trainer_takes_a_step(folder: Path, tiny_model_folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(**options(folder, "dpo"), max_length=256)
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model_folder),
        args=config,
        train_dataset=read(folder / "effi_pairs.jsonl"),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_folder),
    )
    loss, moved = train(trainer)
    # Before the first update policy and reference agree: -log sigmoid(0).
    assert loss == pytest.approx(0.6931, abs=1e-3)
    assert moved


def test_our_loader_reads_the_turns(folder: Path):
    examples = load_examples(folder / "effi_instruct.jsonl")
    assert [example.id for example in examples] == ["0", "1", "2"]
    assert examples[0].messages[0].content == "Return x.\n\n```python\ndef f\n```"
    assert examples[1].messages[1].content == (
        "So:\n```python\ndef f(x):\n    return x  # c\n```\nDone."
    )
    assert examples[2].messages[1].content.startswith("```cpp\n")


def test_every_file_has_one_type_a_column(folder: Path):
    for name, num_rows in (
        ("effi_instruct.jsonl", 3),
        ("effi_instruct_unoptimised.jsonl", 3),
        ("effi_pairs.jsonl", 3),
        ("choices.jsonl", 3),
    ):
        rows = read(folder / name)
        assert len(rows) == num_rows, name
    pairs = read(folder / "effi_pairs.jsonl")
    assert {"prompt", "chosen", "rejected"} <= set(pairs.column_names)
    assert pairs[0]["chosen"][0]["role"] == "assistant"
