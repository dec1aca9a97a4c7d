"""A problem of typical proportions for each op: `python -m deformops.simulation profile` runs it.

Large enough that tiles are full and that no single map fits into a warp, small enough for the
simulated device, which runs some 20 000 threads a second when it watches every access.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHANNELS, SIZE = 64, 64
TAPS = 9


@dataclass(frozen=True)
class Problem:
    """A call of one op and the tensors that it reads."""

    inputs: tuple[Tensor, ...]
    call: Callable[[], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Tensors:
    """Draws tensors of one type and memory format, the same each time."""

    dtype: torch.dtype
    channels_last: bool

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normally distributed numbers."""
        generator = torch.Generator().manual_seed(sum(shape))
        tensor = (scale * torch.randn(shape, generator=generator)).to(self.dtype)
        if self.channels_last and len(shape) == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


_SAMPLING = ([1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner")
_KERNEL = [3, 3]


def problems(
    ops: Any, tensors: Tensors, options: dict[str, Any]
) -> dict[str, Callable[[], Problem]]:
    """What there is to profile, by the name of the op.

    Args:
        ops: the raw ops, `torch.ops.deformops_simulated`.
        tensors: of which type and format.
        options: ``deterministic`` and ``allow_tf32``; each op gets those that it takes.
    """

    def convolution() -> tuple[Tensor, ...]:
        """Input, offset, weight, mask, grad_output, columns."""
        return (
            tensors.normal(1, CHANNELS, SIZE, SIZE),
            tensors.normal(1, 2 * TAPS, SIZE, SIZE, scale=0.5),
            tensors.normal(CHANNELS, CHANNELS, *_KERNEL),
            tensors.normal(1, TAPS, SIZE, SIZE),
            tensors.normal(1, CHANNELS, SIZE, SIZE),
            tensors.normal(1, CHANNELS, TAPS, SIZE, SIZE),
        )

    def problem(name: str, inputs: tuple[Tensor, ...], *arguments: Any) -> Problem:
        op = getattr(ops, name)
        taken = {argument.name for argument in op.default._schema.arguments}
        chosen = {key: value for key, value in options.items() if key in taken}
        return Problem(inputs, lambda: op(*arguments, **chosen))

    def deform_conv2d() -> Problem:
        input, offset, weight, mask, *_ = convolution()
        inputs = (input, offset, weight, mask)
        return problem("deform_conv2d", inputs, input, offset, weight, None, mask, *_SAMPLING)

    def deform_conv2d_backward() -> Problem:
        input, offset, weight, mask, grad_output, _ = convolution()
        inputs = (grad_output, input, offset, weight, mask)
        return problem("deform_conv2d_backward", inputs, *inputs, *_SAMPLING, [True] * 4)

    def gather_columns() -> Problem:
        input, offset, _, mask, *_ = convolution()
        inputs = (input, offset, mask)
        return problem("gather_columns", inputs, *inputs, _KERNEL, *_SAMPLING)

    def scatter_columns() -> Problem:
        _, offset, _, mask, _, columns = convolution()
        inputs = (columns, offset, mask)
        return problem("scatter_columns", inputs, *inputs, [SIZE, SIZE], _KERNEL, *_SAMPLING)

    def contract_columns() -> Problem:
        input, offset, _, _, _, columns = convolution()
        inputs = (input, columns, offset)
        return problem("contract_columns", inputs, *inputs, _KERNEL, *_SAMPLING, 1)

    return {
        function.__name__: function
        for function in (
            deform_conv2d,
            deform_conv2d_backward,
            gather_columns,
            scatter_columns,
            contract_columns,
        )
    }
