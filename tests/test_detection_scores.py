"""Scores of detections on photos: VOC's and COCO's, by hand; and what a predictor finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from deformops.nets.detection import Batch, ClassAwareRPN, Detector
from deformops.nets.preprocessing import Preprocessing
from deformops.training import Processes
from deformops.training.detection.data import AnnotatedPhotos, Objects
from deformops.training.detection.inference import DetectionPredictor, evaluate_detector
from deformops.training.detection.network import DetectionNetwork
from deformops.training.detection.scores import COCO_NAMES, DetectionScores
from tests.detection_data import CELLS, SIZE, write_voc


def objects(
    boxes: list[list[float]], labels: list[int], difficult: int = -1, crowd: int = -1
) -> Objects:
    places = torch.arange(len(labels))
    corners = torch.tensor(boxes).reshape(-1, 4)
    areas = (corners[:, 2:] - corners[:, :2] + 1).prod(-1)
    return Objects(corners, torch.tensor(labels), places == difficult, places == crowd, areas)


def photos(*annotations: Objects) -> AnnotatedPhotos:
    count = len(annotations)
    return AnnotatedPhotos([Path("no.jpg")] * count, [(480, 640)] * count, annotations, ("a", "b"))


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores),
    }


ONE, TWO, FAR = [10.0, 10, 49, 49], [100.0, 100, 239, 239], [400.0, 300, 479, 379]


def test_perfect_and_none() -> None:
    scores = DetectionScores(photos(objects([ONE, TWO], [1, 2]), objects([FAR], [1])))
    scores.add(1, found([FAR], [1], [0.9]))
    scores.add(0, found([TWO, ONE], [2, 1], [0.8, 0.7]))
    assert scores.counts().tolist() == [2, 1]
    for eleven_points in (False, True):
        assert scores.voc(eleven_points=eleven_points).tolist() == [1, 1]
    coco = scores.coco()
    assert coco.classes.tolist() == pytest.approx([1, 1])
    assert list(coco.summary) == list(COCO_NAMES)
    assert coco.summary["AP"] == coco.summary["AP75"] == pytest.approx(1)
    # 40 x 40 is medium, 140 x 140 large.
    assert math.isnan(coco.summary["AP small"])
    assert coco.summary["AP large"] == pytest.approx(1)
    nothing = DetectionScores(photos(objects([ONE], [1])))
    nothing.add(0, found([], [], []))
    assert nothing.voc()[0] == 0
    assert math.isnan(nothing.voc()[1])
    assert nothing.coco().classes[0] == 0
    assert math.isnan(nothing.coco().classes[1])


def test_overlaps() -> None:
    """Sides are inclusive: 30 of 40 columns overlap by .75, enough for six of COCO's ten IoUs."""
    narrow = [10.0, 10, 39, 49]
    scores = DetectionScores(photos(objects([ONE], [1]), objects([TWO], [1])))
    scores.add(0, found([narrow], [1], [0.9]))
    assert scores.voc().tolist()[0] == 1  # Only photos that were added count.
    assert scores.voc(iou_threshold=0.74)[0] == 1
    assert scores.voc(iou_threshold=0.75)[0] == 0
    coco = scores.coco()
    assert float(coco.classes[0]) == pytest.approx(0.6)
    assert coco.summary["AP75"] == pytest.approx(1)
    scores.add(1, found([], [], []))
    assert scores.voc()[0] == 0.5
    # 51 of the 101 recalls 0, 0.01, ... are at most a half.
    assert scores.coco().summary["AP50"] == pytest.approx(51 / 101)


@pytest.mark.parametrize("free", ["difficult", "crowd"])
def test_what_need_not_be_found(free: str) -> None:
    """It is not missed, and finding it is no mistake."""
    truth = photos(objects([ONE, TWO], [1, 1], **{free: 1}))
    for more in ([], [TWO], [TWO, TWO]):
        scores = DetectionScores(truth)
        said = [*more, ONE]
        scores.add(0, found(said, [1] * len(said), [0.9 - n / 10 for n in range(len(said))]))
        assert scores.counts().tolist() == [1, 0]
        assert scores.voc()[0] == 1
        assert float(scores.coco().classes[0]) == pytest.approx(1)


