"""A program under test: a language and its source text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from codeact.errors import InputError

# What data sets call the languages, lower case and without a version at the end.
ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "python": ("py", "cpython"),
        "cpp": ("c++", "cxx", "cc", "g++", "gnu++", "cplusplus"),
        "c": ("gcc", "gnu c", "ansi c"),
        "java": ("openjdk",),
        "javascript": ("js", "node", "nodejs", "node.js", "ecmascript"),
        "go": ("golang",),
        "rust": ("rs", "rustc"),
    }
)
LANGUAGES: tuple[str, ...] = tuple(ALIASES)

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}
_VERSION = re.compile(r"[\s\-_]*v?\d[\d.]*\Z")
_PYTHON_2 = re.compile(r"(python|py)[\s\-_]*2(\.\d+)*\Z")


def canonical_language(name: str) -> str:
    """The name in our table of a language as data sets write it: "C++17", "py3", "golang", "Node".

    A version at the end is dropped, except that Python 2 is a language of its own, which we do not
    run.

    Raises:
        InputError: No entry of the table goes by this name.
    """
    plain = name.strip().lower()
    if not _PYTHON_2.match(plain):
        for known in (plain, _VERSION.sub("", plain)):
            if known in _CANONICAL:
                return _CANONICAL[known]
    raise InputError(f"language must be one of {', '.join(LANGUAGES)}, got {name!r}")


@dataclass(frozen=True)
class Program:
    """One program.

    Args:
        language: Any name that `canonical_language` knows; held in its canonical form.
        source: The whole program, one file.
    """

    language: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", canonical_language(self.language))

    @property
    def source_bytes(self) -> bytes:
        """The source as UTF-8. A lone surrogate, which model text may hold, stays invalid UTF-8:
        the compiler is to refuse it, not this library."""
        return self.source.encode("utf-8", "surrogatepass")
