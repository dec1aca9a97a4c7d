"""Detection networks, and the pieces that they are made of, each of which can be used alone."""

from deformops.nets.detection.anchors import base_anchors, grid_anchors, inside_image
from deformops.nets.detection.assignment import (
    AnchorTargets,
    RoITargets,
    anchor_targets,
    sample_rois,
)
from deformops.nets.detection.box_coder import BoxCoder, clip_boxes
from deformops.nets.detection.losses import box_losses, detection_loss, rpn_loss, smooth_l1
from deformops.nets.detection.matching import Matches, hard_examples, match, sample
from deformops.nets.detection.postprocessing import select_detections
from deformops.nets.detection.proposals import Proposals, best_boxes, propose
from deformops.nets.detection.targets import Targets, stack_targets

__all__ = [
    "AnchorTargets",
    "BoxCoder",
    "Matches",
    "Proposals",
    "RoITargets",
    "Targets",
    "anchor_targets",
    "base_anchors",
    "best_boxes",
    "box_losses",
    "clip_boxes",
    "detection_loss",
    "grid_anchors",
    "hard_examples",
    "inside_image",
    "match",
    "propose",
    "rpn_loss",
    "sample",
    "sample_rois",
    "select_detections",
    "smooth_l1",
    "stack_targets",
]
