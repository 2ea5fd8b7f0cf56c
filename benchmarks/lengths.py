"""Sets of sequence lengths to pack: two synthetic ones, and those of real rows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeact.data import Example, load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import demo_model
from codeact.models.loading import load_tokenizer

Lengths = NDArray[np.int32]

# Capacity that goes with a set; both synthetic sets are those of the rivals' comparison in the
# docs: instruction data in short context, and the same with a tail of long documents.
CAPACITY = {"code4k": 4096, "mix32k": 32768, "real": 4096}
_MEDIAN, _SIGMA = 450, 0.8
_LONG_SHARE, _LONG_MEDIAN = 0.15, 6000


def code4k(num_seqs: int, *, seed: int = 0) -> Lengths:
    """Lognormal lengths of median 450 and sigma 0.8, clipped to [16, 4096]; mean about 615."""
    rng = np.random.default_rng(seed)
    return _clipped(rng.lognormal(np.log(_MEDIAN), _SIGMA, num_seqs), 4096)


def mix32k(num_seqs: int, *, seed: int = 0) -> Lengths:
    """85 % as :func:`code4k`, 15 % lognormal of median 6000, clipped to [16, 32768].

    The mean is about 1,730 tokens.
    """
    rng = np.random.default_rng(seed)
    is_long = rng.random(num_seqs) < _LONG_SHARE
    medians = np.where(is_long, np.log(_LONG_MEDIAN), np.log(_MEDIAN))
    lengths = rng.lognormal(medians, _SIGMA)
    lengths[~is_long] = lengths[~is_long].clip(max=4096)
    return _clipped(lengths, 32768)


def lognormal_of_mean(num_seqs: int, mean: float, sigma: float, cap: int, seed: int = 0) -> Lengths:
    """Lognormal lengths with this mean before clipping to [16, cap].

    Mean 450, sigma 0.27 and mean 500, sigma 0.49 have the padding rates published for OSS-Instruct
    and Evol-Instruct with CodeACT (arXiv:2504.12687).
    """
    rng = np.random.default_rng(seed)
    return _clipped(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, num_seqs), cap)


def _clipped(lengths: NDArray[np.float64], cap: int) -> Lengths:
    return lengths.clip(16, cap).astype(np.int32)


def resample(lengths: Lengths, num_seqs: int, *, seed: int = 0) -> Lengths:
    """``num_seqs`` lengths drawn from ``lengths``: a bootstrap, so that real rows fill any size.

    All of them, once each and shuffled, where there are as many as wanted.
    """
    rng = np.random.default_rng(seed)
    if num_seqs == len(lengths):
        return rng.permutation(lengths)
    return rng.choice(lengths, num_seqs)


def load_rows(source: str | None = None) -> list[Example]:
    """The rows of a file, a Hugging Face id or a folder of JSON Lines; of ``$CODEACT_DATA/sft``.

    Of a folder, files without an instruction and an answer are left out.

    Raises:
        InputError: there are no such rows, or ``source`` is None and ``CODEACT_DATA`` not set.
    """
    if source is None:
        if "CODEACT_DATA" not in os.environ:
            raise InputError("no data named, and CODEACT_DATA is not set")
        source = str(Path(os.environ["CODEACT_DATA"]) / "sft")
    if not Path(source).is_dir():
        return list(load_examples(source))
    rows: list[Example] = []
    for file in sorted(Path(source).glob("*.jsonl*")):
        with contextlib.suppress(InputError):
            rows.extend(load_examples(file))
    if not rows:
        raise InputError(f"{source} holds no JSON Lines with an instruction and an answer")
    return rows


def real_lengths(
    model: str | None = None, *, max_length: int = 4096, max_rows: int | None = None
) -> Lengths:
    """Tokens of the rows in ``$CODEACT_DATA/sft``, cut to ``max_length``; empty ones left out.

    Args:
        model: whose tokenizer; the demo model's by default.
        max_length: longest sequence.
        max_rows: a random sample of so many, to save time; None is all.

    Raises:
        InputError: there is no such folder, or no tokenizer and no way to fetch one.
    """
    rows = load_rows()
    if max_rows is not None and max_rows < len(rows):
        chosen = np.random.default_rng(0).choice(len(rows), max_rows, replace=False)
        rows = [rows[row] for row in chosen]
    tokenizer = load_tokenizer(model or demo_model())
    seqlens = tokenize_examples(rows, tokenizer, max_length=max_length).seqlens
    return seqlens[seqlens > 0]
