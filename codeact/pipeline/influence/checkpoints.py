"""Checkpoints of one training, whose influence can be put side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.files import read_json
from codeact.pipeline.inputs import model_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.models import LoadedModel

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
_OPTIMIZER_FILE = "optimizer.pt"
_SHAPES = {
    "hidden_size": "hidden size", "num_hidden_layers": "layers", "vocab_size": "vocabulary",
    "intermediate_size": "MLP width",
}  # fmt: skip
# Where two tokenizers of one vocabulary would still cut differently: spaces, case, digits, accents.
_PROBE = "def Add(x1, y):\n\t  return x1 + 10_000  # été 中文\n"


@dataclass(frozen=True)
class Checkpoint:
    """A model to measure influence at.

    Attributes:
        label: what its columns are called after; ``""`` for a model that is alone.
        model: folder or Hugging Face id of the model.
        adapter: folder of a PEFT adapter over ``model``; None if there is none.
        tokenizer: folder or id of the tokenizer.
        learning_rate: the last one that its training logged; None if it says nothing.
    """

    label: str
    model: str
    adapter: Path | None = None
    tokenizer: str | None = None
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """The folder or id that the user named."""
        return self.model if self.adapter is None else str(self.adapter)

    @property
    def optimizer_file(self) -> Path | None:
        """The state of its training's optimizer, if it lies there."""
        file = Path(self.name).expanduser() / _OPTIMIZER_FILE
        return file if file.is_file() else None

    def fingerprint(self) -> tuple[str | None, ...]:
        """Changes when the weights, the tokenizer or the optimizer's state do."""
        adapter = None if self.adapter is None else model_fingerprint(str(self.adapter))
        return (
            self.label, self.model, model_fingerprint(self.model), str(self.adapter), adapter,
            model_fingerprint(self.tokenizer), file_stamp(self.optimizer_file),
        )  # fmt: skip

    def load(self, device: str, dtype: str) -> LoadedModel:
        """The model with its adapter."""
        from codeact.models import load_model

        return load_model(
            self.model, device=device, dtype=dtype, adapter=self.adapter, tokenizer=self.tokenizer
        )


def file_stamp(file: Path | None) -> str | None:
    """Size and time stamp: states of an optimizer are too large to read twice."""
    if file is None:
        return None
    stat = file.stat()
    return f"{file} {stat.st_size} {stat.st_mtime_ns}"


def find_checkpoints(model: str, folders: Sequence[Path] = ()) -> tuple[Checkpoint, ...]:
    """What ``--model`` and ``--checkpoints`` name.

    Args:
        model: measured when ``folders`` are none; else the model under adapters among them, and
            the tokenizer of those that have none.
        folders: of models or PEFT adapters, in the order of training.

    Raises:
        InputError: a folder that holds neither, or shapes or a tokenizer unlike those of the first.
    """
    if not folders:
        return (Checkpoint("", model),)
    labels = _labels(folders)
    found = [_checkpoint(model, *pair) for pair in zip(folders, labels, strict=True)]
    _check_alike(found)
    return tuple(found)


def rates_as_weights(checkpoints: Sequence[Checkpoint]) -> list[float] | None:
    """Learning rates, as TracIn (arXiv:2002.08484) weighs checkpoints; None unless all are known
    and one is above 0, where all weigh alike.
    """
    rates = [checkpoint.learning_rate for checkpoint in checkpoints]
    known = [rate for rate in rates if rate is not None]
    return known if len(known) == len(rates) and sum(known) > 0 else None


def _labels(folders: Sequence[Path]) -> list[str]:
    """Folder names, with as much of their paths before them as makes them differ."""
    paths = [folder.expanduser().absolute() for folder in folders]
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise InputError(f"--checkpoints must be different folders, got {twice} twice")
    longest = max(len(path.parts) for path in paths)
    names = (["/".join(path.parts[-size:]) for path in paths] for size in range(1, longest + 1))
    return next(labels for labels in names if len(set(labels)) == len(labels))


def _checkpoint(model: str, folder: Path, label: str) -> Checkpoint:
    place = folder.expanduser()
    rate = _learning_rate(place)
    if (place / "adapter_config.json").is_file():
        return Checkpoint(label, model, place, learning_rate=rate)
    if not (place / "config.json").is_file():
        raise InputError(
            f"--checkpoints: {folder} holds neither a model (config.json) nor an adapter "
            "(adapter_config.json)"
        )
    has_words = any((place / name).is_file() for name in _TOKENIZER_FILES)
    return Checkpoint(label, str(place), None, None if has_words else model, rate)


def _learning_rate(folder: Path) -> float | None:
    """The last rate in the log of the Hugging Face Trainer."""
    if not (folder / "trainer_state.json").is_file():
        return None
    state = read_json(folder / "trainer_state.json")
    log = state.get("log_history") if isinstance(state, dict) else None
    rates = [entry["learning_rate"] for entry in log or () if "learning_rate" in entry]
    usable = rates and isinstance(rates[-1], (int, float)) and math.isfinite(rates[-1])
    return float(rates[-1]) if usable else None


def _check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse before hours of work what could not be compared after them."""
    first = checkpoints[0]
    shapes, words = _shapes(first), _words(first)
    for other in checkpoints[1:]:
        for key, ours in _shapes(other).items():
            if ours != shapes[key]:
                raise InputError(
                    f"--checkpoints must be of one model: {first.name} has {_SHAPES[key]} "
                    f"{shapes[key]}, {other.name} has {ours}"
                )
        if _words(other) != words:
            raise InputError(
                f"--checkpoints must have one tokenizer: those of {first.name} and {other.name} "
                "cut text differently"
            )


def _shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint.model).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{checkpoint.model} has no usable config.json: {reason}") from None
    return {key: getattr(config, key, None) for key in _SHAPES}


def _words(checkpoint: Checkpoint) -> tuple[dict[str, int], list[int]]:
    """What a tokenizer makes of text: its vocabulary, and a line that it cuts."""
    from codeact.models import load_tokenizer

    tokenizer: PreTrainedTokenizerBase = load_tokenizer(checkpoint.tokenizer or checkpoint.model)
    return tokenizer.get_vocab(), list(tokenizer(_PROBE)["input_ids"])
