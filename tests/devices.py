"""The devices this machine can run the ops on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

import deformops  # noqa: F401  (registers the ops)


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
    try:
        simulation = importlib.import_module("deformops.simulation")
        simulation.load()
    except ImportError:
        return False
    return True


DEVICES: dict[str, Device] = {"cpu": Device("cpu")}
if _has_simulation():
    DEVICES["simulated"] = Device("simulated", namespace="deformops_simulated")
if _has_cuda():
    DEVICES["cuda"] = Device("cuda", type="cuda")
