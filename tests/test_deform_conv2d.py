"""deform_conv2d against published numbers, the references and torchvision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deformops
from tests import reference
from tests.cases import (
    Case,
    assert_close,
    assert_gradients_close,
    assert_output_close,
    cases,
    make_case,
)
from tests.devices import Device
from tests.goldens import CASE_A, CASE_M, GIVEN, Given, Learned
from tests.reference import Geometry

ALL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
TENSORS = ("input", "offset", "weight", "bias", "mask")


def raw_forward(device: Device, case: Case) -> Tensor:
    result: Tensor = device.raw.deform_conv2d(
        case.input, case.offset, case.weight, case.bias, case.mask, *case.raw_geometry
    )
    return result


def raw_backward(device: Device, case: Case, wanted: tuple[bool, ...]) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = device.raw.deform_conv2d_backward(
        case.grad_output,
        case.input,
        case.offset,
        case.weight,
        case.mask,
        *case.raw_geometry,
        list(wanted),
    )
    return result


def call(case: Case, **changed: Tensor) -> Tensor:
    """The public function on a case, with some of its tensors replaced."""
    tensors: dict[str, Any] = {name: changed.get(name, getattr(case, name)) for name in TENSORS}
    geometry = case.geometry
    return deformops.deform_conv2d(
        **tensors, **case.window, border=geometry.border, kink=geometry.kink
    )


def leaves(case: Case) -> dict[str, Tensor]:
    present = (name for name in TENSORS if getattr(case, name) is not None)
    return {name: getattr(case, name).detach().requires_grad_() for name in present}


def reference_gradients(case: Case) -> Any:
    return reference.deform_conv2d_backward(
        **case.arrays("grad_output", "input", "offset", "weight", "mask"), geometry=case.geometry
    )


# --- published numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", GIVEN.values(), ids=GIVEN.keys())
def test_golden_values(device: Device, case: Given) -> None:
    def tensor(values: Any) -> Any:
        return None if values is None else torch.from_numpy(values).to(device.type)

    padding = [case.padding, case.padding]
    output = device.raw.deform_conv2d(
        *map(tensor, (case.input, case.offset, case.weight, case.bias, case.mask)),
        *([1, 1], padding, [1, 1], [0, 0], case.border, "inner"),
    )
    torch.testing.assert_close(output.cpu(), torch.from_numpy(case.output), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kink", ["inner", "zero"])
@pytest.mark.parametrize("case", [CASE_A, CASE_M], ids=["A", "M"])
def test_golden_gradients(device: Device, case: Learned, kink: str) -> None:
    """The two peers' gradients, each under its own slope on the border."""
    image, weight, offset_weight, offset_bias = (
        torch.from_numpy(values).to(device.type).requires_grad_()
        for values in (case.input, case.weight, case.offset_weight, case.offset_bias)
    )
    predicted = F.conv2d(image, offset_weight, offset_bias, padding=case.padding)
    offset = predicted[:, :8]
    mask = predicted[:, 8:].sigmoid() if case.modulated else None
    padding = [case.padding, case.padding]
    output = device.raw.deform_conv2d(
        *(image, offset, weight, None, mask, [1, 1], padding, [1, 1], [0, 0], "v2", kink)
    )
    output.sum().backward()
    for got, want in (
        (output, case.output),
        (image.grad, case.grad_input),
        (weight.grad, case.grad_weight),
        (offset_weight.grad, case.grad_offset_weight[kink]),
        (offset_bias.grad, case.grad_offset_bias[kink]),
    ):
        torch.testing.assert_close(got.cpu(), torch.from_numpy(want), rtol=0, atol=1e-12)


# --- references -----------------------------------------------------------------------------------


@given(data=st.data())
def test_raw_forward_matches_reference(device: Device, data: st.DataObject) -> None:
    case = data.draw(cases(dtypes=ALL, orders=True, device=device.type))
    if case.offset is None:
        case = replace(case, geometry=replace(case.geometry, order=(0, 0)))
    assert_output_close(device, case, raw_forward(device, case))


@given(data=st.data())
def test_raw_backward_matches_reference(device: Device, data: st.DataObject) -> None:
    """In every order: these are the double and forward derivatives' building blocks too."""
    case = data.draw(cases(dtypes=ALL, orders=True, device=device.type))
    if case.offset is None:
        case = replace(case, geometry=replace(case.geometry, order=(0, 0)))
    wanted = (True, case.offset is not None, True, case.mask is not None)
    assert_gradients_close(device, case, raw_backward(device, case, wanted))


