from __future__ import annotations

import gzip
import json

import pytest

from codeact.data import load_examples
from codeact.errors import InputError

PAIR = {"instruction": "add", "output": "a + b"}


def write(path, text):
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.jsonl", "\n" + lines(PAIR) + "\n"),
        ("set.jsonl.gz", lines(PAIR)),
        ("set.json", json.dumps([PAIR])),
        ("set.json.gz", json.dumps({"data": [PAIR]})),
        ("set.JSONL", "\ufeff" + lines(PAIR)),
    ],
    ids=["blank lines", "gzip lines", "list", "data key, gzip", "capitals, byte order mark"],
)
def test_reads_json_files(tmp_path, name, text):
    examples = load_examples(write(tmp_path / name, text))
    assert [(e.id, e.instruction, e.response) for e in examples] == [("set:0", "add", "a + b")]
    assert examples[0].fields == PAIR


def test_rows_of_a_file_share_the_names_of_their_columns(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{"output": "d", "instruction": "c"}\n')
    first, second = (dict(example.fields) for example in load_examples(path))
    assert second == {"instruction": "c", "output": "d"}
    assert {id(name) for name in first} == {id(name) for name in second}


def test_reads_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"question": ["q", None], "answer": ["a", "b"]}), tmp_path / "t.parquet"
    )
    examples = load_examples(str(tmp_path / "t.parquet"))
    assert [(e.id, e.instruction, e.response) for e in examples] == [
        ("t:0", "q", "a"),
        ("t:1", "", "b"),
    ]


def test_reads_a_saved_folder_and_its_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list([PAIR])
    part.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(test=part).save_to_disk(str(tmp_path / "many"))
    assert load_examples(tmp_path / "one").ids == ("one:0",)
    assert load_examples(tmp_path / "many", split="test")[0].response == "a + b"
    with pytest.raises(InputError, match="split must be one of test, got train"):
        load_examples(tmp_path / "many")


def test_asks_the_hub_only_for_an_id(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        if name == "org/absent":
            raise ConnectionError("no network\nsecond line")
        return [PAIR]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_examples("org/set-v1.5", split="test").ids == ("set-v1.5:0",)
    with pytest.raises(InputError, match="no such file or folder here, and no Hugging Face") as it:
        load_examples("org/absent")
    assert "\n" not in str(it.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for path in ("rows.jsonl", "data/rows", "./rows", "/no/such/rows", "a/b/c"):
        with pytest.raises(InputError, match=f"^{path}: file not found$"):
            load_examples(path)
    assert asked == [("org/set-v1.5", "test"), ("org/absent", "train")]


SCHEMAS = {
    "input joined": ({"instruction": "i", "input": "x", "output": "r"}, "i\nx", "r"),
    "input blank": ({"instruction": "i", "input": " ", "response": "r"}, "i", "r"),
    "input null": ({"instruction": "i", "input": None, "response": "r"}, "i", "r"),
    "question": ({"question": "i", "answer": "r"}, "i", "r"),
    "problem": ({"problem": "i", "solution": "r", "lang": "py"}, "i", "r"),
    "prompt": ({"prompt": "i", "completion": "r"}, "i", "r"),
    "prompt, response": ({"prompt": "i", "response": "r"}, "i", "r"),
    "query before prompt": (
        {"prompt": "p", "completion": "c", "query": "i", "response": "r", "input": "x"},
        "i",
        "r",
    ),
    "files": ({"instruction": "i", "solution": {"a.py": "r"}}, "i", "r"),
    "two files": (
        {"instruction": "i", "solution": {"a": "x", "b": "y"}},
        "i",
        "`a`\n```\nx\n```\n\n`b`\n```\ny\n```",
    ),
    "candidates": ({"instruction": "i", "solution": ["r", "s"]}, "i", "r"),
    "no candidate": ({"instruction": "i", "solution": []}, "i", ""),
    "null output": ({"instruction": "i", "output": None}, "i", ""),
    "lone surrogate": ({"instruction": "a\ud83d", "output": "ok \ud83d\ude00"}, "a\ufffd", "ok 😀"),
    "messages": (
        {"messages": [{"role": "User", "content": "i"}, {"role": "assistant", "content": "r"}]},
        "i",
        "r",
    ),
    "from/value": (
        {"conversations": [{"from": "human", "value": "i"}, {"from": "gpt", "value": "r"}]},
        "i",
        "r",
    ),
    "conversation": (
        {"conversation": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "r"}]},
        "i",
        "r",
    ),
}


