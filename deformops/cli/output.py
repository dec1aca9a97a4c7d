"""What commands write."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from deformops.pictures import PictureError


def check_picture(file: Path) -> None:
    """Asks, before any work, whether a picture can have this name.

    Raises:
        PictureError: its folder is missing, or its ending names no kind that Pillow writes.
    """
    if not file.parent.is_dir():
        raise PictureError(f"{file.parent} is no folder to write to")
    if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
        raise PictureError(
            f"{file} cannot be written: expected a name ending in .png, .jpg or another kind of "
            f"picture, got {file.suffix or 'none'}"
        )


def save_picture(picture: Image.Image, file: Path) -> None:
    """Writes a picture, of the kind that its name says, and tells of it.

    Raises:
        PictureError: it cannot be written.
    """
    try:
        picture.save(file)
    except (OSError, ValueError) as error:
        raise PictureError(f"{file} cannot be written: {error}") from error
    print(f"wrote {file}")


def columns(values: Iterable[str | float | None]) -> str:
    """Columns of a table: headings, and fractions as percentages; NaN is "-", None is left out."""
    return "".join(f"{_cell(value):>11}" for value in values)


def _cell(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "-" if math.isnan(value) else f"{value:.2%}"
