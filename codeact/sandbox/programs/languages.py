"""The languages that can be run: one entry each, everything that differs between them.

Commands are templates: ``{g++}`` is the path of a tool inside the sandbox, ``{source}`` the name
of the source file, ``{artifact}`` the compiled program, ``{main_class}`` Java's main class,
``{heap_mib}`` and ``{stack_kib}`` three quarters of the limits on memory and stack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.java_source import java_names
from codeact.sandbox.programs.program import canonical_language
from codeact.sandbox.programs.toolchains import (
    MissingCompiler,
    Toolchain,
    compiled_folder,
    find_toolchain,
    staged_folders,
)
from codeact.sandbox.verdict import Status

__all__ = [
    "LANGUAGE_TABLE",
    "Language",
    "MissingCompiler",
    "Toolchain",
    "canonical_language",
    "compiled_folder",
    "find_toolchain",
    "language_of",
    "python_command",
    "staged_folders",
]

_MIB = 2**20
Command = tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """How programs of one language are compiled, run and bounded.

    Args:
        name: Canonical name.
        source_name: What the source file is called; Java asks `java_names` instead.
        artifact_name: The one file that compiling makes.
        build: Commands, run one after the other in the work folder; their output is diagnostics.
        run: The command of a run.
        empty_source: The program that does nothing: what it uses is the language's own start-up.
        limits: Of a run, where the caller sets none.
        measured_options: Added after the first word of ``run`` when time counts.
        build_environment: Variables while compiling.
        environment: Variables of a run.
        refused: Status of a source that the compiler refuses.
        memory_words: What the runtime says on standard error when it is refused memory.
        is_counted: Instruction counts mean something: native code and CPython, not JITs.
        names: Further names in the commands, from the source.
    """

    name: str
    source_name: str
    artifact_name: str
    build: tuple[Command, ...]
    run: Command
    empty_source: str
    limits: Limits
    measured_options: Command = ()
    build_environment: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    refused: Status = "compile_error"
    memory_words: tuple[str, ...] = ()
    is_counted: bool = False
    names: Callable[[str], Mapping[str, str]] | None = None

    def fill(
        self, command: Sequence[str], toolchain: Toolchain, values: Mapping[str, str]
    ) -> list[str]:
        """A template's words with tools and values in place."""
        known = {**toolchain.tools, **values}
        return [word.format_map(known) for word in command]


# Compiling: 30 s of CPU time; twice that by the clock, for a busy host.
COMPILE_LIMITS = Limits(
    wall_seconds=60.0,
    cpu_seconds=30.0,
    output_bytes=64 * _MIB,  # of the artifact, which comes out on standard output
    file_bytes=256 * _MIB,
    box_bytes=512 * _MIB,
    processes=64,
    open_files=256,
)

# Address space is a second wall behind resident memory: room for 64 MiB stacks and libraries. A
# program that only reserves a lot fails there, one that uses a lot meets ``memory_bytes`` first.
_PLAIN = Limits(address_space_bytes=Limits().memory_bytes + 512 * _MIB)
_RUNTIME = Limits(processes=64)  # threads of the runtime's own; no limit on what they reserve

# ``-I`` would do, but it ignores PYTHONHASHSEED: orders of sets, and so times, would vary.
_PYTHON_OPTIONS = (
    "-s",
    "-S",
    "-B",
    "-X",
    "utf8",
    *(("-P",) if sys.version_info >= (3, 11) else ()),
)
_PYTHON_BUILD = """\
import _frozen_importlib_external as importing, marshal, sys
source = open(sys.argv[1], "rb").read()
try:
    code = compile(source, sys.argv[1], "exec", dont_inherit=True)
except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
    line = getattr(error, "lineno", None)
    at = f" (line {line})" if line else ""
    sys.exit(f"{type(error).__name__}: {getattr(error, 'msg', error)}{at}")
with open(sys.argv[2], "wb") as file:  # PEP 552: magic, flags, time, size, code
    file.write(importing.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
"""
_GNU_OPTIONS = ("-O2", "-pipe", "-fmax-errors=5", "-fdiagnostics-color=never")
# One thread of each kind; the first compiler only: its spread is 1.6 %, that of both 4.4 %. The
# first heap is fixed in the command: by default it is a share of the machine's memory.
_JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=1")
_JVM_BUILD_OPTIONS = ("-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-Xmx640m")
_JAVAC_OPTIONS = ("-proc:none", "-nowarn", "-encoding", "UTF-8", "-Xmaxerrs", "5")
_JAR_OPTIONS = ("--create", "--no-compress", "--file", "prog.jar", "--main-class")
_RUSTC_OPTIONS = ("--edition", "2021", "-O", "--error-format=short", "-C", "linker={linker}")


