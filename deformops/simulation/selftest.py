"""Kernels with planted mistakes: does the simulated device notice?

Each case is a kernel of csrc/simulation/selftest that is right, or the same kernel with one
mistake. `attempt` runs it once, under one schedule; a mistake is noticed when the device reports an
error or when the result is wrong. ``python -m deformops.simulation selftest`` prints how often that
happens.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from deformops import simulation

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A kernel, right or with a mistake, its arguments and its right result."""

    kernel: str
    mistake: str  # "NONE" for the right kernel
    about: str
    arguments: tuple[Any, ...]
    expected: Array
    tolerance: float = 1e-4

    @property
    def name(self) -> str:
        """Kernel and mistake, as in "gemm: missing wait"."""
        return f"{self.kernel}: {self.mistake.lower().replace('_', ' ')}"


def module_of(build: str) -> ModuleType:
    """The kernels as compiled for a build; those of several builds can be in one process.

    Raises:
        RuntimeError: "asan" in a process that was not started for it.
    """
    simulation.require_sanitizer(build)
    return importlib.import_module(f"deformops.simulation._selftest_{build}")


def attempt(case: Case, build: str, seed: int, preemption: float = 0.0) -> str | None:
    """What was noticed: the kind of the device's error, "value" for a wrong result, or None."""
    kernels = module_of(build)
    mistake = getattr(kernels.Mistake, case.mistake)
    # A kernel that writes to its input must not spoil it for the next.
    arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in case.arguments]
    with simulation.schedule(seed, preemption):
        try:
            result = getattr(kernels, case.kernel)(mistake, *arguments)
        except simulation.KernelError as error:
            return error.failure.kind
    return None if np.allclose(result, case.expected, rtol=1e-4, atol=case.tolerance) else "value"


def noticed(case: Case, build: str, seeds: Iterable[int], preemption: float = 0.0) -> Counter[str]:
    """How often which kind of error was noticed."""
    kinds = (attempt(case, build, seed, preemption) for seed in seeds)
    return Counter(kind for kind in kinds if kind is not None)


def cases() -> list[Case]:
    """All cases; the right kernels first."""
    random = np.random.default_rng(0)
    values = random.random(1001, dtype=np.float32)
    # Dense copies: what lies behind the last element then belongs to somebody else.
    few, many = values[:256].copy(), values[:64].copy()
    left = random.standard_normal((128, 128)).astype(np.float16)
    right = random.standard_normal((128, 64)).astype(np.float16)
    product = left.astype(np.float64) @ right.astype(np.float64)
    index = (np.arange(128) % 50).astype(np.int32)
    divisors = np.arange(1, 33, dtype=np.int32)

    def block_sum(mistake: str, about: str) -> Case:
        return Case("block_sum", mistake, about, (values,), values.sum(keepdims=True))

    def warp_tree(mistake: str, about: str) -> Case:
        return Case("warp_tree", mistake, about, (few,), few.sum(keepdims=True))

    def groups(mistake: str, about: str) -> Case:
        expected = np.repeat(many.reshape(8, 8).sum(1), 8)
        return Case("groups_of_eight", mistake, about, (many,), expected)

    def gemm(mistake: str, about: str) -> Case:
        arguments = (left.view(np.uint16), right.view(np.uint16))
        return Case("gemm", mistake, about, arguments, product, tolerance=1e-2)

    def scatter(mistake: str, about: str) -> Case:
        return Case("scatter", mistake, about, (index, 50), np.bincount(index, minlength=50))

    def copy(mistake: str, about: str) -> Case:
        return Case("copy", mistake, about, (values,), values)

    def through_scratch(mistake: str, about: str) -> Case:
        return Case("through_scratch", mistake, about, (values,), 2 * values)

    def last_block_sum(mistake: str, about: str) -> Case:
        return Case("last_block_sum", mistake, about, (values,), values.sum(keepdims=True))

    def divide(mistake: str, about: str, divisors: Array = divisors) -> Case:
        return Case("divide", mistake, about, (divisors,), 100 // np.maximum(divisors, 1))

    return [
        block_sum("NONE", "sum of a block"),
        warp_tree("NONE", "sum of a warp, a tree in shared memory"),
        groups("NONE", "shuffles among 8 lanes, each group at its own pace"),
        gemm("NONE", "matrix product on tensor cores, double-buffered"),
        scatter("NONE", "atomic scatter"),
        copy("NONE", "copy by vectors of 4"),
        through_scratch("NONE", "two kernels and memory between them"),
        last_block_sum("NONE", "the last block adds up what all have left"),
        divide("NONE", "recursion and division"),
        block_sum("MISSING_BARRIER", "no __syncthreads before shared memory is read"),
        block_sum("SHARED_OVERRUN", "write past the end of a shared array"),
        block_sum("DIVERGENT_BARRIER", "__syncthreads in a branch that some do not take"),
        block_sum("TWO_BARRIERS", "the block splits up between two __syncthreads"),
        block_sum("EARLY_EXIT", "a thread returns before a __syncthreads"),
        block_sum("MISSING_LANE", "a lane of a shuffle's mask has exited"),
        groups("WRONG_MASK", "a lane that is not in the mask it names"),
        groups("MISMATCHED_COLLECTIVE", "lanes of one mask in different collectives"),
        warp_tree("MISSING_WARP_BARRIER", "no __syncwarp where lanes were thought to run in step"),
        gemm("MISSING_WAIT", "cp.async that nobody waits for"),
        gemm("NO_BARRIER_AFTER_WAIT", "no __syncthreads after the wait"),
        gemm("NO_BARRIER_BEFORE_REFILL", "no __syncthreads before a buffer is filled again"),
        gemm("WRONG_FRAGMENT", "ldmatrix with a wrong offset"),
        gemm("UNFINISHED_COPY", "a thread exits with cp.async in flight"),
        scatter("NOT_ATOMIC", "+= on memory that other threads and blocks add to"),
        copy("PAST_THE_END", "read one past the end of a tensor"),
        copy("WRITE_TO_INPUT", "write to a read-only tensor"),
        copy("MISALIGNED", "vector access that is not aligned"),
        copy("TOO_MUCH_SHARED", "more dynamic shared memory than the kernel may have"),
        through_scratch("UNWRITTEN_GLOBAL", "read of scratch memory that nobody wrote"),
        last_block_sum("MISSING_FENCE", "results passed between blocks without __threadfence"),
        divide("ENDLESS_RECURSION", "recursion without an end"),
        divide("DIVISION_BY_ZERO", "integer division by zero", divisors - 1),
    ]


def table(builds: Sequence[str], seeds: Sequence[int], preemption: float = 0.0) -> str:
    """How often each mistake was noticed, and as what, in each build."""
    rows = []
    for case in cases():
        cells = []
        for build in builds:
            kinds = noticed(case, build, seeds, preemption)
            names = ", ".join(kind for kind, _ in kinds.most_common())
            cells.append(f"{kinds.total()}/{len(seeds)} {names}".strip())
        rows.append([case.name, *cells])
    head = ["kernel: mistake", *builds]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    )
