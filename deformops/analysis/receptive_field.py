"""The receptive field of a stack of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deformops.analysis.windows import Layers, Pair, windows_of


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the input that one output of a stack depends on; every entry is (y, x).

    Output ``p`` depends on the input pixels from ``start + p * stride`` to that plus ``size - 1``.
    """

    size: Pair
    stride: Pair
    start: Pair

    def box(self, position: Pair) -> tuple[int, int, int, int]:
        """Returns the first and last input pixel of an output: (top, left, bottom, right).

        They may lie outside the input: in the padding.
        """
        top, left = (
            start + p * stride
            for start, p, stride in zip(self.start, position, self.stride, strict=True)
        )
        return top, left, top + self.size[0] - 1, left + self.size[1] - 1

    def center(self, position: Pair) -> tuple[float, float]:
        """Returns the centre of an output's receptive field, in pixels of the input."""
        top, left, bottom, right = self.box(position)
        return (top + bottom) / 2, (left + right) / 2


def receptive_field(layers: Layers) -> ReceptiveField:
    """Computes the receptive field of a stack of layers: what an output can depend on.

    With kernel size k, stride s, padding p and dilation d of layer l, counted from the input, and
    the jump J_l = s_1 * ... * s_{l-1}:

        size   = 1 + sum over l of (k_l - 1) * d_l * J_l
        stride = s_1 * ... * s_L
        start  = - sum over l of p_l * J_l

    Not to be confused with DeepLab's `field_of_view`. What weighs something within this field is
    `effective_receptive_field`. For networks that branch, or resize, see `trace_receptive_fields`.

    Args:
        layers: layers of torch or of this package, or `Window`s, from the input to the output: a
            module, or several; an empty stack sees the pixel itself. See `windows_of`.

    Returns:
        Size, stride and start in pixels of the input.

    Raises:
        TypeError: a layer has no window that is the same at every place.

    Example:
        >>> conv = Window(3, padding=1)
        >>> receptive_field([conv, conv, Window(2, stride=2), conv]).size
        (10, 10)
        >>> receptive_field(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())).size
        (3, 3)

    Source: Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks,
    Distill, 2019.
    """
    sizes, strides, starts = [], [], []
    windows = windows_of(layers)
    for axis in (0, 1):
        size, jump, start = 1, 1, 0
        for window in windows:
            kernel, stride, padding, dilation = window.axis(axis)
            size += (kernel - 1) * dilation * jump
            start -= padding * jump
            jump *= stride
        sizes.append(size)
        strides.append(jump)
        starts.append(start)
    return ReceptiveField((sizes[0], sizes[1]), (strides[0], strides[1]), (starts[0], starts[1]))


def uniform_std(layers: Layers) -> tuple[float, float]:
    """Computes how wide the effective receptive field of a stack is if all weights are equal.

    The gradient of an output of averaging layers is a convolution of boxes, whose variances add up:

        variance = sum over l of J_l^2 * d_l^2 * (k_l^2 - 1) / 12

    in the notation of `receptive_field`: 2 n / 3 for n layers of 3x3. So this width grows as the
    square root of the depth, while the receptive field grows as the depth itself.

    Args:
        layers: as for `receptive_field`.

    Returns:
        The standard deviation on y and on x, in pixels of the input.

    Raises:
        TypeError: a layer has no window that is the same at every place.

    Example:
        >>> uniform_std([Window(3)] * 6)
        (2.0, 2.0)

    Source: Luo, Li, Urtasun and Zemel, Understanding the Effective Receptive Field in Deep
    Convolutional Neural Networks, 2016, section 2.
    """
    windows = windows_of(layers)
    deviations = []
    for axis in (0, 1):
        jump, twelvefold = 1, 0
        for window in windows:
            kernel, stride, _, dilation = window.axis(axis)
            twelvefold += (jump * dilation) ** 2 * (kernel**2 - 1)
            jump *= stride
        deviations.append(math.sqrt(twelvefold / 12))
    return deviations[0], deviations[1]


def field_of_view(kernel_size: int, rate: int = 1, *, stride: int = 8, cell: int = 32) -> int:
    """Computes the "field of view" that the DeepLab paper gives for its first classifying layer.

        field of view = stride * (kernel_size - 1) * rate + cell

    It takes each cell of the layer's input for a square of `cell` pixels, the stride of the network
    before its last pools lost theirs, and so counts nothing of what the layers below see around
    such a square: the true receptive field, see `receptive_field`, is larger (404 pixels where the
    paper says 224).

    Args:
        kernel_size: of the layer.
        rate: its dilation.
        stride: pixels from one cell of its input to the next.
        cell: pixels that a cell is taken for.

    Returns:
        Pixels of the image.

    Example:
        >>> [field_of_view(k, r) for k, r in ((7, 4), (4, 4), (4, 8), (3, 12))]
        [224, 128, 224, 224]

    Source: Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully
    Connected CRFs (2015), table 1 (as in DeepLab, 2017): the formula is the one that its four
    numbers follow.
    """
    return stride * (kernel_size - 1) * rate + cell
