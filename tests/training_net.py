"""A segmentation network of a few thousand parameters, with all that training asks of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from deformops.nets.preprocessing import Preprocessing
from deformops.nets.segmenter import Segmenter

#: Colours from 0 to 255 to -2 to 2.
PREPROCESSING = Preprocessing((128.0, 128.0, 128.0), (64.0, 64.0, 64.0))


class TinyNet(Segmenter):
    """Two convolutions at half the size, a score, and bilinear scores of the input's size."""

    def __init__(self, classes: int = 3, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = PREPROCESSING
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.score = nn.Conv2d(8, classes, 1)

    def head(self) -> Iterator[nn.Module]:
        yield self.score

    def published_names(self) -> dict[str, tuple[str, ...]]:
        return {}

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.score(self.body(images)), images.shape[-2:], mode="bilinear")


class TwoScores(TinyNet):
    """With a loss at half the size too, as networks with several scales have them."""

    def all_scores(self, images: Tensor) -> list[Tensor]:
        small = self.score(self.body(images))
        return [small, F.interpolate(small, images.shape[-2:], mode="bilinear")]


def photo(number: int, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """A photo of a disk and a bar on a ground, with noise, and its labels 0, 1, 2; some 255."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, dtype=np.uint8)
    labels[(y - random.integers(6, 18)) ** 2 + (x - random.integers(6, 26)) ** 2 < 30] = 1
    labels[:, random.integers(4, 28) :][:, :4] = 2
    colors = np.array([[60, 80, 200], [200, 90, 60], [80, 180, 90]])[labels]
    labels[: 1 + number % 5] = 255
    noisy = np.clip(colors + random.normal(0, 12, colors.shape), 0, 255)
    return noisy.astype(np.uint8), labels


def write_photos(folder: Path, count: int = 6, size: tuple[int, int] = (24, 32)) -> Path:
    """A folder of photos and labels."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        colors, labels = photo(number, size)
        Image.fromarray(colors).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{number}.png")
    return folder


def weights(net: nn.Module) -> Tensor:
    """All parameters in a row."""
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
