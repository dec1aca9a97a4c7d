"""gather_columns, scatter_columns, contract_columns: index, its transpose, and what they build.

Raw ops are compared with the references in every geometry, order, type and memory layout; the
public functions with the raw ones; and the classic layers are rebuilt from the pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deformops
from tests import reference
from tests.cases import Case, assert_close, cases, geometries, make_case
from tests.devices import Device
from tests.reference import Geometry

HALVES = (torch.bfloat16, torch.float16)
ALL = (torch.float64, torch.float32, *HALVES)


def gather(device: Device, case: Case) -> Tensor:
    result: Tensor = device.raw.gather_columns(
        case.input, case.offset, case.mask, list(case.geometry.kernel_size), *case.raw_geometry
    )
    return result


def scatter(device: Device, case: Case) -> Tensor:
    result: Tensor = device.raw.scatter_columns(
        case.columns,
        case.offset,
        case.mask,
        list(case.input_size),
        list(case.geometry.kernel_size),
        *case.raw_geometry,
    )
    return result


def contract(device: Device, case: Case) -> Tensor:
    result: Tensor = device.raw.contract_columns(
        case.input,
        case.columns,
        case.offset,
        list(case.geometry.kernel_size),
        *case.raw_geometry,
        case.offset_groups,
    )
    return result


def with_order_only_if_moved(case: Case) -> Case:
    """Slopes are of points that move: without offsets the order is 0."""
    return case if case.offset is not None else replace(case, geometry=_flat(case.geometry))


def _flat(geometry: Geometry) -> Geometry:
    return replace(geometry, order=(0, 0))


@given(data=st.data())
def test_raw_gather_matches_reference(device: Device, data: st.DataObject) -> None:
    case = data.draw(cases(dtypes=ALL, orders=True, device=device.type))
    case = with_order_only_if_moved(case)
    want = reference.gather_columns(
        **case.arrays("input", "offset", "mask"), geometry=case.geometry
    )
    assert_close(gather(device, case), want)


@given(data=st.data())
def test_raw_scatter_matches_reference(device: Device, data: st.DataObject) -> None:
    case = data.draw(cases(dtypes=ALL, orders=True, device=device.type))
    case = with_order_only_if_moved(case)
    want = reference.scatter_columns(
        **case.arrays("columns", "offset", "mask"),
        input_size=case.input_size,
        geometry=case.geometry,
    )
    assert_close(scatter(device, case), want)


@given(data=st.data())
def test_raw_contract_matches_reference(device: Device, data: st.DataObject) -> None:
    case = data.draw(cases(dtypes=ALL, orders=True, device=device.type))
    case = with_order_only_if_moved(case)
    want = reference.contract_columns(
        **case.arrays("input", "columns", "offset"),
        offset_groups=case.offset_groups,
        geometry=case.geometry,
    )
    assert_close(contract(device, case), want)


@given(data=st.data())
def test_transpose_identity(device: Device, data: st.DataObject) -> None:
    """<gather x, c> = <x, scatter c> = <mask, contract(x, c)>: one form, three derivatives."""
    case = data.draw(cases(dtypes=(torch.float64,), orders=True, device=device.type))
    case = with_order_only_if_moved(case)
    form = (gather(device, case) * case.columns).sum()
    torch.testing.assert_close((scatter(device, case) * case.input).sum(), form, atol=1e-9, rtol=0)
    mask = 1.0 if case.mask is None else case.mask
    torch.testing.assert_close((contract(device, case) * mask).sum(), form, atol=1e-9, rtol=0)


@given(data=st.data())
def test_public_functions_are_the_raw_ops(data: st.DataObject) -> None:
    case = data.draw(cases(dtypes=ALL, borders=False))
    options: dict[str, Any] = {"offset": case.offset, "mask": case.mask, **case.window}
    kernel_size = case.geometry.kernel_size
    cpu = Device("cpu")
    gathered = deformops.gather_columns(case.input, kernel_size, **options)
    assert torch.equal(gathered, gather(cpu, case))
    scattered = deformops.scatter_columns(case.columns, case.input_size, kernel_size, **options)
    assert torch.equal(scattered, scatter(cpu, case))


@pytest.mark.parametrize("batch", [31, 37])
def test_prime_batches(device: Device, batch: int) -> None:
    """No batch has to be a multiple of anything."""
    case = make_case(
        Geometry((3, 2), (2, 1), (1, 1), (1, 2)),
        batch=batch,
        offset_groups=2,
        device=device.type,
        dtype=torch.float32,
    )
    want = reference.gather_columns(
        **case.arrays("input", "offset", "mask"), geometry=case.geometry
    )
    assert_close(gather(device, case), want)
    want = reference.scatter_columns(
        **case.arrays("columns", "offset", "mask"),
        input_size=case.input_size,
        geometry=case.geometry,
    )
    assert_close(scatter(device, case), want)


@pytest.mark.parametrize(("batch", "channels"), [(0, 4), (2, 0), (0, 0)])
def test_empty(device: Device, batch: int, channels: int) -> None:
    geometry = Geometry((3, 3), padding=(1, 1))
    case = make_case(geometry, batch=batch, group_channels=channels, device=device.type)
    assert gather(device, case).shape == (batch, channels, 9, 5, 6)
    assert scatter(device, case).shape == (batch, channels, 5, 6)
    assert torch.equal(
        contract(device, case), torch.zeros(batch, 9, 5, 6, dtype=torch.float64, device=device.type)
    )


@pytest.mark.parametrize("size", [(0, 6), (5, 0), (0, 0)])
def test_empty_map_inside_padding(device: Device, size: tuple[int, int]) -> None:
    """A map without pixels reads as zeros, as any place outside a map."""
    case = make_case(Geometry((2, 2), padding=(2, 2)), input_size=size, device=device.type)
    assert gather(device, case).count_nonzero() == 0
    assert contract(device, case).count_nonzero() == 0
    assert scatter(device, case).shape == (2, 2, *size)


@given(geometries(), st.integers(0, 2**32 - 1))
def test_gather_and_scatter_are_unfold_and_fold(
    drawn: tuple[Geometry, tuple[int, int]], seed: int
) -> None:
    """Without offsets they are torch's im2col and col2im."""
    geometry, input_size = drawn
    case = make_case(geometry, input_size=input_size, offset=False, mask=False, seed=seed)
    kernel_size = geometry.kernel_size
    columns = deformops.gather_columns(case.input, kernel_size, **case.window)
    want = F.unfold(case.input, kernel_size, **case.window)
    assert torch.equal(columns.flatten(1, 2).flatten(2), want)

    image = deformops.scatter_columns(case.columns, case.input_size, kernel_size, **case.window)
    folded = F.fold(
        case.columns.flatten(1, 2).flatten(2), case.input_size, kernel_size, **case.window
    )
    assert_close(image, folded)


