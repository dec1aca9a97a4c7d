"""Detectors by name, with the sizes that were published."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn

from deformops.nets._width import scaled
from deformops.nets.detection.detector import (
    ClassAwareRPN,
    Detector,
    DetectorSettings,
    TwoStageDetector,
)
from deformops.nets.detection.heads import FullyConnectedHead, RegionProposalNetwork, RFCNHead
from deformops.nets.detection.trunks import (
    AlignedInceptionResNetDetectionTrunk,
    ResNetDetectionTrunk,
    StagedTrunk,
    Trunk,
    VGG16Trunk,
    ZFTrunk,
)
from deformops.nets.resnet import RESNET50, RESNET101
from deformops.nn import _initial as initial

#: R-FCN learns from the worst 128 of all proposals, of which there are 300.
RFCN_SETTINGS = DetectorSettings(
    proposals=(300, 300), proposals_before=(6000, 6000), rois=None, hard_rois=128
)


def faster_rcnn(
    trunk: Trunk,
    classes: int = 21,
    *,
    width: float = 1.0,
    dropout: float | None = None,
    deformable_rois: bool = False,
    sigmoid: bool = False,
    settings: DetectorSettings | None = None,
    **anchors: Any,
) -> TwoStageDetector:
    """Faster R-CNN.

        trunk        3x3 of the RPN   pooled bins   conv_new_1   fc6, fc7   dropout   parameters
        ZF           256              6 x 6         -            4096       0.5       59,294,751
        VGG-16       512              7 x 7         -            4096       0.5       137,078,239
        ResNet-101   512              7 x 7         256          1024       -         61,774,815

    at 21 classes; the last has 63,999,769 with three deformable layers and deformable pooling.
    Dropout after ZF is that of 2012.

    Args:
        trunk: see `Trunk`.
        classes: C, background (0) and the classes to find.
        width: fraction of the channels of all layers but the last; the trunk has its own.
        dropout: the probability that a value of fc6 and fc7 is left out. None: as above.
        deformable_rois: whether RoI pooling is deformable.
        sigmoid: whether an anchor has one logit, instead of scores of background and object.
        settings: all numbers of training and test.
        **anchors: their `ratios`, `scales` (sides in strides of the trunk) and `family`; see
            `base_anchors`.

    Returns:
        The detector.

    Source: Ren et al., Faster R-CNN (2015); Dai et al., Deformable Convolutional Networks (2017),
    section 4.
    """
    if isinstance(trunk, StagedTrunk):
        sizes: dict[str, Any] = {
            "reduce": scaled(256, width),
            "hidden": scaled(1024, width),
            "dropout": 0.0,
        }
    elif isinstance(trunk, ZFTrunk):
        sizes = {"pooled": 6, "hidden": scaled(4096, width), "scale_train": False}
    else:
        sizes = {"hidden": scaled(4096, width)}
    if dropout is not None:
        sizes["dropout"] = dropout
    head = FullyConnectedHead(trunk.deeper_channels, classes, deformable=deformable_rois, **sizes)
    hidden = scaled(256 if isinstance(trunk, ZFTrunk) else 512, width)
    scores = 1 if sigmoid else 2
    rpn = RegionProposalNetwork(trunk.channels, hidden, trunk.stride, scores=scores, **anchors)
    return TwoStageDetector(classes, trunk, rpn, head, settings)


def rfcn(
    trunk: Trunk,
    classes: int = 21,
    *,
    width: float = 1.0,
    deformable_rois: bool = False,
    sigmoid: bool = False,
    settings: DetectorSettings | None = None,
    **anchors: Any,
) -> TwoStageDetector:
    """R-FCN: after the trunk all layers are convolutional.

    With ResNet-101 and 21 classes 50,801,667 parameters; 54,007,111 with three deformable layers
    and deformable pooling.

    Args:
        trunk: see `Trunk`.
        classes: C, background (0) and the classes to find.
        width: fraction of the channels of all layers but the last; the trunk has its own.
        deformable_rois: whether position-sensitive pooling is deformable.
        sigmoid: whether an anchor has one logit, instead of scores of background and object.
        settings: all numbers of training and test. None: `RFCN_SETTINGS`.
        **anchors: their `ratios`, `scales` (sides in strides of the trunk) and `family`; see
            `base_anchors`.

    Returns:
        The detector.

    Source: Dai et al., R-FCN (2016); Deformable Convolutional Networks (2017), section 4.
    """
    hidden = scaled(1024, width)
    head = RFCNHead(trunk.deeper_channels, classes, hidden=hidden, deformable=deformable_rois)
    hidden = scaled(512, width)
    scores = 1 if sigmoid else 2
    rpn = RegionProposalNetwork(trunk.channels, hidden, trunk.stride, scores=scores, **anchors)
    return TwoStageDetector(classes, trunk, rpn, head, settings or RFCN_SETTINGS)


def class_aware_rpn(
    trunk: Trunk,
    classes: int = 21,
    *,
    width: float = 1.0,
    settings: DetectorSettings | None = None,
    **anchors: Any,
) -> ClassAwareRPN:
    """A region proposal network that tells the classes itself.

    Args:
        trunk: see `Trunk`.
        classes: C, background (0) and the classes to find.
        width: fraction of the channels of all layers but the last; the trunk has its own.
        settings: all numbers of training and test.
        **anchors: their `ratios`, `scales` (sides in strides of the trunk) and `family`; see
            `base_anchors`.

    Returns:
        The detector.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 4.
    """
    conv_new_1 = nn.Conv2d(trunk.deeper_channels, scaled(1024, width), 1)
    initial.normal(conv_new_1, std=0.01)
    hidden = scaled(512, width)
    rpn = RegionProposalNetwork(
        conv_new_1.out_channels, hidden, trunk.stride, scores=classes, **anchors
    )
    return ClassAwareRPN(classes, trunk, rpn, conv_new_1, settings)


_DETECTORS: dict[str, Callable[..., Detector]] = {
    "faster-rcnn": faster_rcnn,
    "rfcn": rfcn,
    "class-aware-rpn": class_aware_rpn,
}
_TRUNKS: dict[str, Callable[..., Trunk]] = {
    "zf": ZFTrunk,
    "vgg16": VGG16Trunk,
    "resnet50": partial(ResNetDetectionTrunk, RESNET50),
    "resnet101": partial(ResNetDetectionTrunk, RESNET101),
    "aligned-inception-resnet": AlignedInceptionResNetDetectionTrunk,
}

#: Options that go on to the anchors.
_ANCHORS = ("ratios", "scales", "family")


def networks() -> dict[str, Callable[..., Detector]]:
    """All detectors by name, "<detector>-<trunk>": what makes them of `classes` and options."""
    return {
        f"{detector}-{trunk}": partial(build_detector, f"{detector}-{trunk}")
        for detector in _DETECTORS
        for trunk in _TRUNKS
    }


def options(name: str) -> dict[str, Any]:
    """The options of a detector, of its anchors and of its trunk, and their defaults.

    Raises:
        ValueError: there is no such detector.
    """
    build, build_trunk = _parts(name)
    usual = _defaults(RegionProposalNetwork)
    anchors = {option: usual[option] for option in _ANCHORS}
    return {**_defaults(build), **anchors, **_defaults(build_trunk)}


def build_detector(name: str, classes: int, **chosen: Any) -> Detector:
    """Builds a detector; its weights are drawn from torch's global generator.

    Args:
        name: one of `networks()`.
        classes: what it tells apart, background included.
        **chosen: options of the detector and of its trunk; see `options` and their functions.

    Raises:
        ValueError: there is no such network or option, or an option does not fit.

    Example:
        >>> net = build_detector("rfcn-resnet50", 4, width=0.25, norm="batch").eval()
        >>> net(torch.zeros(1, 3, 96, 128))[0].keys()
        dict_keys(['boxes', 'scores', 'labels'])
    """
    build, build_trunk = _parts(name)
    known = options(name)
    for option in chosen:
        if option not in known:
            raise ValueError(f"{name}: expected options among {', '.join(known)}, got {option!r}")

    def those_in(known: Iterable[str]) -> dict[str, Any]:
        return {option: chosen[option] for option in chosen if option in known}

    trunk = build_trunk(**those_in(_defaults(build_trunk)))
    return build(trunk, classes, **those_in([*_defaults(build), *_ANCHORS]))


def _parts(name: str) -> tuple[Callable[..., Detector], Callable[..., Trunk]]:
    for detector, build in _DETECTORS.items():
        trunk = name.removeprefix(f"{detector}-")
        if trunk != name and trunk in _TRUNKS:
            return build, _TRUNKS[trunk]
    raise ValueError(f"name: expected one of {', '.join(networks())}, got {name!r}")


def _defaults(build: Callable[..., Any]) -> dict[str, Any]:
    """The options of what makes a detector, its trunk or its anchors."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(build).parameters.values()
        if parameter.default is not parameter.empty and parameter.name != "classes"
    }