@pytest.mark.parametrize("asked", range(4), ids=["input", "offset", "weight", "mask"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "left out"])
def test_unwanted_gradients_are_empty(device: Device, asked: int, alone: bool) -> None:
    """Each alone, and all but each: empty where not wanted, unchanged where wanted."""
    case = make_case(
        Geometry((3, 3), padding=(1, 1)), groups=2, offset_groups=2, device=device.type
    )
    everything = raw_backward(device, case, (True,) * 4)
    wanted = tuple((index == asked) == alone for index in range(4))
    for want, flag, got in zip(everything, wanted, raw_backward(device, case, wanted), strict=True):
        if flag:
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        else:
            assert got.shape == (0,)


@given(cases(dtypes=ALL, always_offset=True))
def test_public_values_and_gradients_match_reference(case: Case) -> None:
    tensors = leaves(case)
    output = call(case, **tensors)
    assert_close(output, reference.deform_conv2d(**case.arrays(*TENSORS), geometry=case.geometry))
    want = reference_gradients(case)
    got = torch.autograd.grad(output, list(tensors.values()), case.grad_output)
    for name, gradient in zip(tensors, got, strict=True):
        assert gradient.dtype == case.input.dtype
        assert_close(gradient, getattr(want, name), context=f"grad_{name}")


@pytest.mark.parametrize("batch", [31, 37])
def test_prime_batches(device: Device, batch: int) -> None:
    """No batch has to be a multiple of anything, in either direction."""
    case = make_case(
        Geometry((3, 2), (2, 1), (1, 0), (2, 1)),
        batch=batch,
        groups=2,
        offset_groups=3,
        dtype=torch.float32,
        device=device.type,
    )
    assert_output_close(device, case, raw_forward(device, case))
    assert_gradients_close(device, case, raw_backward(device, case, (True,) * 4))


# Channel and pixel counts around the sizes at which kernels switch tiles, vectors and their tails.
SIZES = [
    (1, 1, (1, 1)),
    (3, 5, (1, 17)),
    (16, 14, (4, 32)),
    (17, 15, (5, 33)),
    (33, 29, (7, 13)),
    (64, 64, (9, 16)),
    (65, 130, (3, 43)),
    (256, 16, (6, 6)),
    (8, 257, (6, 7)),
]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("channels", "out_channels", "size"), SIZES, ids=str)
def test_sizes_around_tiles(
    device: Device,
    dtype: torch.dtype,
    channels: int,
    out_channels: int,
    size: tuple[int, int],
    memory_format: torch.memory_format,
) -> None:
    channels_last = memory_format == torch.channels_last
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        group_channels=channels,
        group_out_channels=out_channels,
        input_size=size,
        dtype=dtype,
        device=device.type,
        layouts={"input": "channels_last"} if channels_last else None,
    )
    assert_output_close(device, case, raw_forward(device, case))
    assert_gradients_close(device, case, raw_backward(device, case, (True,) * 4))


# --- torchvision ----------------------------------------------------------------------------------


@given(cases(borders=False, always_offset=True))
def test_equals_torchvision(case: Case) -> None:
    """Values and all five gradients, also exactly on kinks, whatever the layout."""
    ours, theirs = leaves(case), leaves(case)
    output = call(case, **ours)
    want = torchvision.ops.deform_conv2d(**theirs, **case.window)
    assert_close(output, want)
    got = torch.autograd.grad(output, list(ours.values()), case.grad_output)
    expected = torch.autograd.grad(want, list(theirs.values()), case.grad_output)
    for name, gradient, other in zip(ours, got, expected, strict=True):
        assert_close(gradient, other, context=f"grad_{name}")


def test_positional_arguments_are_torchvisions() -> None:
    """Changing the import is enough."""
    case = make_case(Geometry((3, 2), (2, 1), (1, 0), (1, 2)), groups=2)
    assert case.offset is not None
    arguments: tuple[Any, ...] = (
        case.input,
        case.offset,
        case.weight,
        case.bias,
        (2, 1),
        (1, 0),
        (1, 2),
        case.mask,
    )
    assert_close(deformops.deform_conv2d(*arguments), torchvision.ops.deform_conv2d(*arguments))


# --- identities -----------------------------------------------------------------------------------


@given(cases(dtypes=(torch.float64,), borders=False, always_offset=True))
def test_zero_offsets_are_a_convolution(case: Case) -> None:
    assert case.offset is not None
    groups = case.input.shape[1] // case.weight.shape[1]
    for border in ("v2", "v1"):
        output = deformops.deform_conv2d(
            case.input,
            torch.zeros_like(case.offset),
            case.weight,
            case.bias,
            **case.window,
            border=border,
        )
        want = F.conv2d(case.input, case.weight, case.bias, **case.window, groups=groups)
        assert_close(output, want, context=border)


