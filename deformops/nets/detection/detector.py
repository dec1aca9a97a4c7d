"""Detectors of two stages, and of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deformops.nets.detection.assignment import anchor_targets, sample_rois
from deformops.nets.detection.box_coder import BoxCoder
from deformops.nets.detection.heads import (
    FullyConnectedHead,
    RegionProposalNetwork,
    RFCNHead,
    box_rows,
)
from deformops.nets.detection.losses import box_losses, detection_loss, rpn_loss
from deformops.nets.detection.matching import hard_examples
from deformops.nets.detection.postprocessing import select_detections
from deformops.nets.detection.proposals import Proposals, propose, take
from deformops.nets.detection.targets import Targets, stack_targets
from deformops.nets.detection.trunks import Trunk
from deformops.nets.preprocessing import Preprocessing
from deformops.nn import DeformConv2dPack
from deformops.ops._checks import Checks

Losses = dict[str, Tensor]
Detections = list[dict[str, Tensor]]


class Batch(NamedTuple):
    """Images as the parts of a detector take them; those of other sizes lie in the upper left."""

    images: Tensor
    """[N, 3, H, W], preprocessed."""
    sizes: Tensor
    """[N, 2] as (height, width), in pixels."""
    scales: Tensor | None = None
    """[N], pixels of the images for each of the photos; None: 1."""


@dataclass(frozen=True)
class DetectorSettings:
    """The numbers of a detector; the defaults are those of py-faster-rcnn.

    Args:
        anchor_coder: how boxes are seen from anchors.
        roi_coder: how boxes are seen from proposals.
        anchors: drawn for each image; see `sample`.
        positive_anchors: of them, those that may show an object.
        anchor_overlaps: `low` and `high` of `match`.
        anchor_zero_ties: `zero_ties` of `match`; published weights were trained with it.
        anchor_border: see `anchor_targets`.
        rpn_sigma: see `smooth_l1`.
        rpn_normalisation: see `rpn_loss`.
        proposals: kept in training and in test.
        proposals_before: of so many before suppression, in training and in test.
        proposal_overlap: see `propose`.
        min_size: see `propose`.
        rois: proposals that each image learns from; None: all.
        hard_rois: of these only those that are learned worst (OHEM); None: all.
        foreground_fraction: see `sample_rois`.
        foreground: see `sample_rois`.
        background: see `sample_rois`.
        roi_sigma: see `smooth_l1`.
        min_score: see `select_detections`.
        detection_overlap: see `select_detections`.
        detections: see `select_detections`.
    """

    anchor_coder: BoxCoder = field(default_factory=BoxCoder)
    roi_coder: BoxCoder = field(default_factory=lambda: BoxCoder(stds=(0.1, 0.1, 0.2, 0.2)))
    anchors: int = 256
    positive_anchors: int = 128
    anchor_overlaps: tuple[float, float] = (0.3, 0.7)
    anchor_zero_ties: bool = False
    anchor_border: float | None = 0.0
    rpn_sigma: float = 3.0
    rpn_normalisation: str = "labels"
    proposals: tuple[int, int] = (2000, 300)
    proposals_before: tuple[int | None, int | None] = (12000, 6000)
    proposal_overlap: float = 0.7
    min_size: float = 16.0
    rois: int | None = 128
    hard_rois: int | None = None
    foreground_fraction: float = 0.25
    foreground: float = 0.5
    background: tuple[float, float] = (0.0, 0.5)
    roi_sigma: float = 1.0
    min_score: float = 0.05
    detection_overlap: float = 0.3
    detections: int = 100


class Detector(nn.Module, ABC):
    """What detectors of one and of two stages share: a trunk, anchors and what these learn.

    Args:
        classes: C, background (0) and the classes to find.
        trunk: see `Trunk`.
        rpn: what sees the anchors.
        settings: all numbers.

    Raises:
        ValueError: there are less than two classes.
    """

    def __init__(
        self, classes: int, trunk: Trunk, rpn: RegionProposalNetwork, settings: DetectorSettings
    ) -> None:
        super().__init__()
        checks = Checks(type(self).__name__)
        checks.integer("classes", classes)
        checks.require(classes >= 2, "classes", "at least 2, background and an object", classes)
        self.classes = classes
        self.trunk = trunk
        self.rpn = rpn
        self.settings = settings

    @property
    def preprocessing(self) -> Preprocessing:
        """What was done to the images."""
        return self.trunk.preprocessing

    def forward(
        self,
        images: Tensor,
        image_sizes: Tensor | None = None,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        *,
        image_scales: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Losses | Detections:
        """Learns objects, or finds them.

        Args:
            images: [N, 3, H, W], preprocessed; those smaller than H x W lie in the upper left.
            image_sizes: [N, 2] as (height, width), in pixels. Absent: all are H x W.
            targets: for each image "boxes" [L, 4] as (x1, y1, x2, y2), in pixels of `images`, and
                "labels" int64 [L], classes from 1. Needed in training; not looked at in test.
            image_scales: [N], pixels of the images for each of the photos. Absent: 1.
            generator: draws the examples; see `sample`.

        Returns:
            In training the losses, each a number, to be summed. In test for each image "boxes"
            [L, 4], "scores" [L] and "labels" int64 [L], by falling score.

        Raises:
            ValueError: a shape does not fit, targets are missing, or a label is out of range.
            TypeError: an argument has the wrong type.
        """
        checks = Checks(type(self).__name__)
        checks.tensor("images", images, "[N, 3, H, W]")
        count, height, width = images.shape[0], images.shape[2], images.shape[3]
        if image_sizes is None:
            image_sizes = torch.tensor([[height, width]], device=images.device).expand(count, 2)
        checks.rank("image_sizes", image_sizes, "[N, 2]")
        checks.shape("image_sizes", image_sizes, (count, 2), "[N, 2]")
        batch = Batch(images, image_sizes.to(images.device), image_scales)
        if not self.training:
            return self.detect(batch)
        checks.require(targets is not None, "targets", "the objects of each image", None)
        assert targets is not None
        checks.require(len(targets) == count, "targets", f"those of {count} images", len(targets))
        for target in targets:
            labels = target["labels"]
            fits = labels.numel() == 0 or int(labels.max()) < self.classes
            checks.require(fits, "labels", f"classes from 1 to {self.classes - 1}", labels.tolist())
        places = torch.promote_types(images.dtype, torch.float32)
        objects = stack_targets(targets, like=images.new_empty(0, dtype=places))
        return self.losses(batch, objects, generator)

    @abstractmethod
    def detect(self, batch: Batch) -> Detections:
        """The objects of images; see `forward`."""

    @abstractmethod
    def losses(
        self, batch: Batch, objects: Targets, generator: torch.Generator | None = None
    ) -> Losses:
        """The losses of images with objects; see `forward`."""

    def anchor_losses(
        self,
        predicted: tuple[Tensor, Tensor],
        anchors: Tensor,
        image_sizes: Tensor,
        objects: Targets,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """The losses of anchors: of their scores, and of their boxes."""
        settings = self.settings
        low, high = settings.anchor_overlaps
        scores, codes = predicted
        labels, wanted = anchor_targets(
            anchors,
            objects,
            image_sizes,
            size=settings.anchors,
            most_positive=settings.positive_anchors,
            low=low,
            high=high,
            zero_ties=settings.anchor_zero_ties,
            border=settings.anchor_border,
            class_aware=scores.shape[-1] > 2,
            coder=settings.anchor_coder,
            generator=generator,
        )
        of_scores, of_boxes = rpn_loss(
            scores,
            codes,
            labels,
            wanted,
            sigma=settings.rpn_sigma,
            normalisation=settings.rpn_normalisation,
            size=settings.anchors,
        )
        return {"loss_objectness": of_scores, "loss_rpn_box_reg": of_boxes}

    def deformable_layers(self) -> list[str]:
        """The names of the deformable convolutions, from the first to the last."""
        return [name for name, layer in self.named_modules() if isinstance(layer, DeformConv2dPack)]

    def slow_layers(self) -> Iterator[tuple[nn.Module, float]]:
        """Layers that learn slowlier than the others, and by which factor."""
        yield from ()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and those of a classifier."""
        names = {f"trunk.{ours}": theirs for ours, theirs in self.trunk.published_names().items()}
        names["rpn.conv"] = ("rpn_conv/3x3", "rpn_conv_3x3")
        return {**names, **{f"rpn.{n}": (f"rpn_{n}",) for n in ("cls_score", "bbox_pred")}}


