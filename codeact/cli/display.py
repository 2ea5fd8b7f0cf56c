"""Progress on stderr: bars with an estimate on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from codeact.errors import InputError
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from codeact.pipeline.stage import Stage

_TITLE_WIDTH = 25
_BAR_WIDTH = 16  # with all columns just below 80, so that the ^C of a terminal stays on the line


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn(f"{{task.description:<{_TITLE_WIDTH}}}"),
        BarColumn(bar_width=_BAR_WIDTH),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=False,  # stdout holds results, and may be a file
        refresh_per_second=4,  # the cores have other work
        transient=True,
    )


@contextmanager
def progress_bar(title: str, unit: str = "rows") -> Iterator[OnProgress]:
    """A bar for one loop; nothing where stderr is no terminal.

    It moves without a number until the first report, so that loading a model shows too.
    """
    with _progress() as progress:
        task = progress.add_task(title, total=None, unit=unit)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class RunDisplay:
    """Shows the stages of a run as they come; an :class:`codeact.pipeline.stage.Announcer`."""

    def __init__(self) -> None:
        self._progress = _progress()
        self._task: TaskID | None = None
        self._stage: Stage | None = None
        self._start = 0.0

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        self._bar("Load libraries", "")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Of bad input the one line that is to come says all; it names what to change.
        if self._stage is not None and not isinstance(error, InputError):
            self._line("✗", self._stage, self._seconds(), "not finished")
        self._clear()
        self._progress.stop()

    def begin(self, stage: Stage) -> OnProgress:
        """Draw a bar for ``stage``."""
        self._stage, self._start = stage, time.perf_counter()
        task = self._bar(stage.title, stage.unit)
        return lambda done, total: self._progress.update(task, completed=done, total=total)

    def end(self, stage: Stage, summary: str) -> None:
        """Replace the bar by a line that stays."""
        self._line("✓", stage, self._seconds(), summary)
        self._stage = None

    def skip(self, stage: Stage) -> None:
        """Say that nothing had to be done."""
        self._line("✓", stage, "", "done before")

    def _bar(self, title: str, unit: str) -> TaskID:
        self._clear()
        self._task = self._progress.add_task(title, total=None, unit=unit)
        return self._task

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _seconds(self) -> str:
        return f"{time.perf_counter() - self._start:.1f} s"

    def _line(self, mark: str, stage: Stage, seconds: str, text: str) -> None:
        self._clear()
        title = f"{mark} {stage.title:<{_TITLE_WIDTH}}{seconds:>9} "
        if self._progress.disable:
            print(title, text, file=sys.stderr, flush=True)
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))  # what does not fit goes on under the text
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(Text(title), Text(text))
        self._progress.console.print(grid)


class Bars(ExitStack):
    """One bar after the other, each with its title."""

    def __call__(self, title: str, unit: str = "rows") -> OnProgress:
        """Replace the bar by another."""
        self.close()
        return self.enter_context(progress_bar(title, unit))


def command_line() -> str:
    """The words of this command, as a shell takes them."""
    import shlex

    return shlex.join(["codeact", *sys.argv[1:]])
