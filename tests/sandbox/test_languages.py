"""Names of languages, and where their compilers are."""

import os
import sys
from pathlib import Path

import pytest

from codeact.errors import InputError
from codeact.sandbox.programs import toolchains
from codeact.sandbox.programs.languages import (
    LANGUAGE_TABLE,
    MissingCompiler,
    Toolchain,
    find_toolchain,
    language_of,
    python_command,
    staged_folders,
)
from codeact.sandbox.programs.program import ALIASES, LANGUAGES, Program, canonical_language


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Python3", "python"),
        ("py", "python"),
        ("python 3.11", "python"),
        ("C++", "cpp"),
        ("c++17", "cpp"),
        ("GNU C++ 20", None),
        ("C", "c"),
        ("c11", "c"),
        ("Java 17", "java"),
        ("JavaScript", "javascript"),
        ("Node.js", "javascript"),
        ("node-20", "javascript"),
        ("golang", "go"),
        ("Go 1.19", "go"),
        (" rust ", "rust"),
        ("Python2", None),
        ("python 2.7", None),
        ("cobol", None),
        ("", None),
        ("17", None),
    ],
)
def test_names_that_come_in_from_data(written, name):
    if name is None:
        with pytest.raises(InputError, match="language must be one of python, cpp"):
            canonical_language(written)
    else:
        assert canonical_language(written) == name
        assert Program(written, "").language == name


def test_no_alias_stands_for_two_languages():
    names = [alias for name, aliases in ALIASES.items() for alias in (name, *aliases)]
    assert len(names) == len(set(names))
    assert tuple(LANGUAGE_TABLE) == LANGUAGES


def test_a_source_with_a_lone_surrogate_becomes_bytes_that_are_not_utf8():
    with pytest.raises(UnicodeDecodeError):
        Program("c", "\ud800").source_bytes.decode()


def test_toolchains_show_nothing_of_the_home():
    for language in LANGUAGES:
        found = find_toolchain(language)
        if isinstance(found, MissingCompiler):
            assert found.reason
            continue
        inside = [*found.tools.values(), *(place for _, place in found.mounts)]
        assert all(path.startswith(("/usr/", "/opt/", "/etc/java")) for path in inside)
        assert all(not Path.home().is_relative_to(path) for path, _ in found.mounts)
        assert {path for path, _ in found.mounts} <= set(staged_folders())


def test_python_is_the_interpreter_that_runs_us():
    found = find_toolchain("python")
    assert isinstance(found, Toolchain)
    assert found.version == "Python " + sys.version.split()[0]
    assert python_command(found)[0] == found.tools["python"]
    assert "-I" not in python_command(found)  # it would ignore PYTHONHASHSEED


def test_a_missing_compiler_is_an_answer(monkeypatch):
    monkeypatch.setattr(toolchains, "_executables", lambda name: iter(()))
    monkeypatch.setattr(toolchains, "_first_line", lambda command: "")
    monkeypatch.setattr(toolchains, "_java_home", lambda: "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for language, tool in {
        "cpp": "g++",
        "java": "JDK",
        "javascript": "node",
        "rust": "rustc",
    }.items():
        found = toolchains._find.__wrapped__(language)
        assert isinstance(found, MissingCompiler)
        assert tool in found.reason


def test_a_shim_is_not_a_compiler(tmp_path, monkeypatch):
    """A script, and a link to ccache, stand before the compiler on PATH."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    script = tmp_path / "one" / "gcc"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    ccache = tmp_path / "ccache"
    ccache.write_bytes(b"\x7fELF")
    ccache.chmod(0o755)
    (tmp_path / "two" / "gcc").symlink_to(ccache)
    monkeypatch.setenv("PATH", f"{tmp_path}/one:{tmp_path}/two")
    found = toolchains._find.__wrapped__("c")
    if isinstance(found, Toolchain):
        assert str(tmp_path) not in found.version_command[0]
    else:
        assert "gcc" in found.reason


def test_an_installation_that_fills_the_home_is_not_shown(tmp_path, monkeypatch):
    """Python configured with --prefix=$HOME: mounting it would show the home."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_bytes(b"\x7fELF")
    monkeypatch.setattr(sys, "_base_executable", str(python))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    found = toolchains._find.__wrapped__("python")
    assert isinstance(found, MissingCompiler)
    assert "more than a toolchain" in found.reason


def test_compiled_programs_go_to_the_chosen_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEACT_CACHE", str(tmp_path / "cache"))
    folder = toolchains.compiled_folder()
    assert folder == tmp_path / "cache" / "compiled"
    assert folder in staged_folders()
    assert os.stat(folder).st_mode & 0o777 == 0o755


def test_an_unknown_language_is_the_callers_mistake():
    with pytest.raises(InputError, match="got 'perl'"):
        language_of("perl")
