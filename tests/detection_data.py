"""Small folders of photos with boxes, as Pascal VOC and COCO lay them out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: A class and (x1, y1, x2, y2), the first pixel being 0 and the last belonging to the box.
Box = tuple[str, float, float, float, float]

SIZE = (48, 64)

#: What two photos show.
CELLS: dict[str, list[Box]] = {
    "one": [("cell", 4, 6, 23, 25), ("wheel", 30, 8, 57, 39)],
    "two": [("cell", 10, 10, 33, 29)],
}


def photo(boxes: Sequence[Box], size: tuple[int, int] = SIZE) -> Image.Image:
    """A noisy ground, and a dark square for each box."""
    random = np.random.default_rng(len(boxes))
    pixels = random.integers(150, 200, (*size, 3), dtype=np.uint8)
    for _, x1, y1, x2, y2 in boxes:
        pixels[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = (90, 40, 60)
    return Image.fromarray(pixels)


def xml(boxes: Sequence[Box], more: str = "") -> str:
    """What LabelImg and the challenge's files say, the first pixel being 1."""
    entries = [
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2 + 1}</xmax><ymax>{y2 + 1}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    ]
    return f"<annotation>{''.join(entries)}{more}</annotation>"


def write_voc(folder: Path, contents: Mapping[str, Sequence[Box]] | None = None) -> Path:
    """A folder with a split `train` of all photos, and `test` of the first."""
    contents = CELLS if contents is None else contents
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, boxes in contents.items():
        photo(boxes).save(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(xml(boxes))
    names = list(contents)
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(names) + "\n")
    (folder / "ImageSets/Main/test.txt").write_text(f"{names[0]}  1\n\n")
    return folder


def coco(contents: Mapping[str, Sequence[Box]] | None = None) -> dict[str, Any]:
    """The same as COCO's file says it; the classes are 7, 3, ... by the alphabet."""
    contents = CELLS if contents is None else contents
    classes = sorted({box[0] for boxes in contents.values() for box in boxes})
    numbers = {name: 3 + 4 * n for n, name in enumerate(reversed(classes))}
    annotations = [
        {
            "id": 100 * n + k,
            "image_id": n,
            "category_id": numbers[name],
            "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
        }
        for n, boxes in enumerate(contents.values())
        for k, (name, x1, y1, x2, y2) in enumerate(boxes)
    ]
    return {
        "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(contents)],
        "annotations": annotations,
        "categories": [{"id": numbers[name], "name": name} for name in classes],
    }


def write_coco(folder: Path, contents: Mapping[str, Sequence[Box]] | None = None) -> Path:
    """A folder with `annotations/instances_train.json` and the photos in `train`."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    for name, boxes in (CELLS if contents is None else contents).items():
        photo(boxes).save(folder / "train" / f"{name}.jpg")
    file = folder / "annotations" / "instances_train.json"
    file.write_text(json.dumps(coco(contents)))
    return folder
