"""Rows and validation tasks that the tests of influence share."""

from __future__ import annotations

POOL = [
    {
        "id": f"r{i}",
        "instruction": f"Add {i} to {w}.",
        "response": f"{w} = {w} + {i}" + "!" * (i % 4),
    }
    for i, w in enumerate(["x", "y", "total", "n", "value", "a_long_name", "k", "z"])
] + [
    {"id": "empty", "instruction": "Say nothing.", "response": ""},
]
TASKS = {
    "sums": [
        {"instruction": f"Sum {i} and {j}.", "response": f"{i} + {j}"}
        for i, j in ((1, 2), (3, 4), (55, 6))
    ],
    "words": [{"instruction": "Spell it.", "response": w} for w in ("apple", "banana", "cherry")],
    "calls": [{"instruction": "Call it.", "response": f"{w}(1, 2)"} for w in ("f", "g", "print")],
}
