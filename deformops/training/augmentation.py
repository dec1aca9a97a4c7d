"""Photos as they vary: scaled, cropped, mirrored, lit otherwise.

All of it is drawn from a generator that is handed over, and so is the same for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize(photo: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A photo [3, H, W] by smooth, its labels [H, W] by nearest pixels, at another size."""
    smooth = F.interpolate(photo[None], size, mode="bilinear", antialias=True)[0]
    nearest = F.interpolate(labels[None, None], size, mode="nearest-exact")[0, 0]
    return smooth, nearest


def ten_crops(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The crops that AlexNet is tested with.

    Args:
        images: [..., H, W].
        size: of a crop, one number or height and width.

    Returns:
        [10, ..., h, w]: top left, top right, bottom left, bottom right, centre, and the same five
        mirrored. The centre is rounded to the top left.

    Raises:
        ValueError: the images are smaller than the crops.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
    Networks (2012), section 4.1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = images.shape[-2] - height, images.shape[-1] - width
    if min(rows, columns) < 0 or min(height, width) < 1:
        raise ValueError(
            f"ten_crops: size: expected 1 x 1 up to the images' {images.shape[-2]} x "
            f"{images.shape[-1]}, got {height} x {width}"
        )
    corners = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
    crops = torch.stack([images[..., y : y + height, x : x + width] for y, x in corners])
    return torch.cat([crops, crops.flip(-1)])


def color_components(photos: Iterable[Tensor]) -> Tensor:
    """The principal components of the colours of photos, each as long as its standard deviation.

    Args:
        photos: [3, H, W] each, colours from 0 to 255.

    Returns:
        [3, 3], a component in each row, float32; the longest last.
    """
    count, total, square = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3).double()
    for photo in photos:
        colors = photo.flatten(1).double()
        count += colors.shape[1]
        total += colors.sum(1)
        square += colors @ colors.T
    mean = total / max(count, 1)
    variances, vectors = torch.linalg.eigh(square / max(count, 1) - torch.outer(mean, mean))
    return (vectors * variances.clamp(min=0).sqrt()).T.float()


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo and its labels before they are learned from.

    Attributes:
        reduce: photos are made so many times smaller, once and for all.
        scales: then so many times larger, one of these at random.
        crop: height and width of a random crop; what is missing is filled. None: all of the photo.
        mirror: every second one is mirrored.
        lighting: the standard deviation of how much of each colour component is added.
        components: of the colours, 3 of 3 numbers, see `color_components`; () where lighting is 0.
        fill: the colour around photos that are smaller than the crop.
        ignore: the label there.

    Source: DeepLab (2016), section 4 (scales, crop, mirror); Krizhevsky et al. (2012), section 4.1
    (lighting).
    """

    reduce: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    crop: tuple[int, int] | None = (321, 321)
    mirror: bool = True
    lighting: float = 0.0
    components: tuple[tuple[float, ...], ...] = ()
    fill: tuple[int, ...] = (123, 117, 104)
    ignore: int = 255

    def __post_init__(self) -> None:
        """Raises ValueError for what is no augmentation."""
        for name, numbers in (("reduce", [self.reduce]), ("scales", self.scales)):
            if not numbers or min(numbers) <= 0:
                raise ValueError(f"{name}: expected numbers above 0, got {list(numbers)}")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop: expected at least 1 x 1, got {self.crop}")
        if self.lighting < 0 or (self.lighting > 0 and len(self.components) != 3):
            raise ValueError("lighting: expected a number >= 0, and the components with it")

    def __call__(
        self, photo: Tensor, labels: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Varies a photo and its labels together.

        Args:
            photo: [3, H, W] uint8.
            labels: [H, W] uint8.
            random: what is drawn from.

        Returns:
            The photo [3, h, w] and its labels [h, w], both uint8.
        """
        scale = self.scales[random.integers(len(self.scales))] / self.reduce
        if scale != 1:
            photo, labels = resize(photo, labels, scaled(photo.shape[-2:], scale))
        if self.crop is not None:
            photo, labels = self._cropped(photo, labels, random)
        if self.mirror and random.integers(2):
            photo, labels = photo.flip(-1), labels.flip(-1)
        if self.lighting > 0:
            strength = random.normal(0, self.lighting, 3)
            shift = torch.tensor(strength @ np.array(self.components), dtype=torch.float32)
            photo = (photo + shift[:, None, None]).round().clamp(0, 255).to(torch.uint8)
        return photo.contiguous(), labels.contiguous()

    def _cropped(
        self, photo: Tensor, labels: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        assert self.crop is not None
        height, width = self.crop
        below, right = (max(0, n - m) for n, m in zip(self.crop, photo.shape[-2:], strict=True))
        if below or right:
            color = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None]
            filled = color.expand(-1, photo.shape[1] + below, photo.shape[2] + right).clone()
            filled[:, : photo.shape[1], : photo.shape[2]] = photo
            photo = filled
            labels = F.pad(labels, (0, right, 0, below), value=self.ignore)
        y, x = (
            int(random.integers(n - m + 1))
            for n, m in zip(photo.shape[-2:], self.crop, strict=True)
        )
        window = (..., slice(y, y + height), slice(x, x + width))
        return photo[window], labels[window]


def scaled(size: Sequence[int], scale: float) -> tuple[int, int]:
    """A height and width, so many times larger, at least 1."""
    height, width = (max(1, round(n * scale)) for n in size)
    return height, width
