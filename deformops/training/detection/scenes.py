"""Photos as detectors learn them: what is to be found, and where the first stage would look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deformops.nets.detection import Proposals
from deformops.training.detection.augmentation import resized
from deformops.training.detection.data import AnnotatedPhotos


@dataclass(frozen=True)
class Scene:
    """What is known of a photo.

    Attributes:
        boxes: float32 [L, 4] of the objects as (x1, y1, x2, y2), in pixels.
        labels: int64 [L], classes from 1.
        proposals: [P, 4] of the first stage; None: it is to make them.
    """

    boxes: Tensor
    labels: Tensor
    proposals: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Scene:
        """The same where all boxes are elsewhere."""
        proposals = None if self.proposals is None else move(self.proposals)
        return replace(self, boxes=move(self.boxes), proposals=proposals)


@dataclass(frozen=True)
class Sample:
    """A photo as it is learned.

    Attributes:
        photo: [3, h, w] uint8.
        scene: what is known of it, in its pixels.
        scale: its pixels for each of the photo that was taken.
    """

    photo: Tensor
    scene: Scene
    scale: float


class Scenes:
    """Photos and what is to be learned of them: objects that are neither difficult nor a crowd.

    Args:
        photos: with their objects.
        proposals: [P, 4] of each photo, in its pixels; None: the network is to make them.
    """

    def __init__(self, photos: AnnotatedPhotos, proposals: Sequence[Tensor] | None = None) -> None:
        if proposals is not None and len(proposals) != len(photos):
            raise ValueError(
                f"proposals: expected those of {len(photos)} photos, got {len(proposals)}"
            )
        self.photos = photos
        self.proposals = proposals

    def __len__(self) -> int:
        """How many photos."""
        return len(self.photos)

    def __getitem__(self, number: int) -> tuple[Tensor, Scene]:
        """A photo [3, H, W] uint8, and what is known of it."""
        return self.photos[number][0], self.scene(number)

    def scene(self, number: int) -> Scene:
        """What is known of a photo, which is not read."""
        objects = self.photos.objects(number)
        kept = ~(objects.difficult | objects.crowd)
        proposals = None if self.proposals is None else self.proposals[number]
        return Scene(objects.boxes[kept], objects.labels[kept], proposals)


@dataclass(frozen=True)
class Variation:
    """How photos vary: in their size, and mirrored.

    Attributes:
        sizes: of the shorter side, one of these at random.
        longest: what the longer one may be.
        mirror: every second photo is mirrored.

    Raises:
        ValueError: a size is none.
    """

    sizes: tuple[int, ...] = (600,)
    longest: int = 1000
    mirror: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for what is no size."""
        if not self.sizes or not 1 <= min(self.sizes) <= max(self.sizes) <= self.longest:
            raise ValueError(
                f"sizes: expected numbers from 1 to the longest side's {self.longest}, got "
                f"{list(self.sizes)}"
            )

    def __call__(self, photo: Tensor, scene: Scene, random: np.random.Generator) -> Sample:
        """Varies a photo.

        Args:
            photo: [3, H, W] uint8.
            scene: what is known of it.
            random: what is drawn from.
        """
        short = self.sizes[random.integers(len(self.sizes))]
        if self.mirror and random.integers(2):
            width = photo.shape[-1]
            photo, scene = photo.flip(-1), scene.moved(lambda boxes: mirrored(boxes, width))
        photo, scale = resized(photo, short, self.longest)
        return Sample(photo.contiguous(), scene.moved(lambda boxes: boxes * scale), scale)


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes [L, 4] in a mirror: of pixels 0 to width - 1, the first becomes the last."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], dim=-1)


def proposals_of(scenes: Sequence[Scene], like: Tensor) -> Proposals:
    """The proposals of several photos in tensors of one size, on the device and of the type of one.

    Raises:
        ValueError: a photo has none, since nobody made them.
    """
    given = [scene.proposals for scene in scenes if scene.proposals is not None]
    if len(given) != len(scenes):
        raise ValueError("scenes: expected proposals for each of them")
    counts = torch.tensor([len(boxes) for boxes in given], device=like.device)
    most = max(1, *(len(boxes) for boxes in given))
    result = like.new_zeros(len(given), most, 4)
    for row, boxes in zip(result, given, strict=True):
        row[: len(boxes)] = boxes.to(like)
    return Proposals(result, like.new_zeros(len(given), most), counts)
