"""Errors of full memory are known by what allocators write, and say what is not on yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeact.data import load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import load_model
from codeact.packing import plan_bins
from codeact.training import TrainConfig, fine_tune, loss
from codeact.training.out_of_memory import is_out_of_memory, memory_advice, remedies

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total")
PLAN = plan_bins([10, 60, 30, 20], 100)


def cpu_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    return caught.value


def test_what_the_cpu_allocator_raises_is_known() -> None:
    error = cpu_error()
    assert is_out_of_memory(error)
    asked = f"it asked for {2**58 / 2**30:.2f} GiB"
    assert asked in str(memory_advice(TrainConfig(), PLAN, error))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CUDA, True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=["cuda", "python", "cpu", "driver", "triton", "cublas", "other", "value", "interrupt"],
)
def test_which_errors_they_are(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_advice_names_what_was_asked_and_for_what() -> None:
    advice = memory_advice(TrainConfig(), PLAN, CUDA)
    assert isinstance(advice, InputError)
    heaviest = max(([10, 60, 30], [60, 30, 10], [20, 60]), key=sum)
    assert str(advice).startswith(
        f"training ran out of memory (it asked for 2.50 GiB); its heaviest bin holds "
        f"{sum(heaviest)} tokens (3 sequences, the longest of 60). What helps, most first: "
        "gradient_checkpointing = true; capacity = 60 (the longest example) instead of 100; "
    )
    assert "\n" not in str(advice)


@pytest.mark.parametrize(
    ("options", "on_gpu", "expected"),
    [
        ({}, True, ["gradient", "capacity", "method = lora", "method = qlora", "fsdp"]),
        ({"gradient_checkpointing": True}, False,
         ["capacity", "precision", "method = lora", "method = qlora", "fsdp"]),
        ({"precision": "float32", "gradient_checkpointing": True}, True,
         ["capacity", "precision", "method = lora", "method = qlora", "fsdp"]),
        ({"method": "lora", "gradient_checkpointing": True}, True,
         ["capacity", "method = qlora", "fsdp"]),
        ({"method": "qlora", "gradient_checkpointing": True}, True, ["capacity"]),
        ({"fsdp": True, "gradient_checkpointing": True, "precision": "bfloat16"}, False,
         ["capacity", "method = lora"]),
    ],
)  # fmt: skip
def test_only_what_is_not_on(options: dict[str, Any], on_gpu: bool, expected: list[str]) -> None:
    found = remedies(TrainConfig(**options), PLAN, on_gpu=on_gpu)
    assert len(found) == len(expected)
    assert all(text.startswith(word) for text, word in zip(found, expected, strict=True)), found


def test_nothing_left_to_change() -> None:
    config = TrainConfig(method="qlora", gradient_checkpointing=True, precision="bfloat16")
    tight = plan_bins([100, 60, 30], 100)
    assert remedies(config, tight, on_gpu=True) == []
    assert "a larger device or a smaller model" in str(memory_advice(config, tight, CUDA))


def test_a_training_ends_with_the_advice(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(tiny_model_folder, device="cpu")
    rows = [{"instruction": "add", "output": "x" * int(n)} for n in np.arange(5, 30)]
    examples = tokenize_examples(load_examples(rows), loaded.tokenizer, max_length=200)

    def exhausted(*_: Any, **__: Any) -> None:
        raise cpu_error()

    monkeypatch.setattr(loss, "fused_loss", exhausted)
    # The isolation check before training passes through another function.
    with pytest.raises(InputError, match=r"^training ran out of memory .+fsdp = true over"):
        fine_tune(
            loaded.model, examples, plan_bins(examples.seqlens, 400), TrainConfig(epochs=1.0),
            folder=tmp_path,
        )  # fmt: skip
