"""Sampling points over a photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deformops.figures.sheet import ACCENTS, points_per_pixel

Points = NDArray[np.float64]  # [..., 2 (y, x)]

LARGEST = 2.2  # diameter of a point of a cloud, in typographic points
UNIT_STYLE: dict[str, Any] = {"markersize": 7, "mew": 1.2}


def spacing(cloud: Points) -> float:
    """Returns the mean distance along the rows of one 3x3 window of the lowest layer, in pixels.

    Of other windows it is that of a square with as many points in the same space.
    """
    if len(cloud) % 9:
        extent = cloud.max(axis=0) - cloud.min(axis=0)
        return float(np.sqrt(max(1.0, extent.prod()) / len(cloud)))
    window = cloud[:9].reshape(3, 3, 2)
    return float(np.linalg.norm(np.diff(window, axis=1), axis=-1).mean())


def clouds(
    points: Sequence[Points], positions: Sequence[Points], *, color: str | None = None
) -> Callable[[Any], None]:
    """Draws clouds of points, each with its unit, in the accents' order.

    Args:
        points: of each unit [P, 2].
        positions: of the units.
        color: of all clouds; None: the accents.
    """

    def draw(axes: Any) -> None:
        for index, (cloud, position) in enumerate(zip(points, positions, strict=True)):
            ink = color or ACCENTS[index % len(ACCENTS)]
            size = min(LARGEST, 0.55 * spacing(cloud) * points_per_pixel(axes))
            axes.plot(cloud[:, 1], cloud[:, 0], "o", color=ink, markersize=size, mew=0)
            axes.plot(position[1], position[0], "o", color=ink, mec="white", **UNIT_STYLE)

    return draw


def tree(levels: Sequence[Points], color: str) -> Callable[[Any], None]:
    """Draws the points of one, two, three and more layers, and the lines between them.

    Args:
        levels: the unit [1, 2], then of each layer down its points [P, 2]; those of one point of
            the level above one after the other.
        color: of all.
    """

    def draw(axes: Any) -> None:
        # Sizes for points 5 typographic points apart; smaller where there is less room.
        room = min(1.0, max(0.3, spacing(levels[-1]) * points_per_pixel(axes) / 5))
        last = len(levels) - 2
        for number, (above, below) in enumerate(pairwise(levels)):
            width, size = 0.35 * 2.2 ** (last - number), 2.2 * 1.8 ** (last - number)
            parents = np.repeat(above, len(below) // len(above), axis=0)
            lines = np.stack([parents, below, np.full_like(below, np.nan)], axis=1).reshape(-1, 2)
            axes.plot(lines[:, 1], lines[:, 0], color=color, linewidth=width * room, alpha=0.8)
            style = {"color": color, "mec": "white", "mew": 0.1 * size, "ms": size * room}
            axes.plot(below[:, 1], below[:, 0], "o", **style)
        ((y, x),) = levels[0]
        axes.plot(x, y, "o", color=color, mec="white", mew=1.2, markersize=9)

    return draw


def view_around(points: Points, height: int, width: int) -> tuple[float, float, float, float]:
    """Returns a view in the shape of the map that holds the points with some room."""
    low, high = points.min(axis=0), points.max(axis=0)
    size = max(1.0, *(1.15 * (high - low)))
    scale = size / min(height, width)
    (y, x), tall, wide = (low + high) / 2, scale * height / 2, scale * width / 2
    return (y - tall, x - wide, y + tall, x + wide)
