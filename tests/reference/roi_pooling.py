"""Pooling of the bins of boxes, one box and one bin at a time.

Where a bin looks is computed in the type of the boxes, since the borders of bins of pixels are
rounded to whole numbers; what is done with what it sees, in float64. A mean is a product with a
dense matrix of weights over all pixels, so that there is no index to get wrong, and its gradient
one with the transpose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = tuple[int, int]

PIXELS = ("caffe", "mmcv", "rfcn", "torchvision")
"""The semantics whose bins are made of pixels; "aligned", "unaligned" and "dcn" take samples."""


@dataclass(frozen=True)
class Pooling:
    """How boxes are pooled. Pairs are (vertical, horizontal).

    "caffe" (Fast R-CNN's layer, torchvision's roi_pool) and "mmcv" are for the maximum; "rfcn",
    "torchvision" (its ps_roi_pool), "aligned", "unaligned" (RoIAlign) and "dcn" (the MXNet
    operators of deformable convolutional networks) for the mean.
    """

    semantics: str
    output_size: Pair = (2, 2)
    spatial_scale: float = 1.0
    group_size: Pair = (1, 1)
    samples: int = 0
    offset_scale: float = 0.1
    order: Pair = (0, 0)


@dataclass(frozen=True)
class _Axis:
    """One axis of one box on the map: where it begins, how long it and its bins are."""

    start: Any
    extent: Any
    bin: Any


def _round(number: Any) -> Any:
    """The nearest whole number; halves away from zero, as in C."""
    whole = np.trunc(number)
    return whole + np.copysign(1, number) if abs(number - whole) >= 0.5 else whole


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    try:
        return type(a)(float(exact))
    except OverflowError:
        return type(a)(math.copysign(math.inf, exact))


def _place(pooling: Pooling, low: Any, high: Any, bins: int) -> _Axis:
    """Start and extent from two corners: the formulas of the layers, by name."""
    real = type(low)
    scale, half = real(pooling.spatial_scale), real(0.5)
    if pooling.semantics == "caffe":
        start = _round(low * scale)
        extent = max(_round(high * scale) - start + 1, real(1))
    elif pooling.semantics == "mmcv":
        start = low * scale
        extent = (high + 1) * scale - start
    elif pooling.semantics == "rfcn":
        start = _round(low) * scale
        extent = max((_round(high) + 1) * scale - start, real(0.1))
    elif pooling.semantics == "torchvision":
        start = _round(low * scale)
        extent = max(_round(high * scale) - start, real(1))
    elif pooling.semantics == "aligned":
        start = _fused(low, scale, -half)
        extent = _fused(high, scale, -half) - start
    elif pooling.semantics == "unaligned":
        start = low * scale
        extent = max(high * scale - start, real(1))
    else:
        assert pooling.semantics == "dcn"
        start = _fused(_round(low), scale, -half)
        extent = max(_fused(_round(high) + 1, scale, -half) - start, real(0.1))
    return _Axis(start, extent, extent / real(bins))


def _border(axis: _Axis, number: int, whole_start: bool) -> Any:
    """Where a bin of pixels begins, rounded once; the end of the bin before.

    Layers that round the start to a whole pixel add it after the rounding to whole bins.
    """
    return _fused(axis.bin, number, 0.0 if whole_start else axis.start)


def _pixels(pooling: Pooling, axis: _Axis, number: int, size: int) -> Array:
    """1 for each pixel of the map that a bin touches, 0 elsewhere."""
    whole_start = pooling.semantics in ("caffe", "torchvision")
    shift = axis.start if whole_start else 0
    first = math.floor(_border(axis, number, whole_start)) + shift
    end = math.ceil(_border(axis, number + 1, whole_start)) + shift
    pixel = np.arange(size)
    return 1.0 * ((pixel >= first) & (pixel < end))


def _samples(pooling: Pooling, axis: _Axis, number: int, move: Any) -> list[Any]:
    """The coordinates of a bin's samples."""
    real = type(axis.bin)
    count = pooling.samples if pooling.samples > 0 else max(0, math.ceil(axis.bin))
    centre = real(0) if pooling.semantics == "dcn" else real(0.5)
    corner = _fused(axis.bin, number, axis.start) + move
    return [corner + (real(i) + centre) * axis.bin / real(count) for i in range(count)]


def _read(position: Any, size: int, order: int) -> Array:
    """The weights of all pixels in linear interpolation, or their right derivatives.

    The map goes on outside as its outermost pixels are.
    """
    pixel = np.arange(size)
    inner = min(max(float(position), 0.0), size - 1.0)
    distance = inner - pixel
    if math.isnan(position):
        return np.full(size, np.nan)
    if order == 0:
        return np.maximum(0.0, 1.0 - np.abs(distance))
    if order > 1 or position < 0 or position >= size - 1:
        return np.zeros(size)
    return 1.0 * ((distance >= -1) & (distance < 0)) - 1.0 * ((distance >= 0) & (distance < 1))


