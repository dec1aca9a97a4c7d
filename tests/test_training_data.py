"""Photos with labels: which are found, how they vary, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from PIL import Image

from deformops.pictures import PictureError
from deformops.training import (
    Augmentation,
    LabelledPhotos,
    Samples,
    class_names,
    color_components,
    find_split,
    ten_crops,
)
from deformops.training.data import numbers_of, stack
from tests.training_net import photo, write_photos

WHOLE = Augmentation(crop=None, mirror=False)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pair(number: int = 0, size: tuple[int, int] = (24, 32)) -> tuple[torch.Tensor, torch.Tensor]:
    colors, labels = photo(number, size)
    return torch.from_numpy(colors).permute(2, 0, 1).contiguous(), torch.from_numpy(labels)


# --- folders --------------------------------------------------------------------------------------


def test_folder(tmp_path: Path) -> None:
    photos = LabelledPhotos.of(write_photos(tmp_path))
    assert len(photos) == 6
    assert photos.classes == 3
    for number in range(6):
        image, labels = photos[number]
        colors, want = photo(number)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), colors)
        assert np.array_equal(labels.numpy(), want)
        assert image.dtype == labels.dtype == torch.uint8


def test_find_split(tmp_path: Path) -> None:
    write_photos(tmp_path / "split" / "train", 1)
    write_photos(tmp_path / "flat", 1)
    assert find_split(tmp_path / "split", "train") == tmp_path / "split" / "train"
    assert find_split(tmp_path / "flat", "train") == tmp_path / "flat"
    assert find_split(tmp_path / "flat", None) == tmp_path / "flat"
    with pytest.raises(ValueError, match=r"val: expected the folders images and labels.*train"):
        find_split(tmp_path / "split", "val")
    with pytest.raises(ValueError, match="nowhere is no folder"):
        find_split(tmp_path / "nowhere", "train")


def test_class_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("sky\n a house \n\n")
    assert class_names(file) == ["sky", "a house"]
    file.write_text("sky\n\nhouse\n")
    with pytest.raises(ValueError, match="name of a class in each line"):
        class_names(file)
    with pytest.raises(ValueError, match=r"none\.txt cannot be read"):
        class_names(tmp_path / "none.txt")


def remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink()


BAD_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no labels": (
        lambda f: remove(f / "labels" / f"{number}.png" for number in range(5)),
        "labels: expected a partner for each picture of .*images, none for 0, 1, 2 and 2 more",
    ),
    "no photo": (lambda f: remove([f / "images" / "3.png"]), "images: .* none for 3$"),
    "twice": (
        lambda f: Image.new("RGB", (32, 24)).save(f / "images" / "3.jpg"),
        r"3\.png and 3\.jpg have one name",
    ),
    "nothing": (
        lambda f: remove(list(f.glob("*/*.png"))),
        r"images: expected photos \(\.jpg, .*\), got none",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders(name: str, tmp_path: Path) -> None:
    change, says = BAD_FOLDERS[name]
    change(write_photos(tmp_path))
    with pytest.raises(ValueError, match=says):
        LabelledPhotos.of(tmp_path, classes=3)


BAD_PICTURES: dict[str, tuple[Any, str]] = {
    "size": (Image.new("L", (31, 24)), r"images/0\.png is 32 x 24 pixels, .*0\.png is 31 x 24"),
    "label": (Image.new("L", (32, 24), 3), r"has the label 3; expected 0 to 2, or 255"),
    "colours": (Image.new("RGB", (32, 24), (1, 2, 3)), "holds colours; expected the numbers"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures(name: str, tmp_path: Path) -> None:
    picture, says = BAD_PICTURES[name]
    photos = LabelledPhotos.of(write_photos(tmp_path), classes=3)
    picture.save(tmp_path / "labels" / "0.png")
    with pytest.raises(PictureError, match=says):
        photos[0]


def test_another_label_to_ignore(tmp_path: Path) -> None:
    """CamVid's way: the number after the last class says nothing."""
    write_photos(tmp_path)
    assert LabelledPhotos.of(tmp_path, ignore=2).classes == 256
    for file in (tmp_path / "labels").iterdir():
        labels = np.asarray(Image.open(file)).copy()
        labels[labels == 255] = 3
        Image.fromarray(labels).save(file)
    photos = LabelledPhotos.of(tmp_path, ignore=3)
    assert photos.classes == 3
    assert set(photos[1][1].unique().tolist()) == {0, 1, 2, 3}


# --- the row of samples ---------------------------------------------------------------------------