def test_whole_offsets_shift_the_window() -> None:
    """Adding one to every offset reads what the neighbouring window reads."""
    image = torch.randn(2, 3, 7, 9)
    here = deformops.gather_columns(image, 3, padding=1, offset=torch.zeros(2, 18, 7, 9))
    right = torch.zeros(2, 18, 7, 9)
    right[:, 1::2] = 1.0
    down = torch.zeros(2, 18, 7, 9)
    down[:, 0::2] = 1.0
    shifted = deformops.gather_columns(image, 3, padding=1, offset=right)
    assert torch.equal(shifted[..., :-1], here[..., 1:])
    shifted = deformops.gather_columns(image, 3, padding=1, offset=down)
    assert torch.equal(shifted[..., :-1, :], here[..., 1:, :])


def test_offset_groups_move_their_channels_alone() -> None:
    image = torch.randn(1, 6, 5, 5)
    offset = torch.zeros(1, 3 * 2, 5, 5)
    offset[:, 2] = 1.0  # group 1 of 3, y
    columns = deformops.gather_columns(image, 1, offset=offset)[:, :, 0]
    assert torch.equal(columns[:, :2], image[:, :2])
    assert torch.equal(columns[:, 4:], image[:, 4:])
    assert torch.equal(columns[:, 2:4, :-1], image[:, 2:4, 1:])
    assert columns[:, 2:4, -1].count_nonzero() == 0


