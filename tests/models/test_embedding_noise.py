"""The noise is SplitMix64 of the key and the place, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codeact.models import noise_key, uniform_noise
from codeact.models.stream.embedding_noise import add_noise

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def expected(key: int, position: int, channel: int, dim: int) -> float:
    state = (key + (position * dim + channel + 1) * 0x9E3779B97F4A7C15) & MASK
    return (splitmix(state) >> 40) * 2.0**-23 - 1.0


def test_first_outputs_of_the_published_generator() -> None:
    """Seed 1234567, from the reference implementation's test vectors."""
    words = [splitmix((1234567 + i * 0x9E3779B97F4A7C15) & MASK) for i in (1, 2)]
    assert words == [6457827717110365317, 3203168211198807973]
    found = ((uniform_noise(1234567, 0, 1, 2)[0] + 1) * 2**23).tolist()
    assert found == [word >> 40 for word in words]


@pytest.mark.parametrize("key", [0, 5, -1, -(2**63), 2**63 - 1])
def test_elements(key: int) -> None:
    noise = uniform_noise(key, 3, 4, 7)
    truth = [[expected(key, p, c, 7) for c in range(7)] for p in range(3, 7)]
    assert noise.tolist() == truth


def test_a_part_is_that_of_the_whole() -> None:
    assert torch.equal(uniform_noise(9, 0, 20, 16)[5:], uniform_noise(9, 5, 15, 16))


def test_it_is_uniform() -> None:
    noise = uniform_noise(noise_key(0, "row", 1), 0, 400, 500).double()
    assert -1 <= noise.min() < -0.9999
    assert 0.9999 < noise.max() < 1
    # Of 200,000 values the mean has a standard error of 0.0013, the variance one of 0.0007.
    assert abs(noise.mean()) < 0.006
    assert abs(noise.var() - 1 / 3) < 0.004
    other = uniform_noise(noise_key(0, "row", 2), 0, 400, 500).double()
    assert abs(np.corrcoef(noise.flatten(), other.flatten())[0, 1]) < 0.01


def test_keys_differ_in_every_part() -> None:
    parts = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a1", 1), (0, "é", 1)]
    assert len({noise_key(*part) for part in parts}) == len(parts)
    assert all(-(2**63) <= noise_key(*part) < 2**63 for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_added_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    embeddings = torch.randn(3, 8).to(dtype)
    keys, positions = torch.tensor([5, 5, 6]), torch.tensor([2, 3, 0])
    scales = torch.tensor([0.5, 0.0, 0.25])
    found = add_noise(*(x.to(device) for x in (embeddings, keys, positions, scales))).cpu()
    noise = torch.stack([uniform_noise(k, p, 1, 8)[0] for k, p in [(5, 2), (5, 3), (6, 0)]])
    assert torch.equal(found, (embeddings.float() + scales[:, None] * noise).to(dtype))
    assert torch.equal(found[1], embeddings[1])
