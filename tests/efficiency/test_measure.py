from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import invented_meter as invented
import pytest
from invented_meter import Candidate, InventedMeter, source

from codeact.efficiency.racing.journal import journal_path
from codeact.efficiency.racing.measure import measure
from codeact.efficiency.racing.measurements import REFERENCE, Measurements
from codeact.efficiency.racing.meter import SandboxMeter
from codeact.efficiency.racing.noise import HostTooNoisyError, Noise
from codeact.errors import InputError
from codeact.sandbox.limits import Limits
from codeact.sandbox.tests import Call, FunctionTests, StdinTests

pytestmark = pytest.mark.alone


def measured(tasks=None, candidates=None, meter=None, **options):
    if tasks is None:
        tasks, candidates = invented.invented_set()
    return measure(tasks, candidates, meter=meter or InventedMeter(noise=0.02), **options)


def test_every_candidate_has_one_record_in_order():
    tasks, candidates = invented.invented_set()
    found = measured(tasks, candidates)
    expected = []
    for task in tasks:
        own = [one for one in candidates if one.task_id == task.id]
        for language in ("python", "rust"):
            if language == "python":
                expected.append((task.id, REFERENCE))
            expected += [(task.id, one.id) for one in own if one.language == language]
    assert [(one.task_id, one.candidate_id) for one in found.records] == expected
    assert [(race.task_id, race.language) for race in found.tasks] == [
        (task.id, language) for task in tasks for language in ("python", "rust")
    ]
    assert Counter(race.status for race in found.tasks) == {"ranked": 18, "too_short": 2}


def test_places_follow_from_what_programs_cost():
    found = measured()
    by_race = {(race.task_id, race.language): race for race in found.tasks}
    for (task_id, language), race in by_race.items():
        own = [r for r in found.records if (r.task_id, r.language) == (task_id, language)]
        assert (race.num_candidates, race.num_passed) == (
            len(own),
            sum("raised" not in r.status for r in own),
        )
        ranked = sorted((r for r in own if r.rank), key=lambda r: r.rank or 0)
        assert [r.rank for r in ranked] == list(range(1, len(ranked) + 1))
        assert (ranked == []) == race.too_short
        for better, worse in pairwise(ranked):
            assert better.et_seconds <= worse.et_seconds * 1.03
            assert better.tie_rule
    wrong = {r.candidate_id: r for r in found.records if r.status == "raised"}
    assert set(wrong) == {f"{number}-3" for number in range(10)}
    assert all(r.rank is None and not r.samples for r in wrong.values())
    assert {r.reason for r in wrong.values()} == {"it is raised"}


def test_every_number_follows_from_the_raw_samples(tmp_path):
    for record in Measurements.read(_written(tmp_path)).records:
        if record.et_seconds is None:
            continue
        cpu = min(s.cpu_seconds for s in record.samples)
        empty = min(s.cpu_seconds for s in record.baseline)
        assert record.et_seconds == (cpu - empty) / record.repeats
        assert record.mu_bytes == min(s.peak_memory_bytes for s in record.samples)
        tmu = min(s.memory_byte_seconds for s in record.samples)
        assert (
            record.tmu_byte_seconds
            == (tmu - min(s.memory_byte_seconds for s in record.baseline)) / record.repeats
        )


def _written(tmp_path):
    measured(output=tmp_path / "out.jsonl")
    return tmp_path / "out.jsonl"


def test_the_file_reads_back_equal(tmp_path):
    found = measured(output=tmp_path / "out.jsonl", limits=Limits(wall_seconds=3.0), seed=5)
    read = Measurements.read(tmp_path / "out.jsonl")
    assert read == found
    assert read.options["seed"] == 5
    assert read.options["limits"]["wall_seconds"] == 3.0
    assert read.host == invented.HOST
    assert [noise.when for noise in read.noise] == ["before", "after"]
    read.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert sum(len(records) for records in read.by_task().values()) == len(read.records)
    assert list(read.by_origin()) == [REFERENCE, "model"]


def test_workers_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("codeact.efficiency.racing.measure.race_cores", lambda: [3])
    one = measured(workers=1)
    assert measured(workers=4) == one
    assert {race.core for race in one.tasks} == {3}


def test_races_are_spread_over_cores_and_stay_on_one(monkeypatch):
    monkeypatch.setattr("codeact.efficiency.racing.measure.race_cores", lambda: [1, 2, 3])
    meter = InventedMeter()
    found = measured(meter=meter, workers=2)
    assert [race.core for race in found.tasks] == [1, 2] * 10
    cores = {race.core for race in found.tasks}
    assert cores == {1, 2}
    assert {core for _, _, _, core in meter.runs} == cores


def test_everything_is_checked_before_anything_is_raced():
    class Ordered(InventedMeter):
        events: list[str]

        def check(self, task, program):
            self.events.append("check")
            return super().check(task, program)

        def noise(self, when, core):
            self.events.append(when)
            return super().noise(when, core)

        def run(self, task, program, *, repeats, core):
            self.events.append("run")
            return super().run(task, program, repeats=repeats, core=core)

    meter = Ordered()
    meter.events = []
    measured(meter=meter)
    assert list(dict.fromkeys(meter.events)) == ["check", "before", "run", "after"]
    assert len(meter.checks) == 75


