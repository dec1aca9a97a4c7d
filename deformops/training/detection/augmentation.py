"""Photos with boxes as detectors take them: of a size that suits, mirrored, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.nets.preprocessing import Preprocessing
from deformops.training.augmentation import scaled


def fitting_scale(size: Sequence[int], short: int, long: int) -> float:
    """How many times larger a photo becomes whose sides are to be `short` and at most `long`.

    Args:
        size: height and width.
        short: the shorter side afterwards,
        long: unless the longer one would be above this.

    Returns:
        The factor.

    Example:
        >>> fitting_scale((480, 640), 600, 1000), fitting_scale((300, 1000), 600, 1000)
        (1.25, 1.0)

    Source: py-faster-rcnn.
    """
    scale = short / min(size)
    return scale if round(scale * max(size)) <= long else long / max(size)


def resized(photo: Tensor, short: int, long: int) -> tuple[Tensor, float]:
    """A photo [3, H, W] uint8, made larger or smaller as `fitting_scale` says, and the factor.

    A box of the photo times the factor is one of the result.
    """
    scale = fitting_scale(photo.shape[-2:], short, long)
    size = scaled(photo.shape[-2:], scale)
    if size == tuple(photo.shape[-2:]):
        return photo, scale
    return F.interpolate(photo[None], size, mode="bilinear", antialias=True)[0], scale


def side_by_side(photos: Sequence[Tensor], preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Photos as the batch that a detector takes.

    Args:
        photos: [3, H, W] each, colours from 0 to 255.
        preprocessing: of the detector.

    Returns:
        Images [N, 3, H, W], each in the upper left of zeros, and their sizes int64 [N, 2].
    """
    images = [preprocessing(photo) for photo in photos]
    sizes = torch.tensor([image.shape[-2:] for image in images], device=images[0].device)
    height, width = (int(most) for most in sizes.amax(0))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
