"""What is raised when untrusted code cannot be run safely here. Then it is not run at all."""

from __future__ import annotations

_INSTALL = "install bubblewrap 0.8 or newer (apt-get install bubblewrap, dnf install bubblewrap)"
_APPARMOR = (
    "Ubuntu 23.10 and newer: give bwrap an AppArmor profile with the permission userns, or"
    " sysctl kernel.apparmor_restrict_unprivileged_userns=0"
)
_SWITCHED_OFF = (
    "where user namespaces are switched off: sysctl user.max_user_namespaces=10000"
    " (older Debian: kernel.unprivileged_userns_clone=1)"
)
_DOCKER = "in Docker: --security-opt seccomp=unconfined, or --privileged"
_DOCKER_PROC = "in Docker: --security-opt systempaths=unconfined, or --privileged"
_FOLDER = "set TMPDIR to a folder that every user may enter, such as /tmp"
_NEWER = "a newer kernel and bubblewrap; codeact env tries every wall again"
_QUIETER = "try again when the machine is less busy"
_EXTERNAL = (
    "inside a container or machine that you throw away: external=True (codeact measure "
    "--external-sandbox) together with CODEACT_EXTERNAL_SANDBOX=1"
)


class SandboxUnavailable(RuntimeError):  # noqa: N818 - a state of the machine, no mistake in code
    """No sandbox holds on this machine. The command line prints it and ends with status 3.

    Attributes:
        check: the check that failed, such as ``"bwrap"`` or ``"network"``.
        reason: what was seen, in the tool's own words where it has some; one line.
        fixes: what usually mends it, most likely first.
    """

    def __init__(self, check: str, reason: str, fixes: tuple[str, ...] = ()) -> None:
        self.check = check
        self.reason = " ".join(reason.split()) or "no reason given"
        self.fixes = tuple(" ".join(fix.split()) for fix in fixes)
        remedy = f"; to mend it: {'; or '.join(self.fixes)}" if fixes else ""
        super().__init__(f"no sandbox here: {check}: {self.reason}{remedy}")


def usual_fixes(reason: str) -> tuple[str, ...]:
    """What helps against a reason that bwrap gives, most likely first."""
    if "uid map" in reason:
        return (_APPARMOR, _DOCKER, _EXTERNAL)
    if "namespace" in reason:
        return (_DOCKER, _SWITCHED_OFF, _APPARMOR, _EXTERNAL)
    if "mount proc" in reason or "remount" in reason:
        return (_DOCKER_PROC, _EXTERNAL)
    if "source path" in reason:
        return (_FOLDER,)
    return (_INSTALL, _EXTERNAL)


def fixes_of_wall(timed: bool) -> tuple[str, ...]:
    """What may help where bwrap starts and a wall does not hold, or a time is misread."""
    return (_QUIETER, _NEWER) if timed else (_NEWER, _EXTERNAL)
