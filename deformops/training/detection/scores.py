"""How good detections are: average precision as Pascal VOC and as COCO count it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deformops.nets.detection import voc_average_precision
from deformops.training.detection.data import AnnotatedPhotos, Objects

Entry = dict[str, Any]

#: The twelve numbers of COCO, as its program prints them.
COCO_NAMES = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large"),
)


@dataclass(frozen=True)
class CocoScores:
    """What COCO's program says of detections; NaN where there is no object.

    Attributes:
        summary: its twelve numbers, by `COCO_NAMES`; AP is the mean over the IoUs .5, .55, ... .95.
        classes: float64 [classes], the AP of each.
    """

    summary: Mapping[str, float]
    classes: Tensor


class DetectionScores:
    """Detections of photos, held against the objects that are there.

    Args:
        photos: whose objects are to be found.
    """

    def __init__(self, photos: AnnotatedPhotos) -> None:
        self.photos = photos
        self.found: dict[int, dict[str, Tensor]] = {}

    def add(self, number: int, detections: Mapping[str, Tensor]) -> None:
        """Keeps the detections of a photo.

        Args:
            number: of the photo.
            detections: "boxes" [K, 4], "scores" [K] and "labels" int64 [K], as detectors say them.

        Raises:
            ValueError: there is no such photo, or it was there before.
        """
        if not 0 <= number < len(self.photos) or number in self.found:
            raise ValueError(
                f"number: expected a photo of {len(self.photos)}, each once, got {number}"
            )
        self.found[number] = {name: value.detach().cpu() for name, value in detections.items()}

    def counts(self) -> Tensor:
        """How many objects of each class there are, without those that need not be found.

        Returns:
            int64 [classes].
        """
        labels = [objects.labels[~_free(objects)] for objects in self._objects()]
        classes = len(self.photos.class_names)
        return torch.bincount(torch.cat(labels), minlength=classes + 1)[1:]

    def voc(self, *, eleven_points: bool = False, iou_threshold: float = 0.5) -> Tensor:
        """Average precision as Pascal VOC counts it; see `voc_average_precision`.

        Args:
            eleven_points: as it did until 2009.
            iou_threshold: from where on an object counts as found.

        Returns:
            float64 [classes]; NaN for those of which there is no object. The mean is its
            `nanmean()`.

        Raises:
            ValueError: there is nothing to score.
        """
        objects = self._objects()
        truth = [
            {"boxes": one.boxes, "labels": one.labels, "difficult": _free(one)} for one in objects
        ]
        classes = len(self.photos.class_names) + 1
        precision = voc_average_precision(
            [self.found[number] for number in sorted(self.found)],
            truth,
            classes,
            iou_threshold=iou_threshold,
            eleven_points=eleven_points,
        )
        return precision[1:]

    def coco(self) -> CocoScores:
        """Average precision as COCO's own program counts it.

        Objects that are difficult are handed over as crowds: they need not be found, and what lies
        within them counts neither way. Boxes are as `photos` has them: clipped.

        Raises:
            ValueError: there is nothing to score.
            ModuleNotFoundError: pycocotools, the program, is not installed.
        """
        truth, said = self._coco_entries()
        # It tells of each step on the standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = _coco_evaluation(
                {
                    "images": [{"id": number} for number in sorted(self.found)],
                    "categories": [
                        {"id": label} for label in range(1, len(self.photos.class_names) + 1)
                    ],
                },
                truth,
                said,
            )
        numbers = np.where(evaluation.stats < 0, np.nan, evaluation.stats).tolist()
        # [IoUs, recalls, classes, sizes of objects, numbers of detections]; -1: no object.
        precision = torch.from_numpy(evaluation.eval["precision"])[:, :, :, 0, -1]
        of_classes = precision.masked_fill(precision < 0, torch.nan).nanmean((0, 1))
        return CocoScores(dict(zip(COCO_NAMES, numbers, strict=True)), of_classes)

    def _coco_entries(self) -> tuple[list[Entry], list[Entry]]:
        """The objects, and the detections."""
        self._objects()
        truth, said = [], []
        for number, seen in sorted(self.found.items()):
            objects = self.photos.objects(number)
            for entry, area, free in zip(
                _entries(number, objects.boxes, objects.labels),
                objects.areas.tolist(),
                _free(objects).tolist(),
                strict=True,
            ):
                truth.append({**entry, "area": area, "iscrowd": int(free)})
            for entry, score in zip(
                _entries(number, seen["boxes"], seen["labels"]),
                seen["scores"].tolist(),
                strict=True,
            ):
                _, _, width, height = entry["bbox"]
                said.append({**entry, "area": width * height, "score": score})
        return truth, said

    def _objects(self) -> list[Objects]:
        """Those of the photos that were added, in order."""
        if not self.found:
            raise ValueError("expected detections of a photo at least, got none")
        return [self.photos.objects(number) for number in sorted(self.found)]


def _free(objects: Objects) -> Tensor:
    """Which objects need not be found."""
    return objects.difficult | objects.crowd


def _entries(number: int, boxes: Tensor, labels: Tensor) -> Iterator[Entry]:
    """Boxes of a photo as COCO has them."""
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        box = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
        yield {"image_id": number, "category_id": label, "bbox": box}


def _coco_evaluation(shared: Entry, truth: Sequence[Entry], said: Sequence[Entry]) -> Any:
    """What COCO's program makes of objects and detections."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = []
    for entries in (truth, said):
        side = COCO()
        # It takes the number 0 of an object for none.
        numbered = [{**entry, "id": number} for number, entry in enumerate(entries, 1)]
        side.dataset = {**shared, "annotations": numbered}
        side.createIndex()
        sides.append(side)
    evaluation = COCOeval(*sides, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation
