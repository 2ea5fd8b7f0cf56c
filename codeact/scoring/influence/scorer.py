"""The part of a scorer that follows rows along validation gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from codeact.data import Example, Examples
from codeact.data.overlap import refuse_overlap
from codeact.errors import InputError
from codeact.progress import OnProgress
from codeact.scoring.influence.probe import InfluenceProbe
from codeact.scoring.influence.table import influence_table
from codeact.scoring.influence.validation import Style, Validation, validation_tasks
from codeact.scoring.perplexity import conditional_or_none
from codeact.scoring.presets import IfdPreset
from codeact.scoring.spans import ifd_spans
from codeact.scoring.turns import Turns

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class InfluenceScorer:
    """What :class:`codeact.scoring.Scorer` can say of influence."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    preset: IfdPreset
    max_length: int
    token_budget: int | None
    turns: Turns

    def influence(
        self,
        examples: Examples,
        validation: Validation,
        *,
        allow_overlap: bool = False,
        token_influence: bool = False,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> pa.Table:
        """First-order change of the validation loss per step on each row (arXiv:2604.07769).

        A plain step of rate ``eta`` on the mean loss of a row lowers the mean loss of the solutions
        by ``eta`` times its influence, to first order; larger is more helpful. What a published
        score finds by training on each row, this finds for all rows in a pass or two.

        Args:
            examples: rows to score.
            validation: problems with reference solutions, of one task or of several by name; see
                :func:`codeact.data.load_validation`.
            allow_overlap: score even if problems of ``validation`` are among ``examples``.
            token_influence: add the list column ``token_influence``; ``derivative`` is then
                ``"forward"`` unless given.
            on_progress: as in :meth:`ifd`.
            **options: of :meth:`influence_probe`.

        Returns:
            A table with ``influence``, the mean over tasks, and ``influence_<task>`` of each.

        Raises:
            InputError: the sets overlap, or as of :class:`InfluenceProbe`.
        """
        tasks = validation if isinstance(validation, Mapping) else {"validation": validation}
        refuse_overlap(examples, tasks, allow=allow_overlap)
        if token_influence:
            options.setdefault("derivative", "forward")
        probe = self.influence_probe(tasks, **options)
        return self.influence_along(
            probe, examples, token_influence=token_influence, on_progress=on_progress
        )

    def influence_probe(
        self, validation: Validation, *, style: Style = "instruction", **options: Any
    ) -> InfluenceProbe:
        """The directions of validation tasks at this model, to score a set part by part.

        Args:
            validation: as of :meth:`influence`.
            style: text around a problem, see :func:`validation_tasks`.
            **options: ``optimizer``, ``parameters``, ``derivative`` and ``on_progress`` of
                :class:`InfluenceProbe`.
        """
        if self.preset.scores_instruction:
            raise InputError(f"preset {self.preset.name!r} scores instructions: no influence of it")
        tasks = validation_tasks(validation, self.tokenizer, self.preset, self.max_length, style)
        return InfluenceProbe(self.model, tasks, token_budget=self.token_budget, **options)

    def influence_along(
        self,
        probe: InfluenceProbe,
        examples: Sequence[Example],
        *,
        token_influence: bool = False,
        on_progress: OnProgress | None = None,
    ) -> pa.Table:
        """The table of :meth:`influence` along the directions of ``probe``."""
        spans = ifd_spans(examples, self.tokenizer, self.preset, self.max_length, self.turns)
        items = [conditional_or_none(span) for span in spans]
        rows = probe.rows(items, token_influence=token_influence, on_progress=on_progress)
        return influence_table([example.id for example in examples], spans, rows, probe.tasks)
