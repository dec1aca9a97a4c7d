"""Atrous (dilated) convolution: ours, torch in both layouts, OpenVINO and ONNX Runtime.

The floor counts the taps that fall on the map, not those on the padding, which add nothing: at
dilation 12 on a 65x65 map that is 77 % of the nominal flops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .. import engines
from ..case import OURS, Case, Competitor, Entry, Part, Suite, Target, Work
from ..place import Place
from ..torch_ops import Function, entry

OPENVINO, ONNXRUNTIME = "openvino", "onnxruntime"
OURS_NHWC, TORCH_NCHW, TORCH_NHWC = "ours NHWC", "torch NCHW", "torch NHWC"
OURS_DIRECT, OURS_SUBSAMPLE = "ours direct", "ours subsample"


@dataclass(frozen=True)
class Problem:
    """A convolution of stride 1 with padding == dilation: the output is as large as the input."""

    in_channels: int
    out_channels: int
    height: int
    width: int
    dilation: int
    batch: int = 1
    kernel: int = 3

    def __str__(self) -> str:
        return (
            f"{self.in_channels}->{self.out_channels} {self.kernel}x{self.kernel} "
            f"{self.height}x{self.width} d{self.dilation} b{self.batch}"
        )

    @property
    def padding(self) -> int:
        """Keeps the output as large as the input (odd kernels)."""
        return self.dilation * (self.kernel // 2)

    @property
    def flops(self) -> float:
        """Multiplications and additions of the taps that fall on the map."""
        reach = [self.dilation * (tap - self.kernel // 2) for tap in range(self.kernel)]
        rows = sum(max(0, self.height - abs(r)) for r in reach)
        columns = sum(max(0, self.width - abs(r)) for r in reach)
        return 2.0 * self.batch * self.in_channels * self.out_channels * rows * columns

    def tensors(self) -> dict[str, Tensor]:
        """Returns input and weight."""
        random = torch.Generator().manual_seed(0)
        weight = (self.out_channels, self.in_channels, self.kernel, self.kernel)
        size = (self.batch, self.in_channels, self.height, self.width)
        scale = math.sqrt(self.in_channels * self.kernel**2)
        return {
            "input": torch.randn(size, generator=random),
            "weight": torch.randn(weight, generator=random) / scale,
        }

    def ours(self, algorithm: Literal["auto", "direct", "subsample"] = "auto") -> Function:
        """Our convolution."""
        from deformops.ops import atrous_conv2d

        padding, dilation = self.padding, self.dilation
        return lambda of: atrous_conv2d(
            of["input"], of["weight"], padding=padding, dilation=dilation, algorithm=algorithm
        )

    def conv2d(self) -> Function:
        """torch's convolution."""
        padding, dilation = self.padding, self.dilation
        return lambda of: torch.nn.functional.conv2d(
            of["input"], of["weight"], padding=padding, dilation=dilation
        )

    def openvino(self, place: Place) -> Competitor:
        """OpenVINO's Convolution."""
        tensors = self.tensors()
        weight = tensors.pop("weight")

        def build(opset: Any, nodes: Any) -> Any:
            padding, dilation = [self.padding] * 2, [self.dilation] * 2
            return opset.convolution(
                nodes["input"], opset.constant(weight.numpy()), [1, 1], padding, padding, dilation
            )

        return engines.openvino(build, tensors, place)

    def onnxruntime(self, place: Place) -> Competitor:
        """ONNX's Conv."""
        tensors = self.tensors()
        weight = tensors.pop("weight")
        node = engines.onnx_node(
            "Conv",
            ["input", "weight"],
            kernel_shape=[self.kernel] * 2,
            pads=[self.padding] * 4,
            dilations=[self.dilation] * 2,
        )
        shape = (self.batch, self.out_channels, self.height, self.width)
        return engines.onnxruntime(node, tensors, {"weight": weight}, shape, place)


