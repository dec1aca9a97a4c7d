"""A photo to show things on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Enough for print, and quick on two cores; larger photos are reduced to it.
LONGEST_SIDE = 800
UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)


def load(file: Path | None) -> Tensor:
    """Reads a photo, or takes the cat that scikit-image ships.

    Args:
        file: anything Pillow reads; None: the cat.

    Returns:
        [3, H, W] in [0, 1], float32, upright, no side longer than `LONGEST_SIDE`.

    Raises:
        OSError, ValueError, PIL.Image.DecompressionBombError: the file cannot be read as an image.
    """
    if file is None:
        from skimage import data

        image: Image.Image = Image.fromarray(data.chelsea())
    else:
        image = ImageOps.exif_transpose(Image.open(file))
    image = image.convert("RGB")
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
