"""What the ops ask of their arguments.

The fake kernels make these checks, so that a mistake shows while a model is traced; the public
functions make them when a raw op has refused its arguments, to say in Python's terms what is wrong.
A message names the op, the argument, what was expected and what came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deformops.ops._sampling import Sampling

_OFFSET = "[N, 2 * offset_groups * kH * kW, oH, oW]"
_MASK = "[N, offset_groups * kH * kW, oH, oW]"
_LARGEST = 2**31 - 1
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Checks:
    """Checks of one call of an op.

    Sizes may be symbolic: comparisons go through `torch._check`, which turns those that cannot be
    decided during tracing into assertions at run time.

    Args:
        op: its name.
        **names: what messages call arguments that have another name in a public function.
    """

    def __init__(self, op: str, **names: str) -> None:
        self.op = op
        self.names = names

    def require(self, condition: Any, argument: str, expected: str, got: Any) -> None:
        """Raises ValueError unless the condition holds."""
        if not isinstance(condition, bool):
            torch._check_value(condition, lambda: self._message(argument, expected, got))
        elif not condition:
            raise ValueError(self._message(argument, expected, got))

    def tensor(self, argument: str, value: Any, layout: str) -> None:
        """A tensor of a supported type with as many dimensions as `layout` has entries."""
        if not isinstance(value, Tensor):
            raise TypeError(self._message(argument, f"a tensor {layout}", type(value).__name__))
        if value.dtype not in _FLOATS:
            floats = "float64, float32, float16 or bfloat16"
            raise TypeError(self._message(argument, f"a tensor of {floats}", value.dtype))
        self.rank(argument, value, layout)

    def rank(self, argument: str, value: Tensor, layout: str) -> None:
        """A tensor with as many dimensions as `layout` has entries."""
        rank = layout.count(",") + 1
        expected = f"{rank} dimensions {layout}"
        self.require(value.dim() == rank, argument, expected, f"shape {list(value.shape)}")

    def like(self, argument: str, value: Tensor, reference: str, other: Tensor) -> None:
        """A tensor of the type and on the device of another argument."""
        if value.dtype != other.dtype:
            expected = f"the dtype of {reference}, {other.dtype}"
            raise TypeError(self._message(argument, expected, value.dtype))
        self.device(argument, value, reference, other)

    def dtype(self, argument: str, value: Tensor, dtype: torch.dtype, beside: str) -> None:
        """A tensor of a type that follows from another argument's."""
        if value.dtype != dtype:
            expected = f"dtype {dtype} for {beside}"
            raise TypeError(self._message(argument, expected, value.dtype))

    def device(self, argument: str, value: Tensor, reference: str, other: Tensor) -> None:
        """A tensor on the device of another argument."""
        expected = f"a tensor on the device of {reference}, {other.device}"
        self.require(value.device == other.device, argument, expected, value.device)

    def integer(self, argument: str, value: Any) -> None:
        """An integer, also one that is a symbol while a model is traced."""
        if not isinstance(value, (int, torch.SymInt)):
            raise TypeError(self._message(argument, "an integer", repr(value)))

    def size(self, argument: str, value: Any) -> None:
        """An integer that can be the size of a dimension; a symbol may be of any size."""
        self.integer(argument, value)
        expected = f"an integer from 0 to {_LARGEST}"
        self.require(value >= 0, argument, expected, value)
        if isinstance(value, int):
            self.require(value <= _LARGEST, argument, expected, value)

    def flag(self, argument: str, value: Any) -> None:
        """True or False."""
        if not isinstance(value, bool):
            raise TypeError(self._message(argument, "True or False", repr(value)))

    def number(self, argument: str, value: Any) -> None:
        """A finite number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(self._message(argument, "a number", repr(value)))
        self.require(-math.inf < value < math.inf, argument, "a finite number", value)

    def positive(self, argument: str, value: Any) -> None:
        """A finite number above 0."""
        self.number(argument, value)
        self.require(value > 0, argument, "a positive number", value)

    def sequence(self, argument: str, value: Any, expected: str) -> None:
        """A list or tuple."""
        if not isinstance(value, (list, tuple)):
            raise TypeError(self._message(argument, expected, type(value).__name__))

    def shape(self, argument: str, value: Tensor, shape: Sequence[Any], layout: str) -> None:
        """A tensor of exactly this shape; `layout` says in words what its numbers are."""
        for actual, expected in zip(value.shape, shape, strict=True):
            expectation = f"shape {layout} = {list(shape)}"
            self.require(actual == expected, argument, expectation, list(value.shape))

    def pair(self, argument: str, value: Sequence[Any], minimum: int) -> None:
        """Two integers, not below the minimum and of a size that cannot overflow an index."""
        expected = f"integers >= {minimum} and <= {_LARGEST}"
        for number in value:
            self.require(number >= minimum, argument, expected, list(value))
            self.require(number <= _LARGEST, argument, expected, list(value))

    def choice(self, argument: str, value: Any, choices: Sequence[str]) -> None:
        """One of some strings."""
        expected = " or ".join(map(repr, choices))
        self.require(value in choices, argument, expected, repr(value))

    def window(
        self, input_size: Sequence[Any], kernel_size: Sequence[int], sampling: Sampling
    ) -> tuple[Any, Any]:
        """A window that fits into the padded input; returns height and width of the output."""
        self.pair("kernel_size", kernel_size, 1)
        self.pair("stride", sampling.stride, 1)
        self.pair("padding", sampling.padding, 0)
        self.pair("dilation", sampling.dilation, 1)
        self.require(max(sampling.order) <= 1, "order", "0 or 1 for each axis", sampling.order)
        self.choice("border", sampling.border, ("v2", "v1"))
        self.choice("kink", sampling.kink, ("inner", "zero"))
        axes = zip(
            ("height", "width"),
            input_size,
            kernel_size,
            sampling.padding,
            sampling.dilation,
            strict=True,
        )
        for axis, size, taps, padding, dilation in axes:
            reach = dilation * (taps - 1) + 1
            expected = f"a padded {axis} of at least the kernel's {reach} pixels"
            self.require(size + 2 * padding >= reach, "input", expected, size + 2 * padding)
        return sampling.output_size(input_size, kernel_size)

    def points(
        self,
        offset: Tensor | None,
        mask: Tensor | None,
        kernel_size: Sequence[int],
        output_size: tuple[Any, Any],
        reference: str,
        like: Tensor,
        groups: int = 1,
    ) -> None:
        """Offset and mask for every tap and output pixel of each group of channels.

        Args:
            offset: moves the points; absent: they stay.
            mask: weighs them; absent: by 1.
            kernel_size: the taps.
            output_size: height and width of the output.
            reference: the argument that has the channels,
            like: and its tensor.
            groups: the number of groups where neither offset nor mask tells.
        """
        for name, value, layout, numbers in (
            ("offset", offset, _OFFSET, 2),
            ("mask", mask, _MASK, 1),
        ):
            if value is not None:
                self.tensor(name, value, layout)
                least = numbers * kernel_size[0] * kernel_size[1]
                expected = f"{layout} with at least the {least} channels of one offset group"
                self.require(value.shape[1] >= least, name, expected, list(value.shape))
        groups = count_groups(offset, mask, kernel_size, groups)
        source = "offset_groups" if offset is None and mask is None else "mask"
        source = "offset" if offset is not None else source
        batch, channels = like.shape[0], like.shape[1]
        expected = f"a number of offset groups that divides the {channels} channels of {reference}"
        self.require(groups >= 1, source, expected, groups)
        self.require(channels % groups == 0, source, expected, groups)
        taps = groups * kernel_size[0] * kernel_size[1]
        if offset is not None:
            self.like("offset", offset, reference, like)
            self.shape("offset", offset, (batch, 2 * taps, *output_size), _OFFSET)
        if mask is not None:
            self.like("mask", mask, reference, like)
            self.shape("mask", mask, (batch, taps, *output_size), _MASK)

    def _message(self, argument: str, expected: str, got: Any) -> str:
        name = self.names.get(argument, argument)
        return f"{self.op}: {name}: expected {expected}, got {got}"


def as_numbers(name: str, value: Any, **options: Any) -> Tensor:
    """A number, lists of numbers or a tensor as a tensor; raises TypeError for anything else."""
    try:
        return torch.as_tensor(value, **options)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected numbers, got {value!r}") from None


def count_groups(
    offset: Tensor | None, mask: Tensor | None, kernel_size: Sequence[int], otherwise: int = 1
) -> int:
    """The number of offset groups, which the channels of offset or mask tell."""
    taps = kernel_size[0] * kernel_size[1]
    if offset is not None:
        return offset.shape[-3] // (2 * taps)
    return otherwise if mask is None else mask.shape[-3] // taps
