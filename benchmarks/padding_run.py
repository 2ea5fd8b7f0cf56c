"""Forward and backward passes over the steps of each way, timed in turn."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from padding import Step
from rivals import missing
from torch import Tensor

from codeact.models import PeakMemory
from codeact.models.attention.packed import ATTN_IMPLEMENTATION, register_attention
from codeact.packing import PackedCollator
from codeact.training.loss import packed_loss

Batch = dict[str, Any]
IGNORED = -100


class Tokens(Protocol):
    """A flat store: sequence k is ``[offsets[k], offsets[k + 1])`` of the two flat arrays."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    offsets: NDArray[np.int64]


def example_of(store: Tokens, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and labels of an example."""
    span = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
    return store.input_ids[span], store.labels[span]


def padded_batch(store: Tokens, step: Step) -> Batch:
    """Rows of one or several examples, padded on the right, with a mask over the padding.

    Several examples in a row see each other, as in the authors' code: there is nothing in the
    batch that keeps them apart.
    """
    shape = (len(step.rows), step.width)
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for line, row in enumerate(step.rows):
        end = 0
        for index in row.tolist():
            own_ids, own_labels = example_of(store, index)
            begin, end = end, end + len(own_ids)
            ids[line, begin:end] = torch.from_numpy(own_ids)
            labels[line, begin:end] = torch.from_numpy(own_labels)
        mask[line, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}


def trl_batch(store: Tokens, step: Step) -> Batch:
    """A row of TRL's packing through TRL's collator."""
    module = importlib.import_module("trl.trainer.sft_trainer")
    collator = module.DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    parts = [example_of(store, index) for index in step.rows[0].tolist()]
    feature = {
        "input_ids": np.concatenate([ids for ids, _ in parts]).tolist(),
        "labels": np.concatenate([labels for _, labels in parts]).tolist(),
        "seq_lengths": [len(ids) for ids, _ in parts],
    }
    return {**collator([feature]), "use_cache": False}


def our_batch(store: Tokens, step: Step) -> Batch:
    """A bin through :class:`PackedCollator`."""
    parts = [example_of(store, index) for index in step.rows[0].tolist()]
    return PackedCollator()([{"input_ids": ids, "labels": labels} for ids, labels in parts])


def stock_loss(model: Any, batch: Batch) -> Tensor:
    """What ``Trainer`` computes: the output projection at every position."""
    loss: Tensor = model(**batch).loss
    return loss


def trl_loss(model: Any, batch: Batch) -> Tensor:
    """What ``SFTTrainer`` computes: the projection at scored positions, in tiles, where it can."""
    if not hasattr(model, "fused_by_trl"):
        utils = importlib.import_module("trl.trainer.utils")
        model.fused_by_trl = hasattr(utils, "add_fused_lm_head")  # from TRL 1.16 on
        if model.fused_by_trl:
            utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if not model.fused_by_trl:
        return stock_loss(model, batch)
    outputs = model(**batch, fused_lm_head=True)
    loss: Tensor = -outputs.log_probs.sum() / outputs.label_mask.sum().clamp(min=1)
    return loss


def our_loss(model: Any, batch: Batch) -> Tensor:
    """What ``PackedTrainerMixin`` computes: the projection at scored positions."""
    return packed_loss(model, batch, (batch["labels"] != IGNORED).sum())


def projected_loss(model: Any, batch: Batch) -> Tensor:
    """The projection at scored positions, for batches of several rows (``--same-loss``)."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden = model.base_model(**inputs).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORED
    logits = model.get_output_embeddings()(hidden[scored])
    return torch.nn.functional.cross_entropy(logits.float(), targets[scored])


@dataclass(frozen=True)
class Runner:
    """How the steps of a way become a loss."""

    batch: Callable[[Tokens, Step], Batch]
    loss: Callable[[Any, Batch], Tensor]
    attention: str


def runners(
    device: torch.device, *, same_loss: bool, trl_attention: str | None = None
) -> dict[str, Runner]:
    """Each way as its users run it; TRL's only where it is installed.

    Padded batches take flash-attn where it is installed and PyTorch's own attention elsewhere.
    TRL asks for flash-attn; without it a GPU gives TRL the kernel that ours uses, so that the
    comparison is one of batches, and a CPU PyTorch's attention with a dense mask.
    """
    on_gpu = device.type == "cuda"
    flash = "flash_attention_2" if on_gpu and not missing("flash_attn") else None
    padded = Runner(padded_batch, projected_loss if same_loss else stock_loss, flash or "sdpa")
    chosen = trl_attention or flash or (ATTN_IMPLEMENTATION if on_gpu else "sdpa")
    ways = {
        "pad to max": padded,
        "pad to longest": padded,
        "authors' packing": padded,
        "TRL packing": Runner(trl_batch, projected_loss if same_loss else trl_loss, chosen),
        "Dynamic Pack": Runner(
            our_batch, projected_loss if same_loss else our_loss, ATTN_IMPLEMENTATION
        ),
    }
    if missing("trl", "datasets"):
        print("trl is not installed: its packing is skipped")
        del ways["TRL packing"]
    register_attention()
    return ways


@dataclass
class Taken:
    """What the steps of a way took."""

    num_tokens: int = 0
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens through forward and backward, per second of wall time."""
        return self.num_tokens / sum(self.wall_seconds)


def median_of_rounds(rounds: list[dict[str, Taken]]) -> dict[str, Taken]:
    """Of each step the median time over the rounds."""

    def middle(name: str, clock: str) -> list[float]:
        steps = zip(*(getattr(taken[name], clock) for taken in rounds), strict=True)
        return [statistics.median(times) for times in steps]

    return {
        name: Taken(taken.num_tokens, middle(name, "wall_seconds"), middle(name, "cpu_seconds"))
        for name, taken in rounds[0].items()
    }


def train_step(model: Any, runner: Runner, batch: Batch, optimizer: Any) -> None:
    """Forward, backward, and the optimizer's step where there is one."""
    device = model.device
    on_device = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    runner.loss(model, on_device).backward()
    if optimizer is not None:
        optimizer.step()
    model.zero_grad(set_to_none=True)


def set_attention(model: Any, runner: Runner) -> None:
    """Give the model the attention that this way takes; outside the clock."""
    if model.config._attn_implementation != runner.attention:
        model.set_attn_implementation(runner.attention)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_mib(model: Any, runner: Runner, batch: Batch, optimizer: Any = None) -> float | None:
    """Peak memory of a step in MiB, everything included; None where it does not fit."""
    set_attention(model, runner)
    try:
        with PeakMemory() as memory:
            train_step(model, runner, batch, optimizer)
            synchronise(model.device)
    except torch.cuda.OutOfMemoryError:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return None
    return memory.mib


def time_in_turn(
    model: Any,
    ways: Mapping[str, Runner],
    steps: Mapping[str, list[Step]],
    store: Tokens,
    optimizer: Any = None,
) -> dict[str, Taken]:
    """Run all steps of all ways once; the next is always of the way that is furthest behind.

    So every way has done about the same share of its work at any time, and a slow minute of the
    machine falls on all. Batches are made before the clock starts: a loader makes them meanwhile.
    """
    batches = {name: [ways[name].batch(store, step) for step in steps[name]] for name in ways}
    taken = {name: Taken() for name in ways}
    done = dict.fromkeys(ways, 0)
    while unfinished := [name for name in ways if done[name] < len(batches[name])]:
        name = min(unfinished, key=lambda name: (done[name] + 0.5) / len(batches[name]))
        set_attention(model, ways[name])
        synchronise(model.device)
        wall, cpu = time.perf_counter(), time.process_time()
        train_step(model, ways[name], batches[name][done[name]], optimizer)
        synchronise(model.device)
        taken[name].wall_seconds.append(time.perf_counter() - wall)
        taken[name].cpu_seconds.append(time.process_time() - cpu)
        taken[name].num_tokens += steps[name][done[name]].num_tokens
        done[name] += 1
    return taken
