"""Candidate solutions from several models, here or behind an endpoint, into one file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from codeact.efficiency.generation.answer_file import AnswerFile, Wanted
from codeact.efficiency.generation.questions import Answer, Question, question_key, questions_of
from codeact.efficiency.generation.recipe import CandidateRecipe
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.tasks.task_file import Task

_LOG = logging.getLogger(__name__)


class Failure(NamedTuple):
    """An answer that is not there, and why."""

    task_id: str
    origin: str
    sample: int
    reason: str


@dataclass(frozen=True)
class GenerationSummary:
    """What one call of :func:`generate_candidates` did.

    Attributes:
        num_written: Answers that are new.
        num_kept: Answers that were there before.
        failures: Those that are missing; the same call asks for them again.
        response_tokens: New tokens by origin, as far as they were counted.
    """

    num_written: int
    num_kept: int
    failures: tuple[Failure, ...]
    response_tokens: dict[str, int]

    @property
    def num_missing(self) -> int:
        """Answers that are not in the file."""
        return len(self.failures)


def generate_candidates(
    tasks: Sequence[Task],
    recipe: CandidateRecipe,
    *,
    output: str | Path,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> GenerationSummary:
    """Ask every model of a recipe for solutions of every task.

    The file gets one JSON line for each (task, model, sample), in that order: ``task_id``,
    ``origin`` (the model's name in the recipe), ``sample``, ``response``, ``language``, ``finish``,
    ``prompt_tokens``, ``response_tokens``, ``seconds``, ``model``, ``temperature``, ``top_p``,
    ``max_new_tokens``, ``seed`` and ``key``, a hash of all that the answer depends on.
    :func:`codeact.efficiency.load_candidates` reads it.

    A killed call goes on where it stopped, and a recipe may gain models, samples or tasks: only
    what is missing is asked for. The seed of a sample is a hash of the recipe's seed, the model's
    name, the task's id and the sample's number, so that neither order nor resuming changes it.

    Args:
        tasks: Whom to ask about.
        recipe: Which models, how often, in what words.
        output: Where to (``.jsonl``).
        resume: False begins anew and replaces what is there.
        on_progress: Called with the number of answers there are and shall be.

    Raises:
        InputError: a model cannot be loaded, a key is not in the environment, the output holds
            answers of other settings (see :class:`AnswerFile`), or its lines are broken.
    """
    questions = {question_key(each): each for task in tasks for each in questions_of(task, recipe)}
    wanted = [
        Wanted(each.task.id, each.entry.name, each.sample, key) for key, each in questions.items()
    ]
    failures: list[Failure] = []
    num_tokens: Counter[str] = Counter()
    with closing(AnswerFile(Path(output), wanted, resume=resume)) as answers:
        missing = answers.missing()
        num_kept = done = len(wanted) - len(missing)
        todo: dict[str, list[Question]] = {entry.name: [] for entry in recipe.models}
        for each in missing:
            todo[each.origin].append(questions[each.key])
        for question, outcome in _ask_all(recipe, todo):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                answers.add(_row(question, outcome))
                num_tokens[question.entry.name] += outcome.response_tokens or 0
                done += 1
            if on_progress is not None:
                on_progress(done, len(wanted))
        answers.finish()
    order = {each.name: number for number, each in enumerate(wanted)}
    failures.sort(key=lambda failure: order[failure[:3]])
    return GenerationSummary(done - num_kept, num_kept, tuple(failures), dict(num_tokens))


def _row(question: Question, answer: Answer) -> dict[str, Any]:
    entry = question.entry
    return {
        "task_id": question.task.id,
        "origin": entry.name,
        "sample": question.sample,
        "response": answer.response,
        "language": question.task.language,
        "finish": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "response_tokens": answer.response_tokens,
        "seconds": round(answer.seconds, 3),
        "model": entry.model,
        "temperature": entry.temperature,
        "top_p": entry.top_p,
        "max_new_tokens": entry.max_new_tokens,
        "seed": question.seed,
        "key": question_key(question),
    }


def _ask_all(
    recipe: CandidateRecipe, todo: dict[str, list[Question]]
) -> Iterator[tuple[Question, Answer | Failure]]:
    """Outcomes of all questions, one model after the other."""
    from codeact.efficiency.generation.generate_here import answers_here, check_model
    from codeact.efficiency.generation.generate_remote import answers_of_endpoint

    busy = [entry for entry in recipe.models if todo[entry.name]]
    for entry in busy:  # what is wrong with the last model should not come to light hours later
        if entry.endpoint is None:
            check_model(entry)
        else:
            entry.api_key()
    for entry in busy:
        ask = answers_here if entry.endpoint is None else answers_of_endpoint
        num_answers = 0
        for question, outcome in ask(entry, todo[entry.name]):
            if isinstance(outcome, str):
                yield question, Failure(question.task.id, entry.name, question.sample, outcome)
            else:
                num_answers += 1
                yield question, outcome
        _LOG.info("%s: %d of %d answers", entry.name, num_answers, len(todo[entry.name]))
