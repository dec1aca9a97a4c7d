"""Maps [N, C, ...] as points [N, M, C] and back, whatever their spatial dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._layout import is_channels_last


def check_map(checks: Checks, name: str, value: Any, channels: str) -> None:
    """A tensor [N, C, ...] of floating-point numbers with at least one spatial dimension."""
    layout = f"[N, {channels}, ...]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{checks.op}: {name}: expected a tensor {layout}, got {_type(value)}")
    if not value.is_floating_point():
        raise TypeError(
            f"{checks.op}: {name}: expected floating-point numbers {layout}, got {value.dtype}"
        )
    expected = f"at least 3 dimensions {layout}"
    checks.require(value.dim() >= 3, name, expected, f"shape {list(value.shape)}")


def check_alike(
    checks: Checks, name: str, value: Tensor, reference: str, other: Tensor, spatial: int = 2
) -> None:
    """The images, the spatial dimensions and the device of another map.

    Args:
        checks: of the op.
        name: the argument,
        value: and its tensor.
        reference: the other argument,
        other: and its tensor [N, C, ...].
        spatial: where the spatial dimensions of value begin.
    """
    checks.device(name, value, reference, other)
    sizes = [other.shape[0], *other.shape[2:]]
    actual = [*value.shape[:1], *value.shape[spatial:]]
    expected = f"the images and spatial dimensions of {reference}, {sizes}"
    checks.require(len(actual) == len(sizes), name, expected, list(value.shape))
    for one, another in zip(actual, sizes, strict=True):
        checks.require(one == another, name, expected, list(value.shape))


def check_maps(op: str, values: Any, features: Any) -> None:
    """Values and features of the same pixels."""
    checks = Checks(op)
    check_map(checks, "values", values, "C")
    check_map(checks, "features", features, "d")
    check_alike(checks, "features", features, "values", values)


def as_points(tensor: Tensor) -> Tensor:
    """[N, C, ...] as [N, M, C]."""
    return tensor.flatten(2).transpose(1, 2)


def like_map(points: Tensor, other: Tensor) -> Tensor:
    """[N, M, C] as a map with the spatial dimensions, the type and the layout of another."""
    output = points.transpose(1, 2).unflatten(2, other.shape[2:]).to(other.dtype)
    if other.dim() == 4 and is_channels_last(other):
        return output.contiguous(memory_format=torch.channels_last)
    return output.contiguous()


def _type(value: Any) -> str:
    return type(value).__name__
