"""Tasks with tests: files of them, what their rows mean, and the program in an answer."""

from codeact.tasks.code_blocks import complete_code, extract_code
from codeact.tasks.task_file import Skipped, Task, TaskFile, load_tasks, read_tasks

__all__ = [
    "Skipped",
    "Task",
    "TaskFile",
    "complete_code",
    "extract_code",
    "load_tasks",
    "read_tasks",
]
