"""Are two competitors computing the same thing? Asked before either is timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def relative_difference(value: Any, reference: Any) -> float:
    """Returns ``||value - reference|| / ||reference||`` in float64; inf where the shapes differ."""
    a, b = torch.as_tensor(value).detach(), torch.as_tensor(reference).detach()
    if a.shape != b.shape:
        return float("inf")
    a, b = a.to(torch.float64), b.to(torch.float64)
    scale = float(b.norm())
    return float((a - b).norm()) / scale if scale else float((a - b).norm())


def largest_difference(
    results: Mapping[str, Any], reference: Mapping[str, Any]
) -> tuple[str, float]:
    """Returns the name and size of the largest difference among the results both have."""
    shared = [name for name in reference if name in results]
    if not shared:
        return "nothing in common", float("inf")
    differences = {name: relative_difference(results[name], reference[name]) for name in shared}
    worst = max(differences, key=lambda name: _nan_is_worst(differences[name]))
    return worst, differences[worst]


def _nan_is_worst(value: float) -> float:
    return float("inf") if value != value else value
