"""What detectors do with each proposal, and how they make proposals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from deformops.nets.detection.anchors import base_anchors, grid_anchors
from deformops.nn import DeformPSRoIPool, DeformRoIPoolPack, Dropout, PSRoIPool, RoIPool
from deformops.nn import _initial as initial
from deformops.nn._zero import ZeroConv2d

#: Bins of a box on each axis, and pixels of the map for each of the image.
POOLED, SCALE = 7, 1 / 16


class RegionProposalNetwork(nn.Module):
    """A box network that slides over a map: 3x3 and ReLU, then a 1x1 for scores, one for boxes.

    For A anchors at each cell and K scores of each, channel k * A + a of the first 1x1 is score k
    of anchor a, and channel 4 * a + d of the second is number d of its code. K is 2 as published,
    for background and object; 1 for the logit of an object; C for background and each class. All
    weights start normally distributed with deviation 0.01, biases at 0.

    Args:
        channels: of the map.
        hidden: of the 3x3: 256 (ZF), 512 (VGG-16 and ResNets).
        stride: pixels of the image from cell to cell.
        scores: K.
        ratios: see `base_anchors`.
        scales: see `base_anchors`.
        family: see `base_anchors`.

    Shapes: map [N, C, h, w]; scores [N, h * w * A, K] and codes [N, h * w * A, 4] in the order of
    `grid_anchors`.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.
    """

    base: Tensor

    def __init__(
        self,
        channels: int,
        hidden: int,
        stride: int = 16,
        *,
        scores: int = 2,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: Sequence[float] = (8, 16, 32),
        family: str = "py-faster-rcnn",
    ) -> None:
        super().__init__()
        self.stride = stride
        base = base_anchors(stride, ratios, scales, family=family)
        self.register_buffer("base", base, persistent=False)
        anchors = base.shape[0]
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.cls_score = nn.Conv2d(hidden, scores * anchors, 1)
        self.bbox_pred = nn.Conv2d(hidden, 4 * anchors, 1)
        for conv in (self.conv, self.cls_score, self.bbox_pred):
            initial.normal(conv, std=0.01)

    def forward(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """A map to scores and codes."""
        hidden = self.relu(self.conv(shared))
        anchors = self.base.shape[0]
        scores = self.cls_score(hidden).unflatten(1, (-1, anchors)).permute(0, 3, 4, 2, 1)
        codes = self.bbox_pred(hidden).unflatten(1, (anchors, 4)).permute(0, 3, 4, 1, 2)
        return scores.flatten(1, 3), codes.flatten(1, 3)

    def anchors(self, shared: Tensor) -> Tensor:
        """The anchors of a map, [h * w * A, 4], in float32 or wider."""
        height, width = shared.shape[-2:]
        base = self.base.to(torch.promote_types(shared.dtype, torch.float32))
        return grid_anchors(base, (height, width), self.stride)


class FullyConnectedHead(nn.Module):
    """Fast R-CNN's head: pooled boxes go through two fully connected layers.

        layer        what
        conv_new_1   1x1, `reduce`, ReLU; only in residual networks
        pool         RoI pooling, or deformable RoI pooling
        fc6, fc7     `hidden`, ReLU, dropout
        cls_score    classes; weights start with deviation 0.01
        bbox_pred    4 for each class; weights start with deviation 0.001

    All other weights start with deviation 0.01, biases at 0, the offsets of deformable pooling
    at 0.

    Args:
        channels: of the map.
        classes: C, background and the classes to find.
        pooled: bins of a box on each axis: 6 (ZF) or 7.
        hidden: 4096 (ZF, VGG-16) or 1024 (residual networks).
        dropout: the probability that a value of fc6 and fc7 is left out: 0.5 or 0.
        scale_train: the form of dropout; see `deformops.nn.Dropout`.
        reduce: channels of conv_new_1: 256, or None.
        deformable: whether the bins move.

    Shapes: map [N, channels, h, w] and boxes [K, 5] of (image, x1, y1, x2, y2); scores [K, C] and
    codes [K, C, 4].

    Source: Girshick, Fast R-CNN (2015); Dai et al., Deformable Convolutional Networks (2017),
    section 3.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        pooled: int = POOLED,
        hidden: int = 4096,
        dropout: float = 0.5,
        scale_train: bool = True,
        reduce: int | None = None,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        self.conv_new_1 = None if reduce is None else nn.Conv2d(channels, reduce, 1)
        channels = channels if reduce is None else reduce
        self.pool: nn.Module = (
            DeformRoIPoolPack(pooled, channels, SCALE) if deformable else RoIPool(pooled, SCALE)
        )
        self.fc6 = nn.Linear(channels * pooled * pooled, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.cls_score = nn.Linear(hidden, classes)
        self.bbox_pred = nn.Linear(hidden, 4 * classes)
        self.relu = nn.ReLU(inplace=True)
        self.drop = Dropout(dropout, scale_train=scale_train)
        for layer in (self.conv_new_1, self.fc6, self.fc7, self.cls_score):
            if layer is not None:
                initial.normal(layer, std=0.01)
        initial.normal(self.bbox_pred, std=0.001)

    def forward(self, deeper: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """A map and boxes to scores and codes."""
        if self.conv_new_1 is not None:
            deeper = self.relu(self.conv_new_1(deeper))
        pooled = self.pool(deeper, boxes).flatten(1)
        fc6 = self.drop(self.relu(self.fc6(pooled)))
        fc7 = self.drop(self.relu(self.fc7(fc6)))
        return self.cls_score(fc7), self.bbox_pred(fc7).unflatten(1, (-1, 4))

    def output_layers(self) -> Iterator[nn.Module]:
        """The last layers, which say what a box shows and where it is."""
        yield self.cls_score
        yield self.bbox_pred

    def slow_layers(self) -> Iterator[tuple[nn.Module, float]]:
        """Layers that learn slowlier, and by which factor."""
        if isinstance(self.pool, DeformRoIPoolPack):
            yield self.pool.offset_fc, self.pool.lr_factor

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and torchvision's."""
        return {"fc6": ("fc6", "classifier.0"), "fc7": ("fc7", "classifier.3")}


class RFCNHead(nn.Module):
    """R-FCN's head: maps of scores for each part of a box, of which each box takes the mean.

        layer              what                                         at 21 classes
        conv_new_1         1x1, 1024, ReLU
        rfcn_cls           1x1, 7 * 7 * classes                         1029
        rfcn_bbox          1x1, 7 * 7 * 4 for background and object     392
        pool               position-sensitive, 7 x 7 bins, then their mean

    and where the bins move, of each class of rfcn_cls its own, of rfcn_bbox all at once:

        rfcn_cls_offset    1x1, 7 * 7 * 2 * classes, starts at 0        2058
        rfcn_bbox_offset   1x1, 7 * 7 * 2, starts at 0                  98

    Other weights start normally distributed with deviation 0.01, all biases at 0.

    Args:
        channels: of the map.
        classes: C, background and the classes to find.
        hidden: of conv_new_1.
        deformable: whether the bins move.

    Shapes: map [N, channels, h, w] and boxes [K, 5] of (image, x1, y1, x2, y2); scores [K, C] and
    codes [K, 2, 4], of which the second is that of all classes.

    Source: Dai et al., R-FCN (2016), section 2; Deformable Convolutional Networks (2017), section
    2.2.
    """

    def __init__(
        self, channels: int, classes: int, *, hidden: int = 1024, deformable: bool = False
    ) -> None:
        super().__init__()
        bins = POOLED * POOLED
        self.conv_new_1 = nn.Conv2d(channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.rfcn_cls = nn.Conv2d(hidden, bins * classes, 1)
        self.rfcn_bbox = nn.Conv2d(hidden, bins * 4 * 2, 1)
        self.rfcn_cls_offset = ZeroConv2d(hidden, bins * 2 * classes, 1) if deformable else None
        self.rfcn_bbox_offset = ZeroConv2d(hidden, bins * 2, 1) if deformable else None
        self.pool: nn.Module = (
            DeformPSRoIPool(POOLED, SCALE) if deformable else PSRoIPool(POOLED, SCALE)
        )
        for conv in (self.conv_new_1, self.rfcn_cls, self.rfcn_bbox):
            initial.normal(conv, std=0.01)

    def forward(self, deeper: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """A map and boxes to scores and codes."""
        hidden = self.relu(self.conv_new_1(deeper))
        scores = self.parts(hidden, boxes, self.rfcn_cls, self.rfcn_cls_offset)
        codes = self.parts(hidden, boxes, self.rfcn_bbox, self.rfcn_bbox_offset)
        return vote(scores), vote(codes).unflatten(1, (2, 4))

    def parts(
        self, hidden: Tensor, boxes: Tensor, maps: nn.Module, offsets: nn.Module | None
    ) -> Tensor:
        """What each of the 7 x 7 parts of boxes says, [K, ..., 7, 7]."""
        if offsets is None:
            result: Tensor = self.pool(maps(hidden), boxes)
            return result
        return self.pool(maps(hidden), boxes, self.pool(offsets(hidden), boxes))

    def output_layers(self) -> Iterator[nn.Module]:
        """The last layers, which say what a box shows and where it is."""
        yield self.rfcn_cls
        yield self.rfcn_bbox

    def slow_layers(self) -> Iterator[tuple[nn.Module, float]]:
        """Layers that learn slowlier, and by which factor: none."""
        yield from ()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: the same."""
        return {}


def vote(parts: Tensor) -> Tensor:
    """What the parts of boxes, [K, C, 7, 7], say together: their mean, [K, C]."""
    return parts.mean((2, 3))


def box_rows(boxes: Tensor) -> Tensor:
    """Boxes [N, R, 4] of images as the rows [N * R, 5] that pooling takes, in float32 at least."""
    images = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    rows = torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1)
    return rows.flatten(0, 1)
