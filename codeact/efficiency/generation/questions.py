"""What is asked of which model for which task, and what comes back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from codeact.efficiency.generation.recipe import CandidateRecipe, ModelEntry
from codeact.efficiency.generation.recipe_prompt import render_prompt

if TYPE_CHECKING:
    from codeact.tasks.task_file import Task


@dataclass(frozen=True)
class Question:
    """One sample to be had of one model for one task."""

    task: Task
    entry: ModelEntry
    sample: int
    system: str | None
    prompt: str
    seed: int

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation as chat templates and servers take it."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


class Answer(NamedTuple):
    """What a model wrote.

    Attributes:
        response: Its words.
        finish: ``"stop"``, ``"length"`` where it was cut, or what a server says.
        prompt_tokens: None where a server did not count.
        response_tokens: Likewise.
        seconds: Wall time, beside other answers.
    """

    response: str
    finish: str
    prompt_tokens: int | None
    response_tokens: int | None
    seconds: float


def questions_of(task: Task, recipe: CandidateRecipe) -> Iterator[Question]:
    """Every sample of every model of a recipe for one task, in order."""
    for entry in recipe.models:
        prompt = render_prompt(entry.prompt or recipe.prompt, task)
        system = recipe.system if entry.system is None else entry.system
        for sample in range(entry.samples):
            seed = sample_seed(recipe.seed, entry.name, task.id, sample)
            yield Question(task, entry, sample, system, prompt, seed)


def sample_seed(seed: int, origin: str, task_id: str, sample: int) -> int:
    """48 bits of SHA-256 over the canonical JSON of these: few enough for any reader of JSON."""
    text = json.dumps([seed, origin, task_id, sample], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")


def question_key(question: Question) -> str:
    """16 hexadecimal digits of SHA-256 over all that an answer depends on."""
    entry = question.entry
    settings = entry.model_dump(
        include={"model", "endpoint", "temperature", "top_p", "max_new_tokens", "dtype", "adapter"}
    )
    asked = [question.task.id, entry.name, question.sample, question.seed, question.messages]
    text = json.dumps([settings, asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
