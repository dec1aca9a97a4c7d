"""Photos, label pictures and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Labels = NDArray[np.int64]
Colors = NDArray[np.uint8]
Color = tuple[int, int, int]

MOST_LABELS = 256
# Saturation and value of the colours of classes.
SHADES = ((0.9, 1.0), (0.9, 0.6), (0.5, 1.0))
UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)


class PictureError(ValueError):
    """A file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class LabelMap:
    """Labels [H, W] and the colour of each, by its number."""

    labels: Labels
    colors: Colors
    """[K, 3], K above all labels."""
    indexed: bool = True
    """Whether a picture of it holds the labels as numbers, and not only their colours."""

    @classmethod
    def read(cls, file: Path) -> LabelMap:
        """Reads a label picture: numbers (grey, palette) or colours, of which each is a label.

        Raises:
            PictureError: it cannot be read, or has too many colours.
        """
        try:
            image = Image.open(file)
            image.load()
        except UNREADABLE as error:
            raise PictureError(f"{file} cannot be read as a picture: {error}") from error
        if image.mode in ("1", "L", "P"):
            palette = voc_colors()
            if image.mode == "P":
                given = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
                palette[: len(given)] = given
            return cls(np.asarray(image, dtype=np.int64), palette)
        if image.mode.startswith("I"):
            return cls.of(file, np.asarray(image))
        pixels = np.asarray(image.convert("RGB"))
        colors, labels = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        if len(colors) > MOST_LABELS:
            raise PictureError(
                f"{file} has {len(colors)} different colours; expected one for each label, at most "
                f"{MOST_LABELS}: a photo, smoothed edges, or saved as JPEG?"
            )
        return cls(labels.reshape(pixels.shape[:2]).astype(np.int64), colors, indexed=False)

    @classmethod
    def of(cls, file: Path, labels: NDArray[Any]) -> LabelMap:
        """Labels that were read from a file as numbers.

        Raises:
            PictureError: there are too many.
        """
        if labels.size and not 0 <= labels.min() <= labels.max() < MOST_LABELS:
            raise PictureError(
                f"{file} has labels from {labels.min()} to {labels.max()}; expected 0 to "
                f"{MOST_LABELS - 1}"
            )
        return cls(labels.astype(np.int64), voc_colors())

    def with_labels(self, labels: Labels) -> LabelMap:
        """Other labels in the same colours."""
        return LabelMap(labels, self.colors, self.indexed)

    def picture(self) -> Image.Image:
        """As it is read: numbers with a palette, or colours."""
        if not self.indexed:
            return Image.fromarray(self.colors[self.labels])
        image = Image.fromarray(self.labels.astype(np.uint8), "P")
        image.putpalette(self.colors.tobytes())
        return image

    def over(self, photo: Colors) -> Image.Image:
        """The colours of the labels over a photo, black ones left out, with a line between."""
        colors = self.colors[self.labels].astype(np.float64)
        strength = np.where(colors.any(-1, keepdims=True), 0.55, 0.0)
        mixed = strength * colors + (1 - strength) * photo
        mixed[edges(self.labels)] = 255
        return Image.fromarray(np.round(mixed).astype(np.uint8))


def edges(labels: Labels) -> NDArray[np.bool_]:
    """Where the pixel to the right or below has another label, [H, W]."""
    found = np.zeros(labels.shape, dtype=bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    return found


def read_photo(file: Path) -> Colors:
    """A photo [H, W, 3], upright.

    Raises:
        PictureError: it cannot be read.
    """
    try:
        return np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    except UNREADABLE as error:
        raise PictureError(f"{file} cannot be read as a photo: {error}") from error


def photo_size(file: Path) -> tuple[int, int]:
    """Height and width of a photo, upright, of which only the beginning is read.

    Raises:
        PictureError: it cannot be read.
    """
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size if turned else (image.height, image.width)
    except UNREADABLE as error:
        raise PictureError(f"{file} cannot be read as a photo: {error}") from error


def voc_colors() -> Colors:
    """The colours of PASCAL VOC, [256, 3]: the bits of the label, dealt to red, green and blue."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colors[:, channel] |= (labels >> (3 * bit + channel) & 1).astype(
                    np.uint8
                ) << 7 - bit
    return colors


def class_colors(names: Sequence[str]) -> Colors:
    """Colours of classes, [256, 3]: PASCAL VOC's where there is a background, which is black.

    Else hues a golden section apart, bright, dark and pale by turns.
    """
    if names[0].lower() in ("background", "__background__"):
        return voc_colors()
    golden = (5**0.5 - 1) / 2
    colors = [hsv_to_rgb(number * golden % 1, *SHADES[number % 3]) for number in range(256)]
    return np.round(255 * np.array(colors)).astype(np.uint8)


def size_of(shape: Sequence[Any]) -> str:
    """Height and width as pictures are measured."""
    return f"{shape[1]} x {shape[0]}"
