from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from codeact.efficiency.racing.journal import Journal, journal_path, key_of
from codeact.efficiency.racing.measurements import Measurements
from codeact.errors import InputError
from codeact.sandbox.limits import Limits

KEY = key_of("one thing")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "out.jsonl.journal"


def filled(path, *rows):
    with Journal(path, KEY) as journal:
        for row in rows:
            journal.append(row)
    return path


def test_what_was_appended_is_there_again(path):
    row = {"kind": "x", "third": 1 / 3, "text": "é\u2028\n", "pair": (1, 2), "none": None}
    with Journal(path, KEY) as journal:
        journal.append(row)
        assert journal.rows == [{**row, "pair": [1, 2]}]
    with Journal(path, KEY) as journal:
        assert journal.rows == [{**row, "pair": [1, 2]}]
        journal.append({"kind": "y"})
    assert len(path.read_bytes().splitlines()) == 3


def test_a_row_is_on_the_disk_before_append_returns(path):
    with Journal(path, KEY) as journal:
        journal.append({"kind": "x"})
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"kind": "x"}


@pytest.mark.parametrize("cut", [1, 5, 14])
def test_a_torn_last_line_is_cut_off(path, cut):
    filled(path, {"kind": "a"}, {"kind": "torn"})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(path, KEY) as journal:
        assert journal.rows == [{"kind": "a"}]
        journal.append({"kind": "torn"})
    assert path.read_bytes() == whole


def test_a_torn_header_begins_anew(path):
    filled(path)
    path.write_bytes(path.read_bytes()[:20])
    with Journal(path, KEY) as journal:
        journal.append({"kind": "a"})
    with Journal(path, KEY) as journal:
        assert journal.rows == [{"kind": "a"}]


def test_another_key_is_refused_with_the_way_out(path):
    filled(path, {"kind": "a"})
    before = path.read_bytes()
    with pytest.raises(InputError, match="delete it to start anew"):
        Journal(path, key_of("another thing"))
    assert path.read_bytes() == before
    with Journal(path, KEY) as journal:  # the refused one let go of it
        assert journal.rows == [{"kind": "a"}]


def test_a_broken_line_before_the_last_is_named(path):
    filled(path, {"kind": "a"}, {"kind": "b"})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\xff{\n", lines[2]]))
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        Journal(path, KEY)


def test_a_file_of_another_kind_is_refused(path):
    path.parent.mkdir()
    path.write_text('{"kind": "measurements"}\n')
    with pytest.raises(InputError, match="line 1 must be the header of a journal"):
        Journal(path, KEY)


def test_one_process_at_a_time(path):
    with Journal(path, KEY), pytest.raises(InputError, match="in use by another"):
        Journal(path, KEY)
    filled(path, {"kind": "a"})


def test_a_folder_in_its_place_is_one_line(path):
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        Journal(path, KEY)


def test_without_a_file_rows_stay_in_memory():
    with Journal(None, KEY) as journal:
        journal.append({"pair": (1, 2)})
        assert journal.rows == [{"pair": [1, 2]}]


def test_the_key_tells_values_and_types_apart():
    values = [1, 1.0, True, "1", (1,), [1], {1}, frozenset({1}), {1: 2}, {"1": 2}, None, b"1",
              [[1], 2], [1, [2]], Limits(), Limits(wall_seconds=9.0)]  # fmt: skip
    assert len({key_of(value) for value in values}) == len(values)
    assert key_of("a", "b") != key_of("ab")
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_the_key_is_the_same_in_every_process():
    code = (
        "from codeact.efficiency.racing.journal import key_of;"
        "print(key_of({'one', 'two', 'three', 'four'}, {'b': 1.5, 'a': frozenset('xyz')}))"
    )
    keys = set()
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        keys.add(ran.stdout.strip())
    assert keys == {key_of({"one", "two", "three", "four"}, {"a": frozenset("xyz"), "b": 1.5})}


def units_of(path):
    """How often each unit stands in a journal."""
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    checked = [("checked", row["task_id"], row["language"], row["batch"])
               for row in rows if row["kind"] == "checked"]  # fmt: skip
    raced = [("raced", row["race"]["task_id"], row["race"]["language"])
             for row in rows if row["kind"] == "raced"]  # fmt: skip
    return Counter(checked + raced)


def test_killed_twenty_times_it_ends_as_if_never_killed(tmp_path):
    script = [sys.executable, str(Path(__file__).with_name("invented_meter.py"))]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run([*script, str(whole), "0"], check=True)
    units = units_of(journal_path(whole))
    assert set(units.values()) == {1}
    assert len(units) == 40  # 10 tasks of two languages, checked and raced

    journal, size = journal_path(killed), journal_path(whole).stat().st_size
    chance = random.Random(7)
    for cut in sorted(chance.randrange(size * 9 // 10) for _ in range(20)):
        process = subprocess.Popen([*script, str(killed), "0.001"])
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= cut):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -signal.SIGKILL  # it was still at work
        assert not killed.exists()

    subprocess.run([*script, str(killed), "0"], check=True)
    assert killed.read_bytes() == whole.read_bytes()
    assert units_of(journal) == units
    subprocess.run([*script, str(killed), "0"], check=True)  # nothing left to do
    assert killed.read_bytes() == whole.read_bytes()
    assert len(Measurements.read(killed).records) == 75
