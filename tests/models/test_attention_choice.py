"""Which attention kernel is chosen, and what the one that was named says if it cannot."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from attention_fakes import Installer, make_need, old_varlen_attn
from transformers import AttentionInterface

from codeact.models import attention_backends, register_attention
from codeact.models.attention import flash
from codeact.models.attention.choice import ATTENTION_BACKENDS, choose_backend, require_backend

ALL = ("fa2", "fa3", "fa4", "varlen_attn")
CHOICES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "hopper": ({}, ALL, "fa3"),
    "hopper, no package": ({}, ("varlen_attn",), "varlen_attn"),
    "hopper, nothing": ({}, (), "per_sequence"),
    "hopper, window": ({"sliding_window": 9}, ("fa2", "varlen_attn"), "varlen_attn"),
    "hopper, softcap": ({"softcap": 5.0}, ALL, "fa3"),
    "hopper, softcap, no fa3": ({"softcap": 5.0}, ("fa2", "fa4", "varlen_attn"), "fa4"),
    "softcap, no package": ({"softcap": 5.0}, ("varlen_attn",), "per_sequence"),
    "float32": ({"dtype": torch.float32}, ALL, "per_sequence"),
    "torch.func": ({"transform": True}, ALL, "per_sequence"),
    "ampere": ({"sm": (8, 0)}, ALL, "varlen_attn"),
    "ampere, softcap": ({"sm": (8, 6), "softcap": 5.0}, ALL, "fa2"),
    "blackwell": ({"sm": (10, 0)}, ALL, "varlen_attn"),
    "blackwell, softcap": ({"sm": (10, 0), "softcap": 5.0}, ALL, "fa4"),
    "consumer blackwell, softcap": ({"sm": (12, 0), "softcap": 5.0}, ALL, "fa2"),
    "blackwell, wide, softcap": ({"sm": (10, 0), "head_dim": 256, "value_head_dim": 256,
                                  "softcap": 5.0}, ALL, "fa2"),
    "turing": ({"sm": (7, 5)}, ALL, "per_sequence"),
    "odd head_dim": ({"head_dim": 36, "value_head_dim": 36}, ALL, "fa2"),
    "huge head_dim": ({"head_dim": 512, "value_head_dim": 512}, ALL, "per_sequence"),
    "narrow values": ({"head_dim": 192, "value_head_dim": 128}, ALL, "per_sequence"),
    "cpu": ({"device": "cpu", "sm": None}, ALL, "per_sequence"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_choice(install: Installer, case: str) -> None:
    changes, installed, expected = CHOICES[case]
    install(*installed)
    assert choose_backend("auto", make_need(**changes)).name == expected


def test_window_before_pytorch_had_it(install: Installer) -> None:
    install("varlen_attn", "fa2", varlen_attn=old_varlen_attn)
    assert choose_backend("auto", make_need()).name == "varlen_attn"
    assert choose_backend("auto", make_need(sliding_window=9)).name == "fa2"


ON_CPU = {"device": "cpu", "sm": None}
REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "softcap": (
        "varlen_attn",
        {"softcap": 50.0},
        r"has no softcap \(here 50\); fa3 .+ or flex can",
    ),
    "device": ("fa2", ON_CPU, "needs a CUDA GPU .+, not cpu; per_sequence can"),
    "generation": ("fa3", {"sm": (8, 0)}, "needs a Hopper GPU .+ not cuda of sm_80; varlen_attn"),
    "dtype": ("fa4", {"dtype": torch.float32}, "takes float16, bfloat16, not float32; per_seq"),
    "head_dim": ("fa3", {"head_dim": 36}, "a head_dim of 8 to 256 in steps of 8, not 36; per_seq"),
    "values": ("fa2", {"value_head_dim": 32}, "values as wide as keys, not 32 beside 64; per_seq"),
    "backward": ("flex", ON_CPU, "no backward pass on cpu; per_sequence can"),
    "torch.func": ("fa2", {"transform": True}, "inside torch.func transforms; per_sequence can"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_named_backend_never_falls_back(install: Installer, case: str) -> None:
    install(*ALL)
    backend, changes, message = REFUSALS[case]
    with pytest.raises(ValueError, match=f"attention backend '{backend}' .*{message}"):
        choose_backend(backend, make_need(**changes))


@pytest.mark.parametrize("backend", ["fa2", "fa3", "fa4", "varlen_attn"])
def test_missing_package_names_its_command(install: Installer, backend: str) -> None:
    install()
    with pytest.raises(ImportError, match=f"attention backend '{backend}': .+; pip install"):
        choose_backend(backend, make_need())


def test_version_4_alone_is_not_version_2(install: Installer) -> None:
    install("fa4")
    with pytest.raises(ImportError, match="flash_attn is not installed; pip install flash-attn "):
        choose_backend("fa2", make_need())


def test_version_3_under_its_newer_name(
    install: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("fa3")
    module = sys.modules["flash_attn_interface"]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    monkeypatch.setitem(sys.modules, "flash_attn_3", ModuleType("flash_attn_3"))
    monkeypatch.setitem(sys.modules, "flash_attn_3.flash_attn_interface", module)
    assert choose_backend("auto", make_need()).name == "fa3"


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_package_of_another_torch(
    install: Installer, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    install("varlen_attn")

    def import_module(name: str) -> Any:
        raise error("flash_attn_2_cuda.so: undefined symbol: _ZN3c10\nmore")

    monkeypatch.setattr(flash, "import_module", import_module)
    with pytest.raises(ImportError, match=r"cannot be imported \(.+undefined symbol: _ZN3c10\); p"):
        choose_backend("fa2", make_need())
    assert choose_backend("auto", make_need()).name == "varlen_attn"


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"must be one of auto, fa3, .+, got 'flash'"):
        choose_backend("flash", make_need())
    with pytest.raises(ValueError, match="must be one of auto"):
        require_backend("flash", torch.device("cpu"))


def test_required_backend(install: Installer) -> None:
    require_backend("auto", torch.device("cpu"))
    require_backend("flex", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"'fa2' needs a CUDA GPU .+, got cpu"):
        require_backend("fa2", torch.device("cpu"))


def test_table_of_this_machine(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    install("fa3", "varlen_attn")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    states = {state.name: state for state in attention_backends()}
    assert [name for name, state in states.items() if state.available] == ["per_sequence", "flex"]
    assert states["fa3"].reason == "needs a Hopper GPU (compute capability 9.0)"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (9, 0))
    states = {state.name: state for state in attention_backends()}
    assert [n for n, s in states.items() if not s.available] == ["fa4", "fa2"]
    assert states["fa2"].reason.endswith("; pip install flash-attn --no-build-isolation")
    assert states["fa3"].reason == "flash-attn 3"


def test_names_known_to_transformers() -> None:
    register_attention()
    names = ["codeact", *(f"codeact_{backend}" for backend in ATTENTION_BACKENDS)]
    assert set(names) <= set(AttentionInterface().valid_keys())
    # transformers would load kernels of its own for such a name
    assert not any("flash" in name or "flex_attention" in name for name in names)
