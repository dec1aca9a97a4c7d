"""The floor on a CUDA device: torch's own matrix product, and a copy.

Both are measured beside the benchmarks, as on the CPU: a large product in the type of the case, at
full precision, and a copy of as many bytes as the case reads and writes once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .case import Work
from .place import Place

SIZE = 4096  # of the square matrices
BURSTS, CALLS = 3, 5
# Larger copies are as fast; smaller ones stay in the device's cache, as what the case moves does.
LARGEST_COPY = 256 << 20


class GpuLimits:
    """Measures how long work takes at the least on the current CUDA device."""

    instructions = f"torch.matmul of {SIZE}x{SIZE}"

    def __init__(self) -> None:
        self._factors: dict[torch.dtype, Tensor] = {}

    def seconds(self, works: Iterable[Work], place: Place) -> dict[Work, float]:
        """Returns how long each of ``works`` takes, measured now."""
        rates: dict[torch.dtype, float] = {}
        seconds = {}
        for work in set(works):
            if work.unit == "bytes":
                seconds[work] = work.amount / self.bytes_per_second(place, work.amount)
            else:
                if work.dtype not in rates:
                    rates[work.dtype] = self.flops_per_second(place, work.dtype)
                seconds[work] = work.amount / rates[work.dtype]
        return seconds

    def flops_per_second(self, place: Place, dtype: torch.dtype = torch.float32) -> float:
        """Returns the rate of a large matrix product."""
        if dtype not in self._factors:
            self._factors[dtype] = torch.ones(SIZE, SIZE, dtype=dtype, device=place.device)
        factor = self._factors[dtype]
        return 2.0 * SIZE**3 / _best(lambda: factor @ factor, place)

    def bytes_per_second(self, place: Place, moved: float) -> float:
        """Returns the speed of a copy that reads ``moved / 2`` bytes and writes as many."""
        size = max(1, min(int(moved / 2), LARGEST_COPY))
        source = torch.ones(size, dtype=torch.uint8, device=place.device)
        target = torch.empty_like(source)
        return 2.0 * size / _best(lambda: target.copy_(source), place)

    def rates(self, place: Place) -> str:
        """Returns both rates, in words."""
        return (
            f"{self.flops_per_second(place) / 1e12:.1f} TFLOP/s in float32, "
            f"{self.bytes_per_second(place, 2 * LARGEST_COPY) / 1e9:.0f} GB/s"
        )


def _best(call: Callable[[], Any], place: Place) -> float:
    """Returns the seconds of a call in the best of a few bursts, each queued at once."""
    call()
    bursts = []
    for _ in range(BURSTS):
        start = place.mark()
        for _ in range(CALLS):
            call()
        bursts.append(place.seconds(start, place.mark()) / CALLS)
    return min(bursts)
