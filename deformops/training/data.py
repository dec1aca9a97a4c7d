"""Photos with labels, from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deformops.pictures import LabelMap, PictureError, read_photo, size_of

Known_co = TypeVar("Known_co", covariant=True)
Sample_co = TypeVar("Sample_co", covariant=True)

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABELS = (".png", ".bmp", ".tif", ".tiff", ".pgm")


def find_split(folder: Path, split: str | None) -> Path:
    """The folder with `images` and `labels`: `folder/split` if there is one, else `folder`.

    Args:
        folder: has `images` and `labels`, or folders that have, as `train`, `val` and `test`.
        split: of these; None: the folder itself.

    Raises:
        ValueError: there is none.
    """
    places = [folder] if split is None else [folder / split, folder]
    for place in places:
        if (place / "images").is_dir() and (place / "labels").is_dir():
            return place
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    raise ValueError(
        f"{places[0]}: expected the folders images and labels in it; {folder} has "
        f"{', '.join(there) or 'no folders'}"
    )


def class_names(file: Path) -> list[str]:
    """The names of the classes 0, 1, ..., one in each line of a text file.

    Raises:
        ValueError: it cannot be read, or names none.
    """
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a text: {error}") from error
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise ValueError(f"{file}: expected the name of a class in each line")
    return names


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos and label pictures of a folder, by their names.

    A label picture holds the class of each pixel as a number: grey levels, or entries of a palette.

    Attributes:
        pairs: files, a photo and its labels each.
        classes: labels are below it,
        ignore: or this, which says nothing.
    """

    pairs: Sequence[tuple[Path, Path]]
    classes: int
    ignore: int = 255

    @classmethod
    def of(cls, folder: Path, classes: int | None = None, ignore: int = 255) -> LabelledPhotos:
        """Finds the pairs.

        Args:
            folder: has `images` and `labels`, with files whose names match up to their endings.
            classes: how many; None: what the labels have, which takes reading all of them.
            ignore: the label that says nothing.

        Raises:
            ValueError: there is no photo, a partner is missing, or a name is there twice.
        """
        photos = _by_stem(folder / "images", PHOTOS)
        labels = _by_stem(folder / "labels", LABELS)
        for here, there, missing in (
            (folder / "images", folder / "labels", sorted(photos.keys() - labels.keys())),
            (folder / "labels", folder / "images", sorted(labels.keys() - photos.keys())),
        ):
            if missing:
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                raise ValueError(
                    f"{there}: expected a partner for each picture of {here}, none for "
                    f"{', '.join(missing[:3])}{more}"
                )
        if not photos:
            raise ValueError(
                f"{folder / 'images'}: expected photos ({', '.join(PHOTOS)}), got none"
            )
        pairs = [(photos[stem], labels[stem]) for stem in sorted(photos)]
        if classes is None:
            found = torch.zeros(256, dtype=torch.bool)
            for _, file in pairs:
                found[read_labels(file).unique().long()] = True
            if 0 <= ignore < 256:
                found[ignore] = False
            classes = int(found.nonzero().max()) + 1 if found.any() else 0
        return cls(pairs, classes, ignore)

    def __len__(self) -> int:
        """How many photos."""
        return len(self.pairs)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """A photo [3, H, W] and its labels [H, W], both uint8.

        Raises:
            PictureError: a file cannot be read, the sizes differ, or a label is no class.
        """
        photo_file, labels_file = self.pairs[number]
        photo = read_tensor(photo_file)
        labels = read_labels(labels_file)
        if photo.shape[1:] != labels.shape:
            raise PictureError(
                f"{photo_file} is {size_of(photo.shape[1:])} pixels, {labels_file} is "
                f"{size_of(labels.shape)}: they must be of one size"
            )
        wrong = labels[(labels >= self.classes) & (labels != self.ignore)]
        if len(wrong):
            raise PictureError(
                f"{labels_file} has the label {int(wrong.max())}; expected 0 to "
                f"{self.classes - 1}, or {self.ignore} for what is not labelled"
            )
        return photo, labels


def _by_stem(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """The pictures of a folder by their names without endings."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in endings and not file.name.startswith("."):
            if file.stem in found:
                raise ValueError(f"{file} and {found[file.stem].name} have one name: which is it?")
            found[file.stem] = file
    return found


def read_tensor(file: Path) -> Tensor:
    """A photo [3, H, W], upright, uint8.

    Raises:
        PictureError: it cannot be read.
    """
    return torch.from_numpy(read_photo(file).copy()).permute(2, 0, 1).contiguous()


def read_labels(file: Path) -> Tensor:
    """The labels [H, W] of a picture, uint8.

    Raises:
        PictureError: it cannot be read, or holds colours and no numbers.
    """
    picture = LabelMap.read(file)
    if not picture.indexed:
        raise PictureError(
            f"{file} holds colours; expected the numbers of classes, as grey levels or with a "
            "palette"
        )
    return torch.from_numpy(picture.labels.astype(np.uint8))


class Photos(Protocol[Known_co]):
    """Photos, and what is known of each."""

    def __len__(self) -> int:
        """How many photos."""

    def __getitem__(self, number: int, /) -> tuple[Tensor, Known_co]:
        """A photo [3, H, W] uint8, and what is known of it."""


class Samples(Dataset[Sample_co]):
    """The endless row of samples that a training sees: sample k depends on the seed and k alone.

    All photos come once in each round, in a new order. So a training can go on anywhere, and be
    dealt to any number of processes, and see the same samples.

    Args:
        photos: what is drawn from.
        augmentation: what is done to each, with a generator to draw from.
        seed: of the order and of the augmentation.
    """

    def __init__(
        self,
        photos: Photos[Any],
        augmentation: Callable[[Tensor, Any, np.random.Generator], Sample_co],
        seed: int,
    ) -> None:
        self.photos = photos
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, number: int) -> Sample_co:
        """Sample `number`: what the augmentation makes of its photo."""
        turn, place = divmod(number, len(self.photos))
        photo, known = self.photos[_order(len(self.photos), self.seed, turn)[place]]
        return self.augmentation(photo, known, np.random.default_rng([self.seed, 1, number]))


@lru_cache(maxsize=2)
def _order(count: int, seed: int, turn: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, 0, turn]).permutation(count).tolist()
    return order


def numbers_of(parts: int, size: int, first: int, rank: int, count: int) -> Iterator[list[int]]:
    """The numbers of the samples in each part of a batch that a process works on, for ever.

    Args:
        parts: of a batch.
        size: of a part.
        first: the iteration to begin with.
        rank: the process,
        count: of so many, which share the parts of each batch evenly.
    """
    own = parts // count
    iteration = first
    while True:
        for part in range(rank * own, (rank + 1) * own):
            start = (iteration * parts + part) * size
            yield list(range(start, start + size))
        iteration += 1


def stack(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Photos [N, 3, h, w] and labels [N, h, w].

    Raises:
        ValueError: they differ in size.
    """
    sizes = sorted({tuple(labels.shape) for _, labels in samples})
    if len(sizes) > 1:
        raise ValueError(
            f"photos of one batch are {' and '.join(size_of(size) for size in sizes[:2])} pixels: "
            "crop them to one size, or take one photo in each part"
        )
    photos, labels = zip(*samples, strict=True)
    return torch.stack(photos), torch.stack(labels)
