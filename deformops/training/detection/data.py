"""Photos with boxes around objects, from a folder of Pascal VOC's or a file of COCO's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deformops.pictures import photo_size, size_of
from deformops.training.data import read_tensor
from deformops.training.detection.annotations import (
    Annotation,
    Corners,
    Mention,
    read_coco,
    read_voc,
)


@dataclass(frozen=True)
class Objects:
    """The objects that a photo shows.

    Attributes:
        boxes: float32 [L, 4] as (x1, y1, x2, y2), in pixels, the first of which is 0; the last
            belongs to the box.
        labels: int64 [L], classes from 1.
        difficult: bool [L], need not be found; see `voc_average_precision`.
        crowd: bool [L], many of a class in one box, which need not be told apart.
        areas: float32 [L], pixels of the outline where that is known, else of the box.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    areas: Tensor

    def __len__(self) -> int:
        """How many."""
        return len(self.labels)


@dataclass(frozen=True)
class AnnotatedPhotos:
    """Photos and the boxes of the objects in them.

    Boxes that reach beyond the photo are clipped to it; those that are no boxes, or of which less
    than two pixels each way are left, are dropped. Neither is an error: `problems` tells of them.

    Attributes:
        files: of the photos.
        sizes: of the photos, height and width, upright.
        annotations: the objects of each.
        class_names: of the classes 1, 2, ...; background is not among them.
        problems: a line for each box that was clipped by more than a pixel, or dropped. A pixel is
            by how much programs differ in where they begin to count.
    """

    files: Sequence[Path]
    sizes: Sequence[tuple[int, int]]
    annotations: Sequence[Objects]
    class_names: tuple[str, ...]
    problems: Sequence[str] = ()

    @classmethod
    def of(
        cls, place: Path, split: str | None = None, class_names: Sequence[str] | None = None
    ) -> AnnotatedPhotos:
        """Finds out by looking what there is.

        Args:
            place: a folder as `voc` takes it; a file as `coco` takes it; or a folder with such a
                file in it or in its `annotations`.
            split: its name, as in `ImageSets/Main/train.txt` or `annotations/instances_train.json`.
                None: all, or the only one.
            class_names: see `voc` and `coco`.

        Raises:
            ValueError: there is nothing that is known, and as in `voc` and `coco`.
        """
        if place.is_file():
            return cls.coco(place, None, class_names)
        if not place.is_dir():
            raise ValueError(f"{place} is no folder, and no file")
        if (place / "Annotations").is_dir():
            return cls.voc(place, split, class_names)
        folders = [folder for folder in (place / "annotations", place) if folder.is_dir()]
        files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
        wanted = [file for file in files if file.stem in (split, f"instances_{split}")]
        found = files if split is None else wanted
        if len(found) == 1:
            return cls.coco(found[0], None, class_names)
        there = [str(file.relative_to(place)) for file in files]
        there = there or sorted(entry.name for entry in place.iterdir())
        named = "" if split is None else f" for the split {split}"
        raise ValueError(
            f"{place}: expected Pascal VOC's folders Annotations and JPEGImages in it, or one file "
            f"of COCO's{named} in its annotations; it has {', '.join(there[:8]) or 'nothing'}"
        )

    @classmethod
    def voc(
        cls, folder: Path, split: str | None = None, class_names: Sequence[str] | None = None
    ) -> AnnotatedPhotos:
        """Reads a folder laid out as Pascal VOC's.

        Args:
            folder: has `Annotations/*.xml`, `JPEGImages` and `ImageSets/Main/*.txt`.
            split: the name of such a text; None: all that is annotated.
            class_names: None: all that occur, by the alphabet.

        Raises:
            ValueError: a file is missing or broken, or an object is of another class.
        """
        found = list(read_voc(folder, split))
        if class_names is None:
            class_names = sorted({one.name for entry in found for one in entry.mentions})
        return cls._of(found, class_names, folder if split is None else f"{folder}, {split}")

    @classmethod
    def coco(
        cls,
        file: Path,
        photos: Path | None = None,
        class_names: Sequence[str] | None = None,
    ) -> AnnotatedPhotos:
        """Reads a file of COCO's.

        Args:
            file: JSON with `images`, `annotations` and `categories`.
            photos: the folder of the photos; None: see `read_coco`.
            class_names: None: the categories of the file, by their numbers.

        Raises:
            ValueError: a file is missing or broken, or an object is of another class.
        """
        names, found = read_coco(file, photos)
        return cls._of(list(found), names if class_names is None else class_names, file)

    @classmethod
    def _of(
        cls, found: Sequence[Annotation], class_names: Sequence[str], place: Path | str
    ) -> AnnotatedPhotos:
        if not found:
            raise ValueError(f"{place}: expected photos, got none")
        if not class_names:
            raise ValueError(f"{place}: expected objects, got {len(found)} photos without any")
        label_of = {name: label for label, name in enumerate(class_names, 1)}
        problems: list[str] = []
        sizes = [photo_size(entry.photo) for entry in found]
        objects = [
            _objects(entry.mentions, size, label_of, problems)
            for entry, size in zip(found, sizes, strict=True)
        ]
        return cls([entry.photo for entry in found], sizes, objects, tuple(class_names), problems)

    def __len__(self) -> int:
        """How many photos."""
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, Objects]:
        """A photo [3, H, W], uint8, and its objects.

        Raises:
            PictureError: it cannot be read.
        """
        return read_tensor(self.files[number]), self.annotations[number]

    def objects(self, number: int) -> Objects:
        """The objects of a photo, which is not read."""
        return self.annotations[number]

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of a photo, which is not read."""
        return self.sizes[number]


def _objects(
    mentions: Iterable[Mention],
    size: tuple[int, int],
    label_of: dict[str, int],
    problems: list[str],
) -> Objects:
    boxes, labels, difficult, crowd, areas = [], [], [], [], []
    for one in mentions:
        if one.name not in label_of:
            raise ValueError(f"{one.where} is a {one.name}; expected one of {', '.join(label_of)}")
        box = _clipped(one, size, problems)
        if box is not None:
            boxes.append(box)
            labels.append(label_of[one.name])
            difficult.append(one.difficult)
            crowd.append(one.crowd)
            own = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
            areas.append(own if one.area is None else one.area)
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
        torch.tensor(crowd, dtype=torch.bool),
        torch.tensor(areas, dtype=torch.float32),
    )


def _clipped(one: Mention, size: tuple[int, int], problems: list[str]) -> Corners | None:
    """The box within the photo; None: nothing is left of it."""
    given = f"{one.where} ({one.name}): the box {', '.join(f'{n:g}' for n in one.corners)}"
    if not all(math.isfinite(n) for n in one.corners):
        problems.append(f"{given} is not four numbers: dropped")
        return None
    last = (size[1] - 1, size[0] - 1)
    x1, y1, x2, y2 = (
        min(max(corner, 0.0), float(last[n % 2])) for n, corner in enumerate(one.corners)
    )
    if x2 <= x1 or y2 <= y1:
        problems.append(f"{given} has no two pixels each way in {size_of(size)}: dropped")
        return None
    if max(abs(a - b) for a, b in zip(one.corners, (x1, y1, x2, y2), strict=True)) > 1:
        problems.append(f"{given} reaches beyond {size_of(size)} pixels: clipped")
    return x1, y1, x2, y2
