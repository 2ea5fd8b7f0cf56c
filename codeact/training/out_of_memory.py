"""What to change when a training does not fit the memory of its device."""

from __future__ import annotations

import re

import torch

from codeact.errors import InputError
from codeact.packing import BinPlan
from codeact.training.config import TrainConfig

# What comes as a bare RuntimeError: PyTorch's CPU allocator and its callers; a GPU's driver, Triton
# and cuBLAS where they allocate beside PyTorch's allocator.
_WORDS = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|not enough memory"
    r"|(CUDA error|\[CUDA\]): out of memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.I,
)
# CUDA: "Tried to allocate 2.00 GiB."; CPU: "you tried to allocate 1073741824 bytes."
_ASKED = re.compile(r"tried to allocate (?P<number>[\d.]+) (?P<unit>[KMGT]iB|bytes)", re.I)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the GPU or the process had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def memory_advice(config: TrainConfig, plan: BinPlan, error: BaseException) -> InputError:
    """An error that ran out of memory as one line: what was asked, for what, and what helps.

    Args:
        config: of the run; what it has already is not advised.
        plan: of the bins.
        error: for which :func:`is_out_of_memory` holds.

    Returns:
        To be raised ``from error``.
    """
    bins = plan.epoch(0)
    heaviest = int(bins.num_tokens.argmax())
    seqlens = bins.seqlens[bins[heaviest]]
    helps = remedies(config, plan) or ["a larger device or a smaller model"]
    return InputError(
        f"training ran out of memory{_asked(error)}; its heaviest bin holds {seqlens.sum()} tokens "
        f"({len(seqlens)} sequences, the longest of {seqlens.max()}). What helps, most first: "
        + "; ".join(helps)
    )


def remedies(config: TrainConfig, plan: BinPlan, *, on_gpu: bool | None = None) -> list[str]:
    """What would take less memory and is not on yet, in the order of what it usually saves.

    Args:
        config: of the run.
        plan: of the bins.
        on_gpu: where ``precision = auto`` is bfloat16; None is whether there is a GPU.
    """
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    longest = int(plan.packing.seqlens.max())
    computes_in_float32 = config.precision == "float32" or (
        config.precision == "auto" and not on_gpu
    )
    found = []
    if not config.gradient_checkpointing:
        found.append("gradient_checkpointing = true")
    if plan.capacity > longest:
        found.append(f"capacity = {longest} (the longest example) instead of {plan.capacity}")
    if computes_in_float32:
        found.append("precision = bfloat16")
    if config.method == "full":
        found.append("method = lora")
    if config.method != "qlora" and not config.fsdp:
        found.append("method = qlora")
    if not config.fsdp and config.method != "qlora":
        found.append("fsdp = true over several devices")
    return found


def _asked(error: BaseException) -> str:
    """How much was asked for, where the allocator says so."""
    match = _ASKED.search(str(error))
    if match is None:
        return ""
    if match["unit"] == "bytes":
        return f" (it asked for {float(match['number']) / 2**30:.2f} GiB)"
    return f" (it asked for {match['number']} {match['unit']})"
