"""Where the compilers and interpreters of this machine are, and what of them a sandbox must see.

Inside a sandbox there is only ``/usr``. A toolchain elsewhere is mounted below ``/opt``, so that no
path of the caller's home shows. Shims (rustup, pyenv, volta, ccache) look for their configuration
in that home and cannot run inside: here they are asked, outside, what they stand for.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codeact.errors import InputError
from codeact.sandbox.programs.program import LANGUAGES, canonical_language

Mount = tuple[Path, str]

_SYSTEM = Path("/usr")
_SHIMS = ("ccache", "distcc", "icecc", "sccache")


@dataclass(frozen=True)
class Toolchain:
    """What it takes to compile and run one language inside a sandbox.

    Args:
        language: Canonical name.
        tools: Name of a tool (``"g++"``) -> its path inside the sandbox.
        mounts: (path on the host, path inside), read-only; empty if everything is below ``/usr``.
        environment: Variables that the tools need.
        version_command: Run on the host, its first line of output names the version.
    """

    language: str
    tools: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    version_command: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """One line in the tool's own words, ``"unknown"`` if it does not answer."""
        return _first_line(self.version_command) or "unknown"


@dataclass(frozen=True)
class MissingCompiler:
    """A language that cannot be used on this machine, and why."""

    language: str
    reason: str


def find_toolchain(language: str) -> Toolchain | MissingCompiler:
    """The toolchain of a language on this machine; looked for once per process.

    Raises:
        InputError: No such language in the table.
    """
    return _find(canonical_language(language))


def compiled_folder() -> Path:
    """Where compiled programs are kept: ``compiled`` in ``$CODEACT_CACHE``, else in ``codeact`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``. Made if it is not there, readable by the sandbox's user.

    Raises:
        InputError: It cannot be made, as in a home that is read-only.
    """
    chosen = os.environ.get("CODEACT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codeact"
    folder = (Path(chosen) if chosen else base).absolute() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"CODEACT_CACHE must be a folder that can be written, got {error.strerror} at {folder}"
        ) from None
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o755)
    return folder


def staged_folders() -> list[Path]:
    """Host paths that any run may mount: toolchains outside ``/usr`` and the compiled programs.

    A sandbox that drops to another user must make them reachable for it before its first run.
    """
    found = (find_toolchain(language) for language in LANGUAGES)
    mounts = [mount for chain in found if isinstance(chain, Toolchain) for mount in chain.mounts]
    return sorted({path for path, _ in mounts} | {compiled_folder()})


class _Unfit(Exception):  # noqa: N818 - an answer, not a mistake
    """A toolchain is there but must not be shown to a candidate."""


@functools.cache
def _find(language: str) -> Toolchain | MissingCompiler:
    finder, hint = _FINDERS[language]
    try:
        return finder() or MissingCompiler(language, hint)
    except _Unfit as unfit:
        return MissingCompiler(language, str(unfit))


@functools.cache
def _first_line(command: tuple[str, ...]) -> str:
    """First line that a trusted tool of this machine prints; "" if it fails. Runs in ``/``, where
    no project file makes a shim choose, or fetch, another version."""
    if not command:
        return ""
    try:
        done = subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else ""


