"""Perplexity of the response, and of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from codeact.data import Example
from codeact.models import ScoredSequence, SequenceLoss, scored_from
from codeact.scoring.spans import SCORABLE, IfdSpans
from codeact.scoring.table import PERPLEXITY_SCHEMA, assemble, is_usable


def whole_text(_: Example, spans: IfdSpans) -> list[ScoredSequence]:
    """One pass that scores every token but the first: no response needs another."""
    return [scored_from(spans.input_ids, 1)] if has_losses(spans) else []


def has_losses(spans: IfdSpans) -> bool:
    """A response of which a token has something before it; the direct pass does not matter here."""
    scorable = spans.status in (*SCORABLE, "nonfinite")
    return scorable and any(end > max(begin, 1) for begin, end in spans.scored)


def conditional_or_none(spans: IfdSpans) -> ScoredSequence | None:
    """The conditional pass, None where nothing in it can be scored."""
    return spans.conditional if has_losses(spans) else None


def perplexity_table(
    ids: Sequence[str], spans: Sequence[IfdSpans], losses: Sequence[Sequence[SequenceLoss]]
) -> pa.Table:
    """The table of :data:`PERPLEXITY_SCHEMA`.

    ``nll_response`` is the mean over the response tokens of all turns given what stands before
    them, ``nll_text`` the mean over all tokens but the first; ``ppl_*`` are their exponentials.
    """
    statuses, response, text = [], [], []
    for span, row in zip(spans, losses, strict=True):
        means = _means(span, row[0]) if row else (math.nan, math.nan)
        usable = all(map(is_usable, means))
        response.append(means[0] if usable else math.nan)
        text.append(means[1] if usable else math.nan)
        statuses.append(status_of_pass(span, bool(row), usable))
    nll_response, nll_text = np.array(response, dtype=float), np.array(text, dtype=float)
    columns = {
        "nll_response": nll_response,
        "nll_text": nll_text,
        "ppl_response": np.exp(nll_response),
        "ppl_text": np.exp(nll_text),
    }
    return assemble(PERPLEXITY_SCHEMA, ids, spans, columns, statuses)


def _means(spans: IfdSpans, loss: SequenceLoss) -> tuple[float, float]:
    assert loss.token_nlls is not None
    nlls = loss.token_nlls.astype(np.float64)  # of tokens 1, 2, ...
    answers = [nlls[max(begin, 1) - 1 : end - 1] for begin, end in spans.scored]
    return float(np.concatenate(answers).mean()), float(nlls.mean())


def status_of_pass(spans: IfdSpans, was_passed: bool, is_finite: bool) -> str:
    """The status of a row of which only the conditional pass counts."""
    if not was_passed:
        return spans.status
    if not is_finite:
        return "nonfinite"
    # One answer token without a BOS has no IFD, but it has a perplexity.
    return "ok" if spans.status == "nonfinite" else spans.status
