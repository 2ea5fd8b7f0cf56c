"""The page's trainers of pairs: ours and TRL's, on our attention, take the same steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reference import parameters_of, tiny
from snippets import snippet
from transformers import TrainingArguments

from codeact.efficiency.instruct.effi_instruct import EffiInstruct
from codeact.models import load_tokenizer

pytest.importorskip("trl")


def rows() -> list[dict[str, Any]]:
    """Pairs with the columns that ``codeact measure`` writes, of very different lengths."""
    texts = [("Add n.", "sum(n)", "s = 0"), ("Sort the numbers.", "sorted(x)", "x " * 30)]
    return [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "task_id": prompt, "language": "python", "gap": 2.0, "confirmed": True,
        }
        for prompt, chosen, rejected in texts
    ]  # fmt: skip


def run(trainer: Any) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_the_page(tiny_model_folder: Path, tmp_path: Path) -> None:
    page, tokenizer = snippet("DPO on pairs"), load_tokenizer(tiny_model_folder)
    options: dict[str, Any] = {
        "output_dir": str(tmp_path), "max_steps": 3, "learning_rate": 5e-4, "optim": "sgd",
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "use_cpu": True, "bf16": False,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    theirs = tiny(tiny_model_folder)
    expected = run(page.make_trl_dpo_trainer(theirs, tokenizer, rows(), **options))
    # The file as EffiInstruct.write leaves it.
    EffiInstruct((), (), tuple(rows()), (), (), {}).write(tmp_path / "built")
    model = tiny(tiny_model_folder)
    trainer = page.make_dpo_trainer(
        model,
        tokenizer,
        tmp_path / "built" / "effi_pairs.jsonl",
        TrainingArguments(**options),
        capacity=512,
    )
    assert run(trainer) == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < 0.6  # it has learnt to prefer
    for ours, weight in zip(parameters_of(model), parameters_of(theirs), strict=True):
        assert (ours - weight).abs().max() <= 1e-5 * weight.abs().max()
