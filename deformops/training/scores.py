"""How good labels are: pixel and mean accuracy, mean IoU, and the same near the boundaries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Confusion:
    """How often each class was called what, over any number of photos.

    Attributes:
        counts: [classes, classes] int64: the true class, then the class it was called.

    Args:
        classes: how many.
        ignore: the true label that is not counted.

    Source of the scores: Long et al., FCN (2015), section 5.
    """

    def __init__(self, classes: int, ignore: int | None = 255) -> None:
        self.classes = classes
        self.ignore = ignore
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, labels: Tensor, truth: Tensor, where: Tensor | None = None) -> None:
        """Counts labels.

        Args:
            labels: integers of any shape.
            truth: integers of the same shape.
            where: booleans of the same shape: count only there.

        Raises:
            ValueError: the shapes differ, or a counted label is no class.
        """
        if labels.shape != truth.shape:
            raise ValueError(f"truth: expected {list(labels.shape)}, got {list(truth.shape)}")
        counted = torch.ones_like(truth, dtype=torch.bool) if where is None else where
        if self.ignore is not None:
            counted = counted & (truth != self.ignore)
        said, true = labels[counted].long(), truth[counted].long()
        for name, values in (("labels", said), ("truth", true)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < self.classes:
                raise ValueError(
                    f"{name}: expected 0 to {self.classes - 1}, got {int(values.min())} to "
                    f"{int(values.max())}"
                )
        pairs = torch.bincount(true * self.classes + said, minlength=self.classes**2)
        self.counts += pairs.reshape(self.classes, self.classes)

    @property
    def pixel_accuracy(self) -> float:
        """The fraction of all pixels that are right."""
        return float(self.counts.diag().sum() / self.counts.sum())

    @property
    def accuracies(self) -> Tensor:
        """The fraction of each class's pixels that are right, [classes]; NaN where it has none."""
        return self.counts.diag() / self.counts.sum(1)

    @property
    def mean_accuracy(self) -> float:
        """The mean of `accuracies`, without NaN."""
        return float(self.accuracies.nanmean())

    @property
    def ious(self) -> Tensor:
        """Intersection over union of each class, [classes]; NaN where it is neither said nor true.

        A class that is said and never true has 0.
        """
        right = self.counts.diag()
        return right / (self.counts.sum(0) + self.counts.sum(1) - right)

    @property
    def mean_iou(self) -> float:
        """The mean of `ious`, without NaN."""
        return float(self.ious.nanmean())

    @property
    def frequency_weighted_iou(self) -> float:
        """The mean of `ious`, weighted with how many pixels are of each class."""
        share = self.counts.sum(1) / self.counts.sum()
        return float((share * self.ious)[share > 0].sum())


def trimap(truth: Tensor, width: int) -> Tensor:
    """The band around the boundaries of labels, where segmentations fail.

    Pixels next to another label, also one that is not counted, are at distance 1 from a boundary,
    their neighbours, diagonal ones too, at distance 2, and so on.

    Args:
        truth: [H, W] labels.
        width: the greatest distance, at least 1. From max(H, W) on, the band is the whole image,
            even of one that has no boundary.

    Returns:
        [H, W] booleans.

    Raises:
        ValueError: the width is less than 1.

    Source: Kraehenbuehl and Koltun (2011), section 5; DeepLab (2016), section 4.2.
    """
    if width < 1:
        raise ValueError(f"trimap: width: expected at least 1, got {width}")
    if width >= max(truth.shape):
        return torch.ones_like(truth, dtype=torch.bool)
    band = torch.zeros(truth.shape, dtype=torch.float32)
    for one, other in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = (truth[one] != truth[other]).float()
        band[one] += differ
        band[other] += differ
    reach = width - 1
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        band = F.max_pool2d(band[None], kernel, 1, padding)[0]
    return band > 0
