"""Builds libdeformops.so with CMake and ninja, and puts it into the Python package.

The build tree, build/native-*, is kept and shared by editable installs and wheels: a rebuild
compiles what changed and nothing else. Environment: DEFORMOPS_CUDA (AUTO, ON, OFF),
DEFORMOPS_SIMULATION (ON, OFF: the simulated CUDA device, for tests), TORCH_CUDA_ARCH_LIST,
MAX_JOBS, CMAKE_ARGS.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ModuleNotFoundError:
    sys.exit("deformops: to build, first run: pip install --upgrade 'setuptools>=77'")

ROOT = Path(__file__).resolve().parent
PACKAGE = "deformops"
SIMULATION = os.environ.get("DEFORMOPS_SIMULATION", "") not in ("", "OFF", "0")


def find_torch() -> str | None:
    """The folder of the torch package whose headers to build with, or None.

    An isolated build hides the environment that it builds for from `import`, not from the eye: the
    headers of the torch that is installed there serve as well as those of a second one,
    downloaded for the build.
    """
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or []) if spec else []
    folders += [f"{sysconfig.get_path(kind)}/torch" for kind in ("platlib", "purelib")]
    header = "include/torch/csrc/stable/library.h"
    return next((folder for folder in folders if Path(folder, header).is_file()), None)


def find_program(name: str, minimum: tuple[int, int] = (0, 0)) -> str | None:
    """An executable beside the Python that runs, where pip puts ninja and cmake, or on PATH.

    In this order whatever PATH says: a second ninja of another version would not trust the log of
    the first, and compile everything again. It is asked for its version and so proven to run: in an
    isolated build, the cmake that pip put into the environment outside is a script that cannot
    import its own package.
    """
    for folder in [sysconfig.get_path("scripts"), *os.get_exec_path()]:
        program = shutil.which(name, path=folder)
        if program:
            command = [program, "--version"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            version = re.search(r"(\d+)\.(\d+)", answer.stdout)
            if answer.returncode == 0 and version and (int(version[1]), int(version[2])) >= minimum:
                return program
    return None


TOOLS = {
    "torch>=2.13": find_torch(),
    "cmake>=3.25": find_program("cmake", (3, 25)),
    "ninja": find_program("ninja"),
}
MISSING = [requirement for requirement, found in TOOLS.items() if found is None]


@contextlib.contextmanager
def locked(tree: Path) -> Iterator[None]:
    """Two builds at once, say an editable one and a wheel, take turns."""
    tree.mkdir(parents=True, exist_ok=True)
    with open(tree / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def call(*command: str) -> None:
    result = subprocess.run(command, check=False)
    if result.returncode:
        words = shlex.join(command)
        sys.exit(f"deformops: the build failed (status {result.returncode}) in: {words}")


class CMakeBuild(build_ext):
    """Configures, compiles and installs the CMake project into the package's folder."""

    def run(self) -> None:
        if MISSING:
            sys.exit(f"deformops: to build, first install {shlex.join(MISSING)}")
        torch, cmake, ninja = map(str, TOOLS.values())
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        # CMake remembers earlier arguments; a tree of its own keeps these out of a plain build.
        suffix = f"-{hashlib.sha256(repr(extra).encode()).hexdigest()[:8]}" if extra else ""
        tree = ROOT / "build" / f"native-{sysconfig.get_platform()}{suffix}"
        options = {
            "CMAKE_MAKE_PROGRAM": ninja,
            "DEFORMOPS_TORCH_DIR": torch,
            "DEFORMOPS_CUDA": os.environ.get("DEFORMOPS_CUDA") or "AUTO",
            "DEFORMOPS_SIMULATION": "ON" if SIMULATION else "OFF",
        }
        if SIMULATION:
            options["Python_EXECUTABLE"] = sys.executable  # has pybind11, for the device's controls
        arguments = [*(f"-D{name}={value}" for name, value in options.items()), *extra]
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        with locked(tree):
            call(cmake, "-S", str(ROOT), "-B", str(tree), "-G", "Ninja", *arguments)
            call(cmake, "--build", str(tree), "--parallel", jobs)
            call(cmake, "--install", str(tree), "--prefix", str(self.destination()))

    def destination(self) -> Path:
        """The package's folder: in the checkout when used in place, else where the wheel forms."""
        in_place = self.inplace or self.editable_mode
        return (ROOT if in_place else Path(self.build_lib).resolve()) / PACKAGE

    def get_outputs(self) -> list[str]:
        config = "share/cmake/deformops/deformopsConfig"
        files = ["libdeformops.so", f"{config}.cmake", f"{config}Version.cmake"]
        return [str(self.destination() / file) for file in files]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class FreshBuild(build):
    """Assembles the package in an empty folder: what was deleted is not in the next wheel."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: native code, but none that knows Python's C-API.

    The controls of the simulated device do know it: a wheel with them serves one Python.
    """

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if SIMULATION else ("py3", "none", platform)


setup(
    ext_modules=[Extension(f"{PACKAGE}.libdeformops", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build": FreshBuild, "bdist_wheel": AnyPythonWheel},
    setup_requires=MISSING,  # what an isolated build downloads: nothing that is at hand
)
