"""Shared fixtures: device, real data, real model, sandbox. Without a GPU, Triton interprets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from codeact.sandbox import Sandbox

if not torch.cuda.is_available():
    # Triton reads it when it is first imported, so before any test imports a kernel.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real rows to test on; the library does not ship them."""
    folder = os.environ.get("CODEACT_DATA")
    if not folder:
        pytest.skip("needs real rows: CODEACT_DATA names no folder")
    if not Path(folder).is_dir():
        pytest.skip(f"needs real rows: CODEACT_DATA is {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Where none holds, the tests that need one are not run, and never pass."""
    from codeact.sandbox import Sandbox, SandboxUnavailable

    try:
        made = Sandbox(workers=2)
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")
    with made:
        yield made


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct as a plain checkpoint."""
    if folder := os.environ.get("CODEACT_SMOLLM2"):
        return Path(folder)
    from codeact.errors import InputError
    from codeact.models import demo_model

    try:
        return demo_model()
    except InputError as error:
        pytest.skip(f"no SmolLM2 here: {error}")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama (2 layers, grouped-query attention), byte-level tokenizer, template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index + 3 for index, symbol in enumerate(alphabet)}
    vocabulary |= {"<pad>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
    )
    fast.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,  # random logits that differ enough to rank tokens
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
