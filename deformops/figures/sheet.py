"""Composed figures: panels of one size, headed and captioned alike, on paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAPER, INK, QUIET, HAIRLINE = "#fbfaf7", "#1f2328", "#69707a", "#d9d6cf"
ACCENTS = ("#ff5d3b", "#19b5c9", "#ffc233", "#b07bf0")

# inches
MARGIN, GAP = 0.5, 0.4
TITLE_BAND, HEADING_BAND = 0.95, 0.32
LINE, CAPTION_PAD, FOOT = 0.165, 0.1, 0.35
NARROWEST, PIXELS_PER_INCH = 7.5, 200
CHARACTER = 0.0715  # mean width at the caption's size

SETTINGS: Any = {
    # The font that comes with matplotlib: the same picture on every machine.
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": HAIRLINE,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Panel:
    """An image with a heading, a caption, and what is drawn over it in pixel coordinates."""

    image: NDArray[np.float64]  # [H, W, 3] or [H, W, 4], in [0, 1]
    heading: str
    caption: str
    draw: Callable[[Any], None] = lambda axes: None
    # What is shown of it: top, left, bottom, right in pixels, of the image's shape.
    view: tuple[float, float, float, float] | None = None


def compose(title: str, subtitle: str, panels: Sequence[Panel], file: Path) -> None:
    """Arranges panels of equal shape in rows and writes the sheet as an image.

    The number of columns follows the shape of the panels, so that photos of any shape, from a strip
    to a column, get a sheet that can be printed.

    Args:
        title: of the sheet.
        subtitle: one line below it.
        panels: all of one height and width in pixels.
        file: to write.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows, columns, width, height = _grid(panels)
    sheet_width = max(NARROWEST, 2 * MARGIN + columns * width + (columns - 1) * GAP)
    characters = max(12, int(width / CHARACTER))
    captions = [textwrap.wrap(panel.caption, characters) for panel in panels]
    deepest = max(len(caption) for caption in captions)
    cell = HEADING_BAND + height + CAPTION_PAD + deepest * LINE
    subtitles = textwrap.wrap(subtitle, int((sheet_width - 2 * MARGIN) / CHARACTER / 1.12))
    head = TITLE_BAND + LINE * len(subtitles)
    sheet_height = head + rows * cell + (rows - 1) * GAP + FOOT

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(sheet_width, sheet_height))

        def text(x: float, y: float, content: str, **style: Any) -> None:
            figure.text(x / sheet_width, 1 - y / sheet_height, content, va="top", **style)

        text(MARGIN, 0.38, title, fontsize=17, weight="bold")
        text(MARGIN, 0.76, "\n".join(subtitles), fontsize=9.5, color=QUIET, linespacing=1.25)
        for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
            row, column = divmod(index, columns)
            left = MARGIN + column * (width + GAP)
            top = head + row * (cell + GAP)
            text(left, top + 0.04, panel.heading, fontsize=10.5, weight="bold")
            top += HEADING_BAND
            axes = figure.add_axes(
                (
                    left / sheet_width,
                    1 - (top + height) / sheet_height,
                    width / sheet_width,
                    height / sheet_height,
                )
            )
            _show(axes, panel)
            below = top + height + CAPTION_PAD
            text(left, below, "\n".join(caption), fontsize=8.5, color=QUIET, linespacing=1.3)
        figure.savefig(file, dpi=PIXELS_PER_INCH)


def _grid(panels: Sequence[Panel]) -> tuple[int, int, float, float]:
    """Returns rows and columns, and the width and height of a panel in inches."""
    pixels_high, pixels_wide = panels[0].image.shape[:2]
    aspect = pixels_wide / pixels_high
    columns = 1 if aspect > 2.2 else 2 if aspect > 0.8 else 4
    columns = min(columns, len(panels))
    width = {1: 10.0, 2: 5.8, 4: 3.2}.get(columns, 4.0)
    height = min(8.0, width / aspect)
    return math.ceil(len(panels) / columns), columns, height * aspect, height


def _show(axes: Any, panel: Panel) -> None:
    height, width = panel.image.shape[:2]
    axes.imshow(np.clip(panel.image, 0, 1), interpolation="lanczos", aspect="auto")
    axes.set_facecolor(PAPER)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    axes.autoscale(False)
    top, left, bottom, right = panel.view or (-0.5, -0.5, height - 0.5, width - 0.5)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    panel.draw(axes)


def points_per_pixel(axes: Any) -> float:
    """Returns how many typographic points a pixel of a panel's image takes; for marker sizes."""
    left, right = axes.get_xlim()
    points: float = axes.bbox.width / axes.figure.dpi * 72
    return points / (right - left)


def as_backdrop(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Takes most of the colour and some of the contrast from [H, W, 3]: a ground to draw on."""
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    pale: NDArray[np.float64] = 0.25 + 0.65 * (0.7 * grey + 0.3 * image)
    return pale


def as_image(pixels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Turns [3, H, W] into [H, W, 3]."""
    return np.moveaxis(np.asarray(pixels, dtype=np.float64), 0, -1)


def on_paper(image: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replaces pixels of [H, W, 3] by paper where ``visible``, [H, W], is false."""
    paper = np.array([int(PAPER[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(visible[..., None], image, paper)