def forward_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Inference, everybody."""
    made = problem.tensors
    entries = {
        OURS: entry(made, problem.ours),
        TORCH_NCHW: entry(made, problem.conv2d),
        TORCH_NHWC: entry(made, problem.conv2d, channels_last=True),
        OPENVINO: Entry(problem.openvino),
        ONNXRUNTIME: Entry(problem.onnxruntime),
        OURS_NHWC: entry(made, problem.ours, channels_last=True),
        OURS_DIRECT: entry(made, lambda: problem.ours("direct")),
        OURS_SUBSAMPLE: entry(made, lambda: problem.ours("subsample")),
    }
    parts = (Part("forward", ("forward",), Work.flops(problem.flops)),)
    return Case(f"{problem} forward", parts, entries, targets, quick)


def training_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """Forward and the gradients of input and weight; the engines have none."""
    made = problem.tensors
    entries = {
        OURS: entry(made, problem.ours, backward=True),
        TORCH_NCHW: entry(made, problem.conv2d, backward=True),
        TORCH_NHWC: entry(made, problem.conv2d, backward=True, channels_last=True),
        OURS_NHWC: entry(made, problem.ours, backward=True, channels_last=True),
    }
    parts = (
        Part("backward", ("backward",), Work.flops(2 * problem.flops)),
        Part("forward+backward", ("forward", "backward"), Work.flops(3 * problem.flops)),
    )
    return Case(f"{problem} training", parts, entries, targets, quick)


def overhead_case() -> Case:
    """A call that computes next to nothing: what our choice of layout costs before the work."""
    problem = Problem(1, 1, 2, 2, dilation=2, kernel=1)
    made = problem.tensors
    entries = {OURS: entry(made, problem.ours), TORCH_NCHW: entry(made, problem.conv2d)}
    parts = (Part("forward", ("forward",)),)
    return Case("call overhead (1 pixel window, 2x2 map) forward", parts, entries, (), True)


TINY = Problem(16, 16, 6, 6, dilation=2)
NOT_SLOWER = 1 / 1.05  # 1, less the noise of a run
FORWARD_PEERS, BACKWARD_PEERS = (TORCH_NCHW, TORCH_NHWC, OPENVINO), (TORCH_NCHW, TORCH_NHWC)
FAR_DILATION, FAR_GAIN = 12, 1.1


def _cases() -> list[Case]:
    cases = []
    for problem in (
        Problem(512, 512, 38, 50, dilation=2),
        Problem(2048, 256, 65, 65, dilation=12),
        Problem(512, 1024, 41, 41, dilation=12, batch=4),
        Problem(512, 512, 38, 50, dilation=2, batch=8),
        Problem(256, 256, 33, 33, dilation=2),
        Problem(256, 256, 64, 64, dilation=1),
    ):
        bound = FAR_GAIN if problem.dilation >= FAR_DILATION else NOT_SLOWER
        quick = problem.batch == 1 and problem.in_channels >= 512
        forward = Target("forward", FORWARD_PEERS, bound)
        backward = Target("backward", BACKWARD_PEERS, NOT_SLOWER)
        cases.append(forward_case(problem, forward, quick=quick))
        cases.append(training_case(problem, backward, quick=quick))
    return [*cases, overhead_case()]


SUITE = Suite(
    name="atrous_conv",
    title="atrous convolution",
    cases=_cases(),
    warm_up=(forward_case(TINY), training_case(TINY)),
    notes=(
        "bN: batch, dN: dilation (and padding); float32, no bias",
        "ours, torch NCHW: contiguous input; ours NHWC, torch NHWC: channels_last input",
        "openvino, onnxruntime: forward only, weights packed at load, output buffer reused",
        "the floor counts all products of the taps that fall on the map, none on the padding; ours",
        "has fewer where it chooses Winograd's algorithm, and can be below it",
        'at most 1.05x the time means "never slower", with 5 % for the noise of a run',
    ),
)
