"""``codeact env`` says what is there, and of what is not why it matters and how to get it."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata

import pytest

from codeact.cli import env, main


def table(text: str) -> dict[str, str]:
    """Name -> mark and state of each line."""
    lines = {}
    for line in text.splitlines():
        mark, rest = line[0], line[2:]
        name, _, state = rest.partition("  ") if "  " in rest[:18] else rest.partition(" ")
        lines[name.strip()] = f"{mark} {state.strip()}"
    return lines


def test_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = table(out)
    assert lines["torch"] == f"✓ {metadata.version('torch')}"
    assert lines["codeact._C"].startswith("✓ built")
    assert lines["packed attention"].startswith("✓ ")
    assert {"python", "machine", "gpu", "c++", "nvcc", "valgrind", "sandbox"} <= lines.keys()
    assert lines["runs python"] == f"✓ Python {platform.python_version()}"
    for name, line in lines.items():
        assert line[0] in "✓–"
        if line[0] == "–":
            assert ";" in line, f"{name}: no reason with a remedy"


def test_missing_pieces_say_why_and_how(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(env._OPTIONAL, "no-such-package", "a reason; pip install it")
    assert main(["env"]) == 0
    lines = table(capfd.readouterr().out)
    assert lines["no-such-package"] == "– not installed: a reason; pip install it"
    assert lines["nvcc"].startswith("– not found: compiles the CUDA kernels")
    assert lines["sandbox"].startswith("– none (bwrap: bubblewrap is not installed: no bwrap on ")
    assert "apt-get install bubblewrap" in lines["sandbox"]


def test_without_the_native_module() -> None:
    code = (
        "import sys; sys.modules['codeact._C'] = None\n"
        "from codeact.cli import main; sys.exit(main(['env']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert table(done.stdout)["packed attention"].startswith("– unknown (")
    line = table(done.stdout)["codeact._C"]
    assert line.startswith("– not built (")
    assert line.endswith("packing needs it; pip install . in the sources, with a C++ compiler")


def test_attention_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["env"]) == 0
    lines = table(capfd.readouterr().out)
    assert lines["packed attention"] == "✓ per_sequence"
    assert lines["flex"] == "✓ PyTorch's flex_attention"
    assert lines["fa3"].startswith("– not available: fast attention")
    assert lines["fa3"].endswith("; needs a Hopper GPU (compute capability 9.0)")


def test_attention_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from codeact import models

    states = [
        models.BackendState("fa3", False, "flash_attn_interface is not installed; pip install it"),
        models.BackendState("varlen_attn", True, "PyTorch's varlen_attn"),
        models.BackendState("per_sequence", True, "PyTorch's scaled_dot_product_attention"),
    ]
    monkeypatch.setattr(models, "attention_backends", lambda: states)
    first, missing, *_ = env._attention(has_gpu=True)
    assert first == ("packed attention", "varlen_attn; in float32 per_sequence", "")
    assert missing.missing.endswith("; flash_attn_interface is not installed; pip install it")