@pytest.mark.parametrize(("row", "instruction", "response"), SCHEMAS.values(), ids=SCHEMAS)
def test_recognises(row, instruction, response):
    (example,) = load_examples([row])
    assert (example.instruction, example.response) == (instruction, response)
    assert example.fields is row


def test_optional_input_may_begin_in_a_later_row():
    rows = [PAIR, {**PAIR, "input": "x", "more": "y"}]
    assert [example.instruction for example in load_examples(rows)] == ["add", "add\nx"]
    examples = load_examples(rows, columns={"input": "more"})
    assert [example.instruction for example in examples] == ["add", "add\ny"]


def test_columns_override():
    row = {"instruction": "i", "output": "r", "task": "t", "code": "c", "ctx": "x", "key": 7}
    (example,) = load_examples(
        [row], columns={"instruction": "task", "input": "ctx", "response": "code", "id": "key"}
    )
    assert (example.id, example.instruction, example.response) == ("7", "t\nx", "c")
    (example,) = load_examples([row], columns={"response": "code"})
    assert (example.instruction, example.response) == ("i", "c")


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ([{"id": 1}, {"id": "b"}], ("1", "b")),
        ([{"id": 1}, {"id": "1"}], ("row:0", "row:1")),
        ([{"id": 1}, {}], ("row:0", "row:1")),
        ([{"id": 5, "task_id": "x"}, {"id": 5, "task_id": "y"}], ("x", "y")),
        ([{"conversation_id": 1}, {"conversation_id": 2}], ("1", "2")),
        ([{"id": True}, {"id": False}], ("row:0", "row:1")),
    ],
    ids=["mixed", "equal as text", "missing", "next column", "authors' rows", "booleans"],
)
def test_ids(fields, ids):
    assert load_examples([{**PAIR, **extra} for extra in fields]).ids == ids


BAD_FILES = {
    "empty": ("x.jsonl", "\n", "{path}: the data set is empty"),
    "broken line": ("x.jsonl", lines(PAIR) + "\n{oops\n", "{path}:3: not a JSON object"),
    "row is a list": ("x.jsonl", lines(PAIR, [1]), "{path}:2: must be an object, got list"),
    "row is null": ("x.json", "[null]", "{path}: row 0: must be an object, got null"),
    "broken json": ("x.json", "[1,\n2", "{path}:2: not JSON"),
    "no list": ("x.json", '{"a": 1}', "{path}: must hold a list of rows or .* got dict"),
    "suffix": ("x.txt", "hello", "{path}: file must end in .json"),
    "missing field": ("x.jsonl", lines(PAIR, {"instruction": "i"}), "{path}:2: no field 'output'"),
    "wrong type": (
        "x.jsonl",
        lines(PAIR, {"instruction": 3, "output": ""}),
        "{path}:2: instruction must be a string, got int",
    ),
    "candidate type": (
        "x.jsonl",
        lines({"instruction": "", "output": [3]}),
        "{path}:1: output must be a string, got int",
    ),
    "unknown columns": (
        "x.jsonl",
        lines({"foo": 1}),
        "{path}:1: no known columns, looked for messages.* got foo; name them with columns=",
    ),
    "role": (
        "x.jsonl",
        lines({"messages": [{"role": "tool", "content": ""}]}),
        r"{path}:1: messages\[0\]: role must be of system, .* got 'tool'",
    ),
    "turn": ("x.jsonl", lines({"messages": ["hi"]}), r"messages\[0\]: must be an object, got str"),
    "no assistant": (
        "x.jsonl",
        lines({"messages": [{"role": "user", "content": "u"}]}),
        "{path}:1: messages must hold an assistant turn, got none",
    ),
    "messages are text": (
        "x.jsonl",
        lines({"messages": "hi"}),
        "{path}:1: messages must be a list of turns, got str",
    ),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_one_line(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=message.format(path=path)) as error:
        load_examples(path)
    assert "\n" not in str(error.value)


def test_damaged_bytes(tmp_path):
    whole = gzip.compress(lines(*[PAIR] * 50).encode())
    for name, data, message in (
        ("cut.jsonl.gz", whole[:-12], "not a whole gzip file"),
        ("plain.jsonl.gz", b"{}", "not a whole gzip file"),
        ("latin.jsonl", b'{"instruction": "\xe9"}', "text must be UTF-8"),
        ("x.parquet", b"PAR1 no", "not a Parquet file"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: {message}"):
            load_examples(tmp_path / name)
    with pytest.raises(InputError, match="a folder must be one that datasets saved"):
        load_examples(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"instrucion": "a"}, r"got 'instrucion' \(nearest: instruction\)"),
        ({"response": "outptu"}, r"has no column 'outptu' \(nearest: output\), it has instr"),
        ({"messages": "output", "response": "output"}, "either messages or .* got both"),
        ({"id": "key"}, "rows: row 2: key must be unique, 'k' is also at rows: row 0"),
        ({"id": "odd"}, "rows: row 1: odd must be a string or an integer, got null"),
    ],
    ids=["key", "column", "both forms", "repeated id", "id type"],
)
def test_bad_columns(columns, message):
    rows = [{**PAIR, "key": key, "odd": odd} for key, odd in [("k", 1), ("l", None), ("k", 3)]]
    with pytest.raises(InputError, match=message):
        load_examples(rows, columns=columns)


