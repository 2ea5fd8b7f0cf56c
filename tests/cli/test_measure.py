"""``codeact measure``: candidates of three tasks in two languages, run and raced in earnest."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from codeact.cli import main
from codeact.cli.measure import measure
from codeact.efficiency.instruct.build import MIN_GAP, MIN_SPREAD
from codeact.efficiency.racing.measurements import Measurements, record_from_row
from codeact.efficiency.racing.noise import Noise
from codeact.sandbox import Sandbox, SandboxUnavailable
from codeact.sandbox.programs.toolchains import MissingCompiler, find_toolchain

pytestmark = pytest.mark.alone

# Work of about half a millisecond, and six times as much: no noise turns the order round.
FAST = "def total(n):\n    return sum(range(n))\n"
SLOW = "def total(n):\n    return sum([sum([k, 0]) for k in range(n)])\n"
WRONG = "def total(n):\n    return sum(range(n + 1))\n"
RAISES = "def total(n):\n    return n / 0\n"
CPP = """#include <cstdio>
int main() {
  unsigned n, sum = 0;
  if (std::scanf("%u", &n) != 1) return 1;
  for (unsigned k = 0; k < n * REPEATS; ++k) sum = sum * 31u + (k ^ (sum >> 7));
  volatile unsigned kept = sum;
  (void)kept;
  std::printf("%u\\n", n);
}
"""

TASKS = [
    {
        "id": "total",
        "instruction": "Add up the numbers below n.",
        "entry_point": "total",
        "tests": [{"args": [20000], "expected": 199990000}, {"args": [3], "expected": 3}],
        "reference": "def total(n):\n    return sum([k for k in range(n)])\n",
    },
    {
        "id": "echo",
        "instruction": "Print the number n that is read.",
        "language": "cpp",
        "tests": [{"stdin": "1000000\n", "stdout": "1000000\n"}],
    },
    {
        "id": "unsolved",
        "instruction": "Return the number after n.",
        "entry_point": "total",
        "tests": [{"args": [1], "expected": 2}],
    },
]
CANDIDATES = [
    {"task_id": "total", "id": "fast", "origin": "ann", "source": FAST},
    {"task_id": "total", "id": "slow", "origin": "bob", "source": SLOW},
    {"task_id": "total", "id": "wrong", "origin": "ann", "source": WRONG},
    {"task_id": "total", "id": "raises", "origin": "bob", "response": f"```python\n{RAISES}```"},
    {"task_id": "echo", "id": "short", "origin": "ann", "source": CPP.replace("REPEATS", "20")},
    {"task_id": "echo", "id": "long", "origin": "bob", "source": CPP.replace("REPEATS", "60")},
    {
        "task_id": "unsolved",
        "id": "gone",
        "origin": "bob",
        "source": "def total(n):\n    return n +",
    },
]
QUICK = ["--rounds", "3", "--max-rounds", "3", "--no-instructions"]
METER = "codeact.efficiency.racing.meter"
STATUS = {
    "fast": "passed", "slow": "passed", "wrong": "wrong_answer", "raises": "raised",
    "short": "passed", "long": "passed", "gone": "syntax_error",
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*words: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of one command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def check_refused(done: tuple[int, str, str], message: str) -> None:
    """Status 2 and one line that says why."""
    status, out, err = done
    assert (status, out) == (2, "")
    assert err.startswith("codeact measure: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert re.search(message, err), err


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def sandbox_works() -> None:
    """Skips where nothing may be run; a command makes a sandbox of its own."""
    try:
        Sandbox(workers=1).close()
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")


@pytest.fixture(scope="module", autouse=True)
def _calibrated() -> Iterator[None]:
    """Calibrations take seconds and have a test of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{METER}.calibrate", lambda *_, when, **__: Noise(when, 0.01, (0.05,), 0.5))
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    write(folder / "tasks.jsonl", TASKS)
    write(folder / "candidates.jsonl", CANDIDATES)
    return folder


@pytest.fixture(scope="module")
def line(inputs: Path) -> list[object]:
    """The words of a command that writes everything there is."""
    words = ["measure", inputs / "candidates.jsonl", "--tasks", inputs / "tasks.jsonl"]
    return [*words, "--output", inputs / "out", "--compare", "ann", "--compare", "bob", *QUICK]


@pytest.fixture(scope="module")
def done(sandbox_works: None, inputs: Path, line: list[object]) -> tuple[int, str, str]:
    """What the whole command left on its streams."""
    if isinstance(find_toolchain("cpp"), MissingCompiler):
        pytest.skip("not run: no C++ compiler")
    return run(*line, "--report", inputs / "page.html")


@pytest.fixture(scope="module")
def measured(done: tuple[int, str, str], inputs: Path) -> Measurements:
    assert done[0] == 0, done[2]
    return Measurements.read(inputs / "out" / "measurements.jsonl")


