"""The small problems of RoI pooling for `deformops check`.

The references are dense: for each bin the weights of all rows and all columns of the map, so that
no index is computed as a kernel would compute it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from deformops.cli.case import Case

_IMAGES, _CHANNELS, _SIZE = 2, 2, (5, 6)
_BINS, _GROUPS, _SAMPLES = 2, 2, 2
_SCALE, _OFFSET_SCALE = 0.5, 0.25
# Two boxes of 8 x 8 pixels for each image, one of them across a border: 4 x 4 on the map.
_CORNERS = [[0.0, 1, 2, 8, 9], [0, -3, 1, 4, 8], [1, 0, 3, 7, 10], [1, 6, -2, 13, 5]]
_PER_IMAGE = 2


def roi_cases(ops: Any, device: str) -> list[Case]:
    """The cases for the ops in a namespace and tensors on a device."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)

    def drawn_offset(*shape: int) -> Tensor:
        # An offset of 1 is a pixel here, and samples in place are on multiples of half a pixel: so
        # these are between all pixels and all borders, where nothing has a kink.
        whole = torch.randint(-2, 2, shape, generator=generator)
        part = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (whole + 0.1 + 0.3 * part).to(device)

    boxes = torch.tensor(_CORNERS, dtype=torch.float64, device=device)
    count = len(boxes)
    plain, grouped = (random(_IMAGES, _CHANNELS * n, *_SIZE) for n in (1, _GROUPS**2))
    grad_output = random(count, _CHANNELS, _BINS, _BINS)
    offset, classes = drawn_offset(count, 2, _BINS, _BINS), drawn_offset(count, 4, 1, _BINS)
    maxima = ([_BINS] * 2, _SCALE, "caffe")
    index = _index(plain, boxes)

    def rows(tensor: Tensor, count: int) -> Tensor:
        """The boxes of so many images, in the type that goes with a tensor."""
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return boxes[:count].to(dtype)

    def pooled(input: Tensor) -> Tensor:
        of_images = rows(input, _PER_IMAGE * input.shape[0])
        result: Tensor = ops.roi_pool(input, of_images, *maxima, want_index=False)[0]
        return result

    def gathered(input: Tensor) -> Tensor:
        size = _PER_IMAGE * input.shape[0]
        result: Tensor = ops.gather_maxima(input, rows(input, size), index[:size])
        return result

    def scattered(grad_output: Tensor) -> Tensor:
        size = grad_output.shape[0]
        shape = [size // _PER_IMAGE, _CHANNELS, *_SIZE]
        result: Tensor = ops.scatter_maxima(
            grad_output, rows(grad_output, size), index[:size], shape
        )
        return result

    def averaged(input: Tensor, offset: Tensor | None = None, *, bins: Any) -> Tensor:
        of_images = rows(input, _PER_IMAGE * input.shape[0])
        result: Tensor = ops.roi_average(input, of_images, offset, *bins)
        return result

    def average(name: str, semantics: str, input: Tensor, offset: Tensor | None = None) -> Case:
        groups = _GROUPS if input is grouped else 1
        inputs = (input,) if offset is None else (input, offset)
        bins = _bins(semantics, groups)
        return Case(
            name,
            partial(averaged, bins=bins),
            partial(_average, boxes, semantics, groups),
            inputs,
            tuple(range(len(inputs))),
            [(ops.roi_average.default, (input, boxes, offset, *bins))],
        )

    backward = (grad_output, grouped, boxes, classes, *_bins("dcn", _GROUPS), [True, True])

    def backward_as_one(grad_output: Tensor, input: Tensor, offset: Tensor) -> Tensor:
        tensors = (grad_output, input, rows(input, count), offset)
        gradients = ops.roi_average_backward(*tensors, *_bins("dcn", _GROUPS), [True, True])
        return torch.cat([gradient.flatten() for gradient in gradients])

    return [
        Case(
            "roi_pool",
            pooled,
            partial(_maximum, boxes),
            (plain,),
            (0,),
            [(ops.roi_pool.default, (plain, boxes, *maxima))],
        ),
        Case(
            "gather_maxima",
            gathered,
            partial(_gather, boxes, index),
            (plain,),
            (0,),
            [(ops.gather_maxima.default, (plain, boxes, index))],
        ),
        Case(
            "scatter_maxima",
            scattered,
            partial(_scatter, boxes, index),
            (grad_output,),
            (0,),
            [(ops.scatter_maxima.default, (grad_output, boxes, index, plain.shape))],
        ),
        average("roi_align", "aligned", plain),
        average("ps_roi_align", "aligned", grouped),
        average("ps_roi_pool", "rfcn", grouped),
        average("deform_roi_pool", "dcn", plain, offset),
        average("deform_ps_roi_pool", "dcn", grouped, classes),
        Case(
            "roi_average_backward",
            backward_as_one,
            partial(_average_backward, boxes),
            (grad_output, grouped, classes),
            (),
            [(ops.roi_average_backward.default, backward)],
        ),
    ]


def _bins(semantics: str, groups: int) -> tuple[Any, ...]:
    """The arguments of `roi_average` behind its tensors."""
    samples = 0 if semantics == "rfcn" else _SAMPLES
    return [_BINS] * 2, _SCALE, semantics, [groups] * 2, samples, _OFFSET_SCALE, [0, 0]


def _axes(boxes: Tensor) -> list[tuple[Tensor, Tensor, int]]:
    """For y and x the first and last pixel of each box, and the size of the map."""
    return [(boxes[:, 2], boxes[:, 4], _SIZE[0]), (boxes[:, 1], boxes[:, 3], _SIZE[1])]


def _pixels(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Which pixels of an axis each bin touches, [K, bins, size]."""
    edges = start[:, None] + extent[:, None] * torch.arange(_BINS + 1).to(start) / _BINS
    pixel = torch.arange(size).to(start)
    first, end = edges[:, :-1, None].floor(), edges[:, 1:, None].ceil()
    return ((pixel >= first) & (pixel < end)).to(start)


def _maximum(boxes: Tensor, input: Tensor) -> Tensor:
    """Of Fast R-CNN: corners rounded on the map, both ends in the box."""
    parts = []
    for low, high, size in _axes(boxes):
        start = _round(low * _SCALE)
        parts.append(_pixels(start, (_round(high * _SCALE) - start + 1).clamp(min=1), size))
    inside = parts[0][:, :, None, :, None] * parts[1][:, None, :, None, :] > 0
    images = input[boxes[:, 0].long()][:, :, None, None]
    return torch.where(inside[:, None], images, -torch.inf).amax((-2, -1))


def _round(numbers: Tensor) -> Tensor:
    """Halves away from zero."""
    return (numbers.abs() + 0.5).floor() * numbers.sign()


def _index(input: Tensor, boxes: Tensor) -> Tensor:
    """The pixel that is each bin's largest: no number comes twice."""
    largest = _maximum(boxes, input)[..., None]
    pixels = input[boxes[:, 0].long()].flatten(2)[:, :, None, None]
    return (pixels == largest).int().argmax(-1).int()


def _one_hot(index: Tensor) -> Tensor:
    """[K, C, bins, bins, H, W]."""
    pixels = torch.arange(_SIZE[0] * _SIZE[1], device=index.device)
    return (pixels == index[..., None]).double().unflatten(-1, _SIZE)


def _gather(boxes: Tensor, index: Tensor, input: Tensor) -> Tensor:
    return torch.einsum("kcyx,kcpqyx->kcpq", input[boxes[:, 0].long()], _one_hot(index))


def _scatter(boxes: Tensor, index: Tensor, grad_output: Tensor) -> Tensor:
    images = (boxes[:, :1] == torch.arange(_IMAGES).to(boxes)).double()
    return torch.einsum("kcpq,kcpqyx,kn->ncyx", grad_output, _one_hot(index), images)


def _moves(offset: Tensor | None, channels: int) -> list[Tensor | None]:
    """How far each bin moves in y and x, [K, C, bins, bins]; an offset of 1 is a pixel here."""
    if offset is None:
        return [None, None]
    spread = offset.repeat_interleave(_BINS // offset.shape[2], 2)
    spread = spread.repeat_interleave(_BINS // offset.shape[3], 3)
    return [
        spread[:, axis::2].repeat_interleave(2 * channels // offset.shape[1], 1) for axis in (1, 0)
    ]


def _samples(
    semantics: str, low: Tensor, high: Tensor, size: int, move: Tensor | None, dim: int
) -> tuple[Tensor, Tensor]:
    """The sum of the hats of a bin's samples, [K, C or 1, bins, bins, size], and their number."""
    if semantics == "dcn":
        start, end = _round(low) * _SCALE - 0.5, (_round(high) + 1) * _SCALE - 0.5
        within, margin = torch.arange(_SAMPLES).to(low) / _SAMPLES, 0.5
    else:
        start, end = low * _SCALE - 0.5, high * _SCALE - 0.5
        within, margin = (torch.arange(_SAMPLES).to(low) + 0.5) / _SAMPLES, 1.0
    numbers = torch.arange(_BINS).to(low)[:, None] + within
    points = start[:, None, None] + (end - start)[:, None, None] / _BINS * numbers
    points = points[:, None, :, None] if dim == 0 else points[:, None, None]
    if move is not None:
        points = points + move[..., None]
    inside = ((points >= -margin) & (points <= size - 1 + margin)).to(low)
    pixel = torch.arange(size).to(low)
    hats = (1 - (points.clamp(0, size - 1)[..., None] - pixel).abs()).clamp(min=0)
    count = inside.sum(-1) if semantics == "dcn" else torch.full_like(inside.sum(-1), _SAMPLES)
    return (hats * inside[..., None]).sum(-2), count


def _average(
    boxes: Tensor, semantics: str, groups: int, input: Tensor, offset: Tensor | None = None
) -> Tensor:
    group = torch.arange(_BINS) * groups // _BINS
    images = input.unflatten(1, (-1, groups, groups))[boxes[:, 0].long()]
    images = images[:, :, group[:, None], group]  # [K, C, bins, bins, H, W]
    weights, total = [], torch.ones((), dtype=input.dtype, device=input.device)
    moves = _moves(offset, images.shape[1])
    for dim, ((low, high, size), move) in enumerate(zip(_axes(boxes), moves, strict=True)):
        if semantics == "rfcn":
            start = _round(low) * _SCALE
            of_axis = _pixels(start, (_round(high) + 1) * _SCALE - start, size)
            of_axis = of_axis[:, None, :, None] if dim == 0 else of_axis[:, None, None]
            count = of_axis.sum(-1)
        else:
            of_axis, count = _samples(semantics, low, high, size, move, dim)
        shape = (len(boxes), images.shape[1], _BINS, _BINS)
        weights.append(of_axis.expand(*shape, size))
        total = total * count
    sums = torch.einsum("kcpqyx,kcpqy,kcpqx->kcpq", images, *weights)
    return sums / total.clamp(min=1)


def _average_backward(boxes: Tensor, grad_output: Tensor, input: Tensor, offset: Tensor) -> Tensor:
    leaves = [tensor.detach().requires_grad_() for tensor in (input, offset)]
    with torch.enable_grad():
        output = _average(boxes, "dcn", _GROUPS, *leaves)
        gradients = torch.autograd.grad(output, leaves, grad_output)
    return torch.cat([gradient.flatten() for gradient in gradients])
