from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest

from codeact.data import Example, Examples, Message, load_examples


def conversation(*turns: tuple[str, str]) -> Example:
    return Example("a", tuple(Message(*turn) for turn in turns), {})


@pytest.fixture
def three() -> Examples:
    return load_examples(
        [{"instruction": f"do {i}", "output": f"done {i}", "extra": [i, "ü"]} for i in range(3)]
    )


def test_instruction_and_response_of_a_multi_turn_conversation():
    example = conversation(
        ("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2")
    )
    assert (example.instruction, example.response) == ("s\nu1\nu2", "a2")


@pytest.mark.parametrize(
    ("turns", "instruction", "response"),
    [
        ([("user", "u"), ("assistant", "a"), ("user", "later")], "u", "a"),
        ([("user", "u")], "u", ""),
        ([("assistant", "a")], "", "a"),
        ([], "", ""),
    ],
    ids=["trailing user turn", "no assistant", "no user", "nothing"],
)
def test_unusual_conversations(turns, instruction, response):
    example = conversation(*turns)
    assert (example.instruction, example.response) == (instruction, response)


def test_select_and_slice_keep_order_and_source(three):
    assert three.select(np.array([2, 0])).ids == ("row:2", "row:0")
    assert three[1:].ids == ("row:1", "row:2")
    assert three.select([]).ids == ()
    assert three.select([1]).source == three.source


@pytest.mark.parametrize(
    ("indices", "message"),
    [([3], r"\[0, 3\), got 3 to 3"), ([-1], "got -1"), ([True, False, True], "got 1-D bool")],
    ids=["too large", "negative", "mask"],
)
def test_select_rejects(three, indices, message):
    with pytest.raises(ValueError, match=message):
        three.select(np.asarray(indices))


def test_repeated_ids_are_rejected(three):
    with pytest.raises(ValueError, match="'row:1' is at 0 and 1"):
        three.select([1, 1])


def test_content_hash_sees_ids_messages_and_order_only(three):
    rows = [{**example.fields, "extra": 0} for example in three]
    assert load_examples(rows).content_hash() == three.content_hash()
    assert three.select([1, 0, 2]).content_hash() != three.content_hash()
    glued = Examples([conversation(("user", "ab"), ("assistant", "c"))], "")
    other = Examples([conversation(("user", "a"), ("assistant", "bc"))], "")
    assert glued.content_hash() != other.content_hash()


@pytest.mark.parametrize("name", ["subset.jsonl", "subset.jsonl.gz"])
def test_written_rows_come_back(three, tmp_path, name):
    path = tmp_path / name
    three.write_jsonl(path)
    again = load_examples(path)
    assert again.content_hash() == three.content_hash()
    assert again[2].fields == {**three[2].fields, "id": "row:2"}
    first = path.read_bytes()
    three.write_jsonl(path)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["subset.jsonl", "subset.jsonl.gz"])
def test_a_set_is_written_without_a_second_copy_of_its_text(tmp_path, name):
    rows = [{"instruction": f"{row}" * 1000, "output": "x"} for row in range(1000)]
    examples = load_examples(rows)
    tracemalloc.start()
    examples.write_jsonl(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(row["instruction"]) for row in rows) > 2_500_000
    assert peak < 500_000


def test_lone_surrogate_and_non_json_value_are_written(tmp_path):
    from datetime import date

    row = {"instruction": "\ud83d!", "output": "x", "day": date(2024, 1, 2)}
    path = tmp_path / "odd.jsonl"
    load_examples([row]).write_jsonl(path)
    written = json.loads(path.read_text())
    assert written == {"id": "row:0", "instruction": "\ud83d!", "output": "x", "day": "2024-01-02"}


def test_failed_write_leaves_the_old_file(three, tmp_path, monkeypatch):
    path = tmp_path / "subset.jsonl"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        three.write_jsonl(path)
    assert [file.name for file in tmp_path.iterdir()] == ["subset.jsonl"]
    assert path.read_text() == "old"


def test_examples_pickle(three):
    assert pickle.loads(pickle.dumps(three)).content_hash() == three.content_hash()
