"""atrous_conv2d: convolution with holes, by any of four algorithms with equal results."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from deformops.ops._checks import Checks
from deformops.ops._convolution import check_bias, check_kernel
from deformops.ops._layout import is_channels_last
from deformops.ops._sampling import Sampling, pair
from deformops.ops.insert_holes import insert_holes

ALGORITHMS = ("auto", "direct", "holes", "subsample", "winograd")

# Channels, in and out, from which on our own kernel, a conversion of layout and Winograd's
# algorithm pay; the last with so many tiles of an image and so many times fewer products.
_OWN_KERNEL_FROM, _CONVERSION_FROM, _WINOGRAD_FROM = 64, 128, 128
_WINOGRAD_TILES, _WINOGRAD_GAIN = 32, 1.8
# Input channels for each output channel, up to which transforming pixels pays with many threads.
_WINOGRAD_MOST_INPUT = 4


def atrous_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    algorithm: Literal["auto", "direct", "holes", "subsample", "winograd"] = "auto",
) -> Tensor:
    """Convolves with taps that are `dilation` pixels apart.

        output[n, o, y, x] = bias[o] + sum over c, i, j of weight[o, c, i, j]
            * input[n, c, y * stride - padding + i * dilation, x * stride - padding + j * dilation]

    A window of k taps sees (k - 1) * dilation + 1 pixels at the cost of k. The algorithms give the
    same result, up to rounding:

    - "direct": torch's dilated convolution. In eager mode on a CPU, float32 without groups: our own
      kernel where it is faster, with at least 64 channels in and out, on a contiguous input or
      where three taps of ten fall into the padding; and each gradient in its fastest layout;
    - "holes": a dense convolution with the kernel of `insert_holes`, whose zeros it multiplies too;
    - "subsample": the input is dealt into dilation_y * dilation_x interleaved maps, a dense
      convolution with the small kernel runs on all of them, and their results are dealt back
      (inside `torch.compile` it is "direct");
    - "winograd": of the same interleaved maps, tiles of 3x3 or 4x4 outputs with 25 or 36
      multiplications instead of 81 or 144. In eager mode on a CPU, for 3x3 taps of stride 1; it is
      "direct" elsewhere. Its rounding errors are larger, in float32 about 8 times (2 to 3e-6 of
      the largest output instead of 3e-7), and relative to the largest pixels of a tile, which an
      output need not see: ask for "direct" where single pixels are a thousand times the others. If
      a pixel, a weight or an intermediate result is not finite, all is computed again by our own
      direct kernel: the outputs that see it are those of "direct";
    - "auto": the fastest. That is "winograd" on a CPU in float32 without groups, with at least 128
      channels in and out, at most 4 in for each out, at least 32 tiles in an image and at least
      1.8 times fewer products (dilations that leave each interleaved map 3 pixels or more); else
      "direct".

    Args:
        input: [N, C, H, W].
        weight: [O, C / groups, kH, kW].
        bias: [O].
        stride: pixels from one window to the next, one number or (y, x).
        padding: zeros around the input.
        dilation: the rate, pixels from one tap to the next.
        groups: output channels in group g see the input channels in group g.
        algorithm: see above.

    Returns:
        [N, O, oH, oW], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit; the message names it.
        TypeError: an argument has the wrong type, or the tensors have different types.

    Example:
        >>> image = torch.arange(25.0).reshape(1, 1, 5, 5)
        >>> deformops.atrous_conv2d(image, torch.ones(1, 1, 2, 2), dilation=3)
        tensor([[[[36., 40.],
                  [56., 60.]]]])

    Source: Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully
    Connected CRFs (2015).
    """
    sampling = Sampling(
        pair("stride", stride), pair("padding", padding), pair("dilation", dilation)
    )
    checks = Checks("atrous_conv2d")
    checks.choice("algorithm", algorithm, ALGORITHMS)
    checks.integer("groups", groups)
    checks.tensor("input", input, "[N, C, H, W]")
    # Torch would convolve an input with the shape of a weight that is on the meta device.
    for name, tensor in (("weight", weight), ("bias", bias)):
        if isinstance(tensor, Tensor):
            checks.device(name, tensor, "input", input)
    try:
        if algorithm == "holes":
            dense = insert_holes(weight, sampling.dilation)
            return F.conv2d(input, dense, bias, sampling.stride, sampling.padding, 1, groups)
        # Of interleaved maps, whose sizes are floor divisions, a compiler with dynamic shapes can
        # prove nothing; the result is the same.
        if algorithm == "subsample" and not torch.compiler.is_compiling():
            return _subsample(input, weight, bias, sampling, groups)
        if _takes_winograd(algorithm, input, weight, sampling, groups):
            return _EachPassFastest.apply(input, weight, bias, sampling, groups, True)
        return _direct(input, weight, bias, sampling, groups)
    except (RuntimeError, TypeError):
        check_kernel(checks, input, weight, groups)
        check_bias(checks, bias, weight)
        checks.window(input.shape[2:], weight.shape[2:], sampling)
        raise


def _direct(
    input: Tensor, weight: Tensor, bias: Tensor | None, sampling: Sampling, groups: int
) -> Tensor:
    """The convolution of torch; in eager mode on a CPU, each pass as it is fastest."""
    if (
        _runs_alone(input)
        and groups == 1
        and input.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
    ):
        return _EachPassFastest.apply(input, weight, bias, sampling, groups, False)
    geometry = (sampling.stride, sampling.padding, sampling.dilation)
    return F.conv2d(input, weight, bias, *geometry, groups)


def _runs_alone(input: Tensor) -> bool:
    """Whether nobody looks on but autograd: in eager mode on a CPU."""
    return (
        not torch.compiler.is_compiling()
        and input.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def _subsample(
    input: Tensor, weight: Tensor, bias: Tensor | None, sampling: Sampling, groups: int
) -> Tensor:
    """Deals the input into interleaved maps, convolves them densely, deals the results back.

    Output y reads the padded input at y * stride + tap * rate. Outputs that are `period` apart,
    with period * stride a multiple of the rate, read the same of the interleaved maps.
    """
    output_size = sampling.output_size(input.shape[2:], weight.shape[2:])
    top, left = sampling.padding
    maps = F.pad(input, (left, left, top, top))
    periods, steps, lengths = [], [], []
    for axis in (0, 1):
        stride, rate, taps = sampling.stride[axis], sampling.dilation[axis], weight.shape[2 + axis]
        common = math.gcd(stride, rate)
        period, step = rate // common, stride // common
        count = -(-output_size[axis] // period)
        length = (count - 1) * step + taps
        first = torch.arange(period, device=input.device) * stride
        places = first[:, None] + torch.arange(length, device=input.device) * rate
        missing = (period - 1) * stride + (length - 1) * rate + 1 - maps.shape[2 + axis]
        maps = F.pad(maps, (0, 0, 0, missing) if axis == 0 else (0, missing))
        maps = maps.index_select(2 + axis, places.flatten())
        periods.append(period)
        steps.append(step)
        lengths.append(length)

    batch, channels = input.shape[:2]
    # [N, C, pY, lY, pX, lX]: p counts the maps, l their pixels.
    dealt = maps.reshape(batch, channels, periods[0], lengths[0], periods[1], lengths[1])
    dealt = dealt.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    small = F.conv2d(dealt, weight, bias, steps, 0, 1, groups)
    # [N, pY, pX, O, mY, mX] -> [N, O, mY, pY, mX, pX]
    small = small.unflatten(0, (batch, *periods)).permute(0, 3, 4, 1, 5, 2)
    output = small.flatten(4, 5).flatten(2, 3)[..., : output_size[0], : output_size[1]]
    layout = torch.channels_last if is_channels_last(input) else torch.contiguous_format
    return output.contiguous(memory_format=layout)


def _takes_winograd(
    algorithm: str, input: Tensor, weight: Tensor, sampling: Sampling, groups: int
) -> bool:
    """Whether Winograd's algorithm is asked for and can be had, or pays."""
    fits = isinstance(weight, Tensor) and weight.shape[2:] == (3, 3) and sampling.stride == (1, 1)
    if not fits or algorithm not in ("auto", "winograd") or not _runs_alone(input):
        return False
    return algorithm == "winograd" or (groups == 1 and _winograd_pays(input, weight, sampling))


