"""Boxes, their bins, and bins that follow a warp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deformops.analysis import displaced_parts
from deformops.demo.straighten import psnr
from deformops.demo.warp import Points, Warp, inside, pixel_grid, sample_exactly, warped_photo
from deformops.figures.sheet import (
    ACCENTS,
    QUIET,
    Panel,
    as_backdrop,
    as_image,
    compose,
    on_paper,
)
from deformops.ops import deform_roi_pool

FILE = "roi-pooling.png"
# Boxes as fractions (top, left, bottom, right) of the photo, of different sizes.
SHOWN = ((0.1, 0.21, 0.62, 0.55), (0.31, 0.61, 0.6, 0.82), (0.66, 0.46, 0.94, 0.72))
DRAWN, FINE = 7, 32  # bins of a box on each axis: those that are drawn, those of the thumbnails
SAMPLES, OFFSET_SCALE = 4, 0.1


@dataclass(frozen=True)
class Box:
    """Whole pixels, both ends included; an array is (y, x)."""

    low: Points
    high: Points

    @property
    def start(self) -> Points:
        """Its upper left corner: half a pixel before the middle of the first pixel."""
        return self.low - 0.5

    @property
    def extent(self) -> Points:
        """Its height and width."""
        return self.high - self.low + 1

    def row(self) -> Tensor:
        """(image, x1, y1, x2, y2), as the ops take it."""
        return torch.tensor([[0, self.low[1], self.low[0], self.high[1], self.high[0]]])

    def centres(self, bins: int) -> Points:
        """The middle of each bin, [bins, bins, 2]."""
        return self.start + (pixel_grid(bins, bins) + 0.5) * self.extent / bins

    def samples(self, bins: int) -> Points:
        """Where bins in place are read, [bins, bins, samples, 2]."""
        within = pixel_grid(SAMPLES, SAMPLES).reshape(-1, 2) / SAMPLES
        number = pixel_grid(bins, bins)[:, :, None] + within
        return self.start + number * self.extent / bins


def boxes_of(height: int, width: int) -> list[Box]:
    """Returns the boxes on a photo of this size."""
    last = np.array([height - 1, width - 1])
    corners = np.round(np.array(SHOWN).reshape(-1, 2, 2) * last)
    return [Box(low, high) for low, high in corners]


def warped_box(warp: Warp, box: Box) -> Box:
    """Returns the smallest box of whole pixels around what has become of a box."""
    edges = np.linspace(0, 1, 33)
    frame = [(t, s) for t in edges for s in (0, 1)] + [(s, t) for t in edges for s in (0, 1)]
    places = warp(box.low + np.array(frame) * (box.high - box.low))
    return Box(np.floor(places.min(axis=0)), np.ceil(places.max(axis=0)))


def following_offsets(warp: Warp, box: Box, around: Box, bins: int) -> Tensor:
    """Returns offsets, [1, 2, bins, bins], that put bins on what those of another box show.

    Args:
        warp: takes what `box` shows to where `around` is.
        box: on the straight photo.
        around: on the warped one; its bins get the offsets.
        bins: on each axis.
    """
    moves = (warp(box.centres(bins)) - around.centres(bins)) / (OFFSET_SCALE * around.extent)
    return torch.from_numpy(moves[..., ::-1].copy()).permute(2, 0, 1)[None]


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Pools boxes of the photo and of a warped one, in place and moved, and draws the bins.

    Args:
        photo: [3, H, W] in [0, 1], float32.
        output: folder for the picture.
        say: prints a line.
    """
    height, width = photo.shape[1:]
    original = photo.numpy()
    warp, warped, there = warped_photo(original)
    boxes = boxes_of(height, width)
    around = [warped_box(warp, box) for box in boxes]

    pooled = []
    for box, other in zip(boxes, around, strict=True):
        offset = following_offsets(warp, box, other, FINE)
        pooled.append((_pool(original, box), _pool(warped, other), _pool(warped, other, offset)))
    likeness = [[psnr(image, straight) for image in rest] for straight, *rest in pooled]
    off, off64 = (
        _error(warped, warp, boxes, around, dtype) for dtype in (torch.float32, torch.float64)
    )

    say(f"boxes: deformable RoI pooling of {len(boxes)} boxes, {FINE} x {FINE} bins each")
    say(
        f"  error     {off:.0e} in float32, {off64:.0e} in float64: the largest, against exact "
        "bilinear sampling in numpy"
    )
    say(
        "  PSNR      of what is pooled on a warped photo, against the photo: "
        + "; ".join(f"{place:.1f} dB in place, {moved:.1f} dB moved" for place, moved in likeness)
    )

    straight = as_backdrop(as_image(original))
    bent = on_paper(as_backdrop(as_image(warped)), there)
    moved = [
        parts(other, following_offsets(warp, box, other, DRAWN))
        for box, other in zip(boxes, around, strict=True)
    ]
    panels = [
        Panel(
            straight,
            "Boxes and their bins",
            f"Each box is divided into {DRAWN} x {DRAWN} bins, large or small; pooling takes one "
            "value from each, so that boxes of all sizes become maps of one size.",
            _bins(boxes, list(map(parts, boxes))),
        ),
        Panel(
            bent,
            "The warped photo: bins in place",
            "Boxes around the same things. Their bins are no longer on the same parts of them.",
            _bins(around, list(map(parts, around))),
        ),
        Panel(
            bent,
            "Bins moved by offsets",
            "Every bin keeps its size and goes where the warp has taken the part that it saw. "
            "Offsets are in parts of the box, hence alike for large and small ones.",
            _bins(around, moved, style=(0, (2, 2))),
        ),
        Panel(
            on_paper(np.zeros_like(straight), np.zeros((height, width), dtype=bool)),
            "What is pooled",
            f"With {FINE} x {FINE} bins: from the photo, and from the warped photo with bins in "
            "place and moved. Numbers: PSNR against the first.",
            _thumbnails(pooled, likeness),
        ),
    ]
    compose(
        "What a box becomes: RoI pooling with bins that move",
        "Pooling makes maps of one size from boxes of any size. Deformable RoI pooling moves the "
        "bins: here as a known warp does.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")


