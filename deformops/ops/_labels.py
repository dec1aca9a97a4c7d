"""Maps of labels: their checks, and their indicators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._points import check_alike


def check_integers(checks: Checks, name: str, labels: Any) -> None:
    """A tensor of integers."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{checks.op}: {name}: expected a tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{checks.op}: {name}: expected integers, got {labels.dtype}")


def check_range(checks: Checks, name: str, labels: Tensor, first: int, last: int) -> None:
    """No label outside the range; on the CPU alone, since a GPU would have to be waited for."""
    if labels.device.type == "cpu" and labels.numel() > 0:
        low, high = (int(bound) for bound in labels.aminmax())
        got = low if low < first else high
        checks.require(first <= low and high <= last, name, f"labels from {first} to {last}", got)


def check_labels(checks: Checks, labels: Any, unary: Tensor) -> None:
    """A label for each pixel of the unary [N, L, ...]."""
    check_integers(checks, "labels", labels)
    check_alike(checks, "labels", labels, "unary", unary, spatial=1)
    check_range(checks, "labels", labels, 0, unary.shape[1] - 1)


def one_hot(labels: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """[N, ...] as [N, L, ...]: 1 where the label is."""
    zeros = torch.zeros(
        (labels.shape[0], count, *labels.shape[1:]), dtype=dtype, device=labels.device
    )
    return zeros.scatter(1, labels.long().unsqueeze(1), 1.0)
