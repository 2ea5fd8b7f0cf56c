"""Answers of a transformers model that runs in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from codeact.efficiency.generation.questions import Answer, Question
from codeact.efficiency.generation.recipe import ModelEntry
from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.models import Prompt


def check_model(entry: ModelEntry) -> None:
    """Refuse a model without a folder, a tokenizer or a device, before another one works.

    Raises:
        InputError: one of them is missing.
    """
    from codeact.models import load_tokenizer, resolve_device

    try:
        resolve_device(entry.device)
        load_tokenizer(entry.model)
    except InputError as error:
        raise InputError(f"model {entry.name}: {error}") from error


def answers_here(
    entry: ModelEntry, questions: Sequence[Question]
) -> Iterator[tuple[Question, Answer | str]]:
    """Answers in the order in which they are done, or why there is none.

    Samples of a task share one reading of its prompt (:func:`codeact.models.generate`).
    The prompt is the model's chat template around the question, or the plain
    ``### Instruction`` form for a model without one.

    Raises:
        InputError: the model cannot be loaded, or its template rejects the messages.
    """
    from codeact.models import Sampling, eos_ids, generate, load_model, room_for_tokens

    loaded = load_model(entry.model, dtype=entry.dtype, device=entry.device, adapter=entry.adapter)
    model, tokenizer = loaded
    sampling = Sampling(entry.temperature, entry.top_p, entry.max_new_tokens)
    room = room_for_tokens(model)
    prompts: list[Prompt] = []
    asked: list[list[Question]] = []
    for prompt, group in _prompts(tokenizer, questions):
        num_tokens = len(prompt.input_ids)
        if room is not None and num_tokens >= room:
            reason = f"the prompt has {num_tokens} tokens, the model takes {room}"
            yield from ((question, reason) for question in group)
        else:
            prompts.append(prompt)
            asked.append(group)
    for done in generate(model, prompts, sampling, eos_token_ids=eos_ids(model, tokenizer)):
        text = tokenizer.decode(done.token_ids, skip_special_tokens=True)
        answer = Answer(
            response=str(text),
            finish=done.finish,
            prompt_tokens=len(prompts[done.prompt].input_ids),
            response_tokens=len(done.token_ids),
            seconds=done.seconds,
        )
        yield asked[done.prompt][done.sample], answer
    del loaded, model
    _free_memory()


def _prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]
) -> Iterator[tuple[Prompt, list[Question]]]:
    """One prompt for all samples of a task, with their seeds."""
    import numpy as np

    from codeact.data.example import Example, Message
    from codeact.data.prompt import make_renderer
    from codeact.models import Prompt

    render = make_renderer(tokenizer)
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.task.id, []).append(question)
    for task_id, group in groups.items():
        messages = tuple(Message(**message) for message in group[0].messages)
        text = render(Example(task_id, messages, {})).text
        input_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        seeds = tuple(question.seed for question in group)
        yield Prompt(np.array(input_ids, dtype=np.int64), seeds), group


def _free_memory() -> None:
    """Room for the next model: weights stay where garbage points at them."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
