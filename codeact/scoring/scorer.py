"""Score an instruction set: all passes of many examples in one flat stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Example
from codeact.errors import InputError
from codeact.models import LoadedModel, ScoredSequence, SequenceLoss, load_model
from codeact.progress import OnProgress
from codeact.scoring.influence.scorer import InfluenceScorer
from codeact.scoring.lengths import resolve_max_length
from codeact.scoring.passes import Passes, PassOptions, run_passes
from codeact.scoring.perplexity import perplexity_table, whole_text
from codeact.scoring.pooling import (
    EmbedText,
    IfdWithEmbeddings,
    Pool,
    StatePool,
    check_pool,
    check_state_pool,
    pooled_passes,
    pooled_vectors,
    response_passes,
    state_passes,
)
from codeact.scoring.presets import IfdPreset, ifd_preset
from codeact.scoring.s_ifd import check_s_ifd, noisy_passes, noisy_table, s_ifd_table
from codeact.scoring.spans import SCORABLE, IfdSpans, ifd_spans
from codeact.scoring.table import rmi_table, score_row, scores_table, with_token_nlls
from codeact.scoring.turns import Turns, check_turns


class Scorer(InfluenceScorer):
    """Scores examples with a causal language model.

    Args:
        model: a folder, a Hugging Face id, or what :func:`codeact.models.load_model` returned.
        preset: ``"codeact"`` (arXiv:2408.02193), ``"superfiltering"`` (arXiv:2402.00530),
            ``"cherry"`` (arXiv:2308.12032), ``"tshirt"`` (arXiv:2506.01317) or ``"qaq"``
            (arXiv:2603.12165): the text around a pair in :meth:`ifd` and :meth:`perplexity`.
        max_length: longest conditional sequence in tokens; None is the preset's, else the model's.
        token_budget: tokens of one pass through the model; None as in
            :func:`codeact.models.stream_losses`.
        turns: ``"all"`` pools a conversation over its assistant turns, ``"last"`` scores the last
            one after all user turns; see :func:`codeact.scoring.turns.rendered_turns`.

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
        turns: Turns = "all",
    ) -> None:
        self.preset = ifd_preset(preset)
        check_turns(turns)
        self.turns: Turns = turns
        loaded = model if isinstance(model, tuple) else load_model(model)
        self.model, self.tokenizer = loaded
        self._given_max_length = max_length
        self.max_length = self._longest(self.preset)
        if token_budget is not None and token_budget < 1:
            raise InputError(f"token_budget must be at least 1, got {token_budget}")
        self.token_budget = token_budget

    def _longest(self, preset: IfdPreset) -> int:
        return resolve_max_length(self.model.config, preset, self._given_max_length)

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
            on_progress: called with rows done and rows in all after each pack.

        Returns:
            A table of :data:`codeact.scoring.SCORES_SCHEMA`.

        Raises:
            InputError: the preset scores the instruction.
        """
        options = PassOptions(token_nlls=token_nlls, on_progress=on_progress)
        return self._ifd(examples, options, _both_passes)[0]

    def ifd_and_embeddings(
        self,
        examples: Sequence[Example],
        *,
        pool: Pool = "sequence",
        token_nlls: bool = False,
        on_progress: OnProgress | None = None,
    ) -> IfdWithEmbeddings:
        """The table of :meth:`ifd`, and a vector of every row from the same passes.

        A vector is an average of the last hidden states (after the last norm) over the tokens of
        the conditional sequence, special tokens included; not normalised. A row that cannot be
        scored has one too, of the tokens it has; NaN only where the hidden states are.

        Args:
            examples: rows to score.
            pool: ``"sequence"`` is the mean over prompt and answer (all turns of them), as far as
                they are scored; ``"prompt"`` over what stands before the (first) answer, which an
                attention that looks back alone sees without it; ``"rds"`` weighs the tokens of
                the sequence by their position, see :meth:`embed`.
            token_nlls: as in :meth:`ifd`.
            on_progress: as in :meth:`ifd`.
        """
        check_pool(pool)
        options = PassOptions(token_nlls=token_nlls, on_progress=on_progress)
        table, losses = self._ifd(examples, options, pooled_passes(pool))
        return IfdWithEmbeddings(table, pooled_vectors(losses, self.model.config))

    def embed(
        self,
        examples: Sequence[Example],
        *,
        pool: StatePool = "mean",
        text: EmbedText = "both",
        on_progress: OnProgress | None = None,
    ) -> NDArray[np.float32]:
        """A vector of every row from one pass: an average of the last hidden states.

        States are those after the last norm, of all tokens, special ones included.

        Args:
            examples: rows to embed.
            pool: ``"mean"``, or ``"rds"``: token i of L, from 1, weighs ``i / (1 + ... + L)``
                (RDS+, arXiv:2503.01807; padding would count in its script, here there is none).
            text: ``"both"`` is prompt and answer in the template of the preset, the vectors of
                :meth:`ifd_and_embeddings` with ``pool`` ``"sequence"`` or ``"rds"``;
                ``"instruction"`` the prompt alone; ``"response"`` the last response, bare.
            on_progress: as in :meth:`ifd`.

        Returns:
            (num_examples, hidden_size) float32, not normalised; NaN for a row without any token.
        """
        self._refuse_reversed("embed")
        check_state_pool(pool, text)
        options = PassOptions(token_budget=self.token_budget, on_progress=on_progress)
        if text == "response":
            to_sequences = response_passes(self.tokenizer, self.max_length, pool)
            losses = run_passes(self.model, examples, to_sequences, options)
        else:
            passes = state_passes(pool, prompt_only=text == "instruction")
            losses = self._score(examples, self.preset, passes, options)[1]
        return pooled_vectors(losses, self.model.config)

    def perplexity(
        self, examples: Sequence[Example], *, on_progress: OnProgress | None = None
    ) -> pa.Table:
        """Perplexity of the response given its prompt, and of the whole text of the preset.

        Returns:
            A table of :data:`codeact.scoring.PERPLEXITY_SCHEMA`.
        """
        self._refuse_reversed("perplexity")
        options = PassOptions(token_nlls=True, on_progress=on_progress)
        spans, losses = self._score(examples, self.preset, whole_text, options)
        return perplexity_table(_ids(examples), spans, losses)

    def rmi(
        self,
        examples: Sequence[Example],
        *,
        token_nlls: bool = False,
        on_progress: OnProgress | None = None,
    ) -> pa.Table:
        """Reverse mutual information (QAQ, arXiv:2603.12165), under the preset ``qaq``.

        ``rmi`` is ``log PPL(instruction) - log PPL(instruction | response)``, how much the
        response tells about the instruction.

        Returns:
            A table of :data:`codeact.scoring.RMI_SCHEMA`, in whose columns ``nll_cond`` and
            ``nll_direct`` are of the instruction, with and without the response.
        """
        options = PassOptions(token_nlls=token_nlls, on_progress=on_progress)
        spans, losses = self._score(examples, ifd_preset("qaq"), _both_passes, options)
        rows = [score_row(span, row) for span, row in zip(spans, losses, strict=True)]
        table = rmi_table(_ids(examples), spans, rows)
        return with_token_nlls(table, losses) if token_nlls else table

    def s_ifd(
        self,
        examples: Sequence[Example],
        *,
        num_copies: int = 30,
        noise_alpha: float = 5.0,
        ratio: float = 0.5,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> pa.Table:
        """Selective IFD over noisy copies (T-SHIRT, arXiv:2506.01317), under the preset ``tshirt``.

        Args:
            examples: the whole set: which tokens count depends on all of them.
            num_copies: noisy copies of each row; 0 scores the row as it is. The published script
                makes 31 and leaves out the last.
            noise_alpha: size of the noise, see :func:`codeact.scoring.s_ifd.noisy_sequences`.
            ratio: share of the tokens that count.
            seed: of the noise.
            on_progress: as in :meth:`ifd`.

        Returns:
            A table of :data:`codeact.scoring.S_IFD_SCHEMA`.

        Raises:
            InputError: a number that has no meaning.
        """
        check_s_ifd(num_copies, noise_alpha, ratio)
        noisy = self.noisy_losses(
            examples, num_copies=num_copies, noise_alpha=noise_alpha, seed=seed,
            on_progress=on_progress,
        )  # fmt: skip
        return s_ifd_table(noisy, ratio)

    def noisy_losses(
        self,
        examples: Sequence[Example],
        *,
        num_copies: int = 30,
        noise_alpha: float = 5.0,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> pa.Table:
        """The first half of :meth:`s_ifd`, which may be done part by part of a set.

        Returns:
            A table of :data:`codeact.scoring.NOISY_SCHEMA`, for
            :func:`codeact.scoring.s_ifd_table`.
        """
        check_s_ifd(num_copies, noise_alpha, 1.0)
        embedding: Any = self.model.get_input_embeddings()
        passes = noisy_passes(num_copies, noise_alpha, seed, embedding.weight.shape[1])
        options = PassOptions(token_nlls=True, on_progress=on_progress)
        spans, losses = self._score(examples, ifd_preset("tshirt"), passes, options)
        return noisy_table(_ids(examples), spans, losses)

    def _ifd(
        self, examples: Sequence[Example], options: PassOptions, passes: Passes
    ) -> tuple[pa.Table, list[list[SequenceLoss]]]:
        self._refuse_reversed("ifd")
        spans, losses = self._score(examples, self.preset, passes, options)
        rows = [score_row(span, row) for span, row in zip(spans, losses, strict=True)]
        table = scores_table(_ids(examples), spans, rows)
        if options.token_nlls:
            table = with_token_nlls(table, losses)
        return table, losses

    def _score(
        self,
        examples: Sequence[Example],
        preset: IfdPreset,
        passes: Passes,
        options: PassOptions,
    ) -> tuple[list[IfdSpans], list[list[SequenceLoss]]]:
        max_length = self._longest(preset)
        spans: list[IfdSpans] = []

        def to_sequences(window: Sequence[Example]) -> list[list[ScoredSequence]]:
            found = ifd_spans(window, self.tokenizer, preset, max_length, self.turns)
            spans.extend(found)
            return [passes(example, span) for example, span in zip(window, found, strict=True)]

        options = replace(options, token_budget=self.token_budget)
        losses = run_passes(self.model, examples, to_sequences, options)
        return spans, losses

    def _refuse_reversed(self, method: str) -> None:
        if self.preset.scores_instruction:
            raise InputError(f"preset {self.preset.name!r} has no {method}: call rmi")


def _both_passes(_: Example, spans: IfdSpans) -> list[ScoredSequence]:
    return [spans.conditional, *spans.direct] if spans.status in SCORABLE else []


def _ids(examples: Sequence[Example]) -> list[str]:
    return [example.id for example in examples]
