"""The processes that train together: one, or those that torchrun starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; a context that leaves them at its end.

    Attributes:
        rank: the number of this process.
        count: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls, device: str | None = None) -> Processes:
        """Joins the processes that torchrun has started, if it has.

        Args:
            device: "cpu" or "cuda", with or without a number; None: CUDA where there is some.
                Several processes share the GPUs of a machine by their local ranks, and talk through
                nccl there, through gloo on the CPU.

        Returns:
            This process; `leave` ends what this begins.

        Raises:
            ValueError: there is no such device.
        """
        name = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            place = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"device: expected cpu or cuda, got {name!r}") from error
        if place.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no CUDA device here; cpu would do")
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count > 1:
            if place.type == "cuda":
                place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
                torch.cuda.set_device(place)
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
            return cls(dist.get_rank(), count, place)
        return cls(device=place)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Ends the group of processes, if there is one."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether it is this process that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float] | torch.Tensor) -> torch.Tensor:
        """Sums numbers over all processes, in float64 or as the integers they are; each gets it."""
        given = torch.as_tensor(values)
        kind = torch.float64 if given.is_floating_point() else torch.int64
        total = given.to(self.device, kind, copy=True)
        if self.count > 1:
            dist.all_reduce(total)
        return total.cpu()

    def gather(self, value: Value) -> list[Value]:
        """What each process has, by rank; each gets it. Tensors must be on the CPU."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def share(self, net: nn.Module) -> nn.Module:
        """The network as all processes train it: gradients are means over them.

        Raises:
            ValueError: the network learns statistics of batches, which the processes would have to
                share, and cannot on the CPU.
        """
        if self.count == 1:
            return net
        if any(_learns_statistics(module) for module in net.modules()):
            if self.device.type != "cuda":
                raise ValueError(
                    "net: expected frozen batch normalisation, since several processes share the "
                    "statistics of a batch only on CUDA; train with one process, or frozen"
                )
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return DistributedDataParallel(net, broadcast_buffers=False)


def _learns_statistics(module: nn.Module) -> bool:
    """Whether it is batch normalisation, and not a frozen one."""
    normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return normalises and any(parameter.requires_grad for parameter in module.parameters())