def _winograd_pays(input: Tensor, weight: Tensor, sampling: Sampling) -> bool:
    """Whether 3x3 taps of stride 1 are faster by Winograd's algorithm, as measured.

    See `python -m benchmarks atrous_conv`. The transforms take their time per channel, those of the
    weights in each call, however few tiles they are used for.
    """
    if input.dtype != torch.float32 or weight.shape[1] != input.shape[1]:
        return False
    out_channels, channels = weight.shape[:2]
    if min(out_channels, channels) < _WINOGRAD_FROM:
        return False
    if channels > _WINOGRAD_MOST_INPUT * out_channels:
        return False
    sizes = sampling.output_size(input.shape[2:], weight.shape[2:])
    if min(*sizes, *sampling.dilation) < 1:
        return False
    tiles: dict[int, int] = {}
    for side in (3, 4):
        tiles[side] = 1
        for size, rate in zip(sizes, sampling.dilation, strict=True):
            cells, rest = divmod(size, side * rate)
            tiles[side] *= cells * rate + min(rest, rate)
    side = min(tiles, key=lambda side: tiles[side] * (side + 2) ** 2)
    taps = 9 * sizes[0] * sizes[1] * _inside(input, weight, sampling)
    fewer = taps >= _WINOGRAD_GAIN * tiles[side] * (side + 2) ** 2
    return fewer and tiles[side] >= _WINOGRAD_TILES


