"""The command line of bwrap: what a program in the sandbox sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from codeact.sandbox.limits import Limits

BOX = "/box"
INIT = "/codeact-init"
_FIRST_FILE = 10  # csrc/sandbox/init.h: descriptors of the files
_TEMP_BYTES = 16 * 2**20
_ALIASES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr on merged systems
_DEVICES = ("null", "zero", "random", "urandom")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": BOX,
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # so that two runs of one program do the same work
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def environment_of(extra: Mapping[str, str]) -> dict[str, str]:
    """All of the environment that a program in the sandbox has."""
    return {**_ENVIRONMENT, **extra}


def bubblewrap_command(
    bwrap: Path,
    launcher: Path,
    init_words: Sequence[str],
    *,
    files: Sequence[str],
    mounts: Sequence[tuple[Path, str]],
    environment: Mapping[str, str],
    limits: Limits,
    leave_network: bool = True,
) -> list[str]:
    """bwrap, then this project's init, then the command.

    Namespaces of everything; a root of its own with ``/usr``, two small file systems in memory to
    write to (``/box``, where the program starts, and ``/tmp``), four devices, no home. Two options
    are easily forgotten (measured, execution notes): ``--as-pid-1``, without which a process of
    bwrap's own stands between the program and whoever measures it, and ``--remount-ro`` on the
    root, without which the program writes there without a limit.

    Args:
        bwrap: program, 0.8 or newer.
        launcher: ``codeact-launcher``, mounted as the namespace's first process.
        init_words: its settings, ``"--"`` and the command.
        files: names in ``/box`` of the files that are open from descriptor 10 on.
        mounts: (host path, path inside), read-only.
        environment: added to the few variables that every program has.
        limits: for the sizes of ``/box`` and ``/dev/shm``.
        leave_network: False when the launcher itself is in a network namespace of its own.
    """
    words = [
        str(bwrap), "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts",
        *(["--unshare-net"] if leave_network else []),
        "--unshare-cgroup-try", "--uid", "1000", "--gid", "1000",
        "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv",
        "--ro-bind", "/usr", "/usr",
    ]  # fmt: skip
    for name in _ALIASES:
        alias = Path("/") / name
        if alias.is_symlink():
            words += ["--symlink", f"usr/{name}", str(alias)]
        elif alias.is_dir():
            words += ["--ro-bind", str(alias), str(alias)]
    words += ["--proc", "/proc", "--tmpfs", "/dev"]
    for name in _DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    words += ["--symlink", "/proc/self/fd", "/dev/fd"]
    if limits.shared_memory_bytes:
        words += ["--size", str(limits.shared_memory_bytes), "--tmpfs", "/dev/shm"]
    words += ["--remount-ro", "/dev"]
    words += ["--size", str(_TEMP_BYTES), "--tmpfs", "/tmp"]
    words += ["--size", str(limits.box_bytes), "--tmpfs", BOX]
    for host, inside in mounts:
        words += ["--ro-bind", str(host), inside]
    for number, name in enumerate(files, start=_FIRST_FILE):
        words += ["--file", str(number), f"{BOX}/{name}"]
    words += ["--ro-bind", str(launcher), INIT]
    for key, value in environment_of(environment).items():
        words += ["--setenv", key, value]
    return [*words, "--chdir", BOX, "--remount-ro", "/", "--", INIT, "init", *init_words]


def init_words(
    command: Sequence[str],
    limits: Limits,
    *,
    sample_seconds: float,
    core: int | None,
    single_process: bool,
    watch_memory: bool,
) -> list[str]:
    """Settings of the namespace's first process (``csrc/sandbox/init.h``) and the command.

    ``watch_memory``: there is no control group to hold the limit. Looking adds up resident memory,
    in which pages that forked processes share count once each.
    """
    settings = {
        "wall_ms": round(limits.wall_seconds * 1000),
        "cpu_ms": round(limits.cpu_seconds * 1000),
        "memory_bytes": limits.memory_bytes if watch_memory else 0,
        "as_bytes": limits.address_space_bytes or 0,
        "file_bytes": limits.file_bytes,
        "open_files": limits.open_files,
        "processes": limits.processes + 1,  # init is one
        "stack_bytes": limits.stack_bytes,
        "core": -1 if core is None else core,
        "sample_us": round(sample_seconds * 1e6),
        "single_process": int(single_process),
    }
    return [*(f"{name}={value}" for name, value in settings.items()), "--", *command]
