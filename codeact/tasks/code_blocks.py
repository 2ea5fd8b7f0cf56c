"""The program in a model's answer: fenced blocks of Markdown, and answers without any."""

from __future__ import annotations

import re
from typing import NamedTuple

# CommonMark 4.5: a closing fence is at least as long as the opening one and has no tag.
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<tag>[^`]*)\Z")
_TAG = re.compile(r"\{?\.?([A-Za-z][\w+#.-]*)")
_END_OF_THOUGHT = "</think>"  # what reasoning models try before their answer is not the answer


class CodeBlock(NamedTuple):
    """A fenced block: its language (None if untagged or unknown), its lines, what stands before."""

    language: str | None
    code: str
    before: str


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of Markdown; one that is never closed, a cut answer, runs to the end."""
    blocks: list[CodeBlock] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    before: list[str] = []
    # Not splitlines(), which also splits at characters that may stand within strings of code.
    for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n"):
        fence = _FENCE.match(line)
        if opening is None:
            if fence is None:
                before.append(line)
            else:
                opening, lines = fence, []
        elif fence and not fence["tag"] and fence["ticks"].startswith(opening["ticks"]):
            blocks.append(_block(opening, lines, before))
            opening, before = None, []
        else:
            lines.append(line)
    if opening is not None:
        blocks.append(_block(opening, lines, before))
    return blocks


def extract_code(response: str, *, language: str = "python", entry_point: str | None = None) -> str:
    """The program in an answer.

    Of the blocks tagged with the language, or else of the untagged ones, the last that defines
    ``entry_point``: models repair themselves downwards. If none does, the longest, because what
    follows a program is often a line of usage. An answer without fences is the program; one whose
    first fence only closes (the prompt held the opening one) is what stands before it.

    Returns:
        The source, ``""`` if every block is of another language.
    """
    text = response.rpartition(_END_OF_THOUGHT)[2]
    blocks = code_blocks(text)
    if not blocks:
        return text
    if blocks[0].language is None and _is_code(blocks[0].before, entry_point):
        return blocks[0].before
    wanted = _language(language) or language
    usable = [block.code for block in blocks if block.language == wanted]
    usable = usable or [block.code for block in blocks if block.language is None]
    defining = [code for code in usable if defines(code, entry_point)]
    return defining[-1] if defining else max(usable, key=len, default="")


def complete_code(code: str, *, prompt_code: str, entry_point: str | None) -> str:
    """The whole program: with ``prompt_code`` in front where ``code`` only continues it.

    A continuation does not define the entry point itself and begins with an indented line.
    """
    if defines(code, entry_point) or not defines(prompt_code, entry_point):
        return code
    if not _starts_indented(code):
        return code
    return prompt_code.rstrip() + "\n" + code.lstrip("\r\n")


def defines(code: str, entry_point: str | None) -> bool:
    """Whether Python code seems to define ``name``, or a class and its method: by its lines.

    Not by a syntax tree: a parser can be crashed by what a model writes. A line of that form
    within a string misleads it, which costs a wrong choice of block and never a wrong verdict.
    """
    if entry_point is None:
        return False
    owner, _, method = entry_point.rpartition("().")
    function = rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(method)}\b"
    if owner:
        is_class = re.search(rf"^class[ \t]+{re.escape(owner)}\b", code, re.MULTILINE)
        return is_class is not None and re.search(function, code, re.MULTILINE) is not None
    assigned = rf"^{re.escape(method)}[ \t]*(?::[^=\n]*)?=(?!=)"
    return re.search(f"{function}|{assigned}", code, re.MULTILINE) is not None


def _block(opening: re.Match[str], lines: list[str], before: list[str]) -> CodeBlock:
    """The block without the indentation of its fence: answers put blocks in lists."""
    indent = opening["indent"]
    code = "\n".join(line.removeprefix(indent) for line in lines)
    tag = _TAG.match(opening["tag"])
    language = _language(tag[1]) if tag else None
    return CodeBlock(language, code + "\n" if code else "", "\n".join(before))


def _language(tag: str) -> str | None:
    from codeact.data.language_rules import ALIASES  # it loads torch

    return ALIASES.get(tag.lower())


def _is_code(text: str, entry_point: str | None) -> bool:
    return defines(text, entry_point) or (entry_point is not None and _starts_indented(text))


def _starts_indented(code: str) -> bool:
    first = next((line for line in code.splitlines() if line.strip()), "")
    return first[:1] in (" ", "\t")
