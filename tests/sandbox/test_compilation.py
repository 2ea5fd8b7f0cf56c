"""Compiling inside the sandbox, and the store of compiled programs."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from codeact.errors import InputError
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs import compilation, compiled_store
from codeact.sandbox.programs.compilation import Prepared, prepare
from codeact.sandbox.programs.languages import (
    COMPILE_LIMITS,
    MissingCompiler,
    compiled_folder,
    find_toolchain,
)
from codeact.sandbox.programs.program import LANGUAGES, Program
from codeact.sandbox.verdict import Verdict

_MISSING = [name for name in LANGUAGES if isinstance(find_toolchain(name), MissingCompiler)]
needs_c = pytest.mark.skipif("c" in _MISSING, reason="no gcc on this machine")
RIGHT_C = "int main(void) { return 0; }\n"


def fresh(source: str, comment: str = "//") -> str:
    """The same program under another key: nothing of it is stored yet."""
    return f"{source}\n{comment} {uuid4()}\n"


class Counting:
    """A sandbox that counts its runs."""

    def __init__(self, sandbox):
        self.sandbox, self.num_runs = sandbox, 0

    def run(self, *args, **options):
        self.num_runs += 1
        return self.sandbox.run(*args, **options)


def run_prepared(sandbox, prepared: Prepared):
    return sandbox.run(
        prepared.command,
        mounts=prepared.mounts,
        environment=prepared.environment,
        limits=prepared.limits,
    )


@pytest.mark.parametrize(
    ("language", "source", "status", "words"),
    [
        ("python", "def f(:\n", "syntax_error", "SyntaxError: invalid syntax (line 1)"),
        ("python", "if 1:\n\tx\n        y\n", "syntax_error", "TabError"),
        ("cpp", "int main() { return x; }", "compile_error", "error: 'x' was not declared"),
        ("c", "int main(void) { retrn 0; }", "compile_error", "error"),
        ("c", "", "compile_error", "main"),
        ("java", "class Main { int x = ; }", "compile_error", "Main.java:1: error"),
        ("javascript", "let x = ;", "compile_error", "SyntaxError: Unexpected token"),
        ("go", "package main\nfunc main() { x := 1 }", "compile_error", "x declared"),
        ("rust", "fn main() { let x: u8 = -1; }", "compile_error", "error"),
        ("rust", "\ud800", "compile_error", "UTF-8"),
    ],
)
def test_what_a_compiler_refuses(sandbox, language, source, status, words):
    if language in _MISSING:
        pytest.skip(f"no compiler of {language} on this machine")
    verdict = prepare(sandbox, Program(language, source))
    assert isinstance(verdict, Verdict)
    assert verdict.status == status
    assert words.replace("'", "") in verdict.reason.replace("‘", "").replace("’", "").replace(
        "'", ""
    )
    assert (verdict.num_tests, verdict.num_passed, verdict.first_failed) == (0, 0, None)


@needs_c
def test_a_program_is_compiled_once(sandbox):
    counting, program = Counting(sandbox), Program("c", fresh(RIGHT_C))
    first = prepare(counting, program)
    assert isinstance(first, Prepared)
    assert counting.num_runs == 1
    assert prepare(counting, program) == first
    assert counting.num_runs == 1
    other = prepare(counting, Program("c", program.source + " "))
    assert counting.num_runs == 2
    assert other.mounts[-1][0] != first.mounts[-1][0]
    assert run_prepared(sandbox, first).exit_code == 0


@needs_c
def test_another_compiler_compiles_again(sandbox, monkeypatch):
    """The key holds the compiler's version: an upgrade makes new programs."""
    program = Program("c", fresh(RIGHT_C))
    first = prepare(sandbox, program)
    upgraded = replace(find_toolchain("c"), version_command=("/bin/echo", "gcc of next year"))
    monkeypatch.setattr(compilation, "find_toolchain", lambda language: upgraded)
    second = prepare(sandbox, program)
    assert first.mounts[-1][0] != second.mounts[-1][0]


def test_a_missing_compiler_is_a_status(sandbox, monkeypatch):
    missing = MissingCompiler("rust", "no rustc on PATH")
    monkeypatch.setattr(compilation, "find_toolchain", lambda language: missing)
    verdict = prepare(sandbox, Program("rust", "fn main() {}"))
    assert (verdict.status, verdict.reason) == ("no_compiler", "no rustc on PATH")


