"""Files that appear whole or not at all, and errors that name the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well.

    A reader sees the old file or the new one, never half of one; when the block raises, the old
    file stays and the temporary one goes. The folder is made when it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same file system: atomic
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder that does not exist yet (or is empty)."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text with ``\\n`` line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: object) -> None:
    """Writes one JSON value, indented, atomically; NaN is a ValueError, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, atomically; NaN is a ValueError, as JSON has none."""
    with replacing(path) as temporary, temporary.open("wb") as out:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
            # Half of a surrogate pair is no UTF-8; what replaces it is JSON's escape of it.
            out.write(line.encode(errors="backslashreplace"))


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Writes an Arrow table as Parquet (zstd), atomically."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_npy(path: str | Path, array: np.ndarray[Any, Any]) -> None:
    """Writes a NumPy array (no object arrays), atomically."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as out:
        np.save(out, array, allow_pickle=False)


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; InputError with the file's name when it is missing or broken."""
    with _naming(path):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, one at a time; InputError with file and line when one is broken."""
    with _naming(path), Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path} line {number} is no JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:  # an int of too many digits, too deep
                raise InputError(f"{path} line {number} cannot be read: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"{path} line {number} must be a JSON object, got {line[:40]!r}")
            yield row


def read_parquet(path: str | Path, columns: Sequence[str]) -> pa.Table:
    """These columns of a Parquet file; InputError when it is broken or lacks one of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _naming(path):
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise InputError(f"{path} lacks the column {missing[0]}")
                return file.read(columns=list(columns))
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be read as Parquet: {reason}") from None


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turns what the file system and the decoder raise into one line with the file's name."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {error.lineno} is no JSON: {error.msg}") from None
