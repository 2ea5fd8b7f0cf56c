"""Bars on a terminal, plain lines elsewhere; stdout stays free for results."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from codeact.cli.display import RunDisplay, progress_bar
from codeact.errors import InputError
from codeact.pipeline.stage import Stage

STAGE = Stage("score", "Score IFD", "rows", (), (), (), None)  # type: ignore[arg-type]


def test_lines_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        display.skip(STAGE)
        on_progress = display.begin(STAGE)
        on_progress(1, 2)
        display.end(STAGE, "2 rows: 2 ok")
    out, err = capfd.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.split() == ["✓", "Score", "IFD", "done", "before"]
    assert second.startswith("✓ Score IFD ")
    assert second.endswith(" s  2 rows: 2 ok")


def run_into(display: RunDisplay, error: type[BaseException]) -> None:
    with display:
        display.begin(STAGE)
        raise error


@pytest.mark.parametrize(("error", "lines"), [(KeyboardInterrupt, 1), (InputError, 0)])
def test_a_stage_that_stops(
    error: type[BaseException], lines: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of bad input the one line that main prints says all."""
    display = RunDisplay()
    with pytest.raises(error):
        run_into(display, error)
    err = capfd.readouterr().err
    assert err.count("\n") == lines
    assert ("✗ Score IFD" in err) == bool(lines)


def test_no_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Score") as on_progress:
        on_progress(1, 2)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_stdout_the_results(places: Any) -> None:
    """stderr is a terminal, stdout a pipe, as in ``codeact score … > scores.jsonl``."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "codeact", "score", places.rows, "--model", places.model],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        text=True,
    )
    os.close(end)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # EIO: nobody holds the other end any more
            break
        if not part:
            break
        seen += part
    os.close(terminal)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(out.splitlines()) == 12
    assert out.startswith('{"id": "row-0"')
    text = seen.decode()
    assert "Score" in text
    assert "12 rows: 12 ok" in text
    assert "row-0" not in text
    assert "Warning" not in text
