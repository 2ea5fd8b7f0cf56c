"""Imports point down: the table of ranks in the architecture notes, held by reading the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RANKS = {
    **dict.fromkeys(["_C", "kernels", "errors", "files", "progress", "strict_yaml"], 0),
    "ops": 1,
    **dict.fromkeys(["data", "packing", "models", "sandbox"], 2),
    "tasks": 3,
    **dict.fromkeys(["scoring", "selection", "efficiency", "training", "evaluation"], 4),
    "pipeline": 5,
    "cli": 6,
    "__main__": 7,
}
OPEN_TO_ALL = {
    "errors",
    "files",
    "progress",
    "strict_yaml",
    None,
}  # None is the package itself: __version__
OPEN_TO_OPS = {"_C", "kernels"}


def part_of(module: str) -> str | None:
    """The folder or file under codeact that a module belongs to; None for the package itself."""
    names = module.split(".")
    return names[1] if len(names) > 1 else None


def imported_modules(module: str, is_package: bool, source: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import in a source; names of codeact and kernels only."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from codeact import ops` imports codeact.ops; `import __version__` nothing below.
            whole = base == "codeact"
            found = [f"{base}.{alias.name}" if whole else base for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] in {"codeact", "kernels"}:
                yield node.lineno, name


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a source imports against the rules, one line each."""
    part = part_of(module)
    if part is not None and part not in RANKS:
        return [f"{module}: {part} has no rank; give it one here and in CONTRIBUTING.md"]
    found = []
    for line, name in imported_modules(module, is_package, source):
        target = part_of(name)
        if name.split(".")[0] == "kernels":
            rule = "is the folder, write codeact.kernels"
        elif target == part or target in OPEN_TO_ALL or target == "__version__":
            continue
        elif target not in RANKS:
            rule = "has no rank"
        elif target in OPEN_TO_OPS and part != "ops":
            rule = "is for ops alone"
        elif part is None or RANKS[target] > RANKS[part]:
            rule = "is above"
        elif RANKS[target] == RANKS[part]:
            rule = "is beside"
        else:
            continue
        found.append(f"{module}:{line}: {name} {rule}")
    return found


def modules() -> Iterator[tuple[str, bool, Path]]:
    # codeact/kernels is a link, and rglob follows links only from Python 3.13 on.
    kernels = ROOT / "kernels"
    for path in sorted({*(ROOT / "codeact").rglob("*.py"), *kernels.rglob("*.py")}):
        inside = ("codeact", *path.relative_to(ROOT).with_suffix("").parts)
        names = inside[1:] if inside[1] == "codeact" else inside
        is_package = names[-1] == "__init__"
        yield ".".join(names[:-1] if is_package else names), is_package, path


def test_imports_point_down():
    found = []
    for module, is_package, path in modules():
        found += violations(module, path.read_text(), is_package=is_package)
    assert not found, "\n".join(found)


def test_every_part_is_looked_at():
    seen = {part_of(module) for module, _, _ in modules()}
    assert {"kernels", "ops", "errors", None} <= seen


@pytest.mark.parametrize(
    ("module", "source", "reported"),
    [
        ("codeact.ops.x", "import codeact.cli", "codeact.cli is above"),
        ("codeact.ops.x", "from codeact.packing.plan import x", "codeact.packing.plan is above"),
        ("codeact.data.x", "from codeact.packing import BinPlan", "codeact.packing is beside"),
        ("codeact.scoring.x", "from codeact import selection", "codeact.selection is beside"),
        ("codeact.scoring.x", "def f():\n    import codeact.cli", "x:2: codeact.cli is above"),
        ("codeact.scoring.x", "from ..training import sft", "codeact.training is beside"),
        ("codeact.scoring.x", "from .. import training", "codeact.training is beside"),
        ("codeact.models.x", "from codeact import _C", "codeact._C is for ops alone"),
        ("codeact.models.x", "from codeact.kernels.token_nll import f", "is for ops alone"),
        ("codeact.kernels.x", "from codeact.ops import token_nll", "codeact.ops is above"),
        ("codeact.kernels.x", "import kernels.y", "write codeact.kernels"),
        ("codeact.errors", "import codeact.ops", "codeact.ops is above"),
        ("codeact.ops.x", "import codeact.nowhere", "codeact.nowhere has no rank"),
        ("codeact.helpers.x", "", "helpers has no rank"),
        ("codeact", "from codeact.errors import InputError; import codeact.ops", "is above"),
    ],
)  # fmt: skip
def test_a_planted_import_is_reported(module, source, reported):
    assert reported in "\n".join(violations(module, source, is_package=module == "codeact"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("codeact.ops.x", "from codeact import _C, errors"),
        ("codeact.ops.x", "from codeact.kernels.token_nll import token_nll"),
        ("codeact.scoring.x", "from codeact.models import load_model\nfrom .y import z"),
        ("codeact.pipeline.x", "from codeact import __version__\nimport torch, kernelspec"),
        ("codeact.cli.x", "from codeact.pipeline.run import run"),
        ("codeact.__main__", "from codeact.cli import main"),
    ],
)
def test_an_import_that_points_down_is_not(module, source):
    assert violations(module, source) == []


def native_sources() -> list[Path]:
    return sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), flags=re.MULTILINE)


def test_pybind11_stays_in_bindings():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in native_sources()
        if any(name.startswith(("pybind11", "Python.h")) for name in includes(path))
    }
    bindings = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("bindings*")}
    assert "csrc/bindings.cpp" in users
    assert users <= bindings


def test_native_code_knows_no_torch():
    torch_headers = ("torch", "ATen", "c10", "caffe2")
    users = [
        (p.name, n) for p in native_sources() for n in includes(p) if n.startswith(torch_headers)
    ]
    assert users == []


def test_importing_the_package_loads_no_torch():
    code = (
        "import sys, codeact; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]", ran.stderr
