"""Every variant of the convolution family's kernels, with numbers whose arithmetic is exact.

Inputs, weights and gradients are small whole numbers, masks and offsets multiples of a half.
Columns then have few enough bits for a half type and for tf32, and no sum is rounded in any order:
results have to be the reference's, rounded once, to the last bit. A sum that is short of one
product, or a factor taken from a neighbour, cannot hide.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import reference
from tests.cases import Case, arrange, make_case
from tests.devices import Device
from tests.reference import Geometry

KINDS = {
    "float64": (torch.float64, False),
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
}


@dataclass(frozen=True)
class Shape:
    """What decides which way a kernel takes; see `make_case`."""

    geometry: Geometry = Geometry((3, 3), padding=(1, 1))  # noqa: RUF009
    sizes: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    # Channels that fill no tile: 36 in a group, of which an offset group has 12.
    "tails": Shape(
        Geometry((3, 2), (2, 1), (1, 2), (1, 2)),
        {"groups": 1, "offset_groups": 3, "group_channels": 12, "group_out_channels": 5},
    ),
    # Whole vectors of 8 channels, two groups.
    "vectors": Shape(
        sizes={"groups": 2, "group_channels": 16, "group_out_channels": 3, "input_size": (4, 17)}
    ),
    # More than one tile of output channels and of channels; 128 and 64 are what a tile holds.
    "wide": Shape(
        Geometry((1, 2), padding=(0, 1)),
        {"batch": 1, "group_channels": 130, "group_out_channels": 131, "input_size": (2, 33)},
    ),
    # 9 taps are handled at a time.
    "many taps": Shape(
        Geometry((4, 5), padding=(2, 2)),
        {"batch": 1, "group_channels": 3, "group_out_channels": 2, "input_size": (5, 4)},
    ),
    "odd channels": Shape(sizes={"group_channels": 33, "group_out_channels": 2}),
    "no mask": Shape(sizes={"mask": False, "group_channels": 5, "input_size": (9, 14)}),
    "no offset": Shape(sizes={"offset": False, "group_channels": 5, "bias": False}),
    "neither": Shape(sizes={"offset": False, "mask": False, "group_channels": 4}),
    "clip": Shape(replace(Geometry((3, 3), padding=(1, 1)), border="v1"), {"group_channels": 7}),
    "zero": Shape(replace(Geometry((3, 3), padding=(1, 1)), kink="zero"), {"group_channels": 7}),
    "slopes y": Shape(replace(Geometry((3, 3), padding=(1, 1)), order=(1, 0))),
    "slopes x": Shape(replace(Geometry((3, 3), padding=(1, 1)), order=(0, 1))),
    "slopes": Shape(replace(Geometry((3, 3), padding=(1, 1)), order=(1, 1))),
    # Convolution groups and offset groups that cut each other: segments of 2 channels.
    "segments": Shape(
        sizes={"groups": 2, "offset_groups": 3, "group_channels": 2, "group_out_channels": 17}
    ),
    "images": Shape(sizes={"batch": 5, "group_channels": 9, "input_size": (7, 11)}),
    "one pixel": Shape(Geometry((1, 1)), {"input_size": (1, 1), "group_channels": 40}),
}
pytestmark = pytest.mark.variants
LAYOUTS = ["contiguous", "channels_last"]


def exact(shape: Shape, dtype: torch.dtype, device: Device, layout: str) -> Case:
    """A case of numbers that no arithmetic has to round."""
    case = make_case(shape.geometry, dtype=dtype, device=device.type, **shape.sizes)
    random = np.random.default_rng(1)

    def numbers(like: Tensor | None, low: int, high: int, unit: float = 1.0) -> Any:
        if like is None:
            return None
        values = random.integers(low, high + 1, tuple(like.shape)) * unit
        plain = torch.from_numpy(values).to(like.device, like.dtype)
        return arrange(plain, layout) if like.dim() == 4 else plain

    return replace(
        case,
        input=numbers(case.input, -3, 3),
        offset=numbers(case.offset, -6, 6, 0.5),  # onto pixels, borders and the kink at -1
        mask=numbers(case.mask, -2, 2, 0.5),
        weight=numbers(case.weight, -2, 2),
        bias=numbers(case.bias, -3, 3),
        columns=numbers(case.columns, -3, 3),
        grad_output=numbers(case.grad_output, -2, 2),
    )


def assert_equal(name: str, got: Tensor, want: Any) -> None:
    if want is None:
        assert got.shape == (0,), name
        return
    expected = torch.from_numpy(want).to(got.dtype)
    wrong = got.cpu() != expected
    if wrong.any():
        index = tuple(int(number) for number in wrong.nonzero()[0])
        raise AssertionError(
            f"{name}: {int(wrong.sum())} of {wrong.numel()} numbers differ, the first at {index}: "
            f"expected {expected[index]}, got {got[index]}"
        )


def check_convolution(device: Device, case: Case, allow_tf32: bool) -> None:
    """Forward and backward, the latter in both orders of summation."""
    switch = {"allow_tf32": True} if allow_tf32 else {}
    arrays = case.arrays("input", "offset", "weight", "mask")
    output = device.raw.deform_conv2d(
        *(case.input, case.offset, case.weight, case.bias, case.mask),
        *case.raw_geometry,
        **switch,
    )
    want = reference.deform_conv2d(**arrays, bias=case.numpy("bias"), geometry=case.geometry)
    assert_equal("output", output, want)
    gradients = reference.deform_conv2d_backward(
        case.numpy("grad_output"), **arrays, geometry=case.geometry
    )
    wanted = [True, case.offset is not None, True, case.mask is not None]
    for deterministic in (False, True):
        got = device.raw.deform_conv2d_backward(
            *(case.grad_output, case.input, case.offset, case.weight, case.mask),
            *case.raw_geometry,
            wanted,
            deterministic=deterministic,
            **switch,
        )
        for name, gradient in zip(("input", "offset", "weight", "mask"), got, strict=True):
            assert_equal(f"grad_{name}", gradient, getattr(gradients, name))


def check_columns(device: Device, case: Case) -> None:
    """Gather, scatter in both orders of summation, contract."""
    points = (case.offset, case.mask)
    kernel_size, window = list(case.geometry.kernel_size), case.raw_geometry
    arrays = case.arrays("offset", "mask")
    assert_equal(
        "gather_columns",
        device.raw.gather_columns(case.input, *points, kernel_size, *window),
        reference.gather_columns(case.numpy("input"), **arrays, geometry=case.geometry),
    )
    want = reference.scatter_columns(
        case.numpy("columns"), **arrays, input_size=case.input_size, geometry=case.geometry
    )
    for deterministic in (False, True):
        image = device.raw.scatter_columns(
            *(case.columns, *points, list(case.input_size), kernel_size, *window),
            deterministic=deterministic,
        )
        assert_equal("scatter_columns", image, want)
    assert_equal(
        "contract_columns",
        device.raw.contract_columns(
            *(case.input, case.columns, case.offset, kernel_size, *window, case.offset_groups)
        ),
        reference.contract_columns(
            **case.arrays("input", "columns", "offset"),
            offset_groups=case.offset_groups,
            geometry=case.geometry,
        ),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_variants(device: Device, kind: str, shape: Shape, layout: str) -> None:
    dtype, allow_tf32 = KINDS[kind]
    case = exact(shape, dtype, device, layout)
    check_convolution(device, case, allow_tf32)
    if not allow_tf32:
        check_columns(device, case)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_shares_of_different_length(device: Device, kind: str) -> None:
    """Pixels of grad_weight are dealt to shares, which are of one length only by chance."""
    sizes = {"batch": 8, "group_channels": 512, "group_out_channels": 4, "input_size": (5, 5)}
    shape = Shape(Geometry((5, 5), padding=(2, 2)), sizes)
    case = exact(shape, KINDS[kind][0], device, "contiguous")
    *_, got, _ = device.raw.deform_conv2d_backward(
        *(case.grad_output, case.input, case.offset, case.weight, case.mask),
        *case.raw_geometry,
        [False, False, True, False],
    )
    arrays = case.arrays("grad_output", "input", "offset", "weight", "mask")
    want = reference.deform_conv2d_backward(**arrays, geometry=case.geometry)
    assert_equal("grad_weight", got, want.weight)


@pytest.mark.parametrize("moved", [True, False], ids=["offset", "no offset"])
@pytest.mark.parametrize("kind", ["float64", "float32", "float16"])
def test_many_channels(device: Device, kind: str, moved: bool) -> None:
    """More than fit a cache are summed up in steps, each of some channels of some taps."""
    sizes = {"offset": moved, "mask": moved, "batch": 1, "group_channels": 600}
    shape = Shape(sizes={**sizes, "group_out_channels": 3, "input_size": (3, 4)})
    case = exact(shape, KINDS[kind][0], device, "contiguous")
    output = device.raw.deform_conv2d(
        *(case.input, case.offset, case.weight, case.bias, case.mask), *case.raw_geometry
    )
    arrays = case.arrays("input", "offset", "weight", "bias", "mask")
    assert_equal("output", output, reference.deform_conv2d(**arrays, geometry=case.geometry))


def test_tf32_is_what_was_asked_for(device: Device) -> None:
    """Rounded to 10 bits where allowed and where there are tensor cores, and only there."""
    case = make_case(
        Geometry((3, 3), padding=(1, 1)), dtype=torch.float32, device=device.type, group_channels=16
    )
    arguments = (case.input, case.offset, case.weight, case.bias, case.mask, *case.raw_geometry)
    exactly, rounded = (
        device.raw.deform_conv2d(*arguments, allow_tf32=allow_tf32).cpu().double()
        for allow_tf32 in (False, True)
    )
    arrays = case.arrays("input", "offset", "weight", "bias", "mask")
    want = torch.from_numpy(reference.deform_conv2d(**arrays, geometry=case.geometry))
    scale = float(want.abs().max())
    assert float((exactly - want).abs().max()) < 1e-6 * scale
    error = float((rounded - want).abs().max())
    if device.name.startswith("simulated"):
        assert 1e-6 * scale < error
    assert error < 1e-3 * scale
