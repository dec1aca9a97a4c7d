"""Builds libdeformops.so with CMake and ninja, and puts it into the Python package.

The build tree, build/native-*, is kept and shared by editable installs and wheels, so that a rebuild compiles what
changed and nothing else. Environment: DEFORMOPS_CUDA (AUTO, ON, OFF), TORCH_CUDA_ARCH_LIST, MAX_JOBS, CMAKE_ARGS.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = "deformops"


def find_torch() -> Path | None:
    """The folder of the torch package whose headers to build with, or None.

    An isolated build hides the environment that it builds for from `import`, not from the eye: the headers of the torch
    that is installed there serve as well as those of a second one, downloaded for the build.
    """
    spec = importlib.util.find_spec("torch")
    candidates = list(spec.submodule_search_locations or []) if spec else []
    candidates += [os.path.join(sysconfig.get_path(kind), "torch") for kind in ("platlib", "purelib")]
    for folder in map(Path, candidates):
        if (folder / "include/torch/csrc/stable/library.h").is_file():
            return folder
    return None


def find_program(name: str) -> str | None:
    """An executable on PATH, or beside the Python that runs: that is where pip puts ninja and cmake."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")]))


def missing_build_tools() -> list[str]:
    """What has to be downloaded for an isolated build: nothing that is at hand."""
    needed = {"torch>=2.13": find_torch(), "ninja": find_program("ninja"), "cmake>=3.25": find_program("cmake")}
    return [requirement for requirement, found in needed.items() if not found]


@contextlib.contextmanager
def locked(tree: Path) -> Iterator[None]:
    """Two builds at once, say an editable one and a wheel, take turns."""
    tree.mkdir(parents=True, exist_ok=True)
    with open(tree / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class CMakeBuild(build_ext):
    """Configures, compiles and installs the CMake project into the package's folder."""

    def run(self) -> None:
        torch, cmake, ninja = find_torch(), find_program("cmake"), find_program("ninja")
        if not (torch and cmake and ninja):
            sys.exit(f"deformops: to build, first install {' '.join(missing_build_tools())}")
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        # CMake remembers the arguments of earlier runs; a tree of their own keeps them from leaking into a plain build.
        suffix = f"-{hashlib.sha256(repr(extra).encode()).hexdigest()[:8]}" if extra else ""
        tree = ROOT / "build" / f"native-{sysconfig.get_platform()}{suffix}"
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        with locked(tree):
            self._call(
                [cmake, "-S", str(ROOT), "-B", str(tree), "-G", "Ninja", "-Wno-dev"],
                [f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DDEFORMOPS_TORCH_DIR={torch}"],
                [f"-DDEFORMOPS_CUDA={os.environ.get('DEFORMOPS_CUDA') or 'AUTO'}", *extra],
            )
            self._call([cmake, "--build", str(tree), "--parallel", jobs])
            self._call([cmake, "--install", str(tree), "--prefix", str(self.destination())])

    def destination(self) -> Path:
        """The folder of the package: in the checkout when it is used in place, otherwise where the wheel is assembled."""
        in_place = self.inplace or self.editable_mode
        return (ROOT if in_place else Path(self.build_lib).resolve()) / PACKAGE

    def get_outputs(self) -> list[str]:
        files = ["libdeformops.so", *(f"share/cmake/deformops/deformopsConfig{kind}.cmake" for kind in ("", "Version"))]
        return [str(self.destination() / file) for file in files]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    @staticmethod
    def _call(*parts: list[str]) -> None:
        command = [word for part in parts for word in part]
        try:
            subprocess.run(command, check=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"deformops: the build failed (status {error.returncode}) in: {shlex.join(command)}")


class FreshBuild(build):
    """Assembles the package in an empty folder, so that files deleted since the last wheel are not in the next one."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: native code, but none that knows Python's C-API."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[Extension(f"{PACKAGE}.libdeformops", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build": FreshBuild, "bdist_wheel": AnyPythonWheel},
    setup_requires=missing_build_tools(),
)
