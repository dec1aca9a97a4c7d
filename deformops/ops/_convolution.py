"""deform_conv2d and its backward pass: the derivatives of one form.

    F(input, weight, mask, grad_output; offset) = <grad_output, W . (mask * gather(input; offset))>

`deform_conv2d` is dF/dgrad_output; `deform_conv2d_backward` returns dF/dinput, dF/doffset,
dF/dweight and dF/dmask. Where the mask is absent it counts as 1. A bias adds <grad_output, bias>.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deformops.ops._autocast import like_convolution, register_autocast, widest
from deformops.ops._checks import Checks, count_groups
from deformops.ops._forms import Form, Partials, Unfold, Values, fold, register_derivatives, unfold
from deformops.ops._layout import laid_out_like
from deformops.ops._sampling import Sampling, WindowForm
from deformops.ops._switches import deterministic, tf32

_WEIGHT = "[O, C / groups, kH, kW]"
_BACKWARD = ("input", "offset", "weight", "mask")


@dataclass(frozen=True)
class ConvolutionForm(WindowForm):
    """<grad_output, W . (mask * gather(input; offset)) + bias>."""

    slots = ("grad_output", "input", "offset", "weight", "bias", "mask")

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> ConvolutionForm:
        """The form that one of the two raw ops differentiates."""
        return cls(ops, Sampling.read(arguments))

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dF/dslot for the wanted slots."""
        grad_output, input, offset, weight, bias, mask = (values[slot] for slot in self.slots)
        options = tf32(input)
        partials: Partials = {}
        if "grad_output" in wanted:
            partials["grad_output"] = self.ops.deform_conv2d(
                input, offset, weight, bias, mask, *self.sampling, **options
            )
        flags = [slot in wanted for slot in _BACKWARD]
        if any(flags):
            gradients = self.ops.deform_conv2d_backward(
                grad_output,
                input,
                offset,
                weight,
                mask,
                *self.sampling,
                flags,
                **deterministic(),
                **options,
            )
            partials |= {slot: gradients[i] for i, slot in enumerate(_BACKWARD) if flags[i]}
        if "bias" in wanted and bias is not None:
            partials["bias"] = grad_output.sum((0, 2, 3))
        return partials

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """As for any form that samples; the bias stands in a term with grad_output alone."""
        if slot == "bias":
            if "grad_output" in wanted:
                yield {"grad_output": self._everywhere(direction, values)}
            return
        if slot != "grad_output":
            values = {**values, "bias": None}
        yield from super().along(slot, direction, values, wanted)

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are a larger batch of images; if each has its own weight, groups."""
        dims = dict.fromkeys(("grad_output", "input", "offset", "mask"), 0)
        if any(slot in batched or slot in wanted for slot in ("weight", "bias")):
            dims = {**dict.fromkeys(dims, 1), "weight": 0, "bias": 0}
            if not any(slot in batched or slot in wanted for slot in ("offset", "mask")):
                # One offset group serves the channels of all forms; several would alternate.
                kernel_size = values["weight"].shape[-2:]
                if count_groups(values["offset"], values["mask"], kernel_size) == 1:
                    del dims["offset"], dims["mask"]
        folded = fold(size, values, batched, dims)
        return self, folded, lambda slot, tensor: unfold(size, tensor, dims[slot])

    def _everywhere(self, bias: Tensor, values: Values) -> Tensor:
        """A bias at every pixel of the output."""
        input, weight = values["input"], values["weight"]
        output_size = self.sampling.output_size(input.shape[2:], weight.shape[2:])
        return bias[:, None, None].expand(input.shape[0], -1, *output_size)


def deform_conv2d_shape(
    input: Tensor,
    offset: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    sampling: Sampling,
) -> tuple[int, ...]:
    """The shape of what `deform_conv2d` returns; raises ValueError or TypeError."""
    checks = Checks("deform_conv2d")
    shape = _check_sampled(checks, input, offset, weight, mask, sampling)
    check_bias(checks, bias, weight)
    return shape


def check_kernel(checks: Checks, input: Tensor, weight: Tensor, groups: int | None = None) -> None:
    """A kernel for the channels of the input, in groups as given or as its shape tells."""
    checks.tensor("input", input, "[N, C, H, W]")
    checks.tensor("weight", weight, _WEIGHT)
    checks.like("weight", weight, "input", input)
    channels = input.shape[1]
    out_channels, group_channels = weight.shape[:2]
    expected = f"a second dimension that divides the {channels} channels of input"
    if groups is not None:
        checks.require(groups >= 1, "groups", "an integer >= 1", groups)
        expected = f"a second dimension of {channels} channels of input / {groups} groups"
        checks.require(group_channels * groups == channels, "weight", expected, list(weight.shape))
    elif group_channels == 0:
        checks.require(channels == 0, "weight", expected, list(weight.shape))
        groups = 1
    else:
        checks.require(channels % group_channels == 0, "weight", expected, list(weight.shape))
        groups = max(channels // group_channels, 1)
    expected = f"a multiple of the {groups} groups as first dimension"
    checks.require(out_channels % groups == 0, "weight", expected, list(weight.shape))


def check_bias(checks: Checks, bias: Tensor | None, weight: Tensor) -> None:
    """A number for each output channel, or none."""
    if bias is not None:
        checks.tensor("bias", bias, "[O]")
        checks.like("bias", bias, "weight", weight)
        checks.shape("bias", bias, weight.shape[:1], "[O]")


def _check_sampled(
    checks: Checks,
    input: Tensor,
    offset: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    sampling: Sampling,
) -> tuple[int, ...]:
    """What both ops ask; returns the shape of the output."""
    check_kernel(checks, input, weight)
    kernel_size = weight.shape[2:]
    output_size = checks.window(input.shape[2:], kernel_size, sampling)
    checks.points(offset, mask, kernel_size, output_size, "input", input)
    return (input.shape[0], weight.shape[0], *output_size)


def _fake_forward(
    input: Tensor,
    offset: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    *sampling: Any,
    allow_tf32: bool = False,
    allow_winograd: bool = False,
) -> Tensor:
    shape = deform_conv2d_shape(input, offset, weight, bias, mask, Sampling(*sampling))
    return laid_out_like(input, shape)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    *geometry: Any,
    deterministic: bool = False,
    allow_tf32: bool = False,
) -> tuple[Tensor, ...]:
    *sampling, wanted = geometry
    checks = Checks("deform_conv2d_backward")
    shape = _check_sampled(checks, input, offset, weight, mask, Sampling(*sampling))
    checks.tensor("grad_output", grad_output, "[N, O, oH, oW]")
    checks.like("grad_output", grad_output, "input", input)
    checks.shape("grad_output", grad_output, shape, "[N, O, oH, oW]")
    shapes: list[Sequence[int]] = [(0,)] * len(_BACKWARD)
    for i, value in enumerate((input, offset, weight, mask)):
        if wanted[i]:
            expected = f"no gradient of {_BACKWARD[i]}, which is absent"
            checks.require(value is not None, "wanted", expected, wanted)
            shapes[i] = () if value is None else value.shape
    grad_input = laid_out_like(input, shapes[0]) if wanted[0] else input.new_empty(0)
    return (grad_input, *map(input.new_empty, shapes[1:]))


def register(library: torch.library.Library) -> None:
    """Registers all of the two ops but their kernels."""
    for name, fake, results, autocast in (
        ("deform_conv2d", _fake_forward, ["grad_output"], like_convolution),
        ("deform_conv2d_backward", _fake_backward, _BACKWARD, widest),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        register_derivatives(library, name, ConvolutionForm, results)
        register_autocast(library, name, autocast)
