"""Random problems for the deformable family: shapes, geometry, types and memory layouts.

Offsets lie on a grid of 1/16 pixel, so that a sampling point is the same number in every type and a
comparison may land exactly on a kink (an integer, a border), where the references define the slope.
``kinks=False`` keeps them off the integers, for finite differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests import reference
from tests.devices import Device
from tests.reference import Geometry, output_size

Array = NDArray[np.float64]

HALVES = (torch.bfloat16, torch.float16)

LAYOUTS = ("contiguous", "channels_last", "permuted", "strided", "cropped", "expanded")


def arrange(tensor: Tensor, layout: str) -> Tensor:
    """The tensor's values in another memory layout; ``expanded`` repeats its first image."""
    if layout == "expanded":
        return tensor[:1].expand_as(tensor) if tensor.shape[0] else tensor
    if layout == "channels_last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "permuted":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        apart = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
        apart[..., ::2] = tensor
        return apart[..., ::2]
    if layout == "cropped":
        wider = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 2), float("nan"))
        wider[..., 1:-1] = tensor
        return wider[..., 1:-1]
    return tensor.contiguous()


def numpy(tensor: Tensor | None) -> Any:
    """The float64 numbers a tensor holds, or None."""
    return None if tensor is None else tensor.detach().cpu().double().numpy()


@dataclass(frozen=True, repr=False)
class Case:
    """The tensors of one deformable convolution and everything around it."""

    geometry: Geometry
    input: Tensor  # [N, C, H, W]
    offset: Tensor | None  # [N, 2*G*K, oH, oW]
    mask: Tensor | None  # [N, G*K, oH, oW]
    weight: Tensor  # [Co, C/groups, kH, kW]
    bias: Tensor | None  # [Co]
    columns: Tensor  # [N, C, K, oH, oW]
    grad_output: Tensor  # [N, Co, oH, oW]
    offset_groups: int

    def __repr__(self) -> str:
        tensors = (f for f in fields(self) if isinstance(getattr(self, f.name), Tensor))
        shapes = (
            f"{f.name}={tuple(getattr(self, f.name).shape)}/{getattr(self, f.name).stride()}"
            for f in tensors
        )
        return f"Case({self.geometry}, {self.input.dtype}, shape/strides: {', '.join(shapes)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    @property
    def input_size(self) -> tuple[int, int]:
        height, width = self.input.shape[-2:]
        return height, width

    @property
    def window(self) -> dict[str, Any]:
        """Stride, padding, dilation as the public functions take them."""
        geometry = self.geometry
        return {
            "stride": geometry.stride,
            "padding": geometry.padding,
            "dilation": geometry.dilation,
        }

    @property
    def raw_geometry(self) -> tuple[Any, ...]:
        """``stride, padding, dilation, order, border, kink`` as the raw ops take them."""
        geometry = self.geometry
        return (
            list(geometry.stride),
            list(geometry.padding),
            list(geometry.dilation),
            list(geometry.order),
            geometry.border,
            geometry.kink,
        )

    def numpy(self, name: str) -> Any:
        """The float64 array of one of the tensors, or None."""
        return numpy(getattr(self, name))

    def arrays(self, *names: str) -> dict[str, Any]:
        """Keyword arguments for a reference."""
        return {name: self.numpy(name) for name in names}


def make_case(
    geometry: Geometry,
    *,
    seed: int = 0,
    batch: int = 2,
    groups: int = 1,
    offset_groups: int = 1,
    group_channels: int = 2,
    group_out_channels: int = 2,
    input_size: tuple[int, int] = (5, 6),
    offset: bool = True,
    mask: bool = True,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    kinks: bool = True,
    reach: float = 3.0,
    layouts: dict[str, str] | None = None,
) -> Case:
    """A case of the given shape; ``group_channels`` are those of one group *and* offset group."""
    random = np.random.default_rng(seed)
    channels = groups * offset_groups * group_channels
    out_channels = groups * group_out_channels
    taps = geometry.taps
    out = output_size(input_size, geometry)
    layouts = layouts or {}

    def tensor(name: str, values: Array) -> Tensor:
        plain = torch.from_numpy(np.asarray(values, dtype=np.float64)).to(device, dtype)
        return arrange(plain, layouts.get(name, "contiguous"))

    def normal(name: str, *shape: int) -> Tensor:
        return tensor(name, random.standard_normal(shape))

    steps = int(16 * reach)
    moves = random.integers(-steps, steps + 1, (batch, 2 * offset_groups * taps, *out))
    if not kinks:
        moves = np.where(moves % 16 == 0, moves + random.integers(1, 16, moves.shape), moves)
    return Case(
        geometry=geometry,
        input=normal("input", batch, channels, *input_size),
        offset=tensor("offset", moves / 16.0) if offset else None,
        mask=normal("mask", batch, offset_groups * taps, *out) if mask else None,
        weight=normal("weight", out_channels, channels // groups, *geometry.kernel_size),
        bias=normal("bias", out_channels) if bias else None,
        columns=normal("columns", batch, channels, taps, *out),
        grad_output=normal("grad_output", batch, out_channels, *out),
        offset_groups=offset_groups if offset or mask else 1,
    )


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    number = st.integers(low, high)
    return st.tuples(number, number)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, tuple[int, int]]:
    """A window and an input it fits into."""
    geometry = Geometry(
        kernel_size=draw(pairs(1, 3)),
        stride=draw(pairs(1, 3)),
        padding=draw(pairs(0, 2)),
        dilation=draw(pairs(1, 3)),
    )
    height, width = draw(pairs(1, 8))
    out = output_size((height, width), geometry)
    return geometry, (
        height + max(0, 1 - out[0]) * geometry.stride[0],
        width + max(0, 1 - out[1]) * geometry.stride[1],
    )


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    layouts: tuple[str, ...] = LAYOUTS,
    orders: bool = False,
    borders: bool = True,
    always_offset: bool = False,
    device: str = "cpu",
) -> Case:
    """Everything drawn: geometry, groups, batch (empty too), mask or none, type and layouts."""
    geometry, input_size = draw(geometries())
    if borders:
        geometry = replace(
            geometry,
            border=draw(st.sampled_from(("v2", "v1"))),
            kink=draw(st.sampled_from(("inner", "zero"))),
        )
    if orders:
        geometry = replace(geometry, order=draw(pairs(0, 1)))
    # 5 and more channels per group reach the vector paths and their tails.
    return make_case(
        geometry,
        seed=draw(st.integers(0, 2**32 - 1)),
        batch=draw(st.sampled_from((1, 2, 3, 0))),
        groups=draw(st.sampled_from((1, 2, 3))),
        offset_groups=draw(st.sampled_from((1, 2, 3))),
        group_channels=draw(st.sampled_from((1, 2, 5, 8, 17))),
        group_out_channels=draw(st.sampled_from((1, 2, 3, 16))),
        input_size=input_size,
        offset=always_offset or draw(st.booleans()),
        mask=draw(st.booleans()),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(dtypes)),
        device=device,
        layouts={
            name: draw(st.sampled_from(layouts))
            for name in ("input", "offset", "mask", "weight", "columns", "grad_output")
        },
    )


