"""Status 3: nothing ran, because nothing here would have kept it in."""

from __future__ import annotations

import pytest

from codeact import cli
from codeact.cli import app, main
from codeact.sandbox import SandboxUnavailable


@pytest.mark.parametrize("fixes", [(), ("install it",), ("install it", "ask\nsomebody")])
def test_refusal(
    fixes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def env() -> None:
        raise SandboxUnavailable("bwrap", "not\n here", fixes)

    (command,) = [each for each in app.registered_commands if each.callback is cli.env.env]
    monkeypatch.setattr(command, "callback", env)
    assert main(["env"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    first, *others = err.splitlines()
    assert first == "codeact env: error: no sandbox here: bwrap: not here"
    assert len(others) == len(fixes)
    assert not others or others[0] == "  to mend it: install it"


def test_text_is_one_line() -> None:
    error = SandboxUnavailable("start", "one\ntwo", ("this", "that"))
    assert str(error) == "no sandbox here: start: one two; to mend it: this; or that"
    assert SandboxUnavailable("start", " ").reason == "no reason given"