def test_areas_of_outlines() -> None:
    """COCO's sizes are those of outlines where they are known."""
    truth = objects([TWO], [1])
    thin = Objects(truth.boxes, truth.labels, truth.difficult, truth.crowd, torch.tensor([500.0]))
    scores = DetectionScores(photos(thin))
    scores.add(0, found([TWO], [1], [0.5]))
    assert scores.coco().summary["AP small"] == pytest.approx(1)
    assert math.isnan(scores.coco().summary["AP large"])


def test_bad_use() -> None:
    scores = DetectionScores(photos(objects([ONE], [1])))
    for ask in (scores.voc, scores.coco, scores.counts):
        with pytest.raises(ValueError, match="expected detections of a photo at least"):
            ask()
    with pytest.raises(ValueError, match="number: expected a photo of 1, each once, got 1"):
        scores.add(1, found([], [], []))
    scores.add(0, found([], [], []))
    with pytest.raises(ValueError, match="each once, got 0"):
        scores.add(0, found([], [], []))


class Dark(Detector):
    """Finds the smallest box around all that is dark; remembers what it was given."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1))
        self.given: list[Batch] = []

    preprocessing = Preprocessing((0.0, 0.0, 0.0))

    def losses(self, *_: object) -> dict[str, Tensor]:
        return {}

    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        self.given.append(batch)
        y, x = torch.nonzero(batch.images[0].mean(0) < 120, as_tuple=True)
        box = [float(n) for n in (x.min(), y.min(), x.max(), y.max())]
        return [found([box], [1], [0.5])]


def test_predictor() -> None:
    """Boxes come back in pixels of the photo, within it, whatever size the network sees."""
    photo = torch.full((3, 60, 80), 200, dtype=torch.uint8)
    photo[:, 20:40, 60:] = 30
    for size, scale in (((60, 100), 1.0), ((120, 200), 2.0), ((30, 100), 0.5), ((60, 40), 0.5)):
        net = Dark()
        seen = DetectionPredictor(net, size).detections(photo)
        ((images, image_sizes, image_scales),) = net.given
        assert images.shape[2:] == (60 * scale, 80 * scale)
        assert image_sizes.tolist() == [list(images.shape[2:])]
        assert image_scales.tolist() == [scale]
        box = seen["boxes"][0]
        assert (box - torch.tensor([60, 20, 79, 39])).abs().max() <= 1
        assert box[2] <= 79


def test_evaluation(tmp_path: Path) -> None:
    """Every photo is scored once; the processes' parts are put together."""
    truth = AnnotatedPhotos.of(write_voc(tmp_path / "voc"), "train")

    class Together(Processes):
        def gather(self, value: Mapping[int, object]) -> list[Mapping[int, object]]:  # type: ignore[override]
            return [value]

    told: list[tuple[int, int]] = []
    scores = evaluate_detector(
        DetectionPredictor(Dark(), SIZE), truth, on_photo=lambda *numbers: told.append(numbers)
    )
    assert sorted(scores.found) == [0, 1]
    assert told == [(1, 2), (2, 2)]
    # Photo two has one square.
    near = torch.tensor([CELLS["two"][0][1:]], dtype=torch.float32)
    assert (scores.found[1]["boxes"] - near).abs().max() <= 1
    second = evaluate_detector(
        DetectionPredictor(Dark(), SIZE), truth, processes=Together(rank=1, count=2)
    )
    assert sorted(second.found) == [1]


@pytest.mark.parametrize("name", ["faster-rcnn-zf", "class-aware-rpn-resnet50"])
def test_predictor_of_a_detector(name: str) -> None:
    torch.manual_seed(0)
    net = DetectionNetwork(name, ("a", "b"), {"width": 0.03}, settings={"min_score": 0.0}).build()
    photo = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    seen = DetectionPredictor(net, (180, 400)).detections(photo)
    assert not net.training
    assert 0 < len(seen["boxes"]) <= 100
    assert seen["boxes"].max() > 90
    assert (seen["boxes"] <= torch.tensor([119, 89, 119, 89])).all()
    assert isinstance(net, ClassAwareRPN) == name.startswith("class")
