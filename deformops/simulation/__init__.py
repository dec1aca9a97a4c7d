"""The simulated CUDA device: the package's CUDA kernels, executed on the CPU and checked.

The same kernel sources that nvcc compiles are compiled by g++, with every CUDA thread as a fiber of
its own; csrc/simulation/README.md tells how. Their ops are registered for CPU tensors as
``torch.ops.deformops_simulated``. There are three builds, of which a process loads one:

=======  ==================================================================================
plain    fast: values, large shapes; barriers, warp collectives and asynchronous copies are
         checked, shared memory is poisoned
race     every memory access is checked: races, bounds, reads of what nobody wrote; can
         count memory transactions
asan     AddressSanitizer and UndefinedBehaviorSanitizer; the process has to be started by
         ``python -m deformops.simulation run asan -- python ...``
=======  ==================================================================================

    >>> from deformops import simulation
    >>> simulation.load("race")
    >>> with simulation.schedule(seed=3, preemption=0.01):
    ...     torch.ops.deformops_simulated.gather_columns(...)

A mistake in a kernel is a ``RuntimeError`` that names the kernel, block, thread, file and line;
`last_failure` has the same as an object.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

try:
    from deformops.simulation import _device
    from deformops.simulation._device import Failure, KernelError, Launch, Place
except ImportError as error:
    raise ImportError(
        "This deformops was built without its simulated CUDA device. `make simulated` builds it in "
        "in a checkout, DEFORMOPS_SIMULATION=ON in the environment of pip elsewhere; both need "
        "Linux, g++ and pybind11."
    ) from error

__all__ = [
    "BUILDS",
    "Failure",
    "KernelError",
    "Launch",
    "Place",
    "clear_launches",
    "has_sanitizer",
    "kernels",
    "last_failure",
    "launches",
    "load",
    "loaded",
    "profile",
    "require_sanitizer",
    "schedule",
]

BUILDS = ("plain", "race", "asan")

_FOLDER = Path(__file__).parent
_loaded: str | None = None


def load(build: str | None = None) -> str:
    """Loads the ops of one build as ``torch.ops.deformops_simulated``; once per process.

    Args:
        build: "plain", "race" or "asan"; None: what the environment variable DEFORMOPS_SIMULATED
            says, or else what is loaded already, or else "plain".

    Returns:
        The name of the build.

    Raises:
        ValueError: there is no such build.
        RuntimeError: another one is loaded, or this process was not started for "asan".
        OSError: the library does not load.
    """
    global _loaded
    if build is None:
        build = os.environ.get("DEFORMOPS_SIMULATED") or _loaded or "plain"
    if build not in BUILDS:
        raise ValueError(f"build: expected one of {', '.join(BUILDS)}, got {build!r}")
    if _loaded == build:
        return build
    if _loaded is not None:
        raise RuntimeError(f"the {_loaded} build is loaded; {build} needs a process of its own")
    require_sanitizer(build)
    torch.ops.load_library(str(_library(build)))
    _loaded = build
    return build


def _library(build: str) -> Path:
    return _FOLDER / f"libdeformops_simulated_{build}.so"


def loaded() -> str | None:
    """The build that this process has loaded."""
    return _loaded


def kernels() -> frozenset[str]:
    """All kernels of the loaded library, by the names that `Launch.kernel` has.

    A kernel is a function whose name ends in ``_kernel``; each instantiation of a template counts.

    Raises:
        RuntimeError: no build is loaded, or the library's symbols cannot be read (by binutils' nm).
    """
    if _loaded is None:
        raise RuntimeError("no build of the simulated device is loaded")
    command = ["nm", "--demangle", "--defined-only", str(_library(_loaded))]
    # A sanitizer's library in front of nm would find mistakes in nm.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    # ADDRESS t [void] deformops::cuda::name_kernel[<types>](parameters)
    symbols = (line.split(" ", 2) for line in answer.stdout.splitlines())
    functions = (_without_parameters(name) for _, kind, name in symbols if kind in "tTwW")
    names = frozenset(name for name in functions if re.search(r"^[^<]*_kernel(<.*>)?$", name))
    if not names:
        raise RuntimeError(f"{command[-1]} names no kernels: {answer.stderr.strip()}")
    return names


def _without_parameters(function: str) -> str:
    """A demangled function's name, as the device gives it."""
    name = function.removeprefix("void ").replace("(anonymous namespace)::", "")
    depth = 0
    for end in range(len(name) - 1, -1, -1):
        depth += (name[end] == ")") - (name[end] == "(")
        if depth == 0:
            break
    return name[:end]


def has_sanitizer() -> bool:
    """Whether this process was started with AddressSanitizer, as the asan build needs it."""
    return "libasan.so" in Path("/proc/self/maps").read_text()


def require_sanitizer(build: str) -> None:
    """Raises RuntimeError where the asan build is wanted and AddressSanitizer is not there."""
    if build == "asan" and not has_sanitizer():
        raise RuntimeError(
            "the asan build needs AddressSanitizer from the start of the process: "
            "python -m deformops.simulation run asan -- python ..."
        )


@contextlib.contextmanager
def schedule(
    seed: int = 0,
    preemption: float = 0.0,
    *,
    allow_early_exit: bool = False,
    profile: bool = False,
) -> Iterator[None]:
    """Within the block, kernels are scheduled in this way; launches count from 0 for the seed.

    Args:
        seed: draws the order of blocks, which thread runs when, and when asynchronous copies land.
            0 is a fixed order, threads and blocks by number.
        preemption: chance of switching threads at each branch (plain, asan) or each memory access
            (race), in [0, 1]; otherwise they are switched only where one has to wait.
        allow_early_exit: a thread may return while others still come to ``__syncthreads``, as
            compute capability 7.0 permits; otherwise that is an error.
        profile: count memory transactions (race build).
    """
    if not 0 <= preemption <= 1:
        raise ValueError(f"preemption: expected a number in [0, 1], got {preemption}")
    outer = _device.options()
    _device.configure(
        seed=seed, preemption=preemption, allow_early_exit=allow_early_exit, profile=profile
    )
    try:
        yield
    finally:
        _device.configure(**outer)


@contextlib.contextmanager
def profile(seed: int = 0) -> Iterator[list[Launch]]:
    """Records the launches of the block; the list is filled when the block ends.

    In the race build memory transactions are counted; `deformops.simulation.report` prints them.
    """
    record: list[Launch] = []
    clear_launches()
    with schedule(seed, profile=True):
        yield record
    record.extend(launches())


def launches() -> list[Launch]:
    """What each kernel did that ended well since `clear_launches`, oldest first."""
    return _device.launches()


def clear_launches() -> None:
    """Forgets all launches so far."""
    _device.clear_launches()


def last_failure() -> Failure | None:
    """What the latest kernel that failed did wrong, and where."""
    return _device.last_failure()
