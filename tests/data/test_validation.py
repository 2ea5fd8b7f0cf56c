from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.data import Example, Examples, Message, load_examples, load_validation
from codeact.data import load_validations as load_all
from codeact.errors import InputError

PROMPT = (
    'def gauge(rivers):\n    """Highest of the rivers.\n    >>> gauge([1, 2])\n    2\n    """\n'
)
BODY = "    return max(rivers)\n"
HUMANEVAL = {
    "task_id": "HumanEval/7",
    "prompt": PROMPT,
    "canonical_solution": BODY,
    "entry_point": "gauge",
}
TEXT, TEST = "Write a function to find the highest river.", "assert gauge([1, 2]) == 2"
CODE = "def gauge(rivers):\r\n\treturn max(rivers) "
MBPP = {"task_id": 7, "text": TEXT, "code": CODE, "test_list": [TEST, "assert gauge([3]) == 3"]}
MBPP_PLUS = {
    "task_id": "Mbpp/7",
    "prompt": f'"""\n{TEXT}\n{TEST}\n"""\n',
    "canonical_solution": "\ndef gauge(rivers):\n    return max(rivers)\n",
    "entry_point": "gauge",
}


def write(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def pair(example):
    """Exact texts of both turns."""
    assert [turn.role for turn in example.messages] == ["user", "assistant"]
    return example.instruction, example.response


FILES = {
    "HumanEval.jsonl": (
        HUMANEVAL, "humaneval", "HumanEval/7", (PROMPT, PROMPT + BODY), (PROMPT, BODY)
    ),
    "HumanEvalPlus-v0.1.10.jsonl.gz": (
        HUMANEVAL, "humaneval+", "HumanEval/7", (PROMPT, PROMPT + BODY), (PROMPT, BODY)
    ),
    "mbpp.jsonl": (
        MBPP,
        "mbpp",
        "Mbpp/7",
        (f"{TEXT}\n{TEST}", "def gauge(rivers):\n\treturn max(rivers) "),
        (f'"""\n{TEXT}\n{TEST}\n"""\n', "def gauge(rivers):\n\treturn max(rivers) "),
    ),
    "MbppPlus.jsonl": (
        MBPP_PLUS,
        "mbpp+",
        "Mbpp/7",
        (f"{TEXT}\n{TEST}", MBPP_PLUS["canonical_solution"]),
        (MBPP_PLUS["prompt"], MBPP_PLUS["canonical_solution"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_benchmark_in_both_styles(tmp_path, file):
    row, name, key, instruction, completion = FILES[file]
    path = write(tmp_path / file, row)
    for style, expected in (("instruction", instruction), ("completion", completion)):
        tasks = load_validation(path, style=style)
        assert list(tasks) == [name]
        (example,) = tasks[name]
        assert (example.id, pair(example), example.fields) == (key, expected, row)


def test_a_benchmark_under_another_name(tmp_path):
    """A part of HumanEval, HumanEval in another language, the sanitised MBPP, as Parquet."""
    cpp = {
        "task_id": "CPP/3",
        "prompt": "#include <vector>\nusing namespace std;\nint gauge(vector<int> a) {\n",
        "canonical_solution": "    return a[0];\n}\n",
    }
    (held,) = load_validation(write(tmp_path / "held.out.jsonl", HUMANEVAL))["held.out"]
    assert pair(held) == (PROMPT, PROMPT + BODY)
    (other,) = load_validation(write(tmp_path / "cpp.jsonl", cpp), by="language")["cpp-c++"]
    assert pair(other) == (cpp["prompt"], cpp["prompt"] + cpp["canonical_solution"])
    table = tmp_path / "sanitized.parquet"
    sanitised = {"prompt": TEXT, "code": "x = 1\n", "task_id": 7, "test_list": []}
    pq.write_table(pa.Table.from_pylist([sanitised]), table)
    (short,) = load_validation(table, style="completion")["sanitized"]
    assert (short.id, pair(short)) == ("Mbpp/7", (f'"""\n{TEXT}\n"""\n', "x = 1\n"))


def test_any_other_file_and_its_ids(tmp_path):
    rows = [
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"instruction": "double", "output": " 4\n"},
    ]
    path = write(tmp_path / "own.jsonl", *rows)
    for style in ("instruction", "completion"):
        examples = load_validation(path, style=style)["own"]
        assert examples.ids == ("own/0", "own/1")
        assert [pair(one) for one in examples] == [("add\n1 2", "3"), ("double", " 4\n")]
        assert [one.fields for one in examples] == rows
    assert load_validation(rows, name="sums")["sums"].ids == ("sums/0", "sums/1")
    named = [{**row, "id": index + 5} for index, row in enumerate(rows)]
    assert load_validation(named)["validation"].ids == ("5", "6")


def test_conversations_stay_in_one_style_and_become_two_texts_in_the_other():
    turns = (
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "1"),
        Message("user", "two"),
        Message("assistant", "2"),
    )
    examples = Examples([Example("a", turns, {"level": 3})], "here")
    assert load_validation(examples)["validation"][0].messages == turns
    (text,) = load_validation(examples, name="t", style="completion")["t"]
    assert (text.id, pair(text), text.fields) == ("a", ("Be brief.\none\ntwo", "2"), {"level": 3})


def test_by_a_field_a_path_and_a_language(tmp_path):
    def row(index, level, answer):
        return {"instruction": f"q{index}", "output": answer, "meta": {"level": level}, "k": 1}

    python, go = "```python\nx = 1\n```", "```go\nx := 1\n```"
    rows = [row(0, "hard", go), row(1, "easy", python), row(2, "hard", python), row(3, 2, go)]
    path = write(tmp_path / "v.jsonl", *rows)

    def ids(by):
        return {task: examples.ids for task, examples in load_validation(path, by=by).items()}

    levels = ids("meta.level")
    assert levels == {"v-2": ("v/3",), "v-easy": ("v/1",), "v-hard": ("v/0", "v/2")}
    assert list(levels) == ["v-2", "v-easy", "v-hard"]
    assert ids("language") == {"v-go": ("v/0", "v/3"), "v-python": ("v/1", "v/2")}
    assert ids("k") == {"v-1": ("v/0", "v/1", "v/2", "v/3")}


def test_limit_draws_each_task_by_seed_in_order():
    rows = [
        {"id": f"{level}{index:02d}", "instruction": "q", "output": "a", "level": level}
        for index in range(40)
        for level in ("x", "y")
    ]
    drawn = load_validation(rows, name="t", by="level", limit=7)
    assert {task: len(examples) for task, examples in drawn.items()} == {"t-x": 7, "t-y": 7}
    for examples in drawn.values():
        assert list(examples.ids) == sorted(set(examples.ids))
    again = load_validation(rows, name="t", by="level", limit=7)
    assert {k: v.ids for k, v in again.items()} == {k: v.ids for k, v in drawn.items()}
    other = load_validation(rows, name="t", by="level", limit=7, seed=1)
    assert other["t-x"].ids != drawn["t-x"].ids
    alone = [row for row in rows if row["level"] == "y"]
    assert load_validation(alone, name="t", by="level", limit=7)["t-y"].ids == drawn["t-y"].ids
    assert len(load_validation(rows, limit=1000)["validation"]) == 80


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "the data set is empty"),
        (Examples([], "here"), {}, "must hold at least one problem, got none"),
        ([{"instruction": "a", "output": " \n"}], {}, "validation/0 has none"),
        ([{**HUMANEVAL, "canonical_solution": "\n"}], {}, "row 0: canonical_solution must hold a"),
        (
            [HUMANEVAL, {**HUMANEVAL, "prompt": None}],
            {},
            "row 1: prompt must be a string, got null",
        ),
        ([MBPP, {"text": "a"}], {}, "row 1: code must be a string, got no such field"),
        ([HUMANEVAL, 3], {}, "row 1: must be an object, got int"),
        (
            [HUMANEVAL],
            {"style": "chat"},
            "style must be one of instruction, completion, got 'chat'",
        ),
        ([HUMANEVAL], {"limit": 0}, "limit must be at least 1, got 0"),
        ([HUMANEVAL], {"name": "a@b"}, "must not hold '@', got 'a@b'"),
        ([HUMANEVAL], {"name": " "}, "must not be empty"),
        ([HUMANEVAL], {"name": "source"}, "must not be 'source'"),
        ([HUMANEVAL], {"by": "level"}, "HumanEval/7 of rows has no field 'level', .* task_id"),
        ([{**HUMANEVAL, "meta": {"a": 1}}], {"by": "meta.b"}, "no field 'meta.b', .*'b'.* has a$"),
        ([{**HUMANEVAL, "meta": 1}], {"by": "meta.b"}, "no field 'meta.b', .*'b'.* has int$"),
        ([{**HUMANEVAL, "tags": ["a"]}], {"by": "tags"}, "a string or a number, got list"),
        ([{**HUMANEVAL, "tags": None}], {"by": "tags"}, "a string or a number, got null"),
        ([{**HUMANEVAL, "tags": ""}], {"by": "tags"}, "a string or a number, got an empty"),
        ([{**HUMANEVAL, "tags": "x@y"}], {"by": "tags"}, "must not hold '@', got 'validation-x@y'"),
    ],
)
def test_bad_input(rows, options, message):
    with pytest.raises(InputError, match=message) as error:
        load_validation(rows, **options)
    assert "\n" not in str(error.value)


