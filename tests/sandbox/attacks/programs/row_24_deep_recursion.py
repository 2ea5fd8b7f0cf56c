"""Recurses too deep: without end in Python's heap, or down the C stack through nested iterators."""

import sys

sys.setrecursionlimit(1 << 30)
kind = sys.stdin.readline().strip()


def down(depth: int) -> int:
    return down(depth + 1) + 1


if kind == "python":
    down(0)
else:
    chain = iter([1])
    for _ in range(400_000):
        chain = filter(None, chain)
    next(chain)
