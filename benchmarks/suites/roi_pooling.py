"""RoI pooling: ours, torchvision, OpenVINO, ONNX Runtime and samples taken by torch's own ops.

These ops move bytes: the floor is a copy of as many as they read once and write once. Forward, that
is input, boxes and offset in, output out; backward, the gradient of the output in, the gradients
out, and input and offset in where these depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import engines
from ..case import OURS, Case, Competitor, Entry, Part, Suite, Target, Work
from ..place import Place
from ..torch_ops import Function, Tensors, entry

TORCHVISION, OPENVINO, ONNXRUNTIME = "torchvision", "openvino", "onnxruntime"
OURS_NHWC, GRID_SAMPLE = "ours NHWC", "grid_sample"
HEIGHT, WIDTH, STRIDE = 38, 50, 16
BINS = 7
SAMPLES, MOVED_SAMPLES = 2, 4  # on each axis of a bin
OFFSET_SCALE = 0.1
ONNX_OPSET = 16  # the last of which ONNX Runtime has both ops
# Channels of deformable Faster R-CNN's boxes. With more, OpenVINO takes seconds and grid_sample
# gigabytes.
DCN_CHANNELS = 256


@dataclass(frozen=True)
class Problem:
    """Boxes on maps of 38x50, pooled to 7x7; every op of the family can be asked for."""

    op: str
    rois: int
    batch: int = 1
    channels: int = 1024  # of the output
    semantics: str = ""

    def __str__(self) -> str:
        semantics = f" {self.semantics}" if self.semantics else ""
        channels = f"{self.channels}*{BINS**2}" if self.grouped else f"{self.channels}"
        return f"{self.op}{semantics} {self.rois} RoIs {self.batch}x{channels}x{HEIGHT}x{WIDTH}"

    @property
    def grouped(self) -> bool:
        """Whether every bin has channels of its own."""
        return "ps_" in self.op

    @property
    def moved(self) -> bool:
        """Whether offsets move the bins."""
        return self.op.startswith("deform")

    def boxes(self) -> Tensor:
        """Returns boxes [rois, 5] of many sizes, whole pixels, inside the image.

        They end above the last row and column of the map, where torchvision's ps_roi_pool reads
        other pixels than ours.
        """
        random = torch.Generator().manual_seed(0)
        size = torch.tensor([WIDTH, HEIGHT]) * float(STRIDE)
        centre = torch.rand(self.rois, 2, generator=random) * size
        largest = size * torch.tensor([0.2, 0.25])
        half = torch.rand(self.rois, 2, generator=random) * largest + STRIDE
        image = torch.arange(self.rois).remainder(self.batch)[:, None]
        last = size - 2 * STRIDE
        corners = [(centre + side * half).clamp(min=0).minimum(last).round() for side in (-1, 1)]
        return torch.cat([image, *corners], 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the tensors that have a gradient."""
        channels = self.channels * (BINS**2 if self.grouped else 1)
        shapes: dict[str, tuple[int, ...]] = {"input": (self.batch, channels, HEIGHT, WIDTH)}
        if self.moved:
            shapes["offset"] = (self.rois, 2, BINS, BINS)
        return shapes

    def tensors(self) -> dict[str, Tensor]:
        """Returns the input and, where bins move, their offsets: up to half a box."""
        random = torch.Generator().manual_seed(1)
        return {name: torch.randn(shape, generator=random) for name, shape in self.shapes().items()}

    def constants(self) -> dict[str, Tensor]:
        """Returns what has no gradient: the boxes."""
        return {"boxes": self.boxes()}

    def work(self, *, backward: bool = False) -> Work:
        """Bytes read once and written once."""
        values = sum(math.prod(shape) for shape in self.shapes().values())
        numbers = 5 * self.rois + values + self.rois * self.channels * BINS**2
        if backward and (self.moved or self.op == "roi_pool"):
            numbers += values
        return Work.bytes(4 * numbers)

    def ours(self) -> Function:
        """Our op."""
        from deformops import ops

        options, scale = self.options(), 1 / STRIDE
        pool = getattr(ops, self.op)
        if self.moved:
            return lambda of: pool(of["input"], of["boxes"], of["offset"], BINS, scale, **options)
        return lambda of: pool(of["input"], of["boxes"], BINS, scale, **options)

    def options(self) -> dict[str, Any]:
        """Our arguments beyond those that all ops of the family have."""
        if self.moved:
            return {"samples_per_bin": MOVED_SAMPLES, "offset_scale": OFFSET_SCALE}
        if self.op.endswith("align"):
            return {"sampling_ratio": SAMPLES}
        return {"semantics": self.semantics} if self.semantics else {}

    def torchvision(self) -> Function:
        """torchvision's op of the same name."""
        pool = getattr(engines.require("torchvision").ops, self.op)
        options = {"sampling_ratio": SAMPLES} if self.op.endswith("align") else {}
        return lambda of: pool(of["input"], of["boxes"], BINS, 1 / STRIDE, **options)

    def grid_sample(self) -> Function:
        """deform_roi_pool in torch's own ops: all samples of an image at once, then their means."""
        size = torch.tensor([WIDTH, HEIGHT])
        fractions = (
            torch.arange(BINS)[:, None] + torch.arange(MOVED_SAMPLES) / MOVED_SAMPLES
        ) / BINS

        def function(of: Tensors) -> Tensor:
            boxes = of["boxes"]
            start = boxes[:, 1:3].round() / STRIDE - 0.5
            extent = (boxes[:, 3:].round() + 1) / STRIDE - 0.5 - start
            still = start[..., None, None] + fractions.to(boxes) * extent[..., None, None]
            move = of["offset"] * OFFSET_SCALE * extent[..., None, None]
            # [RoI, bin in y, sample in y, bin in x, sample in x], here and below.
            x = still[:, 0, None, None] + move[:, 0, :, None, :, None]
            y = still[:, 1, :, :, None, None] + move[:, 1, :, None, :, None]
            points = torch.stack(torch.broadcast_tensors(x, y), -1)
            inside = ((points >= -0.5) & (points <= size.to(points) - 0.5)).all(-1).to(x)
            points = points * (2 / (size.to(points) - 1)) - 1
            pooled = []
            for number, image in enumerate(of["input"]):
                chosen = boxes[:, 0] == number
                grid, counted = points[chosen], inside[chosen]
                samples = F.grid_sample(
                    image[None],
                    grid.reshape(1, -1, BINS * MOVED_SAMPLES, 2),
                    padding_mode="border",
                    align_corners=True,
                ).reshape(-1, *counted.shape)
                sums = (samples * counted).sum((3, 5))
                pooled.append((sums / counted.sum((2, 4)).clamp(min=1)).transpose(0, 1))
            return torch.cat(pooled)[boxes[:, 0].argsort(stable=True).argsort()]

        return function

    def openvino(self, place: Place) -> Competitor:
        """OpenVINO's node for the op."""
        if self.op == "deform_roi_pool":
            return self._openvino_of_bins(place)
        nodes: dict[str, Callable[[Any, Any], Any]] = {
            "roi_pool": self._roi_pooling,
            "roi_align": self._roi_align,
            "ps_roi_pool": self._psroi_pooling,
            "deform_ps_roi_pool": self._deformable_psroi_pooling,
        }
        tensors, boxes = self.tensors(), self.boxes()
        # Aligned, they take the numbers of the images apart.
        tensors["boxes"] = boxes[:, 1:].contiguous() if self.op == "roi_align" else boxes
        return engines.openvino(nodes[self.op], tensors, place)

    def _roi_pooling(self, opset: Any, of: Any) -> Any:
        return opset.roi_pooling(
            of["input"],
            of["boxes"],
            output_roi=[BINS, BINS],
            spatial_scale=1 / STRIDE,
            method="max",
        )

    def _roi_align(self, opset: Any, of: Any) -> Any:
        images = opset.constant(self.boxes()[:, 0].long().numpy())
        return opset.roi_align(
            of["input"], of["boxes"], images, BINS, BINS, SAMPLES, 1 / STRIDE, "avg", "asymmetric"
        )

    def _psroi_pooling(self, opset: Any, of: Any) -> Any:
        return opset.psroi_pooling(
            of["input"], of["boxes"], self.channels, BINS, 1 / STRIDE, 1, 1, "average"
        )

    def _deformable_psroi_pooling(self, opset: Any, of: Any, boxes_per_roi: int = 1) -> Any:
        """The node; a RoI may be cut into so many boxes on each axis."""
        bins = BINS // boxes_per_roi
        return opset.deformable_psroi_pooling(
            of["input"],
            of["boxes"],
            self.channels,
            1 / (STRIDE * boxes_per_roi),
            bins,
            spatial_bins_x=MOVED_SAMPLES,
            spatial_bins_y=MOVED_SAMPLES,
            trans_std=OFFSET_SCALE * boxes_per_roi,
            part_size=bins,
            offsets=of["offset"],
        )

    def _openvino_of_bins(self, place: Place) -> Competitor:
        """deform_roi_pool by OpenVINO's DeformablePSROIPooling of one bin: every bin is a box.

        Bins of whole pixels of the image begin and end at whole sevenths of a pixel. The output is
        ours with its channels last.
        """
        boxes, bins = self.boxes(), BINS**2
        low, high = boxes[:, None, 1:3], boxes[:, None, 3:]
        axis = torch.arange(float(BINS))
        extent = high + 1 - low  # of a bin, in sevenths
        start = BINS * low + extent * torch.cartesian_prod(axis, axis).flip(1)  # x before y
        image = boxes[:, None, :1].expand(-1, bins, 1)
        tensors = self.tensors()
        tensors["boxes"] = torch.cat([image, start, start + extent - 1], 2).flatten(0, 1)
        offset = tensors["offset"].flatten(2).transpose(1, 2)
        tensors["offset"] = offset.reshape(-1, 2, 1, 1).contiguous()

        def build(opset: Any, of: Any) -> Any:
            return self._deformable_psroi_pooling(opset, of, BINS)

        def read(output: Tensor) -> Tensor:
            output = output.reshape(self.rois, BINS, BINS, self.channels)
            return output.permute(0, 3, 1, 2).clone()

        return engines.openvino(build, tensors, place, read=read)

    def onnxruntime(self, place: Place) -> Competitor:
        """ONNX's MaxRoiPool or RoiAlign."""
        tensors, boxes = self.tensors(), self.boxes()
        constants = {}
        if self.op == "roi_pool":
            tensors["boxes"] = boxes
            node = engines.onnx_node(
                "MaxRoiPool",
                ["input", "boxes"],
                pooled_shape=[BINS, BINS],
                spatial_scale=1 / STRIDE,
            )
        else:
            tensors["boxes"] = boxes[:, 1:].contiguous()
            constants["images"] = boxes[:, 0].long()
            node = engines.onnx_node(
                "RoiAlign",
                ["input", "boxes", "images"],
                coordinate_transformation_mode="output_half_pixel",
                mode="avg",
                output_height=BINS,
                output_width=BINS,
                sampling_ratio=SAMPLES,
                spatial_scale=1 / STRIDE,
            )
        shape = (self.rois, self.channels, BINS, BINS)
        return engines.onnxruntime(node, tensors, constants, shape, place, opset=ONNX_OPSET)

    def peers(self) -> set[str]:
        """Who has the op, in these semantics, and can be waited for."""
        return {
            "roi_pool": {TORCHVISION, OPENVINO, ONNXRUNTIME},
            "roi_align": {TORCHVISION, OPENVINO, ONNXRUNTIME},
            "ps_roi_pool": {TORCHVISION if self.semantics == "torchvision" else OPENVINO},
            "ps_roi_align": {TORCHVISION},
            "deform_roi_pool": {OPENVINO, GRID_SAMPLE} if self.channels <= DCN_CHANNELS else set(),
            "deform_ps_roi_pool": {OPENVINO},
        }[self.op]


