"""How long loops report where they are, without knowing who draws the bar."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called as ``on_progress(done, total)``, both in the same unit, ``done == total`` at the end."""
