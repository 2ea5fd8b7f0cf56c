"""The external tier: without bubblewrap, inside a container that can be thrown away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from codeact.sandbox.bubblewrap import BOX

_READABLE = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev", "/proc")


@contextmanager
def external_command(
    launcher: Path,
    words: Sequence[str],
    *,
    files: Mapping[str, bytes],
    mounts: Sequence[tuple[Path, str]],
    environment: Mapping[str, str],
    uid: int | None,
) -> Iterator[list[str]]:
    """The command line of a run without bwrap; its work folder is there until the block ends.

    Nothing can be mounted, so paths inside are written over with those of the host.

    Args:
        launcher: ``codeact-launcher``.
        words: settings of its init, ``"--"`` and the command.
        files: content of files in the work folder, by name.
        mounts: (host path, path inside).
        environment: all of it.
        uid: user that the run gets, None for the caller's own.
    """
    box = Path(tempfile.mkdtemp(prefix="codeact-box-"))
    try:
        for name, content in files.items():
            (box / name).write_bytes(content)
        if uid is not None:
            for path in (box, *box.iterdir()):
                os.chown(path, uid, uid)
        places = {inside: str(host) for host, inside in mounts if inside != str(host)}
        places[BOX] = str(box)

        def on_host(text: str) -> str:
            for inside, host in places.items():
                text = text.replace(inside, host)
            return text

        start = words.index("--") + 1
        readable = ":".join([*_READABLE, *(str(host) for host, _ in mounts)])
        yield [
            "/usr/bin/env",
            "-i",
            *(f"{name}={on_host(value)}" for name, value in environment.items()),
            str(launcher),
            "init",
            f"box={box}",
            f"readable={readable}",
            *words[:start],
            *(on_host(word) for word in words[start:]),
        ]
    finally:
        shutil.rmtree(box, ignore_errors=True)