def test_bad_source():
    with pytest.raises(InputError, match="rows: the data set is empty"):
        load_examples([])
    with pytest.raises(InputError, match="source must be a path, an id or a list of rows, got int"):
        load_examples(3)


ROWS = {
    "code_alpaca_2k": 2017,
    "evol_code_gen1": 1966,
    "evol_code_gen2_part": 1553,
    "exercism_other_languages": 732,
    "exercism_python": 161,
    "gpteacher_codegen": 4535,
    "leetcode_v0.2.0_train": 1890,
    "oss_docstring_python": 4399,
    "snippets_30s_python": 158,
}


@pytest.mark.parametrize("name", ROWS)
def test_real_sets(data_folder, name):
    examples = load_examples(data_folder / "sft" / f"{name}.jsonl.gz")
    assert len(examples) == ROWS[name]
    assert sum(not example.response.strip() for example in examples) == 2 * ("alpaca" in name)
    first = examples[0].fields
    if name == "leetcode_v0.2.0_train":
        assert examples[0].id == "two-sum"
        assert (examples[0].instruction, examples[0].response) == (
            first["query"],
            first["response"],
        )
    else:
        assert examples[7].id == f"{name}:7"


def test_real_puzzles_need_columns(data_folder):
    path = data_folder / "sft" / "python_puzzles.jsonl.gz"
    with pytest.raises(InputError, match=r"columns=\{'instruction'"):
        load_examples(path)
    examples = load_examples(path, columns={"instruction": "sat", "response": "sol_bodies"})
    assert len(examples) == 1715
    assert examples[0].response == "    return ('h' + 'o') * 1000"
    assert sum(not example.response for example in examples) == 54


def test_real_strings_are_those_that_were_scored(data_folder):
    reference = load_examples(
        data_folder / "ref" / "ifd_smollm2_135m.jsonl.gz", columns={"id": "row_id"}
    )
    loaded = {}
    for row in reference:
        name, index = row.id.split(":")
        if name in ROWS and "exercism" not in name:
            if name not in loaded:
                # LeetCode was scored on its bare code.
                code = {"instruction": "query", "response": "completion"}
                columns = code if name.startswith("leetcode") else None
                path = data_folder / "sft" / f"{name}.jsonl.gz"
                loaded[name] = load_examples(path, columns=columns)
            example = loaded[name][int(index)]
            assert (example.instruction, example.response) == (
                row.fields["question"],
                row.fields["answer"],
            ), row.id
    assert len(loaded) >= 5
