"""Right programs that look odd: judged like the cheats, and all of them must pass."""

from __future__ import annotations

from cheats.puzzles import PUZZLES, Cheat

from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, Rule, StdinTests, Tests

_ADD, _REVERSE, _SORT, _COUNT, _MEAN, _PRIME = (puzzle.tests for puzzle in PUZZLES)
_METHOD = FunctionTests("Solution().add", _ADD.calls, _ADD.expected)
_PAIRS = FunctionTests(
    "pairs",
    (Call(([1, 2, 3],)), Call(([],))),
    ([[1, 2], [1, 3], [2, 3]], []),
    Rule(order="unordered_rows"),
)
_IN_PLACE = FunctionTests(
    "tidy",
    (Call(([3, 1, 2],)), Call(([2, 2, 1],))),
    ([1, 2, 3], [1, 2, 2]),
    result="first_argument",
)
_SUMS = StdinTests(("1 2\n", "5 7\n"), ("3\n", "12\n"))

_HONEST: tuple[tuple[str, Tests, str], ...] = (
    ("plain", _ADD, "def add(a, b):\n    return a + b\n"),
    ("method", _METHOD, "class Solution:\n    def add(self, a, b):\n        return a + b\n"),
    ("lambda", _ADD, "add = lambda a, b: a + b\n"),
    ("callable object", _ADD,
     "class Adder:\n    def __call__(self, a, b):\n        return a + b\nadd = Adder()\n"),
    ("partial", _ADD, "import functools, operator\nadd = functools.partial(operator.add)\n"),
    ("recursive, cached", _ADD,
     "import functools\n@functools.lru_cache(None)\ndef add(a, b, more=3):\n"
     "    return a + b if more == 0 else add(a, b, more - 1)\n"),
    ("prints a lot", _REVERSE,
     "def reverse_words(text):\n    print('PASSED', text * 100)\n"
     "    return ' '.join(reversed(text.split()))\n"),
    ("writes to stderr", _REVERSE,
     "import sys, warnings\nwarnings.warn('old')\ndef reverse_words(text):\n"
     "    print('note', file=sys.stderr)\n    return ' '.join(text.split()[::-1])\n"),
    ("in place, returned", _SORT,
     "def sort_numbers(values):\n    values.sort()\n    return values\n"),
    ("a tuple for a list", _SORT, "def sort_numbers(values):\n    return tuple(sorted(values))\n"),
    ("a generator", _SORT, "def sort_numbers(values):\n    yield from sorted(values)\n"),
    ("heap and state", _SORT,
     "import heapq\nheap = []\ndef sort_numbers(values):\n    for v in values:\n"
     "        heapq.heappush(heap, v)\n    return [heapq.heappop(heap) for _ in values]\n"),
    ("a Counter", _COUNT,
     "from collections import Counter\ndef count_letters(text):\n    return Counter(text)\n"),
    ("a defaultdict", _COUNT,
     "import collections\ndef count_letters(text):\n    found = collections.defaultdict(int)\n"
     "    for c in text:\n        found[c] += 1\n    return found\n"),
    ("annotations", _MEAN,
     "from typing import List\nfrom dataclasses import dataclass\n@dataclass\nclass Sum:\n"
     "    total: float = 0.0\ndef mean(values: List[float]) -> float:\n    state = Sum()\n"
     "    for value in values:\n        state.total += value\n"
     "    return state.total / len(values)\n"),
    ("numbers in another order", _MEAN,
     "import math\ndef mean(values):\n    return math.fsum(v / len(values) for v in values)\n"),
    ("main guard", _PRIME,
     "def is_prime(n):\n    return n > 1 and all(n % k for k in range(2, n))\n"
     "if __name__ == '__main__':\n    raise SystemExit('not a script')\n"),
    ("a thread that helps", _PRIME,
     "import threading\ndef is_prime(n):\n    found = []\n"
     "    work = lambda: found.append(n > 1 and all(n % k for k in range(2, n)))\n"
     "    thread = threading.Thread(target=work)\n    thread.start()\n    thread.join()\n"
     "    return found[0]\n"),
    ("rows in another order", _PAIRS,
     "from itertools import combinations\ndef pairs(items):\n"
     "    return [pair[::-1] for pair in combinations(items, 2)][::-1]\n"),
    ("changes its argument", _IN_PLACE, "def tidy(values):\n    values.sort()\n"),
    ("stdin", _SUMS, "a, b = map(int, input().split())\nprint(a + b)\n"),
    ("stdin, loose white space", _SUMS,
     "import sys\nprint('', sum(map(int, sys.stdin.read().split())), '\\n')\n"),
)  # fmt: skip


def honest() -> list[Cheat]:
    """All of them."""
    return [
        Cheat(f"honest/{name}", Program("python", text), tests) for name, tests, text in _HONEST
    ]