def _executables(name: str) -> Iterator[Path]:
    """Every ``name`` on PATH, then in the system's own folders, links resolved."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for folder in (*folders, "/usr/local/bin", "/usr/bin"):
        if folder and (found := shutil.which(name, path=folder)):
            yield Path(found).resolve()


def _first(paths: Iterable[Path], accept: Callable[[Path], bool]) -> Path | None:
    return next((path for path in paths if path.is_file() and accept(path)), None)


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _place(folder: Path, name: str) -> tuple[tuple[Mount, ...], Path]:
    """How a toolchain folder is mounted, and where it is inside."""
    if folder.is_relative_to(_SYSTEM):
        return (), folder
    if Path.home().resolve().is_relative_to(folder):
        raise _Unfit(f"{name} is installed in {folder}, which holds more than a toolchain")
    inside = Path("/opt") / name
    return ((folder, str(inside)),), inside


def _find_python() -> Toolchain | None:
    """The interpreter that runs us, without its virtual environment: no site packages inside."""
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    prefix = Path(sys.base_prefix).resolve()
    if not executable.is_relative_to(prefix) or not _is_binary(executable):
        return None
    mounts, inside = _place(prefix, "python")
    environment = {}
    if mounts and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        environment["LD_LIBRARY_PATH"] = str(inside / "lib")  # its own search path may be absolute
    return Toolchain(
        "python",
        {"python": str(inside / executable.relative_to(prefix))},
        mounts,
        environment,
        (str(executable), "-V"),
    )


def _find_gnu(language: str, tool: str) -> Toolchain | None:
    compiler = _first(_executables(tool), lambda path: _is_binary(path) and path.name not in _SHIMS)
    if compiler is None:
        return None
    mounts, inside = _place(compiler.parent.parent, tool.replace("+", "p"))
    path = str(inside / "bin" / compiler.name)
    return Toolchain(language, {tool: path}, mounts, {}, (str(compiler), "--version"))


def _find_java() -> Toolchain | None:
    def is_jdk(path: Path) -> bool:
        return (path.parent / "java").is_file() and (path.parent.parent / "lib/modules").is_file()

    compiler = _first(_executables("javac"), is_jdk)
    if compiler is None:  # a shim: the launcher behind it knows its home
        homes = [_java_home(), os.environ.get("JAVA_HOME", "")]
        compiler = _first((Path(home).resolve() / "bin/javac" for home in homes if home), is_jdk)
    if compiler is None:
        return None
    home = compiler.parent.parent
    mounts, inside = _place(home, "java")
    tools = {name: str(inside / "bin" / name) for name in ("java", "javac", "jar")}
    return Toolchain(
        "java", tools, (*mounts, *_configuration(home)), {}, (str(compiler), "-version")
    )


def _java_home() -> str:
    command = ["java", "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (line.split(b"=", 1) for line in done.stderr.splitlines() if b"java.home =" in line)
    return next((value.strip().decode() for _, value in lines), "")


def _configuration(home: Path) -> list[Mount]:
    """Folders of Java's below ``/etc`` that links in a JDK lead to, mounted where they are."""
    links = [path for folder in ("lib", "conf") for path in home.glob(f"{folder}/**/*")]
    targets = {path.resolve() for path in (home / "conf", *links) if path.is_symlink()}
    folders = {path if path.is_dir() else path.parent for path in targets if path.exists()}
    kept = {folder for folder in folders if str(folder).startswith("/etc/java")}
    top = sorted(f for f in kept if not any(f != g and f.is_relative_to(g) for g in kept))
    return [(folder, str(folder)) for folder in top]


def _find_node() -> Toolchain | None:
    node = _first(_executables("node"), lambda path: path.name == "node" and _is_binary(path))
    if node is None and (told := _first_line(("node", "-p", "process.execPath"))):
        node = Path(told).resolve()
    if node is None or not node.is_file():
        return None
    mounts, inside = _place(node, "node")  # one file: node needs no other
    return Toolchain("javascript", {"node": str(inside)}, mounts, {}, (str(node), "--version"))


def _find_go() -> Toolchain | None:
    root = Path(_first_line(("go", "env", "GOROOT")) or "/usr/lib/go").resolve()
    if not (root / "bin/go").is_file():
        return None
    mounts, inside = _place(root, "go")
    return Toolchain(
        "go",
        {"go": str(inside / "bin/go")},
        mounts,
        {"GOROOT": str(inside)},
        (str(root / "bin/go"), "version"),
    )


def _find_rust() -> Toolchain | None:
    """rustc behind rustup's shim, and the C compiler that it links with."""
    linker = _find_gnu("c", "gcc")
    told = _first_line(("rustc", "--print", "sysroot"))
    if linker is None or not told or not (Path(told) / "bin/rustc").is_file():
        return None
    sysroot = Path(told).resolve()
    mounts, inside = _place(sysroot, "rust")
    tools = {"rustc": str(inside / "bin/rustc"), "linker": linker.tools["gcc"]}
    version = (str(sysroot / "bin/rustc"), "--version")
    return Toolchain("rust", tools, (*mounts, *linker.mounts), {}, version)


_FINDERS: dict[str, tuple[Callable[[], Toolchain | None], str]] = {
    "python": (_find_python, "the interpreter in use is a wrapper outside its own sys.base_prefix"),
    "cpp": (lambda: _find_gnu("cpp", "g++"), "no g++ on PATH: install g++"),
    "c": (lambda: _find_gnu("c", "gcc"), "no gcc on PATH: install gcc"),
    "java": (_find_java, "no javac of a JDK on PATH or in JAVA_HOME: install a JDK"),
    "javascript": (_find_node, "no node on PATH: install Node.js"),
    "go": (_find_go, "no go on PATH: install Go"),
    "rust": (_find_rust, "no rustc on PATH, or no gcc for it to link with: install both"),
}