def test_raw_op_without_offset_is_a_convolution(device: Device) -> None:
    case = make_case(
        Geometry((3, 2), (2, 1), (1, 0), (1, 2)), offset=False, mask=False, device=device.type
    )
    want = F.conv2d(case.input, case.weight, case.bias, **case.window)
    assert_close(raw_forward(device, case), want)


def test_borders_differ_only_outside(device: Device) -> None:
    """v1 and v2 agree where every tap stays between the first and the last pixel."""
    case = make_case(Geometry((1, 1)), input_size=(12, 12), reach=3, device=device.type)
    fade = raw_forward(device, case)
    clip = raw_forward(device, replace(case, geometry=Geometry((1, 1), border="v1")))
    inner = (slice(None), slice(None), slice(3, 9), slice(3, 9))
    assert torch.equal(fade[inner], clip[inner])
    assert not torch.allclose(fade, clip)


def test_mask_scales_its_tap() -> None:
    case = make_case(Geometry((2, 2)), bias=False)
    assert case.mask is not None
    plain = call(replace(case, mask=torch.ones_like(case.mask)))
    assert torch.equal(plain, call(replace(case, mask=None)))
    assert_close(call(replace(case, mask=torch.full_like(case.mask, 0.5))), plain * 0.5)


def test_zero_offsets_receive_a_gradient() -> None:
    """The state every layer is born in; padding puts taps on the kink at -1."""
    image = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    weight = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    for padding in (0, 1):
        side = 4 + 2 * padding
        for kink in ("inner", "zero"):
            offset = torch.zeros(2, 18, side, side, dtype=torch.float64, requires_grad=True)
            output = deformops.deform_conv2d(image, offset, weight, padding=padding, kink=kink)
            (gradient,) = torch.autograd.grad(output.square().sum(), offset)
            # Every one of the 18 coordinates is told where to go.
            assert (gradient.abs().amax((0, 2, 3)) > 1e-3).all(), (padding, kink)


# --- shapes, layouts, types -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_channels_last_in_channels_last_out(device: Device, batch: int) -> None:
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        batch=batch,
        device=device.type,
        layouts={"input": "channels_last"},
    )
    output = raw_forward(device, case)
    assert output.is_contiguous(memory_format=torch.channels_last)
    grad_input = raw_backward(device, case, (True, False, False, False))[0]
    assert grad_input.is_contiguous(memory_format=torch.channels_last)


def test_contiguous_in_contiguous_out(device: Device) -> None:
    """Also where the format is ambiguous: one channel, one pixel, or neither dense format."""
    for size, channels, layout in (
        ((5, 6), 2, "contiguous"),
        ((5, 6), 1, "contiguous"),
        ((1, 1), 3, "channels_last"),
        ((5, 6), 2, "permuted"),
        ((5, 6), 2, "strided"),
    ):
        case = make_case(
            Geometry((3, 3), padding=(1, 1)),
            group_channels=channels,
            input_size=size,
            device=device.type,
            layouts={"input": layout},
        )
        assert raw_forward(device, case).is_contiguous()
        assert raw_backward(device, case, (True, False, False, False))[0].is_contiguous()


def test_arguments_are_not_written_to(device: Device) -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), device=device.type)
    names = ("input", "offset", "weight", "bias", "mask", "grad_output")
    before = {name: getattr(case, name).clone() for name in names}
    raw_forward(device, case)
    raw_backward(device, case, (True,) * 4)
    for name in names:
        assert torch.equal(getattr(case, name), before[name]), name


@pytest.mark.parametrize("requires_grad", [False, True])
def test_empty_batch(requires_grad: bool) -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), batch=0, groups=2, offset_groups=2)
    tensors = {name: tensor.requires_grad_(requires_grad) for name, tensor in leaves(case).items()}
    output = call(case, **tensors)
    assert output.shape == (0, 4, 5, 6)
    if requires_grad:
        output.sum().backward()
        for name, tensor in tensors.items():
            assert tensor.grad is not None, name
            assert tensor.grad.shape == tensor.shape
            assert tensor.grad.count_nonzero() == 0


