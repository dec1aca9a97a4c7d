"""Boxes drawn on a photo, with a tag at each that stays out of the way of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deformops.pictures import Color, Colors

# Pictures are enlarged by a whole number until their longer side has so many pixels.
_LEGIBLE = 1000


class Rectangle(NamedTuple):
    """Pixels from the first to the last, which belongs to it."""

    left: int
    top: int
    right: int
    bottom: int

    def shared(self, other: Rectangle) -> int:
        """How many pixels it has in common with another."""
        width = min(self.right, other.right) - max(self.left, other.left) + 1
        height = min(self.bottom, other.bottom) - max(self.top, other.top) + 1
        return max(width, 0) * max(height, 0)

    def grown(self, by: int) -> Rectangle:
        """So many pixels larger on each side."""
        return Rectangle(self.left - by, self.top - by, self.right + by, self.bottom + by)


class Labelled(NamedTuple):
    """A box to be drawn."""

    box: Sequence[float]
    """(x1, y1, x2, y2) in pixels of the photo; the last belongs to it."""
    text: str
    """Of its tag."""
    color: Color


def draw_boxes(photo: Colors, boxes: Sequence[Labelled]) -> Image.Image:
    """A photo with boxes, and a tag at each.

    Tags lie at a corner of their box where they cover as little as can be of other tags; the first
    boxes choose first, and lie on top. Small photos are enlarged by a whole number.

    Args:
        photo: [H, W, 3].
        boxes: from the most to the least important.

    Returns:
        The picture, a whole number times as large as the photo.
    """
    scale = max(1, -(-_LEGIBLE // max(photo.shape[:2])))
    image = Image.fromarray(photo)
    image = image.resize((scale * image.width, scale * image.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    height = max(13, max(image.size) // 72)
    font = ImageFont.load_default(height)
    line = max(3, height // 6)
    outlines = [_pixels(one.box, scale) for one in boxes]
    for outline, one in reversed(list(zip(outlines, boxes, strict=True))):
        draw.rectangle(outline.grown(1), outline=_shade(one.color), width=line + 2)
        draw.rectangle(outline, outline=one.color, width=line)
    tags: list[Rectangle] = []
    for outline, one in zip(outlines, boxes, strict=True):
        size = (round(font.getlength(one.text)) + height // 2, height + height // 3)
        tags.append(_free_place(outline, size, image.size, tags))
    for tag, one in reversed(list(zip(tags, boxes, strict=True))):
        draw.rectangle(tag, fill=one.color, outline=_shade(one.color))
        middle = ((tag.left + tag.right + 1) / 2, (tag.top + tag.bottom + 1) / 2)
        draw.text(middle, one.text, _readable_on(one.color), font, anchor="mm")
    return image


def _pixels(box: Sequence[float], scale: int) -> Rectangle:
    """The pixels of an enlarged photo that a box covers."""
    left, top, right, bottom = box
    return Rectangle(
        round(scale * left),
        round(scale * top),
        max(round(scale * (right + 1)) - 1, round(scale * left)),
        max(round(scale * (bottom + 1)) - 1, round(scale * top)),
    )


def _free_place(
    box: Rectangle, size: tuple[int, int], picture: tuple[int, int], others: Sequence[Rectangle]
) -> Rectangle:
    """Where a tag covers least of the others."""
    places = [_moved_inside(corner, size, picture) for corner in _corners(box, size)]
    return min(places, key=lambda place: sum(place.shared(other) for other in others))


def _corners(box: Rectangle, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The upper left of a tag at the corners of a box: outside, inside, the best first."""
    width, height = size
    right, below = box.right - width + 1, box.bottom - height + 1
    yield from ((x, y) for y in (box.top - height, box.top) for x in (box.left, right))
    yield from ((x, y) for y in (below, box.bottom + 1) for x in (box.left, right))


def _moved_inside(
    corner: tuple[int, int], size: tuple[int, int], picture: tuple[int, int]
) -> Rectangle:
    left, top = (
        max(0, min(place, whole - own))
        for place, own, whole in zip(corner, size, picture, strict=True)
    )
    return Rectangle(left, top, left + size[0] - 1, top + size[1] - 1)


def _brightness(color: Color) -> float:
    """From 0 to 255, as eyes weigh colours."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def _readable_on(color: Color) -> str:
    return "black" if _brightness(color) > 140 else "white"


def _shade(color: Color) -> Color:
    """What sets a colour off against any photo: much darker, or if it is dark itself, white."""
    if _brightness(color) > 90:
        red, green, blue = (part // 4 for part in color)
        return red, green, blue
    return 255, 255, 255
