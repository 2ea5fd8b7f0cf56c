"""One pack of sequences: laid out on the host, passed through the model, reduced on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from codeact.models.direction import is_moving
from codeact.models.hidden_states import OutputHead
from codeact.models.stream.embedding_noise import EmbeddingNoise, add_noise
from codeact.ops.segments import segment_sums
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoredSequence(NamedTuple):
    """Tokens, and aligned with them labels: ``IGNORE_INDEX`` where a token is not scored.

    Attributes:
        input_ids: (seqlen,) int32.
        labels: (seqlen,) int32. The first token is never scored: nothing before it predicts it.
        num_pooled: the hidden states of this many first tokens are averaged; 0 is no average.
        noise: added to the token embeddings.
        weigh_by_position: in that average token i of L, from 1, weighs ``i / (1 + ... + L)`` and
            not ``1 / L`` (RDS+, arXiv:2503.01807, after SGPT, arXiv:2202.08904): a token that looks
            back at more says more about the whole.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    num_pooled: int = 0
    noise: EmbeddingNoise | None = None
    weigh_by_position: bool = False

    @property
    def num_scored(self) -> int:
        """Tokens that carry a loss."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())


class SequenceLoss(NamedTuple):
    """What one sequence gave.

    Attributes:
        total: sum of the losses of its scored tokens in nats, summed in float64.
        num_scored: how many they are.
        token_nlls: (num_scored,) float32, where asked for.
        pooled: (hidden_size,) float32, the average of the hidden states (after the last norm) of
            its first ``num_pooled`` tokens; None if that is 0.
        tangent: derivative of ``total`` along the direction of
            :func:`codeact.models.direction.along`, summed in float64; None outside of it.
        token_tangents: (num_scored,) float32, that of each loss, where the losses are asked for.
    """

    total: float
    num_scored: int
    token_nlls: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None
    tangent: float | None = None
    token_tangents: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Noise:
    """:func:`add_noise`'s arguments for each token of a pack."""

    keys: Tensor
    positions: Tensor
    scales: Tensor


@dataclass(frozen=True)
class HostPack:
    """A pack ready for the device: what the model takes, and how to reduce what it gives.

    Attributes:
        members: which sequences of the stream it holds.
        batch: their tokens.
        cu_rows: (num_seqs + 1,) int64, ``batch.cu_rows`` as a tensor.
        is_pooled: which sequences' hidden states are averaged, on the host.
        pooled_lengths: (2 * num_seqs,) int64, of each sequence the tokens that are averaged and
            the others; None when no sequence's are.
        pool_weights: (num_tokens,) float32, each token's weight times the number of tokens it is
            averaged with; None when all weigh the same.
        noise: None when no sequence has any.
    """

    members: list[int]
    batch: PackedBatch
    cu_rows: Tensor
    is_pooled: list[bool]
    pooled_lengths: Tensor | None
    pool_weights: Tensor | None
    noise: _Noise | None

    def map(self, function: Callable[[Tensor], Tensor]) -> HostPack:
        """The same pack with each of its tensors replaced."""
        return replace(
            self,
            batch=_mapped(self.batch, function),
            cu_rows=function(self.cu_rows),
            pooled_lengths=_mapped_or_none(self.pooled_lengths, function),
            pool_weights=_mapped_or_none(self.pool_weights, function),
            noise=None if self.noise is None else _mapped(self.noise, function),
        )


_Fields = TypeVar("_Fields", PackedBatch, _Noise)


def _mapped(record: _Fields, function: Callable[[Tensor], Tensor]) -> _Fields:
    changed: dict[str, Any] = {
        name: function(value) for name, value in vars(record).items() if isinstance(value, Tensor)
    }
    return replace(record, **changed)


def _mapped_or_none(tensor: Tensor | None, function: Callable[[Tensor], Tensor]) -> Tensor | None:
    return None if tensor is None else function(tensor)


def host_pack(members: Sequence[int], sequences: Sequence[ScoredSequence]) -> HostPack:
    """Lay ``sequences`` end to end; ``members`` are their numbers in the stream."""
    batch = pack_sequences([s.input_ids for s in sequences], [s.labels for s in sequences])
    pooled = np.array([s.num_pooled for s in sequences], dtype=np.int64)
    lengths = np.array([len(s.input_ids) for s in sequences], dtype=np.int64)
    return HostPack(
        members=list(members),
        batch=batch,
        cu_rows=torch.from_numpy(np.asarray(batch.cu_rows, dtype=np.int64)),
        is_pooled=(pooled > 0).tolist(),
        pooled_lengths=torch.from_numpy(np.stack([pooled, lengths - pooled], axis=1).reshape(-1))
        if pooled.any()
        else None,
        pool_weights=_pool_weights(sequences)
        if any(s.num_pooled and s.weigh_by_position for s in sequences)
        else None,
        noise=_noise_of(sequences) if any(s.noise is not None for s in sequences) else None,
    )


def _pool_weights(sequences: Sequence[ScoredSequence]) -> Tensor:
    """Those of a sequence sum to its ``num_pooled``, so that an equal weight is 1, exactly."""
    weights = []
    for sequence in sequences:
        of_tokens = np.ones(len(sequence.input_ids), dtype=np.float32)
        if sequence.weigh_by_position:
            num_pooled = sequence.num_pooled
            of_tokens[:num_pooled] = np.arange(1, num_pooled + 1) * (2 / (num_pooled + 1))
        weights.append(of_tokens)
    return torch.from_numpy(np.concatenate(weights))