def _weights(
    pooling: Pooling, axis: _Axis, number: int, move: Any, size: int, order: int
) -> tuple[Array, int, int]:
    """The sum of the weights of the samples inside; how many these are; how many there could be."""
    margin = 0.5 if pooling.semantics == "dcn" else 1.0
    positions = _samples(pooling, axis, number, move)
    inside = [p for p in positions if not (p < -margin or p > size - 1 + margin)]
    total = np.zeros(size)
    for position in inside:
        total += _read(position, size, order)
    speed = 1.0 if order == 0 else float(type(axis.bin)(pooling.offset_scale) * axis.extent)
    return total * speed, len(inside), len(positions)


def _part(number: int, bins: int, parts: int) -> int:
    """The part, or group, that a bin is in."""
    return number * parts // bins


@dataclass(frozen=True)
class _Bin:
    """A bin of a box, as one class of channels sees it."""

    k: int
    image: int
    i: int
    j: int
    cls: int
    part: Pair
    channels: slice  # of the output
    inputs: slice  # the channels of the input that these are read from


def _bins(pooling: Pooling, boxes: NDArray[Any], offset: Array | None, size: int) -> Iterator[_Bin]:
    """All bins of all boxes, for an input of so many channels."""
    groups = pooling.group_size[0] * pooling.group_size[1]
    parts = (1, 1) if offset is None else offset.shape[2:]
    classes = 1 if offset is None else offset.shape[1] // 2
    per_class = size // groups // classes
    for k, i, j, cls in np.ndindex(len(boxes), *pooling.output_size, classes):
        row, column = (
            _part(number, bins, count)
            for number, bins, count in zip(
                (i, j), pooling.output_size, pooling.group_size, strict=True
            )
        )
        group = row * pooling.group_size[1] + column
        first, end = cls * per_class, (cls + 1) * per_class
        yield _Bin(
            k=k,
            image=int(boxes[k, 0]),
            i=i,
            j=j,
            cls=cls,
            part=(
                _part(i, pooling.output_size[0], parts[0]),
                _part(j, pooling.output_size[1], parts[1]),
            ),
            channels=slice(first, end),
            inputs=slice(first * groups + group, end * groups, groups),
        )


def _placed(pooling: Pooling, box: NDArray[Any]) -> tuple[_Axis, _Axis]:
    """The (vertical, horizontal) axis of a box."""
    _, x1, y1, x2, y2 = box
    with np.errstate(over="ignore", invalid="ignore"):
        return (
            _place(pooling, y1, y2, pooling.output_size[0]),
            _place(pooling, x1, x2, pooling.output_size[1]),
        )


def _moves(
    pooling: Pooling, axes: tuple[_Axis, _Axis], offset: Array | None, where: _Bin
) -> list[Any]:
    """How far a bin moves on each axis.

    Channel 2c of the offset moves along x, 2c + 1 along y, in parts of the box's extent.
    """
    real = type(axes[0].bin)
    if offset is None:
        return [real(0), real(0)]
    part_y, part_x = where.part
    down, right = 2 * where.cls + 1, 2 * where.cls
    return [
        real(offset[where.k, channel, part_y, part_x]) * (real(pooling.offset_scale) * axis.extent)
        for channel, axis in zip((down, right), axes, strict=True)
    ]


def sample_points(
    boxes: NDArray[Any], offset: Array | None, pooling: Pooling, channels: int
) -> Iterator[tuple[list[Any], list[Any]]]:
    """For each bin the (y, x) coordinates of its samples, for an input of so many channels."""
    for where in _bins(pooling, boxes, offset, channels):
        axes = _placed(pooling, boxes[where.k])
        move_y, move_x = _moves(pooling, axes, offset, where)
        yield (
            _samples(pooling, axes[0], where.i, move_y),
            _samples(pooling, axes[1], where.j, move_x),
        )


def _matrix(
    pooling: Pooling,
    box: NDArray[Any],
    offset: Array | None,
    where: _Bin,
    input_size: Pair,
    order: Pair,
) -> Array | None:
    """What a mean weighs each pixel of the map by, [H, W]; None where the result is NaN."""
    if np.isnan(box).any():
        return None
    nothing = np.zeros(input_size)
    if np.isinf(box).any():
        return nothing
    vertical, horizontal = axes = _placed(pooling, box)
    if not all(np.isfinite(axis.start) and np.isfinite(axis.extent) for axis in axes):
        return nothing
    if pooling.semantics in PIXELS:
        if vertical.extent <= 0 or horizontal.extent <= 0:
            return nothing
        rows = _pixels(pooling, vertical, where.i, input_size[0])
        columns = _pixels(pooling, horizontal, where.j, input_size[1])
        return np.outer(rows, columns) / max(1.0, rows.sum() * columns.sum())
    move_y, move_x = _moves(pooling, axes, offset, where)
    rows, inside_y, most_y = _weights(pooling, vertical, where.i, move_y, input_size[0], order[0])
    columns, inside_x, most_x = _weights(
        pooling, horizontal, where.j, move_x, input_size[1], order[1]
    )
    if inside_y * inside_x == 0:
        return nothing
    if np.isnan(rows).any() or np.isnan(columns).any():
        return None
    count = inside_y * inside_x if pooling.semantics == "dcn" else most_y * most_x
    return np.outer(rows, columns) / max(1, count)


