"""The pairwise terms of a dense CRF: which pixels are alike, and what it costs to part them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deformops.ops._checks import as_numbers

if TYPE_CHECKING:
    from deformops.ops.permutohedral_filter import PermutohedralLattice

Bandwidth = float | Sequence[float] | Tensor
"""One number for all dimensions, or one for each."""
Compatibility = float | Sequence[Any] | Tensor
"""A number, [L] or [L, L]."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Near pixels are alike: weight * exp(-|p_i - p_j|^2 / (2 sigma^2)).

    Args:
        sigma: in pixels; one number, or one for each spatial dimension in the order of the
            tensors, (y, x). Numbers, or tensors that get gradients.
        weight: of this term.
        compatibility: what a pair of labels costs, in place of that of the CRF; see `dense_crf`.
    """

    sigma: Bandwidth
    weight: float | Tensor = 1.0
    compatibility: Compatibility | None = None

    def features(self, size: Sequence[int], image: Tensor | None = None) -> Tensor:
        """Coordinates in units of sigma.

        Args:
            size: the spatial dimensions.
            image: not looked at, but for its type and device.

        Returns:
            [1, n, *size], x first.
        """
        positions = _positions(size, image)
        return _divided("sigma", positions, self.sigma, reverse=True)[None]


@dataclass(frozen=True, eq=False)
class Bilateral:
    """Near pixels of like colours are alike.

        weight * exp(-|p_i - p_j|^2 / (2 sigma_xy^2) - |c_i - c_j|^2 / (2 sigma_rgb^2))

    Args:
        sigma_xy: in pixels; one number, or one for each spatial dimension in the order of the
            tensors, (y, x). Numbers, or tensors that get gradients.
        sigma_rgb: in the units of the image (0 to 255, or 0 to 1); one number, or one for each
            channel.
        weight: of this term.
        compatibility: what a pair of labels costs, in place of that of the CRF; see `dense_crf`.
    """

    sigma_xy: Bandwidth
    sigma_rgb: Bandwidth
    weight: float | Tensor = 1.0
    compatibility: Compatibility | None = None

    def features(self, size: Sequence[int], image: Tensor | None) -> Tensor:
        """Coordinates and colours in units of their sigmas.

        Args:
            size: the spatial dimensions.
            image: [N, C, *size].

        Returns:
            [N, n + C, *size], x first, then y, then the colours.
        """
        if image is None:
            raise ValueError("Bilateral: image: expected a tensor [N, C, ...], got None")
        image = image if image.is_floating_point() else image.to(torch.get_default_dtype())
        positions = _divided("sigma_xy", _positions(size, image), self.sigma_xy, reverse=True)
        colors = _divided("sigma_rgb", image.movedim(1, 0), self.sigma_rgb).movedim(0, 1)
        positions = positions.expand(image.shape[0], *positions.shape).to(colors.dtype)
        return torch.cat([positions, colors], 1)


@dataclass(frozen=True, eq=False)
class FeatureKernel:
    """Pixels with near features are alike: weight * exp(-|f_i - f_j|^2 / 2).

    Args:
        features: [N, d, ...], any that you like, in units of their bandwidths; or the
            `PermutohedralLattice` of such features, which is then not built again.
        weight: of this term.
        compatibility: what a pair of labels costs, in place of that of the CRF; see `dense_crf`.
    """

    features: Tensor | PermutohedralLattice
    weight: float | Tensor = 1.0
    compatibility: Compatibility | None = None


Pairwise = Gaussian | Bilateral | FeatureKernel

DEEPLAB: tuple[Pairwise, ...] = (
    Gaussian(sigma=1.0, weight=3.0),
    Bilateral(sigma_xy=67.0, sigma_rgb=3.0, weight=4.0),
)
"""DeepLab's terms for PASCAL VOC (ResNet-101), with colours from 0 to 255."""


def _positions(size: Sequence[int], like: Tensor | None) -> Tensor:
    """The coordinates of the pixels, [n, *size], the last dimension's first."""
    options: dict[str, Any] = {"dtype": torch.get_default_dtype()}
    if like is not None:
        options["device"] = like.device
        if like.is_floating_point():
            options["dtype"] = like.dtype
    axes = [torch.arange(length, **options) for length in size]
    grids = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(grids[::-1])


def _divided(name: str, values: Tensor, sigma: Bandwidth, reverse: bool = False) -> Tensor:
    """[n, ...] in units of sigma; those of a sequence are in reverse order of the values."""
    dtype = sigma.dtype if isinstance(sigma, Tensor) else values.dtype
    numbers = as_numbers(name, sigma, dtype=dtype, device=values.device)
    if numbers.dim() > 1 or (numbers.dim() == 1 and len(numbers) != len(values)):
        expected = f"a number or {len(values)} of them"
        raise ValueError(f"{name}: expected {expected}, got shape {list(numbers.shape)}")
    if not isinstance(sigma, Tensor) and not bool((numbers > 0).all()):
        raise ValueError(f"{name}: expected numbers above 0, got {sigma}")
    if numbers.dim() == 1:
        numbers = numbers.flip(0) if reverse else numbers
        numbers = numbers.reshape(-1, *[1] * (values.dim() - 1))
    return values / numbers
