"""The loop of generation: rows that grow a token a step, and prompts that wait for a place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.models.generation_batches import CachedRows, TokenIds
from codeact.models.generation_choice import Sampling, choose_tokens, uniform_draws

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFILL_TOKENS = (2048, 16384)  # of one flat pass over prompts: bounds its activations
# Prompts join when this share of the rows is free: each time stops all others for a prefill.
_JOIN_SHARE = 0.25

Completes = Callable[[list[int]], bool]
"""Whether the new tokens of a sequence already hold its end, as where a stop string stands."""


class Prompt(NamedTuple):
    """What is to be continued, once for each of the seeds; at temperature 0 they do nothing."""

    input_ids: TokenIds
    seeds: tuple[int, ...]


class Generated(NamedTuple):
    """One continuation.

    Attributes:
        prompt: Index of the prompt.
        sample: Index into its seeds.
        token_ids: New tokens, without the EOS token.
        finish: ``"stop"`` at an EOS token or where ``completes`` said so, ``"length"`` where it
            was cut.
        seconds: Wall time from the reading of its prompt to its last token, in a batch with others.
    """

    prompt: int
    sample: int
    token_ids: list[int]
    finish: Literal["stop", "length"]
    seconds: float


@dataclass
class _Row:
    """A sequence that is being continued."""

    prompt: int
    sample: int
    limit: int
    uniforms: NDArray[np.float64] | None
    begin: float
    token_ids: list[int] = field(default_factory=list)


class _Group(NamedTuple):
    """Samples of one prompt that start together, and the width their rows may grow to."""

    prompt: int
    samples: tuple[int, ...]
    limit: int
    width: int


class GenerationLoop:
    """The rows that grow, the prompts that wait, and the steps between."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Prompt],
        limits: Sequence[int],
        sampling: Sampling,
        eos_token_ids: frozenset[int],
        completes: Completes | None = None,
    ) -> None:
        self.model, self.prompts, self.limits = model, prompts, limits
        self.sampling, self.eos_token_ids = sampling, eos_token_ids
        self.completes = completes
        self.rows: list[_Row] = []
        self.cached: CachedRows | None = None
        self.logits: Tensor | None = None

    def run(self, max_rows: int, cache_tokens: int) -> Iterator[Generated]:
        """Continue everything."""
        waiting = self._groups(max_rows, cache_tokens)
        while waiting or self.rows:
            free = max_rows - len(self.rows)
            joining = not self.rows or free >= _JOIN_SHARE * max_rows
            # Until nothing more fits: one prefill may take fewer prompts than there is room for.
            while joining and (groups := self._admitted(waiting, free, cache_tokens)):
                self._start(groups)
                free = max_rows - len(self.rows)
            yield from self._step()

    def _groups(self, max_rows: int, cache_tokens: int) -> deque[_Group]:
        """Samples of a prompt in groups that fit, the widest prompts first."""
        groups = []
        for index in np.argsort([-len(prompt.input_ids) for prompt in self.prompts], kind="stable"):
            prompt, limit = self.prompts[index], self.limits[index]
            width = len(prompt.input_ids) + limit
            size = max(1, min(max_rows, cache_tokens // width))
            samples = range(len(prompt.seeds))
            groups += [
                _Group(int(index), tuple(samples[begin : begin + size]), limit, width)
                for begin in range(0, len(samples), size)
            ]
        return deque(groups)

    def _admitted(self, waiting: deque[_Group], free: int, cache_tokens: int) -> list[_Group]:
        """The next groups that fit beside the rows, as many as one prefill takes."""
        admitted: list[_Group] = []
        num_tokens, num_rows = 0, len(self.rows)
        widths = [len(self.prompts[row.prompt].input_ids) + row.limit for row in self.rows]
        width = max(widths, default=0)
        while waiting:
            group = waiting[0]
            length = len(self.prompts[group.prompt].input_ids)
            rows_then = num_rows + len(group.samples)
            fits = (
                len(group.samples) <= free
                and rows_then * max(width, group.width) <= cache_tokens
                and num_tokens + length <= _PREFILL_TOKENS[self.model.device.type == "cuda"]
            )
            # The first of all runs whatever it takes: nothing else will make room for it.
            if not fits and (admitted or self.rows):
                break
            admitted.append(waiting.popleft())
            num_tokens, num_rows = num_tokens + length, rows_then
            free, width = free - len(group.samples), max(width, group.width)
        return admitted

    def _start(self, groups: Sequence[_Group]) -> None:
        """Read the prompts of some groups and put their rows behind the others."""
        begin = time.perf_counter()
        ids = [self.prompts[group.prompt].input_ids for group in groups]
        copies = [len(group.samples) for group in groups]
        cached, logits = CachedRows.prefill(self.model, ids, copies)
        if self.cached is None or self.logits is None:
            self.cached, self.logits = cached, logits
        else:
            self.cached.join(cached)
            self.logits = torch.cat([self.logits, logits])
        for group in groups:
            seeds = self.prompts[group.prompt].seeds
            for sample in group.samples:
                draws = None
                if self.sampling.temperature > 0:
                    draws = uniform_draws(seeds[sample], group.limit)
                self.rows.append(_Row(group.prompt, sample, group.limit, draws, begin))

    def _step(self) -> Iterator[Generated]:
        """Choose a token for every row, give back those that end, and compute the others on."""
        if self.cached is None or self.logits is None:
            return
        tokens = choose_tokens(self.logits, self._uniforms(), self.sampling)
        alive = []
        for number, (row, token) in enumerate(zip(self.rows, tokens.tolist(), strict=True)):
            stopped = token in self.eos_token_ids
            if not stopped:
                row.token_ids.append(token)
                stopped = self.completes is not None and self.completes(row.token_ids)
            if not stopped and len(row.token_ids) < row.limit:
                alive.append(number)
                continue
            seconds = time.perf_counter() - row.begin
            finish: Literal["stop", "length"] = "stop" if stopped else "length"
            yield Generated(row.prompt, row.sample, row.token_ids, finish, seconds)
        if len(alive) < len(self.rows):
            self.rows = [self.rows[number] for number in alive]
            if not alive:
                self.cached = self.logits = None
                return
            self.cached.keep(alive)
            tokens = tokens[torch.tensor(alive, device=tokens.device)]
        self.logits = self.cached.step(self.model, tokens)

    def _uniforms(self) -> Tensor | None:
        """(num_rows,) float64, the number of each row's next token."""
        if self.sampling.temperature == 0:
            return None
        drawn = [row.uniforms[len(row.token_ids)] for row in self.rows if row.uniforms is not None]
        return torch.tensor(drawn, dtype=torch.float64, device=self.model.device)
