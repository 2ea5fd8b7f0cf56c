"""A sandbox of the attacks' own, whose temporary files are in a folder of their own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeact.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parents[1]))  # attacks.harness, cheats


@pytest.fixture(scope="session")
def arena(sandbox: Sandbox) -> Iterator[Sandbox]:
    """One worker, so that what an attack leaves meets the next run; skipped without a sandbox."""
    folder = Path(tempfile.mkdtemp(prefix="attacks-"))
    folder.chmod(0o755)  # the sandbox's own user passes through
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with Sandbox(workers=1) as own:
            yield own
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder)
