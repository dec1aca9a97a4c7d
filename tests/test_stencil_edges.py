"""Where the bilinear read is delicate: borders, integers, the kink, NaN, infinity, huge offsets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import reference
from tests.cases import (
    Case,
    assert_close,
    assert_gradients_close,
    assert_output_close,
    make_case,
)
from tests.devices import Device
from tests.reference import Geometry

PIXELS = 64
NAN, INF = math.nan, math.inf


def read_row(
    device: Device,
    pixels: Tensor,
    points: list[float],
    *,
    order: int = 0,
    border: str = "v2",
    kink: str = "inner",
    vertical: bool = False,
) -> Tensor:
    """Reads ``pixels`` at each point, along x or y.

    The map repeats the row once for every point, so that each is read from the output pixel closest
    to it: its offset is small and exact in every type.
    """
    count, rows = pixels.numel(), torch.arange(len(points))
    places = torch.tensor(points, dtype=torch.float64)
    base = places.round().clamp(0, count - 1).long()
    offset = torch.zeros(1, 2, len(points), count, dtype=torch.float64)
    offset[0, 1, rows, base] = places - base
    image = pixels.expand(1, 1, len(points), count)
    orders = [0, order]
    if vertical:
        image, offset, orders = image.mT, offset.mT.flip(1), [order, 0]
    columns: Tensor = device.raw.gather_columns(
        image.to(device.type),
        offset.to(device.type, pixels.dtype),
        None,
        *([1, 1], [1, 1], [0, 0], [1, 1], orders, border, kink),
    )
    read = columns[0, 0, 0].cpu()
    return (read.mT if vertical else read)[rows, base]


EDGE_POINTS = [
    *(-2.0, -1.5, -1.0625, -1.0, -0.9375, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 1.5, 7.0, 31.0, 31.75),
    *(PIXELS - 2.0, PIXELS - 1.5, PIXELS - 1.0, PIXELS - 0.5, PIXELS - 0.0625),
    *(float(PIXELS), PIXELS + 0.5, PIXELS + 1.0, PIXELS + 7.0),
]


@pytest.mark.parametrize("vertical", [False, True], ids=["x", "y"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("border", "kink"), [("v2", "inner"), ("v2", "zero"), ("v1", "inner")])
def test_borders_and_integers(
    device: Device, dtype: torch.dtype, border: str, kink: str, order: int, vertical: bool
) -> None:
    pixels = torch.randn(PIXELS).to(dtype)
    got = read_row(
        device, pixels, EDGE_POINTS, order=order, border=border, kink=kink, vertical=vertical
    )
    weights = reference.axis_weights(np.array(EDGE_POINTS), PIXELS, order, border, kink)
    assert_close(got, weights @ pixels.double().numpy())


@pytest.mark.parametrize("border", ["v2", "v1"])
def test_whole_points_read_their_pixel_exactly(
    device: Device, dtype: torch.dtype, border: str
) -> None:
    pixels = torch.randn(PIXELS).to(dtype)
    offset = torch.zeros(1, 2, 1, PIXELS)
    order = torch.randperm(PIXELS)
    offset[0, 1, 0] = order - torch.arange(PIXELS)
    columns = device.raw.gather_columns(
        pixels.reshape(1, 1, 1, PIXELS).to(device.type),
        offset.to(device.type, dtype),
        None,
        *([1, 1], [1, 1], [0, 0], [1, 1], [0, 0], border, "inner"),
    )
    assert torch.equal(columns.flatten().cpu(), pixels[order])


def test_one_pixel_map(device: Device) -> None:
    """The first pixel is also the last."""
    points = [-1.0, -0.75, 0.0, 0.25, 0.75, 1.0]
    pixel = torch.tensor([2.0], dtype=torch.float64)
    for border in ("v2", "v1"):
        for order in (0, 1):
            got = read_row(device, pixel, points, order=order, border=border)
            weights = reference.axis_weights(np.array(points), 1, order, border)
            assert got.tolist() == (2.0 * weights[:, 0]).tolist(), (border, order)


def test_the_kink_is_one_point_wide(device: Device) -> None:
    """``zero`` and ``inner`` part on -1 exactly; the next number on either side is ordinary."""
    pixels = torch.arange(1.0, PIXELS + 1, dtype=torch.float64)
    outside, inside = np.nextafter(-1.0, -2.0), np.nextafter(-1.0, 0.0)
    for point, inner, zero in ((outside, 0.0, 0.0), (-1.0, 1.0, 0.0), (inside, 1.0, 1.0)):
        assert read_row(device, pixels, [float(point)], order=1).item() == inner
        assert read_row(device, pixels, [float(point)], order=1, kink="zero").item() == zero
    assert read_row(device, pixels, [float(outside)]).item() == 0.0
    assert read_row(device, pixels, [-1.0]).item() == 0.0
    assert 0.0 < read_row(device, pixels, [float(inside)]).item() < 1e-15


def test_last_number_before_the_end(device: Device) -> None:
    pixels = torch.full((PIXELS,), 3.0, dtype=torch.float64)
    before = float(np.nextafter(PIXELS, 0.0))
    assert 0.0 < read_row(device, pixels, [before]).item() < 1e-12
    assert read_row(device, pixels, [before], border="v1").item() == 3.0
    assert read_row(device, pixels, [float(PIXELS)], border="v1").item() == 0.0


HUGE = [
    *(2.0**31, 2.0**31 + 3, 2.0**32, 2.0**32 + 5, 2.0**33, 2.0**52, 2.0**63, 2.0**64, 2.0**65),
    *(1e30, 3e38, INF),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vertical", [False, True], ids=["x", "y"])
def test_far_points_read_nothing(device: Device, dtype: torch.dtype, vertical: bool) -> None:
    """Also where the low 32 or 64 bits of the integer would be inside the map."""
    pixels = torch.full((PIXELS,), 7.0, dtype=dtype)
    points = [*HUGE, *(-point for point in HUGE)]
    for border in ("v2", "v1"):
        for order in (0, 1):
            got = read_row(device, pixels, points, border=border, order=order, vertical=vertical)
            assert got.tolist() == [0.0] * len(points), (border, order)


def test_far_half_points_read_nothing(device: Device) -> None:
    pixels = torch.full((PIXELS,), 7.0, dtype=torch.float16)
    got = read_row(device, pixels, [65504.0, -65504.0, INF, -INF])
    assert got.tolist() == [0.0] * 4


# --- NaN and infinity in a whole convolution ------------------------------------------------------


def poisoned(case: Case, value: float, coordinate: int, tap: int, pixel: tuple[int, int]) -> Case:
    """The case with one coordinate of one tap at one pixel of the second image replaced."""
    assert case.offset is not None
    offset = case.offset.clone()
    offset[1, 2 * tap + coordinate, pixel[0], pixel[1]] = value
    return replace(case, offset=offset)


def forward(device: Device, case: Case) -> Tensor:
    result: Tensor = device.raw.deform_conv2d(
        case.input, case.offset, case.weight, case.bias, case.mask, *case.raw_geometry
    )
    return result


def backward(device: Device, case: Case) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = device.raw.deform_conv2d_backward(
        case.grad_output,
        case.input,
        case.offset,
        case.weight,
        case.mask,
        *case.raw_geometry,
        [True, True, True, case.mask is not None],
    )
    return result


# One channel and more, short rows and long ones, both memory formats: scalar and vector code.
SHAPES: list[dict[str, Any]] = [
    {"group_channels": 1, "group_out_channels": 1, "input_size": (3, 4)},
    {"group_channels": 17, "group_out_channels": 3, "input_size": (3, 21)},
    {"group_channels": 16, "group_out_channels": 16, "input_size": (2, 32)},
    {
        "group_channels": 16,
        "group_out_channels": 19,
        "input_size": (3, 5),
        "layouts": {"input": "channels_last"},
    },
]


BAD_OFFSETS = [
    *((NAN, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)),
    *((INF, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)),
    *((-INF, torch.float32), (2.0**32, torch.float32), (2.0**32, torch.bfloat16)),
    *((-(2.0**63), torch.float32), (2.0**64, torch.float64), (65504.0, torch.float16)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("coordinate", [0, 1], ids=["y", "x"])
@pytest.mark.parametrize(("value", "dtype"), BAD_OFFSETS, ids=str)
def test_one_bad_offset(
    device: Device, dtype: torch.dtype, value: float, coordinate: int, shape: dict[str, Any]
) -> None:
    """The references say what becomes of it; everything elsewhere is as it was."""
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        groups=2,
        offset_groups=2,
        dtype=dtype,
        device=device.type,
        **shape,
    )
    # Tap 13 is tap 4 of the second offset group.
    bad = poisoned(case, value, coordinate, 13, (1, 2))
    clean, output = forward(device, case), forward(device, bad)
    assert_output_close(device, bad, output)
    if math.isnan(value):
        # Offset group 1 is half of the channels: with two groups, those of the second one.
        channels = case.weight.shape[0] // 2
        assert output[1, channels:, 1, 2].isnan().all()
        assert output.isnan().sum() == channels
    untouched = torch.ones_like(output, dtype=torch.bool)
    untouched[1, :, 1, 2] = False
    assert torch.equal(output[untouched], clean[untouched])

    gradients = backward(device, bad)
    assert_gradients_close(device, bad, gradients)
    assert gradients[0].isfinite().all()


def test_nan_survives_a_zero_mask(device: Device) -> None:
    """0 * NaN is NaN: a mask does not hide an offset that went wrong."""
    case = make_case(Geometry((3, 3), padding=(1, 1)), device=device.type)
    assert case.mask is not None
    case = replace(case, mask=torch.zeros_like(case.mask))
    output = forward(device, poisoned(case, NAN, 0, 4, (2, 3)))
    assert output[1, :, 2, 3].isnan().all()
    assert output.isnan().sum() == output.shape[1]


def test_all_offsets_nan(device: Device) -> None:
    """Every sample lost: NaN everywhere, no crash, and nothing for the input."""
    case = make_case(Geometry((3, 3), padding=(1, 1)), device=device.type, dtype=torch.float32)
    assert case.offset is not None
    case = replace(case, offset=torch.full_like(case.offset, NAN))
    assert forward(device, case).isnan().all()
    grad_input, grad_offset, grad_weight, grad_mask = backward(device, case)
    assert grad_input.count_nonzero() == 0
    for gradient in (grad_offset, grad_weight, grad_mask):
        assert gradient.isnan().all()


@pytest.mark.parametrize("poison", [NAN, INF], ids=str)
@pytest.mark.parametrize("border", ["v2", "v1"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bad_pixel_reaches_its_neighbours_alone(
    device: Device, shape: dict[str, Any], border: str, poison: float
) -> None:
    """A read between pixels l and l + 1 sees both, even with weight 0, and no other."""
    case = make_case(
        Geometry((1, 1), border=border),
        offset_groups=2,
        mask=False,
        dtype=torch.float32,
        device=device.type,
        **shape,
    )
    assert case.offset is not None
    _, channels, height, width = case.input.shape
    row, column = height // 2, width // 2
    # These sit on a pixel exactly, next to the bad one, which they read with weight 0.
    case.offset[0, :, row, column - 1] = 0.0
    case.offset[0, :, row - 1, column] = 0.0
    image = case.input.clone(memory_format=torch.preserve_format)
    image[0, 0, row, column] = poison
    columns = device.raw.gather_columns(image, case.offset, None, [1, 1], *case.raw_geometry)

    offset = case.offset.cpu().double()
    y = torch.arange(height)[:, None] + offset[0, 0]
    x = torch.arange(width)[None, :] + offset[0, 1]
    low, last = (0.0, -1.0) if border == "v1" else (-1.0, 0.0)

    def sees(points: Tensor, pixel: int, pixels: int) -> Tensor:
        inside = (points >= low) if border == "v1" else (points > low)
        inside &= points < pixels
        neighbour = (points.floor() == pixel) | (points.floor() == pixel - 1)
        if border == "v1":  # from the last pixel on only that one is read
            at_end = points >= pixels + last
            neighbour = torch.where(at_end, torch.tensor(pixel == pixels - 1), neighbour)
        return inside & neighbour

    want = torch.zeros(2, channels, 1, height, width, dtype=torch.bool)
    want[0, 0, 0] = sees(y, row, height) & sees(x, column, width)
    assert want[0, 0, 0, row, column - 1]
    assert want[0, 0, 0, row - 1, column]
    assert torch.equal(~columns.isfinite().cpu(), want)


def test_without_offsets_a_bad_pixel_stays_where_it_is_read(device: Device) -> None:
    image = torch.randn(1, 2, 6, 7, device=device.type)
    image[0, 1, 2, 3] = NAN
    columns = device.raw.gather_columns(
        image, None, None, [3, 3], [1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner"
    )
    unfolded = torch.nn.functional.unfold(image, 3, padding=1).reshape(columns.shape)
    assert torch.equal(columns.isnan(), unfolded.isnan())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["grad_output", "mask"])
def test_bad_pixel_of_a_gradient_stays_there(
    device: Device, name: str, shape: dict[str, Any]
) -> None:
    """Tiles share work between pixels; one pixel's NaN is no reason for another's."""
    case = make_case(
        Geometry((3, 3), padding=(1, 1)), dtype=torch.float32, device=device.type, **shape
    )
    clean = backward(device, case)
    tensor = getattr(case, name).clone()
    tensor[1, 0, 1, 2] = NAN
    bad = replace(case, **{name: tensor})
    _, grad_offset, grad_weight, grad_mask = backward(device, bad)
    elsewhere = torch.ones(case.grad_output.shape[-2:], dtype=torch.bool, device=device.type)
    elsewhere[1, 2] = False
    for got, want in ((grad_offset, clean[1]), (grad_mask, clean[3])):
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1][:, elsewhere], want[1][:, elsewhere])
    if name == "grad_output":
        assert grad_weight[0].isnan().all()
        assert torch.equal(grad_weight[1:], clean[2][1:])
    else:
        assert grad_weight[:, :, 0, 0].isnan().all()
        rest = torch.ones(3, 3, dtype=torch.bool, device=device.type)
        rest[0, 0] = False
        assert torch.equal(grad_weight[..., rest], clean[2][..., rest])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bad_weight_stays_in_its_channel(device: Device, shape: dict[str, Any]) -> None:
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        groups=2,
        dtype=torch.float32,
        device=device.type,
        **shape,
    )
    weight = case.weight.clone()
    weight[-1, 0, 1, 1] = NAN
    output, clean = forward(device, replace(case, weight=weight)), forward(device, case)
    assert output[:, -1].isnan().all()
    assert torch.equal(output[:, :-1], clean[:, :-1])
