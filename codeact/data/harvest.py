"""Docstring -> function pairs from the source files of installed packages.

Every documented top-level function is a task that somebody described in words and then solved. The
packages are on the user's machine anyway, so nothing has to be redistributed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import io
import random
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from codeact.data.example import Example, Examples, Message
from codeact.errors import InputError
from codeact.progress import OnProgress

# Shorter prose does not say what to write; longer prose is a manual page.
_PROSE_CHARACTERS = range(40, 2001)
# Fewer lines are a pass-through or an alias; more do not fit a small model's context.
_OUTPUT_LINES = range(3, 81)
_OUTPUT_CHARACTERS = 4000  # lines beyond this are tables of numbers

# Files of classes and data alone, one in three, need no parsing.
_HAS_FUNCTION = re.compile(r"^(?:async )?def ", re.MULTILINE)

# From the first of these headings on, a docstring shows and cites but no longer specifies.
_LAST_SECTIONS = re.compile(
    r"^(?:Examples?|Notes?|References?|See Also)[ \t]*\n[ \t]*([=\-~^])\1{2,}[ \t]*$", re.MULTILINE
)
_DOCTEST_BLOCK = re.compile(r"^[ \t]*>>>.*\n?(?:[ \t]*\S.*\n?)*", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TRAILING_SPACE = re.compile(r"[ \t]+$", re.MULTILINE)
_TEST_FOLDERS = {"test", "tests"}


class _Package(NamedTuple):
    root: Path
    name: str
    version: str
    license: str


def harvest_functions(
    packages: Sequence[str] = ("networkx", "sympy"),
    *,
    limit: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Examples:
    """Pairs of docstring and function out of installed packages, without importing them.

    One example for each public top-level function outside tests: the instruction is its signature
    and the docstring's prose (without doctests, and up to the first Examples, Notes, References or
    See Also section), the response its source without the docstring, decorators and comments
    included. Left out are functions of fewer than 3 or more than 80 lines or over 4,000 characters,
    docstrings with less than 40 or more than 2,000 characters of prose, and exact repeats of an
    output. ``fields`` are
    instruction, output, function, source, path, version and license; the id is
    ``<path>:<function>``.

    Args:
        packages: Import names of installed packages.
        limit: At most so many examples, a random sample; all by default.
        seed: Fixes the order, which is shuffled: any beginning is a random sample too.
        on_progress: Called with files read and files in all.

    Raises:
        InputError: A package is not installed or has no Python sources, nothing in them passes the
            filters, or ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    found = [_locate(name) for name in dict.fromkeys(packages)]
    files = [(package, path) for package in found for path in _source_files(package.root)]
    examples: list[Example] = []
    outputs: set[str] = set()
    for done, (package, path) in enumerate(files, start=1):
        for example in _read_module(package, path):
            if example.response not in outputs:
                outputs.add(example.response)
                examples.append(example)
        if on_progress is not None:
            on_progress(done, len(files))
    if not examples:
        raise InputError(f"packages: no documented function found in {', '.join(packages)}")
    random.Random(seed).shuffle(examples)
    return Examples(examples[:limit], f"functions of {', '.join(packages)}")


def _locate(name: str) -> _Package:
    # find_spec of a top-level name reads no code of the package.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    if not folders:
        raise InputError(f"packages: {name!r} is not an installed package")
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        owners = importlib.metadata.packages_distributions().get(name, [])
        if not owners:
            return _Package(Path(folders[0]), name, "unknown", "unknown")
        about = importlib.metadata.metadata(owners[0])
    fields = about.json  # keys are lower case, and only those that the package fills in
    licence = str(fields.get("license_expression") or fields.get("license") or "unknown")
    # Some packages paste the whole licence text into the field.
    return _Package(Path(folders[0]), name, str(fields["version"]), licence.strip().splitlines()[0])


def _source_files(root: Path) -> list[Path]:
    return sorted(
        path
        for path in root.rglob("*.py")
        if _TEST_FOLDERS.isdisjoint(path.relative_to(root).parts)
        and not path.name.startswith("test_")
    )


def _read_module(package: _Package, path: Path) -> Iterator[Example]:
    try:
        with tokenize.open(path) as file:  # honours the file's coding line
            source = file.read()
        module = ast.parse(source if _HAS_FUNCTION.search(source) else "")
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return  # templates and files for other Python versions
    lines = source.split("\n")  # not splitlines: ast does not count a form feed as a line
    # A name that is defined twice means the last definition, as it does after an import.
    functions = {
        node.name: node
        for node in module.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    for name, node in functions.items():
        pair = None if name.startswith(("_", "test")) else _pair(node, lines)
        if pair is None:
            continue
        instruction, output = pair
        relative = path.relative_to(package.root.parent).as_posix()
        fields = {
            "instruction": instruction,
            "output": output,
            "function": name,
            "source": f"pypi:{package.name}",
            "path": relative,
            "version": package.version,
            "license": package.license,
        }
        messages = (Message("user", instruction), Message("assistant", output))
        yield Example(f"{relative}:{name}", messages, fields)


def _pair(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> tuple[str, str] | None:
    """Instruction and output of a function, None if it is not worth a task."""
    docstring = ast.get_docstring(node)
    first = node.body[0]
    header_end, body_start = first.lineno - 1, first.end_lineno or first.lineno
    if docstring is None or header_end < node.lineno or len(node.body) < 2:
        return None
    if node.body[1].lineno == body_start:  # code behind the docstring's closing quotes
        return None
    prose = _prose(docstring)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    body = lines[body_start : node.end_lineno]
    while body and not body[0].strip():
        body = body[1:]
    code = [*lines[start:header_end], *body]
    output = "\n".join(code) + "\n"
    if len(prose) not in _PROSE_CHARACTERS or len(code) not in _OUTPUT_LINES:
        return None
    if len(output) > _OUTPUT_CHARACTERS:
        return None
    signature = _signature(lines[node.lineno - 1 : header_end])
    return f"Write a Python function `{signature}`.\n\n{prose}", output


def _prose(docstring: str) -> str:
    text = _TRAILING_SPACE.sub("", docstring)
    end = _LAST_SECTIONS.search(text)
    text = _DOCTEST_BLOCK.sub("", text[: end.start()] if end else text)
    return _BLANK_LINES.sub("\n\n", text).strip()


def _signature(header: list[str]) -> str:
    """The ``def`` line as written, on one line, without keyword and colon."""
    text = "\n".join(header)
    if "#" in text:
        text = _without_comments(text)
    text = " ".join(text.split())
    text = text.removeprefix("async ").removeprefix("def ").rstrip(": ")
    return text.replace("( ", "(").replace(", )", ")")


def _without_comments(code: str) -> str:
    lines = code.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(lines)