class _EachPassFastest(torch.autograd.Function):
    """A convolution on the CPU, each pass by the kernel and in the memory layout that is fastest.

    As measured (see `python -m benchmarks atrous_conv`): with many channels our own kernel of
    regular taps is as fast on a contiguous input as torch's is on channels_last, and faster where
    many taps fall into the padding; by Winograd's algorithm, where that is asked for, it is faster
    still. The gradients are torch's: grad_input is faster in channels_last where many taps fall
    into the padding, grad_weight is up to twice as fast in contiguous format. What comes out has
    the layout of the input.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sampling: Sampling,
        groups: int,
        winograd: bool,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = (sampling.stride, sampling.padding, sampling.dilation)
        ctx.groups = groups
        ctx.converts = False
        ours = winograd
        fits = weight.dim() == 4 and weight.shape[1] == input.shape[1]
        channels = min(weight.shape[:2]) if fits else 0
        if channels >= _OWN_KERNEL_FROM:
            contiguous = not is_channels_last(input)
            far = _inside(input, weight, sampling) < 0.7
            ctx.converts = contiguous and far and channels >= _CONVERSION_FROM
            ours = winograd or contiguous or far
        if not ours:
            return F.conv2d(input, weight, bias, *ctx.geometry)
        return torch.ops.deformops.deform_conv2d(
            input, None, weight, bias, None, *sampling, allow_winograd=winograd
        )

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]

        def gradients(layout: torch.memory_format, input: Tensor, weight: Tensor, i: int) -> Any:
            return torch.ops.aten.convolution_backward(
                grad_output.contiguous(memory_format=layout),
                input,
                weight,
                None,
                *ctx.geometry,
                False,
                [0, 0],
                ctx.groups,
                [index == i for index in range(3)],
            )[i]

        grad_input = grad_weight = grad_bias = None
        if needs_input:
            fast = ctx.converts or is_channels_last(input)
            layout = torch.channels_last if fast else torch.contiguous_format
            kernel = weight.contiguous(memory_format=layout)
            grad_input = gradients(layout, _only_layout(input, layout), kernel, 0)
            grad_input = grad_input.contiguous() if ctx.converts else grad_input
        if needs_weight:
            layout = torch.contiguous_format
            grad_weight = gradients(layout, input.contiguous(), _only_layout(weight, layout), 1)
        if needs_bias:
            grad_bias = grad_output.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias, None, None, None


def _only_layout(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """A tensor in the given layout whose numbers nobody reads but a graph of derivatives."""
    if torch.is_grad_enabled() or tensor.is_contiguous(memory_format=layout):
        return tensor.contiguous(memory_format=layout)
    return torch.empty_like(tensor, memory_format=layout)


def _inside(input: Tensor, weight: Tensor, sampling: Sampling) -> float:
    """The part of all taps that reads a pixel and not the padding."""
    part = 1.0
    sizes = sampling.output_size(input.shape[2:], weight.shape[2:])
    for axis, outputs in enumerate(sizes):
        stride, padding, rate = (numbers[axis] for numbers in sampling[:3])
        size, taps = input.shape[2 + axis], weight.shape[2 + axis]
        inside = 0
        for tap in range(taps):
            first = padding - tap * rate
            low, high = max(0, -(-first // stride)), min(outputs, (size - 1 + first) // stride + 1)
            inside += max(0, high - low)
        part *= inside / max(1, outputs * taps)
    return part
