"""What can be refused before any work: options out of range, outputs that cannot be written."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from codeact.errors import InputError

TABLES = (".parquet", ".jsonl")


def check_at_least(least: int, **options: int | None) -> None:
    """Refuse a whole number below ``least``; None, an option that was not given, passes.

    Args:
        least: the smallest number allowed.
        **options: by the option's name, ``batch_size`` for ``--batch-size``.

    Raises:
        InputError: one of them is smaller.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise InputError(f"{_option(name)} must be at least {least}, got {value}")


def check_positive(**options: float) -> None:
    """Refuse a number that is 0, negative, infinite or NaN; named as in :func:`check_at_least`.

    Raises:
        InputError: one of them is.
    """
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise InputError(f"{_option(name)} must be above 0 and finite, got {value}")


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy would.

    Raises:
        InputError: it is negative or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed must be from 0 to 4294967295, got {seed}")


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of ``choices``.

    Raises:
        InputError: it is not.
    """
    if value not in choices:
        raise InputError(f"{option} must be {' or '.join(choices)}, got {value!r}")


def parse_columns(pairs: list[str] | None) -> dict[str, str] | None:
    """``["instruction=problem"]`` of ``--column`` as a mapping.

    Raises:
        InputError: an entry without ``=``.
    """
    if not pairs:
        return None
    split = [pair.partition("=") for pair in pairs]
    for pair, (_, equals, _) in zip(pairs, split, strict=True):
        if not equals:
            raise InputError(
                f"--column must be field=name, such as instruction=problem, got {pair!r}"
            )
    return {field: name for field, _, name in split}


def check_output(
    output: Path | None, suffixes: tuple[str, ...] = TABLES, *, option: str = "--output"
) -> None:
    """Refuse a file that could not be written, before hours of work.

    Raises:
        InputError: an unknown suffix, a folder of that name, or a parent folder that does not
            exist or cannot be written to.
    """
    if output is None:
        return
    if output.suffix not in suffixes:
        raise InputError(f"{option} must end in {' or '.join(suffixes)}, got {output}")
    if output.is_dir():
        raise InputError(f"{option} must be a file, got the folder {output}")
    _check_writable(output.parent, option)


def _check_writable(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{option}: folder {folder} does not exist")
    try:
        # Trying is the only sure way: permission bits say little about root and network mounts.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{option}: folder {folder} cannot be written to ({error.strerror})"
        ) from None


def check_new_folder(output: Path) -> None:
    """Refuse an output folder that holds something or could not be made.

    Raises:
        InputError: ``output`` is a file or a folder with content, or its parent folder does not
            exist or cannot be written to.
    """
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"--output must be a new or empty folder, {output} holds files already")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output must be a folder, got the file {output}")
    _check_writable(output.absolute().parent, "--output")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
