"""The drawings of the manual, as SVG made from the relations that they show.

Colours of text and lines are those of the page (`currentColor`), so that they show on a dark one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch

from deformops import deform_roi_pool, gather_columns, roi_align

BLUE, ORANGE, GREEN, RED = "#4477aa", "#dd8844", "#449966", "#bb5566"
CELL = 34
PALE = 0.28


class TapChannel(NamedTuple):
    """What a channel of the `offset` of a deformable convolution moves."""

    channel: int
    group: int
    row: int
    column: int
    axis: str


class BinChannel(NamedTuple):
    """Which channel of the input a bin of a position-sensitive pooling reads."""

    channel: int
    output: int
    row: int
    column: int


def tap_channels(rows: int, columns: int, groups: int) -> Iterator[TapChannel]:
    """The channels of the `offset` of a kernel in their order: y before x at each tap."""
    taps = ((g, i, j) for g in range(groups) for i in range(rows) for j in range(columns))
    for number, (group, row, column) in enumerate(taps):
        yield TapChannel(2 * number, group, row, column, "y")
        yield TapChannel(2 * number + 1, group, row, column, "x")


def bin_channels(rows: int, columns: int, outputs: int) -> Iterator[BinChannel]:
    """The channels of the input that bins read, in their order; as many groups as bins."""
    bins = ((c, i, j) for c in range(outputs) for i in range(rows) for j in range(columns))
    for number, (output, row, column) in enumerate(bins):
        yield BinChannel(number, output, row, column)


def offset_of_taps() -> str:
    """The channels of `offset` and `mask` for a 3x3 kernel and two groups."""
    taps = list(tap_channels(3, 3, 2))
    shown = [tap for tap in taps if tap.channel < 6 or 14 <= tap.channel < 22 or tap.channel >= 34]
    channels = [tap.channel for tap in shown]
    drawing = _Drawing(700, 330)
    _strip(drawing, "offset", [(tap.channel, tap.axis) for tap in shown])
    drawing.text(0, 92, "tap", anchor="start", size=11)
    for index, tap in list(enumerate(shown))[::2]:
        drawing.text(_place(index, channels) + CELL, 92, f"({tap.row}, {tap.column})", size=12)
    for group in (0, 1):
        inside = [i for i, tap in enumerate(shown) if tap.group == group]
        left, right = _place(inside[0], channels), _place(inside[-1], channels) + CELL
        drawing.line(left + 2, 102, right - 2, 102)
        drawing.text((left + right) / 2, 118, f"offset group {group}", size=12)
    _kernel(drawing, 80, 170, "offset: the taps of group 0", 2)
    _kernel(drawing, 400, 170, "mask: likewise, one for each tap", 1)
    return drawing.svg("Channels of offset: y and x of each tap, tap after tap, group after group")


def _strip(drawing: _Drawing, name: str, cells: list[tuple[int, str]]) -> None:
    """A row of channels with the axis that each moves along; gaps where channels are left out."""
    channels = [channel for channel, _ in cells]
    drawing.text(0, 20, name, anchor="start", weight="bold")
    drawing.text(0, 34, "channel", anchor="start", size=11)
    for index, (channel, axis) in enumerate(cells):
        x = _place(index, channels)
        drawing.text(x + CELL / 2, 34, str(channel), size=11)
        drawing.box(x, 42, CELL, CELL, BLUE if axis == "y" else ORANGE)
        drawing.text(x + CELL / 2, 64, axis, weight="bold")
        if index and channels[index - 1] != channel - 1:
            drawing.text(x - CELL / 2, 64, "…")


def _place(index: int, channels: list[int]) -> float:
    """Where a cell of a strip begins: a gap for each jump before it."""
    jumps = sum(right != left + 1 for left, right in pairwise(channels[: index + 1]))
    return 56 + CELL * (index + jumps)


def _kernel(drawing: _Drawing, left: float, top: float, title: str, each: int) -> None:
    """The taps of a group in their places, with the channels that move or weigh them."""
    drawing.text(left, top - 14, title, anchor="start", size=12)
    for tap in tap_channels(3, 3, 1):
        x, y = left + 50 * tap.column, top + 50 * tap.row
        if tap.axis == "y":
            drawing.box(x, y, 50, 50, None)
        if each == 1 and tap.axis == "y":
            drawing.text(x + 25, y + 30, str(tap.channel // 2), size=13, weight="bold")
        elif each == 2:
            place, color = (22, BLUE) if tap.axis == "y" else (40, ORANGE)
            text = f"{tap.axis} {tap.channel}"
            drawing.text(x + 25, y + place, text, color=color, size=13, weight="bold")
    if each == 2:
        drawing.arrow(left - 16, top, left - 16, top + 50, BLUE)
        drawing.text(left - 30, top + 30, "y", color=BLUE, weight="bold")
        drawing.arrow(left + 160, top + 75, left + 200, top + 75, ORANGE)
        drawing.text(left + 212, top + 79, "x", color=ORANGE, weight="bold")
        drawing.text(left + 160, top + 100, "in pixels of the input", anchor="start", size=11)


def offset_of_bins() -> str:
    """The channels of the `offset` of deformable RoI pooling for two classes, and its parts."""
    drawing = _Drawing(620, 200)
    _strip(drawing, "offset", [(2 * c + a, "xy"[a]) for c in range(2) for a in range(2)])
    drawing.text(0, 92, "class", anchor="start", size=11)
    for number in range(2):
        drawing.text(56 + CELL * (2 * number + 1), 92, str(number), size=12)
    drawing.text(0, 130, "shape [boxes, 2 * classes, part_y, part_x]", anchor="start", size=12)
    drawing.text(0, 150, "x before y, in extents of the box", anchor="start", size=12)
    drawing.text(0, 170, "times offset_scale", anchor="start", size=12)
    left = 340
    drawing.text(left + 75, 20, "a box of 3 x 3 parts", size=12)
    for row in range(3):
        for column in range(3):
            drawing.box(left + 50 * column, 30 + 50 * row, 50, 50, None)
            drawing.text(left + 25 + 50 * column, 60 + 50 * row, f"[{row}, {column}]", size=12)
    drawing.box(left + 50 + 22, 80 - 14, 50, 50, GREEN)
    drawing.arrow(left + 75, 105, left + 97, 105, ORANGE)
    drawing.arrow(left + 97, 105, left + 97, 91, BLUE)
    drawing.text(left + 170, 95, "part [1, 1] moves by", anchor="start", size=12)
    drawing.text(left + 170, 112, "x * scale * width", anchor="start", size=12, color=ORANGE)
    drawing.text(left + 170, 129, "y * scale * height", anchor="start", size=12, color=BLUE)
    return drawing.svg("Channels of the offset of deformable RoI pooling: x before y")


def channels_of_bins() -> str:
    """Which channels of the input the bins of a position-sensitive pooling read."""
    colors = (BLUE, ORANGE, GREEN, RED)
    drawing = _Drawing(620, 130)
    drawing.text(0, 20, "input", anchor="start", weight="bold")
    drawing.text(0, 34, "channel", anchor="start", size=11)
    for channel, output, row, column in bin_channels(2, 2, 2):
        color = colors[2 * row + column]
        x = 56 + CELL * channel + 12 * output
        drawing.text(x + CELL / 2, 34, str(channel), size=11)
        drawing.box(x, 42, CELL, CELL, color)
        left, top = 400 + 110 * output, 30
        drawing.box(left + 40 * column, top + 40 * row, 40, 40, color)
        drawing.text(left + 40 * column + 20, top + 40 * row + 26, str(channel), size=13)
        if row == column == 0:
            drawing.text(left + 40, 20, f"output channel {output}", size=12)
            drawing.text(56 + CELL * (4 * output + 2) + 12 * output, 96, f"{output}", size=12)
    drawing.text(0, 96, "output", anchor="start", size=11)
    return drawing.svg("Bins of position-sensitive pooling and the input channels they read")


def borders() -> str:
    """What a tap reads at the left border of a row of ones, computed by the op itself."""
    points = torch.arange(-1.4, 2.01, 0.02, dtype=torch.float64)
    offset = torch.stack([torch.zeros_like(points), points - torch.arange(len(points))])
    image = torch.ones(1, 1, 1, len(points), dtype=torch.float64)
    drawing = _Drawing(420, 150)
    for name, color in (("v2", BLUE), ("v1", ORANGE)):
        read = gather_columns(image, 1, offset=offset[None, :, None], border=name)[0, 0, 0, 0]
        places = [(60 + 90 * (p + 1.4), 110 - 70 * v) for p, v in zip(points, read, strict=True)]
        drawing.path([(float(x), float(y)) for x, y in places], color)
    for pixel in (-1, 0, 1, 2):
        drawing.line(60 + 90 * (pixel + 1.4), 110, 60 + 90 * (pixel + 1.4), 114)
        drawing.text(60 + 90 * (pixel + 1.4), 128, str(pixel), size=12)
    drawing.line(50, 110, 370, 110)
    drawing.text(40, 44, "1", size=12)
    drawing.text(40, 114, "0", size=12)
    drawing.text(98, 70, "v2", color=BLUE, weight="bold")
    drawing.text(200, 70, "v1", color=ORANGE, weight="bold")
    drawing.text(215, 146, "where the tap is, in pixels; pixel 0 is the first", size=11)
    return drawing.svg("Reading a row of ones at its border: v2 fades over a pixel, v1 stops")


def samples_of_bins() -> str:
    """Where three poolings read a box of 2 x 2 bins: their gradients with respect to the map."""
    box = torch.tensor([[0.0, 1, 1, 5, 5]], dtype=torch.float64)
    poolings: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [
        ("roi_align, aligned", lambda m: roi_align(m, box, 2, sampling_ratio=2, aligned=True)),
        ("roi_align", lambda m: roi_align(m, box, 2, sampling_ratio=2)),
        ("deform_roi_pool, dcn", lambda m: deform_roi_pool(m, box, None, 2, samples_per_bin=2)),
    ]
    drawing = _Drawing(660, 225)
    for number, (name, pool) in enumerate(poolings):
        left = 10 + 220 * number
        image = torch.zeros(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
        (share,) = torch.autograd.grad(pool(image)[0, 0, 0, 0], image)
        drawing.text(left + 98, 18, name, size=12, weight="bold")
        for row, column in torch.cartesian_prod(torch.arange(7), torch.arange(7)).tolist():
            x, y, weight = left + 28 * column, 28 + 28 * row, float(share[0, 0, row, column])
            drawing.box(x, y, 28, 28, BLUE if weight else None, opacity=min(1.0, 4 * weight))
            if weight:
                drawing.text(x + 14, y + 18, f"{weight:.2g}".lstrip("0"), size=9)
    return drawing.svg(
        "The weights of the pixels of the first of 2 x 2 bins of the box (1, 1, 5, 5)"
    )


FIGURES: dict[str, Callable[[], str]] = {
    "offset-of-taps": offset_of_taps,
    "offset-of-bins": offset_of_bins,
    "channels-of-bins": channels_of_bins,
    "borders": borders,
    "samples-of-bins": samples_of_bins,
}
"""The drawings by the names that pages give them."""


class _Drawing:
    """An SVG that grows."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "middle",
        size: int = 14,
        weight: str = "normal",
        color: str = "currentColor",
    ) -> None:
        style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{color}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        color: str | None,
        *,
        opacity: float = PALE,
    ) -> None:
        fill = f'fill="{color}" fill-opacity="{opacity:g}"' if color else 'fill="none"'
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self.parts.append(f'<rect {place} {fill} stroke="currentColor" stroke-opacity="0.5"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.path([(x1, y1), (x2, y2)], "currentColor", width=1)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        self.path([(x1, y1), (x2, y2)], color)
        dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
        wings = [(x2 - 6 * dx + s * 4 * dy, y2 - 6 * dy + s * 4 * dx) for s in (-1, 1)]
        self.path([wings[0], (x2, y2), wings[1]], color)

    def path(self, points: list[tuple[float, float]], color: str, *, width: float = 2) -> None:
        places = " ".join(f"{x:.4g},{y:.4g}" for x, y in points)
        style = f'fill="none" stroke="{color}" stroke-width="{width:g}"'
        self.parts.append(f'<polyline points="{places}" {style}/>')

    def svg(self, title: str) -> str:
        width, height = self.size
        head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" width="{width:g}"'
        style = 'style="max-width: 100%; height: auto" font-family="inherit"'
        return f"{head} {style}><title>{title}</title>{''.join(self.parts)}</svg>"
