"""What a sentence-transformers model says about itself, read without that library."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeact.errors import InputError

_log = logging.getLogger(__name__)
_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceSettings:
    """How a sentence-transformers model makes a vector of the states of a text's tokens.

    Attributes:
        normalises: the vectors have length 1.
        beyond_mean: what it does besides a mean over the tokens, in words: "pools by cls"; None
            when that is all.
    """

    normalises: bool
    beyond_mean: str | None


def read_sentence_settings(source: str) -> SentenceSettings | None:
    """The settings of a folder or a Hugging Face id; None where there is no ``modules.json``.

    Raises:
        InputError: a settings file that is not there or not JSON.
    """
    path = _file_of(source, _MODULES)
    if path is None:
        return None
    modules = _read(path)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    return SentenceSettings("Normalize" in kinds, _beyond_mean(source, modules, kinds))


def _beyond_mean(source: str, modules: list[dict[str, Any]], kinds: list[str]) -> str | None:
    if tuple(kinds) not in (_KNOWN, _KNOWN[:2]):
        return f"is made of {', '.join(kinds)}"
    pooling = _required(source, f"{modules[1]['path']}/config.json")
    if (modes := _pooling_modes(pooling)) != ["mean"]:
        return f"pools by {' and '.join(modes)}"
    if not pooling.get("include_prompt", True):
        return "leaves its prompt out of the mean"
    if _optional(source, "sentence_bert_config.json").get("do_lower_case"):
        return "lower-cases its texts"
    whole = _optional(source, "config_sentence_transformers.json")
    if prompt := (whole.get("prompts") or {}).get(whole.get("default_prompt_name")):
        return f"puts {prompt!r} before every text"
    return None


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """Both spellings: ``pooling_mode`` since version 5.5, flags ``pooling_mode_*`` before."""
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        return [modes] if isinstance(modes, str) else list(modes)
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    names = [flag.removeprefix("pooling_mode_").removesuffix("_tokens") for flag in flags]
    return [name.removesuffix("_token") for name in names] or ["mean"]


def _file_of(source: str, name: str) -> Path | None:
    """Where a file of the model is; None if the model has none of that name."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except LocalEntryNotFoundError:  # no connection, and nothing is known of that file
        _log.warning("%s of %s cannot be looked up: taken as missing", name, source)
        return None
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{name} of {source!r} cannot be read: {reason}") from error


def _optional(source: str, name: str) -> dict[str, Any]:
    path = _file_of(source, name)
    found: dict[str, Any] = {} if path is None else _read(path)
    return found


def _required(source: str, name: str) -> dict[str, Any]:
    path = _file_of(source, name)
    if path is None:
        raise InputError(f"embedding model {source!r} lacks {name}, which its {_MODULES} names")
    found: dict[str, Any] = _read(path)
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
