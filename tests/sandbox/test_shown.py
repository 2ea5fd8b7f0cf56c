"""What a sandbox shows, spreads and shares beyond the usual: for programs of several processes."""

from __future__ import annotations

import os

import pytest

from codeact.sandbox import Limits, Sandbox
from codeact.sandbox.programs.languages import find_toolchain, python_command

SEMAPHORES = """
import multiprocessing
lock = multiprocessing.get_context("fork").Lock()
print(lock.acquire(timeout=1))
"""


@pytest.fixture
def shown(sandbox, tmp_path):
    """A sandbox that shows a folder whose parents only this user can enter."""
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "data.txt").write_text("seen")
    for path in (folder, folder / "data.txt"):
        path.chmod(0o755)
    if os.geteuid() == 0:
        tmp_path.chmod(0o700)
    with Sandbox(shown=[folder]) as made:
        yield made, folder


def test_a_shown_folder_is_mounted_read_only(shown):
    sandbox, folder = shown
    script = "cat /opt/shown/data.txt; echo more >> /opt/shown/data.txt"
    run = sandbox.run(["/bin/sh", "-c", script], mounts=[(folder, "/opt/shown")])
    assert (run.outcome, run.stdout) == ("exited", b"seen")
    assert run.exit_code != 0
    assert (folder / "data.txt").read_text() == "seen"
    assert sandbox.run(["/bin/ls", "/opt"]).stdout.split() == []  # a run shows what it asks for


def python(sandbox: Sandbox, source: str, **options):
    toolchain = find_toolchain("python")
    return sandbox.run(
        [*python_command(toolchain), "-c", source],
        mounts=toolchain.mounts,
        environment=toolchain.environment,
        **options,
    )


@pytest.mark.parametrize("num_bytes", [0, 2**20])
def test_semaphores_need_shared_memory(sandbox, num_bytes):
    if sandbox.tier == "external":
        pytest.skip("mounts nothing")
    run = python(sandbox, SEMAPHORES, limits=Limits(shared_memory_bytes=num_bytes))
    assert run.stdout.strip() == (b"True" if num_bytes else b"")
    fill = "open('/dev/shm/x', 'wb').write(bytes(2**21))"
    run = python(sandbox, fill, limits=Limits(shared_memory_bytes=num_bytes))
    assert run.exit_code == 1
    assert (b"No space" if num_bytes else b"No such file") in run.stderr


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("many_cores", [False, True])
def test_cores_of_a_run(sandbox, many_cores):
    source = "import os; print(len(os.sched_getaffinity(0)))"
    run = python(sandbox, source, many_cores=many_cores)
    assert int(run.stdout) == (len(os.sched_getaffinity(0)) if many_cores else 1)


def test_no_limit_on_the_stack_is_the_systems(sandbox):
    import resource

    source = "import resource; print(resource.getrlimit(resource.RLIMIT_STACK))"
    run = python(sandbox, source, limits=Limits(stack_bytes=0))
    assert run.stdout.decode().strip() == str(resource.getrlimit(resource.RLIMIT_STACK))
