"""What is done to a photo before a network sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Subtracts a mean from each channel, divides by a deviation, and orders the channels.

    Args:
        mean: of each channel, for values from 0 to 255, in the network's order.
        std: what each channel is divided by, likewise.
        order: of the network's channels, "RGB" or "BGR".

    Raises:
        ValueError: not three numbers, a deviation not above 0, or an unknown order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = "RGB"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name}: expected three numbers, got {getattr(self, name)}")
        if min(self.std) <= 0:
            raise ValueError(f"std: expected numbers above 0, got {self.std}")
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f"order: expected 'RGB' or 'BGR', got {self.order!r}")

    def __call__(self, images: Tensor) -> Tensor:
        """Prepares photos.

        Args:
            images: [..., 3, H, W], RGB, values from 0 to 255, of any type.

        Returns:
            Floats of the same shape, in the network's order.

        Raises:
            ValueError: there are not three channels.
        """
        images = self._ordered(images)
        if not images.is_floating_point():
            images = images.to(torch.get_default_dtype())
        return (images - self._column(self.mean, images)) / self._column(self.std, images)

    def inverse(self, images: Tensor) -> Tensor:
        """Makes photos, RGB with values from 0 to 255, of what `__call__` returned."""
        images = images * self._column(self.std, images) + self._column(self.mean, images)
        return self._ordered(images)

    def _ordered(self, images: Tensor) -> Tensor:
        if images.dim() < 3 or images.shape[-3] != 3:
            raise ValueError(f"images: expected [..., 3, H, W], got {list(images.shape)}")
        return images.flip(-3) if self.order == "BGR" else images

    def _column(self, values: tuple[float, float, float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


#: Caffe's classifiers, and FCN.
CAFFE_BGR = Preprocessing((104.00699, 116.66877, 122.67892), order="BGR")
#: torchvision's weights.
TORCHVISION_RGB = Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
