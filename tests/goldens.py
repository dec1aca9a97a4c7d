"""Published numbers for deformable convolution and RoI pooling, with where they come from.

A, M: the tests of mmcv (``test_deform_conv.py``, ``test_modulated_deform_conv.py``). M's gradients
depend on the slope taken exactly on the border: mmcv's are those of ``kink="zero"``, torchvision's
those of ``kink="inner"``. D: the test of detectron2 (``test_deformable.py``); its second table is
the same case under the 2017 border of the MXNet operator. O: the four node tests of ONNX
``DeformConv``.

X1, X2, X3: the tests of mmcv (``test_roi_pool.py``, ``test_roi_align.py``,
``test_deform_roi_pool.py``). R: detectron2 (``test_roi_align.py``). P: one box, five poolings, by
the formulas of R-FCN's and the deformable networks' MXNet operators, by torchvision and by Caffe.
C: what mmcv's roi_pool and Caffe's differ in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _array(values: object, *shape: int) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(shape)


@dataclass(frozen=True)
class Learned:
    """A layer whose offsets a convolution of the input predicts; the loss is the output's sum."""

    input: Array
    weight: Array
    offset_weight: Array
    offset_bias: Array
    padding: int
    modulated: bool
    output: Array
    grad_input: Array
    grad_weight: Array
    grad_offset_weight: dict[str, Array]  # by kink
    grad_offset_bias: dict[str, Array]


_A_OFFSET_WEIGHT = _array(
    [
        [1.44, 2.88, 0, 1.44], [-0.72, -1.44, 0, -0.72], [0, 0, 0, 0], [0, 0, 0, 0],
        [-0.10, -0.20, 0, -0.10], [-0.08, -0.16, 0, -0.08],
        [-0.54, -1.08, 0, -0.54], [-0.54, -1.08, 0, -0.54],
    ],
    8, 1, 2, 2,
)  # fmt: skip
_A_OFFSET_BIAS = _array([1.44, -0.72, 0, 0, -0.10, -0.08, -0.54, -0.54], 8)

CASE_A = Learned(
    input=_array([[1, 2, 3], [0, 1, 2], [3, 5, 2]], 1, 1, 3, 3),
    weight=_array([[0.4, 0.2], [0.1, 0.9]], 1, 1, 2, 2),
    offset_weight=_array(
        [
            [0.1, 0.4, 0.6, 0.1], [0.3, 0.2, 0.1, 0.3], [0.5, 0.5, 0.2, 0.8], [0.8, 0.3, 0.9, 0.1],
            [0.3, 0.1, 0.2, 0.5], [0.3, 0.7, 0.5, 0.3], [0.6, 0.2, 0.5, 0.3], [0.4, 0.1, 0.8, 0.4],
        ],
        8, 1, 2, 2,
    ),
    offset_bias=_array([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7], 8),
    padding=0,
    modulated=False,
    output=_array([[1.650, 0], [0, 0]], 1, 1, 2, 2),
    grad_input=_array([[-0.666, 0.204, 0], [0.030, -0.416, 0.012], [0, 0.252, 0.129]], 1, 1, 3, 3),
    grad_weight=_array([[3.62, 0], [0.40, 0.18]], 1, 1, 2, 2),
    grad_offset_weight={"inner": _A_OFFSET_WEIGHT, "zero": _A_OFFSET_WEIGHT},
    grad_offset_bias={"inner": _A_OFFSET_BIAS, "zero": _A_OFFSET_BIAS},
)  # fmt: skip

_M_MASK_ROWS = [[10.5, 6, 7, 4], [6, 10.5, 4, 7], [7, 4, 10.5, 6], [4, 7, 6, 10.5]]
_M_ZERO_ROWS = [
    [-7, -4, 0, 0], [-9, 7.5, -6, 5], [-4, -7, 0, 0], [-7.5, -9, -5, -6],
    [-7, -4, -7, -4], [-6, 5, -9, 7.5], [-4, -7, -4, -7], [-5, -6, -7.5, -9],
]  # fmt: skip
_M_INNER_ROWS = [
    [-7, -4, 7, 4], [-9, 9, -6, 6], [-4, -7, 4, 7], [-7.5, -9, -5, -6],
    [-7, -4, -7, -4], [-6, 6, -9, 9], [-4, -7, -4, -7], [-5, -6, -7.5, -9],
]  # fmt: skip

CASE_M = Learned(
    input=_array([[1, 2, 3]] * 3, 1, 1, 3, 3),
    weight=np.ones((1, 1, 2, 2)),
    offset_weight=np.zeros((12, 1, 2, 2)),
    offset_bias=np.zeros(12),
    padding=1,
    modulated=True,
    output=_array(
        [[0.5, 1.5, 2.5, 1.5], [1, 3, 5, 3], [1, 3, 5, 3], [0.5, 1.5, 2.5, 1.5]], 1, 1, 4, 4
    ),
    grad_input=np.full((1, 1, 3, 3), 2.0),
    grad_weight=_array([[9, 9], [9, 9]], 1, 1, 2, 2),
    grad_offset_weight={
        "inner": _array([*_M_INNER_ROWS, *_M_MASK_ROWS], 12, 1, 2, 2),
        "zero": _array([*_M_ZERO_ROWS, *_M_MASK_ROWS], 12, 1, 2, 2),
    },
    grad_offset_bias={
        "inner": _array([0, 0, 0, -1.5, -3, 0, -3, -1.5, 4.5, 4.5, 4.5, 4.5], 12),
        "zero": _array([-3, -1.5, -3, -1.5, -3, -1.5, -3, -1.5, 4.5, 4.5, 4.5, 4.5], 12),
    },
)