def rounding_of_columns(device: Device, case: Case) -> tuple[Array | float, Array | float]:
    """By how much output and grad_weight may differ because columns were rounded to a half type.

    A tensor core takes both factors of a product in the type of the tensors. Weight and grad_output
    are of that type, columns are computed in float and rounded to it once: each product may be off
    by half a unit in the last place of its column. Nothing else is rounded on the way.
    """
    if not device.tensor_cores or case.input.dtype not in HALVES:
        return 0.0, 0.0
    columns = abs(
        reference.gather_columns(**case.arrays("input", "offset", "mask"), geometry=case.geometry)
    )
    outputs, group_channels, *_ = case.weight.shape
    groups = max(1, case.input.shape[1] // max(1, group_channels))
    rows, pixels = group_channels * case.geometry.taps, columns.shape[3] * columns.shape[4]
    batch = len(columns)
    columns = columns.reshape(batch, groups, rows, pixels)
    weight = abs(case.numpy("weight")).reshape(groups, outputs // groups, rows)
    grad = abs(case.numpy("grad_output")).reshape(batch, groups, outputs // groups, pixels)
    unit = torch.finfo(case.input.dtype).eps / 2
    return (
        unit * np.einsum("gor,ngrp->ngop", weight, columns).reshape(case.grad_output.shape),
        unit * np.einsum("ngop,ngrp->gor", grad, columns).reshape(case.weight.shape),
    )


def assert_output_close(device: Device, case: Case, output: Tensor) -> None:
    """What deform_conv2d returned on a device, against the reference."""
    want = reference.deform_conv2d(
        **case.arrays("input", "offset", "weight", "bias", "mask"), geometry=case.geometry
    )
    assert_close(output, want, slack=rounding_of_columns(device, case)[0])


def assert_gradients_close(device: Device, case: Case, gradients: Iterable[Tensor]) -> None:
    """What deform_conv2d_backward returned on a device, against the reference."""
    want = reference.deform_conv2d_backward(
        **case.arrays("grad_output", "input", "offset", "weight", "mask"), geometry=case.geometry
    )
    slack = {"weight": rounding_of_columns(device, case)[1]}
    for name, got in zip(("input", "offset", "weight", "mask"), gradients, strict=True):
        if getattr(want, name) is None:
            assert got.shape == (0,), name
        else:
            context = f"grad_{name}"
            assert_close(got, getattr(want, name), context=context, slack=slack.get(name, 0.0))


def assert_close(
    got: Tensor, want: Array | Tensor, *, context: str = "", slack: Array | float = 0.0
) -> None:
    """Equal up to what arithmetic in the compute type, rounded once to ``got``'s type, may differ.

    Half types compute in float32, so only half a unit in the last place of the result is allowed
    for them on top of float32's own error; and ``slack``, for each number or for all.
    """
    expected = want.detach().cpu().double() if isinstance(want, Tensor) else torch.from_numpy(want)
    actual = got.detach().cpu().double()
    assert actual.shape == expected.shape, f"{context}: {actual.shape} != {expected.shape}"
    finite = expected[expected.isfinite()]
    scale = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    half = got.dtype in HALVES
    compute = torch.finfo(torch.float32 if half else got.dtype).eps
    storage = torch.finfo(got.dtype).eps / 2 if half else 0.0
    extra = torch.as_tensor(slack, dtype=torch.float64)
    # Rounded once: also what may be off already.
    allowed = 48 * compute * scale + 1.01 * storage * (expected.abs() + extra) + extra
    error = (actual - expected).abs()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    wrong = ~(same | (expected.isfinite() & (error <= allowed)))
    if wrong.any():
        index = tuple(int(number) for number in wrong.nonzero()[0])
        raise AssertionError(
            f"{context}: {int(wrong.sum())} of {wrong.numel()} numbers differ, the first at "
            f"{index}: expected {expected[index]:.9g}, got {actual[index]:.9g}, allowed "
            f"{allowed.expand_as(error)[index]:.2g}; largest error {error[wrong].max():.2g}"
        )
