"""The floor: what this machine can do at its best, measured beside the benchmarks.

Two limits: the rate of multiply-adds, and the time of a copy that moves as many bytes as a case
reads and writes once (so that what fits into a cache is compared with a copy in that cache).
``limits.c`` is compiled once with the system's C compiler and kept in the user's cache folder.
Every thread is measured on its own and at the same time as the others, so that cores which share a
clock, a power budget, an execution unit or a memory are seen sharing it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch

from .case import Work
from .place import Place

SOURCE = Path(__file__).with_name("limits.c")
BURST_SECONDS = 0.002
BURSTS = 3
# Larger copies are as fast, and would take longer than they are worth.
LARGEST_COPY = 64 << 20


class NoCompilerError(RuntimeError):
    """There is nothing that could build ``limits.c``."""


class Meter(Protocol):
    """What measures a floor, here or on a GPU."""

    instructions: str

    def seconds(self, works: Iterable[Work], place: Place) -> dict[Work, float]:
        """Returns how long each of ``works`` takes at ``place``, measured now."""

    def rates(self, place: Place) -> str:
        """Returns what the floor follows from, in words."""


class Limits:
    """Measures how long work takes at the least, on one or several threads."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(build()))
        self._library.fma_peak.argtypes = [ctypes.c_int64]
        self._library.fma_peak.restype = ctypes.c_double
        self._library.fma_instructions.restype = ctypes.c_char_p
        self._library.copy_rate.argtypes = [ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 2
        self._library.copy_rate.restype = ctypes.c_double
        self.instructions: str = self._library.fma_instructions().decode()
        # As many rounds as fill one burst: found from a first, short one.
        flops_per_round = 512.0
        rate = self._library.fma_peak(100_000)
        self._rounds = max(1000, int(rate / flops_per_round * BURST_SECONDS))
        self._buffers = torch.zeros(0, dtype=torch.uint8)
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def seconds(self, works: Iterable[Work], place: Place) -> dict[Work, float]:
        """Returns how long each of ``works`` takes at ``place``, measured now."""
        threads = place.threads
        flops: float | None = None
        seconds = {}
        for work in set(works):
            if work.unit == "bytes":
                seconds[work] = work.amount / self.bytes_per_second(threads, work.amount)
            else:
                flops = flops or self.flops_per_second(threads)
                seconds[work] = work.amount / flops
        return seconds

    def flops_per_second(self, threads: int) -> float:
        """Returns the multiply-add peak of ``threads`` threads that run at the same time."""
        return self._best(threads, lambda thread: self._library.fma_peak(self._rounds))

    def bytes_per_second(self, threads: int, moved: float) -> float:
        """Returns the speed of a copy that reads ``moved / 2`` bytes and writes as many."""
        part = max(1, min(int(moved / 2), LARGEST_COPY) // threads)
        if self._buffers.numel() < 2 * part * threads:
            self._buffers = torch.ones(2 * part * threads, dtype=torch.uint8)
        start = self._buffers.data_ptr()
        rounds = max(1, int(BURST_SECONDS * 20e9 / (2 * part * threads)))

        def copy(thread: int) -> float:
            source = start + 2 * part * thread
            return float(self._library.copy_rate(source + part, source, part, rounds))

        return self._best(threads, copy)

    def rates(self, place: Place) -> str:
        """Returns both rates, in words."""
        return (
            f"{self.flops_per_second(place.threads) / 1e9:.0f} GFLOP/s, "
            f"{self.bytes_per_second(place.threads, 2 * LARGEST_COPY) / 1e9:.1f} GB/s on {place}"
        )

    def _best(self, threads: int, rate: Callable[[int], float]) -> float:
        """Returns the best burst's sum of the rates of the threads."""
        if threads == 1:
            return max(rate(0) for _ in range(BURSTS))
        pool = self._pools.setdefault(threads, ThreadPoolExecutor(threads))
        barrier = threading.Barrier(threads)

        def run(thread: int) -> list[float]:
            rates = []
            for _ in range(BURSTS):
                barrier.wait()
                rates.append(rate(thread))  # ctypes lets go of the interpreter's lock
            return rates

        per_thread = list(pool.map(run, range(threads)))
        return max(sum(burst) for burst in zip(*per_thread, strict=True))


def find_compiler() -> str:
    """Returns the path of a C compiler: ``$CC``, else cc, gcc or clang."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise NoCompilerError("no C compiler (looked for $CC, cc, gcc and clang)")


def cache_folder() -> Path:
    """Returns the folder for what benchmarks build, under ``$XDG_CACHE_HOME`` or its default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deformops" / "benchmarks"


def build() -> Path:
    """Compiles ``limits.c`` unless this very source was compiled by this compiler before."""
    compiler = find_compiler()
    command = [compiler, "-O2", "-ffp-contract=fast", "-shared", "-fPIC", "-std=gnu11"]
    identity = "\n".join([SOURCE.read_text(), *command, platform.machine(), platform.system()])
    library = cache_folder() / f"limits-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    # Built beside and renamed: two benchmarks that start together never load half a file.
    unfinished = library.with_suffix(f".{os.getpid()}.so")
    result = subprocess.run(
        [*command, str(SOURCE), "-o", str(unfinished)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise NoCompilerError(f"{compiler} could not build {SOURCE.name}:\n{result.stderr.strip()}")
    unfinished.replace(library)
    return library
