"""Receptive fields and maps of numbers over a photo."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deformops.analysis import EffectiveField
from deformops.figures.sheet import INK, PAPER


def heat(
    backdrop: NDArray[np.float64], mass: NDArray[np.float64], color: str
) -> NDArray[np.float64]:
    """Lays a map over an image as ink, as strong as the root of what a pixel and its like have.

    Gradients differ a lot from pixel to pixel: the map is smoothed a little, and the strongest of
    a thousand pixels are drawn alike.

    Args:
        backdrop: [H, W, 3] in [0, 1].
        mass: [H, W], at least 0.
        color: of the ink, as "#rrggbb".
    """
    smooth = _smoothed(mass, max(mass.shape) / 300)
    most = max(float(np.quantile(smooth, 0.999)), np.finfo(float).tiny)
    strength = 0.92 * np.sqrt(np.minimum(smooth / most, 1))[..., None]
    ink = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    laid: NDArray[np.float64] = backdrop * (1 - strength) + ink * strength
    return laid


def _smoothed(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Convolves [H, W] with a Gaussian."""
    reach = math.ceil(3 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    for axis in (0, 1):
        values = np.apply_along_axis(np.convolve, axis, values, kernel / kernel.sum(), "full")
        values = values.take(range(reach, values.shape[axis] - reach), axis)
    return values


def frame(box: tuple[int, int, int, int], color: str, style: Any = "-") -> Callable[[Any], None]:
    """Draws the outline of a box of pixels (top, left, bottom, right), ends included."""
    top, left, bottom, right = box

    def draw(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        corner, size = (left - 0.5, top - 0.5), (right - left + 1, bottom - top + 1)
        for edge, width in ((PAPER, 3.2), (color, 1.6)):
            outline = Rectangle(
                corner, *size, fill=False, edgecolor=edge, linewidth=width, linestyle=style
            )
            outline.set_clip_on(False)
            axes.add_patch(outline)

    return draw


def ellipse(field: EffectiveField, color: str, deviations: float = 2.0) -> Callable[[Any], None]:
    """Draws the ellipse around the centre of an effective field, so many deviations wide."""
    values, vectors = np.linalg.eigh(field.covariance.numpy())
    turn = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * np.sqrt(np.maximum(values, 0))
    outline = np.array(field.center) + deviations * circle @ vectors.T

    def draw(axes: Any) -> None:
        for edge, width in ((PAPER, 3.2), (color, 1.6)):
            axes.plot(outline[:, 1], outline[:, 0], color=edge, linewidth=width)

    return draw


def unit(position: tuple[float, float], color: str) -> Callable[[Any], None]:
    """Marks the place (y, x) of a unit."""

    def draw(axes: Any) -> None:
        axes.plot(position[1], position[0], "o", color=color, mec="white", markersize=7, mew=1.2)

    return draw


def together(*drawings: Callable[[Any], None]) -> Callable[[Any], None]:
    """Draws several things, the first one first."""

    def draw(axes: Any) -> None:
        for drawing in drawings:
            drawing(axes)

    return draw


def numbers(
    values: NDArray[np.float64], extent: tuple[float, float, float, float], label: str
) -> Callable[[Any], None]:
    """Draws a map of numbers over the image, half transparent, with a scale beside it.

    Args:
        values: [h, w].
        extent: of the map in pixels of the image: top, left, bottom, right.
        label: what the numbers are.
    """
    top, left, bottom, right = extent

    def draw(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        limits = axes.get_xlim(), axes.get_ylim()
        shown = axes.imshow(
            values,
            cmap="viridis",
            alpha=0.72,
            extent=(left, right, bottom, top),
            interpolation="nearest",
            aspect="auto",
        )
        axes.set_xlim(limits[0])
        axes.set_ylim(limits[1])
        ground = Rectangle(
            (0, 0), 0.4, 0.105, transform=axes.transAxes, color=PAPER, alpha=0.85, linewidth=0
        )
        axes.add_patch(ground)
        inset = axes.inset_axes((0.03, 0.055, 0.3, 0.02))
        bar = axes.figure.colorbar(shown, cax=inset, orientation="horizontal")
        bar.outline.set_linewidth(0.5)
        bar.ax.tick_params(labelsize=7, length=2, width=0.5, pad=1.5, colors=INK)
        bar.ax.set_title(label, fontsize=7, loc="left", pad=2)

    return draw
