"""Rows as trainers read them: chat messages for SFT; prompt, chosen and rejected for DPO."""

from __future__ import annotations

import re
from typing import Any

from codeact.efficiency.inputs.candidates import Candidate
from codeact.efficiency.instruct.choose import Choice
from codeact.efficiency.instruct.pairs import Pair
from codeact.efficiency.racing.measurements import MeasuredCandidate
from codeact.tasks.code_blocks import code_blocks
from codeact.tasks.task_file import Task

_BACKTICKS = re.compile(r"`{3,}")
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.MULTILINE)
_END_OF_THOUGHT = "</think>"

Message = dict[str, str]


def fenced(source: str, language: str) -> str:
    """Code as a Markdown block; the fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in _BACKTICKS.findall(source)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{source.strip(chr(10))}\n{fence}"


def user_message(task: Task) -> Message:
    """The instruction, and the code to start from when the instruction does not show it."""
    text = task.instruction.strip()
    code = task.prompt_code.strip()
    if code and code not in text:
        text = f"{text}\n\n{fenced(task.prompt_code, task.language)}"
    return {"role": "user", "content": text}


def assistant_message(answer: Candidate) -> Message:
    """The model's own words when the measured program is a block in them, else the program alone.

    What a reasoning model thinks before it answers is left out, and so are words around a program
    that was completed from the task's code or whose block was never closed.
    """
    words = (answer.response or "").rpartition(_END_OF_THOUGHT)[2].strip()
    blocks = code_blocks(words)
    whole = any(block.code.strip() == answer.source.strip() for block in blocks)
    if whole and len(_FENCE_LINE.findall(words)) == 2 * len(blocks):
        return {"role": "assistant", "content": words}
    return {"role": "assistant", "content": fenced(answer.source, answer.language)}


def sft_row(
    task: Task, answer: Candidate, record: MeasuredCandidate, choice: Choice
) -> dict[str, Any]:
    """One instruction and its answer, with the numbers of this answer and of its rivals.

    ``slowdown`` is its ET / the chosen answer's over the rounds that both ran: 1 in the chosen
    set. ``num_correct`` counts the answers that were chosen from.
    """
    reference = choice.speedup_over_reference
    ratios = {other.candidate_id: other.et_ratio for other in choice.beaten}
    slowdown = ratios.get(record.candidate_id, 1.0)
    return {
        "messages": [user_message(task), assistant_message(answer)],
        "task_id": task.id,
        "language": answer.language,
        "candidate_id": answer.id,
        "origin": answer.origin,
        "et_seconds": record.et_seconds,
        "mu_bytes": record.mu_bytes,
        "tmu_byte_seconds": record.tmu_byte_seconds,
        "slowdown": slowdown,
        "speedup_over_reference": None if reference is None else reference / slowdown,
        "num_correct": 1 + len(choice.beaten),
    }


def pair_row(
    task: Task, best: Candidate, worst: Candidate, found: Pair, fresh: Pair | None
) -> dict[str, Any]:
    """One preference: the faster answer over the slower one.

    ``gap`` is ET of rejected / ET of chosen - 1, both from the fresh measurement when there was
    one (``confirmed``) and from the rounds that both ran; ``race_gap`` is what the race had found.
    """
    shown = fresh or found
    return {
        "prompt": [user_message(task)],
        "chosen": [assistant_message(best)],
        "rejected": [assistant_message(worst)],
        "task_id": task.id,
        "language": best.language,
        "chosen_id": best.id,
        "rejected_id": worst.id,
        "chosen_origin": best.origin,
        "rejected_origin": worst.origin,
        "chosen_et_seconds": shown.best_et_seconds,
        "rejected_et_seconds": shown.worst_et_seconds,
        "gap": shown.gap,
        "race_gap": found.gap,
        "evidence": shown.evidence,
        "confirmed": fresh is not None,
    }
