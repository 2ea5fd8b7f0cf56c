from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """A compiler whose programs run with both sanitizers."""
    found = shutil.which("g++")
    if found is None or shutil.which("make") is None:
        pytest.skip("needs g++ and make")
    program = tmp_path_factory.mktemp("probe") / "probe"
    flags = ["-x", "c++", "-", "-fsanitize=address,undefined", "-o", str(program)]
    made = subprocess.run([found, *flags], input=b"int main() {}", capture_output=True)
    if made.returncode != 0 or subprocess.run([program], capture_output=True).returncode != 0:
        pytest.skip(f"{found} has no address sanitizer here")
    return found


def test_the_native_code_runs_clean_under_the_sanitizers(compiler, tmp_path):
    command = ["make", "sanitize", f"CXX={compiler}", f"SANITIZED={tmp_path / 'tests'}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all hold" in ran.stdout
