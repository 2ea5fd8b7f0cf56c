"""A sandbox for the whole session. Where none holds, its tests are not run, and never pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codeact.sandbox import Sandbox, SandboxUnavailable


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    try:
        made = Sandbox(workers=2)
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")
    with made:
        yield made
