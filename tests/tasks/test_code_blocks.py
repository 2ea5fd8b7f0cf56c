from __future__ import annotations

import pytest

from codeact.tasks.code_blocks import code_blocks, complete_code, defines, extract_code

GOOD = "def f(x):\n    return x\n"


def fenced(code: str, tag: str = "python", fence: str = "```") -> str:
    return f"{fence}{tag}\n{code.rstrip()}\n{fence}\n"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (f"Here:\n{fenced(GOOD)}Done.", GOOD),
        (f"Here:\r\n{fenced(GOOD)}".replace("\n", "\r\n").replace("\r\r", "\r"), GOOD),
        (fenced(GOOD, "py"), GOOD),
        (fenced(GOOD, "Python3 title=x"), GOOD),
        (fenced(GOOD, ""), GOOD),
        (fenced(GOOD, fence="~~~~"), GOOD),
        (fenced("x = '''\n```\n'''\n" + GOOD, fence="````"), "x = '''\n```\n'''\n" + GOOD),
        ("1. So:\n   ```python\n   def f(x):\n       return x\n   ```\n", GOOD),
        (f"```python\n{GOOD}", GOOD),  # the answer was cut
        (GOOD, GOOD),
        (f"{GOOD}```\nThis works because ...", GOOD[:-1]),  # the prompt held the first fence
        (f"{fenced('def f(x): 1 / 0')}Better:\n{fenced(GOOD)}So:\n{fenced('print(f(1))')}", GOOD),
        (f"{fenced(GOOD)}In C++:\n{fenced('int f(int x);', 'cpp')}", GOOD),
        (f"{fenced('pip install x', 'bash')}{fenced(GOOD, '')}", GOOD),
        (f"<think>{fenced('def f(x): wrong')}</think>{fenced(GOOD)}", GOOD),
        (fenced("int f(int x);", "cpp"), ""),
        ("```python\n```", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_extract_code(response, code):
    assert extract_code(response, entry_point="f") == code


def test_no_block_defines_the_entry_point():
    long = "print(1)\nprint(2)\n"
    assert extract_code(fenced(long) + fenced("g(1)\n"), entry_point="f") == long
    assert extract_code(fenced(long) + fenced("g(1)\n")) == long


def test_other_languages():
    response = fenced("main()\n", "python") + fenced("int main() {}\n", "c++")
    assert extract_code(response, language="cpp") == "int main() {}\n"
    assert extract_code(fenced("let x;\n", "js"), language="javascript") == "let x;\n"
    assert extract_code(fenced("int main() {}\n", "c"), language="cpp") == ""


def test_code_blocks_know_language_and_place():
    blocks = code_blocks("Intro\n" + fenced("a\n") + "then\n" + fenced("b\n", "text"))
    assert [(b.language, b.code, b.before) for b in blocks] == [
        ("python", "a\n", "Intro"),
        (None, "b\n", "then"),
    ]


@pytest.mark.parametrize(
    ("code", "entry_point", "expected"),
    [
        ("def f(x): pass", "f", True),
        ("async def f(x): pass", "f", True),
        ("f = lambda x: x", "f", True),
        ("f: object = g", "f", True),
        ("f == 3", "f", False),
        ("def ff(x): pass", "f", False),
        ("# def f(x): pass", "f", False),
        ("class Solution:\n    def f(self): pass", "Solution().f", True),
        ("class Solution:\n    def g(self): pass", "Solution().f", False),
        ("class Other:\n    def f(self): pass", "Solution().f", False),
        ("def f(self): pass", "Solution().f", False),
        ("def f(x): pass", None, False),
    ],
)
def test_defines(code, entry_point, expected):
    assert defines(code, entry_point) is expected


def test_a_continuation_gets_its_prompt():
    prompt = 'import math\n\n\ndef f(x):\n    """Double."""\n'
    whole = 'import math\n\n\ndef f(x):\n    """Double."""\n    return 2 * x\n'
    kwargs = {"prompt_code": prompt, "entry_point": "f"}
    assert complete_code("    return 2 * x\n", **kwargs) == whole
    assert complete_code("\n\n    return 2 * x\n", **kwargs) == whole
    assert complete_code(GOOD, **kwargs) == GOOD
    assert complete_code("I cannot.", **kwargs) == "I cannot."
    assert complete_code("    return 1", prompt_code="", entry_point="f") == "    return 1"
