"""Average precision: cases by hand, and a loop over detections."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deformops.nets.detection import average_precision, voc_average_precision
from tests.reference.suppression import box_iou
from tests.test_detection_anchors import random_boxes


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def test_by_hand() -> None:
    """Right, wrong, right, wrong, of four objects."""
    recall, precision = torch.tensor([0.25, 0.25, 0.5, 0.5]), torch.tensor([1, 1 / 2, 2 / 3, 1 / 2])
    assert average_precision(recall, precision) == pytest.approx(0.25 + 0.25 * 2 / 3)
    eleven = (3 * 1 + 3 * 2 / 3) / 11
    assert average_precision(recall, precision, eleven_points=True) == pytest.approx(eleven)
    nothing = torch.zeros(0)
    assert average_precision(nothing, nothing) == 0
    assert average_precision(nothing, nothing, eleven_points=True) == 0
    for eleven_points in (False, True):
        assert average_precision(torch.ones(1), torch.ones(1), eleven_points=eleven_points) == 1


def test_recalls_that_are_whole_tenths_count() -> None:
    boxes = [[100.0 * n, 0, 100 * n + 50, 50] for n in range(20)]
    truth = {"boxes": torch.tensor(boxes), "labels": torch.ones(20, dtype=torch.int64)}
    for tenths in range(1, 11):
        seen = found(boxes[: 2 * tenths], [0.5] * 2 * tenths, [1] * 2 * tenths)
        score = voc_average_precision([seen], [truth], 2, eleven_points=True)[1]
        assert float(score) == pytest.approx((tenths + 1) / 11)


def test_rules() -> None:
    box, other, far = [10.0, 10, 29, 29], [50.0, 50, 69, 69], [200.0, 200, 220, 220]
    truth = {"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 1])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}

    def score(*images: dict[str, Tensor], **options: bool) -> list[float]:
        targets = [truth, empty][: len(images)]
        return voc_average_precision(images, targets, 3, **options)[1:].tolist()

    assert score(found([box, other], [0.2, 0.1], [1, 1]))[0] == 1
    assert math.isnan(score(found([box, other], [0.2, 0.1], [1, 1]))[1])
    # The second detection of an object is false, and so is one in another image or class.
    assert score(found([box, box, other], [0.3, 0.2, 0.1], [1, 1, 1]))[0] == pytest.approx(5 / 6)
    assert score(found([box, other], [0.2, 0.1], [1, 2]))[0] == 0.5
    elsewhere = found([other], [0.15], [1])
    assert score(found([box], [0.2], [1]), elsewhere)[0] == 0.5
    assert score(found([far, box, other], [0.9, 0.2, 0.1], [1, 1, 1]))[0] == pytest.approx(2 / 3)
    assert score(found([], [], []))[0] == 0
    # 20 x 20 against 20 x 10: exactly a half is too little.
    half = found([[10.0, 10, 29, 19]], [0.9], [1])
    assert score(half)[0] == 0
    assert voc_average_precision([half], [truth], 2, iou_threshold=0.49)[1] == 0.5
    truth["difficult"] = torch.tensor([True, False])
    assert score(found([box, box, other], [0.3, 0.2, 0.1], [1, 1, 1]))[0] == 1


@pytest.mark.parametrize("eleven_points", [False, True])
def test_it_is_the_loop(eleven_points: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    detections, targets = [], []
    for n in range(5):
        truth = random_boxes(6, seed=n).float()
        seen = truth.repeat(4, 1) + torch.randn(24, 4, generator=generator) * 8
        labels = torch.randint(1, 3, (6,), generator=generator)
        kept = torch.randint(1, 4, (24,), generator=generator) < 3
        other = torch.where(kept, labels.repeat(4), 3 - labels.repeat(4))
        scores = torch.rand(24, generator=generator)
        detections.append({"boxes": seen, "scores": scores, "labels": other})
        difficult = torch.rand(6, generator=generator) < 0.2
        targets.append({"boxes": truth, "labels": labels, "difficult": difficult})
    result = voc_average_precision(detections, targets, 3, eleven_points=eleven_points)
    for label in (1, 2):
        entries = sorted(
            (-float(seen["scores"][k]), n, k)
            for n, seen in enumerate(detections)
            for k in range(24)
            if seen["labels"][k] == label
        )
        taken: set[tuple[int, int]] = set()
        curve: list[tuple[int, int]] = []
        right = 0
        for _, n, k in entries:
            own = (targets[n]["labels"] == label).numpy().nonzero()[0]
            boxes = targets[n]["boxes"].numpy()[own]
            row = box_iou(detections[n]["boxes"][k : k + 1].numpy(), boxes, plus_one=True)[0]
            best = int(own[row.argmax()]) if len(own) else -1
            if len(own) and row.max() > 0.5 and targets[n]["difficult"][best]:
                continue
            if len(own) and row.max() > 0.5 and (n, best) not in taken:
                taken.add((n, best))
                right += 1
            curve.append((right, len(curve) + 1))
        wanted = sum(int(((t["labels"] == label) & ~t["difficult"]).sum()) for t in targets)
        points = [(right / wanted, right / count) for right, count in curve]
        if eleven_points:
            levels = [max([p for r, p in points if r >= i / 10], default=0) for i in range(11)]
            expected = float(np.mean(levels))
        else:
            expected, before = 0.0, 0.0
            for recall, _ in points:
                expected += (recall - before) * max(p for r, p in points if r >= recall)
                before = recall
        assert float(result[label]) == pytest.approx(expected)
        assert 0.1 < expected < 0.9


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="precision: expected the shape of recall"):
        average_precision(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="detections: expected those of 0 images, got 1"):
        voc_average_precision([found([], [], [])], [], 2)
