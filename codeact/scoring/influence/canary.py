"""Is the derivative that the scores will be made of right? Asked of two sequences at the start.

A tangent can be lost without a word: under ``torch.compile``, through an operator without a
forward-mode rule, or in a module whose weights are used in a way that hooks do not see. Two
sequences of the validation set are a strong signal, since the direction comes from their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.models import (
    ATTN_IMPLEMENTATION,
    Direction,
    ScoredSequence,
    hidden_states,
    moved,
    output_head,
)
from codeact.ops.segments import segment_sums
from codeact.ops.varlen import pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 0.05
"""Relative to the largest of the derivatives looked at: bfloat16 comes to 0.02."""

# Lengths of a step, relative to that of the weights, to which directions are scaled. Float32 rounds
# the small ones away and curvature bends the large ones; where two neighbours agree neither counts.
_STEPS = (3e-5, 1e-5, 3e-6, 1e-6)


class Canary(NamedTuple):
    """Derivatives of the summed losses of a few sequences along one direction.

    Attributes:
        found: as the scores are made.
        expected: by another way.
        error: largest difference, relative to the largest expected one.
        step: length of the step of the finite differences, relative to the weights.
    """

    found: NDArray[np.float64]
    expected: NDArray[np.float64]
    error: float
    step: float


class Differences(NamedTuple):
    """Central finite differences of the summed losses, in float32, and the step they settled at."""

    values: NDArray[np.float64]
    step: float
    spread: float


def central_differences(
    model: PreTrainedModel, direction: Direction, sequences: Sequence[ScoredSequence]
) -> Differences:
    """The derivative of each summed loss, at the step where two neighbours agree best.

    The weights are cast to float32 for it, and copied once at a time.

    Args:
        model: any dtype.
        direction: as long as the weights.
        sequences: few and short: there are eight passes.
    """
    found = []
    for step in _STEPS:
        ahead, behind = (
            _summed_losses(model, direction, sign * step, sequences) for sign in (1.0, -1.0)
        )
        found.append((ahead - behind) / (2 * step))
    scale = max(float(np.abs(found).max()), np.finfo(np.float64).tiny)
    spreads = [float(np.abs(a - b).max()) / scale for a, b in pairwise(found)]
    best = int(np.argmin(spreads)) + 1  # the smaller of the two: curvature counts for less
    return Differences(found[best], _STEPS[best], spreads[best - 1])


def settled(differences: Differences) -> Differences:
    """The same, or an error if no two steps agree.

    Raises:
        InputError: they differ by more than 5 %.
    """
    if not differences.spread <= TOLERANCE:
        raise InputError(
            "the derivative cannot be checked: finite differences of the validation loss do not "
            f"settle (they change by {differences.spread:.0%} from one step to the next)"
        )
    return differences


def compare(found: NDArray[np.float64], expected: NDArray[np.float64], step: float) -> Canary:
    """A canary, or an error if it is dead.

    Raises:
        InputError: the derivatives are zero or not finite, or further from the expected ones than
            5 % of the largest.
    """
    largest = float(np.abs(expected).max())
    error = float(np.abs(found - expected).max()) / max(largest, np.finfo(np.float64).tiny)
    # A NaN must fail too; and where both are 0 the weights that move are not those of the passes.
    if not error <= TOLERANCE or not found.any():
        what = "is zero" if not found.any() else f"differs by {error:.0%}"
        raise InputError(
            f"the derivative of this model's loss {what}: {_numbers(found)} where "
            f"{_numbers(expected)} was expected; no score is made of it"
        )
    return Canary(found, expected, error, step)


@torch.no_grad()
def _summed_losses(
    model: PreTrainedModel,
    direction: Direction,
    step: float,
    sequences: Sequence[ScoredSequence],
) -> NDArray[np.float64]:
    batch = pack_sequences([s.input_ids for s in sequences], [s.labels for s in sequences]).to(
        model.device
    )
    implementation = model.config._attn_implementation
    # A kernel named by the user may take half precision alone.
    model.set_attn_implementation(ATTN_IMPLEMENTATION)
    try:
        with moved(model, direction, step, dtype=torch.float32):
            states = hidden_states(model, batch)
            nlls = output_head(model).nll(states[batch.rows], batch.targets)
            sums = segment_sums(nlls, torch.from_numpy(batch.cu_rows).to(nlls.device))
    finally:
        model.set_attn_implementation(implementation)
    values: NDArray[np.float64] = sums.cpu().numpy()
    return values


def _numbers(values: NDArray[np.float64]) -> str:
    return " and ".join(f"{value:.4g}" for value in values)
