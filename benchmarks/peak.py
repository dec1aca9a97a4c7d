"""The floor: the rate at which this machine multiplies and adds, measured beside the benchmarks.

``peak.c`` is compiled once with the system's C compiler and kept in the user's cache folder. Every
thread is measured on its own and at the same time as the others, so that cores which share a clock,
a power budget or an execution unit are seen sharing it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).with_name("peak.c")
BURST_SECONDS = 0.002


class NoCompilerError(RuntimeError):
    """There is nothing that could build ``peak.c``."""


class FmaPeak:
    """Measures the multiply-add peak of one or several threads."""

    def __init__(self) -> None:
        library = ctypes.CDLL(str(build()))
        library.fma_peak.argtypes = [ctypes.c_int64]
        library.fma_peak.restype = ctypes.c_double
        library.fma_instructions.restype = ctypes.c_char_p
        self._rate = library.fma_peak
        self.instructions: str = library.fma_instructions().decode()
        # As many rounds as fill one burst: found from a first, short one.
        flops_per_round = 512.0
        self._rounds = max(1000, int(self._rate(100_000) / flops_per_round * BURST_SECONDS))
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def measure(self, threads: int, bursts: int = 3) -> float:
        """Returns flop/s of ``threads`` threads that run at the same time: the best burst's."""
        if threads == 1:
            return max(self._rate(self._rounds) for _ in range(bursts))
        pool = self._pools.setdefault(threads, ThreadPoolExecutor(threads))
        barrier = threading.Barrier(threads)

        def run() -> list[float]:
            rates = []
            for _ in range(bursts):
                barrier.wait()
                rates.append(self._rate(self._rounds))  # ctypes lets go of the interpreter's lock
            return rates

        per_thread = [future.result() for future in [pool.submit(run) for _ in range(threads)]]
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
    """Compiles ``peak.c`` unless this very source was compiled by this compiler before."""
    compiler = find_compiler()
    command = [compiler, "-O2", "-ffp-contract=fast", "-shared", "-fPIC", "-std=gnu11"]
    identity = "\n".join([SOURCE.read_text(), *command, platform.machine(), platform.system()])
    library = cache_folder() / f"peak-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
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
