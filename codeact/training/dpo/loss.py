"""Direct preference optimization of packed pairs, without logits."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from codeact.models import NotFusableError, ScoredRows, fused_loss
from codeact.ops.segments import segment_sums
from codeact.training.dpo.pairs import PAIR_KEYS
from codeact.training.loss import num_ranks

logger = logging.getLogger(__name__)

# Models whose loss cannot be fused; found out once, since it may take a forward pass.
_UNFUSED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class PairLosses(NamedTuple):
    """What a batch of pairs gives, float64, in nats.

    Attributes:
        losses: (num_pairs,), differentiable.
        log_probs: (num_pairs, 2), of the chosen and of the rejected answer.
        rewards: (num_pairs, 2), ``beta * (log_probs - reference)``.
    """

    losses: Tensor
    log_probs: Tensor
    rewards: Tensor


def dpo_losses(
    log_probs: Tensor,
    reference: Tensor,
    *,
    beta: float,
    num_scored: Tensor | None = None,
) -> PairLosses:
    """The loss of each pair (Rafailov et al., arXiv:2305.18290, equation 7).

    With the log-ratios ``r = log_probs - reference`` of the chosen answer c and the rejected one j
    it is ``-log sigmoid(beta * (r_c - r_j))``.

    Args:
        log_probs: (num_pairs, 2) sums of log-probabilities over the answer's tokens.
        reference: the same under the reference model.
        beta: how much a log-ratio counts; the larger, the nearer the policy stays.
        num_scored: (num_pairs, 2) tokens of the answers; given, each log-ratio is divided by its
            own (TRL's ``sigmoid_norm``). Rewards are not.
    """
    ratios = log_probs - reference
    scaled = ratios if num_scored is None else ratios / num_scored
    losses = -F.logsigmoid(beta * (scaled[:, 0] - scaled[:, 1]))
    return PairLosses(losses, log_probs.detach(), (beta * ratios).detach())


def pair_losses(
    model: nn.Module, batch: Mapping[str, Any], *, beta: float, length_normalised: bool = False
) -> PairLosses:
    """:func:`dpo_losses` of a batch of :class:`PairCollator`, which is on the model's device."""
    offsets, reference = batch["row_offsets"], batch["reference"]
    sums = segment_sums(scored_nlls(model, batch), offsets)
    num_scored = offsets.diff().view(-1, 2) if length_normalised else None
    return dpo_losses(-sums.view(-1, 2), reference, beta=beta, num_scored=num_scored)


def scored_nlls(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """(num_rows,) losses of the scored tokens in nats, differentiable, at least float32.

    The output projection is applied to the scored positions only, and its logits are never formed
    (:func:`codeact.models.fuse_loss`). Where that cannot be, the logits of the scored positions
    are, and the log says why.
    """
    inputs = {key: value for key, value in batch.items() if key not in (*PAIR_KEYS, "labels")}
    inputs["use_cache"] = False
    scored = ScoredRows(batch["scored_rows"], batch["targets"], None, unreduced=True)
    if model in _UNFUSED:
        return _from_logits(model, inputs, scored)
    try:
        with fused_loss(model):
            nlls: Tensor = model(**inputs, labels=scored).loss
    except NotFusableError as reason:
        logger.warning("training on pairs forms the logits of scored positions: %s", reason)
        _UNFUSED.add(model)
        return _from_logits(model, inputs, scored)
    return nlls


def total_pairs(
    batches: Sequence[Mapping[str, Any]], *, device: torch.device | str | None = None
) -> Tensor:
    """Pairs of an optimizer step over all its micro-batches and all ranks, () float32.

    Where ``torch.distributed`` runs, every rank must call it once a step.
    """
    total = torch.tensor(float(sum(len(batch["reference"]) for batch in batches)), device=device)
    if num_ranks() > 1:
        dist.all_reduce(total)
    return total


def _from_logits(model: nn.Module, inputs: dict[str, Any], scored: ScoredRows) -> Tensor:
    # transformers applies the output projection to exactly these positions.
    logits = model(**inputs, logits_to_keep=scored.rows).logits[0]
    if len(logits) != len(scored.rows):  # the model has no logits_to_keep
        logits = logits[scored.rows]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, scored.targets, reduction="none")
