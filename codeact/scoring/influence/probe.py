"""Validation gradients at one model, and the influence of any rows along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.models import Direction, ScoredSequence, parameter_names
from codeact.models.stream.gradient import loss_gradient
from codeact.progress import OnProgress
from codeact.scoring.influence.adam import AdamState
from codeact.scoring.influence.canary import Canary, central_differences, compare, settled
from codeact.scoring.influence.follow import Followed, Follower, Items
from codeact.scoring.influence.table import RowInfluence
from codeact.scoring.influence.validation import ValidationTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Derivative = Literal["auto", "forward", "ghost", "difference"]

# From so many directions on, one backward pass for all costs less than a forward-mode pass each:
# (2 + K) F against 3 K F.
_GHOST_FROM = 2
_NUM_CANARIES = 2
# A canary should say something, and cost little.
_LEAST_SCORED = 8


class InfluenceProbe:
    """The direction of each validation task at one model; :meth:`rows` follows pool rows along.

    ``v = P grad L(V)``, where ``L(V)`` is the mean over problems of the mean loss of the solution
    tokens and P the identity or Adam's frozen preconditioner. Each direction is checked on two of
    its problems before anything is scored. Each is a copy of the parameters that move.

    Args:
        model: in evaluation mode, loaded with ``attn_implementation="codeact"``.
        tasks: what to become better at.
        optimizer: whose second moments precondition the gradient; None is plain SGD.
        parameters: ``all``, ``lora`` or ``last:K``, see :func:`codeact.models.parameter_names`.
        derivative: how rows follow a direction, see :class:`Follower`. ``forward`` is one pass of
            dual numbers a task, exact, with a value for each token; ``ghost`` one backward pass to
            the activations for all tasks, exact; ``difference`` two plain passes a task with the
            weights moved back and forth, in float32 only, good to about 1 %. ``auto`` is forward
            for one task and ghost from two on, or the other where the model has no such.
        token_budget: tokens of one pass.
        on_progress: called with problems done and problems in all.

    Attributes:
        tasks: names.
        losses: ``L(V)`` of each task in nats.
        derivative: the one in use, never ``auto``.
        canaries: what was checked, a task each.

    Raises:
        InputError: an option has no meaning, or a derivative is wrong, zero or not to be had here.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tasks: Sequence[ValidationTask],
        *,
        optimizer: AdamState | None = None,
        parameters: str = "all",
        derivative: Derivative = "auto",
        token_budget: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        check_derivative(derivative, model.dtype)
        self.model = model
        self.tasks = tuple(task.name for task in tasks)
        self._token_budget = token_budget
        self._names = parameter_names(model, parameters)
        self.losses: dict[str, float] = {}
        self._directions: list[Direction] = []
        self._lengths: list[float] = []  # what a derivative along a direction is multiplied by
        num_done, num_all = 0, sum(len(task.sequences) for task in tasks)
        for task in tasks:
            self._add_direction(task, optimizer)
            num_done += len(task.sequences)
            if on_progress is not None:
                on_progress(num_done, num_all)
        self._steps: list[float] = []
        self.canaries: dict[str, Canary] = {}
        self.derivative = self._choose(derivative, tasks)

    def rows(
        self,
        items: Items,
        *,
        token_influence: bool = False,
        on_progress: OnProgress | None = None,
    ) -> list[RowInfluence | None]:
        """Loss and derivatives of each sequence, None of those that are None.

        Args:
            items: conditional sequences of pool rows.
            token_influence: keep those of each token; of ``forward`` only.
            on_progress: called with rows done and rows in all.

        Raises:
            InputError: ``token_influence`` of another derivative.
        """
        if token_influence and self.derivative != "forward":
            raise InputError(
                f"token_influence needs derivative = forward, got {self.derivative}: the others "
                "have no value of a single token"
            )
        if not items:
            return []
        follower = Follower(self.model, self._token_budget, on_progress)
        found = self._follow(follower, self.derivative, items, token_influence)
        return [
            None
            if loss is None
            else RowInfluence(
                loss, found.tangents[row] * self._lengths, self._token_means(found, row)
            )
            for row, loss in enumerate(found.losses)
        ]

    def _add_direction(self, task: ValidationTask, optimizer: AdamState | None) -> None:
        value, gradient = loss_gradient(
            self.model, task.sequences, task.weights, self._names, token_budget=self._token_budget
        )
        if optimizer is not None:
            gradient = optimizer.precondition(gradient)
        parameters = dict(self.model.named_parameters())
        length = _length(list(gradient.values()))
        if not length > 0:
            raise InputError(f"validation task {task.name!r} has a gradient of zero: no influence")
        # As long as the weights, so that half precision neither rounds it to 0 nor overflows.
        of_weights = _length([parameters[name] for name in self._names]) or 1.0
        self.losses[task.name] = value
        self._lengths.append(length / of_weights)
        self._directions.append({
            name: part.mul_(of_weights / length).to(parameters[name].dtype)
            for name, part in gradient.items()
        })  # fmt: skip

    def _choose(self, derivative: Derivative, tasks: Sequence[ValidationTask]) -> str:
        """The derivative to use, after two problems of each task have spoken for it."""
        if derivative != "auto":
            self._check(derivative, tasks)
            return derivative
        few = len(tasks) < _GHOST_FROM
        first, second = ("forward", "ghost") if few else ("ghost", "forward")
        try:
            self._check(first, tasks)
            return first
        except CannotFollowError:
            self._steps.clear()
        self._check(second, tasks)
        return second

    def _check(self, derivative: str, tasks: Sequence[ValidationTask]) -> None:
        """Fill ``canaries``, and the steps of differences; raise if one is wrong."""
        for k, task in enumerate(tasks):
            chosen = _canary_sequences(task.sequences)
            if derivative != "difference":  # what fails at once should not wait for differences
                found = self._first_of(derivative, k, chosen)
            differences = settled(central_differences(self.model, self._directions[k], chosen))
            self._steps.append(differences.step)
            if derivative == "difference":
                found, expected = differences.values, self._reverse(k, chosen)
            else:
                expected = differences.values
            self.canaries[task.name] = compare(found, expected, differences.step)

    def _first_of(
        self, derivative: str, k: int, sequences: Sequence[ScoredSequence]
    ) -> NDArray[np.float64]:
        """The derivatives along direction k, the first that this model is asked for."""
        follower = Follower(self.model, self._token_budget)
        try:
            return self._follow(follower, derivative, sequences, only=k).tangents[:, 0]
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            name, reason = type(self.model).__name__, (str(error).splitlines() or [""])[0]
            if derivative == "ghost":
                raise CannotFollowError(f"{name} has no ghost products: {reason}") from error
            raise CannotFollowError(
                f"{name} has no forward mode on {self.model.device.type}: {reason}; "
                "use derivative = ghost, or difference in float32"
            ) from error

    def _follow(
        self,
        follower: Follower,
        derivative: str,
        items: Items,
        token_tangents: bool = False,
        only: int | None = None,
    ) -> Followed:
        chosen = slice(None) if only is None else slice(only, only + 1)
        directions = self._directions[chosen]
        if derivative == "ghost":
            return follower.ghost(directions, items)
        if derivative == "difference":
            return follower.difference(directions, items, self._steps[chosen])
        return follower.forward(directions, items, token_tangents=token_tangents)

    def _reverse(self, k: int, sequences: Sequence[ScoredSequence]) -> NDArray[np.float64]:
        """The derivatives along direction k by a backward pass for each sequence."""
        direction, dots = self._directions[k], []
        for sequence in sequences:
            gradient = loss_gradient(self.model, [sequence], np.ones(1), self._names).gradient
            dots.append(sum(float((part * direction[n]).sum()) for n, part in gradient.items()))
        return np.array(dots)

    def _token_means(self, found: Followed, row: int) -> NDArray[np.float32] | None:
        """Values of the tokens of a row, mean over tasks."""
        if not found.token_tangents:
            return None
        of_tasks = [
            np.asarray(tokens[row], dtype=np.float64) * length
            for tokens, length in zip(found.token_tangents, self._lengths, strict=True)
        ]
        mean: NDArray[np.float32] = np.mean(of_tasks, axis=0).astype(np.float32)
        return mean


