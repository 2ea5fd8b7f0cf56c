"""The driver over plain pipes, with harmless candidates: what it sends, and what it leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codeact.sandbox.calls.function_calls import driver_bytecode, encode_tests, header_frame
from codeact.sandbox.launcher import framed, frames_of
from codeact.sandbox.tests import BinaryTree, Call, FunctionTests, LinkedList

# Puts the pipes where the sandbox's init puts them.
_ENTER = """\
import os, sys
incoming, outgoing, driver = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.dup2(os.dup(incoming), 13), os.dup2(os.dup(outgoing), 14)
os.dup2(13, 3), os.dup2(14, 4)
os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", driver])
"""
PRELUDE = "from typing import *\nfrom collections import *\nimport math\n"


def talk(
    folder: Path,
    source: str,
    tests: FunctionTests,
    *,
    repeats: int = 1,
    is_baseline: bool = False,
    is_split: bool = True,
) -> list[bytes]:
    """The driver's frames for one candidate."""
    driver = folder / "driver.pyc"
    driver.write_bytes(driver_bytecode())
    encoded = encode_tests(tests)
    header = header_frame(
        source, tests, encoded, repeats=repeats, is_baseline=is_baseline, is_split=is_split
    )
    incoming, to_driver = os.pipe()
    from_driver, outgoing = os.pipe()
    command = [sys.executable, "-c", _ENTER, str(incoming), str(outgoing), str(driver)]
    with subprocess.Popen(command, pass_fds=(incoming, outgoing)) as process:
        os.close(incoming)
        os.close(outgoing)
        with os.fdopen(to_driver, "wb") as pipe:
            pipe.write(framed([header, *encoded.frames]))  # a pipe holds more than these
        with os.fdopen(from_driver, "rb") as pipe:
            content = pipe.read()
        process.wait(timeout=30)
    frames, is_broken = frames_of(content, 10**6)
    assert not is_broken
    return list(frames)


def of_calls(*arguments: object, entry_point: str = "f", **fields: object) -> FunctionTests:
    calls = tuple(Call((argument,)) for argument in arguments)
    return FunctionTests(entry_point, calls, (None,) * len(calls), **fields)  # type: ignore[arg-type]


def answers(frames: list[bytes]) -> list[str]:
    assert frames[0] == b"L"
    assert [frame[:1] for frame in frames[1:]] == [b"A"] * (len(frames) - 1)
    indices = [int.from_bytes(frame[1:5], "little") for frame in frames[1:]]
    assert indices == list(range(len(frames) - 1))
    return [frame[5:].decode() for frame in frames[1:]]


def test_answers_in_order(tmp_path: Path) -> None:
    frames = talk(tmp_path, "def f(x): return [x, type(x).__name__]", of_calls(1, (2,), {3}))
    assert answers(frames) == [
        '[1, "int"]',
        '[{"tuple": [2]}, "tuple"]',
        '[{"set": [3]}, "set"]',
    ]


def test_imports_nothing_that_costs(tmp_path: Path) -> None:
    source = "import sys\ndef f(x): return sorted(set(sys.modules) & x)"
    costly = {"json", "typing", "os", "re", "collections", "traceback", "enum", "io", "sys"}
    assert answers(talk(tmp_path, source, of_calls(costly))) == ['["io", "sys"]']


def test_the_prelude_is_run_as_far_as_it_is_mentioned(tmp_path: Path) -> None:
    source = "import sys\ndef f(x):\n d = deque([x])\n return [*d, *sorted(set(sys.modules) & x)]"
    tests = of_calls({"collections", "typing", "math"}, prelude=PRELUDE)
    split = answers(talk(tmp_path, source, tests))
    whole = answers(talk(tmp_path, source, tests, is_split=False))
    assert '"collections"' in split[0]
    assert '"typing"' not in split[0].partition("}")[2]
    assert '"typing"' in whole[0].partition("}")[2]


