"""What a run reads from outside its folder, as hashes: a change repeats the stages that read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from codeact.pipeline.run_folder import file_sha256

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe

_PACKAGED = "packaged"
# Weights and tokenizers; a model card or a picture beside them changes no number.
_MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja")


def outside_inputs(recipe: Recipe) -> dict[str, str]:
    """Hashes or names by what :class:`codeact.pipeline.stage.Stage` calls them in ``reads``.

    ``source`` is the data, ``queries`` are the rows that rds+ compares with, ``benchmarks`` the
    benchmark files that rows must not come from, ``problems`` those that models answer, ``model``
    and ``embedder`` the model folders; ``machine`` is the device and the dtype that ``auto`` stands
    for here.

    Raises:
        InputError: the device cannot be used, or files of benchmarks cannot be read.
    """
    from codeact.models import resolve_device, resolve_dtype

    device = resolve_device(recipe.model.device)
    model = model_fingerprint(recipe.model.name)
    same = recipe.embed.model == "scoring-model"
    text = [recipe.score.preset, recipe.score.max_length]  # what its hidden states are of
    return {
        "source": _source_hash(recipe.data.source),
        "benchmarks": _benchmarks_hash(recipe.data.benchmarks),
        "problems": _problems_hash(recipe),
        "model": model,
        "queries": _source_hash(recipe.select.queries) if recipe.select.queries else "none",
        "embedder": _sha256([model, text]) if same else model_fingerprint(recipe.embed.model),
        "machine": f"{device.type} {resolve_dtype(recipe.model.dtype, device)}",
    }


def model_fingerprint(name: str | None) -> str:
    """Changes when the files of a model folder do; a hub id counts as its name.

    It is the sha256 over ``config.json`` and over name, size and time stamp of the weight and
    tokenizer files: reading gigabytes at each start would take longer than most stages.
    """
    if name is None:
        return _PACKAGED
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    config = folder / "config.json"
    files = [path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES]
    stamps = _stamps(folder, [path for path in files if path != config])
    return _sha256([file_sha256(config) if config.is_file() else None, stamps])


def _source_hash(source: str | None) -> str:
    """Changes when the data file does; a hub id or an installed package counts as its name."""
    if source is None:
        return "installed packages"
    path = Path(source).expanduser()
    if path.is_file():
        return file_sha256(path)
    return _sha256(_stamps(path, path.rglob("*"))) if path.is_dir() else source


def _benchmarks_hash(folder: str | None) -> str:
    """Path and content of every file that is compared with."""
    from codeact.data import find_benchmarks

    paths = [benchmark.path for benchmark in find_benchmarks(folder)]
    return _sha256([(path, file_sha256(Path(path))) for path in paths])


def _problems_hash(recipe: Recipe) -> str:
    """Content of the files with HumanEval+ and MBPP+, wherever they lie."""
    from codeact.pipeline.benchmark_stage import problem_files

    files = problem_files(recipe)
    return _sha256({name: file_sha256(path) for name, path in files.items()}) if files else "none"


def _stamps(folder: Path, paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    stats = ((path, path.stat()) for path in sorted(paths) if path.is_file())
    return [(str(path.relative_to(folder)), s.st_size, s.st_mtime_ns) for path, s in stats]


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
