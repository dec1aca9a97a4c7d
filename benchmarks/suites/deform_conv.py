"""Deformable convolution: ours, torchvision, OpenVINO and ONNX Runtime.

The floor is ``2 * batch * out_pixels * out_channels * in_channels * taps`` flops at the peak of
multiply-adds, twice that for the backward: sampling, packing and every byte moved come on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import engines
from ..case import FLOOR, OURS, Case, Competitor, Entry, Part, Suite, Target, Work
from ..place import Place
from ..torch_ops import Function, Tensors, entry

TORCHVISION, OPENVINO, ONNXRUNTIME = "torchvision", "openvino", "onnxruntime"
OURS_NHWC, CONV2D, CONV2D_NHWC = "ours NHWC", "conv2d", "conv2d NHWC"
OURS_FLOAT32 = "ours float32"


@dataclass(frozen=True)
class Problem:
    """A deformable convolution of stride 1 whose output is as large as its input."""

    in_channels: int
    out_channels: int
    height: int
    width: int
    batch: int = 1
    offset_groups: int = 1
    dilation: int = 1
    kernel: int = 3
    mask: bool = False
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        text = f"{self.in_channels}->{self.out_channels} {self.kernel}x{self.kernel}"
        text += f" {self.height}x{self.width}"
        text += f" d{self.dilation}" if self.dilation > 1 else ""
        text += f" b{self.batch} g{self.offset_groups}"
        text += " mask" if self.mask else ""
        text += f" {str(self.dtype).removeprefix('torch.')}" if self.dtype != torch.float32 else ""
        return text

    @property
    def taps(self) -> int:
        """Taps of the window."""
        return self.kernel * self.kernel

    @property
    def padding(self) -> int:
        """Keeps the output as large as the input (odd kernels)."""
        return self.dilation * (self.kernel // 2)

    @property
    def flops(self) -> float:
        """Multiplications and additions of the forward's matrix product."""
        pixels = self.batch * self.height * self.width
        return 2.0 * pixels * self.out_channels * self.in_channels * self.taps

    def tensors(self) -> dict[str, Tensor]:
        """Returns input, offset (a few pixels, some of them over the border), weight and mask."""
        random = torch.Generator().manual_seed(0)
        n, g, k = self.batch, self.offset_groups, self.taps
        size = (self.height, self.width)
        weight = (self.out_channels, self.in_channels, self.kernel, self.kernel)
        tensors = {
            "input": torch.randn(n, self.in_channels, *size, generator=random),
            "offset": torch.randn(n, 2 * g * k, *size, generator=random) * 2,
            "weight": torch.randn(weight, generator=random) / math.sqrt(self.in_channels * k),
        }
        if self.mask:
            tensors["mask"] = torch.rand(n, g * k, *size, generator=random)
        return {name: tensor.to(self.dtype) for name, tensor in tensors.items()}

    def call(self, convolution: Callable[..., Tensor]) -> Function:
        """Binds a function with torchvision's signature to this problem's geometry."""

        def function(of: Tensors) -> Tensor:
            return convolution(
                of["input"],
                of["offset"],
                of["weight"],
                padding=self.padding,
                dilation=self.dilation,
                mask=of.get("mask"),
            )

        return function

    def ours(self) -> Function:
        """Our convolution."""
        from deformops.ops import deform_conv2d

        return self.call(deform_conv2d)

    def torchvision(self) -> Function:
        """torchvision's convolution."""
        return self.call(engines.require("torchvision").ops.deform_conv2d)

    def conv2d(self) -> Function:
        """A plain convolution, which ignores offset and mask."""
        padding, dilation = self.padding, self.dilation
        return lambda of: torch.nn.functional.conv2d(
            of["input"], of["weight"], padding=padding, dilation=dilation
        )

    def openvino(self, place: Place) -> Competitor:
        """OpenVINO's operator; its "bilinear_interpolation_pad" is our border "v2"."""
        tensors = self.tensors()
        weight = tensors.pop("weight")

        def build(opset: Any, nodes: Any) -> Any:
            return opset.deformable_convolution(
                nodes["input"],
                nodes["offset"],
                opset.constant(weight.numpy()),
                strides=[1, 1],
                pads_begin=[self.padding] * 2,
                pads_end=[self.padding] * 2,
                dilations=[self.dilation] * 2,
                mask=nodes.get("mask"),
                auto_pad="explicit",
                group=1,
                deformable_group=self.offset_groups,
                bilinear_interpolation_pad=True,
            )

        return engines.openvino(build, tensors, place)

    def onnxruntime(self, place: Place) -> Competitor:
        """ONNX's DeformConv."""
        tensors = self.tensors()
        weight = tensors.pop("weight")
        node = engines.onnx_node(
            "DeformConv",
            ["input", "weight", "offset", "", "mask" if self.mask else ""],
            kernel_shape=[self.kernel] * 2,
            strides=[1, 1],
            pads=[self.padding] * 4,
            dilations=[self.dilation] * 2,
            group=1,
            offset_group=self.offset_groups,
        )
        shape = (self.batch, self.out_channels, self.height, self.width)
        return engines.onnxruntime(node, tensors, {"weight": weight}, shape, place)


