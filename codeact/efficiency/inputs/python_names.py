"""The names that Python code uses, read from its syntax tree without running or trusting it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# ast.parse turns its tree into objects by recursion in C, which a hostile text can drive through
# the stack of some CPython versions. What nests deeper than people write is not parsed.
_MAX_CHARS = 200_000
_MAX_BRACKETS = 60
_MAX_INDENT = 60
_MAX_OPERATORS = 400  # of one logical line: each operator, dot and keyword may nest once
_MAX_BRANCHES = 200  # elif, except and else of the text: each `elif` nests in the one before
# Strings may lack their end: a pattern that failed there would start again at every quote.
_TOKEN = re.compile(
    r"#[^\n]*"
    r"|(?:'''|\"\"\")[\s\S]*?(?:'''|\"\"\"|\Z)|'(?:\\.|[^'\\\n])*'?|\"(?:\\.|[^\"\\\n])*\"?"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<line>\n[ \t]*)|(?P<comma>[,;])"
    r"|(?P<branch>\b(?:elif|else|except)\b)"
    r"|(?P<operator>[-+*/%@&|^~<>=!.:]+|\b(?:not|and|or|in|is|if|for|lambda|await|yield)\b)"
)


# Built-in functions that only matter on text that is made while the program runs.
_ON_BUILT_TEXT = ("eval", "exec", "compile")


class Use(NamedTuple):
    """A dotted name as if every import were written out, and its line."""

    name: str
    line: int


@lru_cache(maxsize=64)  # filters ask twice about a source
def python_uses(source: str) -> tuple[Use, ...] | None:
    """Modules, functions and attributes that a source names, in the order of lines.

    ``import numpy.random as r; r.seed(0)`` uses ``numpy.random`` and ``numpy.random.seed``.
    Names that the source itself binds (parameters, variables, its own functions) are its own and
    left out, and so are ``eval``, ``exec`` and ``compile`` of a literal; attributes of whatever
    expression appear as ``.attribute``.

    Returns:
        None if the source does not parse, or nests too deep to be handed to the parser.
    """
    tree = parse_shallow(source)
    if tree is None:
        return None
    nodes = list(ast.walk(tree))  # breadth first with a queue: depth costs no stack
    modules = dict(_imports(nodes))
    own = set(_bound_names(nodes)) - modules.keys()
    harmless = set(_calls_on_literals(nodes))
    found = {Use(name, line) for name, line in _imported(nodes)}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            found.add(Use(f".{node.attr}", node.lineno))
        name = "" if node in harmless else _dotted(node)
        root = name.partition(".")[0]
        if name and root not in own:
            found.add(Use(modules.get(root, root) + name[len(root) :], node.lineno))  # type: ignore[attr-defined]
    return tuple(sorted(found, key=lambda use: (use.line, use.name)))


def parse_shallow(source: str) -> ast.Module | None:
    if not _is_shallow(source):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and its like
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_shallow(source: str) -> bool:
    """Whether nothing in the text can nest deeper than a few hundred levels."""
    if len(source) > _MAX_CHARS:
        return False
    depth = operators = branches = 0
    for token in _TOKEN.finditer(source):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
            operators += 1
        elif kind == "close":
            depth -= 1
        elif kind in ("operator", "branch"):
            operators += 1
            branches += kind == "branch"
        elif kind == "comma" and depth <= 1:
            operators = 0
        elif kind == "line" and depth <= 0:
            operators = 0
            if len(token.group()) > 8 * _MAX_INDENT:
                return False
        if depth > _MAX_BRACKETS or operators > _MAX_OPERATORS or branches > _MAX_BRANCHES:
            return False
    return True


def _imports(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """(local name, what it stands for) of every import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _imported(nodes: list[ast.AST]) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _bound_names(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def _calls_on_literals(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    """The names in ``eval("1")`` and its like."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
            if literal and node.func.id in _ON_BUILT_TEXT:
                yield node.func


def _dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or a chain of attributes on one, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
