"""One loss for every way of training on packs: sum(weight * nll) / sum(weight) of a step."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from codeact.models import NotFusableError, ScoredRows, fused_loss
from codeact.models.fused.forward import per_item
from codeact.ops.varlen import IGNORE_INDEX

logger = logging.getLogger(__name__)

# Models whose loss cannot be fused; found out once, since it may take a forward pass.
_UNFUSED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def total_weight(
    batches: Sequence[Mapping[str, Any]], *, device: torch.device | str | None = None
) -> Tensor:
    """The denominator of an optimizer step's loss, the same number on every rank.

    It is the sum of ``loss_weights`` over all micro-batches of the step and all ranks, or the
    number of their scored labels where the batches carry no weights. Where ``torch.distributed``
    runs, every rank must call it once a step.

    Args:
        batches: this rank's micro-batches of the step, as :class:`PackedCollator` makes them.
        device: where the result lies and the ranks add up (NCCL needs a GPU); None is where the
            labels are.

    Returns:
        () float32.

    Raises:
        ValueError: no batch, or some with weights and some without.
    """
    if not batches:
        raise ValueError("total_weight needs at least one batch, got none")
    if len({"loss_weights" in batch for batch in batches}) > 1:
        raise ValueError("total_weight needs loss_weights in all batches or in none")
    # float64, because a sum of a million float32 weights may round in the seventh digit.
    total = torch.stack([_weight_of(batch) for batch in batches]).sum().to(torch.float32)
    if device is not None:
        total = total.to(device)
    if num_ranks() > 1:
        dist.all_reduce(total)
    return total


def packed_loss(model: nn.Module, batch: Mapping[str, Any], total_weight: Tensor | float) -> Tensor:
    """This batch's share of an optimizer step's loss, in nats.

    With the weight w of a token (1 without ``loss_weights``) the loss of a step is
    ``sum(w * nll) / sum(w)`` over all its scored tokens, whatever packs, accumulation steps and
    ranks they are spread over: ``total_weight`` is that denominator, and the shares are added by
    accumulating gradients. The share is multiplied by the number of ranks, because
    ``DistributedDataParallel`` and FSDP average gradients where the formula wants their sum; the
    mean over ranks of the summed shares is the loss. Data parallelism only: ranks that see the
    same batch (tensor or context parallelism) would count it twice.

    The output projection is applied to the scored positions only, and its logits are never formed
    (:func:`codeact.models.fuse_loss`). Where that cannot be, as with an adapter on the projection,
    the logits of the scored positions are, and the log says why.

    Args:
        model: a transformers causal language model, wrapped or not.
        batch: of one row, as :class:`PackedCollator` makes it, on the model's device. Labels may
            stay on the CPU: finding the scored ones then does not wait for the device.
            ``use_cache`` is False whatever it says.
        total_weight: of the whole step, see :func:`total_weight`. 0 gives a loss of 0.

    Returns:
        () of the logits' dtype, but at least float32.

    Raises:
        ValueError: the batch has several rows, or an ``attention_mask`` of padding.
    """
    return packed_loss_and_outputs(model, batch, total_weight)[0]


def packed_loss_and_outputs(
    model: nn.Module, batch: Mapping[str, Any], total_weight: Tensor | float
) -> tuple[Tensor, Any]:
    """:func:`packed_loss`, and the model's output, which has no logits."""
    inputs = dict(batch)
    labels: Tensor = inputs.pop("labels")
    weights: Tensor | None = inputs.pop("loss_weights", None)
    if labels.ndim != 2 or len(labels) != 1:
        raise ValueError(f"packed_loss takes labels (1, num_tokens), got {tuple(labels.shape)}")
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        raise ValueError(
            "packed_loss takes no attention_mask of padding, got one of shape "
            f"{tuple(mask.shape)}: transformers would let packed sequences see each other"
        )
    inputs["use_cache"] = False  # with a cache they see each other as well, in eager and sdpa
    rows = scored_rows(labels)
    if weights is not None:
        weights = weights[0][(rows + 1).to(weights.device)]
    scored = ScoredRows(rows, labels[0][rows + 1], weights)
    if model in _UNFUSED:
        return _loss_from_logits(model, inputs, scored, total_weight)
    try:
        with fused_loss(model):
            outputs = model(**inputs, labels=scored, num_items_in_batch=total_weight)
    except NotFusableError as reason:
        logger.warning("packed training forms the logits of scored positions: %s", reason)
        _UNFUSED.add(model)
        return _loss_from_logits(model, inputs, scored, total_weight)
    loss = outputs.loss * num_ranks()
    return loss, outputs


def _loss_from_logits(
    model: nn.Module, inputs: dict[str, Any], scored: ScoredRows, total_weight: Tensor | float
) -> tuple[Tensor, Any]:
    """The same share from the logits of the scored rows."""
    device = inputs["input_ids"].device
    rows = scored.rows.to(device, non_blocking=True)
    # transformers applies the output projection to exactly these positions.
    outputs = model(**inputs, logits_to_keep=rows)
    logits = outputs.logits[0]
    if len(logits) != len(rows):  # the model has no logits_to_keep
        logits = logits[rows]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = scored.targets.to(device, non_blocking=True)
    nll = F.cross_entropy(logits, targets, reduction="none")
    if scored.weights is not None:
        nll = nll * scored.weights.to(device)
    # An evaluation gathers whatever the outputs hold.
    kept = {name: value for name, value in outputs.items() if name != "logits"}
    return per_item(nll.sum(), total_weight) * num_ranks(), type(outputs)(**kept)


def scored_rows(labels: Tensor) -> Tensor:
    """(num_rows,) int64 positions of (1, num_tokens) ``labels`` whose next token is scored."""
    return (labels[0, 1:] != IGNORE_INDEX).nonzero()[:, 0]


def num_ranks() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _weight_of(batch: Mapping[str, Any]) -> Tensor:
    weights: Tensor = (
        batch["loss_weights"]
        if "loss_weights" in batch
        # The first label is the target of no position, whatever a collator left there.
        else batch["labels"][:, 1:] != IGNORE_INDEX
    )
    return weights.sum(dtype=torch.float64)
