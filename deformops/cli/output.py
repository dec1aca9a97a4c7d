"""What commands write."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from deformops.pictures import PictureError


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
