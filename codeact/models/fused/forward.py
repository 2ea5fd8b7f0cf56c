"""The forward pass that :func:`codeact.models.fuse_loss` gives to a model."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeact.models.fused.head_call import (
    HeadCall,
    LogitForm,
    StandIn,
    call_head,
    form_in_config,
    logit_form,
)
from codeact.ops.linear_nll import linear_nll
from codeact.ops.linear_nll_loss import linear_nll_loss
from codeact.ops.varlen import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoredRows:
    """The positions of a batch that carry a loss, for a caller who knows them: give it as labels.

    The loss is then theirs alone, without the auxiliary loss of a mixture of experts. Not a
    dataclass or a tuple, so that no wrapper of the model casts or moves what it holds (FSDP's mixed
    precision would round the weights).

    Attributes:
        rows: (num_rows,) int64 positions in the flattened (batch_size, seqlen).
        targets: (num_rows,) int64, the token that each should predict.
        weights: (num_rows,) float32, or None for ones.
        unreduced: the model's ``loss`` is then the (num_rows,) losses of the rows, at least
            float32, differentiable and without weights.
    """

    def __init__(
        self, rows: Tensor, targets: Tensor, weights: Tensor | None, *, unreduced: bool = False
    ) -> None:
        self.rows, self.targets, self.weights = rows, targets, weights
        self.unreduced = unreduced

    def to(self, device: torch.device) -> ScoredRows:
        rows = self.rows.to(device, non_blocking=True)
        targets = self.targets.to(device, non_blocking=True)
        weights = self.weights
        if weights is not None:
            weights = weights.to(device, torch.float32, non_blocking=True)
        return ScoredRows(rows, targets, weights, unreduced=self.unreduced)


class FusedState:
    """What :func:`codeact.models.fuse_loss` leaves on a model."""

    def __init__(self) -> None:
        self.installed = False  # while False, the model has its own forward
        self.enabled = False  # while False, it is passed through
        self.previous: Any = None  # a forward that the instance had, bound
        self.trl_temperature: float | None = None  # of the head that TRL gave the model, or None
        self.stand_in = StandIn()
        # What the model does to its logits, by what its config says; found by the first loss.
        self.forms: dict[LogitForm, LogitForm] = {}


class ProjectedRows(NamedTuple):
    """What the output projection is to be applied to, and how."""

    hidden_states: Tensor  # (num_rows, hidden_size)
    weight: Tensor  # (vocab_size, hidden_size), of one dtype with them
    bias: Tensor | None
    form: LogitForm
    scored: ScoredRows  # on the device of hidden_states


def fused_forward(
    model: PreTrainedModel,
    state: FusedState,
    inputs: dict[str, Any],
    outside: Callable[[Any], Any] = lambda function: function,
) -> Any:
    """The model's own forward, up to its output projection, and the loss of the scored rows.

    What is not the model's own goes through ``outside``, which keeps torch.compile away from it.
    """
    previous = state.previous or MethodType(type(model).forward, model)
    if inputs.get("labels") is None or not state.enabled:
        inputs.pop("loss_weights", None)
        return previous(**inputs)
    call = outside(_FusedCall)(model, state, inputs)
    try:
        output = previous(**inputs)
    except BaseException:
        state.stand_in.call = None  # the graph of all layers hangs on it
        raise
    finally:
        call.restore_head()
    return outside(call.finish)(output)


class _FusedCall:
    """One forward pass with labels: what precedes the decoder, and what follows it."""

    def __init__(self, model: PreTrainedModel, state: FusedState, inputs: dict[str, Any]) -> None:
        self.model, self.state = model, state
        self.labels, weights = inputs.pop("labels"), inputs.pop("loss_weights", None)
        shift_labels = inputs.pop("shift_labels", None)
        self.is_shifted = shift_labels is not None
        self.num_items: Tensor | float | None = inputs.pop("num_items_in_batch", None)
        self.for_trl = state.trl_temperature is not None and inputs.pop("fused_lm_head", False)
        kept = inputs.get("logits_to_keep", 0)
        if not isinstance(kept, int) or kept != 0:
            raise ValueError("a fused loss keeps no logits: leave out logits_to_keep or the labels")
        # Before the decoder runs: what finds the rows on a GPU waits for all that was asked of it.
        if isinstance(self.labels, ScoredRows):
            self.scored = self.labels
        else:
            self.scored = _scored_rows(self.labels, shift_labels, weights)
        self.restore_head = state.stand_in.replace_head(model)

    def finish(self, output: Any) -> Any:
        """The model's output, with the loss of the scored rows in place of logits."""
        state, head_call = self.state, self.state.stand_in.take()
        said = form_in_config(self.model)
        form = state.forms.get(said)
        if form is None:
            logits = output[0] if isinstance(output, tuple) else output.logits
            form = state.forms[said] = logit_form(self.model, head_call.probe, logits)
        if self.for_trl:
            return self._output_for_trl(output, head_call, form)
        loss = self._loss(head_call, form)
        if isinstance(output, tuple):
            return (loss, *output[1:])
        fields = {name: value for name, value in output.items() if name != "logits"}
        is_transformers = not isinstance(self.labels, ScoredRows)
        if is_transformers and fields.get("aux_loss") is not None:  # a mixture of experts adds it
            model: Any = self.model
            loss = loss + model.router_aux_loss_coef * fields["aux_loss"].to(loss.device)
        return type(output)(**{**fields, "loss": loss})

    def _loss(self, head_call: HeadCall, form: LogitForm) -> Tensor:
        """The weighted sum over ``num_items_in_batch``; without that, the weighted mean."""
        num_items = self.num_items

        def reduce(rows: ProjectedRows) -> Tensor:
            if rows.scored.unreduced:
                return linear_nll(
                    rows.hidden_states,
                    rows.weight,
                    rows.scored.targets,
                    bias=rows.bias,
                    softcap=rows.form.softcap,
                    logit_scale=rows.form.scale,
                )
            return linear_nll_loss(
                rows.hidden_states,
                rows.weight,
                rows.scored.targets,
                token_weights=rows.scored.weights,
                reduction="mean" if num_items is None else "sum",
                bias=rows.bias,
                softcap=rows.form.softcap,
                logit_scale=rows.form.scale,
            )

        loss: Tensor = self._through_head(head_call, form, reduce)
        return loss if num_items is None else per_item(loss, num_items)

    def _output_for_trl(self, output: Any, head_call: HeadCall, form: LogitForm) -> Any:
        from codeact.models.fused.trl_head import token_output, token_stats  # loads transformers

        temperature = self.state.trl_temperature or 1.0
        stats = self._through_head(head_call, form, lambda rows: token_stats(rows, temperature))
        rows = self.scored.to(stats.nll.device).rows
        found = token_output(stats, rows, self.labels, is_shifted=self.is_shifted)
        found.aux_loss = getattr(output, "aux_loss", None)
        return found

    def _through_head(
        self, head_call: HeadCall, form: LogitForm, reduce: Callable[[ProjectedRows], Any]
    ) -> Any:
        """``reduce`` of the scored rows, called within the output projection."""
        hidden_states, autocast_dtype, _ = head_call
        device = hidden_states.device
        scored = self.scored.to(device)

        def compute(hidden_states: Tensor, linear: nn.Linear) -> Any:
            weight: Tensor = linear.weight
            bias: Tensor | None = linear.bias
            if autocast_dtype is not None and weight.dtype != torch.float64:
                hidden_states, weight = hidden_states.to(autocast_dtype), weight.to(autocast_dtype)
            if bias is not None and form.scale != 1.0:
                bias = bias * form.scale  # the model scales after it has added the bias
            with torch.autocast(device.type, enabled=False):
                return reduce(ProjectedRows(hidden_states, weight, bias, form, scored))

        rows = hidden_states.flatten(0, 1).index_select(0, scored.rows)
        return call_head(self.model, rows, compute)


def per_item(total: Tensor, num_items: Tensor | float) -> Tensor:
    """``total / num_items``; 0 / 0 is 0: a step without a scored token adds nothing."""
    if not isinstance(num_items, Tensor):  # as a tensor it would be copied, and waited for
        return total / (num_items if num_items > 0 else 1.0)
    divisor = num_items.to(total.device, total.dtype)
    return total / divisor.where(divisor > 0, 1.0)


def _scored_rows(labels: Tensor, shift_labels: Tensor | None, weights: Tensor | None) -> ScoredRows:
    """Labels and weights as transformers aligns them: position i predicts label i + 1."""
    if weights is not None and (weights.shape != labels.shape or shift_labels is not None):
        raise ValueError(
            f"loss_weights must be aligned with labels {tuple(labels.shape)} and come without "
            f"shift_labels, got {tuple(weights.shape)}"
        )
    if shift_labels is None:
        shift_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    targets = shift_labels.reshape(-1)
    rows = (targets != IGNORE_INDEX).nonzero()[:, 0]
    if weights is not None:
        weights = F.pad(weights[:, 1:], (0, 1)).reshape(-1)[rows.to(weights.device)]
    return ScoredRows(rows, targets[rows], weights)
