"""What a model is asked: a task put into a template."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from codeact.sandbox.tests import FunctionTests

if TYPE_CHECKING:
    from codeact.tasks.task_file import Task

# In the spirit of EffiCoder's prompt, which has a function completed and forbids changes to what
# is given (arXiv:2410.10209); the words are our own.
DEFAULT_PROMPT = """\
Solve this task. The answer has to be correct, then fast, then sparing with memory.

{instruction}

Complete this code. Keep its names and signatures as they are.
```{language}
{prompt_code}
```

{interface} Give the whole program, with its imports, in one ```{language} block.
"""

_NAMES = ("instruction", "prompt_code", "language", "interface")
_PLACE = re.compile(r"\{(" + "|".join(_NAMES) + r")\}")


def check_template(template: str) -> str:
    """The template itself.

    Raises:
        ValueError: it has no place for the instruction, so that all tasks would read the same.
    """
    if "{instruction}" not in template:
        raise ValueError(f"must have a place for {{instruction}}, got {template[:60]!r}")
    return template


def render_prompt(template: str, task: Task) -> str:
    """A template with a task's words in its places; other braces stay as they are.

    ``{instruction}``, ``{prompt_code}`` and ``{language}`` are those of the task; ``{interface}``
    is a sentence that names what the tests call, or says that they read standard output.
    Paragraphs (between empty lines) with ``{prompt_code}`` are left out for a task without code,
    or whose instruction holds that code already.
    """
    code = task.prompt_code.strip("\n")
    words = {
        "instruction": task.instruction.strip(),
        "prompt_code": code,
        "language": task.language,
        "interface": _interface(task),
    }
    paragraphs = template.strip().split("\n\n")
    if not code.strip() or code.strip() in task.instruction:
        paragraphs = [text for text in paragraphs if "{prompt_code}" not in text]
    # One pass: what a task says about braces is not looked at again.
    return _PLACE.sub(lambda place: words[place[1]], "\n\n".join(paragraphs))


def _interface(task: Task) -> str:
    if isinstance(task.tests, FunctionTests):
        return f"The tests call `{task.tests.entry_point}`."
    return "The program reads standard input and prints its answer to standard output."
