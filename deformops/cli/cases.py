"""A small problem for every op, with which `deformops check` asks all that `check_op` can ask.

The references are dense: a matrix of hat functions over all pixels of an axis says what a point
reads, so no index is computed as a kernel would compute it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.cli.case import Case
from deformops.cli.crf_cases import crf_cases
from deformops.cli.roi_cases import roi_cases
from deformops.cli.suppression_cases import suppression_cases
from deformops.ops import atrous_conv2d, insert_holes
from deformops.testing import CHECKS

_BATCH, _CHANNELS, _OUTPUTS, _SIZE = 2, 4, 2, (3, 4)
_KERNEL, _OFFSET_GROUPS = (2, 2), 2
_STRIDE, _PADDING, _DILATION = (1, 2), (1, 2), (2, 1)
_SAMPLING = (_STRIDE, _PADDING, _DILATION, (0, 0), "v2", "inner")
_TAPS = _KERNEL[0] * _KERNEL[1]
# Compositions of torch's own ops have no raw op, and torch decides about their bits and threads.
_COMPOSED = tuple(check for check in CHECKS if check not in ("opcheck", "threads"))


def cases(namespace: str, device: str) -> list[Case]:
    """The cases for the ops in `torch.ops.<namespace>` and tensors on a device."""
    ops = getattr(torch.ops, namespace)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)

    height, width = _output_size()
    input, weight, bias = (
        random(_BATCH, _CHANNELS, *_SIZE),
        random(_OUTPUTS, 2, *_KERNEL),
        random(2),
    )
    columns = random(_BATCH, _CHANNELS, _TAPS, height, width)
    grad_output = random(_BATCH, _OUTPUTS, height, width)
    mask = random(_BATCH, _OFFSET_GROUPS * _TAPS, height, width)
    # Between the pixels, where the hat functions have no kinks.
    shape = (_BATCH, 2 * _OFFSET_GROUPS * _TAPS, height, width)
    whole = torch.randint(-2, 2, shape, generator=generator)
    part = torch.rand(shape, generator=generator, dtype=torch.float64)
    offset = (whole + 0.15 + 0.7 * part).to(device)

    gather = (input, offset, mask, _KERNEL, *_SAMPLING)
    scatter = (columns, offset, mask, _SIZE, _KERNEL, *_SAMPLING)
    contract = (input, columns, offset, _KERNEL, *_SAMPLING, _OFFSET_GROUPS)
    forward = (input, offset, weight, bias, mask, *_SAMPLING)
    backward = (grad_output, input, offset, weight, mask, *_SAMPLING, [True] * 4)

    def backward_as_one(*tensors: Tensor) -> Tensor:
        gradients = ops.deform_conv2d_backward(*tensors, *_SAMPLING, [True] * 4)
        return torch.cat([gradient.flatten() for gradient in gradients])

    result = [
        Case(
            "gather_columns",
            lambda *tensors: ops.gather_columns(*tensors, _KERNEL, *_SAMPLING),
            _gather,
            gather[:3],
            (0, 1, 2),
            [(ops.gather_columns.default, gather)],
        ),
        Case(
            "scatter_columns",
            lambda *tensors: ops.scatter_columns(*tensors, _SIZE, _KERNEL, *_SAMPLING),
            _scatter,
            scatter[:3],
            (0, 1, 2),
            [(ops.scatter_columns.default, scatter)],
        ),
        Case(
            "contract_columns",
            lambda *tensors: ops.contract_columns(*tensors, _KERNEL, *_SAMPLING, _OFFSET_GROUPS),
            _contract,
            contract[:3],
            (0, 1, 2),
            [(ops.contract_columns.default, contract)],
        ),
        Case(
            "deform_conv2d",
            lambda *tensors: ops.deform_conv2d(*tensors, *_SAMPLING),
            _convolve,
            forward[:5],
            (0, 1, 4),
            [(ops.deform_conv2d.default, forward)],
        ),
        Case(
            "deform_conv2d_backward",
            backward_as_one,
            _convolve_backward,
            backward[:5],
            (),
            [(ops.deform_conv2d_backward.default, backward)],
        ),
    ]
    result += roi_cases(ops, device)
    result += suppression_cases(ops, device)
    result += crf_cases(namespace, device)
    if namespace == "deformops":
        result += [
            Case(
                f"atrous_conv2d {algorithm}",
                partial(_atrous, algorithm=algorithm),
                _dilated,
                (input, weight, bias),
                (0,),
                checks=_COMPOSED,
            )
            for algorithm in ("direct", "holes", "subsample", "winograd")
        ]
        result.append(
            Case(
                "insert_holes",
                lambda weight: insert_holes(weight, _DILATION),
                _holes,
                (weight,),
                (0,),
                checks=_COMPOSED,
            )
        )
    return result


def _atrous(input: Tensor, weight: Tensor, bias: Tensor, *, algorithm: Any) -> Tensor:
    return atrous_conv2d(
        input, weight, bias, _STRIDE, _PADDING, _DILATION, groups=2, algorithm=algorithm
    )


def _dilated(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(input, weight, bias, _STRIDE, _PADDING, _DILATION, groups=2)


def _output_size() -> tuple[int, int]:
    height, width = (
        (_SIZE[axis] + 2 * _PADDING[axis] - _DILATION[axis] * (_KERNEL[axis] - 1) - 1)
        // _STRIDE[axis]
        + 1
        for axis in (0, 1)
    )
    return height, width


def _read(offset: Tensor) -> tuple[Tensor, Tensor]:
    """What every point reads of each row and column: [N, G, K, oH, oW, H] and [..., W]."""
    height, width = offset.shape[2:]
    moves = offset.unflatten(1, (-1, _KERNEL[0], _KERNEL[1], 2))
    numbers = partial(torch.arange, device=offset.device)
    rows = numbers(height) * _STRIDE[0] - _PADDING[0] + numbers(_KERNEL[0])[:, None] * _DILATION[0]
    cols = numbers(width) * _STRIDE[1] - _PADDING[1] + numbers(_KERNEL[1])[:, None] * _DILATION[1]
    y = (moves[:, :, :, :, 0] + rows[:, None, :, None]).flatten(2, 3)
    x = (moves[:, :, :, :, 1] + cols[None, :, None, :]).flatten(2, 3)
    pixels = numbers(_SIZE[0]), numbers(_SIZE[1])
    hats = [
        (1 - (p[..., None] - i).abs()).clamp(min=0) for p, i in zip((y, x), pixels, strict=True)
    ]
    return hats[0], hats[1]


def _samples(input: Tensor, offset: Tensor) -> Tensor:
    """[N, G, C / G, K, oH, oW]."""
    image = input.unflatten(1, (_OFFSET_GROUPS, -1))
    return torch.einsum("ngcyx,ngkpqy,ngkpqx->ngckpq", image, *_read(offset))


def _by_tap(mask: Tensor) -> Tensor:
    """[N, G, 1, K, oH, oW]."""
    return mask.unflatten(1, (_OFFSET_GROUPS, 1, -1))


def _gather(input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    return (_samples(input, offset) * _by_tap(mask)).flatten(1, 2)


def _scatter(columns: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    weighed = columns.unflatten(1, (_OFFSET_GROUPS, -1)) * _by_tap(mask)
    return torch.einsum("ngckpq,ngkpqy,ngkpqx->ngcyx", weighed, *_read(offset)).flatten(1, 2)


def _contract(input: Tensor, columns: Tensor, offset: Tensor) -> Tensor:
    products = _samples(input, offset) * columns.unflatten(1, (_OFFSET_GROUPS, -1))
    return products.sum(2).flatten(1, 2)


def _convolve(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor
) -> Tensor:
    groups = input.shape[1] // weight.shape[1]
    columns = _gather(input, offset, mask).unflatten(1, (groups, -1))
    kernels = weight.flatten(2).unflatten(0, (groups, -1))
    output = torch.einsum("ngckpq,gock->ngopq", columns, kernels).flatten(1, 2)
    return output if bias is None else output + bias[:, None, None]


def _convolve_backward(
    grad_output: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor
) -> Tensor:
    leaves = [tensor.detach().requires_grad_() for tensor in (input, offset, weight, mask)]
    with torch.enable_grad():
        output = _convolve(leaves[0], leaves[1], leaves[2], None, leaves[3])
        gradients = torch.autograd.grad(output, leaves, grad_output)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _holes(weight: Tensor) -> Tensor:
    spread = [torch.zeros(_KERNEL[axis], 0) for axis in (0, 1)]
    for axis, (taps, rate) in enumerate(zip(_KERNEL, _DILATION, strict=True)):
        spread[axis] = torch.eye((taps - 1) * rate + 1)[::rate]
    rows, cols = (matrix.to(weight) for matrix in spread)
    return torch.einsum("ocij,iy,jx->ocyx", weight, rows, cols)