def roi_average(input: Array, boxes: NDArray[Any], offset: Array | None, pooling: Pooling) -> Array:
    """The mean of what each bin looks at: input ``[N, C, H, W]``, boxes ``[K, 5]`` (image, x1, y1,
    x2, y2), offset ``[K, 2 * classes, part_y, part_x]`` to ``[K, C / groups, pooled_y, pooled_x]``.
    """
    groups = pooling.group_size[0] * pooling.group_size[1]
    output = np.zeros((len(boxes), input.shape[1] // groups, *pooling.output_size))
    size = (input.shape[2], input.shape[3])
    for where in _bins(pooling, boxes, offset, input.shape[1]):
        weights = _matrix(pooling, boxes[where.k], offset, where, size, pooling.order)
        values = np.nan if weights is None else _sum(weights, input[where.image, where.inputs])
        output[where.k, where.channels, where.i, where.j] = values
    return output


def _sum(weights: Array, images: Array) -> Array:
    """<weights, image> for each of the images, of the pixels that have weight."""
    read = np.where(weights != 0, images, 0.0)
    result: Array = (weights * read).sum((-2, -1))
    return result


def roi_average_backward(
    grad_output: Array,
    input: Array,
    boxes: NDArray[Any],
    offset: Array | None,
    pooling: Pooling,
) -> tuple[Array, Array | None]:
    """Gradients of ``input`` and ``offset``: the transpose, and the mean one order higher."""
    grad_input = np.zeros_like(input)
    grad_offset = None if offset is None else np.zeros_like(offset)
    size = (input.shape[2], input.shape[3])
    for where in _bins(pooling, boxes, offset, input.shape[1]):
        grad = grad_output[where.k, where.channels, where.i, where.j]
        weights = _matrix(pooling, boxes[where.k], offset, where, size, pooling.order)
        if weights is not None:
            grad_input[where.image, where.inputs] += grad[:, None, None] * weights
        if grad_offset is None:
            continue
        for axis in (0, 1):
            order = (pooling.order[0] + (axis == 0), pooling.order[1] + (axis == 1))
            slope = _matrix(pooling, boxes[where.k], offset, where, size, order)
            place = (where.k, 2 * where.cls + 1 - axis, *where.part)
            if slope is None:
                grad_offset[place] = np.nan
            else:
                grad_offset[place] += (grad * _sum(slope, input[where.image, where.inputs])).sum()
    return grad_input, grad_offset


def roi_pool(
    input: Array, boxes: NDArray[Any], pooling: Pooling
) -> tuple[Array, NDArray[np.int64]]:
    """The largest pixel of each bin, and which that is: ``y * W + x`` of the first one.

    A bin without pixels is 0 and has no such pixel (-1), a box of NaN is NaN and has none; one NaN
    pixel makes the bin NaN.
    """
    height, width = input.shape[2:]
    output = np.zeros((len(boxes), input.shape[1], *pooling.output_size))
    index = np.full(output.shape, -1)
    for where in _bins(pooling, boxes, None, input.shape[1]):
        weights = _matrix(pooling, boxes[where.k], None, where, (height, width), (0, 0))
        for c in range(input.shape[1]):
            place = (where.k, c, where.i, where.j)
            if weights is None:
                output[place] = np.nan
                continue
            best = -1
            for y, x in np.argwhere(weights > 0):
                value = input[where.image, c, y, x]
                largest = input[where.image, c].flat[best] if best >= 0 else -np.inf
                if best < 0 or value > largest or (np.isnan(value) and not np.isnan(largest)):
                    best = y * width + x
            if best >= 0:
                output[place], index[place] = input[where.image, c].flat[best], best
    return output, index


def gather_maxima(input: Array, boxes: NDArray[Any], index: NDArray[np.int64]) -> Array:
    """The pixels that the index names, 0 where it is -1."""
    output = np.zeros(index.shape)
    for place in np.ndindex(*index.shape):
        if index[place] >= 0:
            output[place] = input[int(boxes[place[0], 0]), place[1]].flat[index[place]]
    return output


def scatter_maxima(
    grad_output: Array, boxes: NDArray[Any], index: NDArray[np.int64], input_size: tuple[int, ...]
) -> Array:
    """The transpose of :func:`gather_maxima`."""
    grad_input = np.zeros(input_size)
    for place in np.ndindex(*index.shape):
        if index[place] >= 0:
            grad_input[int(boxes[place[0], 0]), place[1]].flat[index[place]] += grad_output[place]
    return grad_input
