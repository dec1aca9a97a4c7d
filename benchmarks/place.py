"""Where competitors compute, and how their time is taken there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


class NoDeviceError(RuntimeError):
    """The device asked for is not there; the message says what torch sees."""


@dataclass(frozen=True, order=True)
class Place:
    """Some threads of the CPU, or the current CUDA device, whose threads nobody chooses."""

    threads: int = 1
    device: str = "cpu"

    def __str__(self) -> str:
        if self.on_gpu:
            return self.device
        return f"{self.threads} thread" + ("s" if self.threads != 1 else "")

    @property
    def on_gpu(self) -> bool:
        """Whether calls return before they are done."""
        return self.device != "cpu"

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Lets torch compute here: on so many threads; on a GPU float32 in full precision."""
        threads = torch.get_num_threads()
        products = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
        precisions = [product.fp32_precision for product in products]
        torch.set_num_threads(self.threads)
        try:
            if self.on_gpu:
                for product in products:
                    product.fp32_precision = "ieee"
            yield
        finally:
            torch.set_num_threads(threads)
            if self.on_gpu:
                for product, precision in zip(products, precisions, strict=True):
                    product.fp32_precision = precision

    def mark(self) -> Any:
        """Returns a point in time; on a GPU that at which what was asked of it so far is done."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Returns the time from one `mark` to a later one, for which it waits."""
        if not self.on_gpu:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def cuda() -> Place:
    """Returns the current CUDA device as a place.

    Raises:
        NoDeviceError: torch sees none.
    """
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"it is built for CUDA {built}" if built else "it is built without CUDA"
        raise NoDeviceError(f"torch {torch.__version__} sees no CUDA device ({why})")
    return Place(device="cuda")
