"""Photos with boxes: Pascal VOC's folders, COCO's files, and what can be wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from PIL import ExifTags, Image

from deformops.pictures import PictureError, photo_size, read_photo
from deformops.training.detection.data import AnnotatedPhotos
from tests.detection_data import CELLS, SIZE, Box, coco, write_coco, write_voc, xml

BCCD = Path(__file__).resolve().parents[2] / "shared" / "data" / "bccd"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc")


def test_voc(voc: Path) -> None:
    """Corners count from 0 here, from 1 there; the text says which photos, by its first words."""
    photos = AnnotatedPhotos.of(voc, "train")
    assert (len(photos), photos.class_names, photos.problems) == (2, ("cell", "wheel"), [])
    image, objects = photos[0]
    assert (image.shape, image.dtype) == ((3, *SIZE), torch.uint8)
    assert objects.boxes.tolist() == [list(box[1:]) for box in CELLS["one"]]
    assert objects.labels.tolist() == [1, 2]
    assert objects.areas.tolist() == [20 * 20, 28 * 32]
    assert not objects.difficult.any()
    assert not objects.crowd.any()
    assert photos.objects(1).boxes.tolist() == [[10, 10, 33, 29]]
    assert (photos.size(1), len(photos.objects(0))) == (SIZE, 2)
    assert len(AnnotatedPhotos.of(voc, "test")) == 1
    assert len(AnnotatedPhotos.of(voc)) == 2
    named = AnnotatedPhotos.of(voc, "train", ("bolt", "wheel", "cell"))
    assert named.objects(0).labels.tolist() == [3, 2]


def test_coco(tmp_path: Path) -> None:
    """The same photos as in a folder of Pascal VOC's; labels follow the numbers of the classes."""
    folder = write_coco(tmp_path / "coco")
    same = AnnotatedPhotos.of(write_voc(tmp_path / "voc"), "train")
    file = folder / "annotations" / "instances_train.json"
    for place, split in ((folder, "train"), (folder, None), (file, None)):
        photos = AnnotatedPhotos.of(place, split)
        assert photos.class_names == ("wheel", "cell")
        assert photos.objects(0).labels.tolist() == [2, 1]
        for number in range(2):
            assert torch.equal(photos[number][0], same[number][0])
            assert torch.equal(photos.objects(number).boxes, same.objects(number).boxes)
            assert torch.equal(photos.objects(number).areas, same.objects(number).areas)
    named = AnnotatedPhotos.of(folder, "train", same.class_names)
    assert torch.equal(named.objects(0).labels, same.objects(0).labels)


def test_coco_of_crowds_and_outlines(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    contents = coco()
    contents["annotations"][1] |= {"iscrowd": 1, "area": 12.5}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(contents))
    objects = AnnotatedPhotos.of(folder, "train").objects(0)
    assert objects.crowd.tolist() == [False, True]
    assert objects.areas.tolist() == [400, 12.5]
    elsewhere = folder / "elsewhere"
    (folder / "train").rename(elsewhere)
    file = folder / "annotations" / "instances_train.json"
    assert len(AnnotatedPhotos.coco(file, elsewhere)) == 2


