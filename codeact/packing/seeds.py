"""One seed for each thing that is shuffled, so that no two shuffles repeat each other."""

from __future__ import annotations

from hashlib import blake2b


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed below 2**64 for one purpose: a hash, so the same on every machine."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