def test_marked_candidates_are_not_run():
    text = "import socket\n"
    candidates = [Candidate("net", "t", text), Candidate("good", "t", source(0.01))]
    meter = InventedMeter()
    found = measured([invented.task()], candidates, meter)
    by_id = {record.candidate_id: record for record in found.records}
    assert by_id["net"].status == "unsafe"
    assert by_id["net"].reason
    assert by_id["net"].rank is None
    assert by_id["good"].rank == 1
    assert meter.checks == [("t", source(0.01))]


def test_a_reference_alone_is_not_raced_when_its_candidates_fail():
    task = invented.task(reference=source(0.01))
    failed = [Candidate("a", "t", source(0.02, status="time_limit"))]
    found = measured([task], failed)
    assert [race.status for race in found.tasks] == ["none_passed"]
    assert found.tasks[0].reason == "none of 1 candidates passed"
    assert [record.status for record in found.records] == ["passed", "time_limit"]
    # Without candidates the references are what is measured.
    found = measured([task, invented.task("without")], [])
    assert [(r.candidate_id, r.rank, r.origin) for r in found.records] == [
        (REFERENCE, 1, REFERENCE)
    ]


def test_a_noisy_host_is_refused_after_the_checks_and_kept(tmp_path, caplog):
    output = tmp_path / "out.jsonl"
    with pytest.raises(HostTooNoisyError, match=r"varied by 6\.0%"):
        measured(meter=InventedMeter(cv=0.06), output=output)
    assert not output.exists()
    meter = InventedMeter(cv=0.06)
    found = measured(meter=meter, output=output, allow_noise=True)
    assert not meter.checks  # they were done before the host was found to be noisy
    assert [noise.cv for noise in found.noise] == [0.06, 0.06]
    assert caplog.text.count("host too noisy") == 2


def test_a_finished_measurement_runs_nothing_again(tmp_path):
    output = tmp_path / "out.jsonl"
    first = measured(output=output)
    output.unlink()
    meter = InventedMeter(noise=0.02)
    assert measured(meter=meter, output=output) == first
    assert not meter.checks
    assert not meter.runs
    assert Measurements.read(output) == first


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"rounds": 4},
        {"max_rounds": 5},
        {"target_seconds": 0.06},
        {"instructions": "never"},
        {"limits": Limits(wall_seconds=3.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_option_is_another_measurement(tmp_path, change):
    tasks, candidates = [invented.task()], [Candidate("a", "t", source(0.01))]
    output = tmp_path / "out.jsonl"
    measured(tasks, candidates, output=output)
    measured(tasks, candidates, output=output, workers=1, allow_noise=True)  # change no number
    with pytest.raises(InputError, match="begun with other tasks, candidates, options"):
        measured(tasks, candidates, output=output, **change)


def test_other_programs_tests_or_hosts_are_another_measurement(tmp_path):
    class Elsewhere(InventedMeter):
        def host(self, languages):
            return replace(invented.HOST, cpu_model="Another CPU")

    task, candidate = invented.task(), Candidate("a", "t", source(0.01))
    output = tmp_path / "out.jsonl"
    measured([task], [candidate], output=output)
    tests = FunctionTests("f", (Call((1,)), Call((2,))), (1, 2.0))
    for other in (
        lambda: measured([task], [replace(candidate, source=source(0.02))], output=output),
        lambda: measured([task], [replace(candidate, origin="b")], output=output),
        lambda: measured([replace(task, tests=tests)], [candidate], output=output),
        lambda: measured([task], [candidate], Elsewhere(), output=output),
    ):
        with pytest.raises(InputError, match="delete it to start anew"):
            other()
    assert journal_path(output).name == "out.jsonl.journal"


def test_progress_counts_candidates_and_races(tmp_path):
    seen = []
    measured(output=tmp_path / "out.jsonl", on_progress=lambda *where: seen.append(where))
    assert seen[-1] == (95, 95)  # 65 candidates, 10 references, 20 races
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"rounds": 6, "max_rounds": 5}, "max_rounds must be at least rounds = 6, got 5"),
        ({"target_seconds": 0.01}, "target_seconds must be between 0.02 and 10"),
        ({"target_seconds": float("nan")}, "target_seconds must be between"),
        ({"instructions": "always"}, 'instructions must be "ties" or "never"'),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        measured(**options)


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ([Candidate("a", "nowhere", "x")], "'a' is of an unknown task, 'nowhere'"),
        ([Candidate("a", "t", "x"), Candidate("a", "t", "y")], "got 'a' of task 't' twice"),
        ([Candidate("a", "t", "x", origin=REFERENCE)], "must not have the id or origin"),
        ([Candidate("a", "t", "x", "cobol")], "language must be one of"),
        ([], "must hold a program to run"),
    ],
)
def test_candidates_that_cannot_be_are_refused(candidates, words):
    with pytest.raises(InputError, match=words):
        measured([invented.task()], candidates)


