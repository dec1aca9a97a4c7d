"""A problem of typical proportions for each op: `python -m deformops.simulation profile` runs it.

Large enough that tiles are full and that no single map fits into a warp, small enough for the
simulated device, which runs some 20 000 threads a second when it watches every access.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

CHANNELS, SIZE = 64, 64
TAPS = 9
MAP, STRIDE = (38, 50), 16
BOXES, BINS = 12, 7
# Boxes that overlap, points of a small photo, and the labels of a dense CRF there.
OVERLAPPING, PHOTO, LABELS, STEPS = 512, (32, 48), 21, 5


@dataclass(frozen=True)
class Problem:
    """A call of one op and the tensors that it reads."""

    inputs: tuple[Tensor, ...]
    call: Callable[[], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Tensors:
    """Draws tensors of one type and memory format, the same each time."""

    dtype: torch.dtype
    channels_last: bool
    device: str = "cpu"

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normally distributed numbers."""
        generator = torch.Generator().manual_seed(sum(shape))
        tensor = scale * torch.randn(shape, generator=generator)
        tensor = tensor.to(device=self.device, dtype=self.dtype)
        if self.channels_last and len(shape) == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


@dataclass(frozen=True)
class Mean:
    """What of `roi_average` makes an op of RoI pooling."""

    semantics: str
    groups: int
    samples: int
    moved: bool


MEANS = {
    "roi_align": Mean("unaligned", 1, 2, moved=False),
    "ps_roi_pool": Mean("rfcn", BINS, 0, moved=False),
    "ps_roi_align": Mean("aligned", BINS, 2, moved=False),
    "deform_roi_pool": Mean("dcn", 1, 4, moved=True),
    "deform_ps_roi_pool": Mean("dcn", BINS, 4, moved=True),
}

