"""How long a sequence may be: what the caller, the preset and the model say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeact.errors import InputError
from codeact.scoring.presets import IfdPreset

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def resolve_max_length(config: PretrainedConfig, preset: IfdPreset, given: int | None) -> int:
    """The longest conditional sequence in tokens: given, else the preset's, else the model's.

    Raises:
        InputError: a length below 2 or above the model's positions, or none at all.
    """
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    chosen = given or preset.max_length or longest
    if chosen is None:
        raise InputError("max_length must be given: the model's config names no longest input")
    if given is not None and given < 2:
        raise InputError(f"max_length must be at least 2, got {given}")
    if longest is not None and given is not None and given > longest:
        raise InputError(f"max_length = {given} is above the model's {longest} positions")
    return min(chosen, longest) if longest is not None else chosen
