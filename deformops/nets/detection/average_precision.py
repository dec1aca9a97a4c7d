"""Average precision as Pascal VOC counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deformops.ops import box_iou
from deformops.ops._checks import Checks


def average_precision(recall: Tensor, precision: Tensor, *, eleven_points: bool = False) -> float:
    """The precision of a detector, averaged over recall.

    At each recall counts the best precision at that recall or a higher one, 0 where none is so
    high; of these the integral is taken ("area under the curve", VOC from 2010 on) or the mean at
    the recalls 0, 0.1, ..., 1 (VOC until 2009).

    Args:
        recall: [K], of the best k detections for k = 1 ... K, not falling.
        precision: [K], of the same.
        eleven_points: the mean of eleven points.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: the shapes differ.

    Source: Everingham et al., The Pascal Visual Object Classes Challenge (2010), section 4.2; the
    challenge's development kits.
    """
    checks = Checks("average_precision")
    expected = f"the shape of recall, {list(recall.shape)}"
    checks.require(precision.shape == recall.shape, "precision", expected, list(precision.shape))
    recall, precision = recall.double(), precision.double()
    best = precision.flip(0).cummax(0).values.flip(0)
    if eleven_points:
        # Rounded as recalls of whole tenths are.
        points = torch.arange(11, dtype=torch.float64, device=recall.device) / 10
        places = torch.searchsorted(recall, points)
        return float(torch.cat([best, best.new_zeros(1)])[places].mean())
    return float((best * recall.diff(prepend=recall.new_zeros(1))).sum())


def voc_average_precision(
    detections: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Tensor]],
    classes: int,
    *,
    iou_threshold: float = 0.5,
    eleven_points: bool = False,
    plus_one: bool = True,
) -> Tensor:
    """The average precision of each class over a set of images.

    The detections of a class in all images are sorted by score. Each is held against the object of
    its class and image that it overlaps most: if by more than the threshold, the first one finds
    the object, and later ones are false, as are those that overlap none so much. Objects that are
    "difficult" need not be found, and detections of them count neither way.

    Args:
        detections: for each image "boxes" [K, 4] as (x1, y1, x2, y2), "scores" [K] and "labels"
            int64 [K].
        targets: for each image "boxes" [L, 4], "labels" int64 [L] and, if some are difficult,
            "difficult" bool [L].
        classes: C, background (0) included.
        iou_threshold: see above.
        eleven_points: see `average_precision`.
        plus_one: sides are longer by 1; see `deformops.box_iou`.

    Returns:
        float64 [C]; NaN for the background and for classes of which there is no object. The mean
        average precision is its `nanmean()`.

    Raises:
        ValueError: there are not as many detections as targets.
    """
    checks = Checks("voc_average_precision")
    expected = f"those of {len(targets)} images"
    checks.require(len(detections) == len(targets), "detections", expected, len(detections))
    result = torch.full((classes,), torch.nan, dtype=torch.float64)
    for label in range(1, classes):
        scores, found, objects, wanted = [], [], 0, 0
        for seen, target in zip(detections, targets, strict=True):
            of_class = seen["labels"] == label
            truth = target["labels"] == label
            difficult = target.get("difficult", torch.zeros_like(truth))[truth].bool()
            boxes = target["boxes"][truth].to(seen["boxes"])
            overlaps = box_iou(seen["boxes"][of_class], boxes, plus_one=plus_one)
            scores.append(seen["scores"][of_class].cpu())
            found.append(_found(overlaps, difficult, iou_threshold, objects).cpu())
            objects += len(boxes)
            wanted += int((~difficult).sum())
        if wanted:
            recall, precision = _curve(torch.cat(scores), torch.cat(found), wanted)
            result[label] = average_precision(recall, precision, eleven_points=eleven_points)
    return result


_NOTHING, _DIFFICULT = -1, -2


def _found(overlaps: Tensor, difficult: Tensor, threshold: float, first: int) -> Tensor:
    """The object that each detection [K, L] overlaps, numbered from `first` on, or why none."""
    if overlaps.shape[1] == 0:
        return torch.full(overlaps.shape[:1], _NOTHING, device=overlaps.device)
    best, nearest = overlaps.nan_to_num(nan=0.0).max(1)
    found = (nearest + first).masked_fill(difficult.to(nearest.device)[nearest], _DIFFICULT)
    return found.masked_fill(~(best > threshold), _NOTHING)


def _curve(scores: Tensor, found: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Recall and precision of the best k detections, given the object of each."""
    found = found[scores.argsort(descending=True, stable=True)]
    found = found[found != _DIFFICULT]
    order = found.argsort(stable=True)
    repeats = torch.zeros_like(found, dtype=torch.bool)
    repeats[order[1:]] = found[order[1:]] == found[order[:-1]]
    true = ((found >= 0) & ~repeats).cumsum(0).double()
    return true / wanted, true / torch.arange(1, len(true) + 1)