@pytest.mark.parametrize(
    ("source", "is_imported"),
    [
        ("def f(x: Optional[List[int]] | None) -> Dict[str, Tuple[int, ...]]: return loaded()", 0),
        ("class A:\n    x: Set[int] = 1\ndef f(x: int | Any): return loaded()", 0),
        ("Row = List[int]\ndef f(x: Row): return loaded()", 1),
        ("class A:\n    x: ClassVar[int] = 1\ndef f(x): return loaded()", 1),
        ("def f(x: List): return eval('loaded()')", 1),
        ("def f(x: List): return cast(int, loaded())", 1),
        ("def f(x: (y := List)): return loaded()", 1),
    ],
    ids=range(7),
)
def test_annotations_alone_do_not_import_typing(
    tmp_path: Path, source: str, is_imported: int
) -> None:
    source = f"import sys\ndef loaded(): return int('typing' in sys.modules)\n{source}"
    frames = talk(tmp_path, source, of_calls(1, prelude=PRELUDE))
    assert answers(frames) == [str(is_imported)]
    whole = talk(tmp_path, source, of_calls(1, prelude=PRELUDE), is_split=False)
    assert answers(whole) == ["1"]


def test_statements_of_the_prelude_bring_what_they_need(tmp_path: Path) -> None:
    prelude = PRELUDE + "limit = int('7')\ndef up(x): return math.ceil(x) + limit\nprint('kept')\n"
    tests = of_calls(0.5, prelude=prelude)
    assert answers(talk(tmp_path, "def f(x): return up(x)", tests)) == ["8"]
    assert answers(talk(tmp_path, "def f(x): return eval('up')(x)", tests)) == ["8"]


def test_repetitions_start_afresh(tmp_path: Path) -> None:
    source = "seen = []\ndef f(x):\n seen.append(x)\n x.append(1)\n return [len(seen), x]"
    frames = talk(tmp_path, source, of_calls([], [5]), repeats=4)
    assert answers(frames) == ["[1, [1]]", "[2, [5, 1]]"] * 2


def test_generators_work_in_every_repetition(tmp_path: Path) -> None:
    source = (
        "import sys\n"
        "def f(x):\n"
        "    for item in x:\n"
        "        sys.work = getattr(sys, 'work', 0) + 1\n"
        "        yield sys.work\n"
    )
    frames = talk(tmp_path, source, of_calls([1, 2]), repeats=5)
    assert answers(frames) == ["[1, 2]", "[9, 10]"]


def test_memory_does_not_grow_with_the_repetitions(tmp_path: Path) -> None:
    source = (
        "from functools import lru_cache\n"
        "class Big:\n"
        "    def __init__(self): self.data = bytearray(1_000_000)\n"
        "class Solution:\n"
        "    def f(self, x):\n"
        "        self.cached(x)\n"
        "        return int(open('/proc/self/statm').read().split()[1])\n"
        "    @lru_cache\n"
        "    def cached(self, x): return [Big() for _ in range(x)]\n"
    )
    tests = of_calls(20, entry_point="Solution().f")
    first, last = (int(text) for text in answers(talk(tmp_path, source, tests, repeats=10)))
    pages_of_one = 20_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert last - first < pages_of_one


def test_nodes_of_the_candidate_s_own_class(tmp_path: Path) -> None:
    source = (
        "class ListNode:\n"
        "    def __init__(self, val, next): self.val, self.next = val, next\n"
        "def f(x):\n"
        "    assert type(x) is ListNode\n"
        "    return x.next\n"
    )
    frames = talk(tmp_path, source, of_calls(LinkedList((1, 2, 3)), LinkedList((1,))))
    assert answers(frames) == ['{"linked_list": [2, 3]}', "null"]