@dataclass(frozen=True)
class Given:
    """A case with given offsets: values only."""

    input: Array
    offset: Array
    weight: Array
    bias: Array | None
    mask: Array | None
    padding: int
    border: str
    output: Array


def _case_d(border: str, table: list[list[float]], mask: float | None = None) -> Given:
    return Given(
        input=_array(np.arange(25), 1, 1, 5, 5),
        offset=np.full((1, 18, 5, 5), 0.5),
        weight=np.ones((1, 1, 3, 3)),
        bias=None,
        mask=None if mask is None else np.full((1, 9, 5, 5), mask),
        padding=1,
        border=border,
        output=_array(table, 1, 1, 5, 5) * (1.0 if mask is None else mask),
    )


_D_V2: list[list[float]] = [
    [30, 41.25, 48.75, 45, 28.75],
    [62.25, 81, 90, 80.25, 50.25],
    [99.75, 126, 135, 117.75, 72.75],
    [105, 131.25, 138.75, 120, 73.75],
    [71.75, 89.25, 93.75, 80.75, 49.5],
]
_D_V1: list[list[float]] = [
    [24, 39, 45, 50, 35],
    [51, 81, 90, 97.5, 67.5],
    [81, 126, 135, 142.5, 97.5],
    [106, 163.5, 172.5, 180, 122.5],
    [79, 121.5, 127.5, 132.5, 90],
]


def _case_o(
    padding: int,
    moved: dict[tuple[int, int, int, int], float],
    output: list[list[float]],
    *,
    channels: int = 1,
    bias: float | None = None,
    mask: dict[tuple[int, int, int, int], float] | None = None,
) -> Given:
    side = 2 + 2 * padding
    offset = np.zeros((1, 8 * channels, side, side))
    for place, value in moved.items():
        offset[place] = value
    full_mask = None
    if mask is not None:
        full_mask = np.ones((1, 4, side, side))
        for place, value in mask.items():
            full_mask[place] = value
    ramp = np.arange(9)
    return Given(
        input=_array([ramp, 8 - ramp][:channels], 1, channels, 3, 3),
        offset=offset,
        weight=np.ones((1, channels, 2, 2)),
        bias=None if bias is None else np.full(1, bias),
        mask=full_mask,
        padding=padding,
        border="v2",
        output=_array(output, 1, 1, side, side),
    )


GIVEN: dict[str, Given] = {
    "D": _case_d("v2", _D_V2),
    "D, mask 0.5": _case_d("v2", _D_V2, mask=0.5),
    "D, border v1": _case_d("v1", _D_V1),
    "O, padding 1": _case_o(
        1,
        {(0, 0, 0, 0): 0.5, (0, 5, 1, 2): -0.1},
        [[0, 1, 3, 2], [3, 8, 11.9, 7], [9, 20, 24, 13], [6, 13, 15, 8]],
    ),
    "O, padding 0": _case_o(0, {(0, 0, 0, 0): 0.5, (0, 5, 0, 1): -0.1}, [[9.5, 11.9], [20, 24]]),
    "O, bias and mask": _case_o(
        0,
        {(0, 0, 0, 0): 0.5, (0, 5, 0, 1): -0.1},
        [[10.5, 12.9], [21, 19.4]],
        bias=1.0,
        mask={(0, 2, 1, 1): 0.2},
    ),
    "O, two offset groups": _case_o(
        0,
        {(0, 0, 0, 0): 0.5, (0, 13, 0, 1): -0.1},
        [[33.5, 32.1], [32, 32]],
        channels=2,
    ),
}


@dataclass(frozen=True)
class Pooled:
    """A map and boxes pooled by one of the public functions, with its options."""

    op: str
    input: Array
    box: Array
    options: dict[str, Any]
    output: Array
    offset: Array | None = None
    grad_input: Array | None = None  # of the output's sum


