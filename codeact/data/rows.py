"""Rows of a data file, folder, Hugging Face id or list, before anyone asks what they mean."""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from codeact.errors import InputError

_JSON = (".json", ".json.gz")
_JSON_LINES = (".jsonl", ".jsonl.gz")
_PARQUET = (".parquet",)
_READABLE = (*_JSON, *_JSON_LINES, *_PARQUET)
# "org/name" or "name"; a last part like ".jsonl" says file, one like ".5" is a version number.
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")


class Rows(NamedTuple):
    """Rows as they came; ``line_numbers`` (1-based) only where rows are lines of a text file."""

    rows: list[Any]
    source: str
    stem: str
    line_numbers: list[int] | None = None

    def place(self, index: int) -> str:
        """Where row ``index`` stands, for an error message."""
        if self.line_numbers is not None:
            return f"{self.source}:{self.line_numbers[index]}"
        return f"{self.source}: row {index}"


def read_rows(source: str | Path | Sequence[Mapping[str, Any]], split: str) -> Rows:
    """Read every row of ``source`` (see :func:`codeact.data.load_examples`).

    Raises:
        InputError: It is not there, cannot be read or parsed, or holds no row.
    """
    if isinstance(source, (str, Path)):
        rows = _read_named(source, split)
    elif isinstance(source, Sequence):
        rows = Rows(list(source), "rows", "row")
    else:
        raise InputError(
            f"source must be a path, an id or a list of rows, got {type(source).__name__}"
        )
    if not rows.rows:
        raise InputError(f"{rows.source}: the data set is empty, at least one row is needed")
    return rows


def _read_named(source: str | Path, split: str) -> Rows:
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_saved_folder(path, split)
    if path.exists():
        return _read_file(path)
    if isinstance(source, str) and _looks_like_hub_id(source):
        return _read_hub(source, split)
    raise InputError(f"{source}: file not found")


def _looks_like_hub_id(source: str) -> bool:
    if not _HUB_ID.fullmatch(source) or _FILE_SUFFIX.search(source):
        return False
    return "/" not in source or not Path(source.split("/")[0]).exists()


def _read_file(path: Path) -> Rows:
    name = path.name.lower()
    suffix = next((known for known in _READABLE if name.endswith(known)), None)
    if suffix is None:
        raise InputError(f"{path}: file must end in {', '.join(_READABLE)}")
    stem = path.name[: -len(suffix)]
    try:
        if suffix in _PARQUET:
            return Rows(_read_parquet(path), str(path), stem)
        if suffix in _JSON:
            return Rows(_read_json(path), str(path), stem)
        numbered = list(_read_json_lines(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: text must be UTF-8 ({error.reason})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return Rows([row for _, row in numbered], str(path), stem, [line for line, _ in numbered])


def _open(path: Path) -> IO[str]:
    # utf-8-sig also takes a byte order mark, which Windows editors write and json rejects.
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, _with_shared_names(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}:{number}: not a JSON object ({error.msg} at column {error.colno})"
                ) from None


def _with_shared_names(row: Any) -> Any:
    """The row with one string for each column's name, not one a row: a tenth of the memory."""
    if not isinstance(row, dict):
        return row
    return {sys.intern(name): value for name, value in row.items()}


def _read_json(path: Path) -> list[Any]:
    with _open(path) as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})"
            ) from None
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise InputError(
            f'{path}: must hold a list of rows or {{"data": [...]}}, got {type(content).__name__}'
        )
    return content


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow as pa  # 0.1 s, and JSON needs none of it
    import pyarrow.parquet as pq

    try:
        rows: list[Any] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({_first_line(error)})") from None
    return rows


def _read_saved_folder(path: Path, split: str) -> Rows:
    from datasets import DatasetDict, load_from_disk  # 2 s

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError:
        raise InputError(
            f"{path}: a folder must be one that datasets saved (save_to_disk)"
        ) from None
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise InputError(f"{path}: split must be one of {', '.join(loaded)}, got {split}")
        loaded = loaded[split]
    return Rows(list(loaded), str(path), path.name)


def _read_hub(source: str, split: str) -> Rows:
    import datasets

    try:
        loaded = datasets.load_dataset(source, split=split)
    except Exception as error:  # datasets raises a dozen types: network, access, name, split
        raise InputError(
            f"{source}: no such file or folder here, and no Hugging Face dataset that loads "
            f"with split {split} ({type(error).__name__}: {_first_line(error)})"
        ) from error
    return Rows(list(loaded), source, source.split("/")[-1])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
