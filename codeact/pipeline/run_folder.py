"""A run's folder: which stages are done, with what, and whether their files are still theirs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import codeact
from codeact.errors import InputError
from codeact.files import write_json

MANIFEST = "manifest.json"
_LOCK = ".lock"
_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")
_BLOCK = 1 << 20  # bytes read at a time while hashing


class StageRecord(BaseModel):
    """One finished stage: what it depended on, what it cost, the SHA-256 of what it wrote."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    hash: str
    seconds: float
    peak_mib: float
    files: dict[str, str]


class Manifest(BaseModel):
    """``manifest.json``: the environment of a run and its finished stages, in order."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    codeact: str = codeact.__version__
    versions: dict[str, str] = {}
    platform: str = ""
    device: str = ""
    seed: int = 0
    stages: dict[str, StageRecord] = {}


class RunFolder:
    """A folder ``runs/NAME`` and its manifest.

    Nothing is kept in memory: the manifest is read from disk every time and replaced atomically,
    so that a killed run leaves either the record of a stage with its files, or no record.

    Args:
        path: The folder; it is made by :meth:`begin`, not here.

    Raises:
        InputError: ``path`` is a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"run folder {self.path} must be a folder, got a file")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def manifest(self) -> Manifest:
        """What is recorded; an empty manifest before :meth:`begin`.

        Raises:
            InputError: ``manifest.json`` is not a manifest; the text names file and reason.
        """
        path = self / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Manifest()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = f"{where}: {first['msg']}" if where else first["msg"]
        except (OSError, UnicodeDecodeError) as error:
            reason = str(error)
        raise InputError(f"{path} is not a run's manifest ({reason}); delete it to start anew")

    def begin(self, *, device: str, seed: int) -> None:
        """Makes the folder and records versions, platform, device and seed; stages stay."""
        manifest = Manifest(
            versions=versions(),
            platform=platform.platform(),
            device=device,
            seed=seed,
            stages=self.manifest.stages,
        )
        self._write(manifest)

    def stage_is_current(self, name: str, stage_hash: str) -> bool:
        """Whether stage ``name`` ran with this hash and all its files are there, unchanged."""
        record = self.manifest.stages.get(name)
        if record is None or record.hash != stage_hash:
            return False
        return all(
            (self / file).is_file() and file_sha256(self / file) == digest
            for file, digest in record.files.items()
        )

    def output_hash(self, name: str) -> str:
        """SHA-256 over what a recorded stage depended on and what it wrote, for what follows it."""
        record = self.manifest.stages[name]
        text = json.dumps([record.hash, sorted(record.files.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    def record_stage(
        self,
        name: str,
        stage_hash: str,
        *,
        seconds: float,
        peak_mib: float,
        files: Iterable[str | Path],
    ) -> None:
        """Records a finished stage, in place of an earlier one of that name.

        Args:
            name: ``"score"``, ``"select"``, …
            stage_hash: What it depended on, from :meth:`Recipe.section_hash`.
            seconds: Wall time.
            peak_mib: Peak resident memory of the process (on CUDA: of the device), in MiB.
            files: What it wrote, relative to the folder or inside it; each must exist.

        Raises:
            ValueError: A file is outside the folder or does not exist.
        """
        digests = {}
        for file in files:
            relative = self._relative(Path(file))
            digests[relative] = file_sha256(self / relative)
        record = StageRecord(hash=stage_hash, seconds=seconds, peak_mib=peak_mib, files=digests)
        manifest = self.manifest
        # A stage that runs again goes to the end: the order is that of the work.
        stages = {key: stage for key, stage in manifest.stages.items() if key != name}
        self._write(manifest.model_copy(update={"stages": {**stages, name: record}}))

    def forget(self, names: Iterable[str]) -> None:
        """Removes the records of these stages and the files they wrote; unknown names pass.

        Files go first, those of the last stage before the others: a file never stands there without
        its record, and a record without its files is a stage to repeat.
        """
        manifest = self.manifest
        forgotten = manifest.stages.keys() & set(names)
        if not forgotten:
            return
        root = self.path.resolve()
        for name in reversed([name for name in manifest.stages if name in forgotten]):
            for file in manifest.stages[name].files:
                if (root / file).resolve().is_relative_to(root):  # a manifest is only a text file
                    (root / file).unlink(missing_ok=True)
        kept = {name: stage for name, stage in manifest.stages.items() if name not in forgotten}
        self._write(manifest.model_copy(update={"stages": kept}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the system lets go of it however the process ends.

        Raises:
            InputError: Another run holds it, or it cannot be made or written to.
        """
        import fcntl  # POSIX only, and nothing else here is

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            opened = (self / _LOCK).open("a+")
        except OSError as error:
            raise InputError(
                f"run folder {self.path} cannot be written to ({error.strerror})"
            ) from None
        with opened as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                raise InputError(
                    f"run folder {self.path} is in use by another run (process {holder})"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)  # the file stays: deleting it would race with the next run

    def _relative(self, file: Path) -> str:
        root = self.path.resolve()
        inside = root / file  # an absolute `file` replaces the root here
        absolute = (inside if inside.exists() else file).resolve()
        if not absolute.is_relative_to(root) or not absolute.is_file():
            raise ValueError(f"files must exist inside {self.path}, got {file}")
        return absolute.relative_to(root).as_posix()

    def _write(self, manifest: Manifest) -> None:
        write_json(self / MANIFEST, manifest.model_dump())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of what computes, read from metadata without importing anything."""
    found = {"python": platform.python_version(), "codeact": codeact.__version__}
    return found | {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
