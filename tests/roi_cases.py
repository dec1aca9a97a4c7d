"""Random problems for RoI pooling: boxes across all borders, offsets, types, memory layouts.

*Exact* cases lie on a grid of powers of two, so that every coordinate is the same number in every
type and on every device, and borders of bins, margins and pixels are met exactly. The others are
of any numbers, as users have them, and meet none of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests import reference
from tests.cases import LAYOUTS, Array, arrange, assert_close, numpy
from tests.devices import Device
from tests.reference import Pooling

MEANS = ("rfcn", "torchvision", "aligned", "unaligned", "dcn")
MAXIMA = ("caffe", "mmcv")
SAMPLED = ("aligned", "unaligned", "dcn")
ALL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, repr=False)
class RoiCase:
    """The tensors of one pooling and everything around it."""

    pooling: Pooling
    input: Tensor  # [N, C, H, W]
    boxes: Tensor  # [K, 5], float64 or float32
    offset: Tensor | None  # [K, 2 * classes, part_y, part_x]
    grad_output: Tensor  # [K, C / groups, pooled_y, pooled_x]

    def __repr__(self) -> str:
        tensors = (f for f in fields(self) if isinstance(getattr(self, f.name), Tensor))
        shapes = (
            f"{f.name}={tuple(getattr(self, f.name).shape)}/{getattr(self, f.name).stride()}"
            for f in tensors
        )
        shown = f"{self.pooling}, {self.input.dtype}, shape/strides: {', '.join(shapes)}"
        return f"RoiCase({shown}, boxes={self.boxes.tolist()})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    @property
    def rows(self) -> Any:
        """The boxes as the references take them: in their own type."""
        return self.boxes.cpu().numpy()

    @property
    def bins(self) -> tuple[Any, ...]:
        """The arguments of ``roi_average`` behind its tensors."""
        pooling = self.pooling
        return (
            list(pooling.output_size),
            pooling.spatial_scale,
            pooling.semantics,
            list(pooling.group_size),
            pooling.samples,
            pooling.offset_scale,
            list(pooling.order),
        )

    @property
    def pixel_bins(self) -> tuple[Any, ...]:
        """The arguments of ``roi_pool`` behind its tensors."""
        return self.bins[:3]


def average(device: Device, case: RoiCase) -> Tensor:
    result: Tensor = device.raw.roi_average(case.input, case.boxes, case.offset, *case.bins)
    return result


def average_backward(
    device: Device, case: RoiCase, wanted: tuple[bool, bool] | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """The gradients that are wanted: all that there are if None."""
    flags = [True, case.offset is not None] if wanted is None else list(wanted)
    result: tuple[Tensor, Tensor] = device.raw.roi_average_backward(
        case.grad_output, case.input, case.boxes, case.offset, *case.bins, flags, **options
    )
    return result


def assert_average_close(device: Device, case: RoiCase) -> None:
    """roi_average and its backward pass on a device, against the references."""
    image, offset, grad = map(numpy, (case.input, case.offset, case.grad_output))
    want = reference.roi_average(image, case.rows, offset, case.pooling)
    slack = rounding_of_coordinates(case)
    assert_close(average(device, case), want, context="output", slack=slack * largest(image))
    grad_input, grad_offset = average_backward(device, case)
    want_input, want_offset = reference.roi_average_backward(
        grad, image, case.rows, offset, case.pooling
    )
    scale = slack * largest(grad)
    assert_close(grad_input, want_input, context="grad_input", slack=scale * 4)
    if want_offset is None:
        assert grad_offset.shape == (0,)
    else:
        each = case.grad_output[0].numel() if len(case.grad_output) else 0
        scale *= largest(image) * speed(case) * math.sqrt(each)
        assert_close(grad_offset, want_offset, context="grad_offset", slack=scale)


def largest(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(abs(finite).max()) if finite.size else 0.0


def speed(case: RoiCase) -> float:
    """How many pixels an offset of 1 is, for the largest box."""
    corners = case.rows[:, 1:]
    finite = corners[np.isfinite(corners)]
    reach = float(finite.max() - finite.min()) + 1 if finite.size else 1.0
    return 1 + abs(case.pooling.offset_scale) * reach * case.pooling.spatial_scale


def rounding_of_coordinates(case: RoiCase) -> float:
    """By how much a mean may change, in parts of the largest pixel, when samples are rounded.

    A coordinate of n pixels is off by some half units in the last place of n.
    """
    if case.pooling.semantics not in SAMPLED:
        return 0.0
    return 8 * torch.finfo(case.boxes.dtype).eps * max(case.input.shape[2:])


def make_boxes(
    random: np.random.Generator, count: int, images: int, size: tuple[int, int], scale: float
) -> Array:
    """Boxes in all places: inside, across each border, far outside; of all kinds: larger than the
    map, thin, empty, inverted.
    """
    height, width = size[0] / scale, size[1] / scale
    rows = np.zeros((count, 5))
    for row in rows:
        kind = random.integers(10)
        reach = 0.1 if kind < 3 else 1.5 if kind == 9 else 0.5
        low, high = -reach, 1 + reach
        x, y = (np.sort(random.uniform(low * n, high * n, 2)) for n in (width, height))
        if kind == 6:
            x[1] = x[0]
        elif kind == 7:
            x, y = (x[::-1], y) if random.integers(2) else (x, y[::-1])
        elif kind == 8:
            y[1] = y[0] + 0.3 / scale
        row[:] = random.integers(images) if images else 0, x[0], y[0], x[1], y[1]
    return rows


def make_roi_case(
    pooling: Pooling,
    *,
    seed: int = 0,
    images: int = 2,
    boxes: int = 4,
    channels: int = 2,
    input_size: tuple[int, int] = (6, 7),
    classes: int | None = None,
    part_size: tuple[int, int] | None = None,
    exact: bool = True,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    layouts: dict[str, str] | None = None,
) -> RoiCase:
    """A case of the given shape, of ``channels`` output channels for each class.

    ``classes`` None: no offset. ``part_size`` None: the output size.
    """
    random = np.random.default_rng(seed)
    layouts = layouts or {}
    outputs = channels * (classes or 1)

    def tensor(name: str, values: Array) -> Tensor:
        plain = torch.from_numpy(values).to(device, dtype)
        return arrange(plain, layouts.get(name, "contiguous"))

    rows = make_boxes(random, boxes, images, input_size, pooling.spatial_scale)
    offset = None
    if classes is not None:
        part_size = pooling.output_size if part_size is None else part_size
        moves = 2 * random.standard_normal((boxes, 2 * classes, *part_size))
        offset = tensor("offset", np.round(16 * moves) / 16 if exact else moves)
    if exact:
        rows[:, 1:] = np.round(16 * rows[:, 1:]) / 16
    groups = pooling.group_size[0] * pooling.group_size[1]
    plain_boxes = torch.from_numpy(rows).to(
        device, torch.float64 if dtype == torch.float64 else torch.float32
    )
    return RoiCase(
        pooling=pooling,
        input=tensor("input", random.standard_normal((images, outputs * groups, *input_size))),
        boxes=arrange(plain_boxes, layouts.get("boxes", "contiguous")),
        offset=offset,
        grad_output=tensor(
            "grad_output", random.standard_normal((boxes, outputs, *pooling.output_size))
        ),
    )


def kink_free_case(pooling: Pooling, *, least: float = 0.004, **options: Any) -> RoiCase:
    """A case of any numbers, in float64, that is smooth: no sample is near a pixel or a margin."""
    for seed in range(1000):
        case = make_roi_case(pooling, seed=seed, exact=False, **options)
        if case.offset is None:
            return case
        places = reference.sample_points(
            case.rows, numpy(case.offset), pooling, case.input.shape[1]
        )
        points = np.concatenate([points for axes in places for points in axes])
        if (abs(2 * points - np.round(2 * points)) > 2 * least).all():
            return case
    raise AssertionError(f"no smooth case of {pooling}")


@st.composite
def poolings(draw: st.DrawFn, semantics: tuple[str, ...], exact: bool) -> Pooling:
    """Bins of some kind; see the module about *exact*."""
    bins = st.sampled_from((1, 2, 4) if exact else (1, 2, 3, 7))
    output_size = draw(bins), draw(bins)
    name = draw(st.sampled_from(semantics))
    samples = 0
    if name in SAMPLED:
        samples = draw(st.sampled_from((1, 2, 4) if exact else (1, 2, 3, 5)))
        if name != "dcn" and draw(st.booleans()):
            samples = draw(st.sampled_from((0, -1)))
    groups = (1, 1)
    if name in MEANS and draw(st.booleans()):
        groups = draw(st.sampled_from((output_size, (1, 2), (2, 1), (3, 2))))
    return Pooling(
        semantics=name,
        output_size=output_size,
        spatial_scale=draw(st.sampled_from((1.0, 0.5, 0.0625) if exact else (0.37, 1.3, 0.061))),
        group_size=groups,
        samples=samples,
        offset_scale=draw(st.sampled_from((0.125, 0.5) if exact else (0.1, 0.43))),
    )


@st.composite
def roi_cases(
    draw: st.DrawFn,
    semantics: tuple[str, ...],
    *,
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    layouts: tuple[str, ...] = LAYOUTS,
    offsets: bool = True,
    orders: bool = False,
    device: str = "cpu",
) -> RoiCase:
    """Everything drawn: bins, groups, boxes (none, too), offsets or none, type and layouts."""
    exact = draw(st.booleans())
    pooling = draw(poolings(semantics, exact))
    has_offset = offsets and pooling.semantics in SAMPLED and draw(st.booleans())
    if orders and has_offset:
        pooling = replace(pooling, order=draw(st.tuples(st.integers(0, 1), st.integers(0, 1))))
    parts = st.sampled_from((1, 2, 3))
    return make_roi_case(
        pooling,
        seed=draw(st.integers(0, 2**32 - 1)),
        images=draw(st.sampled_from((1, 2, 3))),
        boxes=draw(st.sampled_from((1, 3, 6, 0))),
        # 5 and more reach the vector paths and their tails.
        channels=draw(st.sampled_from((1, 2, 5, 8, 17))),
        input_size=draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        classes=draw(st.sampled_from((1, 2, 3))) if has_offset else None,
        part_size=(draw(parts), draw(parts)) if draw(st.booleans()) else None,
        exact=exact,
        dtype=draw(st.sampled_from(dtypes)),
        device=device,
        layouts={
            name: draw(st.sampled_from(layouts))
            for name in ("input", "boxes", "offset", "grad_output")
        },
    )
