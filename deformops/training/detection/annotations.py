"""What files say about photos: Pascal VOC's XML and COCO's JSON, as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from deformops.training.data import PHOTOS

Corners = tuple[float, float, float, float]


class Mention(NamedTuple):
    """An object as a file mentions it."""

    where: str
    """The file and the number, for messages."""
    name: str
    """Of its class."""
    corners: Corners
    """(x1, y1, x2, y2) in pixels, the first of which is 0; the last belongs to the box."""
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    """Of its outline, in pixels."""


class Annotation(NamedTuple):
    """A photo and all that a file says about it."""

    photo: Path
    mentions: list[Mention]


def read_voc(folder: Path, split: str | None) -> Iterator[Annotation]:
    """What a folder laid out as Pascal VOC's says.

    Args:
        folder: has `Annotations/*.xml`, `JPEGImages` and `ImageSets/Main/*.txt`.
        split: the name of such a text, with the name of a photo at the start of each line; None:
            everything in `Annotations`.

    Raises:
        ValueError: it is laid out otherwise, or a file is missing or broken.
    """
    notes, photos = folder / "Annotations", folder / "JPEGImages"
    if not (notes.is_dir() and photos.is_dir()):
        raise ValueError(
            f"{folder}: expected the folders Annotations and JPEGImages in it; it "
            + (f"has {_entries(folder)}" if folder.is_dir() else "is no folder")
        )
    for name in _names(folder, split):
        file = notes / f"{name}.xml"
        yield Annotation(_photo(photos, name, file), list(_voc_mentions(file)))


def read_coco(file: Path, photos: Path | None) -> tuple[list[str], Iterator[Annotation]]:
    """What a file of COCO's says.

    Args:
        file: JSON with `images`, `annotations` and `categories`.
        photos: the folder in which the files of the images are. None: that of the file, the one
            above, or one in these that is called `images`, `JPEGImages`, or as the file without
            `instances_`.

    Returns:
        The names of the classes, by their numbers in the file; and the photos.

    Raises:
        ValueError: the file, or one of the photos, is missing or broken.
    """
    try:
        contents = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}") from error
    parts = ("images", "annotations", "categories")
    if not isinstance(contents, dict) or not all(
        isinstance(contents.get(part), list) for part in parts
    ):
        raise ValueError(f"{file}: expected COCO's lists {', '.join(parts)}")
    try:
        names = {entry["id"]: str(entry["name"]) for entry in contents["categories"]}
        files = {entry["id"]: str(entry["file_name"]) for entry in contents["images"]}
        of_photo: dict[Any, list[Mention]] = {number: [] for number in files}
        for entry in contents["annotations"]:
            of_photo[entry["image_id"]].append(_coco_mention(file, entry, names))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: an entry lacks or refers to what is not there: {error}"
        ) from error

    places = list(_photo_folders(file)) if photos is None else [photos]
    first = next(iter(files.values()), "")
    folder = next((place for place in places if (place / first).is_file()), places[0])

    def annotations() -> Iterator[Annotation]:
        for number, name in files.items():
            if not (folder / name).is_file():
                raise ValueError(f"{file} names the photo {name}; it is not in {folder}")
            yield Annotation(folder / name, of_photo[number])

    return [names[number] for number in sorted(names)], annotations()


def _names(folder: Path, split: str | None) -> Sequence[str]:
    if split is None:
        return sorted(file.stem for file in (folder / "Annotations").glob("*.xml"))
    lists = folder / "ImageSets" / "Main"
    try:
        lines = (lists / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        there = sorted(file.stem for file in lists.glob("*.txt"))
        raise ValueError(
            f"{lists / split}.txt cannot be read: {error}; expected one of "
            f"{', '.join(there) or 'such texts, got none'}"
        ) from error
    return [line.split()[0] for line in lines if line.strip()]


def _photo(folder: Path, name: str, notes: Path) -> Path:
    for ending in PHOTOS:
        for file in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
            if file.is_file():
                return file
    raise ValueError(f"{folder}: expected a photo {name}.jpg for {notes}, got none")


def _voc_mentions(file: Path) -> Iterator[Mention]:
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{file} cannot be read as XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{file}: expected Pascal VOC's <annotation>, got <{root.tag}>")
    for number, entry in enumerate(root.findall("object"), 1):
        where = f"{file}, object {number}"
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"{where} has no <name>")
        # The first pixel is 1.
        sides = [_number(entry.findtext(f"bndbox/{side}")) - 1 for side in _VOC_SIDES]
        difficult = (entry.findtext("difficult") or "0").strip() not in ("0", "")
        yield Mention(where, name, (sides[0], sides[1], sides[2], sides[3]), difficult)


_VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _photo_folders(file: Path) -> Iterator[Path]:
    """Where the photos of a file of COCO's may be."""
    for place in (file.parent, file.parent.parent):
        yield place
        for name in ("images", "JPEGImages", file.stem.removeprefix("instances_")):
            yield place / name
            yield place / "images" / name


def _coco_mention(file: Path, entry: Mapping[str, Any], names: Mapping[Any, str]) -> Mention:
    numbers = entry["bbox"]
    x, y, width, height = (
        [_number(n) for n in numbers]
        if isinstance(numbers, list) and len(numbers) == 4
        else [math.nan] * 4
    )
    return Mention(
        f"{file}, annotation {entry.get('id', '?')}",
        names[entry["category_id"]],
        (x, y, x + max(width - 1, 0), y + max(height - 1, 0)),
        crowd=bool(entry.get("iscrowd", 0)),
        area=float(entry["area"]) if "area" in entry else None,
    )


def _number(text: Any) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _entries(folder: Path) -> str:
    return ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
