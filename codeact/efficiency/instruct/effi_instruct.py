"""What `build.py` makes, and the files it goes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codeact.efficiency.instruct.choose import Choice
from codeact.files import write_json, write_jsonl


@dataclass(frozen=True)
class Dropped:
    """A task and language that gave no instruction (``"task"``) or no pair (``"pair"``), and why.

    ``reason`` is one word: ``all_fail``, ``unsafe``, ``not_algorithmic``, ``no_spread``,
    ``too_short``, ``not_measured``; of pairs ``no_slower_answer``, ``gap_too_small``,
    ``runs_overlap``, ``not_measured``, ``not_confirmed``. ``detail`` is a line.
    """

    task_id: str
    language: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class EffiInstruct:
    """Training records; every row is plain values, as ``datasets`` and TRL read them.

    Attributes:
        sft: ``{"messages": [user, assistant], ...}`` with the most efficient correct answer.
        twin: The same tasks in the same order, each with a correct answer drawn at random: what
            the same training gives without the choice.
        pairs: ``{"prompt": [...], "chosen": [...], "rejected": [...], ...}``.
        dropped: Tasks without an instruction, then instructions without a pair.
        choices: The evidence behind ``sft``, one an instruction.
        summary: Counts, options, host, and how much faster the chosen answers are.
    """

    sft: tuple[dict[str, Any], ...]
    twin: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]
    dropped: tuple[Dropped, ...]
    choices: tuple[Choice, ...]
    summary: dict[str, Any]

    def write(self, folder: str | Path) -> None:
        """Writes six files, each atomically, with the same bytes for the same measurements.

        ``effi_instruct.jsonl``, ``effi_instruct_unoptimised.jsonl`` (the twin),
        ``effi_pairs.jsonl``, ``choices.jsonl``, ``dropped.jsonl``, ``summary.json``.
        """
        folder = Path(folder)
        write_jsonl(folder / "effi_instruct.jsonl", self.sft)
        write_jsonl(folder / "effi_instruct_unoptimised.jsonl", self.twin)
        write_jsonl(folder / "effi_pairs.jsonl", self.pairs)
        write_jsonl(folder / "choices.jsonl", (choice.to_row() for choice in self.choices))
        write_jsonl(folder / "dropped.jsonl", (asdict(one) for one in self.dropped))
        write_json(folder / "summary.json", self.summary)