class CannotFollowError(InputError):
    """The model has an operation, or uses a parameter in a way, that a derivative cannot follow."""


def check_derivative(derivative: str, dtype: torch.dtype) -> None:
    """Refuse an unknown derivative, and differences of half precision.

    Raises:
        InputError: it is one of these.
    """
    if derivative not in get_args(Derivative):
        choices = ", ".join(get_args(Derivative))
        raise InputError(f"derivative must be one of {choices}, got {derivative!r}")
    if derivative == "difference" and dtype not in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        raise InputError(
            f"derivative = difference needs a model in float32, got {name}: half precision rounds "
            "the differences away"
        )


def _canary_sequences(sequences: Sequence[ScoredSequence]) -> list[ScoredSequence]:
    """The shortest that have something to say."""
    by_length = sorted(sequences, key=lambda s: len(s.input_ids))
    telling = [s for s in by_length if s.num_scored >= _LEAST_SCORED]
    return (telling or by_length)[:_NUM_CANARIES]


def _length(parts: Sequence[Tensor]) -> float:
    """Euclidean length of all parts together."""
    squares = []
    for part in parts:
        dtype = torch.promote_types(part.dtype, torch.float32)
        squares.append(float(torch.linalg.vector_norm(part.detach(), dtype=dtype)) ** 2)
    return float(np.sqrt(sum(squares)))