def _pool(
    image: NDArray[Any], box: Box, offset: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> NDArray[Any]:
    """Returns what is pooled of one box, [3, FINE, FINE]."""
    pooled = deform_roi_pool(
        torch.from_numpy(image)[None].to(dtype),
        box.row(),
        None if offset is None else offset.to(dtype),
        FINE,
        samples_per_bin=SAMPLES,
        offset_scale=OFFSET_SCALE,
    )
    result: NDArray[Any] = pooled[0].numpy()
    return result


def _error(
    warped: NDArray[Any],
    warp: Warp,
    boxes: Sequence[Box],
    around: Sequence[Box],
    dtype: torch.dtype,
) -> float:
    """Returns the largest difference to means of exactly sampled points, where all are inside."""
    largest = 0.0
    for box, other in zip(boxes, around, strict=True):
        moves = warp(box.centres(FINE)) - other.centres(FINE)
        places = other.samples(FINE) + moves[:, :, None]
        exact = sample_exactly(warped, places).mean(axis=-1)
        known = inside(places, *warped.shape[1:]).all(axis=-1)
        offset = following_offsets(warp, box, other, FINE)
        differences = np.abs(_pool(warped, other, offset, dtype) - exact)[:, known]
        largest = max(largest, float(differences.max(initial=0.0)))
    return largest


def parts(box: Box, offset: Tensor | None = None) -> Points:
    """Returns the bins of a box, [bins, 4 (left, top, right, bottom)]."""
    found: Points = displaced_parts(box.row(), offset, DRAWN, offset_scale=OFFSET_SCALE).numpy()
    return found.reshape(-1, 4)


def _bins(boxes: Sequence[Box], bins: Sequence[Points], style: Any = "-") -> Callable[[Any], None]:
    """Draws boxes and their bins."""

    def draw(axes: Any) -> None:
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Rectangle

        for box, corners, color in zip(boxes, bins, ACCENTS, strict=False):
            drawn = [
                Rectangle((left, top), right - left, bottom - top)
                for left, top, right, bottom in corners
            ]
            axes.add_collection(
                PatchCollection(drawn, facecolor=color, alpha=0.16, edgecolor="none")
            )
            axes.add_collection(
                PatchCollection(drawn, facecolor="none", edgecolor=color, linewidth=0.9)
            )
            y, x = box.start
            height, width = box.extent
            frame = Rectangle(
                (x, y), width, height, fill=False, edgecolor=color, linewidth=1.8, linestyle=style
            )
            axes.add_patch(frame)

    return draw


def _thumbnails(
    pooled: Sequence[Sequence[NDArray[Any]]], likeness: Sequence[Sequence[float]]
) -> Callable[[Any], None]:
    """Draws a row for each box: what is pooled of it in three ways."""
    headings = ("photo", "in place", "moved")

    def draw(axes: Any) -> None:
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        width, height = right - left, bottom - top
        side = min(width / 3.4, height / 3.55)
        across, down = side * 1.1, side * 1.06
        first_x = (left + right - 2 * across - side) / 2
        first_y = top + (height - 2 * down - side) / 2 + 0.03 * height
        for row, (images, numbers) in enumerate(zip(pooled, likeness, strict=True)):
            for column, image in enumerate(images):
                x, y = first_x + column * across, first_y + row * down
                axes.imshow(
                    np.clip(as_image(image), 0, 1),
                    extent=(x, x + side, y + side, y),
                    interpolation="nearest",
                    aspect="auto",
                )
                edge = {"color": ACCENTS[row], "linewidth": 1.4, "solid_joinstyle": "miter"}
                axes.plot([x, x + side, x + side, x, x], [y, y, y + side, y + side, y], **edge)
                if row == 0:
                    middle = x + side / 2
                    axes.text(
                        middle,
                        y - 0.03 * side,
                        headings[column],
                        ha="center",
                        va="bottom",
                        fontsize=8,
                        color=QUIET,
                    )
                if column > 0:
                    axes.text(
                        x + 0.97 * side,
                        y + 0.97 * side,
                        f"{numbers[column - 1]:.1f} dB",
                        ha="right",
                        va="bottom",
                        fontsize=6.5,
                        color="white",
                        bbox={"facecolor": "black", "alpha": 0.45, "pad": 1.5, "linewidth": 0},
                    )
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)

    return draw
