"""What a checkpoint must agree on with the run that resumes from it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from codeact.errors import InputError

logger = logging.getLogger(__name__)


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
