"""What a checkpoint must agree on with the run that resumes from it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from codeact.errors import InputError
from codeact.files import read_json, write_json
from codeact.training.loss import num_ranks

logger = logging.getLogger(__name__)

_MARK = "codeact_run.json"
# How often a checkpoint is written changes nothing in the run.
_FREE_TO_CHANGE = ("save_steps",)


@dataclass(frozen=True)
class PackedRun:
    """What places a step in its epoch: the Trainer itself only counts optimizer steps.

    Attributes:
        fingerprint: of the plan's lengths and options.
        world_size: processes that train.
        accumulation: bins of a process that make one optimizer step.
    """

    fingerprint: str
    world_size: int
    accumulation: int


class SavePackedRun(TrainerCallback, ExportableState):
    """Puts a :class:`PackedRun` into ``trainer_state.json`` of every checkpoint."""

    def __init__(self, **run: Any) -> None:
        self.run = run

    def state(self) -> dict[str, Any]:
        """What transformers stores, and calls the constructor with."""
        return {"args": self.run, "attributes": {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer updates only the entries that the resumed checkpoint has."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())


def check_same_run(checkpoint: Path, run: PackedRun) -> None:
    """Refuse a checkpoint whose step count means another place in the data.

    Raises:
        InputError: the plan, the number of processes or the accumulation differ; resuming would
            repeat some examples and miss others.
    """
    if not (checkpoint / "trainer_state.json").is_file():
        return
    state: Any = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    saved = (state.stateful_callbacks or {}).get(SavePackedRun.__name__)
    if saved is None:
        logger.warning(
            "%s says nothing about packing: examples may be repeated or missed", checkpoint
        )
        return
    for name, now in asdict(run).items():
        before = saved["args"].get(name)
        if before != now:
            raise InputError(
                f"checkpoint {str(checkpoint)!r} was written with {name} = {before}, this run has "
                f"{now}: the examples of its epoch could not be told apart"
            )


@dataclass(frozen=True)
class WholeCheckpoint:
    """A checkpoint whose every file is written: its folder, and the run's step logs until then."""

    folder: Path
    step: int
    steps: tuple[Mapping[str, Any], ...]


def write_mark(folder: Path, config: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
    """Mark a checkpoint as whole, after its last file; what has no mark is not resumed from."""
    write_json(folder / _MARK, {"config": dict(config), "steps": list(steps)})


def last_whole_checkpoint(folder: Path) -> WholeCheckpoint | None:
    """The newest marked ``checkpoint-N`` in ``folder``, the same on every rank; None is none."""
    found = [_last_marked(folder) if _is_first_rank() else None]
    if num_ranks() > 1:
        dist.broadcast_object_list(found, src=0)
    if found[0] is None:
        return None
    steps = read_json(found[0] / _MARK)["steps"]
    return WholeCheckpoint(found[0], _step_of(found[0]), tuple(steps))


def check_same_config(checkpoint: Path, config: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint with other options than it was written with.

    Raises:
        InputError: an option differs; the rest of the run would be of neither.
    """
    saved = read_json(checkpoint / _MARK)["config"]
    for name, now in config.items():
        before = saved.get(name)
        now = list(now) if isinstance(now, tuple) else now  # as JSON has it
        if before != now and name not in _FREE_TO_CHANGE:
            raise InputError(
                f"checkpoint {str(checkpoint)!r} was written with {name} = {before}, this run has "
                f"{now}: give the same options, or start anew in another folder"
            )


def _last_marked(folder: Path) -> Path | None:
    marked = [path.parent for path in folder.glob(f"checkpoint-*/{_MARK}") if path.is_file()]
    return max((path for path in marked if _step_of(path) > 0), key=_step_of, default=None)


def _step_of(folder: Path) -> int:
    number = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(number[1]) if number else 0


def _is_first_rank() -> bool:
    return num_ranks() == 1 or dist.get_rank() == 0
