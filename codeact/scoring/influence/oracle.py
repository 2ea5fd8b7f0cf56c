"""Exact influence: take the step on a row, look at the validation loss, take the step back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.models import ScoredSequence, stream_losses
from codeact.models.stream.gradient import loss_gradient
from codeact.progress import OnProgress
from codeact.scoring.influence.adam import AdamState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Moved: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class SgdStep:
    """``torch.optim.SGD`` without momentum: ``theta - learning_rate * gradient``."""

    learning_rate: float

    def after(self, parameters: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> _Moved:
        """The parameters after the step."""
        return {
            name: parameter.add(gradient[name].to(parameter), alpha=-self.learning_rate)
            for name, parameter in parameters.items()
        }


@dataclass(frozen=True)
class AdamWStep:
    """The next step of ``torch.optim.AdamW`` after ``state``.

    The row's gradient enters both moments, and the moments of the steps before move the weights
    along with it, as they would in training.

    Attributes:
        learning_rate: of this step.
        state: the optimizer's, which stays as it is.
        weight_decay: of all parameters; None is the state's own.
        max_grad_norm: the gradient is scaled down to this norm, as ``clip_grad_norm_`` does.
    """

    learning_rate: float
    state: AdamState
    weight_decay: float | None = None
    max_grad_norm: float | None = None

    def after(self, parameters: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> _Moved:
        """The parameters after the step."""
        state, (beta1, beta2) = self.state, self.state.betas
        step = state.step + 1
        correction1, correction2 = 1.0 - beta1**step, 1.0 - beta2**step
        scale = _clip_scale(gradient, self.max_grad_norm)
        moved = {}
        for name, parameter in parameters.items():
            part = gradient[name].to(parameter)
            if scale is not None:
                part = part * scale.to(parameter)
            exp_avg = state.exp_avg[name].to(parameter).lerp(part, 1.0 - beta1)
            exp_avg_sq = state.exp_avg_sq[name].to(parameter) * beta2
            exp_avg_sq.addcmul_(part, part, value=1.0 - beta2)
            denominator = (exp_avg_sq.sqrt_() / correction2**0.5).add_(state.eps)
            decay = state.decay_of(name) if self.weight_decay is None else self.weight_decay
            moved[name] = (parameter * (1.0 - self.learning_rate * decay)).addcdiv_(
                exp_avg, denominator, value=-self.learning_rate / correction1
            )
        return moved


def one_step_influence(
    model: PreTrainedModel,
    rows: Sequence[ScoredSequence],
    tasks: Mapping[str, Sequence[ScoredSequence]],
    step: SgdStep | AdamWStep,
    *,
    names: Sequence[str] | None = None,
    token_budget: int | None = None,
    on_progress: OnProgress | None = None,
) -> NDArray[np.float64]:
    """By how much one step on each row alone lowers each validation loss, exactly.

    ``L(V; theta) - L(V; A(theta, x))`` (DIScore, arXiv:2604.07769, after the oracle of MATES,
    arXiv:2406.06046): the gradient of the mean loss of x over its scored tokens by reverse mode,
    one step A of the optimizer, and the validation loss again. MATES reloads model and optimizer
    for every row and keeps the loss after the step, where smaller is better; here the weights come
    back from a copy in memory, which is exact, and larger is better. A step on nothing is not
    subtracted: with AdamW the old moments and the decay move the weights too, by the same for all.

    Args:
        model: in evaluation mode, float32 or float64: in half precision a small step is lost in
            the rounding of the weights.
        rows: one without a scored token gets NaN.
        tasks: the problems of each, with the loss on their solutions.
        step: how the weights move; its rate is a matter of the question that is asked.
        names: of the parameters that move; None is all.
        token_budget: tokens of a pass.
        on_progress: called with rows done and rows in all.

    Returns:
        (num_rows, num_tasks) float64, in nats.

    Raises:
        InputError: no task, a problem without a scored token, weights in half precision, a name
            of no parameter, or a parameter whose moments the step lacks.
        RuntimeError: the gradient of a row is not finite; its number is named.
    """
    parameters = _moving(model, names, step)
    before = task_losses(model, tasks, token_budget=token_budget)
    copies = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    influence = np.full((len(rows), len(tasks)), np.nan)
    for index, row in enumerate(rows):
        if num_scored := row.num_scored:
            gradient = _row_gradient(model, row, num_scored, list(parameters), index)
            try:
                _write(parameters, step.after(copies, gradient))
                influence[index] = before - task_losses(model, tasks, token_budget=token_budget)
            finally:
                _write(parameters, copies)
        if on_progress is not None:
            on_progress(index + 1, len(rows))
    return influence


def task_losses(
    model: PreTrainedModel,
    tasks: Mapping[str, Sequence[ScoredSequence]],
    *,
    token_budget: int | None = None,
) -> NDArray[np.float64]:
    """(num_tasks,) ``L(V)``: the mean over a task's problems of the mean loss of its tokens.

    Raises:
        InputError: no task, a task without problems, or a problem without a scored token.
    """
    everything = [sequence for sequences in tasks.values() for sequence in sequences]
    ends = np.cumsum([0, *(len(sequences) for sequences in tasks.values())])
    for name, sequences in tasks.items():
        if len(sequences) == 0 or not all(sequence.num_scored for sequence in sequences):
            raise InputError(
                f"validation task {name!r} must have problems, each with a token to score"
            )
    if not tasks:
        raise InputError("tasks must hold at least one validation task, got none")
    means = np.empty(len(everything))
    for pack in stream_losses(model, [everything], token_budget=token_budget):
        for index, loss in pack:
            means[index] = loss.total / loss.num_scored
    return np.array([of_task.mean() for of_task in np.split(means, ends[1:-1])])


def _moving(
    model: PreTrainedModel, names: Sequence[str] | None, step: SgdStep | AdamWStep
) -> dict[str, torch.nn.Parameter]:
    every = dict(model.named_parameters())
    if unknown := [name for name in names or () if name not in every]:
        raise InputError(f"names must be of parameters of the model, got {unknown[0]!r}")
    parameters = every if names is None else {name: every[name] for name in names}
    for name, parameter in parameters.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"exact influence needs float32 weights, got {name} in {parameter.dtype}: a small "
                "step would be rounded away (dtype float32)"
            )
        if isinstance(step, AdamWStep) and name not in step.state.exp_avg:
            raise InputError(f"the Adam state has no moments of {name}")
    return parameters


def _row_gradient(
    model: PreTrainedModel, row: ScoredSequence, num_scored: int, names: Sequence[str], index: int
) -> dict[str, Tensor]:
    try:
        return loss_gradient(model, [row], np.array([1.0 / num_scored]), names).gradient
    except RuntimeError as error:
        raise RuntimeError(f"rows[{index}]: {error}") from error


@torch.no_grad()
def _write(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _clip_scale(gradient: Mapping[str, Tensor], max_norm: float | None) -> Tensor | None:
    """The factor of ``torch.nn.utils.clip_grad_norm_``."""
    if max_norm is None:
        return None
    norms = [torch.linalg.vector_norm(part) for part in gradient.values()]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale: Tensor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return scale
