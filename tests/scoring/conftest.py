"""The ports of the published rules, and tiny models with and without a BOS."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codeact.models import LoadedModel, load_model

sys.path.insert(0, str(Path(__file__).parent))  # published.py, beside this file

from published import PortedScore, ported_score


@pytest.fixture(scope="session")
def port() -> Callable[..., PortedScore]:
    return ported_score


@pytest.fixture(scope="session")
def bos_model_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a tokenizer that puts a BOS before every text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("bos") / "model"
    shutil.copytree(tiny_model_folder, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["no-bos", "bos"])
def either(request: pytest.FixtureRequest) -> LoadedModel:
    folder = "tiny_model_folder" if request.param == "no-bos" else "bos_model_folder"
    return load_model(request.getfixturevalue(folder), device="cpu")


@pytest.fixture(scope="session")
def plain(tiny_model_folder: Path) -> Any:
    """The model as transformers runs it."""
    return load_model(tiny_model_folder, device="cpu", attn_implementation="eager").model
