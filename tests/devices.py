"""The devices this machine can run the ops on.

A test that takes the fixture ``device`` runs on each of them: on the CPU, on a GPU where there is
one, and on the simulated device where the variable DEFORMOPS_SIMULATED names one of its builds.
csrc/simulation/README.md tells how a new family of kernels is proven there.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from deformops import ops


@dataclass(frozen=True)
class Device:
    """A place for tensors and the namespace of the raw ops that run there."""

    name: str
    type: str = "cpu"
    namespace: str = "deformops"
    tensor_cores: bool = False
    """Whether products of half types may be formed by units that take both factors as halves."""

    @property
    def raw(self) -> Any:
        """The raw ops, ``torch.ops.<namespace>``."""
        return getattr(torch.ops, self.namespace)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around a test."""
        yield


@dataclass(frozen=True)
class SimulatedDevice(Device):
    """Runs kernels under one schedule of their threads, and remembers which kernels ran."""

    seed: int = 0
    preemption: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        simulation = importlib.import_module("deformops.simulation")
        simulation.clear_launches()
        with simulation.schedule(self.seed, self.preemption):
            yield
        launched.update(launch.kernel for launch in simulation.launches())


launched: set[str] = set()
"""The kernels that ran on the simulated device, in this process."""


def devices(schedules: int = 1) -> list[Device]:
    """All devices, the simulated one once for each of so many schedules."""
    result = [Device("cpu")]
    if SIMULATED:
        result += [_simulated(number) for number in range(schedules)]
    if _has_cuda():
        result.append(Device("cuda", type="cuda", tensor_cores=True))
    return result


def _simulated(number: int) -> SimulatedDevice:
    """Schedule 0 is a fixed order; of the others, every second one preempts threads anywhere."""
    return SimulatedDevice(
        f"simulated-{number}" if number else "simulated",
        namespace="deformops_simulated",
        tensor_cores=True,
        seed=number,
        preemption=0.01 * (number % 2),
    )


def _has_cuda() -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return torch.cuda.is_available() and has_kernel("deformops::gather_columns", "CUDA")


def _has_simulation() -> bool:
    if "DEFORMOPS_SIMULATED" not in os.environ:
        return False
    simulation = importlib.import_module("deformops.simulation")
    simulation.load()
    ops.register("deformops_simulated")
    return True


SIMULATED = _has_simulation()
"""Whether this process has loaded a build of the simulated device."""
