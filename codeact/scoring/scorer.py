"""Score an instruction set: both IFD passes of many examples in one flat stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import LoadedModel, ScoredSequence, load_model, stream_nlls
from codeact.progress import OnProgress
from codeact.scoring.presets import ifd_preset
from codeact.scoring.spans import ifd_spans
from codeact.scoring.table import TOKEN_NLL_FIELD, score_row, scores_table


class Scorer:
    """Scores examples with a causal language model.

    Args:
        model: a folder, a Hugging Face id, or what :func:`codeact.models.load_model` returned.
        preset: ``"codeact"`` (arXiv:2408.02193), ``"superfiltering"`` (arXiv:2402.00530) or
            ``"cherry"`` (arXiv:2308.12032).
        max_length: longest prompt plus answer in tokens; None is the preset's, else the model's.
        token_budget: tokens of one pass through the model; None as in :func:`stream_nlls`.

    Raises:
        InputError: no such model or preset, or a ``max_length`` the model cannot take.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel,
        *,
        preset: str = "codeact",
        max_length: int | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.preset = ifd_preset(preset)
        loaded = model if isinstance(model, tuple) else load_model(model)
        self.model, self.tokenizer = loaded
        self.max_length = self._resolve_max_length(max_length)
        if token_budget is not None and token_budget < 1:
            raise InputError(f"token_budget must be at least 1, got {token_budget}")
        self.token_budget = token_budget

    def _resolve_max_length(self, max_length: int | None) -> int:
        config = self.model.config.get_text_config()
        longest: int | None = getattr(config, "max_position_embeddings", None)
        chosen = max_length or self.preset.max_length or longest
        if chosen is None:
            raise InputError("max_length must be given: the model's config names no longest input")
        if max_length is not None and max_length < 2:
            raise InputError(f"max_length must be at least 2, got {max_length}")
        if longest is not None and max_length is not None and max_length > longest:
            raise InputError(f"max_length = {max_length} is above the model's {longest} positions")
        return min(chosen, longest) if longest is not None else chosen

    def ifd(
        self,
        examples: Sequence[Example],
        *,
        token_nlls: bool = False,
        on_progress: OnProgress | None = None,
    ) -> pa.Table:
        """The scores table of ``examples``, in their order.

        Args:
            examples: rows to score; none is dropped.
            token_nlls: add the list column ``token_nll_cond``.
            on_progress: called with tokens done and tokens in all after each pack.

        Returns:
            A table of :data:`codeact.scoring.SCORES_SCHEMA`.
        """
        spans = ifd_spans(examples, self.tokenizer, self.preset, self.max_length)
        sequences: list[ScoredSequence] = []
        owners: list[tuple[int, int]] = []  # (row, 0 for the conditional pass and 1 for the direct)
        for row, span in enumerate(spans):
            for part, sequence in enumerate((span.conditional, span.direct)):
                if sequence is not None:
                    sequences.append(sequence)
                    owners.append((row, part))
        losses: list[list[NDArray[np.float32] | None]] = [[None, None] for _ in spans]
        for index, nlls in self._stream(sequences, on_progress):
            row, part = owners[index]
            losses[row][part] = nlls
        scored = [
            score_row(span, cond, direct)
            for span, (cond, direct) in zip(spans, losses, strict=True)
        ]
        table = scores_table([example.id for example in examples], spans, scored)
        if token_nlls:
            column = pa.array([cond for cond, _ in losses], type=TOKEN_NLL_FIELD.type)
            table = table.append_column(TOKEN_NLL_FIELD, column)
        return table

    def _stream(
        self, sequences: Sequence[ScoredSequence], on_progress: OnProgress | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        total = sum(len(sequence.input_ids) for sequence in sequences)
        done = 0
        for pack in stream_nlls(self.model, sequences, token_budget=self.token_budget):
            yield from pack
            done += sum(len(sequences[index].input_ids) for index, _ in pack)
            if on_progress is not None:
                on_progress(done, total)
