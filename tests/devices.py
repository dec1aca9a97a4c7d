"""The devices this machine can run the ops on."""

from __future__ import annotations

import importlib
import os
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

    @property
    def raw(self) -> Any:
        """The raw ops, ``torch.ops.<namespace>``."""
        return getattr(torch.ops, self.namespace)


def _has_cuda() -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return torch.cuda.is_available() and has_kernel("deformops::gather_columns", "CUDA")


def _has_simulation() -> bool:
    """The simulated device is built on demand; the variable names the build that tests load."""
    if "DEFORMOPS_SIMULATED" not in os.environ:
        return False
    simulation = importlib.import_module("deformops.simulation")
    simulation.load()
    ops.register("deformops_simulated")
    return True


DEVICES: dict[str, Device] = {"cpu": Device("cpu")}
if _has_simulation():
    DEVICES["simulated"] = Device("simulated", namespace="deformops_simulated")
if _has_cuda():
    DEVICES["cuda"] = Device("cuda", type="cuda")