def forward_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Inference, everybody who has the op."""
    made = partial(entry, problem.tensors, constants=problem.constants)
    entries = {
        OURS: made(problem.ours),
        TORCHVISION: made(problem.torchvision),
        OPENVINO: Entry(problem.openvino),
        ONNXRUNTIME: Entry(problem.onnxruntime),
        GRID_SAMPLE: made(problem.grid_sample),
        OURS_NHWC: made(problem.ours, channels_last=True),
    }
    parts = (Part("forward", ("forward",), problem.work()),)
    return Case(f"{problem} forward", parts, _able(problem, entries), targets, quick)


def training_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Forward and the gradients of input and offset; the engines have none."""
    made = partial(entry, problem.tensors, constants=problem.constants, backward=True)
    entries = {
        OURS: made(problem.ours),
        TORCHVISION: made(problem.torchvision),
        GRID_SAMPLE: made(problem.grid_sample),
        OURS_NHWC: made(problem.ours, channels_last=True),
    }
    parts = (Part("backward", ("backward",), problem.work(backward=True)),)
    return Case(f"{problem} training", parts, _able(problem, entries), targets, quick)


def _able(problem: Problem, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    able = {OURS, OURS_NHWC} | problem.peers()
    return {name: entry for name, entry in entries.items() if name in able}


def _against(part: str, **bounds: float) -> tuple[Target, ...]:
    return tuple(Target(part, (peer,), bound) for peer, bound in bounds.items())


FORWARD = {
    "roi_pool": _against("forward", torchvision=4),
    "roi_align": _against("forward", torchvision=5),
    "ps_roi_pool rfcn": _against("forward", openvino=1),
    "ps_roi_pool torchvision": _against("forward", torchvision=2),
    "ps_roi_align": _against("forward", torchvision=3),
    "deform_ps_roi_pool": _against("forward", openvino=5),
}
BACKWARD = {
    "roi_pool": _against("backward", torchvision=3),
    "roi_align": _against("backward", torchvision=8),
    "ps_roi_pool torchvision": _against("backward", torchvision=2),
    "ps_roi_align": _against("backward", torchvision=3),
}


def _cases() -> list[Case]:
    cases = []
    for op, semantics in (
        ("roi_pool", ""),
        ("roi_align", ""),
        ("deform_roi_pool", ""),
        ("ps_roi_pool", "rfcn"),
        ("ps_roi_pool", "torchvision"),
        ("ps_roi_align", ""),
        ("deform_ps_roi_pool", ""),
    ):
        name = f"{op} {semantics}".strip()
        channels = 21 if "ps_" in op else 1024
        sizes = [(rois, batch, channels) for batch in (1, 8) for rois in (300, 2000)]
        if "ps_" in op:
            sizes.append((300, 1, 8))
        if op == "deform_roi_pool":
            sizes.append((128, 1, DCN_CHANNELS))
        for size in sizes:
            problem = Problem(op, *size, semantics)
            quick = size == sizes[0]
            looked_at = quick or size[2] == DCN_CHANNELS
            cases += [
                forward_case(problem, *FORWARD.get(name, ()), quick=looked_at),
                training_case(problem, *BACKWARD.get(name, ()), quick=quick),
            ]
    return cases


TINY = [
    Problem(op, 3, 2, 16 if "ps_" not in op else 2)
    for op in ("roi_pool", "roi_align", "deform_roi_pool", "ps_roi_align", "deform_ps_roi_pool")
] + [Problem("ps_roi_pool", 3, 2, 2, semantics) for semantics in ("rfcn", "torchvision")]


SUITE = Suite(
    name="roi_pooling",
    title="RoI pooling",
    cases=_cases(),
    warm_up=[case(problem) for problem in TINY for case in (forward_case, training_case)],
    notes=(
        "300 RoIs 1x1024x38x50: boxes, batch, channels (49 for each of the output, where bins have "
        "channels of their own: C*49), map; 7x7 bins, float32",
        f"aligned: {SAMPLES}x{SAMPLES} samples a bin; deformable: {MOVED_SAMPLES}x{MOVED_SAMPLES}",
        "ours NHWC: channels_last input; openvino, onnxruntime: forward only, output buffer reused",
        "ps_roi_pool is two ops: OpenVINO has R-FCN's, torchvision one of its own",
        "deform_roi_pool: no peer has the op. openvino: its DeformablePSROIPooling of one bin, of "
        f"{BINS}x{BINS} boxes for each RoI, made before it is timed; grid_sample: the same samples "
        f"and means in torch's own ops; both up to {DCN_CHANNELS} channels",
    ),
)
