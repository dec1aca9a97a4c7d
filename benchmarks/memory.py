"""How much memory one call needs beyond its inputs.

Each competitor is asked in a process of its own, started from a clean one that has only imported
the libraries, so that no order of measurements and nobody's leftovers matter. There, the library is
woken up on tiny cases, free heap is given back to the system, the kernel's high-water mark of
resident memory is reset, and the competitor makes its *first* call at the real size. The growth of
the mark is the output plus the workspace, including arenas that an engine allocates once and keeps.

On a GPU it is what torch's allocator gives out at most during a call.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from .place import Place

PEERS = ("torchvision", "openvino", "onnxruntime", "cv2")
PRELOAD = ("torch", *PEERS, "deformops", "benchmarks.suites")


def available() -> bool:
    """Returns whether this system can reset and report the high-water mark (Linux)."""
    return sys.platform == "linux" and Path("/proc/self/clear_refs").exists()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


class HighWater:
    """Growth of resident memory at its highest, in bytes, since it was made. One at a time."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._start = _status("VmRSS")

    def growth(self) -> int:
        """Returns the bytes by which the highest mark since then exceeds the start."""
        return max(0, _status("VmHWM") - self._start)


def growth(suite: str, case: str, competitor: str, place: Place) -> int | None:
    """Returns the bytes that one call of a competitor adds, or None when its process failed."""
    measure = _on_gpu if place.on_gpu else _on_cpu
    return measure(suite, case, competitor, place)


def _on_gpu(suite: str, case: str, competitor: str, place: Place) -> int:
    """What torch's allocator gives out, which is exact and sees what our ops take."""
    import torch

    from . import suites
    from .rotation import run_once

    ready = suites.load(suite).case(case).entries[competitor].factory(place)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run_once(ready, place)
    return torch.cuda.max_memory_allocated() - before


def _probe(suite: str, case: str, competitor: str, place: Place, answer: Connection) -> None:
    import torch

    from . import suites
    from .case import OURS
    from .rotation import run_once

    torch.set_num_threads(place.threads)
    chosen = suites.load(suite)
    for tiny in chosen.warm_up:
        entry = tiny.entries.get(competitor) or tiny.entries[OURS]
        run_once(entry.factory(place))
    ready = chosen.case(case).entries[competitor].factory(place)
    mark = HighWater()
    run_once(ready)
    answer.send(mark.growth())


def _on_cpu(suite: str, case: str, competitor: str, place: Place) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_probe, args=(suite, case, competitor, place, send))
    process.start()
    send.close()
    try:
        return int(receive.recv())
    except EOFError:
        return None
    finally:
        process.join()
        receive.close()