def test_everything_is_there(
    done: tuple[int, str, str], measured: Measurements, inputs: Path
) -> None:
    status, out, err = done
    assert (status, out) == (0, "")
    found = {one.candidate_id: one for one in measured.records if one.origin != "reference"}
    assert {name: one.status for name, one in found.items()} == STATUS
    assert [(one.task_id, one.status) for one in measured.tasks] == [
        ("total", "ranked"), ("echo", "ranked"), ("unsolved", "none_passed")
    ]  # fmt: skip
    for fast, slow, times in (("fast", "slow", 2), ("short", "long", 1.5)):
        best, worst = found[fast], found[slow]
        assert best.rank is not None
        assert worst.rank is not None
        assert best.rank < worst.rank
        assert worst.et_seconds > times * best.et_seconds
        assert len(best.samples) == 3
    lines = err.splitlines()
    assert "7 candidates: passed 4, wrong answer 1, raised 1, syntax error 1" in lines
    assert "3 races: ranked 2, no right answer 1" in lines
    assert sum("the CPU time" in line and "ann" in line and "bob" in line for line in lines) == 1


def test_records_are_those_of_the_measurement(measured: Measurements, inputs: Path) -> None:
    folder = inputs / "out"
    sft, twin, pairs = (
        rows_of(folder / f"{name}.jsonl")
        for name in ("effi_instruct", "effi_instruct_unoptimised", "effi_pairs")
    )
    first = {one.task_id: one for one in measured.records if one.rank == 1}
    assert [row["task_id"] for row in sft] == [row["task_id"] for row in twin] == ["total", "echo"]
    for row in sft:
        assert row["candidate_id"] == first[row["task_id"]].candidate_id
        assert row["et_seconds"] == first[row["task_id"]].et_seconds
    sources = {row["id"]: row.get("source") for row in CANDIDATES}
    chosen = {row["task_id"]: row["messages"][1]["content"] for row in sft}
    assert chosen["echo"] == f"```cpp\n{sources['short'].strip()}\n```"
    for pair in pairs:  # a fresh gap may be refused on a busy machine, never one of another pair
        assert (pair["task_id"], pair["rejected_id"]) in (("total", "slow"), ("echo", "long"))
        assert pair["confirmed"]
        assert pair["gap"] >= 0.1
    dropped = [(row["task_id"], row["reason"]) for row in rows_of(folder / "dropped.jsonl")]
    assert ("unsolved", "all_fail") in dropped
    assert len(pairs) + sum(reason == "not_confirmed" for _, reason in dropped) == 2


def test_page_says_what_the_terminal_says(done: tuple[int, str, str], inputs: Path) -> None:
    html = (inputs / "page.html").read_text(encoding="utf-8")
    text = re.sub(r"<script.*?</script>|<[^>]+>", " ", html, flags=re.DOTALL)
    text = " ".join(text.split())
    assert "Of 7 candidates for 3 tasks, 4 answer every test." in text
    verdict = next(one for one in done[2].splitlines() if "the CPU time" in one)
    assert verdict[1:].replace("<", "&lt;") in text  # its first letter is a capital there
    assert "def total(n): return sum([sum([k, 0]) for k in range(n)])" in text
    assert "codeact " in text