_SAMPLING = ([1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner")
_KERNEL = [3, 3]


def problems(
    ops: Any, tensors: Tensors, options: dict[str, Any]
) -> dict[str, Callable[[], Problem]]:
    """What there is to profile, by the name of the op.

    Args:
        ops: the raw ops, `torch.ops.deformops_simulated`.
        tensors: of which type and format.
        options: ``deterministic`` and ``allow_tf32``; each op gets those that it takes.
    """

    def convolution() -> tuple[Tensor, ...]:
        """Input, offset, weight, mask, grad_output, columns."""
        return (
            tensors.normal(1, CHANNELS, SIZE, SIZE),
            tensors.normal(1, 2 * TAPS, SIZE, SIZE, scale=0.5),
            tensors.normal(CHANNELS, CHANNELS, *_KERNEL),
            tensors.normal(1, TAPS, SIZE, SIZE),
            tensors.normal(1, CHANNELS, SIZE, SIZE),
            tensors.normal(1, CHANNELS, TAPS, SIZE, SIZE),
        )

    def problem(name: str, inputs: tuple[Tensor, ...], *arguments: Any) -> Problem:
        op = getattr(ops, name)
        taken = {argument.name for argument in op.default._schema.arguments}
        chosen = {key: value for key, value in options.items() if key in taken}
        return Problem(inputs, lambda: op(*arguments, **chosen))

    def deform_conv2d() -> Problem:
        input, offset, weight, mask, *_ = convolution()
        inputs = (input, offset, weight, mask)
        return problem("deform_conv2d", inputs, input, offset, weight, None, mask, *_SAMPLING)

    def deform_conv2d_backward() -> Problem:
        input, offset, weight, mask, grad_output, _ = convolution()
        inputs = (grad_output, input, offset, weight, mask)
        return problem("deform_conv2d_backward", inputs, *inputs, *_SAMPLING, [True] * 4)

    def gather_columns() -> Problem:
        input, offset, _, mask, *_ = convolution()
        inputs = (input, offset, mask)
        return problem("gather_columns", inputs, *inputs, _KERNEL, *_SAMPLING)

    def scatter_columns() -> Problem:
        _, offset, _, mask, _, columns = convolution()
        inputs = (columns, offset, mask)
        return problem("scatter_columns", inputs, *inputs, [SIZE, SIZE], _KERNEL, *_SAMPLING)

    def contract_columns() -> Problem:
        input, offset, _, _, _, columns = convolution()
        inputs = (input, columns, offset)
        return problem("contract_columns", inputs, *inputs, _KERNEL, *_SAMPLING, 1)

    def boxes() -> Tensor:
        """Boxes of up to half the image, in the type that goes with that of the input."""
        random = torch.Generator().manual_seed(0)
        size = torch.tensor([MAP[1], MAP[0]]) * float(STRIDE)
        centre = size * torch.rand(BOXES, 2, generator=random)
        half = size * (0.1 + 0.15 * torch.rand(BOXES, 2, generator=random))
        corners = [(centre - half).clamp(min=0), (centre + half).minimum(size - STRIDE)]
        rows = torch.cat([torch.zeros(BOXES, 1), *corners], 1)
        return at_least_float(rows)

    def at_least_float(values: Tensor) -> Tensor:
        """The type that coordinates have beside maps of this type, or at least float."""
        return values.to(tensors.device, torch.promote_types(tensors.dtype, torch.float32))

    def roi_pool() -> Problem:
        input, rows = tensors.normal(1, CHANNELS, *MAP), boxes()
        bins = ([BINS, BINS], 1 / STRIDE, "caffe")
        return problem("roi_pool", (input, rows), input, rows, *bins)

    def roi_pool_backward() -> Problem:
        output, index = roi_pool().call()
        grad_output, rows = tensors.normal(*output.shape), boxes()
        inputs = (grad_output, rows, index)
        return problem("scatter_maxima", inputs, *inputs, [1, CHANNELS, *MAP])

    def average(name: str, *, backward: bool) -> Problem:
        mean = MEANS[name]
        groups = mean.groups**2
        channels = -(-CHANNELS // groups)
        input, rows = tensors.normal(1, channels * groups, *MAP), boxes()
        offset = tensors.normal(BOXES, 2, BINS, BINS) if mean.moved else None
        bins = ([BINS, BINS], 1 / STRIDE, mean.semantics, [mean.groups] * 2, mean.samples)
        moves = (0.1, [0, 0])
        read = (input, rows) if offset is None else (input, rows, offset)
        if not backward:
            return problem("roi_average", read, input, rows, offset, *bins, *moves)
        grad_output = tensors.normal(BOXES, channels, BINS, BINS)
        # The gradient of a mean does not depend on what it is the mean of, but for the offset's.
        read = (grad_output, *(read if mean.moved else read[1:]))
        arguments = (grad_output, input, rows, offset, *bins, *moves)
        return problem("roi_average_backward", read, *arguments, [True, mean.moved])

    def overlapping() -> tuple[Tensor, Tensor]:
        """Boxes and scores, in clusters of about 20, as proposals come."""
        random = torch.Generator().manual_seed(0)
        centre = 600 * torch.rand(OVERLAPPING // 20, 2, generator=random)
        centre = centre.repeat(21, 1)[:OVERLAPPING] + 8 * torch.randn(
            OVERLAPPING, 2, generator=random
        )
        half = 20 + 20 * torch.rand(OVERLAPPING, 2, generator=random)
        boxes = torch.cat([centre - half, centre + half], 1)
        return at_least_float(boxes), at_least_float(torch.rand(OVERLAPPING, generator=random))

    def box_iou() -> Problem:
        boxes, _ = overlapping()
        return problem("box_iou", (boxes, boxes), boxes, boxes)

    def nms() -> Problem:
        inputs = overlapping()
        return problem("nms", inputs, *inputs, None, 0.5)

    def soft_nms() -> Problem:
        inputs = overlapping()
        return problem("soft_nms", inputs, *inputs, 0.3)

    def features() -> Tensor:
        """Places and colours of a small photo, as a bilateral kernel sees them: [1, M, 5]."""
        y, x = torch.meshgrid(*(torch.arange(size) for size in PHOTO), indexing="ij")
        random = torch.Generator().manual_seed(0)
        colours = torch.stack([(x + y) / 8, y / 4, x / 6]) + torch.rand(3, *PHOTO, generator=random)
        places = torch.cat([torch.stack([y, x]) / 20, colours]).flatten(1)
        return at_least_float(places.T[None].contiguous())

    def lattice() -> tuple[Tensor, list[Tensor]]:
        """Barycentric weights, and what of the structure is integers."""
        vertex, weight, *others = ops.lattice_build(features())
        return weight, [vertex, *others]

    def lattice_build() -> Problem:
        inputs = (features(),)
        return problem("lattice_build", inputs, *inputs)

    def values() -> Tensor:
        """Values of all labels at all points."""
        return at_least_float(tensors.normal(PHOTO[0] * PHOTO[1], LABELS))

    def lattice_filter() -> Problem:
        weight, structure = lattice()
        inputs = (values(), weight, *structure)
        return problem("lattice_filter", inputs, values(), weight, weight, *structure, False)

    def mean_field() -> Problem:
        weight, structure = lattice()
        unary = values().T[None].contiguous()
        attraction = at_least_float(torch.tensor(3.0))
        lists = [[part] for part in (weight, weight, *structure, attraction)]
        return problem("mean_field", (unary, weight, *structure), unary, *lists, [], None, STEPS)

    averages = {
        name + suffix: partial(average, name, backward=bool(suffix))
        for name in MEANS
        for suffix in ("", "_backward")
    }
    others = (
        deform_conv2d,
        deform_conv2d_backward,
        gather_columns,
        scatter_columns,
        contract_columns,
        roi_pool,
        roi_pool_backward,
        box_iou,
        nms,
        soft_nms,
        lattice_build,
        lattice_filter,
        mean_field,
    )
    return {function.__name__: function for function in others} | averages
