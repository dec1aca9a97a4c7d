"""Detection networks, and the pieces that they are made of, each of which can be used alone."""

from deformops.nets.detection.aligned_inception_resnet import (
    AlignedInceptionResNet,
    AlignedInceptionResNetTrunk,
)
from deformops.nets.detection.anchors import base_anchors, grid_anchors, inside_image
from deformops.nets.detection.assignment import (
    AnchorTargets,
    RoITargets,
    anchor_targets,
    sample_rois,
)
from deformops.nets.detection.average_precision import average_precision, voc_average_precision
from deformops.nets.detection.box_coder import BoxCoder, clip_boxes
from deformops.nets.detection.detector import (
    Batch,
    ClassAwareRPN,
    Detector,
    DetectorSettings,
    TwoStageDetector,
)
from deformops.nets.detection.heads import (
    FullyConnectedHead,
    RegionProposalNetwork,
    RFCNHead,
    vote,
)
from deformops.nets.detection.losses import box_losses, detection_loss, rpn_loss, smooth_l1
from deformops.nets.detection.matching import Matches, hard_examples, match, sample
from deformops.nets.detection.networks import (
    RFCN_SETTINGS,
    build_detector,
    class_aware_rpn,
    faster_rcnn,
    networks,
    options,
    rfcn,
)
from deformops.nets.detection.postprocessing import select_detections
from deformops.nets.detection.proposals import Proposals, best_boxes, propose
from deformops.nets.detection.targets import Targets, stack_targets
from deformops.nets.detection.trunks import (
    AlignedInceptionResNetDetectionTrunk,
    ResNetDetectionTrunk,
    StagedTrunk,
    Trunk,
    VGG16Trunk,
    ZFTrunk,
)
from deformops.nets.detection.zf import ZFFeatures

__all__ = [
    "RFCN_SETTINGS",
    "AlignedInceptionResNet",
    "AlignedInceptionResNetDetectionTrunk",
    "AlignedInceptionResNetTrunk",
    "AnchorTargets",
    "Batch",
    "BoxCoder",
    "ClassAwareRPN",
    "Detector",
    "DetectorSettings",
    "FullyConnectedHead",
    "Matches",
    "Proposals",
    "RFCNHead",
    "RegionProposalNetwork",
    "ResNetDetectionTrunk",
    "RoITargets",
    "StagedTrunk",
    "Targets",
    "Trunk",
    "TwoStageDetector",
    "VGG16Trunk",
    "ZFFeatures",
    "ZFTrunk",
    "anchor_targets",
    "average_precision",
    "base_anchors",
    "best_boxes",
    "box_losses",
    "build_detector",
    "class_aware_rpn",
    "clip_boxes",
    "detection_loss",
    "faster_rcnn",
    "grid_anchors",
    "hard_examples",
    "inside_image",
    "match",
    "networks",
    "options",
    "propose",
    "rfcn",
    "rpn_loss",
    "sample",
    "sample_rois",
    "select_detections",
    "smooth_l1",
    "stack_targets",
    "voc_average_precision",
    "vote",
]
