"""The native module and the archives that carry it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import codeact
from codeact import _C

ROOT = Path(__file__).resolve().parents[1]


def test_the_stub_names_what_the_module_has():
    stub = ast.parse((ROOT / "codeact" / "_C.pyi").read_text())
    declared = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    declared |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    present = {name for name in vars(_C) if not name.startswith("__")}
    cuda_only = set() if _C.built_with_cuda else {
        "gather_pack", "row_lse", "row_lse_workspace", "token_nll"
    }  # fmt: skip
    assert present == declared - cuda_only


def test_the_module_needs_no_cuda_to_answer():
    assert isinstance(_C.built_with_cuda, bool)
    assert _C.cuda_usable() in ({True, False} if _C.built_with_cuda else {False})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's /proc")
def test_importing_the_module_loads_no_torch_and_no_cuda():
    code = "from codeact import _C; print(open('/proc/self/maps').read())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "_C." in ran.stdout, ran.stderr
    loaded = {line.rsplit("/", 1)[-1] for line in ran.stdout.splitlines() if ".so" in line}
    assert not [name for name in loaded if name.startswith(("libtorch", "libc10", "libcuda"))]


@pytest.mark.skipif(not _C.built_with_cuda or _C.cuda_usable(), reason="a launch works here")
def test_a_launch_without_a_device_is_an_error_not_a_crash():
    with pytest.raises(RuntimeError, match=r"^token_nll launch failed: "):
        _C.token_nll(0, 0, 0, 1, 1, 1, "float32", -100, 0)
    with pytest.raises(RuntimeError, match=r"^gather_pack launch failed: "):
        _C.gather_pack(0, 0, 0, 0, 0, 1, -100, 0, 0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> set[str]:
    """Names in a source archive, made from a copy so that the tree stays as it was."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("codeact", "kernels", "csrc", "tests", "benchmarks"):
        if (ROOT / name).exists():
            copy = ["cp", "-r", "--no-dereference", str(ROOT / name), str(tree)]
            subprocess.run(copy, check=True)
    for path in ROOT.iterdir():
        if path.is_file():
            (tree / path.name).write_bytes(path.read_bytes())
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (made,) = (tree / "dist").iterdir()
    assert made.name == f"codeact-{codeact.__version__}.tar.gz"
    with tarfile.open(made) as tar:
        return {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}


def test_a_source_archive_holds_what_a_build_needs(archive):
    native = {p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*") if p.is_file()}
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / "codeact").rglob("*.py")}
    others = {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "codeact/_C.pyi"}
    templates = {p.relative_to(ROOT).as_posix() for p in (ROOT / "codeact").rglob("*.j2")}
    needed = native | package | others | templates | {"codeact/py.typed"}
    assert needed | {"codeact/kernels/token_nll.py"} <= archive


def test_a_source_archive_holds_nothing_else(archive):
    top_level = {name.split("/")[0] for name in archive}
    assert not top_level & {"tests", "benchmarks", "build", "runs"}
    assert not [name for name in archive if name.endswith((".so", ".pyc", ".safetensors", ".gguf"))]
