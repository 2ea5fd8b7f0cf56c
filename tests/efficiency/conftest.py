"""The helpers next to this file as modules, and a sandbox where one holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # made_measurements


@pytest.fixture(scope="module")
def sandbox():
    from codeact.sandbox import Sandbox, SandboxUnavailable

    try:
        made = Sandbox(workers=2)
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")
    with made:
        yield made