def test_difficult(voc: Path) -> None:
    """`difficult` may be missing, and numbers may have fractions."""
    (voc / "Annotations" / "two.xml").write_text(
        "<annotation>"
        "<object><name>cell</name><bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>9</xmax>"
        "<ymax>30</ymax></bndbox><part><name>rim</name><bndbox/></part></object>"
        "<object><name>cell</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>2</ymin>"
        "<xmax>9</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    objects = AnnotatedPhotos.voc(voc, "train").objects(1)
    assert objects.difficult.tolist() == [False, True]
    assert objects.boxes[0].tolist() == [0.5, 1, 8, 29]


def test_boxes_that_are_wrong(voc: Path) -> None:
    """They are clipped or dropped and told of, with their file and number; none is fatal."""
    wrong: dict[str, list[Box]] = {
        "clipped": [("cell", -5, 3, 20, 40), ("cell", 40, 10, 90, 20)],
        "one pixel too far": [("cell", -1, 0, 64, 48)],
        "dropped": [
            ("cell", 30, 10, 30, 10),
            ("cell", 30, 10, 20, 40),
            ("cell", 70, 10, 90, 20),
            ("cell", float("nan"), 1, 5, 5),
            ("cell", float("inf"), 1, 5, 5),
        ],
    }
    boxes = [box for some in wrong.values() for box in some]
    # One more, of which a side is missing.
    more = "<object><name>cell</name><bndbox><xmin>3</xmin></bndbox></object>"
    (voc / "Annotations" / "one.xml").write_text(xml(boxes, more))
    photos = AnnotatedPhotos.voc(voc, "train")
    assert photos.objects(0).boxes.tolist() == [[0, 3, 20, 40], [40, 10, 63, 20], [0, 0, 63, 47]]
    says = [
        (int(re.search(r"one.xml, object (\d+) \(cell\)", line)[1])) for line in photos.problems
    ]
    assert says == [1, 2, 4, 5, 6, 7, 8, 9]
    for number, line in zip(says, photos.problems, strict=True):
        assert line.endswith("clipped" if number < 3 else "dropped")
    assert len(photos.objects(1)) == 1


def test_photos_without_objects(voc: Path) -> None:
    (voc / "Annotations" / "two.xml").write_text("<annotation></annotation>")
    objects = AnnotatedPhotos.voc(voc, "train").objects(1)
    assert objects.boxes.shape == (0, 4)
    assert len(objects) == 0


def test_upright(tmp_path: Path) -> None:
    """A photo that says it lies on its side is measured as it is shown."""
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[ExifTags.Base.Orientation] = orientation
        file = tmp_path / f"{orientation}.jpg"
        Image.new("RGB", (30, 20)).save(file, exif=exif)
        assert photo_size(file) == read_photo(file).shape[:2]
        assert photo_size(file) == ((20, 30) if orientation < 5 else (30, 20))


def _edit(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


BAD_VOC = {
    "no annotation": (_remove("Annotations/two.xml"), r"two\.xml cannot be read as XML"),
    "no photo": (_remove("JPEGImages/two.jpg"), r"expected a photo two\.jpg for .*two\.xml"),
    "no XML": (_edit("Annotations/two.xml", "hello"), r"two\.xml cannot be read as XML"),
    "other XML": (_edit("Annotations/two.xml", "<svg/>"), "expected Pascal VOC's <annotation>"),
    "no picture": (_edit("JPEGImages/two.jpg", "hello"), r"two\.jpg cannot be read as a photo"),
    "nothing": (_edit("ImageSets/Main/train.txt", "\n"), "expected photos, got none"),
    "no name": (_edit("Annotations/two.xml", "<annotation><object/></annotation>"), "no <name>"),
}


@pytest.mark.parametrize("name", BAD_VOC)
def test_bad_voc(name: str, voc: Path) -> None:
    spoil, says = BAD_VOC[name]
    spoil(voc)
    with pytest.raises(ValueError, match=says):
        AnnotatedPhotos.of(voc, "train")


def test_bad_places(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder, and no file"):
        AnnotatedPhotos.of(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match=r"expected Pascal VOC's folders .*; it has voc$"):
        AnnotatedPhotos.of(tmp_path, "train")
    coco_place = write_coco(tmp_path / "coco")
    with pytest.raises(ValueError, match=r"split dev .*has annotations.instances_train\.json$"):
        AnnotatedPhotos.of(coco_place, "dev")
    (coco_place / "val.json").write_text("{}")
    with pytest.raises(ValueError, match=r"one file of COCO's in .*instances_train.*, val\.json$"):
        AnnotatedPhotos.of(coco_place)
    with pytest.raises(ValueError, match=r"expected the folders Annotations .* it is no folder"):
        AnnotatedPhotos.voc(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"dev\.txt cannot be read: .*expected one of test, train"):
        AnnotatedPhotos.of(voc, "dev")
    with pytest.raises(
        ValueError, match=r"one.xml, object 2 is a wheel; expected one of cell, pin"
    ):
        AnnotatedPhotos.of(voc, "train", ("cell", "pin"))
    for name in CELLS:
        (voc / "Annotations" / f"{name}.xml").write_text(xml([]))
    with pytest.raises(ValueError, match="expected objects, got 2 photos without any"):
        AnnotatedPhotos.of(voc, "train")
    cut = write_voc(tmp_path / "cut")
    photo = cut / "JPEGImages" / "one.jpg"
    photo.write_bytes(photo.read_bytes()[:700])
    with pytest.raises(PictureError, match=r"one\.jpg cannot be read as a photo"):
        AnnotatedPhotos.of(cut, "train")[0]


BAD_COCO = {
    "no JSON": ("hello", "cannot be read as JSON"),
    "other JSON": ('{"images": []}', "expected COCO's lists images, annotations, categories"),
    "no category": (json.dumps(coco() | {"categories": []}), "lacks or refers to .* 7"),
    "no image": (json.dumps(coco() | {"images": []}), "lacks or refers to .* 0"),
    "no box": (
        json.dumps(coco() | {"annotations": [{"image_id": 0, "category_id": 3}]}),
        "lacks or refers to .*bbox",
    ),
    "no photo": (
        json.dumps(coco() | {"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(2)]}),
        r"names the photo 0\.jpg",
    ),
}


@pytest.mark.parametrize("name", BAD_COCO)
def test_bad_coco(name: str, tmp_path: Path) -> None:
    text, says = BAD_COCO[name]
    folder = write_coco(tmp_path / "coco")
    (folder / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        AnnotatedPhotos.of(folder, "train")
    assert "instances_train.json" in str(caught.value)


def test_a_box_of_coco_that_is_none(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    contents = coco()
    for entry, box in zip(contents["annotations"], ([1, 2], [3, 4, 0, 9], None), strict=True):
        entry["bbox"] = box
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(contents))
    photos = AnnotatedPhotos.of(folder, "train")
    assert [len(photos.objects(n)) for n in range(2)] == [0, 0]
    assert [line.rsplit(": ", 1)[1] for line in photos.problems] == ["dropped"] * 3
    assert "annotation 100 (cell)" in photos.problems[2]


@pytest.mark.skipif(not BCCD.is_dir(), reason="photos with boxes are not at ../shared/data/bccd")
def test_blood_cells() -> None:
    """364 photos, 4888 boxes; two are of a single pixel."""
    counts = {"train": 205, "val": 87, "trainval": 292, "test": 72}
    for split, count in counts.items():
        assert len(AnnotatedPhotos.of(BCCD, split)) == count
    photos = AnnotatedPhotos.of(BCCD)
    assert photos.class_names == ("Platelets", "RBC", "WBC")
    assert sum(len(objects) for objects in photos.annotations) == 4886
    assert [line.rsplit(": ", 1)[1] for line in photos.problems] == ["dropped"] * 2