def test_several_sources(tmp_path):
    plain = write(tmp_path / "HumanEval.jsonl", HUMANEVAL)
    plus = write(tmp_path / "HumanEvalPlus.jsonl", HUMANEVAL)
    odd = write(tmp_path / "a=b.jsonl", {"instruction": "q", "output": "a"})
    tasks = load_all([str(plain), f"again={plus}", str(odd)], style="completion")
    assert {task: examples.ids for task, examples in tasks.items()} == {
        "humaneval": ("HumanEval/7",),
        "again": ("again/HumanEval/7",),
        "a=b": ("a=b/0",),
    }
    assert list(tasks) == ["humaneval", "again", "a=b"]
    assert pair(tasks["again"][0]) == (PROMPT, BODY)
    with pytest.raises(InputError, match=r"two tasks are named 'humaneval', the second of .*Plus"):
        load_all([str(plain), f"humaneval={plus}"])
    with pytest.raises(InputError, match="at least one file, got none"):
        load_all([])
    with pytest.raises(InputError, match="name of a validation task must not be empty"):
        load_all([f"={plus}"])
    with pytest.raises(InputError, match="file not found"):
        load_all(["x=absent.jsonl"])


def test_the_real_benchmarks(data_folder):
    bench = data_folder / "bench"
    files = ("HumanEval.jsonl.gz", "HumanEvalPlus-v0.1.10.jsonl.gz", "mbpp.jsonl.gz")
    sources = [str(bench / name) for name in (*files, "MbppPlus-v0.2.0.jsonl.gz")]
    whole = load_all(sources)
    sizes = {task: len(examples) for task, examples in whole.items()}
    assert sizes == {"humaneval": 164, "humaneval+": 164, "mbpp": 974, "mbpp+": 378}
    ids = [key for examples in whole.values() for key in examples.ids]
    assert len(set(ids)) == len(ids)
    for task in ("humaneval", "humaneval+"):
        for example in whole[task]:
            compile(example.response, example.id, "exec")  # the answer stands on its own
    shown = whole["mbpp+"][0].instruction.splitlines()
    assert [line.startswith("assert ") for line in shown] == [False, True]
    bare = load_validation(sources[0], style="completion")["humaneval"]
    for short, long in zip(bare, whole["humaneval"], strict=True):
        assert short.instruction + short.response == long.response


def test_real_rows_by_difficulty(data_folder):
    path = data_folder / "sft" / "leetcode_v0.2.0_train.jsonl.gz"
    tasks = load_validation(path, name="leet", by="meta.difficulty", limit=20)
    assert list(tasks) == ["leet-Easy", "leet-Hard", "leet-Medium"]
    known = {one.id: one for one in load_examples(path)}
    for task, examples in tasks.items():
        assert len(examples) == 20
        for example in examples:
            assert example.fields["meta"]["difficulty"] == task.removeprefix("leet-")
            assert example.messages == known[example.id].messages


@pytest.mark.parametrize("tests", ['["assert f()"]', [3]])
def test_tests_of_mbpp_are_a_list_of_texts(tests):
    with pytest.raises(InputError, match="row 1: test_list must be a list of strings"):
        load_validation([MBPP, {**MBPP, "test_list": tests}])
