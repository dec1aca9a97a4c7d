"""What the numbers were taken on, and whether somebody else was using it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

from .place import Place

PACKAGES = {
    "deformops": "deformops-vision",
    "torch": "torch",
    "torchvision": "torchvision",
    "OpenVINO": "openvino",
    "ONNX Runtime": "onnxruntime",
    "OpenCV": "opencv-python-headless",
}


def cpu_name() -> str:
    """Returns the processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Returns the versions of the packages that take part, of those that are installed."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(place: Place) -> dict[str, object]:
    """Returns everything about this machine that a reader of the JSON file needs."""
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if place.on_gpu else {}
    return {
        "cpu": cpu_name(),
        **gpu,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "torch_threads": torch.get_num_threads(),
    }


class Neighbours:
    """Measures which share of the machine other processes used since it was made (Linux)."""

    def __init__(self) -> None:
        self._start = self._read()

    def share(self) -> float | None:
        """Returns the share, 0 to 1, or None where the system does not tell."""
        end = self._read()
        if self._start is None or end is None:
            return None
        busy, own, wall = (b - a for a, b in zip(self._start, end, strict=True))
        return max(0.0, busy - own) / max(1e-9, wall * (os.cpu_count() or 1))

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
        ticks = user + nice + system + irq + softirq + steal
        own = os.times()
        return ticks / os.sysconf("SC_CLK_TCK"), own.user + own.system, time.monotonic()
