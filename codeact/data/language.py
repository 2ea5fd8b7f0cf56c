"""Which programming language a row is about: what it says of itself first, its code after that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from codeact.data.example import Example
from codeact.data.language_rules import ALIASES, NAMED, RULES

OTHER = "other"

_FIELDS = ("language", "lang", "programming_language")
_TONGUES = ("cs", "pl")  # in a field rather Czech and Polish than C# and Perl: the code decides
# A fence that opens: a tag right behind the ticks. The closing one has none.
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\{?\.?([A-Za-z][\w+#.-]*)", re.MULTILINE)
# A file name on a line of its own, in ticks or as a heading, as answers of several files have it.
_FILE = re.compile(r"^[ \t#*/-]*`?([\w./-]+)\.([A-Za-z]\w{0,4})`?:?[ \t*]*$", re.MULTILINE)
_WORD = re.compile(r"\w+")
_MOST_CHARS = 3000  # of code that is looked at: the start says it, and long rows stay quick
_SURE = 2  # points that a guess needs; one weak sign alone is none
_FOR_NAMING = 2  # points for a language that the instruction asks for by name


def detect_language(example: Example) -> str:
    """The programming language of a row, in lower case, such as ``python`` or ``c++``.

    The first of these that gives a known language: a field ``language``, ``lang`` or
    ``programming_language``; the tag of the first fenced block of the response, then file names in
    it; points for keywords and punctuation of its code, and for a language that the instruction
    asks for; the same of the instruction's own code. A natural language (``"en"``, and ``"pl"``,
    which would be Perl in a fence) is no known one.

    Returns:
        One of the names in :data:`codeact.data.language_rules.ALIASES`; ``"other"`` where nothing
        says, or two languages equally.
    """
    return (
        _of_field(example.fields)
        or _of_names(example.fields, example.response)
        or _of_code(example.response, example.instruction)
        or _of_names({}, example.instruction)
        or _of_code(example.instruction, example.instruction)
        or OTHER
    )


def _of_field(fields: Mapping[str, Any]) -> str | None:
    for column in _FIELDS:
        value = fields.get(column)
        name = value.strip().lower() if isinstance(value, str) else ""
        if name in ALIASES and name not in _TONGUES:
            return ALIASES[name]
    return None


def _of_names(fields: Mapping[str, Any], text: str) -> str | None:
    """What fence tags and file names say; ``fields`` may hold the answer as files by name."""
    tags = (match.group(1).lower() for match in _FENCE.finditer(text[:_MOST_CHARS]))
    for tag in tags:
        if tag in ALIASES:
            return ALIASES[tag]
    for ending in _endings(fields, text):
        if ending.lower() in ALIASES:
            return ALIASES[ending.lower()]
    return None


def _endings(fields: Mapping[str, Any], text: str) -> Iterator[str]:
    for value in fields.values():
        if isinstance(value, Mapping):
            yield from (str(name).rpartition(".")[2] for name in value if "." in str(name))
    yield from (match.group(2) for match in _FILE.finditer(text[:_MOST_CHARS]))


def _of_code(text: str, instruction: str) -> str | None:
    """The language with the most points, if they are enough and no other has as many."""
    points: Counter[str] = Counter()
    start = text[:_MOST_CHARS]
    words = frozenset(_WORD.findall(start))
    for rule in RULES:
        if rule.words and rule.words.isdisjoint(words):
            continue
        if rule.pattern.search(start):
            points[rule.language] += rule.points
    # What is written in the larger language is mostly the smaller one too.
    for larger, smaller in (("typescript", "javascript"), ("c++", "c")):
        if points[larger]:
            points[larger] += points[smaller]
    for language in {ALIASES[name.lower()] for name in _named(instruction)}:
        points[language] += _FOR_NAMING
    best = points.most_common(2)
    if not best or best[0][1] < _SURE or (len(best) > 1 and best[0][1] == best[1][1]):
        return None
    return best[0][0]


def _named(instruction: str) -> Iterator[str]:
    for match in NAMED.finditer(instruction[:_MOST_CHARS]):
        yield next(group for group in match.groups() if group)
