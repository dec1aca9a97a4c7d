"""The sampling points of a stack of layers, drawn over the photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deformops.analysis import Window, effective_dilation, sampling_points
from deformops.demo.warp import Points, Warp, inside, pixel_grid, warped_photo
from deformops.figures.points import clouds, tree, view_around
from deformops.figures.sheet import (
    ACCENTS,
    Panel,
    as_backdrop,
    as_image,
    compose,
    on_paper,
)
from deformops.ops import deform_conv2d

FILE = "sampling-points.png"
# Positions as fractions (y, x) of the photo; the last one is enlarged.
SHOWN = ((0.43, 0.72), (0.79, 0.59), (0.36, 0.38))
# Dilations in the ratio 1 : 3 : 9 tile a square: no point of 729 is read twice.
GROWTH = (1, 3, 9)
SIDE = sum(GROWTH) * 2  # of the square, in units of the smallest dilation
SHARE = 0.3  # of the photo's shorter side that the square takes


def windows_for(height: int, width: int) -> list[Window]:
    """Returns three 3x3 windows, from the input upwards, whose points are a regular square."""
    unit = max(1, round(SHARE * min(height, width) / SIDE))
    return [Window(3, padding=unit * ratio, dilation=unit * ratio) for ratio in GROWTH]


def dilation_of(window: Window) -> int:
    """Returns the dilation of a window that has the same on both axes."""
    return window.axis(0)[3]


def following_offsets(warp: Warp, dilation: int) -> Tensor:
    """Returns offsets, [18, H, W], that make the windows on a warped map follow the warp.

    A tap t of the window at place p of the warped map then reads W(W^-1(p) + t): the place to which
    the warp has moved the tap of a regular window.
    """
    grid = pixel_grid(warp.height, warp.width)
    straight = warp.inverse(grid)
    taps = [(i * dilation, j * dilation) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    moved = [warp(straight + tap) - (grid + tap) for tap in np.array(taps, dtype=np.float64)]
    return torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).flatten(0, 1)


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Follows three regular and three deformable layers down to the photo, and draws the points.

    Args:
        photo: [3, H, W] in [0, 1], float32.
        output: folder for the picture.
        say: prints a line.
    """
    warp, warped, there = warped_photo(photo.numpy())
    height, width = there.shape
    windows = windows_for(height, width)
    offsets = [following_offsets(warp, dilation_of(window)) for window in windows]

    # Units sit on pixels of the warped map; on the photo, at the places these pixels show.
    last = np.array([height - 1, width - 1])
    units = np.clip(np.round(warp(np.array(SHOWN) * last)), 0, last)
    places = warp.inverse(units)
    regular = _points(windows, [None] * 3, places)
    unmoved = _points(windows, [None] * 3, units)
    moved = _points(windows, offsets, units)

    unit = dilation_of(windows[0])
    side = SIDE * unit + 1
    off = float(np.linalg.norm(moved - warp(regular), axis=-1).max())
    say(f"follow: {moved.shape[1]} sampling points of three 3x3 layers, at {len(units)} positions")
    say(f"  regular   a square of {side} x {side} pixels, whatever the photo shows")
    say(
        f"  moved     by offsets that follow the warp: at most {off:.0e} pixels from where the "
        "warp takes the regular points"
    )
    if inside(moved[-1], height, width).all():  # what lies outside has no gradient
        centre = _gradient_centre(windows, offsets, units[-1], (height, width))
        apart = float(np.linalg.norm(centre - moved[-1].mean(axis=0)))
        say(
            f"  gradient  of one unit, through the layers: its centre of mass is {apart:.0e} "
            "pixels from that of the points"
        )
    say(f"  dilation  effective, mean: {_dilations(windows, offsets)} (scale {warp.scale:.2f})")

    straight = as_backdrop(as_image(photo.numpy()))
    backdrop = on_paper(as_backdrop(as_image(warped)), there)
    panels = [
        Panel(
            straight,
            "Regular layers, photo",
            f"Dilations {', '.join(str(dilation_of(w)) for w in windows)}: every unit reads a "
            f"square of {side} x {side} pixels.",
            clouds(list(regular), list(places)),
        ),
        Panel(
            backdrop,
            "Regular layers, warped photo",
            "The same squares, but no longer on the same things.",
            clouds(list(unmoved), list(units)),
        ),
        Panel(
            backdrop,
            "Deformable layers, warped photo",
            "Offsets that follow the warp put every point back on what it read in the photo "
            f"(at most {off:.0e} pixels off).",
            clouds(list(moved), list(units)),
        ),
        Panel(
            backdrop,
            "One of them, layer by layer",
            "From one unit to 9 places in the layer below, 81 in the next, 729 in the photo.",
            tree(_levels(windows, offsets, units[-1]), ACCENTS[len(SHOWN) - 1]),
            view_around(moved[-1], height, width),
        ),
    ]
    compose(
        f"Where three layers look: {moved.shape[1]} sampling points each",
        "Each layer of 3x3 taps turns one place into nine. Regular layers always read the same "
        "pattern; deformable layers read where their offsets lead.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")


def _points(
    windows: Sequence[Window], offsets: Sequence[Tensor | None], positions: Points
) -> Points:
    points: Points = sampling_points(windows, offsets, torch.from_numpy(positions)).numpy()
    return points


def _gradient_centre(
    windows: Sequence[Window], offsets: Sequence[Tensor], unit: Points, size: tuple[int, int]
) -> Points:
    """Returns the centre of mass of what one output of averaging layers depends on, (y, x)."""
    image = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
    average = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    features = image
    for window, offset in zip(windows, offsets, strict=True):
        dilation = dilation_of(window)
        features = deform_conv2d(
            features, offset.unsqueeze(0), average, padding=dilation, dilation=dilation
        )
    row, column = (int(place) for place in unit)
    (gradient,) = torch.autograd.grad(features[0, 0, row, column], image)
    mass = gradient[0, 0].numpy()
    centre: Points = (mass[..., None] * pixel_grid(*size)).sum(axis=(0, 1)) / mass.sum()
    return centre


def _dilations(windows: Sequence[Window], offsets: Sequence[Tensor]) -> str:
    pairs = []
    for window, offset in zip(windows, offsets, strict=True):
        regular = dilation_of(window)
        pairs.append(f"{regular} -> {effective_dilation(offset[None], 3, regular).mean():.2f}")
    return ", ".join(pairs)


def _levels(windows: Sequence[Window], offsets: Sequence[Tensor], unit: Points) -> list[Points]:
    """The points of no, one, two and three layers."""
    levels = [unit[None]]
    for first in reversed(range(len(windows))):
        levels.append(_points(windows[first:], offsets[first:], unit))
    return levels
