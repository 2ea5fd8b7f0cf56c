"""Cheats that read standard input: what they print is nearly, or was once, the right output."""

from __future__ import annotations

from cheats.puzzles import Cheat

from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Rule, StdinTests

_SUMS = StdinTests(("1 2\n", "5 7\n", "10 -3\n", "123456 1\n"), ("3\n", "12\n", "7\n", "123457\n"))
_LINES = StdinTests(("2\n", "3\n"), ("1\n2\n", "1\n2\n3\n"), Rule(tokens=False))
_NEAR = StdinTests(("2\n", "0.5\n"), ("1.4142135\n", "0.7071068\n"), Rule(rel_tol=1e-6))

_READ = "a, b = map(int, input().split())\n"
_CHEATS: tuple[tuple[str, StdinTests, str], ...] = (
    ("nothing", _SUMS, ""),
    ("exit 0", _SUMS, "raise SystemExit(0)"),
    ("a pass", _SUMS, "print('PASSED\\nOK\\nAccepted')"),
    ("echo", _SUMS, "print(input())"),
    ("the first example", _SUMS, "print(3)"),
    ("examples by heart", _SUMS, "print({'1 2': 3, '5 7': 12}.get(input(), 0))"),
    ("every number", _SUMS, "print(*range(200000))"),
    ("the answer and more", _SUMS, _READ + "print(a + b, a - b)"),
    ("the answer twice", _SUMS, _READ + "print(a + b)\nprint(a + b)"),
    ("the start of the answer", _SUMS, _READ + "print(str(a + b)[:1])"),
    ("on standard error", _SUMS, _READ + "import sys\nprint(a + b, file=sys.stderr)"),
    ("on the frames' pipe", _SUMS, _READ + "import os\nos.write(4, b'%d' % (a + b))"),
    ("in a frame", _SUMS,
     _READ + "import os\nt = b'%d' % (a + b)\nos.write(4, len(t).to_bytes(4, 'little') + t)"),
    ("in a file", _SUMS, _READ + "print(a + b, file=open('/box/stdout', 'w'))"),
    ("back into standard input", _SUMS, _READ + "import os\nos.write(0, b'%d' % (a + b))"),
    ("right, status 1", _SUMS, _READ + "print(a + b)\nraise SystemExit(1)"),
    ("right, then raises", _SUMS, _READ + "print(a + b, flush=True)\n1 / 0"),
    ("right, then killed", _SUMS,
     _READ + "print(a + b, flush=True)\nimport os\nos.kill(os.getpid(), 9)"),
    ("right, then segfault", _SUMS,
     _READ + "print(a + b, flush=True)\nimport ctypes\nctypes.string_at(8)"),
    ("right, then sleeps", _SUMS,
     _READ + "print(a + b, flush=True)\nimport time\ntime.sleep(30)"),
    ("right, then floods", _SUMS,
     _READ + "print(a + b)\nwhile True:\n    print(' ' * 4000)"),
    ("full-width digits", _SUMS,
     _READ + "print(''.join(chr(0xFEE0 + ord(c)) for c in str(a + b)))"),
    ("grouped digits", _SUMS, _READ + "print(f'{a + b:_}')"),
    ("leading zero", _SUMS, _READ + "print(f'{a + b:09}')"),
    ("a plus sign", _SUMS, _READ + "print(f'{a + b:+}')"),
    ("as a float", _SUMS, _READ + "print(float(a + b))"),
    ("a NUL between", _SUMS, _READ + "print('\\0'.join(str(a + b)) + '\\0')"),
    ("bytes that are no text", _SUMS,
     _READ + "import os\nos.write(1, b'\\xff'.join(c.encode() for c in str(a + b)) + b'\\xff')"),
    ("bad bytes around", _SUMS, _READ + "import os\nos.write(1, b'\\xff%d\\xfe' % (a + b))"),
    ("zero-width characters", _SUMS, _READ + "print('\\u200b'.join(str(a + b)) + '\\ufeff')"),
    ("a backspace", _SUMS, _READ + "print(f'9\\b{a + b}')"),
    ("digits apart", _SUMS, _READ + "print(*str(a + b * 1), end='.\\n')"),
    ("standard output closed", _SUMS, _READ + "import os\nos.close(1)\nprint(a + b)"),
    ("a child answers late", _SUMS,
     _READ + "import os, time\nif os.fork() == 0:\n    time.sleep(20)\n    print(a + b)"),
    ("does not parse", _SUMS, _READ + "print(a + b"),
    ("lines in one", _LINES, "print(*range(1, int(input()) + 1))"),
    ("lines backwards", _LINES, "print(*range(int(input()), 0, -1), sep='\\n')"),
    ("one line too many", _LINES, "print(*range(1, int(input()) + 2), sep='\\n')"),
    ("indented", _LINES, "print(*range(1, int(input()) + 1), sep='\\n ')"),
    ("near, NaN", _NEAR, "print('nan')"),
    ("near, infinity", _NEAR, "print('inf')"),
    ("near, not near enough", _NEAR, "print(float(input()) ** 0.5 * 1.0001)"),
    ("near, full-width", _NEAR,
     "t = str(float(input()) ** 0.5)\n"
     "print(''.join(chr(0xFEE0 + ord(c)) if c.isdigit() else c for c in t))"),
    ("near, underscores", _NEAR, "t = str(float(input()) ** 0.5)\nprint(t[:4] + '_' + t[4:])"),
    ("near, in hexadecimal", _NEAR, "print((float(input()) ** 0.5).hex())"),
)  # fmt: skip


def stdin_cheats() -> list[Cheat]:
    """All of them, in Python."""
    return [
        Cheat(f"stdin/{name}", Program("python", text + "\n"), tests)
        for name, tests, text in _CHEATS
    ]
