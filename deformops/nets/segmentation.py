"""The segmentation networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from deformops.nets.deeplab import (
    ASPP_L,
    ASPP_S,
    DeepLabResNet,
    DeepLabVGG,
    DeformableDeepLab,
    MultiScale,
)
from deformops.nets.fcn import FCN, FCNAlexNet
from deformops.nets.resnet import RESNET50, RESNET101
from deformops.nets.segmenter import Segmenter


def networks() -> dict[str, Callable[..., Segmenter]]:
    """Names and builders of the segmentation networks.

    A builder takes `classes` and the options of its network by keyword. What it builds maps images
    [N, 3, H, W] that went through its `preprocessing` to scores [N, classes, H, W].
    """
    return {
        "fcn32s": partial(FCN, stride=32),
        "fcn16s": partial(FCN, stride=16),
        "fcn8s": partial(FCN, stride=8),
        "fcn8s-atonce": partial(FCN, stride=8, at_once=True),
        "fcn-alexnet": FCNAlexNet,
        "deeplab-largefov": partial(DeepLabVGG, rates=(12,)),
        "deeplab-aspp-s": partial(DeepLabVGG, rates=ASPP_S),
        "deeplab-aspp-l": partial(DeepLabVGG, rates=ASPP_L),
        "deeplab-resnet50": partial(DeepLabResNet, blocks=RESNET50),
        "deeplab-resnet101": partial(DeepLabResNet, blocks=RESNET101),
        "deeplab-msc-resnet101": partial(_multi_scale, blocks=RESNET101),
        "deeplab-deform-resnet50": partial(DeformableDeepLab, blocks=RESNET50),
        "deeplab-deform-resnet101": partial(DeformableDeepLab, blocks=RESNET101),
    }


def options(name: str) -> dict[str, Any]:
    """The options of a network and their defaults.

    Raises:
        ValueError: there is no such network.
    """
    build = _builder(name)
    settled = build.keywords if isinstance(build, partial) else {}
    function = build.func if isinstance(build, partial) else build
    if function is _multi_scale:
        function = DeepLabResNet
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in settled and parameter.name != "classes"
    }


def build_segmenter(name: str, classes: int, **chosen: Any) -> Segmenter:
    """Builds a segmentation network; its weights are drawn from torch's global generator.

    Args:
        name: one of `networks()`.
        classes: what it tells apart.
        **chosen: options of the network; see `options` and its class.

    Raises:
        ValueError: there is no such network or option, or an option does not fit.

    Example:
        >>> net = build_segmenter("fcn8s", 21, width=0.25)
        >>> net(torch.zeros(1, 3, 50, 70)).shape
        torch.Size([1, 21, 50, 70])
    """
    build = _builder(name)
    if classes < 1:
        raise ValueError(f"classes: expected at least 1, got {classes}")
    known = options(name)
    for option in chosen:
        if option not in known:
            raise ValueError(f"{name}: expected options among {', '.join(known)}, got {option!r}")
    return build(classes=classes, **chosen)


def _builder(name: str) -> Callable[..., Segmenter]:
    nets = networks()
    if name not in nets:
        raise ValueError(f"name: expected one of {', '.join(nets)}, got {name!r}")
    return nets[name]


def _multi_scale(classes: int = 21, **options: Any) -> MultiScale:
    return MultiScale(DeepLabResNet(classes, **options))