def test_no_channels_is_bias(device: Device) -> None:
    """A sum over no channels is zero, so the bias remains; the weight has no elements."""
    case = make_case(Geometry((3, 3), padding=(1, 1)), group_channels=0, device=device.type)
    assert case.bias is not None
    output = raw_forward(device, case)
    assert torch.equal(output, case.bias[:, None, None].expand(2, 2, 5, 6))
    gradients = raw_backward(device, case, (True,) * 4)
    assert all(gradient.count_nonzero() == 0 for gradient in gradients)


def test_no_output_channels(device: Device) -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), group_out_channels=0, device=device.type)
    assert raw_forward(device, case).shape == (2, 0, 5, 6)
    gradients = raw_backward(device, case, (True,) * 4)
    assert [tuple(gradient.shape) for gradient in gradients] == [
        (2, 2, 5, 6),
        (2, 18, 5, 6),
        (0, 2, 3, 3),
        (2, 9, 5, 6),
    ]
    assert all(gradient.count_nonzero() == 0 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_coordinates_are_float(device: Device, dtype: torch.dtype) -> None:
    """At x >= 2048 half a pixel is lost in half precision; not here."""
    width = 2100
    image = torch.zeros(1, 1, 1, width, dtype=dtype, device=device.type)
    image[..., 2060], image[..., 2061] = 1.0, 3.0
    offset = torch.zeros(1, 2, 1, width, dtype=dtype, device=device.type)
    offset[:, 1] = 0.5
    weight = torch.ones(1, 1, 1, 1, dtype=dtype, device=device.type)
    output = device.raw.deform_conv2d(
        image, offset, weight, None, None, [1, 1], [0, 0], [1, 1], [0, 0], "v2", "inner"
    )
    assert output[0, 0, 0, 2059:2062].tolist() == [0.5, 2.0, 1.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_sums_are_float(device: Device, dtype: torch.dtype) -> None:
    """4096 ones sum to 4096 in every direction; a half accumulator would stop at 256 or 2048."""
    count = 4096
    image = torch.ones(1, count, 1, 1, dtype=dtype, device=device.type)
    offset = torch.zeros(1, 2, 1, 1, dtype=dtype, device=device.type)
    mask = torch.ones(1, 1, 1, 1, dtype=dtype, device=device.type)
    weight = torch.ones(1, count, 1, 1, dtype=dtype, device=device.type)
    geometry = ([1, 1], [0, 0], [1, 1], [0, 0], "v2", "inner")
    output = device.raw.deform_conv2d(image, offset, weight, None, mask, *geometry)
    assert output.item() == count
    grad_output = torch.ones_like(output)
    gradients = device.raw.deform_conv2d_backward(
        grad_output, image, offset, weight, mask, *geometry, [False, False, False, True]
    )
    assert gradients[3].item() == count

    wide = torch.ones(1, 1, 1, count, dtype=dtype, device=device.type)
    still = torch.zeros(1, 2, 1, count, dtype=dtype, device=device.type)
    kernel = torch.ones(1, 1, 1, 1, dtype=dtype, device=device.type)
    gradients = device.raw.deform_conv2d_backward(
        torch.ones_like(wide), wide, still, kernel, None, *geometry, [False, False, True, False]
    )
    assert gradients[2].item() == count

    many = torch.ones(count, 1, 1, 1, dtype=dtype, device=device.type)
    pixel = torch.ones(1, 1, 1, 1, dtype=dtype, device=device.type)
    gradients = device.raw.deform_conv2d_backward(
        torch.ones(1, count, 1, 1, dtype=dtype, device=device.type),
        pixel,
        offset,
        many,
        None,
        *geometry,
        [True, False, False, False],
    )
    assert gradients[0].item() == count


def test_half_scatter_sums_are_float(device: Device) -> None:
    """4096 taps that read one pixel add up there in float before they are rounded."""
    count = 4096
    for dtype in (torch.float16, torch.bfloat16):
        columns = torch.ones(1, 1, 1, 1, count, dtype=dtype, device=device.type)
        offset = torch.zeros(1, 2, 1, count, dtype=torch.float32, device=device.type)
        offset[0, 1, 0] = -torch.arange(count, dtype=torch.float32, device=device.type)
        kept = offset.to(dtype).float() == offset  # the whole numbers that the type holds
        columns = torch.where(kept[0, 1, 0], columns, torch.zeros_like(columns))
        image = device.raw.scatter_columns(
            columns,
            offset.to(dtype),
            None,
            *([1, count], [1, 1], [1, 1], [0, 0], [1, 1], [0, 0], "v2", "inner"),
        )
        want = torch.tensor(float(kept[0, 1, 0].sum())).to(dtype).item()
        assert image[0, 0, 0, 0].item() == want
