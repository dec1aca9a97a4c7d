"""The receptive field of a stack of regular windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pooling layer; each entry one number or (y, x).

    Output position ``p`` and tap ``i`` look at ``p * stride - padding + i * dilation``.

    Args:
        kernel_size: taps on each axis.
        stride: pixels of the input from one output to the next.
        padding: pixels added on each side.
        dilation: pixels from one tap to the next.

    Raises:
        ValueError: an entry is out of range; the message names it.
    """

    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    dilation: int | Pair = 1

    def __post_init__(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
            if len(both) != 2 or any(not isinstance(v, int) or v < least for v in both):
                raise ValueError(
                    f"{name}: expected one or two whole numbers of at least {least}, got {value!r}"
                )

    def axis(self, axis: int) -> tuple[int, int, int, int]:
        """Returns kernel size, stride, padding and dilation on axis 0 (y) or 1 (x)."""
        entries = (self.kernel_size, self.stride, self.padding, self.dilation)
        kernel, stride, padding, dilation = (
            entry if isinstance(entry, int) else entry[axis] for entry in entries
        )
        return kernel, stride, padding, dilation


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


def receptive_field(windows: Sequence[Window]) -> ReceptiveField:
    """Computes the receptive field of a stack.

    With kernel size k, stride s, padding p and dilation d of layer l, counted from the input, and
    the jump J_l = s_1 * ... * s_{l-1}:

        size   = 1 + sum over l of (k_l - 1) * d_l * J_l
        stride = s_1 * ... * s_L
        start  = - sum over l of p_l * J_l

    Args:
        windows: from the input to the output; an empty stack sees the pixel itself.

    Returns:
        Size, stride and start in pixels of the input.

    Example:
        >>> conv = Window(3, padding=1)
        >>> receptive_field([conv, conv, Window(2, stride=2), conv]).size
        (10, 10)

    Source: Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks,
    Distill, 2019.
    """
    sizes, strides, starts = [], [], []
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
