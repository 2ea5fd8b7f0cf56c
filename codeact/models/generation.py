"""Continue prompts with a causal language model, many at once, each as if it were alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from codeact.models.generation_alone import continue_alone
from codeact.models.generation_batches import CachedRows, why_not_packed
from codeact.models.generation_choice import Sampling
from codeact.models.generation_loop import Completes, Generated, GenerationLoop, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOG = logging.getLogger(__name__)

# (CPU, GPU). More rows than this make a step longer instead of sharing the reading of weights.
_MAX_ROWS = (32, 256)
_CPU_CACHE_BYTES = 2 * 2**30
_GPU_CACHE_SHARE = 0.4  # of what is free; a step copies a layer's keys, and logits are float64


def eos_ids(model: PreTrainedModel, tokenizer: Any = None) -> frozenset[int]:
    """Tokens that end an answer: those of the model's ``generation_config`` and the tokenizer's."""
    configured: Any = getattr(model.generation_config, "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    named = [*named, getattr(tokenizer, "eos_token_id", None)]
    return frozenset(int(token) for token in named if token is not None)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    eos_token_ids: frozenset[int],
    max_rows: int | None = None,
    cache_tokens: int | None = None,
    completes: Completes | None = None,
) -> Iterator[Generated]:
    """Continue prompts; results come as they are done, not in the order of the prompts.

    Prompts are read longest first in flat packs without padding, each once however many samples it
    has. Their keys and values then become rows that grow together, one token a step. A row that
    ends leaves at once, and the next prompts take its place. Each seed has random numbers of its
    own, so that batching, order and what was done before change a result only where the rounding of
    the logits decides between two tokens: hardly ever in float32, at near ties in bfloat16.

    Models that cannot be packed (recurrent layers, attention sinks, chunks) are continued one
    sequence after the other by transformers, with a warning and the same random numbers.

    Args:
        model: Loaded with ``attn_implementation="codeact"``, in evaluation mode.
        prompts: At least one token each.
        sampling: Temperature, top_p, and the limit of new tokens. Prompt and new tokens together
            stop at the model's ``max_position_embeddings``.
        eos_token_ids: Where a sequence ends (:func:`eos_ids`).
        max_rows: Sequences that grow together; None is 32 on a CPU and 256 on a GPU.
        cache_tokens: Rows times the width they may reach; one sequence runs even above it. None is
            2 GiB of keys and values on a CPU, and 40 % of the free memory of a GPU.
        completes: Asked after every token with all new tokens of its sequence; True ends it there,
            the last token included.

    Yields:
        One result for each seed of each prompt.

    Raises:
        ValueError: the model is in training mode; a prompt is empty or leaves no room for a token.
    """
    if model.training:
        raise ValueError("generate needs a model in evaluation mode: call model.eval()")
    limits = [_limit(model, index, prompt, sampling) for index, prompt in enumerate(prompts)]
    if not prompts:
        return
    if reason := why_not_packed(model):
        _LOG.warning("one sequence at a time, as prompts cannot be packed: %s", reason)
        yield from _one_by_one(model, prompts, limits, sampling, eos_token_ids, completes)
        return
    loop = GenerationLoop(model, prompts, limits, sampling, eos_token_ids, completes)
    yield from loop.run(*_room(model, max_rows, cache_tokens))


def room_for_tokens(model: PreTrainedModel) -> int | None:
    """Tokens that prompt and answer may have together, None if the model names no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def _limit(model: PreTrainedModel, index: int, prompt: Prompt, sampling: Sampling) -> int:
    """New tokens that a prompt leaves room for."""
    room = room_for_tokens(model)
    num_tokens = len(prompt.input_ids)
    if num_tokens == 0:
        raise ValueError(f"prompts must have a token or more, prompts[{index}] has none")
    if room is not None and num_tokens >= room:
        raise ValueError(f"prompts[{index}] has {num_tokens} tokens, the model takes {room}")
    wanted = sampling.max_new_tokens
    return wanted if room is None else min(wanted, room - num_tokens)


def _room(
    model: PreTrainedModel, max_rows: int | None, cache_tokens: int | None
) -> tuple[int, int]:
    on_gpu = model.device.type == "cuda"
    if cache_tokens is None:
        free = _CPU_CACHE_BYTES
        if on_gpu:
            free = int(_GPU_CACHE_SHARE * torch.cuda.mem_get_info(model.device)[0])
        one = CachedRows.prefill(model, [np.array([0])], [1])[0]
        cache_tokens = free // one.bytes_per_token
    return max_rows or _MAX_ROWS[on_gpu], cache_tokens


def _one_by_one(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    limits: Sequence[int],
    sampling: Sampling,
    eos_token_ids: frozenset[int],
    completes: Completes | None,
) -> Iterator[Generated]:
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        for sample, seed in enumerate(prompt.seeds):
            begin = time.perf_counter()
            token_ids = continue_alone(
                model, prompt.input_ids, seed, limit, sampling, eos_token_ids, completes
            )
            at_eos = bool(token_ids) and token_ids[-1] in eos_token_ids
            complete = at_eos or (completes is not None and completes(token_ids))
            yield Generated(
                index,
                sample,
                token_ids[:-1] if at_eos else token_ids,
                "stop" if complete else "length",
                time.perf_counter() - begin,
            )