@pytest.mark.parametrize("place", ["task", "candidate", "origin"])
def test_names_that_no_file_can_hold_are_refused(tmp_path, place):
    names = {name: "\ud800" if name == place else name for name in ("task", "candidate", "origin")}
    task = invented.task(names["task"])
    one = Candidate(names["candidate"], task.id, invented.source(0.01), origin=names["origin"])
    with pytest.raises(InputError, match="without surrogates"):
        measured([task], [one], output=tmp_path / "out.jsonl")


def test_a_folder_as_output_is_refused_before_anything_runs(tmp_path):
    meter = InventedMeter()
    with pytest.raises(InputError, match="output must be a file, got the folder"):
        measured(meter=meter, output=tmp_path)
    assert not meter.checks


def test_a_task_twice_is_refused():
    with pytest.raises(InputError, match="tasks must have unique ids, got 't' twice"):
        measured([invented.task(), invented.task()], [])


@pytest.mark.parametrize("content", ["{}\n", '{"kind": "measurements", "format": 99}\n', "", "x"])
def test_other_files_are_no_measurements(tmp_path, content):
    (tmp_path / "other").write_text(content)
    with pytest.raises(InputError, match="other"):
        Measurements.read(tmp_path / "other")


def test_a_damaged_row_is_no_measurement(tmp_path):
    lines = _written(tmp_path).read_text().splitlines()
    row = json.loads(lines[-1])
    row["samples"]["round"] = [0]
    (tmp_path / "bad").write_text("\n".join([*lines[:-1], json.dumps(row)]))
    with pytest.raises(InputError, match="bad is no file of measurements"):
        Measurements.read(tmp_path / "bad")


LOOP = """\
def f(n):
    total = 0
    for i in range(n):
        total += i * i
    return total
"""
TWICE = """
once = f

def f(n):
    once(n)
    return once(n)
"""


class Uncalibrated(SandboxMeter):
    """Calibrations take seconds and have a test of their own."""

    def noise(self, when, core):
        return Noise(when, 0.0, (0.05, 0.05), 0.0)


KEEPS = """\
import sys

def f(n):
    kept = vars(sys).setdefault("kept", {})
    if n not in kept:
        kept[n] = sum(i * i for i in range(n))
    return kept[n]
"""
IMPORTS = "import unittest\n" + LOOP


def test_what_real_programs_keep(sandbox):
    # Modules are imported once, by right; answers kept in one of them are not.
    race = {"keeps": (400_000, KEEPS), "imports": (300, IMPORTS)}
    for name, (n, text) in race.items():
        tests = FunctionTests("f", (Call((n,)),), (sum(i * i for i in range(n)),))
        found = measure(
            [invented.Task(name, tests)],
            [Candidate(name, name, text)],
            meter=Uncalibrated(sandbox),
            rounds=1,
            max_rounds=1,
            target_seconds=0.3,  # of several repetitions also where one takes long
        )
        [record] = found.records
        assert record.status == ("broken_protocol" if name == "keeps" else "passed"), record.reason


def test_in_the_sandbox(sandbox):
    numbers = range(200, 400, 10)
    answers = tuple(sum(i * i for i in range(n)) for n in numbers)
    calls = FunctionTests("f", tuple(Call((n,)) for n in numbers), answers)
    text = StdinTests(("500000\n",), (f"{sum(range(500_000))}\n",))
    tasks = [
        invented.Task("calls", calls, reference=LOOP),
        invented.Task("text", text),
    ]
    candidates = [
        Candidate("twice", "calls", LOOP + TWICE),
        Candidate("wrong", "calls", "def f(n):\n    return n\n"),
        Candidate("broken", "calls", "def f(n:\n"),
        Candidate("loop", "text", "t = 0\nfor i in range(int(input())):\n    t += i\nprint(t)\n"),
        Candidate("sum", "text", "print(sum(range(int(input()))))\n"),
    ]  # fmt: skip
    meter = Uncalibrated(sandbox)
    found = measure(tasks, candidates, meter=meter, rounds=2, max_rounds=2, target_seconds=0.1)
    by_id = {record.candidate_id: record for record in found.records}
    assert by_id["wrong"].status == "wrong_answer"
    assert by_id["broken"].status == "syntax_error"
    assert (by_id[REFERENCE].rank, by_id["twice"].rank) == (1, 2)
    assert 1.3 < by_id["twice"].et_seconds / by_id[REFERENCE].et_seconds < 4
    assert (by_id["sum"].rank, by_id["loop"].rank) == (1, 2)
    for name in (REFERENCE, "twice", "sum", "loop"):
        record = by_id[name]
        assert record.rounds == 2
        assert record.et_seconds * record.repeats > 0.02
        assert 4e6 < record.mu_bytes < 40e6
        # Memory hardly changes while these run: the integral is about memory times time.
        assert record.tmu_byte_seconds == pytest.approx(
            record.mu_bytes * record.et_seconds, rel=0.25
        )
    assert found.host.sandbox == sandbox.tier
    assert found.host.tools["python"]
