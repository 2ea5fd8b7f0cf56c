"""What a stage of the pipeline is, and what it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from codeact.pipeline.rows import read_examples
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.data import Examples
    from codeact.models import LoadedModel
    from codeact.pipeline.recipe import Recipe
    from codeact.pipeline.run_folder import RunFolder


class Announcer(Protocol):
    """Whoever shows a run's progress; the command line draws bars with it."""

    def begin(self, stage: Stage) -> OnProgress:
        """A stage starts; the returned function takes its progress."""
        ...

    def end(self, stage: Stage, summary: str) -> None:
        """A stage is done; ``summary`` is one line on what came out."""
        ...

    def skip(self, stage: Stage) -> None:
        """A stage's files are there already, from the same inputs."""
        ...


@dataclass(frozen=True)
class StageResult:
    """What a stage wrote (paths inside the run folder) and one line on what came out."""

    files: list[str]
    summary: str


def count_statuses(statuses: Iterable[str]) -> str:
    """Rows by status in words, the most frequent first: ``"190 ok, 10 truncated"``."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).most_common())


@dataclass
class StageContext:
    """The run a stage works in. Models are loaded when a stage first asks for one."""

    recipe: Recipe
    folder: RunFolder
    on_progress: OnProgress
    stage_hash: str = ""

    @cached_property
    def model_path(self) -> str:
        """The scoring model: the recipe's, or the packaged one."""
        from codeact.models import demo_model

        return self.recipe.model.name or str(demo_model())

    def load_model(
        self,
        path: str | Path | None = None,
        *,
        full_precision: bool = False,
        adapter: str | Path | None = None,
        quantization: Literal["nf4"] | None = None,
    ) -> LoadedModel:
        """A fresh copy of the model of the recipe, or of the folder ``path``.

        With ``full_precision`` the weights are float32 unless the recipe names a dtype. Training
        needs it, since in bfloat16 an update of a usual learning rate is rounded away, and so does
        the comparison afterwards: rounding would add noise to the weights that it compares.
        ``adapter`` and ``quantization`` are those of :func:`codeact.models.load_model`.
        """
        from codeact.models import load_model

        section = self.recipe.model
        dtype = "float32" if full_precision and section.dtype == "auto" else section.dtype
        return load_model(
            path or self.model_path,
            dtype=dtype,
            device=section.device,
            adapter=adapter,
            quantization=quantization,
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the recipe's model, without its weights."""
        from codeact.models import load_tokenizer

        return load_tokenizer(self.model_path)

    def examples(self, name: str = "examples.jsonl") -> Examples:
        """Rows that an earlier stage wrote into the run folder."""
        return read_examples(self.folder / name)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: key in the manifest.
        title: what a person reads.
        unit: what its progress counts.
        sections: recipe sections it depends on.
        reads: what it reads from outside the run folder, by the names of
            :func:`codeact.pipeline.inputs.outside_inputs`.
        needs: stages whose files it reads.
        run: does the work.
    """

    name: str
    title: str
    unit: str
    sections: tuple[str, ...]
    reads: tuple[str, ...]
    needs: tuple[str, ...]
    run: Callable[[StageContext], StageResult]