def _java_values(source: str) -> Mapping[str, str]:
    names = java_names(source)
    return {"source": names.file, "main_class": names.main_class}


_PYTHON = Language(
    name="python",
    source_name="main.py",
    artifact_name="main.pyc",
    build=(("{python}", *_PYTHON_OPTIONS, "-c", "{script}", "{source}", "main.pyc"),),
    run=("{python}", *_PYTHON_OPTIONS, "{artifact}"),
    empty_source="",
    limits=_PLAIN,
    refused="syntax_error",
    memory_words=("MemoryError",),
    is_counted=True,
    names=lambda source: {"script": _PYTHON_BUILD},
)

_CPP = Language(
    name="cpp",
    source_name="main.cpp",
    artifact_name="prog",
    build=(("{g++}", *_GNU_OPTIONS, "-std=c++17", "-o", "prog", "{source}"),),
    run=("{artifact}",),
    empty_source="int main() {}\n",
    limits=_PLAIN,
    memory_words=("std::bad_alloc",),
    is_counted=True,
)

_C = Language(
    name="c",
    source_name="main.c",
    artifact_name="prog",
    build=(("{gcc}", *_GNU_OPTIONS, "-std=gnu17", "-o", "prog", "{source}", "-lm"),),
    run=("{artifact}",),
    empty_source="int main(void) { return 0; }\n",
    limits=_PLAIN,
    is_counted=True,
)

_JAVA = Language(
    name="java",
    source_name="Main.java",
    artifact_name="prog.jar",
    build=(
        ("{javac}", *_JVM_BUILD_OPTIONS, *_JAVAC_OPTIONS, "-d", "out", "{source}"),
        ("{jar}", *_JVM_BUILD_OPTIONS, *_JAR_OPTIONS, "{main_class}", "-C", "out", "."),
    ),
    run=(
        "{java}", *_JAVA_OPTIONS, "-Xshare:auto", "-XX:-UsePerfData", "-Xms32m", "-Xmx{heap_mib}m",
        "-Xss{stack_kib}k", "-Dfile.encoding=UTF-8", "-jar", "{artifact}",
    ),
    empty_source="public class Main { public static void main(String[] args) {} }\n",
    limits=_RUNTIME,
    memory_words=("java.lang.OutOfMemoryError",),
    names=_java_values,
)  # fmt: skip

_JAVASCRIPT = Language(
    name="javascript",
    source_name="main.js",
    artifact_name="main.js",
    build=(("{node}", "--check", "{source}"),),
    run=("{node}", "--max-old-space-size={heap_mib}", "--stack-size={stack_kib}", "{artifact}"),
    empty_source="",
    limits=_RUNTIME,
    measured_options=("--single-threaded",),
    memory_words=("heap out of memory",),
)

_GO = Language(
    name="go",
    source_name="main.go",
    artifact_name="prog",
    build=(("{go}", "build", "-o", "prog", "{source}"),),
    run=("{artifact}",),
    empty_source="package main\n\nfunc main() {}\n",
    limits=_RUNTIME,
    build_environment={
        "GOCACHE": "/box/.cache",
        "GOPATH": "/box/.go",
        "GOTMPDIR": "/box",
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    },
    environment={"GOMAXPROCS": "1"},
    memory_words=("out of memory", "cannot allocate memory"),
)

_RUST = Language(
    name="rust",
    source_name="main.rs",
    artifact_name="prog",
    build=(("{rustc}", *_RUSTC_OPTIONS, "-o", "prog", "{source}"),),
    run=("{artifact}",),
    empty_source="fn main() {}\n",
    limits=_PLAIN,
    memory_words=("memory allocation of",),
    is_counted=True,
)  # fmt: skip

LANGUAGE_TABLE: Mapping[str, Language] = MappingProxyType(
    {language.name: language for language in (_PYTHON, _CPP, _C, _JAVA, _JAVASCRIPT, _GO, _RUST)}
)


def language_of(name: str) -> Language:
    """The entry of a language under any of its names.

    Raises:
        InputError: There is none.
    """
    return LANGUAGE_TABLE[canonical_language(name)]


def python_command(toolchain: Toolchain) -> list[str]:
    """How Python is started inside the sandbox: no site packages, no byte code written."""
    return [toolchain.tools["python"], *_PYTHON_OPTIONS]
