"""Load a causal language model and its tokenizer, or say in one line what is missing."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from codeact.errors import InputError
from codeact.files import read_json
from codeact.models.attention.choice import require_backend
from codeact.models.attention.packed import (
    ATTN_IMPLEMENTATION,
    attn_implementation_of,
    register_attention,
)
from codeact.ops.device import resolve_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
DeviceName = Literal["auto", "cpu", "cuda"]
Quantization = Literal["nf4"]


class LoadedModel(NamedTuple):
    """A model in evaluation mode on its device, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def resolve_dtype(dtype: DtypeName | str, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 on a GPU and float32 on a CPU, where bfloat16 is mostly emulated.

    Raises:
        InputError: the name is none of float32, bfloat16, float16 and auto.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in named:
        raise InputError(f"dtype must be one of auto, {', '.join(named)}, got {dtype!r}")
    return named[dtype]


def load_model(
    name_or_path: str | Path,
    *,
    dtype: DtypeName | str = "auto",
    device: DeviceName | str = "auto",
    attn_implementation: str = ATTN_IMPLEMENTATION,
    attn_backend: str = "auto",
    adapter: str | Path | None = None,
    tokenizer: str | Path | None = None,
    quantization: Quantization | None = None,
) -> LoadedModel:
    """Load a causal language model from a local folder or a Hugging Face id.

    Args:
        name_or_path: folder with ``config.json``, weights and a tokenizer, or a hub id.
        dtype: of the weights; ``"auto"`` as in :func:`resolve_dtype`.
        device: where to; ``"auto"`` as in :func:`resolve_device`.
        attn_implementation: ``"codeact"`` keeps packed sequences apart.
        attn_backend: the kernel that does it, one of :func:`codeact.models.attention_backends`.
            ``"auto"`` is the best for each call. A named one serves every call or raises, at the
            first of a model with a feature that it lacks.
        adapter: folder of a PEFT adapter (``adapter_config.json``) to put into the model, unmerged:
            the model that is returned is the transformers one with the adapter's layers inside, so
            that its weights can be named apart. They are float32, as PEFT trains them.
        tokenizer: folder or id to take the tokenizer of; None is ``name_or_path``. (Checkpoints of
            a training are often written without one.)
        quantization: ``"nf4"`` stores the linear layers but the output projection in 4 bits, by
            bitsandbytes (NormalFloat with double quantisation, arXiv:2305.14314), and computes in
            ``dtype``; None leaves them. Such a model trains adapters only.

    Raises:
        InputError: no such folder or id, no config, no weights, or no tokenizer in it; no such
            backend, none for this device, or one beside another ``attn_implementation``; PEFT or
            bitsandbytes is not installed, or the adapter is none, or of a model of other shapes.
        ImportError: the backend is not installed.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    register_attention()
    source = _checked_source(name_or_path)
    placed = resolve_device(device)
    weights = resolve_dtype(dtype, placed)
    attn_implementation = _checked_attention(attn_implementation, attn_backend, placed)
    words = load_tokenizer(source if tokenizer is None else tokenizer)
    weights_file = None if adapter is None else _checked_adapter(adapter)
    quantized = _quantized(quantization, weights, placed)
    try:
        # With loading info it returns a pair, which its annotation does not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=weights,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **quantized,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"model {source!r} cannot be loaded: {_first_line(error)}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"model {source!r} lacks {len(missing)} weights, such as {missing[0]}: "
            "transformers would fill them with random numbers"
        )
    if weights_file is not None:
        model = _with_adapter(model, source, weights_file.parent)
    placed_model: PreTrainedModel = torch.nn.Module.to(model, placed).eval()
    return LoadedModel(placed_model, words)


def _quantized(
    quantization: Quantization | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """What ``from_pretrained`` takes to load 4-bit weights."""
    if quantization is None:
        return {}
    if quantization != "nf4":
        raise InputError(f"quantization must be nf4 or None, got {quantization!r}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("quantization = nf4 needs bitsandbytes: pip install 'codeact[quantized]'")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    # Weights are quantised where they are loaded.
    return {"quantization_config": config, "device_map": {"": device}}


def _checked_adapter(adapter: str | Path) -> Path:
    """The file with the weights of an adapter that can become layers of a model."""
    folder = Path(adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"adapter {str(adapter)!r} is no folder with an adapter_config.json")
    try:
        from peft import PeftConfig
    except ImportError:
        raise InputError(
            f"adapter {str(adapter)!r} needs peft: pip install 'codeact[train]'"
        ) from None
    if "peft_type" not in read_json(folder / "adapter_config.json"):
        raise InputError(f"adapter {str(adapter)!r}: adapter_config.json names no peft_type")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        reason = _first_line(error)
        raise InputError(f"adapter {str(adapter)!r} cannot be read: {reason}") from error
    if config.is_prompt_learning:
        raise InputError(
            f"adapter {str(adapter)!r} is {config.peft_type.value}, which changes the input and no "
            "layer: only adapters inside the layers, such as LORA, can be loaded"
        )
    files = [folder / f"adapter_model.{suffix}" for suffix in ("safetensors", "bin")]
    found = [file for file in files if file.is_file()]
    if not found:
        # PEFT would go and look for it in the hub.
        raise InputError(f"adapter {str(adapter)!r} has no adapter_model.safetensors")
    return found[0]


def _with_adapter(model: PreTrainedModel, source: str, folder: Path) -> PreTrainedModel:
    """The model with the adapter's layers inside; refuses one that fits only in part."""
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict, load_peft_weights
    from safetensors import SafetensorError

    words = f"adapter {str(folder)!r} does not fit model {source!r}"
    try:
        given = load_peft_weights(str(folder), device="cpu")
        with warnings.catch_warnings():
            # Of weights that it makes up, which are refused below.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
            around: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        # The first line names the class alone where shapes differ, the second the weight.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise InputError(f"{words}: {reason}") from error
    # PEFT passes over weights of layers that the model has not.
    expected = set(get_peft_model_state_dict(around, save_embedding_layers=False))
    known = set(around.get_base_model().state_dict())
    unused = [name for name in given if name not in expected and _plain(name) not in known]
    if odd := sorted(unused) + sorted(expected - set(given)):
        raise InputError(f"{words}: {odd[0]} is in only one of them")
    inside: PreTrainedModel = around.get_base_model()
    return inside


def _plain(name: str) -> str:
    """The model's name of a whole layer that PEFT has saved beside the adapter."""
    return name.removeprefix("base_model.model.")


def _checked_attention(attn_implementation: str, attn_backend: str, device: torch.device) -> str:
    if attn_backend == "auto":
        return attn_implementation
    if attn_implementation != ATTN_IMPLEMENTATION:
        raise InputError(
            f"attn_backend {attn_backend!r} is a kernel of attn_implementation "
            f"{ATTN_IMPLEMENTATION!r}, got {attn_implementation!r}"
        )
    try:
        require_backend(attn_backend, device)
    except ValueError as error:
        raise InputError(str(error)) from error
    return attn_implementation_of(attn_backend)


def _checked_source(name_or_path: str | Path, *, needs_config: bool = True) -> str:
    source = str(name_or_path)
    folder = Path(source).expanduser()
    if folder.is_dir():
        if needs_config and not (folder / "config.json").is_file():
            raise InputError(f"model folder {source!r} has no config.json")
        return str(folder)
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if folder.exists() or looks_like_path:
        raise InputError(f"model {source!r} is not a folder")
    return source


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or a Hugging Face id.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    is_adapter = (Path(name_or_path).expanduser() / "adapter_config.json").is_file()
    source = _checked_source(name_or_path, needs_config=not is_adapter)
    folder = Path(source)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise InputError(f"model folder {source!r} has no tokenizer (none of {', '.join(names)})")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"tokenizer of {source!r} cannot be loaded: {_first_line(error)}"
        ) from error
    return tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