_X1 = _array([[1, 2], [3, 4]], 1, 1, 2, 2)
_X2 = _array([[[1, 2], [3, 4]], [[4, 3], [2, 1]]], 1, 2, 2, 2)
_X3 = _array([[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]], 1, 1, 4, 4)
_X1_BOX, _X3_BOX = _array([0, 0, 0, 1, 1], 1, 5), _array([0, 0, 0, 3, 3], 1, 5)
_X1_MEANS, _X3_MEANS = [[1, 1.25], [1.5, 1.75]], [[1.9375, 4.75], [7.5625, 10.375]]
_X1_GRAD = _array([[3.0625, 0.4375], [0.4375, 0.0625]], 1, 1, 2, 2)
_X3_GRAD = _array(
    [
        [0.47265625, 0.4296875, 0.4296875, 0.04296875],
        [0.4296875, 0.390625, 0.390625, 0.0390625],
        [0.4296875, 0.390625, 0.390625, 0.0390625],
        [0.04296875, 0.0390625, 0.0390625, 0.00390625],
    ],
    1, 1, 4, 4,
)  # fmt: skip
_ALIGNED = {"sampling_ratio": 2, "aligned": True}
_MMCV = {"samples_per_bin": 2, "semantics": "mmcv"}


def _case_x(op: str, name: str, options: dict[str, Any]) -> Pooled:
    """The mean of samples of mmcv's RoIAlign, which its deform_roi_pool has in place."""
    input, box, means, grad = {
        "X1": (_X1, _X1_BOX, [_X1_MEANS], _X1_GRAD),
        "X2": (_X2, _X1_BOX, [_X1_MEANS, [[4, 3.75], [3.5, 3.25]]], _X1_GRAD.repeat(2, axis=1)),
        "X3": (_X3, _X3_BOX, [_X3_MEANS], _X3_GRAD),
    }[name]
    output = _array(means, 1, len(means), 2, 2)
    return Pooled(op, input, box, options, output, grad_input=grad)


def _case_r(aligned: bool, rows: list[float]) -> Pooled:
    return Pooled(
        "roi_align",
        _array(np.arange(25), 1, 1, 5, 5),
        _array([0, 1, 1, 3, 3], 1, 5),
        {"output_size": 4, "aligned": aligned},
        _array([[row, row + 0.5, row + 1, row + 1.5] for row in rows], 1, 1, 4, 4),
    )


_P_OFFSET = _array([[[0.5, -1], [1, 0]], [[-0.5, 0.25], [0, 2]]], 1, 2, 2, 2)


def _case_p(op: str, output: object, moved: bool = False, **options: Any) -> Pooled:
    channels = 1 if op == "roi_pool" else 8
    return Pooled(
        op,
        _array(np.arange(288) % 37, 1, 8, 6, 6)[:, :channels],
        _array([0, 4, 6, 33, 40], 1, 5),
        {"spatial_scale": 1 / 8, **options},
        _array(output, 1, 1 if op == "roi_pool" else 2, 2, 2),
        offset=_P_OFFSET if moved else None,
    )


def _case_c(semantics: str, box: list[float], side: int, output: object) -> Pooled:
    return Pooled(
        "roi_pool",
        _array(np.arange(64), 1, 1, 8, 8),
        _array([0, *box], 1, 5),
        {"output_size": side, "spatial_scale": 0.5, "semantics": semantics},
        _array(output, 1, 1, side, side),
    )


POOLED: dict[str, Pooled] = {
    "X1, roi_pool": Pooled("roi_pool", _X1, _X1_BOX, {}, _X1, grad_input=np.ones((1, 1, 2, 2))),
    "X3, roi_pool": Pooled(
        "roi_pool",
        _X3,
        _X3_BOX,
        {},
        _array([[4, 8], [12, 16]], 1, 1, 2, 2),
        grad_input=_array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]], 1, 1, 4, 4),
    ),
    **{f"{name}, roi_align": _case_x("roi_align", name, _ALIGNED) for name in ("X1", "X2", "X3")},
    **{
        f"{name}, deform_roi_pool": _case_x("deform_roi_pool", name, _MMCV)
        for name in ("X1", "X2", "X3")
    },
    "R": _case_r(False, [7.5, 10, 12.5, 15]),
    "R, aligned": _case_r(True, [4.5, 7, 9.5, 12]),
    "P, rfcn": _case_p("ps_roi_pool", [[7, 8], [20, 21], [46 / 3, 49 / 3], [16, 17]]),
    "P, torchvision": _case_p(
        "ps_roi_pool",
        [[10.5, 10.5], [20.5, 20.5], [6.5, 6.5], [16.5, 16.5]],
        semantics="torchvision",
    ),
    "P, dcn": _case_p(
        "deform_ps_roi_pool",
        [[7.125, 8], [18.25, 19.125], [11.94140625, 12.81640625], [14.25, 15.125]],
    ),
    "P, dcn, moved": _case_p(
        "deform_ps_roi_pool",
        [[6, 8.28125], [18.625, 24.375], [14.86328125, 11.07421875], [14.625, 20.375]],
        moved=True,
    ),
    "P, caffe": _case_p("roi_pool", [[20, 22], [32, 34]]),
    "C, mmcv, one": _case_c("mmcv", [1, 1, 5, 5], 1, [18]),
    "C, caffe, one": _case_c("caffe", [1, 1, 5, 5], 1, [27]),
    "C, mmcv": _case_c("mmcv", [2, 2, 11, 11], 2, [[27, 29], [43, 45]]),
    "C, caffe": _case_c("caffe", [2, 2, 11, 11], 2, [[27, 30], [51, 54]]),
}
