"""Build codeact._C and the launcher with CMake; everything else is declared in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Let CMake write the shared object where setuptools looks for it."""

    def run(self) -> None:
        # setuptools clears `inplace` before build_extension. In place is the edit-run loop, which
        # keeps what is compiled; any other build starts anew, without the options of the last.
        self.starts_anew = not self.inplace
        self.into_sources = self.inplace or self.editable_mode
        super().run()

    def build_extension(self, ext: Extension) -> None:
        # cmake and ninja may be packages of an environment that nobody activated.
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        output_dir = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build_dir = Path(self.build_temp).resolve()
        configure = [
            "cmake", "-S", ROOT, "-B", build_dir, "-G", "Ninja",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output_dir}",
            # A program, no extension: setuptools would not copy it into the sources itself.
            f"-DCMAKE_RUNTIME_OUTPUT_DIRECTORY={self.package_dir(output_dir) / 'sandbox'}",
            # An isolated build leaves the address of a ninja that is gone by the next one.
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja', path=path)}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        if self.starts_anew:
            configure.append("--fresh")
        for command in (configure, ["cmake", "--build", build_dir]):
            subprocess.run(command, check=True, env={**os.environ, "PATH": path})

    def package_dir(self, output_dir: Path) -> Path:
        return ROOT / "codeact" if self.into_sources else output_dir


setup(
    ext_modules=[Extension("codeact._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
