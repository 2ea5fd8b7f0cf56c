"""A line of ``codeact env``."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """Something this machine has or lacks.

    Attributes:
        name: what it is.
        state: its version or place, or what is the matter.
        missing: where it is not there, why it matters and how to get it.
    """

    name: str
    state: str
    missing: str = ""
