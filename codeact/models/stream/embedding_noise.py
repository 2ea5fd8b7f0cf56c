"""Uniform noise on token embeddings, the same for a key wherever and beside whatever it is made."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import torch
from torch import Tensor


class EmbeddingNoise(NamedTuple):
    """Noise of one sequence.

    Attributes:
        key: seed of the sequence's own random stream, see :func:`noise_key`.
        scale: the noise is uniform in [-scale, scale).
        first: position in the stream of the first token that gets noise; the tokens that two
            sequences share get equal noise if they stand at equal positions.
        num_quiet: tokens at the start of the sequence that get none.
    """

    key: int
    scale: float
    first: int = 0
    num_quiet: int = 0


def noise_key(seed: int, name: str, copy: int) -> int:
    """A signed 64-bit key of its own for each noisy copy of each example."""
    text = json.dumps([seed, name, copy]).encode("ascii")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def uniform_noise(key: int, first: int, num_tokens: int, dim: int) -> Tensor:
    """(num_tokens, dim) float32 in [-1, 1) on the CPU: what :func:`add_noise` adds, unscaled."""
    positions = torch.arange(first, first + num_tokens)
    return _uniform(torch.full((num_tokens,), key), positions, dim)


def add_noise(embeddings: Tensor, keys: Tensor, positions: Tensor, scales: Tensor) -> Tensor:
    """Embeddings plus noise, added in float32 and rounded once.

    Args:
        embeddings: (num_tokens, dim).
        keys: (num_tokens,) int64, the key of each token's sequence.
        positions: (num_tokens,) int64, the token's position in that stream.
        scales: (num_tokens,) float32, 0 where a token stays as it is.

    Returns:
        (num_tokens, dim) in the dtype of ``embeddings``.
    """
    noise = _uniform(keys, positions, embeddings.shape[1]).mul_(scales[:, None])
    return noise.add_(embeddings).to(embeddings.dtype)


# SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): element c of token p is output p * dim + c of the
# generator seeded with the key. It is integer arithmetic modulo 2**64, so a CPU and a GPU agree to
# the bit, and it is counter-based, so no element depends on which others are made with it. The
# constants are the published ones as signed numbers.
_STEP = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15
_ROUNDS = ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15))  # 0xBF58..., 0x94D0...


def _uniform(keys: Tensor, positions: Tensor, dim: int) -> Tensor:
    channels = torch.arange(1, dim + 1, device=keys.device)
    state = (positions * dim)[:, None] + channels
    state.mul_(_STEP).add_(keys[:, None])
    for bits, factor in _ROUNDS:
        state.bitwise_xor_(_shifted(state, bits)).mul_(factor)
    state.bitwise_xor_(_shifted(state, 31))
    # 24 bits: as many as float32 has, so that no value rounds up to 1.
    return _shifted(state, 40).to(torch.float32).mul_(2.0**-23).sub_(1.0)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Logical right shift; PyTorch's repeats the sign."""
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)
