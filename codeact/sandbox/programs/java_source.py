"""What javac wants to know of a source file before it reads it: the name the file must have.

Reads hostile text on the host, so in time linear in its length: one pass that drops what may hide
braces, one pass over words.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

# Comments, text blocks, strings, characters; an unclosed one runs on, so that none is tried twice.
_HIDDEN = re.compile(
    r"//[^\n]*"
    r"|/\*.*?(?:\*/|\Z)"
    r'|"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?",
    re.DOTALL,
)
_TOKEN = re.compile(r"[^\W\d][\w$]*|[{}();]")
_MAX_NAME_BYTES = 200  # a file name has 255
_KINDS = ("class", "interface", "enum", "record")


@dataclass(frozen=True)
class JavaNames:
    """File name and main class (with its package) of a Java source."""

    file: str
    main_class: str


@dataclass
class _Type:
    name: str
    is_public: bool
    has_main: bool = False


def java_names(source: str) -> JavaNames:
    """Names for one compilation unit, found without compiling it.

    The file is named after its public top-level type, as javac demands, else ``Main.java``. The
    main class is the public type if it has a ``static void main``, else the first that has one,
    else ``Main``. A source that is not Java gets names too: refusing it is javac's work.
    """
    tokens = _TOKEN.findall(_HIDDEN.sub(" ", source))
    types = _top_level_types(tokens)
    public = next((kind.name for kind in types if kind.is_public), None)
    mains = sorted((kind for kind in types if kind.has_main), key=lambda kind: not kind.is_public)
    main_class = mains[0].name if mains else public or "Main"
    if "package" in tokens:
        start = tokens.index("package") + 1
        parts = itertools.takewhile(lambda token: token not in "{}();", tokens[start:])
        main_class = ".".join((*parts, main_class))
    if max(len(part.encode()) for part in (public or "", main_class)) > _MAX_NAME_BYTES:
        return JavaNames("Main.java", "Main")  # javac will say what it thinks of that
    return JavaNames(f"{public or 'Main'}.java", main_class)


def _top_level_types(tokens: list[str]) -> list[_Type]:
    types: list[_Type] = []
    depth = parentheses = 0
    words: set[str] = set()  # since the last statement or brace: modifiers, among others
    for token, following in itertools.zip_longest(tokens, tokens[1:], fillvalue=""):
        if token in "()":
            parentheses += 1 if token == "(" else -1
        elif parentheses > 0:  # an annotation's braces, a lambda's
            continue
        elif token in "{};":
            depth += {"{": 1, "}": -1, ";": 0}[token]
            words.clear()
        elif depth == 0 and token in _KINDS and following[:1].isidentifier():
            types.append(_Type(following, "public" in words))
        elif depth == 1 and token == "main" and following == "(" and {"static", "void"} <= words:
            for kind in types[-1:]:
                kind.has_main = True
        else:
            words.add(token)
    return types
