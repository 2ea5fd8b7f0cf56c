"""What scoring a set has cost, kept in the scores table for whoever asks if it was worth it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codeact.errors import InputError
from codeact.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from codeact.pipeline.score_method import ScoreMethod
    from codeact.scoring import Scorer

_KEY = b"codeact"
_CLOCK = "seconds.json"


@dataclass(frozen=True)
class ScoreCost:
    """Scoring of a set by one model.

    Attributes:
        model: Folder or Hugging Face id.
        preset: Of the score.
        device: ``cpu`` or ``cuda``.
        num_parameters: Weights of the model, shared ones once.
        num_tokens: Prompt and response of all rows, each row once.
        forward_flops: One forward pass over these tokens.
        flops: All passes that the scores took.
        seconds: Wall time of the passes, summed over the runs of an interrupted command; reading
            the model and the data is not in it.
    """

    model: str
    preset: str
    device: str
    num_parameters: int
    num_tokens: int
    forward_flops: float
    flops: float
    seconds: float


def score_cost(
    scorer: Scorer, method: ScoreMethod, table: pa.Table, model: str, seconds: float
) -> ScoreCost:
    """The cost of a finished table.

    A row costs its conditional pass (prompt and response) and its direct pass (the scored text
    alone), once more for each noisy copy of S-IFD; a row without a score costs nothing. Operations
    are those of :class:`codeact.packing.ModelCost`; for a model that it does not know, two a weight
    and token.
    """
    from codeact.packing import ModelCost
    from codeact.scoring.spans import SCORABLE

    num_parameters = scorer.model.num_parameters()
    try:
        cost = ModelCost.from_config(scorer.model.config)
    except InputError:
        cost = ModelCost(2.0 * num_parameters)
    scored = np.isin(table["status"].to_numpy(zero_copy_only=False), SCORABLE)
    prompts, responses = (
        table[f"num_{part}_tokens"].to_numpy().astype(np.int64) for part in ("prompt", "response")
    )
    # RMI scores the instruction, given the response.
    alone = prompts if method.name == "rmi" else responses
    passes = cost(prompts + responses) + cost(alone)
    return ScoreCost(
        model=model,
        preset=scorer.preset.name,
        device=scorer.model.device.type,
        num_parameters=num_parameters,
        num_tokens=int((prompts + responses).sum()),
        forward_flops=float(cost(prompts + responses).sum()),
        flops=float(passes[scored].sum()) * method.num_passes,
        seconds=seconds,
    )


def with_cost(table: pa.Table, cost: ScoreCost) -> pa.Table:
    """The table with its cost in the metadata of its schema, where Parquet keeps it."""
    metadata = dict(table.schema.metadata or {})
    metadata[_KEY] = json.dumps({"score_cost": asdict(cost)}).encode()
    return table.replace_schema_metadata(metadata)


def read_cost(path: str | Path) -> ScoreCost | None:
    """The cost in a Parquet file; None for tables of another form or an earlier version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if Path(path).suffix != ".parquet":
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        return ScoreCost(**json.loads(metadata[_KEY])["score_cost"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


class Clock:
    """Seconds spent on a set so far."""

    def __init__(self, before: float) -> None:
        self._before, self._start = before, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Those of earlier runs and of this one."""
        return self._before + time.perf_counter() - self._start


@contextmanager
def clock_in(folder: Path) -> Iterator[Clock]:
    """A clock that goes on where the last one in this folder stopped; it is kept if work fails.

    The time of a process that was killed outright is lost.
    """
    note = folder / _CLOCK
    try:
        before = float(json.loads(note.read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        before = 0.0
    clock = Clock(before)
    try:
        yield clock
    except BaseException:  # Ctrl-C above all
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {"seconds": clock.seconds})
        raise