def test_offsets_are_y_then_x_per_tap() -> None:
    """Channel 2 * tap + 0 moves tap ``i * kW + j`` down, channel 2 * tap + 1 moves it right."""
    image = torch.arange(35.0).reshape(1, 1, 5, 7)
    for tap in range(6):
        offset = torch.zeros(1, 12, 4, 5)
        offset[:, 2 * tap], offset[:, 2 * tap + 1] = 0.25, 0.5
        moved = deformops.gather_columns(image, (2, 3), offset=offset)
        change = moved - deformops.gather_columns(image, (2, 3))
        others = [other for other in range(6) if other != tap]
        assert change[:, :, others].count_nonzero() == 0
        row, column = divmod(tap, 3)
        inside = change[0, 0, tap, : 4 - row, : 5 - column]
        assert torch.equal(inside[:3, :4], torch.full_like(inside[:3, :4], 0.25 * 7 + 0.5))


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_from_pieces(groups: int) -> None:
    case = make_case(
        Geometry((3, 2), (2, 1), (1, 2), (1, 2)), groups=groups, offset=False, mask=False
    )
    columns = deformops.gather_columns(case.input, (3, 2), **case.window)
    batch, channels, taps, height, width = columns.shape
    grouped = columns.reshape(batch, groups, channels // groups * taps, height * width)
    kernels = case.weight.reshape(groups, -1, channels // groups * taps)
    output = (kernels @ grouped).reshape(batch, -1, height, width)
    want = F.conv2d(case.input, case.weight, **case.window, groups=groups)
    assert_close(output, want)


def test_deconvolution_from_pieces() -> None:
    """matmul, then scatter: the transposed convolution."""
    case = make_case(Geometry((3, 2), (2, 3), (1, 0)), offset=False, mask=False)
    small = case.grad_output
    columns = torch.einsum("ock,nohw->nckhw", case.weight.flatten(2), small)
    output = deformops.scatter_columns(columns, case.input_size, (3, 2), **case.window)
    want = F.conv_transpose2d(small, case.weight, stride=(2, 3), padding=(1, 0))
    want = F.pad(want, (0, 6 - want.shape[-1], 0, 5 - want.shape[-2]))
    assert_close(output, want)


def test_pooling_from_pieces() -> None:
    image = torch.randn(2, 3, 8, 9)
    columns = deformops.gather_columns(image, (3, 2), stride=2, padding=(1, 0))
    assert_close(columns.mean(2), F.avg_pool2d(image, (3, 2), 2, (1, 0)))
    outside = torch.full_like(image, 1.0)
    inside = deformops.gather_columns(outside, (3, 2), stride=2, padding=(1, 0)) == 1
    highest = columns.masked_fill(~inside, -torch.inf).amax(2)
    assert torch.equal(highest, F.max_pool2d(image, (3, 2), 2, (1, 0)))


def test_deformable_convolution_from_pieces() -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), groups=2, offset_groups=2, bias=False)
    columns = deformops.gather_columns(case.input, 3, padding=1, offset=case.offset, mask=case.mask)
    batch, channels, taps, height, width = columns.shape
    kernels = case.weight.reshape(2, -1, channels // 2 * taps)
    output = kernels @ columns.reshape(batch, 2, channels // 2 * taps, height * width)
    assert case.offset is not None
    want = deformops.deform_conv2d(case.input, case.offset, case.weight, padding=1, mask=case.mask)
    assert_close(output.reshape_as(want), want)


@given(cases(dtypes=(torch.float64,), borders=False, always_offset=True))
def test_gradients_match_reference(case: Case) -> None:
    """Of both public functions, with respect to everything that has a gradient."""
    geometry = case.geometry
    leaves = {
        name: getattr(case, name).clone().requires_grad_()
        for name in ("input", "offset", "mask", "columns")
        if getattr(case, name) is not None
    }
    offset, mask = leaves["offset"], leaves.get("mask")
    gathered = deformops.gather_columns(
        leaves["input"], geometry.kernel_size, offset=offset, mask=mask, **case.window
    )
    scattered = deformops.scatter_columns(
        leaves["columns"],
        case.input_size,
        geometry.kernel_size,
        offset=offset,
        mask=mask,
        **case.window,
    )
    # Both are the same form <columns, gather(input)>, so their gradients are the same too.
    arrays = case.arrays("input", "columns", "offset", "mask")
    points = {"offset": arrays["offset"], "geometry": geometry}
    masked = {**points, "mask": arrays["mask"]}
    want: dict[str, Any] = {
        "input": reference.scatter_columns(arrays["columns"], input_size=case.input_size, **masked),
        "columns": reference.gather_columns(arrays["input"], **masked),
    }

    def contracted(order: tuple[int, int]) -> Any:
        return reference.contract_columns(
            arrays["input"],
            arrays["columns"],
            arrays["offset"],
            case.offset_groups,
            replace(geometry, order=order),
        )

    weight = 1.0 if case.mask is None else arrays["mask"]
    want["offset"] = torch.zeros_like(offset).detach().numpy()
    want["offset"][:, 0::2] = weight * contracted((1, 0))
    want["offset"][:, 1::2] = weight * contracted((0, 1))
    want["mask"] = contracted((0, 0))

    shared = ["offset"] + (["mask"] if mask is not None else [])
    names = ["input", *shared]
    inputs = [leaves[name] for name in names]
    for name, got in zip(names, torch.autograd.grad(gathered, inputs, case.columns), strict=True):
        assert_close(got, want[name], context=f"gather_columns, grad_{name}")
    names = ["columns", *shared]
    inputs = [leaves[name] for name in names]
    for name, got in zip(names, torch.autograd.grad(scattered, inputs, case.input), strict=True):
        assert_close(got, want[name], context=f"scatter_columns, grad_{name}")


def test_ordered_scatter_in_batches(device: Device) -> None:
    """The scatter in one order takes as many pixels at a time as 64 MiB of scratch can hold."""
    case = make_case(
        Geometry((7, 7), padding=(3, 3)),
        batch=70,
        offset_groups=8,
        group_channels=1,
        input_size=(1, 2),
        device=device.type,
    )
    want = reference.scatter_columns(
        **case.arrays("columns", "offset", "mask"),
        input_size=case.input_size,
        geometry=case.geometry,
    )
    image = device.raw.scatter_columns(
        *(case.columns, case.offset, case.mask, list(case.input_size)),
        *(list(case.geometry.kernel_size), *case.raw_geometry),
        deterministic=True,
    )
    assert_close(image, want)
