"""Filters of points as linear operators that can be normalised: exact, and on the lattice."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

NORMALIZATIONS = ("symmetric", "before", "after", "none")

F = TypeVar("F", bound="PairFilter")


class PairFilter(Protocol):
    """A matrix K over all pairs of points of an image."""

    def __call__(self, values: Tensor) -> Tensor:
        """K values, [N, M, C] to [N, M, C]."""

    def scaled(self: F, before: Tensor | None, after: Tensor | None) -> F:
        """The matrix between two diagonal ones, each [N, M, 1] or absent."""

    def diagonal(self) -> Tensor:
        """The diagonal of K, [P] with P = N * M."""

    def ones(self) -> Tensor:
        """Ones at all points, [N, M, 1]."""


def normalized(filter: F, normalization: str) -> F:  # noqa: A002  (what it is)
    """A filter divided by the sums of its rows, once or by their root on both sides."""
    if normalization == "none":
        return filter
    total = filter(filter.ones()) + 1e-20
    if normalization == "symmetric":
        factor = total.rsqrt()
        return filter.scaled(factor, factor)
    factor = total.reciprocal()
    return filter.scaled(factor, None) if normalization == "before" else filter.scaled(None, factor)


class ExactFilter:
    """The Gaussian kernel of points [N, M, d], in time of the square of M."""

    def __init__(
        self, features: Tensor, before: Tensor | None = None, after: Tensor | None = None
    ) -> None:
        self.features = features
        self.before = before
        self.after = after

    def __call__(self, values: Tensor) -> Tensor:
        """K values, [N, M, C] to [N, M, C]."""
        if self.before is not None:
            values = values * self.before
        filtered: Tensor = torch.ops.deformops.gaussian_filter(values, self.features)
        return filtered if self.after is None else filtered * self.after

    def scaled(self, before: Tensor | None, after: Tensor | None) -> ExactFilter:
        """The matrix between two diagonal ones."""
        return ExactFilter(
            self.features, _product(self.before, before), _product(self.after, after)
        )

    def diagonal(self) -> Tensor:
        """The diagonal of K, [P]."""
        factor = _product(self.before, self.after)
        return (self.ones() if factor is None else factor).flatten()

    def ones(self) -> Tensor:
        """Ones at all points, [N, M, 1]."""
        return torch.ones_like(self.features[..., :1])


def _product(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one * other
