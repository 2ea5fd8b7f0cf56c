"""What the arguments of a plan must be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of ``choices``.

    Raises:
        InputError: it is not.
    """
    if value not in choices:
        raise InputError(
            f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value!r}"
        )


def check_number(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is no whole number from ``least`` to ``most``.

    Raises:
        InputError: it is not.
    """
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if value > most:
        raise InputError(f"{name} must be at most {most}, got {value}")


def checked_lengths(name: str, lengths: Any) -> NDArray[np.int32]:
    """``lengths`` as int32, without a copy if they are.

    Raises:
        InputError: not a non-empty row of integers in [0, 2**31 - 1].
    """
    values = np.asarray(lengths)
    if values.ndim != 1 or len(values) == 0 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"{name} must be a non-empty row of integers, got {values.dtype} of shape "
            f"{values.shape}"
        )
    if values.min() < 0 or values.max() > np.iinfo(np.int32).max:
        raise InputError(f"{name} must lie in [0, 2**31 - 1], got {values.min()} to {values.max()}")
    return np.ascontiguousarray(values, dtype=np.int32)


def checked_tokens(name: str, values: Any) -> NDArray[np.int32]:
    """Token ids or labels of one example, as a copy in int32.

    Raises:
        InputError: not a row of integers (an empty one may be of any kind) that int32 holds.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(
            f"{name} must be a row of integers, got {array.dtype} of shape {array.shape}"
        )
    tokens = array.astype(np.int32)
    if not np.can_cast(array.dtype, np.int32) and (tokens != array).any():
        raise InputError(f"{name} must fit int32, got values from {array.min()} to {array.max()}")
    return tokens


def checked_weights(weights: Any, num_examples: int) -> NDArray[np.float64]:
    """How much each example counts in a loss.

    Raises:
        InputError: not ``num_examples`` finite numbers of at least 0.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (num_examples,):
        raise InputError(
            f"weights must be a row of {num_examples}, one an example, got shape {values.shape}"
        )
    bad = ~np.isfinite(values) | (values < 0)
    if bad.any():
        example = int(bad.argmax())
        raise InputError(
            f"weights must be finite and at least 0, got weights[{example}] = {values[example]}"
        )
    return values


def checked_prompts(
    prompt_seqlens: Any, seqlens: NDArray[np.int32], overflow: str
) -> NDArray[np.int32] | None:
    """``prompt_seqlens`` where the overflow policy reads them, else None.

    Raises:
        InputError: they are missing, not one for each of ``seqlens``, or longer.
    """
    if overflow != "truncate_prompt_left":
        return None
    if prompt_seqlens is None:
        raise InputError(
            "overflow='truncate_prompt_left' needs prompt_seqlens, the number of tokens of each "
            "example before the first that carries a loss"
        )
    prompts = checked_lengths("prompt_seqlens", prompt_seqlens)
    if prompts.shape != seqlens.shape:
        raise InputError(
            f"prompt_seqlens must be one for each of {len(seqlens)} examples, got {len(prompts)}"
        )
    longer = np.flatnonzero(prompts > seqlens)
    if len(longer):
        first = int(longer[0])
        raise InputError(
            f"prompt_seqlens[{first}] = {prompts[first]} is more than "
            f"seqlens[{first}] = {seqlens[first]}"
        )
    return prompts