def _noise_of(sequences: Sequence[ScoredSequence]) -> _Noise:
    keys, positions, scales = [], [], []
    for sequence in sequences:
        num_tokens, noise = len(sequence.input_ids), sequence.noise or EmbeddingNoise(0, 0.0)
        keys.append(np.full(num_tokens, noise.key, dtype=np.int64))
        positions.append(np.arange(num_tokens) + (noise.first - noise.num_quiet))
        scale = np.full(num_tokens, noise.scale, dtype=np.float32)
        scale[: noise.num_quiet] = 0.0
        scales.append(scale)
    return _Noise(*(torch.from_numpy(np.concatenate(x)) for x in (keys, positions, scales)))


class _PackNumbers(NamedTuple):
    """What a pass gives of a pack, on the device or on its way from it."""

    sums: Tensor
    nlls: Tensor | None
    pooled: Tensor | None
    sum_tangents: Tensor | None
    nll_tangents: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> _PackNumbers:
        """The same with each of its tensors replaced."""
        others = (_mapped_or_none(x, function) for x in self[1:])
        return _PackNumbers(function(self.sums), *others)


class DeviceResult:
    """Numbers on their way from the device; :meth:`read` waits for them, once."""

    def __init__(self, pack: HostPack, numbers: _PackNumbers):
        self._pack = pack
        self._numbers = numbers.map(_to_host)
        self._done = None
        if numbers.sums.is_cuda:
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(numbers.sums.device))

    def read(self) -> list[tuple[int, SequenceLoss]]:
        """(number in the stream, result) of each sequence of the pack."""
        if self._done is not None:
            self._done.synchronize()
        members, is_pooled = self._pack.members, self._pack.is_pooled
        counts = np.diff(self._pack.batch.cu_rows).tolist()
        sums, nlls, pooled, sum_tangents, nll_tangents = self._numbers
        totals = sums.tolist()
        tangents = [None] * len(members) if sum_tangents is None else sum_tangents.tolist()
        of_tokens, of_tangents = self._by_sequence(nlls), self._by_sequence(nll_tangents)
        means = None if pooled is None else pooled.numpy()
        return [
            (
                member,
                SequenceLoss(
                    totals[seq],
                    counts[seq],
                    of_tokens[seq],
                    None if means is None or not is_pooled[seq] else means[seq].copy(),
                    tangents[seq],
                    of_tangents[seq],
                ),
            )
            for seq, member in enumerate(members)
        ]

    def _by_sequence(self, values: Tensor | None) -> Sequence[NDArray[np.float32] | None]:
        if values is None:
            return [None] * len(self._pack.members)
        # Copied: the results are kept, and pinned memory is not to be kept with them.
        return np.split(values.numpy().copy(), self._pack.batch.cu_rows[1:-1])


def _to_host(tensor: Tensor) -> Tensor:
    """A copy on the host; from a GPU into pinned memory and without waiting."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


@torch.no_grad()
def launch(
    model: PreTrainedModel, head: OutputHead, pack: HostPack, token_nlls: bool
) -> DeviceResult:
    """Pass a pack, whose tensors are on the model's device, through the model.

    Only the states of scored positions meet the output head, and only sums (and averages) of each
    sequence leave the device, unless ``token_nlls`` are asked for.
    """
    batch = pack.batch
    states = _states(model, pack)
    if batch.cu_rows[-1] > 0:
        nlls = head.nll(states[batch.rows], batch.targets)
    else:
        nlls = torch.zeros(0, device=states.device)
    sums, sum_tangents = forward_ad.unpack_dual(segment_sums(nlls, pack.cu_rows))
    nlls, nll_tangents = forward_ad.unpack_dual(nlls)
    if is_moving() and len(nlls) == 0:
        sum_tangents, nll_tangents = torch.zeros_like(sums), torch.zeros_like(nlls)
    elif is_moving() and sum_tangents is None:
        raise RuntimeError(
            "the direction does not reach the loss: an operation of this model dropped the tangent"
        )
    pooled = None
    if pack.pooled_lengths is not None:
        pooled = _pooled(
            forward_ad.unpack_dual(states).primal, pack.pooled_lengths, pack.pool_weights
        )
    of_tokens = (nlls, nll_tangents) if token_nlls else (None, None)
    return DeviceResult(pack, _PackNumbers(sums, of_tokens[0], pooled, sum_tangents, of_tokens[1]))


def _states(model: PreTrainedModel, pack: HostPack) -> Tensor:
    inputs = pack.batch.model_inputs()
    if pack.noise is not None:
        embeddings = model.get_input_embeddings()(inputs.pop("input_ids")[0])
        noise = pack.noise
        inputs["inputs_embeds"] = add_noise(embeddings, noise.keys, noise.positions, noise.scales)[
            None
        ]
    states: Tensor = model.get_decoder()(**inputs).last_hidden_state[0]
    return states


def _pooled(states: Tensor, lengths: Tensor, weights: Tensor | None) -> Tensor:
    """(num_seqs, hidden_size) float32 averages; NaN where nothing is averaged.

    ``segment_reduce`` sums each segment in order, so an average does not depend on the others in
    the pack; ``unsafe`` leaves out a check of the lengths that would wait for the device.
    """
    states = states.float()
    if weights is not None:
        states = states * weights[:, None]
    sums = torch.segment_reduce(states, "sum", lengths=lengths, axis=0, unsafe=True)
    return sums[::2] / lengths[::2, None]