@pytest.mark.parametrize(
    ("values", "inorder"),
    [((1, 2, 3), [2, 1, 3]), ((1, None, 2, 3), [1, 3, 2]), ((5, 4, None, 3), [3, 4, 5])],
)
def test_trees_in_level_order(
    tmp_path: Path, values: tuple[int | None, ...], inorder: list[int]
) -> None:
    source = (
        "def walk(node): return walk(node.left) + [node.val] + walk(node.right) if node else []\n"
        "def f(x): return [walk(x), x]\n"
    )
    text = str(list(values)).replace("None", "null")
    expected = f'[{inorder}, {{"binary_tree": {text}}}]'
    assert answers(talk(tmp_path, source, of_calls(BinaryTree(values)))) == [expected]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x.next.next = x", "circular"),
        ("x = [TreeNode(1)]; x[0].left = x[0]", "circular"),
        ("x = type(x)", "type builtins.type"),
    ],
)
def test_circular_nodes_are_refused(tmp_path: Path, source: str, words: str) -> None:
    frames = talk(tmp_path, f"def f(x):\n {source}\n return x", of_calls(LinkedList((1, 2))))
    assert frames[-1].startswith(b"Eunsupported_value\n")
    assert words in frames[-1].decode()


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("def f(:", "syntax_error\nSyntaxError"),
        ("def f(x): return '\ud800'", "syntax_error\n"),
        ("x = '\0'", "syntax_error\n"),
        ("(" * 5000, "syntax_error\n"),
        ("import absent", "load_error\nModuleNotFoundError: No module named 'absent' (line 1)"),
        ("raise SystemExit(0)", "load_error\nSystemExit: 0"),
        ("g = 1", "no_entry_point\nf is not defined"),
        ("f = 1", "no_entry_point\nf is not defined"),
        ("def f(x):\n\n return 1 / 0", "raised\nZeroDivisionError: division by zero (line 3)"),
        ("def f(x): raise KeyboardInterrupt", "raised\nKeyboardInterrupt"),
        ("def f(x): raise MemoryError", "memory_limit\nMemoryError"),
        ("def f(x): return f(x)", "raised\nRecursionError"),
        ("def f(x): return object()", "unsupported_value\na value of type builtins.object"),
        (
            "class E(Exception):\n def __str__(self): raise ValueError\ndef f(x): raise E",
            "raised\nan exception that cannot be printed",
        ),
        ("def f(x):\n yield 1\n raise OSError('late')", "raised\nOSError: late (line 3)"),
        ("def f(): return 1", "raised\nTypeError"),
    ],
    ids=range(16),
)
def test_failures_name_their_status(tmp_path: Path, source: str, start: str) -> None:
    frames = talk(tmp_path, source, of_calls(1))
    assert frames[-1].decode().startswith("E" + start)
    is_loaded = start.startswith(("raised", "memory", "unsupported"))
    assert frames[:-1] == ([b"L"] if is_loaded else [])


def test_a_failing_prelude_is_the_test_s_fault(tmp_path: Path) -> None:
    tests = of_calls(1, prelude="print(undefined)")
    assert talk(tmp_path, "def f(x): return x", tests)[-1].startswith(
        b"Ebad_test\nthe prelude: Name"
    )
    tests = of_calls(1, prelude="def f(:")
    assert talk(tmp_path, "def f(x): return x", tests)[-1].startswith(b"Ebad_test\n")


def test_the_first_argument_is_the_answer_of_a_function_that_changes_it(tmp_path: Path) -> None:
    tests = of_calls([3, 1, 2], result="first_argument")
    assert answers(talk(tmp_path, "def f(x): x.sort()", tests)) == ["[1, 2, 3]"]


def test_a_baseline_makes_every_call_and_answers_none(tmp_path: Path) -> None:
    tests = of_calls(LinkedList((1, 2)), [1], prelude=PRELUDE)
    frames = talk(tmp_path, "syntax error", tests, repeats=3, is_baseline=True, is_split=False)
    assert answers(frames) == ["null"] * 4


def test_dataclasses_find_their_module(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class P:\n"
        "    x: int\n"
        "def f(x): return P(x).x\n"
    )
    assert answers(talk(tmp_path, source, of_calls(4))) == ["4"]
