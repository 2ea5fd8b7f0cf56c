"""Row 41: sources that attack whoever compiles them. Each is compiled, inside, by its language."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks.harness import nothing_left

from codeact.sandbox import Sandbox
from codeact.sandbox.execute import check
from codeact.sandbox.programs.languages import MissingCompiler, find_toolchain
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import StdinTests

SECRET = "the-secret-of-the-caller"
TESTS = StdinTests(("1\n",), (SECRET + "\n",))


@pytest.fixture(scope="module")
def workshop(arena: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with an empty cache of compiled programs."""
    folder = Path(tempfile.mkdtemp(prefix="attacks-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEACT_CACHE", str(folder))
        with Sandbox() as own:
            yield own
    shutil.rmtree(folder)


# Name, language, source with SECRET_PATH in place of a file of the caller.
_SOURCES: tuple[tuple[str, str, str], ...] = (
    ("include", "c", '#include "SECRET_PATH"\nint main(void) { return 0; }\n'),
    ("include by way of proc", "c", '#include "/proc/self/root/SECRET_PATH"\nint main(void){}\n'),
    ("incbin", "c",
     'extern const char t[];\n#include <stdio.h>\n'
     '__asm__("t: .incbin \\"SECRET_PATH\\"\\n.byte 0\\n");\n'
     "int main(void) { puts(t); }\n"),
    ("include of an endless device", "cpp", '#include "/dev/zero"\nint main() {}\n'),
    ("a program of 80 MB", "c",
     "volatile char big[80 << 20] = {1};\nint main(void) { return big[5]; }\n"),
    ("templates without end", "cpp",
     "template <int N> struct T { T<N + 1> a; T<N + 2> b; };\nT<0> t;\nint main() {}\n"),
    ("include_str", "rust", 'fn main() { println!("{}", include_str!("SECRET_PATH")); }\n'),
    ("env", "rust", 'fn main() { println!("{}", env!("CODEACT_TEST_SECRET")); }\n'),
    ("embed", "go",
     'package main\nimport _ "embed"\n//go:embed SECRET_PATH\nvar t string\n'
     "func main() { println(t) }\n"),
    ("cgo", "go",
     'package main\n// #cgo LDFLAGS: -Wl,@SECRET_PATH\n// #include "SECRET_PATH"\nimport "C"\n'
     "func main() {}\n"),
    ("class path", "java",
     "package etc;\npublic class Main {\n"
     "public static void main(String[] a) throws Exception { System.out.println(\n"
     'new String(java.nio.file.Files.readAllBytes(java.nio.file.Path.of("SECRET_PATH")))); } }\n'),
    ("read at run time", "javascript",
     'console.log(require("fs").readFileSync("SECRET_PATH", "utf8"));\n'),
    ("brackets", "python", "(" * 100_000),
    ("operators", "python", "-" * 1_000_000 + "1\n"),
    ("a NUL and a coding", "python", "# coding: unicode_escape\n\\u0000\0print(1)\n"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("language", "source"),
    [entry[1:] for entry in _SOURCES],
    ids=[f"row_41_{language}_{name.replace(' ', '_')}" for name, language, _ in _SOURCES],
)
def test_compiling(
    workshop: Sandbox, language: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = find_toolchain(language)
    if isinstance(toolchain, MissingCompiler):
        pytest.skip(f"not run: {toolchain.reason}")
    monkeypatch.setenv("CODEACT_TEST_SECRET", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    begin = time.monotonic()
    with nothing_left(workshop):
        source = source.replace("SECRET_PATH", str(secret))
        verdict = check(workshop, Program(language, source), TESTS)
    refused = {"compile_error", "syntax_error", "raised", "memory_limit", "time_limit"}
    assert verdict.status in refused | {"output_limit", "missing_answer"}
    assert SECRET not in verdict.reason
    assert time.monotonic() - begin < 30
