"""Answers of a tiny model: seeds of their own, company without effect, text behind its prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeact.evaluation.answering.generation import decoded, generate_samples, sample_seed
from codeact.evaluation.answering.prompts import PromptStyle
from codeact.evaluation.judging.problems import Problem
from codeact.evaluation.samples import Sample
from codeact.models import LoadedModel, Sampling, load_model
from codeact.sandbox.limits import Limits
from codeact.sandbox.tests import Call, FunctionTests

TESTS = FunctionTests("f", (Call((1,)),), (1,))
FIRST = Problem("humaneval", "HumanEval/0", "def f(x):\n", "f", TESTS, 1, Limits(), "")
SECOND = replace(FIRST, task_id="HumanEval/1", prompt='def f(xs):\n    """ Sort. """\n')
THIRD = Problem("mbpp", "Mbpp/2", '"""\nSum.\n"""\n', "f", TESTS, 1, Limits(), "")
PROBLEMS = (FIRST, SECOND, THIRD)
STYLE = PromptStyle("completion", "completion", "")
SAMPLED = Sampling(temperature=1.0, max_new_tokens=20)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices of 32 columns are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path) -> LoadedModel:
    return load_model(tiny_model_folder, dtype="float32", device="cpu")


def answers(loaded: LoadedModel, wanted: dict[str, list[int]], **options: Any) -> list[Sample]:
    sampling = options.pop("sampling", SAMPLED)
    found = generate_samples(loaded, PROBLEMS, wanted, STYLE, sampling, **options)
    return sorted((replace(sample, seconds=0.0) for sample in found), key=lambda each: each.name)


def test_neither_company_nor_what_was_done_before_changes_an_answer(loaded: LoadedModel) -> None:
    every = answers(loaded, {problem.task_id: [0, 1, 2] for problem in PROBLEMS})
    assert len({sample.response for sample in every}) == 9
    alone = answers(loaded, {"HumanEval/1": [2], "Mbpp/2": [0]}, max_rows=1)
    wanted = [("humaneval", "HumanEval/1", 2), ("mbpp", "Mbpp/2", 0)]
    assert alone == [sample for sample in every if sample.name in wanted]
    other = answers(loaded, {"Mbpp/2": [0]}, seed=1)
    assert other[0].response != alone[1].response


def test_greedy_answers_are_those_of_transformers(loaded: LoadedModel) -> None:
    greedy = answers(loaded, {"HumanEval/0": [0]}, sampling=Sampling(max_new_tokens=16))[0]
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer("def f(x):\n")["input_ids"]])
    model.set_attn_implementation("eager")
    try:
        run: Any = model.generate
        new = run(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
    finally:
        model.set_attn_implementation("codeact")
    assert greedy.response == tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
    assert greedy.solution.startswith("def f(x):\n")


def test_an_answer_ends_soon_after_a_stop_and_what_was_written_is_kept(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = answers(loaded, {"HumanEval/0": [0]}, sampling=replace(SAMPLED, max_new_tokens=60))[0]
    stop = free.response[20:22]
    monkeypatch.setattr(PromptStyle, "stops", lambda self, benchmark: (stop,))
    ended = answers(loaded, {"HumanEval/0": [0]}, sampling=replace(SAMPLED, max_new_tokens=60))[0]
    end = free.response.index(stop)
    assert free.response.startswith(ended.response)
    assert end + 2 <= len(ended.response) < end + 2 + 8 + 4  # letters of several bytes, a few
    assert (ended.finish, ended.num_tokens % 8) == ("stop", 0)
    assert ended.solution == "def f(x):\n" + free.response[:end].lstrip("\n")


def test_a_prompt_without_room_has_an_empty_answer(loaded: LoadedModel) -> None:
    long = replace(FIRST, prompt="def f(x):\n" + "#" * 600)
    found = list(generate_samples(loaded, [long], {"HumanEval/0": [0, 1]}, STYLE, SAMPLED))
    empty = Sample("humaneval", "HumanEval/0", 0, "", "", 0.0, 0, "length")
    assert found == [empty, replace(empty, sample=1)]


def test_seeds_differ_by_seed_task_and_number() -> None:
    seeds = {
        sample_seed(seed, task, number)
        for seed in (0, 1)
        for task in ("HumanEval/1", "HumanEval/11")
        for number in (0, 1)
    }
    assert len(seeds) == 8
    assert max(seeds) < 2**48


def test_the_indentation_of_a_body_survives_decoders_that_drop_a_first_space() -> None:
    class Dropping:
        """As SentencePiece decodes: words with a mark for the space before them."""

        words = ("▁def", "▁f", ":", "\n", "▁", "▁return", "▁1")

        def decode(self, token_ids: list[int], **options: Any) -> str:
            assert options["clean_up_tokenization_spaces"] is False
            return "".join(self.words[token] for token in token_ids).replace("▁", " ")[1:]

    tokenizer: Any = Dropping()
    prompt = np.array([0, 1, 2, 3])
    assert decoded(tokenizer, prompt, [4, 4, 4, 5, 6]) == "    return 1"
    assert decoded(tokenizer, prompt, []) == ""
