"""What weighs something within a receptive field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class EffectiveField:
    """How much each pixel of the input weighs for one unit of a network.

    Attributes:
        mass: [H, W] float64, at least 0, of sum 1: the size of the unit's gradient at each pixel.
        center: (y, x), its centre of mass.
        covariance: [2, 2], of (y, x), in square pixels: that of the Gaussian that fits it best (of
            most likelihood).
    """

    mass: Tensor
    center: tuple[float, float]
    covariance: Tensor

    @property
    def std(self) -> tuple[float, float]:
        """The standard deviations on y and on x, in pixels."""
        y, x = self.covariance.diagonal().clamp(min=0).sqrt().tolist()
        return y, x

    def share(self, box: tuple[int, int, int, int]) -> float:
        """The part of the mass in a box of pixels (top, left, bottom, right), ends included."""
        top, left, bottom, right = box
        inside = self.mass[max(0, top) : bottom + 1, max(0, left) : right + 1]
        return float(inside.sum())

    def radius(self, share: float) -> float:
        """The radius of the circle around the centre that holds a share of the mass, in pixels.

        Raises:
            ValueError: the share is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a number above 0, at most 1, got {share}")
        rows, columns = (torch.arange(count).double() for count in self.mass.shape)
        y, x = self.center
        distance = torch.hypot(rows[:, None] - y, columns[None] - x).flatten()
        order = distance.argsort()
        reached = self.mass.flatten()[order].cumsum(0)
        # Rounding may leave the whole sum a little below 1.
        number = int((reached < share * (1 - 1e-12)).sum())
        return float(distance[order[min(number, len(order) - 1)]])


def effective_field(gradient: Tensor) -> EffectiveField:
    """Describes the gradient of a unit with respect to an image.

    Args:
        gradient: [H, W] or [C, H, W], whose channels' sizes are added.

    Raises:
        ValueError: it is zero everywhere, or not finite: the unit depends on nothing.
    """
    mass = gradient.detach().double().cpu().abs()
    mass = mass.sum(0) if mass.ndim == 3 else mass
    total = float(mass.sum())
    if not 0 < total < math.inf:
        raise ValueError(f"gradient: expected numbers that are not all 0, got a sum of {total}")
    mass = mass / total
    rows, columns = (torch.arange(count).double() for count in mass.shape)
    y, x = float((mass.sum(1) * rows).sum()), float((mass.sum(0) * columns).sum())
    dy, dx = rows[:, None] - y, columns[None] - x
    yy, xx, xy = ((mass * product).sum() for product in (dy * dy, dx * dx, dy * dx))
    return EffectiveField(mass, (y, x), torch.stack([yy, xy, xy, xx]).reshape(2, 2))


def effective_receptive_field(
    model: nn.Module,
    images: Tensor,
    position: tuple[int, int],
    *,
    layer: str = "",
    run: int = 1,
    channel: int | None = None,
) -> EffectiveField:
    """Measures how much each pixel weighs for one unit of a network.

        mass[y, x] ~ sum over c of |d unit / d image[c, y, x]|

    In networks of convolutions it is about a Gaussian, which covers a small part of the theoretical
    `receptive_field`: its width grows as the square root of the depth (see `uniform_std`), that of
    the theoretical field as the depth itself. Holes, strides and offsets that spread widen it.
    Unlike the theoretical field it depends on the weights and on the image; offsets count with
    where they move taps, and with what moves them.

    Args:
        model: any network; it runs in eval mode.
        images: [1, C, H, W], what it is called with; it may be another type than the network's
            parameters only if the network can deal with that.
        position: row and column of the unit on its map.
        layer: name of the module whose output [1, C', h, w] the unit belongs to; the network's own
            by default. The network is run only so far.
        run: the how many-th of that module, from 1 on, if the network runs it several times.
        channel: of the unit; None: the sum of all.

    Returns:
        The mass and its moments.

    Raises:
        ValueError: there is no such layer or place, or the unit does not depend on the image.

    Source: Luo, Li, Urtasun and Zemel, Understanding the Effective Receptive Field in Deep
    Convolutional Neural Networks, 2016.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"layer: expected the name of a module, got {layer!r}")
    training = [module for module in modules.values() if module.training]
    image = images.detach().clone().requires_grad_()
    handle = modules[layer].register_forward_hook(_Until(run))
    model.eval()
    try:
        with torch.enable_grad():
            model(image)
        raise ValueError(f"layer: expected one that the network runs {run} times, got {layer!r}")
    except _Reached as reached:
        values = reached.values
    finally:
        handle.remove()
        for module in training:
            module.training = True
    if not isinstance(values, Tensor) or values.ndim != 4:
        kind = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"layer: expected one that returns a map [N, C, h, w], got {kind}")
    height, width = values.shape[-2:]
    row, column = position
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"position: expected a row and a column of {height, width}, got {position}"
        )
    unit = values[0, :, row, column]
    (gradient,) = torch.autograd.grad(
        unit.sum() if channel is None else unit[channel], image, allow_unused=True
    )
    if gradient is None:
        raise ValueError("images: the unit does not depend on them")
    return effective_field(gradient[0])


class _Reached(Exception):  # noqa: N818 - no error: the end of what is needed
    """Brings what a layer returned."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = values


class _Until:
    """A hook that ends the run of a network at a run of a layer."""

    def __init__(self, run: int) -> None:
        self.left = run

    def __call__(self, module: nn.Module, args: Any, values: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise _Reached(values)
