"""One launcher process, and what is said to it."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_LENGTH = struct.Struct("<I")
LAUNCHER = Path(__file__).parent / "codeact-launcher"


class LauncherError(RuntimeError):
    """The launcher ended in the middle of a request: killed, or out of memory."""


class Launcher:
    """A small process that starts sandboxes, so that none starts from a large one.

    A process started from one that holds models and datasets costs more, and shows the parent's
    memory as its own peak. The launcher is ``csrc/sandbox/serve.h``: started once, it takes one
    request at a time and ends when this object goes, or when this process dies.

    Args:
        arguments: ``name=value`` words, as ``serve.h`` lists them.

    Raises:
        FileNotFoundError: the program was not built.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [str(LAUNCHER), "serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath)},  # no secrets in there
            start_new_session=True,  # Ctrl-C is for the library, which then closes the pipe
        )
        try:
            said = settings_of(self._receive()[0])
        except BaseException:
            self.close()
            raise
        self.is_staged = said.get("staged") == "1"
        self.has_network = said.get("network") != "0"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, fields: Sequence[bytes]) -> list[bytes]:
        """Send a request, wait for the answer; both as ``serve.h`` has them.

        Raises:
            LauncherError: the process ended instead of answering.
        """
        body = b"".join(_LENGTH.pack(len(field)) + field for field in fields)
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(_LENGTH.pack(len(body)) + body)
            pipe.flush()
        except (BrokenPipeError, ValueError):
            raise LauncherError("the sandbox launcher has ended") from None
        return self._receive()

    def close(self) -> None:
        """End the process; what it runs ends with it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def _receive(self) -> list[bytes]:
        body = self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0])
        fields, at = [], 0
        while at < len(body):
            start = at + _LENGTH.size
            (length,) = _LENGTH.unpack(body[at:start])
            fields.append(body[start : start + length])
            at = start + length
        return fields

    def _read(self, size: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        try:
            content = pipe.read(size)
        except ValueError:  # closed by another thread
            content = b""
        if len(content) < size:
            raise LauncherError("the sandbox launcher has ended")
        return content


def settings_text(settings: Mapping[str, int | str]) -> bytes:
    """``name value`` lines."""
    return "".join(f"{name} {value}\n" for name, value in settings.items()).encode()


def settings_of(text: bytes) -> dict[str, str]:
    """The reverse; of a name that occurs twice, the first counts."""
    lines = [line.partition(" ") for line in text.decode("utf-8", "replace").splitlines()]
    return {name: value for name, _, value in reversed(lines)}


def framed(payloads: Sequence[bytes]) -> bytes:
    """Frames as they travel: 4 bytes of length, little-endian, before each."""
    return b"".join(_LENGTH.pack(len(payload)) + payload for payload in payloads)


def frames_of(content: bytes, most: int) -> tuple[tuple[bytes, ...], bool]:
    """Whole frames, at most so many, and whether anything follows them."""
    frames: list[bytes] = []
    at = 0
    while len(content) - at >= _LENGTH.size and len(frames) < most:
        start = at + _LENGTH.size
        (length,) = _LENGTH.unpack(content[at:start])
        if len(content) - start < length:
            break
        frames.append(content[start : start + length])
        at = start + length
    return tuple(frames), at < len(content)