def test_limits_reach_the_runtimes(sandbox):
    if "javascript" in _MISSING:
        pytest.skip("no node on this machine")
    limits = Limits(memory_bytes=400 * 2**20, stack_bytes=16 * 2**20)
    plain = prepare(sandbox, Program("js", ""), limits=limits)
    assert {"--max-old-space-size=300", "--stack-size=12288"} <= set(plain.command)
    assert "--single-threaded" not in plain.command
    assert "--single-threaded" in prepare(sandbox, Program("js", ""), measured=True).command


@needs_c
def test_a_compiler_reads_nothing_of_the_host(sandbox, tmp_path):
    secret = tmp_path / "secret.h"
    secret.write_text("#error the secret\n")
    verdict = prepare(sandbox, Program("c", f'#include "{secret}"\n{RIGHT_C}'))
    assert verdict.status == "compile_error"
    assert "the secret" not in verdict.reason
    assert "No such file" in verdict.reason


@needs_c
@pytest.mark.parametrize(
    ("source", "limits", "status", "words"),
    [
        ('#include "/dev/zero"\n', {"memory_bytes": 2**28}, "compile_error", ""),
        ("char big[3 << 20] = {1};\n" + RIGHT_C, {"output_bytes": 2**21}, "compile_error", "2 MiB"),
        (
            "#define A(x) x x x x x x x x x x x x x x x x\n"
            "int main(void) { A(A(A(A(A(A(A(;))))))) }",
            {"cpu_seconds": 0.5, "wall_seconds": 2.0},
            "time_limit",
            "more than 0.5 s",
        ),
        ("#error " + "long " * 10_000 + "\n", {}, "compile_error", "long long"),
    ],
    ids=["endless header", "large program", "macro bomb", "long diagnostics"],
)
def test_attacks_at_compile_time(sandbox, monkeypatch, source, limits, status, words):
    limits = {"wall_seconds": 5.0, **limits}
    monkeypatch.setattr(compilation, "COMPILE_LIMITS", replace(COMPILE_LIMITS, **limits))
    verdict = prepare(sandbox, Program("c", source))
    assert verdict.status == status
    assert words in verdict.reason
    assert len(verdict.reason) <= 300
    assert isinstance(prepare(sandbox, Program("c", RIGHT_C)), Prepared)  # the next is untouched


@needs_c
def test_a_stored_program_cannot_be_written_inside(sandbox):
    source = """
        #include <stdio.h>
        int main(void) { return fopen("/prog/prog", "r+") != NULL || remove("/prog/prog") == 0; }
    """
    prepared = prepare(sandbox, Program("c", source))
    stored = prepared.mounts[-1][0]
    before = stored.read_bytes()
    assert run_prepared(sandbox, prepared).exit_code == 0
    assert stored.read_bytes() == before


def test_the_store_forgets_the_longest_unused_first(tmp_path):
    now = time.time()
    for name, age in {"old": 9000, "older": 9500, "young": 10, "middle": 8000}.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - age, now - age))
    assert compiled_store.trim(tmp_path, max_bytes=400) == []
    assert compiled_store.trim(tmp_path, max_bytes=250) == ["older", "old"]
    assert compiled_store.trim(tmp_path, max_bytes=0) == ["middle"]  # the young one may be in use
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
    assert compiled_store.find(tmp_path, "old") is None


def test_finding_counts_as_use(tmp_path):
    path = compiled_store.store(tmp_path, "program", b"content")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o555
    os.utime(path, (0, 0))
    assert compiled_store.find(tmp_path, "program") == path
    assert compiled_store.trim(tmp_path, max_bytes=0) == []


def test_stores_at_the_same_time_leave_one_whole_file(tmp_path):
    content = bytes(range(256)) * 4000
    threads = [
        threading.Thread(target=compiled_store.store, args=(tmp_path, "one", content))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        found = compiled_store.find(tmp_path, "one")
        seen.add(found.read_bytes() if found else content)
    assert seen <= {content}
    assert [path.name for path in Path(tmp_path).iterdir()] == ["one"]


def test_a_cache_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setenv("CODEACT_CACHE", "/dev/null/cache")
    with pytest.raises(InputError, match=r"CODEACT_CACHE must be .* at /dev/null/cache/compiled"):
        compiled_folder()
