"""Bad input is an error that says which argument, what was expected and what came.

One table for the public functions (ValueError, TypeError), the raw ops (RuntimeError) and the fake
kernels (the same refusals while a model is traced).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

import deformops
from tests.devices import Device

# A valid call of each op: 4 channels, 2 groups, 2 offset groups, kernel 3 x 2, output 5 x 7.
SIZES: dict[str, tuple[int, ...]] = {
    "input": (2, 4, 5, 6),
    "columns": (2, 4, 6, 5, 7),
    "offset": (2, 24, 5, 7),
    "mask": (2, 12, 5, 7),
    "weight": (8, 2, 3, 2),
    "bias": (8,),
    "grad_output": (2, 8, 5, 7),
}
WINDOW: dict[str, Any] = {"stride": 1, "padding": 1, "dilation": 1}
SAMPLING: dict[str, Any] = {**WINDOW, "border": "v2", "kink": "inner"}
CALLS: dict[str, dict[str, Any]] = {
    "deform_conv2d": dict.fromkeys(("input", "offset", "weight", "bias", "mask")) | SAMPLING,
    "gather_columns": dict.fromkeys(("input", "offset", "mask"))
    | SAMPLING
    | {"kernel_size": (3, 2)},
    "scatter_columns": dict.fromkeys(("columns", "offset", "mask"))
    | SAMPLING
    | {"kernel_size": (3, 2), "input_size": (5, 6)},
    "atrous_conv2d": dict.fromkeys(("input", "weight", "bias"))
    | WINDOW
    | {"groups": 2, "algorithm": "auto"},
    "insert_holes": {"weight": None, "dilation": 2},
}
# 2 images, 3 boxes, 2 channels for each of 2 x 2 groups or bins, 2 classes.
POOLING_SIZES: dict[str, tuple[int, ...]] = {
    "input": (2, 8, 5, 6),
    "boxes": (3, 5),
    "offset": (3, 4, 2, 2),
}
POOLED: dict[str, Any] = {"input": None, "boxes": None, "output_size": 2, "spatial_scale": 0.5}
MOVED: dict[str, Any] = {"offset": None, "samples_per_bin": 2, "offset_scale": 0.1, "part_size": 2}
CALLS |= {
    "roi_pool": POOLED | {"semantics": "caffe"},
    "roi_align": POOLED | {"sampling_ratio": 2, "aligned": True},
    "ps_roi_align": POOLED | {"sampling_ratio": 2},
    "ps_roi_pool": POOLED | {"group_size": 2, "semantics": "rfcn"},
    "deform_roi_pool": POOLED | MOVED | {"semantics": "dcn"},
    "deform_ps_roi_pool": POOLED | MOVED | {"group_size": 2},
}
POOLINGS = tuple(op for op in CALLS if "roi" in op)
MOVING = ("deform_roi_pool", "deform_ps_roi_pool")


def size_of(op: str, argument: str) -> tuple[int, ...]:
    return POOLING_SIZES[argument] if op in POOLINGS else SIZES[argument]


@dataclass(frozen=True)
class Zeros:
    """Stands for a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.shape}, {self.dtype}, {self.device}"

    def make(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Bad:
    """A call that differs from the valid one, and what its error has to say."""

    op: str
    argument: str
    value: Any
    error: type[Exception]
    says: tuple[str, ...] = ()
    others: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = f", {self.others}" if self.others else ""
        return f"{self.op}({self.argument}={self.value}{extra})"


def shapes(op: str, argument: str, *bad: tuple[int, ...]) -> list[Bad]:
    return [Bad(op, argument, Zeros(one), ValueError, (str(list(one)),)) for one in bad]


def window_errors(op: str, *names: str) -> list[Bad]:
    """What is wrong with strides and the like, for any op that has them."""
    minimum = {"padding": 0, "input_size": 0}
    rows = []
    for name in names:
        least = minimum.get(name, 1)
        for value in (least - 1, (1, least - 1), (least - 1, 2), -(2**40)):
            shown = value if isinstance(value, tuple) else (value, value)
            says = (str(least), ", ".join(map(str, shown)))
            rows.append(Bad(op, name, value, ValueError, says))
        for wrong in (1.5, "1", None, (1, 2, 3), (1,), (1.0, 2.0)):
            rows.append(Bad(op, name, wrong, TypeError, (repr(wrong),)))
    return rows


def type_errors(op: str, argument: str, like: str | None, optional: bool) -> list[Bad]:
    """What is wrong with the type of a tensor argument."""
    shape = size_of(op, argument)
    rows = [Bad(op, argument, value, TypeError, (type(value).__name__,)) for value in (3.0, [1.0])]
    if not optional:
        rows.append(Bad(op, argument, None, TypeError, ("None",)))
    if like is None:
        for dtype in (torch.int64, torch.bool, torch.complex64):
            rows.append(
                Bad(op, argument, torch.zeros(shape, dtype=dtype), TypeError, (str(dtype),))
            )
    else:
        says = (like, "float64", "float32")
        rows.append(Bad(op, argument, Zeros(shape, torch.float32), TypeError, says))
        elsewhere = Zeros(shape, device="meta")
        rows.append(Bad(op, argument, elsewhere, ValueError, ("device", like, "meta")))
    return rows


def number_errors(op: str, name: str, *bad: float) -> list[Bad]:
    """What is wrong with a number that is no count."""
    inf, nan = float("inf"), float("nan")
    rows = [Bad(op, name, value, ValueError, (str(value),)) for value in (*bad, inf, -inf, nan)]
    return rows + [Bad(op, name, wrong, TypeError, (repr(wrong),)) for wrong in ("1", None, (1.0,))]


def grouping_errors(op: str, name: str) -> list[Bad]:
    """What is wrong with a size that may be None."""
    return [bad for bad in window_errors(op, name) if bad.value is not None]


def box_errors(op: str) -> list[Bad]:
    """What is wrong with boxes of any kind."""
    four, five, meta = Zeros((2, 4)), Zeros((2, 5)), Zeros((2, 4), device="meta")
    integers = Zeros((3, 5), torch.int64)
    return [
        *(
            Bad(op, "boxes", value, TypeError, (type(value).__name__,))
            for value in (3.0, None, "x")
        ),
        Bad(op, "boxes", integers, TypeError, ("int64",)),
        Bad(op, "boxes", Zeros((3, 5), device="meta"), ValueError, ("device", "meta")),
        Bad(op, "boxes", [four], ValueError, ("2 images", "1")),
        Bad(op, "boxes", [four] * 3, ValueError, ("2 images", "3")),
        Bad(op, "boxes", [], ValueError, ("2 images", "0")),
        Bad(op, "boxes", [four, five], ValueError, ("boxes[1]", "[2, 5]")),
        Bad(op, "boxes", [Zeros((4,)), four], ValueError, ("boxes[0]", "[4]")),
        Bad(op, "boxes", [four, 3.0], TypeError, ("boxes[1]", "float")),
        Bad(op, "boxes", [Zeros((2, 4), torch.int64), four], TypeError, ("boxes[0]", "int64")),
        Bad(op, "boxes", [four, meta], ValueError, ("boxes[1]", "device", "meta")),
    ]


SAMPLED = ("deform_conv2d", "gather_columns", "scatter_columns")

BAD: list[Bad] = [
    # input, columns
    *shapes("deform_conv2d", "input", (4, 5, 6), (2, 4, 30), (1, 2, 4, 5, 6)),
    *shapes("gather_columns", "input", (4, 5, 6), (1, 2, 4, 5, 6)),
    *shapes("scatter_columns", "columns", (2, 4, 5, 7), (2, 24, 35)),
    *shapes("scatter_columns", "columns", (2, 4, 5, 5, 7), (2, 4, 6, 5, 6), (2, 4, 6, 4, 7)),
    *(row for op in SAMPLED[:2] for row in type_errors(op, "input", None, False)),
    *type_errors("scatter_columns", "columns", None, False),
    *(
        Bad(op, "input", Zeros((2, 4, 0, 6)), ValueError, ("height", "3", "2"))
        for op in SAMPLED[:2]
    ),
    Bad(
        "gather_columns",
        "input",
        Zeros((2, 4, 5, 0)),
        ValueError,
        ("width", "5", "2"),
        {"dilation": (1, 4)},
    ),
    # offset
    *(
        row
        for op in SAMPLED
        for row in shapes(
            op,
            "offset",
            *((24, 5, 7), (2, 24, 5, 6), (2, 24, 4, 7), (1, 24, 5, 7), (3, 24, 5, 7)),
            *((2, 23, 5, 7), (2, 25, 5, 7), (2, 24, 7, 5)),
        )
    ),
    *(
        Bad(op, "offset", Zeros((2, channels, 5, 7)), ValueError, ("group", "4", str(groups)))
        for op in SAMPLED
        for channels, groups in ((36, 3), (12 * 8, 8))
    ),
    *(
        Bad(op, name, Zeros((2, channels, 5, 7)), ValueError, ("group",))
        for op in SAMPLED
        for name, channels in (("offset", 11), ("offset", 0), ("mask", 5))
    ),
    *(
        row
        for op, like in zip(SAMPLED, ("input", "input", "columns"), strict=True)
        for row in type_errors(op, "offset", like, True)
    ),
    # mask
    *(
        row
        for op in SAMPLED
        for row in shapes(
            op,
            "mask",
            *((12, 5, 7), (2, 12, 5, 6), (2, 12, 4, 7), (1, 12, 5, 7), (2, 6, 5, 7)),
            *((2, 24, 5, 7), (2, 13, 5, 7), (2, 0, 5, 7)),
        )
    ),
    *(
        row
        for op, like in zip(SAMPLED, ("input", "input", "columns"), strict=True)
        for row in type_errors(op, "mask", like, True)
    ),
    # weight, bias
    *shapes("deform_conv2d", "weight", (8, 2, 3), (8, 2, 6), (8, 3, 3, 2), (8, 5, 3, 2)),
    *shapes("deform_conv2d", "weight", (7, 2, 3, 2), (8, 0, 3, 2)),
    Bad("deform_conv2d", "kernel_size", Zeros((8, 2, 0, 2)), ValueError, ("1", "0, 2")),
    *type_errors("deform_conv2d", "weight", "input", False),
    *shapes("deform_conv2d", "bias", (7,), (1,), (8, 1), ()),
    *type_errors("deform_conv2d", "bias", "", True),
    # window
    *window_errors("deform_conv2d", "stride", "padding", "dilation"),
    *window_errors("gather_columns", "stride", "padding", "dilation", "kernel_size"),
    *window_errors("scatter_columns", "stride", "padding", "dilation", "kernel_size", "input_size"),
    *(
        Bad(op, "input", Zeros(SIZES["input"]), ValueError, ("height", "9", "7"), {"dilation": 4})
        for op in SAMPLED[:2]
    ),
    *(
        Bad(op, name, value, ValueError, (*choices, repr(value)))
        for op in SAMPLED
        for name, choices in (("border", ("v1", "v2")), ("kink", ("inner", "zero")))
        for value in ("v3", "")
    ),
    # atrous convolution
    *shapes("atrous_conv2d", "input", (4, 5, 6), (1, 2, 4, 5, 6)),
    *shapes("atrous_conv2d", "weight", (8, 2, 3), (7, 2, 3, 2), (8, 3, 3, 2), (8, 4, 3, 2)),
    Bad("atrous_conv2d", "kernel_size", Zeros((8, 2, 0, 2)), ValueError, ("1", "0, 2")),
    *shapes("atrous_conv2d", "bias", (7,), (8, 1)),
    *type_errors("atrous_conv2d", "input", None, False),
    *type_errors("atrous_conv2d", "weight", "input", False),
    *type_errors("atrous_conv2d", "bias", "", True),
    *window_errors("atrous_conv2d", "stride", "padding", "dilation"),
    *(Bad("atrous_conv2d", "groups", value, ValueError, (str(value),)) for value in (0, -1, 3)),
    Bad("atrous_conv2d", "groups", 1.0, TypeError, ("1.0",)),
    *(
        Bad(
            "atrous_conv2d",
            "algorithm",
            value,
            ValueError,
            ("auto", "direct", "holes", "subsample", "winograd", repr(value)),
        )
        for value in ("fft", "", "AUTO")
    ),
    Bad("atrous_conv2d", "input", Zeros(SIZES["input"]), ValueError, ("height",), {"dilation": 4}),
    # insert_holes
    *shapes("insert_holes", "weight", (2,), ()),
    *window_errors("insert_holes", "dilation"),
    *(Bad("insert_holes", "weight", value, TypeError) for value in (None, 3.0, [1.0])),
    # RoI pooling
    *(row for op in POOLINGS for row in shapes(op, "input", (8, 5, 6), (1, 2, 8, 5, 6))),
    *(row for op in POOLINGS for row in type_errors(op, "input", None, False)),
    *(row for op in POOLINGS for row in shapes(op, "boxes", (5,), (3, 4), (3, 6), (3, 5, 1))),
    *(row for op in POOLINGS for row in box_errors(op)),
    *(row for op in POOLINGS for row in window_errors(op, "output_size")),
    *(row for op in POOLINGS for row in number_errors(op, "spatial_scale", 0.0, -0.5)),
    *(
        Bad(op, name, value, error, (str(value).strip("'"),))
        for op, name in (
            *(("roi_align", "sampling_ratio"), ("ps_roi_align", "sampling_ratio")),
            *((op, "samples_per_bin") for op in MOVING),
        )
        for value, error in (
            *((4097, ValueError), (2**40, ValueError)),
            *((1.5, TypeError), ("2", TypeError), (None, TypeError)),
        )
    ),
    *(
        Bad(op, "samples_per_bin", value, ValueError, (str(value),))
        for op in MOVING
        for value in (0, -1)
    ),
    *(
        Bad(op, "semantics", value, ValueError, (*choices, repr(value)))
        for op, choices in (
            ("roi_pool", ("caffe", "mmcv")),
            ("ps_roi_pool", ("rfcn", "torchvision")),
            ("deform_roi_pool", ("dcn", "mmcv")),
        )
        for value in ("aligned", "", None)
    ),
    *(row for op in ("ps_roi_pool", MOVING[1]) for row in grouping_errors(op, "group_size")),
    *(
        Bad(op, "input", Zeros((2, 9, 5, 6)), ValueError, ("4 groups", "9"))
        for op in ("ps_roi_pool", "ps_roi_align", "deform_ps_roi_pool")
    ),
    *(row for op in MOVING for row in grouping_errors(op, "part_size")),
    *(
        Bad(
            op,
            "offset",
            Zeros((3, 4, 2, 2)),
            ValueError,
            ("3, 4, 2, 2", "3, 2"),
            {"part_size": (3, 2)},
        )
        for op in MOVING
    ),
    *(
        row
        for op in MOVING
        for row in shapes(
            op,
            "offset",
            *((4, 2, 2), (2, 4, 2, 2), (3, 4, 2, 3), (3, 4, 1, 2)),
            *((3, 3, 2, 2), (3, 0, 2, 2), (3, 6, 2, 2)),
        )
    ),
    *(row for op in MOVING for row in type_errors(op, "offset", "input", True)),
    *(row for op in MOVING for row in number_errors(op, "offset_scale")),
]


def arguments_of(bad: Bad) -> dict[str, Any]:
    """The valid call with the bad value in it."""
    name = bad.argument
    if bad.op in ("deform_conv2d", "atrous_conv2d") and name == "kernel_size":
        name = "weight"  # whose shape it is
    value = tree_map_only(Zeros, Zeros.make, bad.value)
    arguments = {
        key: torch.zeros(size_of(bad.op, key), dtype=torch.float64) if default is None else default
        for key, default in CALLS[bad.op].items()
    }
    return {**arguments, name: value, **bad.others}


def test_the_calls_are_valid() -> None:
    """Otherwise the table would prove nothing."""
    for op, call in CALLS.items():
        name = next(name for name, default in call.items() if default is None)
        valid = Bad(op, name, Zeros(size_of(op, name)), ValueError)
        getattr(deformops, op)(**arguments_of(valid))


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_public_functions(bad: Bad) -> None:
    with pytest.raises(bad.error) as info:
        getattr(deformops, bad.op)(**arguments_of(bad))
    message = str(info.value)
    assert bad.argument in message
    for part in bad.says:
        assert part in message, f"{part!r} is not in {message!r}"
    assert "expected" in message
    assert "got" in message


def is_for_raw(bad: Bad) -> bool:
    """Raw ops take tensors and lists of two integers; torch's own parser refuses the rest."""
    value = bad.value
    numbers = value if isinstance(value, tuple) else (value,)
    fits_schema = (
        isinstance(value, Zeros)
        or (isinstance(value, str) and bad.argument in ("border", "kink"))
        or all(isinstance(number, int) for number in numbers)
    )
    return (
        bad.op in SAMPLED and fits_schema and (isinstance(value, Zeros) or bad.error is ValueError)
    )


RAW = [bad for bad in BAD if is_for_raw(bad)]


def raw_arguments(bad: Bad) -> list[Any]:
    arguments = arguments_of(bad)
    for key in ("stride", "padding", "dilation", "kernel_size", "input_size"):
        if isinstance(arguments.get(key), int):
            arguments[key] = (arguments[key],) * 2
    arguments["order"] = (0, 0)
    schema = getattr(torch.ops.deformops, bad.op).default._schema.arguments
    return [arguments[argument.name] for argument in schema if not argument.kwarg_only]


CPP_NAMES = {
    "float64": "Double",
    "float32": "Float",
    "int64": "Long",
    "bool": "Bool",
    "complex64": "ComplexFloat",
    "meta": "another device",
}


@pytest.mark.parametrize(("name", "channels", "least"), [("offset", 17, 18), ("mask", 8, 9)])
def test_too_few_channels_for_the_taps(name: str, channels: int, least: int) -> None:
    given: dict[str, Tensor] = {"offset": torch.zeros(1, 18, 7, 7)}
    given[name] = torch.zeros(1, channels, 7, 7)
    says = rf"{name}: expected .* at least the {least} channels of .* got \[1, {channels}, 7, 7\]"
    with pytest.raises(ValueError, match=says):
        deformops.deform_conv2d(torch.zeros(1, 4, 9, 9), weight=torch.zeros(4, 4, 3, 3), **given)


@pytest.mark.parametrize("bad", RAW, ids=str)
def test_raw_ops(device: Device, bad: Bad) -> None:
    """Callers in C++ and reloaded programs have nothing in front of these."""
    if isinstance(bad.value, Zeros) and bad.value.device == "meta":
        pytest.skip("torch takes a call with a meta tensor to the fake kernel")
    moved = [
        value.to(device.type) if isinstance(value, Tensor) else value
        for value in raw_arguments(bad)
    ]
    with pytest.raises(RuntimeError) as info:
        getattr(device.raw, bad.op)(*moved)
    message = str(info.value)
    for part in (bad.op, bad.argument, "expected", "got", *bad.says):
        part = CPP_NAMES.get(part.removeprefix("torch."), part)
        assert part in message, f"{part!r} is not in {message!r}"


@pytest.mark.parametrize("bad", RAW, ids=str)
def test_fake_kernels(bad: Bad) -> None:
    """A mistake shows where a model is traced, not when it runs."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        arguments = tree_map_only(Tensor, mode.from_tensor, raw_arguments(bad))
        with pytest.raises((ValueError, TypeError, RuntimeError)) as info:
            getattr(torch.ops.deformops, bad.op)(*arguments)
    message = str(info.value)
    for part in (bad.op, bad.argument, *bad.says):
        assert part in message, f"{part!r} is not in {message!r}"


# --- ops without a public function ----------------------------------------------------------------


def tensors(*names: str) -> list[Tensor]:
    return [torch.zeros(SIZES[name], dtype=torch.float64) for name in names]


GEOMETRY: tuple[Any, ...] = ([1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner")
BACKWARD = ("grad_output", "input", "offset", "weight", "mask")


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("grad_output", Zeros((2, 8, 5, 6)), "2, 8, 5, 6"),
        ("grad_output", Zeros((2, 7, 5, 7)), "2, 7, 5, 7"),
        ("grad_output", Zeros((8, 5, 7)), "8, 5, 7"),
        ("offset", Zeros((2, 24, 5, 6)), "2, 24, 5, 6"),
        ("weight", Zeros((8, 3, 3, 2)), "8, 3, 3, 2"),
        ("mask", Zeros((2, 12, 5, 6)), "2, 12, 5, 6"),
        ("input", Zeros((4, 5, 6)), "4, 5, 6"),
    ],
    ids=str,
)
def test_backward(fake: bool, argument: str, value: Zeros, says: str) -> None:
    given = dict(zip(BACKWARD, tensors(*BACKWARD), strict=True))
    given[argument] = value.make()
    arguments: list[Any] = [*given.values(), *GEOMETRY, [True] * 4]
    mode = FakeTensorMode() if fake else nullcontext()
    if isinstance(mode, FakeTensorMode):
        arguments = tree_map_only(Tensor, mode.from_tensor, arguments)
    with mode, pytest.raises((RuntimeError, ValueError), match=argument) as info:
        torch.ops.deformops.deform_conv2d_backward(*arguments)
    assert says in str(info.value)


@pytest.mark.parametrize(
    ("absent", "flags"), [("offset", [0, 1, 0, 0]), ("mask", [0, 0, 0, 1])], ids=["offset", "mask"]
)
def test_backward_of_what_is_absent(absent: str, flags: list[int]) -> None:
    given: dict[str, Any] = dict(zip(BACKWARD, tensors(*BACKWARD), strict=True))
    given[absent] = None
    wanted = [bool(flag) for flag in flags]
    with pytest.raises((RuntimeError, ValueError), match=f"wanted.*{absent}"):
        torch.ops.deformops.deform_conv2d_backward(*given.values(), *GEOMETRY, wanted)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("columns", {"columns": Zeros((2, 4, 5, 5, 7))}),
        ("columns", {"columns": Zeros((1, 4, 6, 5, 7))}),
        ("offset", {"offset": Zeros((2, 24, 5, 6))}),
        ("offset_groups", {"offset_groups": 1}),
        ("offset_groups", {"offset": None, "offset_groups": 3}),
        ("offset_groups", {"offset": None, "offset_groups": 0}),
        ("offset_groups", {"offset": None, "offset_groups": -1}),
    ],
    ids=str,
)
def test_contract_columns(device: Device, argument: str, change: dict[str, Any]) -> None:
    given: dict[str, Any] = dict(
        zip(("input", "columns", "offset"), tensors("input", "columns", "offset"), strict=True)
    )
    given |= {"kernel_size": [3, 2], "geometry": GEOMETRY, "offset_groups": 2}
    for key, value in change.items():
        given[key] = value.make() if isinstance(value, Zeros) else value
    moved = {
        key: value.to(device.type) if isinstance(value, Tensor) else value
        for key, value in given.items()
    }
    geometry = moved.pop("geometry")
    offset_groups = moved.pop("offset_groups")
    with pytest.raises((RuntimeError, ValueError), match=argument):
        device.raw.contract_columns(*moved.values(), *geometry, offset_groups)


@pytest.mark.parametrize("order", [(2, 0), (0, 2), (-1, 0)], ids=str)
def test_order(device: Device, order: tuple[int, int]) -> None:
    image = torch.zeros(1, 1, 3, 3, device=device.type)
    with pytest.raises((RuntimeError, ValueError), match="order"):
        device.raw.gather_columns(
            image, None, None, [1, 1], [1, 1], [0, 0], [1, 1], list(order), "v2", "inner"
        )


@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "kernel_size"])
@pytest.mark.parametrize("value", [2**31, 2**40, 2**61, 2**62, 2**63 - 1])
def test_absurd_numbers_do_not_wrap_around(device: Device, name: str, value: int) -> None:
    """Sizes are computed without overflow: an error, never a crash or a wrong shape."""
    image = torch.zeros(1, 1, 3, 3, device=device.type)
    window = {"kernel_size": [3, 3], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    window[name] = [value, value]

    with pytest.raises(RuntimeError, match=name):
        device.raw.gather_columns(image, None, None, *window.values(), [0, 0], "v2", "inner")


def test_an_error_leaves_nothing_behind(device: Device) -> None:
    """The next call is as if nothing had happened."""
    image = torch.randn(1, 2, 4, 4, device=device.type)
    options: tuple[Any, ...] = ([3, 3], [1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner")
    before = device.raw.gather_columns(image, None, None, *options)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            device.raw.gather_columns(image, image, None, *options)
    assert torch.equal(device.raw.gather_columns(image, None, None, *options), before)


# --- raw ops of RoI pooling -----------------------------------------------------------------------

BINS: dict[str, Any] = {
    "output_size": [2, 2],
    "spatial_scale": 0.5,
    "semantics": "dcn",
    "group_size": [2, 2],
    "samples_per_bin": 2,
    "offset_scale": 0.1,
    "order": [0, 0],
}
IMAGE, ROWS, OFFSET = (Zeros(POOLING_SIZES[name]) for name in ("input", "boxes", "offset"))
GRAD, INDEX = Zeros((3, 2, 2, 2)), Zeros((3, 8, 2, 2), torch.int32)
SINGLE = Zeros(ROWS.shape, torch.float32)
RAW_POOLINGS: dict[str, dict[str, Any]] = {
    "roi_average": {"input": IMAGE, "boxes": ROWS, "offset": OFFSET, **BINS},
    "roi_average_backward": {
        **{"grad_output": GRAD, "input": IMAGE, "boxes": ROWS, "offset": OFFSET, **BINS},
        "wanted": [True, True],
    },
    "roi_pool": {
        **{"input": IMAGE, "boxes": ROWS, "output_size": [2, 2]},
        **{"spatial_scale": 0.5, "semantics": "caffe"},
    },
    "gather_maxima": {"input": IMAGE, "boxes": ROWS, "index": INDEX},
    "scatter_maxima": {
        **{"grad_output": Zeros((3, 8, 2, 2)), "boxes": ROWS, "index": INDEX},
        "input_size": [2, 8, 5, 6],
    },
}
BAD_RAW_POOLINGS: list[tuple[str, str, Any, dict[str, Any]]] = [
    *((op, "boxes", Zeros((3, 4)), {}) for op in RAW_POOLINGS),
    *((op, "boxes", SINGLE, {}) for op in RAW_POOLINGS),
    *((op, "boxes", ROWS, {"input": Zeros((2, 8, 5, 6), torch.float32)}) for op in ("roi_pool",)),
    *((op, "output_size", [2, 0], {}) for op in ("roi_pool", "roi_average")),
    *((op, "output_size", [2**31, 1], {}) for op in ("roi_pool", "roi_average")),
    *((op, "spatial_scale", 0.0, {}) for op in ("roi_pool", "roi_average")),
    *((op, "spatial_scale", float("nan"), {}) for op in ("roi_pool", "roi_average")),
    *((op, "semantics", "none", {}) for op in ("roi_pool", "roi_average")),
    ("roi_average", "group_size", [0, 2], {}),
    ("roi_average", "input", Zeros((2, 9, 5, 6)), {}),
    ("roi_average", "samples_per_bin", 0, {}),
    ("roi_average", "samples_per_bin", 4097, {}),
    ("roi_average", "samples_per_bin", 2, {"semantics": "rfcn", "offset": None}),
    ("roi_average", "offset_scale", float("inf"), {}),
    ("roi_average", "offset", OFFSET, {"semantics": "rfcn", "samples_per_bin": 0}),
    ("roi_average", "order", [0, 2], {}),
    ("roi_average", "order", [1, 0], {"semantics": "rfcn", "samples_per_bin": 0, "offset": None}),
    *(
        ("roi_average", "offset", Zeros(shape), {})
        for shape in ((2, 4, 2, 2), (3, 3, 2, 2), (3, 0, 2, 2), (3, 6, 2, 2), (3, 4, 0, 2))
    ),
    *(
        ("roi_average_backward", "grad_output", Zeros(shape), {})
        for shape in ((3, 2, 2), (2, 2, 2, 2), (3, 8, 2, 2), (3, 2, 2, 3))
    ),
    ("roi_average_backward", "grad_output", Zeros(GRAD.shape, torch.float32), {}),
    ("roi_average_backward", "wanted", [False, True], {"offset": None}),
    *(
        ("gather_maxima", "index", Zeros(shape, torch.int32), {})
        for shape in ((3, 8, 2), (2, 8, 2, 2), (3, 7, 2, 2))
    ),
    ("gather_maxima", "index", Zeros(INDEX.shape, torch.int64), {}),
    ("gather_maxima", "index", Zeros(INDEX.shape), {}),
    ("scatter_maxima", "index", Zeros((3, 8, 2, 3), torch.int32), {}),
    ("scatter_maxima", "index", Zeros(INDEX.shape, torch.int64), {}),
    ("scatter_maxima", "grad_output", Zeros((3, 7, 2, 2)), {}),
    ("scatter_maxima", "input_size", [2, 8, -1, 6], {}),
    ("scatter_maxima", "input_size", [2, 8, 5], {}),
]


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(("op", "argument", "value", "others"), BAD_RAW_POOLINGS, ids=str)
def test_raw_poolings(
    device: Device, fake: bool, op: str, argument: str, value: Any, others: dict[str, Any]
) -> None:
    valid = RAW_POOLINGS[op]
    given = tree_map_only(Zeros, Zeros.make, list({**valid, argument: value, **others}.values()))
    moved = tree_map_only(Tensor, lambda tensor: tensor.to(device.type), given)
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    if isinstance(mode, FakeTensorMode):
        moved = tree_map_only(Tensor, mode.from_tensor, moved)
    errors = (RuntimeError, ValueError, TypeError)
    with mode, pytest.raises(errors, match=f"{op}: {argument}: "):
        getattr(device.raw, op)(*moved)


@pytest.mark.parametrize("op", RAW_POOLINGS)
def test_the_raw_poolings_are_valid(device: Device, op: str) -> None:
    given = tree_map_only(Zeros, Zeros.make, list(RAW_POOLINGS[op].values()))
    getattr(device.raw, op)(*tree_map_only(Tensor, lambda tensor: tensor.to(device.type), given))
