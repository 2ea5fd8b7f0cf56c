"""The folder of an evaluation: its files, what its numbers depend on, and going on with it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact import __version__
from codeact.errors import InputError
from codeact.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt")
_NOTES = frozenset({"training.json"})  # and whatever else says how weights came about
_VALUES_PER_WEIGHT = 64
_DESCRIPTION = "evaluation.json"


class EvaluationFolder:
    """``evaluation.json``, ``samples.jsonl``, ``results.jsonl``, ``disagreements.jsonl``.

    ``evaluation.json`` is there from the beginning and holds the settings; its ``summary`` is null
    until all is done.

    Args:
        path: A new or empty folder, or that of an earlier evaluation.
        settings: Everything that the answers depend on, as JSON values.
        data_hashes: Benchmark -> hash of its file. A folder may gain benchmarks.
        resume: False removes what an earlier evaluation has left there.

    Raises:
        InputError: The folder holds something else, or an evaluation with other settings.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        data_hashes: Mapping[str, str],
        *,
        resume: bool = True,
    ) -> None:
        self.path = Path(path)
        self.settings, self.data_hashes = dict(settings), dict(data_hashes)
        self.description = self.path / _DESCRIPTION
        self.samples = self.path / "samples.jsonl"
        self.results = self.path / "results.jsonl"
        self.judged = self.path / "judged.part.jsonl"
        self.disagreements = self.path / "disagreements.jsonl"
        self.evalplus = self.path / "evalplus"
        check_folder(self.path)
        if not resume:
            self._clear()
        elif self.description.exists():
            self._take_over(read_json(self.description))
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(None)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the results into ``evaluation.json``."""
        self._write(dict(summary))

    def drop_verdicts(self) -> None:
        """Have all answers judged again."""
        self.results.unlink(missing_ok=True)
        self.judged.unlink(missing_ok=True)

    def _write(self, summary: dict[str, Any] | None) -> None:
        described = {
            "settings": self.settings,
            "settings_hash": sha256_of(self.settings),
            "data_hashes": self.data_hashes,
            "versions": versions(),
            "summary": summary,
        }
        write_json(self.description, described)

    def _clear(self) -> None:
        files = (self.samples, self.results, self.judged, self.disagreements, self.description)
        for file in files:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.evalplus, ignore_errors=True)

    def _take_over(self, there: Any) -> None:
        advice = "choose another output, or replace it with --no-resume"
        if not isinstance(there, dict) or not isinstance(there.get("settings"), dict):
            raise InputError(f"{self.description} is no description of an evaluation; {advice}")
        before = there["settings"]
        for key in sorted(before.keys() | self.settings.keys()):
            if before.get(key) != self.settings.get(key):
                raise InputError(
                    f"{self.path} holds answers with {key} {before.get(key)!r}, not "
                    f"{self.settings.get(key)!r}; {advice}"
                )
        hashes = there.get("data_hashes")
        for benchmark, known in hashes.items() if isinstance(hashes, dict) else ():
            if self.data_hashes.setdefault(benchmark, known) != known:
                raise InputError(
                    f"{self.path} holds answers to another version of {benchmark}; {advice}"
                )
        written_by = there.get("versions")
        if not isinstance(written_by, dict) or written_by.get("codeact") != __version__:
            self.drop_verdicts()  # rules of the judgement may have changed with the version


def check_folder(path: Path) -> None:
    """Refuse a folder that an evaluation may not write into.

    Raises:
        InputError: It is a file, or holds files and no ``evaluation.json``.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"output must be a folder, got the file {path}")
    if path.exists() and any(path.iterdir()) and not (path / _DESCRIPTION).exists():
        raise InputError(
            f"output must be a new or empty folder or that of an evaluation, {path} holds other "
            "files"
        )


def versions() -> dict[str, str | None]:
    """Of what the numbers may depend on; None is not installed."""
    found: dict[str, str | None] = {"codeact": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "evalplus"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def folder_fingerprint(name: str | Path) -> str:
    """Changes when the weights, configuration or tokenizer in a folder do; of a hub id, its name.

    SHA-256 over the content of ``config.json`` and over name, size and time stamp of the others:
    reading gigabytes at each start would take longer than most evaluations.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return str(name)
    config = folder / "config.json"
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _WEIGHT_SUFFIXES and path != config and path.name not in _NOTES
    )
    stats = [(path.name, path.stat()) for path in files]
    text = config.read_text(encoding="utf-8") if config.is_file() else None
    return sha256_of([text, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]])


def weights_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over name, shape and 64 evenly spaced values of each weight of a loaded model.

    A step of training moves nearly all values, so that a few of each weight tell.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        flat = weight.detach().reshape(-1)
        digest.update(
            flat[:: max(1, flat.numel() // _VALUES_PER_WEIGHT)].float().cpu().numpy().tobytes()
        )
    return digest.hexdigest()


def sha256_of(value: object) -> str:
    """Of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