def test_samples(tmp_path: Path) -> None:
    """All photos in each round, in another order; a sample is the same whenever it is asked for."""
    photos = LabelledPhotos.of(write_photos(tmp_path), classes=3)
    samples = Samples(photos, WHOLE, seed=3)

    def which(number: int) -> int:
        image = samples[number][0]
        return next(n for n in range(6) if torch.equal(image, photos[n][0]))

    rounds = [[which(number) for number in range(6 * turn, 6 * turn + 6)] for turn in range(4)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    varied = Samples(photos, Augmentation(scales=(0.5, 1.5), crop=(16, 16)), seed=3)
    again = Samples(photos, Augmentation(scales=(0.5, 1.5), crop=(16, 16)), seed=3)
    other = Samples(photos, Augmentation(scales=(0.5, 1.5), crop=(16, 16)), seed=4)
    for number in (11, 2, 40):
        assert torch.equal(varied[number][0], again[number][0])
        assert torch.equal(varied[number][1], again[number][1])
    assert any(not torch.equal(varied[number][0], other[number][0]) for number in range(6))


def test_numbers() -> None:
    """However many processes and parts: step after step, the same samples."""

    def taken(parts: int, count: int, first: int) -> list[list[int]]:
        rows = [numbers_of(parts, 12 // parts, first, rank, count) for rank in range(count)]
        steps = []
        for _ in range(3):
            steps.append([n for row in rows for _ in range(parts // count) for n in next(row)])
        return steps

    want = [list(range(12 * step, 12 * step + 12)) for step in (5, 6, 7)]
    for parts, count in ((1, 1), (2, 1), (2, 2), (6, 2), (6, 3), (4, 4)):
        assert taken(parts, count, 5) == want


def test_stack() -> None:
    photos, labels = stack([pair(0), pair(1)])
    assert photos.shape == (2, 3, 24, 32)
    assert labels.shape == (2, 24, 32)
    with pytest.raises(ValueError, match="32 x 24 and 32 x 25 pixels: crop them"):
        stack([pair(0), pair(1, (25, 32))])


# --- augmentation ---------------------------------------------------------------------------------


def test_ten_crops() -> None:
    """The ten slices, mirrored ones last."""
    images = torch.randn(2, 3, 256, 256)
    crops = ten_crops(images, 224)
    want = [
        images[..., :224, :224],
        images[..., :224, 32:],
        images[..., 32:, :224],
        images[..., 32:, 32:],
        images[..., 16:240, 16:240],
    ]
    assert crops.shape == (10, 2, 3, 224, 224)
    for number, slice_ in enumerate(want):
        assert torch.equal(crops[number], slice_)
        assert torch.equal(crops[number + 5], slice_.flip(-1))
    assert ten_crops(images, (256, 1)).shape == (10, 2, 3, 256, 1)
    with pytest.raises(ValueError, match="size: expected 1 x 1 up to the images' 256 x 256, got"):
        ten_crops(images, 257)


def test_crops() -> None:
    """Windows of photo and labels at the same place, of all places; every second one mirrored."""
    image = (
        torch.arange(24 * 32).remainder(256).to(torch.uint8).reshape(1, 24, 32).expand(3, -1, -1)
    )
    labels = image[0]
    augmentation = Augmentation(crop=(22, 29))
    places, mirrored = set(), 0
    for seed in range(200):
        crop, label = augmentation(image, labels, random(seed))
        assert crop.shape == (3, 22, 29)
        assert torch.equal(crop[0], label)
        mirror = bool(label[0, 0] > label[0, 1])
        mirrored += mirror
        place = label.flip(-1) if mirror else label
        y, x = divmod(int(place[0, 0]), 32)
        assert torch.equal(place, labels[y : y + 22, x : x + 29])
        places.add((y, x))
    assert places == {(y, x) for y in range(3) for x in range(4)}
    assert 70 < mirrored < 130


def test_crops_larger_than_the_photo() -> None:
    image, labels = pair()
    augmentation = Augmentation(crop=(30, 20), mirror=False, fill=(1, 2, 3), ignore=11)
    crop, label = augmentation(image, labels, random())
    assert crop.shape == (3, 30, 20)
    assert (label[24:] == 11).all()
    assert crop[:, 24:].unique(dim=1)[:, 0, 0].tolist() == [1, 2, 3]
    assert (label[:24] != 11).all()


def test_scales() -> None:
    """Photo and labels grow together; labels stay labels."""
    image, labels = pair()
    sizes = set()
    for seed in range(40):
        augmentation = Augmentation(scales=(0.5, 1.0, 1.5), crop=None, reduce=2)
        small, label = augmentation(image, labels, random(seed))
        assert small.shape[1:] == label.shape
        assert set(label.unique().tolist()) <= set(labels.unique().tolist())
        sizes.add(tuple(label.shape))
    assert sizes == {(6, 8), (12, 16), (18, 24)}
    constant = torch.full_like(image, 77)
    assert (Augmentation(scales=(1.5,), crop=None)(constant, labels, random())[0] == 77).all()


def test_lighting() -> None:
    """Adds the same to all pixels, along the components, so much as its deviation says."""
    colors = torch.tensor([[100, 110], [120, 140], [90, 90]], dtype=torch.uint8)
    image = colors[:, :, None].expand(-1, -1, 4).contiguous()
    components = color_components([image])
    # One component alone: half of the differences of the two colours.
    torch.testing.assert_close(components[2].abs(), torch.tensor([5.0, 10.0, 0.0]))
    torch.testing.assert_close(components[:2], torch.zeros(2, 3), atol=1e-3, rtol=0)
    augmentation = Augmentation(
        crop=None,
        mirror=False,
        lighting=0.5,
        components=tuple(tuple(row) for row in components.tolist()),
    )
    shifts = []
    for seed in range(300):
        lit, _ = augmentation(image, torch.zeros(2, 4, dtype=torch.uint8), random(seed))
        shift = (lit.int() - image.int()).flatten(1)
        assert (shift == shift[:, :1]).all()
        shifts.append(shift[:, 0].float())
    spread = torch.stack(shifts).std(0)
    assert spread[1] == pytest.approx(0.5 * 10, rel=0.15)
    assert spread[0] == pytest.approx(0.5 * 5, rel=0.15)
    assert spread[2] == 0


BAD = {
    "reduce": ({"reduce": 0}, r"reduce: expected numbers above 0, got \[0\]"),
    "scales": ({"scales": ()}, "scales: expected numbers above 0"),
    "crop": ({"crop": (0, 3)}, "crop: expected at least 1 x 1"),
    "lighting": ({"lighting": 0.1}, "lighting: .*the components with it"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_augmentations(name: str) -> None:
    options, says = BAD[name]
    with pytest.raises(ValueError, match=says):
        Augmentation(**options)