class TwoStageDetector(Detector):
    """Faster R-CNN and R-FCN: proposals, then a head that tells what each shows and where.

        trunk         images -> a map for the proposals, and a deeper one for the head
        rpn           the map -> scores and codes of the anchors
        propose       the best of their boxes
        roi_head      the deeper map and boxes -> scores of the classes, codes of boxes
        detections    the best of these

    In training the boxes of the proposals are given: no gradient comes from them (approximate joint
    training). `proposal_losses`, `head_losses` and `proposals` are the parts of alternating
    training.

    Args:
        classes: C, background (0) and the classes to find.
        trunk: see `Trunk`.
        rpn: see `RegionProposalNetwork`; with 1 or 2 scores.
        roi_head: see `FullyConnectedHead` and `RFCNHead`.
        settings: all numbers.

    Raises:
        ValueError: there are less than two classes.

    Source: Ren et al., Faster R-CNN (2015); Dai et al., R-FCN (2016).
    """

    def __init__(
        self,
        classes: int,
        trunk: Trunk,
        rpn: RegionProposalNetwork,
        roi_head: FullyConnectedHead | RFCNHead,
        settings: DetectorSettings | None = None,
    ) -> None:
        super().__init__(classes, trunk, rpn, settings or DetectorSettings())
        self.roi_head = roi_head

    def detect(self, batch: Batch) -> Detections:
        """The objects of images; see `forward`."""
        shared = self.trunk(batch.images)
        proposals = self.propose(self.rpn(shared), shared, batch)
        return self.detect_in(self.trunk.deeper(shared), proposals, batch.sizes)

    def losses(
        self, batch: Batch, objects: Targets, generator: torch.Generator | None = None
    ) -> Losses:
        """The losses of both stages."""
        shared = self.trunk(batch.images)
        predicted, anchors = self.rpn(shared), self.rpn.anchors(shared)
        losses = self.anchor_losses(predicted, anchors, batch.sizes, objects, generator)
        proposals = self.propose(predicted, shared, batch)
        deeper = self.trunk.deeper(shared)
        return {**losses, **self.roi_losses(deeper, proposals, objects, generator)}

    def proposal_losses(
        self, batch: Batch, objects: Targets, generator: torch.Generator | None = None
    ) -> Losses:
        """The losses of the first stage alone."""
        shared = self.trunk(batch.images)
        anchors = self.rpn.anchors(shared)
        return self.anchor_losses(self.rpn(shared), anchors, batch.sizes, objects, generator)

    def head_losses(
        self,
        batch: Batch,
        proposals: Proposals,
        objects: Targets,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """The losses of the second stage alone, for proposals that were made before."""
        deeper = self.trunk.deeper(self.trunk(batch.images))
        return self.roi_losses(deeper, proposals, objects, generator)

    @torch.no_grad()
    def proposals(self, batch: Batch) -> Proposals:
        """What the first stage proposes: as many as `settings` say for training or for test."""
        shared = self.trunk(batch.images)
        return self.propose(self.rpn(shared), shared, batch)

    def propose(
        self,
        predicted: tuple[Tensor, Tensor],
        shared: Tensor,
        batch: Batch,
    ) -> Proposals:
        """The best boxes of what the first stage predicts on a map."""
        scores, codes = predicted
        test, settings = int(not self.training), self.settings
        return propose(
            objectness(scores),
            codes,
            self.rpn.anchors(shared),
            batch.sizes,
            most_before=settings.proposals_before[test],
            most=settings.proposals[test],
            iou_threshold=settings.proposal_overlap,
            min_size=settings.min_size,
            image_scales=batch.scales,
            coder=settings.anchor_coder,
        )

    def roi_losses(
        self,
        deeper: Tensor,
        proposals: Proposals,
        objects: Targets,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """The losses of boxes drawn of proposals: of their classes, and of where they are."""
        settings = self.settings
        boxes, labels, wanted = sample_rois(
            proposals,
            objects,
            size=settings.rois,
            foreground_fraction=settings.foreground_fraction,
            foreground=settings.foreground,
            background=settings.background,
            coder=settings.roi_coder,
            generator=generator,
        )
        scores, codes = self._each(deeper, boxes)
        if settings.hard_rois is not None:
            of_class, of_box = box_losses(scores, codes, labels, wanted, sigma=settings.roi_sigma)
            of_each = (of_class + of_box).masked_fill(labels < 0, -torch.inf)
            labels = labels.masked_fill(~hard_examples(of_each, settings.hard_rois), -1)
        of_classes, of_boxes = detection_loss(
            scores, codes, labels, wanted, sigma=settings.roi_sigma
        )
        return {"loss_classifier": of_classes, "loss_box_reg": of_boxes}

    def detect_in(self, deeper: Tensor, proposals: Proposals, image_sizes: Tensor) -> Detections:
        """The objects that proposals show."""
        settings = self.settings
        scores, codes = self._each(deeper, proposals.boxes)
        probabilities = scores.float().softmax(-1)
        probabilities = probabilities.masked_fill(~proposals.exist().unsqueeze(-1), -torch.inf)
        if codes.shape[-2] != self.classes:
            codes = codes[..., 1:, :]
        return select_detections(
            settings.roi_coder.decode(codes, proposals.boxes.unsqueeze(-2)),
            probabilities,
            image_sizes,
            min_score=settings.min_score,
            iou_threshold=settings.detection_overlap,
            most=settings.detections,
            plus_one=settings.roi_coder.plus_one,
        )

    def shared_layers(self) -> Iterator[nn.Module]:
        """The layers that both stages share: what alternating training keeps in its last steps."""
        yield self.trunk

    def slow_layers(self) -> Iterator[tuple[nn.Module, float]]:
        """Layers that learn slowlier than the others, and by which factor."""
        yield from self.roi_head.slow_layers()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and those of a classifier."""
        of_head = self.roi_head.published_names()
        return super().published_names() | {f"roi_head.{ours}": of_head[ours] for ours in of_head}

    def _each(self, deeper: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [N, R, C] and codes [N, R, K, 4] of boxes [N, R, 4]."""
        scores, codes = self.roi_head(deeper, box_rows(boxes))
        return scores.unflatten(0, boxes.shape[:2]), codes.unflatten(0, boxes.shape[:2])


class ClassAwareRPN(Detector):
    """A region proposal network that tells the classes itself: a detector of one stage.

        trunk         images -> res5
        conv_new_1    1x1, `hidden`, ReLU; starts normally distributed with deviation 0.01
        rpn           scores of background and of each class, one code for each anchor
        detections    of the best `proposals_before` anchors

    Args:
        classes: C, background (0) and the classes to find.
        trunk: see `Trunk`.
        rpn: see `RegionProposalNetwork`; with C scores, on `hidden` channels.
        conv_new_1: from the trunk to the network's channels.
        settings: those of anchors and of detections are used.

    Raises:
        ValueError: there are less than three classes: that is `RegionProposalNetwork`.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 4.
    """

    def __init__(
        self,
        classes: int,
        trunk: Trunk,
        rpn: RegionProposalNetwork,
        conv_new_1: nn.Conv2d,
        settings: DetectorSettings | None = None,
    ) -> None:
        super().__init__(classes, trunk, rpn, settings or DetectorSettings())
        expected = "at least 3, background and two kinds of objects"
        Checks("ClassAwareRPN").require(classes >= 3, "classes", expected, classes)
        self.conv_new_1 = conv_new_1
        self.relu = nn.ReLU(inplace=True)

    def detect(self, batch: Batch) -> Detections:
        """The objects of images; see `forward`."""
        (scores, codes), anchors = self._predicted(batch.images)
        settings = self.settings
        probabilities = scores.float().softmax(-1)
        best = probabilities[..., 1:].amax(-1).sort(dim=-1, descending=True, stable=True).indices
        best = best[:, : settings.proposals_before[1]]
        probabilities, codes = take(best, probabilities, codes)
        boxes = settings.anchor_coder.decode(codes, anchors[best])
        return select_detections(
            boxes.unsqueeze(-2),
            probabilities,
            batch.sizes,
            min_score=settings.min_score,
            iou_threshold=settings.detection_overlap,
            most=settings.detections,
            plus_one=settings.anchor_coder.plus_one,
        )

    def losses(
        self, batch: Batch, objects: Targets, generator: torch.Generator | None = None
    ) -> Losses:
        """The losses of the anchors."""
        predicted, anchors = self._predicted(batch.images)
        return self.anchor_losses(predicted, anchors, batch.sizes, objects, generator)

    def _predicted(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Scores and codes, and the anchors."""
        hidden = self.relu(self.conv_new_1(self.trunk.deeper(self.trunk(images))))
        return self.rpn(hidden), self.rpn.anchors(hidden)


def objectness(scores: Tensor) -> Tensor:
    """The probability that anchors show an object, [N, A], of scores [N, A, 1 or 2]."""
    scores = scores.float()
    return scores[..., 0].sigmoid() if scores.shape[-1] == 1 else scores.softmax(-1)[..., 1]
