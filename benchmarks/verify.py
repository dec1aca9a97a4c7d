"""Are two competitors computing the same thing? Asked before either is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .case import SAMENESS


@dataclass(frozen=True)
class Difference:
    """How much of a result is another one."""

    share: float  # NaN: of what is not a number
    text: str
    noise: float = 0.0  # the share that rounding explains

    def __str__(self) -> str:
        return self.text

    @property
    def notable(self) -> bool:
        """Whether it is more than noise."""
        return not self.share <= self.noise


def difference(value: Any, reference: Any) -> Difference:
    """Compares numbers, or choices: lists of integers, in any order.

    The share of numbers is ``||value - reference|| / ||reference||`` in float64, inf where the
    shapes differ. That of choices is how many are on one list only, of the length of the reference.
    """
    a, b = (torch.as_tensor(each).detach().cpu() for each in (value, reference))
    if b.dtype == torch.int64 and b.ndim == 1 and a.dtype == b.dtype:
        return _difference_of_choices(a, b)
    if a.shape != b.shape:
        return Difference(float("inf"), "its shape")
    a, b = a.to(torch.float64), b.to(torch.float64)
    scale = float(b.norm())
    share = float((a - b).norm()) / (scale or 1)
    return Difference(share, f"{share:.1e} (relative)", SAMENESS)


def _difference_of_choices(a: Tensor, b: Tensor) -> Difference:
    _, counts = torch.cat([a.unique(), b.unique()]).unique(return_counts=True)
    # One that is listed twice is one too many.
    others = int((counts == 1).sum()) + len(a) - len(a.unique())
    return Difference(others / max(1, len(b)), f"{others} of {len(b)}")


def largest_difference(
    results: Mapping[str, Any], reference: Mapping[str, Any]
) -> tuple[str, Difference]:
    """Returns the name and size of the largest difference among the results both have."""
    differences = {
        name: difference(results[name], reference[name]) for name in reference if name in results
    }
    if not differences:
        return "nothing in common", Difference(float("inf"), "all")
    worst = max(differences, key=lambda name: _nan_is_worst(differences[name].share))
    return worst, differences[worst]


def _nan_is_worst(value: float) -> float:
    return float("inf") if value != value else value