def test_same_command_goes_on_and_changes_nothing(
    measured: Measurements, inputs: Path, line: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the journals alone: no program runs, and lost files come back as they were."""
    folder = inputs / "out"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was run again")

    with monkeypatch.context() as patch:
        patch.setattr(f"{METER}.SandboxMeter.check", refuse)
        patch.setattr(f"{METER}.SandboxMeter.run", refuse)
        patch.setattr(f"{METER}.SandboxMeter.noise", refuse)
        for name in before:
            if not name.endswith(".journal"):
                (folder / name).unlink()
        status, _, err = run(*line)
    assert status == 0, err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_options_are_refused_in_the_same_folder(
    measured: Measurements, line: list[object]
) -> None:
    other = run(*line, "--rounds", "4", "--max-rounds", "4")
    check_refused(other, "journal was begun with other")


def test_rows_on_stdout(sandbox_works: None, inputs: Path, tmp_path: Path) -> None:
    some = write(tmp_path / "some.jsonl", [CANDIDATES[2], CANDIDATES[6], CANDIDATES[3]])
    words = ["measure", some, "--tasks", inputs / "tasks.jsonl"]
    status, out, err = run(*words, "--compare", "ann", "--compare", "bob")
    assert status == 0, err  # that nothing can be compared is no reason to lose the rest
    records = [record_from_row(json.loads(line)) for line in out.splitlines()]
    # The reference of "total" is a candidate too; "echo" has no candidate and is left out.
    assert [(one.candidate_id, one.status) for one in records if one.origin != "reference"] == [
        ("wrong", "wrong_answer"), ("raises", "raised"), ("gone", "syntax_error")
    ]  # fmt: skip
    assert [one.status for one in records if one.origin == "reference"] == ["passed"]
    *lines, last = err.splitlines()
    assert lines == [
        "3 candidates: wrong answer 1, raised 1, syntax error 1",
        "2 races: no right answer 2",
    ]
    assert last.startswith("not compared: ann and bob must both solve a task")
    assert not list(tmp_path.glob("*.journal"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rule best", r"--rule must be lexicographic or pareto or weighted, got 'best'"),
        ("--limit 0", r"--limit must be at least 1, got 0"),
        ("--rounds 0", r"--rounds must be at least 1, got 0"),
        ("--workers 0", r"--workers must be at least 1, got 0"),
        ("--seed -1", r"--seed must be from 0"),
        ("--min-gap -0.1", r"--min-gap must be finite and at least 0, got -0.1"),
        ("--min-spread nan", r"--min-spread must be finite and at least 0, got nan"),
        ("--compare ann", r"--compare must be given twice, for two origins, got 1"),
        ("--report {out}/page.txt", r"--report must end in .html, got .*page.txt"),
        ("--report {out}/none/page.html", r"--report: folder .*none does not exist"),
        ("--output {out}/old.jsonl", r"--output must be a folder, got the file .*old.jsonl"),
        ("--reps 3", r"No such option"),
    ],
)
def test_refuses_options(inputs: Path, tmp_path: Path, words: str, message: str) -> None:
    """Before anything is read or run: no sandbox is needed."""
    (tmp_path / "old.jsonl").write_text("old")
    given = [inputs / "candidates.jsonl", "--tasks", inputs / "tasks.jsonl"]
    check_refused(run("measure", *given, *words.format(out=tmp_path).split()), message)
    assert [path.read_text() for path in tmp_path.rglob("*")] == ["old"]


@pytest.mark.parametrize(
    ("candidates", "tasks", "words", "message"),
    [
        ("none.jsonl", "tasks.jsonl", "", r"none.jsonl"),
        ("candidates.jsonl", "none.jsonl", "", r"none.jsonl"),
        ("tasks.jsonl", "tasks.jsonl", "", r"task_id must be a string, got None"),
        ("other.jsonl", "tasks.jsonl", "", r"1 of 1 candidates are for 1 unknown tasks \(x\)"),
        ("empty.jsonl", "tasks.jsonl", "", r"empty.jsonl"),
        ("candidates.jsonl", "bad.jsonl", "", r"entry_point is needed where tests call"),
        ("candidates.jsonl", "tasks.jsonl", "--compare ann --compare eve", r"got 'eve'"),
        ("candidates.jsonl", "tasks.jsonl", "--compare ann --compare ann", r"got 'ann' twice"),
    ],
)
def test_refuses_inputs(
    sandbox_works: None,
    inputs: Path,
    tmp_path: Path,
    candidates: str,
    tasks: str,
    words: str,
    message: str,
) -> None:
    write(tmp_path / "candidates.jsonl", CANDIDATES)
    write(tmp_path / "tasks.jsonl", TASKS)
    write(tmp_path / "other.jsonl", [{"task_id": "x", "source": "1"}])
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "bad.jsonl", [{**TASKS[0], "entry_point": None}])
    given = [tmp_path / candidates, "--tasks", tmp_path / tasks, "--output", tmp_path / "new"]
    check_refused(run("measure", *given, *words.split()), message)
    assert not (tmp_path / "new").exists()


def test_no_sandbox_is_status_3(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # bubblewrap is nowhere
    monkeypatch.delenv("CODEACT_EXTERNAL_SANDBOX", raising=False)
    words = ["measure", inputs / "candidates.jsonl", "--tasks", inputs / "tasks.jsonl"]
    status, out, err = run(*words, "--output", tmp_path / "out")
    assert (status, out) == (3, "")
    first, *others = err.splitlines()
    assert re.match(r"codeact measure: error: no sandbox here: \S.*: \S", first)
    assert others
    assert others[0].startswith("  to mend it: ")
    assert not (tmp_path / "out").exists()


def test_busy_machine_is_one_line(
    sandbox_works: None, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*_: object, when: str, **__: object) -> Noise:
        return Noise(when, 0.25, (0.05, 0.07), 9.0, 3)

    monkeypatch.setattr(f"{METER}.calibrate", noisy)
    some = write(tmp_path / "some.jsonl", CANDIDATES[2:3])
    words = ["measure", some, "--tasks", inputs / "tasks.jsonl"]
    check_refused(run(*words), r"varied by 25.*\(--allow-noise\)$")


@pytest.mark.parametrize("keeps", [True, False])
def test_interrupted(
    sandbox_works: None,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keeps: bool,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{METER}.SandboxMeter.check", interrupt)
    words = ["measure", inputs / "candidates.jsonl", "--tasks", inputs / "tasks.jsonl"]
    status, out, err = run(*words, *(["--output", tmp_path / "out"] if keeps else []))
    assert (status, out) == (130, "")
    hint = "; the same command goes on from here" if keeps else ""
    assert err == f"codeact measure: interrupted{hint}\n"


def test_defaults_are_the_library_s() -> None:
    defaults = {name: each.default for name, each in inspect.signature(measure).parameters.items()}
    assert (defaults["min_gap"], defaults["min_spread"]) == (MIN_GAP, MIN_SPREAD)
