"""Answers of a model to the tasks of benchmarks, in one process, in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from codeact.evaluation.answering.answers import cut_at, solution_of, stop_check
from codeact.evaluation.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.evaluation.answering.prompts import PromptStyle
    from codeact.evaluation.judging.problems import Problem
    from codeact.models import Generated, LoadedModel, Sampling
    from codeact.models.generation_batches import TokenIds

_CONTEXT_TOKENS = 8  # of the prompt, decoded beside an answer


def sample_seed(seed: int, task_id: str, sample: int) -> int:
    """48 bits of SHA-256 over the canonical JSON of these: few enough for any reader of JSON."""
    text = json.dumps([seed, task_id, sample], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")


def generate_samples(
    loaded: LoadedModel,
    problems: Iterable[Problem],
    wanted: Mapping[str, Sequence[int]],
    style: PromptStyle,
    sampling: Sampling,
    *,
    seed: int = 0,
    max_rows: int | None = None,
) -> Iterator[Sample]:
    """Answers as they are done; which ones are asked for together changes none of them.

    Args:
        loaded: The model and its tokenizer.
        problems: Of one or several benchmarks.
        wanted: Numbers of the samples of each task, by its id; tasks without any are left out.
        style: How the model is asked.
        sampling: Temperature, top_p and the most new tokens.
        seed: Of all sampling; each answer's own hangs on it, the task and the sample's number.
        max_rows: As in :func:`codeact.models.generate`.

    Yields:
        One sample for each that is wanted. A prompt that leaves the model no room for a token has
        an empty answer, cut at its length.
    """
    by_benchmark: dict[str, list[Problem]] = {}
    for problem in problems:
        if wanted.get(problem.task_id):
            by_benchmark.setdefault(problem.benchmark, []).append(problem)
    for group in by_benchmark.values():  # stops differ between benchmarks
        yield from _of_benchmark(loaded, group, wanted, style, sampling, seed, max_rows)


def _of_benchmark(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    wanted: Mapping[str, Sequence[int]],
    style: PromptStyle,
    sampling: Sampling,
    seed: int,
    max_rows: int | None,
) -> Iterator[Sample]:
    from codeact.models import Prompt, eos_ids, generate, room_for_tokens

    model, tokenizer = loaded
    room = room_for_tokens(model)
    stops = style.stops(problems[0].benchmark)
    prompts: list[Prompt] = []
    asked: list[Problem] = []
    for problem in problems:
        numbers = wanted[problem.task_id]
        input_ids = style.input_ids(style.text(problem, tokenizer), tokenizer)
        if room is not None and len(input_ids) >= room:
            for number in numbers:
                yield Sample(problem.benchmark, problem.task_id, number, "", "", 0.0, 0, "length")
            continue
        seeds = tuple(sample_seed(seed, problem.task_id, number) for number in numbers)
        prompts.append(Prompt(input_ids, seeds))
        asked.append(problem)
    for done in generate(
        model,
        prompts,
        sampling,
        eos_token_ids=eos_ids(model, tokenizer),
        max_rows=max_rows,
        completes=stop_check(stops, tokenizer),
    ):
        problem = asked[done.prompt]
        response = decoded(tokenizer, prompts[done.prompt].input_ids, done.token_ids)
        number = wanted[problem.task_id][done.sample]
        yield _sample(problem, number, response, done, style, stops)


def _sample(
    problem: Problem,
    number: int,
    response: str,
    done: Generated,
    style: PromptStyle,
    stops: Sequence[str],
) -> Sample:
    # A stop among the last few tokens of an answer that was cut is an end all the same.
    ended = done.finish == "stop" or cut_at(response, stops) != response
    return Sample(
        benchmark=problem.benchmark,
        task_id=problem.task_id,
        sample=number,
        response=response,
        solution=solution_of(response, problem, style),
        seconds=done.seconds,
        num_tokens=len(done.token_ids),
        finish="stop" if ended else "length",
    )


def decoded(tokenizer: PreTrainedTokenizerBase, prompt_ids: TokenIds, token_ids: list[int]) -> str:
    """The text of new tokens as it stands behind their prompt.

    Decoders of SentencePiece drop the space before a text's first word, which is the indentation of
    a body; so the end of the prompt is decoded too, and taken off. Special tokens are left out.
    """
    decode: Any = tokenizer.decode
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    context = prompt_ids[-_CONTEXT_TOKENS:].tolist()
    before: str = decode(context, **options)
    whole: str = decode([*context, *token_ids], **options)
    if whole.startswith(before):
        return whole[len(before) :]
    return str(decode(token_ids, **options))