def forward_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Inference, everybody."""
    made = problem.tensors
    entries = {
        OURS: entry(made, problem.ours),
        TORCHVISION: entry(made, problem.torchvision),
        OPENVINO: Entry(problem.openvino),
        ONNXRUNTIME: Entry(problem.onnxruntime),
        OURS_NHWC: entry(made, problem.ours, channels_last=True),
        CONV2D: entry(made, problem.conv2d, landmark=True),
        CONV2D_NHWC: entry(made, problem.conv2d, channels_last=True, landmark=True),
    }
    parts = (Part("forward", ("forward",), Work.flops(problem.flops)),)
    return Case(f"{problem} forward", parts, entries, targets, quick)


def training_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Forward and the gradients of input, offset, weight and mask; the engines have none."""
    made = problem.tensors
    entries = {
        OURS: entry(made, problem.ours, backward=True),
        TORCHVISION: entry(made, problem.torchvision, backward=True),
        OURS_NHWC: entry(made, problem.ours, backward=True, channels_last=True),
        CONV2D: entry(made, problem.conv2d, backward=True, landmark=True),
        CONV2D_NHWC: entry(made, problem.conv2d, backward=True, channels_last=True, landmark=True),
    }
    parts = (
        Part("backward", ("backward",), Work.flops(2 * problem.flops)),
        Part("forward+backward", ("forward", "backward"), Work.flops(3 * problem.flops)),
    )
    return Case(f"{problem} training", parts, entries, targets, quick)


def half_case(problem: Problem, tolerance: float) -> Case:
    """A half type against our own float32 on the same problem: no peer computes it on a CPU."""
    single = replace(problem, dtype=torch.float32)
    entries = {
        OURS: entry(problem.tensors, problem.ours),
        OURS_FLOAT32: entry(single.tensors, single.ours, tolerance=tolerance),
    }
    parts = (Part("forward", ("forward",), Work.flops(problem.flops, problem.dtype)),)
    return Case(
        f"{problem} forward", parts, entries, (Target("forward", (OURS_FLOAT32,), NOT_SLOWER),)
    )


def overhead_case(*, backward: bool) -> Case:
    """A call that computes next to nothing: what Python, checks and dispatch cost."""
    problem = Problem(1, 1, 2, 2, kernel=1)
    entries = {
        OURS: entry(problem.tensors, problem.ours, backward=backward),
        TORCHVISION: entry(problem.tensors, problem.torchvision, backward=backward),
    }
    part = Part("forward", ("forward",))
    if backward:
        part = Part("forward+backward", ("forward", "backward"))
    target = Target(part.name, (TORCHVISION,), 1 / OVERHEAD)
    name = f"call overhead (1 pixel window, 2x2 map) {part.name}"
    return Case(name, (part,), entries, (target,), quick=True)


TINY = Problem(16, 16, 6, 6)
NOT_SLOWER = 1 / 1.05  # 1, less the noise of a run
OVERHEAD = 1.5

FORWARD = (Target("forward", (FLOOR,), 1.3), Target("forward", (OPENVINO, ONNXRUNTIME), 1.15))
BACKWARD = (Target("backward", (FLOOR,), 1.7),)
WIDE_FORWARD = (
    *FORWARD,
    Target("forward", (TORCHVISION,), 7, threads="one"),
    Target("forward", (TORCHVISION,), 12, threads="all"),
)
WIDE_TRAINING = (*BACKWARD, Target("backward", (TORCHVISION,), 10))
DEEP_TRAINING = (*BACKWARD, Target("backward", (TORCHVISION,), 8))


def _cases() -> list[Case]:
    wide = Problem(256, 256, 64, 64)
    deep = Problem(512, 512, 38, 50, dilation=2, offset_groups=4)
    cases = []
    for problem, forward, training, others in (
        (wide, WIDE_FORWARD, WIDE_TRAINING, {"offset_groups": 4}),
        (deep, FORWARD, DEEP_TRAINING, {"offset_groups": 1}),
    ):
        variants: list[dict[str, Any]] = [{}, {"mask": True}, others, {"batch": 8}]
        for variant in (*variants, {"batch": 8, **others}):
            chosen = replace(problem, **variant)
            cases.append(forward_case(chosen, *forward, quick=not variant))
            cases.append(training_case(chosen, *training, quick=not variant))
    cases.append(forward_case(Problem(64, 64, 32, 32), FORWARD[1]))
    cases.append(half_case(replace(wide, dtype=torch.bfloat16), tolerance=0.02))
    cases.append(half_case(replace(wide, dtype=torch.float16), tolerance=0.003))
    return [*cases, overhead_case(backward=False), overhead_case(backward=True)]


SUITE = Suite(
    name="deform_conv",
    title="deformable convolution",
    cases=_cases(),
    warm_up=(forward_case(TINY), training_case(TINY)),
    notes=(
        "bN: batch, gN: offset groups, dN: dilation (and padding), mask: modulated (v2); "
        "float32, no bias",
        "ours, torchvision: contiguous tensors, weights packed in every call",
        "openvino, onnxruntime: forward only, weights packed at load, output buffer reused",
        "ours NHWC: channels_last input; conv2d, conv2d NHWC: a plain convolution, for orientation",
    ),
)
