"""Preference pairs: the files that are read, what is refused, which tokens are scored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.data.example import Message
from codeact.data.pairs import load_pairs, pairs_hash, tokenize_pairs
from codeact.errors import InputError
from codeact.models import load_tokenizer


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


TURNS: dict[str, Any] = {
    "prompt": said("user", "Return x."),
    "chosen": said("assistant", "return x"),
    "rejected": said("assistant", "y = x\nreturn y"),
}


def text_of(tokenizer: Any, row: Any, *, scored: bool = False) -> str:
    ids = row.input_ids[row.labels != -100] if scored else row.input_ids
    return str(tokenizer.decode(ids.tolist()))


def test_a_file_of_turns_keeps_its_rows(tmp_path: Path):
    path = tmp_path / "effi_pairs.jsonl.gz"
    rows = [{**TURNS, "task_id": name, "gap": 2.5} for name in ("a", "b")]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    first, second = load_pairs(path)
    assert (first.id, second.id) == ("a", "b")
    assert first.prompt == (Message("user", "Return x."),)
    assert first.chosen == (Message("assistant", "return x"),)
    assert first.rejected == (Message("assistant", "y = x\nreturn y"),)
    assert first.fields["gap"] == 2.5
    assert first.is_conversation


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "P", "chosen": "a", "rejected": "b"}, ("P", "a", "b")),
        ({"chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}, ("2 + 2 =", " 4", " 5")),
        ({"chosen": "4", "rejected": "5"}, ("", "4", "5")),
        (
            {name: said("user", "q") + TURNS[name] for name in ("chosen", "rejected")},
            (said("user", "q"), TURNS["chosen"], TURNS["rejected"]),
        ),
        (  # as UltraFeedback has it: the answers repeat the prompt
            {"prompt": "q"}
            | {name: said("user", "q") + TURNS[name] for name in ("chosen", "rejected")},
            (said("user", "q"), TURNS["chosen"], TURNS["rejected"]),
        ),
        (
            {**TURNS, "prompt": "q"},
            (said("user", "q"), TURNS["chosen"], TURNS["rejected"]),
        ),
    ],
    ids=["texts", "implicit text", "nothing common", "implicit turns", "prompt twice", "mixed"],
)
def test_prompt_is_found(row: dict[str, Any], expected: Any):
    (pair,) = load_pairs([row])
    found = [
        part if isinstance(part, str) else [turn._asdict() for turn in part]
        for part in (pair.prompt, pair.chosen, pair.rejected)
    ]
    assert found == list(expected)
    assert pair.id == "row:0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "P", "chosen": "a"}, "row 0: no field 'rejected', got prompt, chosen"),
        ({**TURNS, "chosen": "a"}, "chosen and rejected must both be texts or both be turns"),
        ({**TURNS, "chosen": 3}, "chosen must be a string or a list of turns, got"),
        ({**TURNS, "rejected": []}, "rejected must have a turn, got none"),
        ({**TURNS, "rejected": said("robot", "x")}, r"rejected\[0\]: role must be of"),
        ({"prompt": TURNS["prompt"], "chosen": "a", "rejected": "b"}, "prompt must be a text"),
        ({"chosen": TURNS["chosen"], "rejected": TURNS["rejected"]}, "prompt must have a turn"),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        load_pairs([row])


def test_hash_is_of_texts_and_ids_alone():
    pairs = load_pairs([TURNS])
    assert pairs_hash(pairs) == pairs_hash(load_pairs([{**TURNS, "gap": 9.0}]))
    assert pairs_hash(pairs) != pairs_hash(load_pairs([{**TURNS, "id": "other"}]))
    other = {**TURNS, "chosen": TURNS["rejected"], "rejected": TURNS["chosen"]}
    assert pairs_hash(pairs) != pairs_hash(load_pairs([other]))


def test_answers_are_scored_to_the_end(tiny_model_folder: Path):
    tokenizer = load_tokenizer(tiny_model_folder)
    pairs = tokenize_pairs(load_pairs([TURNS, TURNS]), tokenizer, max_length=100)
    prompt = "<|im_start|>user\nReturn x.<|im_end|>\n<|im_start|>assistant\n"
    for index in (0, 1):
        for row, answer in zip(
            pairs.sequences(index), ("return x", "y = x\nreturn y"), strict=True
        ):
            assert text_of(tokenizer, row) == f"{prompt}{answer}<|im_end|>\n"
            assert text_of(tokenizer, row, scored=True) == f"{answer}<|im_end|>\n"
    assert pairs.status == ("ok", "ok")
    assert pairs.seqlens.tolist() == pairs.sequence_seqlens.sum(axis=1).tolist()
    assert pairs.longest_sequence == len(pairs.sequences(0)[1].input_ids)
    whole = np.concatenate([row.input_ids for row in pairs.sequences(1)])
    assert pairs[1].input_ids.tolist() == whole.tolist()
    assert pairs[-1].input_ids.tolist() == whole.tolist()
    with pytest.raises(IndexError, match="index 2 is out of range for 2 pairs"):
        pairs[2]


def test_texts_end_in_one_eos(tiny_model_folder: Path):
    tokenizer = load_tokenizer(tiny_model_folder)
    row = {"prompt": "x = ", "chosen": "1", "rejected": "2<|im_end|>"}
    pairs = tokenize_pairs(load_pairs([row]), tokenizer, max_length=100)
    found = [text_of(tokenizer, part) for part in pairs.sequences(0)]
    assert found == ["x = 1<|im_end|>", "x = 2<|im_end|>"]
    assert text_of(tokenizer, pairs.sequences(0)[1], scored=True) == "2<|im_end|>"


def test_a_tokenizer_without_a_template_gets_the_plain_one(tiny_model_folder: Path):
    tokenizer = load_tokenizer(tiny_model_folder)
    tokenizer.chat_template = None
    pairs = tokenize_pairs(load_pairs([TURNS]), tokenizer, max_length=100)
    chosen, _ = pairs.sequences(0)
    expected = "### Instruction:\nReturn x.\n### Response:\nreturn x<|im_end|>"
    assert text_of(tokenizer, chosen) == expected
    assert text_of(tokenizer, chosen, scored=True) == "return x<|im_end|>"


def test_every_status(tiny_model_folder: Path):
    tokenizer = load_tokenizer(tiny_model_folder)
    rows: list[dict[str, Any]] = [
        TURNS,
        {**TURNS, "prompt": said("user", "long " * 20)},
        {**TURNS, "rejected": TURNS["chosen"]},
        {**TURNS, "chosen": said("assistant", "z" * 80)},
        {"prompt": "", "chosen": "", "rejected": "x"},  # nothing predicts the EOS token
    ]
    pairs = tokenize_pairs(load_pairs(rows), tokenizer, max_length=60)
    assert pairs.status == ("ok", "prompt_overflow", "same", "truncated", "empty_response")
    assert (pairs.seqlens > 0).tolist() == [True, False, True, True, False]
    chosen, rejected = pairs.sequences(3)
    assert len(chosen.input_ids) == 60
    assert text_of(tokenizer, rejected).endswith("return y<|im_end|>\n")
    assert len(pairs.sequences(1)[0].input_ids) == 0


def test_options_that_cannot_be_are_refused(tiny_model_folder: Path):
    tokenizer = load_tokenizer(tiny_model_folder)
    with pytest.raises(InputError, match="max_length must be at least 2, got 1"):
        tokenize_pairs(load_pairs([TURNS]), tokenizer, max_length=1)
    with pytest.raises(InputError, match="at least one pair, got none"):
        tokenize_pairs([], tokenizer, max_length=60)
    tokenizer.eos_token = None
    text = {"prompt": "x", "chosen": "1", "rejected": "2"}
    with pytest.raises(InputError, match="must have an EOS token to end the answers"):
        tokenize_pairs(load_pairs([text]), tokenizer, max_length=60)
    tokenizer.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(InputError, match=r"rejects pair row:0: no system"):
        tokenize_pairs(load_pairs([TURNS]), tokenizer, max_length=60)
