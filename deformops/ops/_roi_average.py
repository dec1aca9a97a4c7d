"""roi_average and its backward pass: the mean of what the bins of boxes look at.

They are the derivatives of one form,

    P(input, grad_output; boxes, offset) = <grad_output, mean over a bin of input(boxes, offset)>

`roi_average` is dP/dgrad_output; `roi_average_backward` returns dP/dinput and dP/doffset. Boxes are
constants: they have no derivatives here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deformops.ops._autocast import register_autocast, widest
from deformops.ops._boxes import Boxes, as_rows, check_images, check_rows, fold_with_boxes
from deformops.ops._checks import Checks
from deformops.ops._forms import Form, Partials, Unfold, Values, register_derivatives, unfold
from deformops.ops._layout import laid_out_like
from deformops.ops._sampling import Pair, SampledForm, pair, raise_order
from deformops.ops._switches import deterministic

_OFFSET = "[K, 2 * classes, part_y, part_x]"
_OUTPUT = "[K, C / groups, pooled_y, pooled_x]"
_BACKWARD = ("input", "offset")
_MOST_SAMPLES = 4096
# Whether bins are made of pixels, of samples, or of samples whose number may follow from the box.
_SEMANTICS = {
    "rfcn": "pixels",
    "torchvision": "pixels",
    "aligned": "adaptive",
    "unaligned": "adaptive",
    "dcn": "samples",
}


class Bins(NamedTuple):
    """The arguments that both raw ops share, in the order of their schemas. Pairs are (y, x)."""

    output_size: Pair
    spatial_scale: float
    semantics: str
    """What of a box is read: pixels ("rfcn", "torchvision") or samples (all others)."""
    group_size: Pair = (1, 1)
    samples_per_bin: int = 0
    """On each axis; not positive: as many as pixels."""
    offset_scale: float = 0.0
    """Which part of its box an offset of 1 moves a bin by."""
    order: Pair = (0, 0)
    """0: read with the hat function, 1: with its derivative."""

    @classmethod
    def read(cls, arguments: Any) -> Bins:
        """The bins in the arguments of a raw op, by name."""
        return cls(*(arguments[name] for name in cls._fields))

    def raised(self, axis: int) -> Bins | None:
        """The bins differentiated once more on an axis (0: y, 1: x); None where that is zero."""
        order = raise_order(self.order, axis)
        return None if order is None else self._replace(order=order)


@dataclass(frozen=True)
class AverageForm(SampledForm):
    """<grad_output, mean over a bin of input(boxes, offset)>."""

    slots = ("grad_output", "input", "boxes", "offset")
    weight = "grad_output"

    sampling: Bins

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> AverageForm:
        """The form that one of the two raw ops differentiates."""
        return cls(ops, Bins.read(arguments))

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dP/dslot for the wanted slots; there is none for the boxes."""
        grad_output, *arguments = (values[slot] for slot in self.slots)
        partials: Partials = {}
        if "grad_output" in wanted:
            partials["grad_output"] = self.ops.roi_average(*arguments, *self.sampling)
        flags = [slot in wanted for slot in _BACKWARD]
        if any(flags):
            gradients = self.ops.roi_average_backward(
                grad_output, *arguments, *self.sampling, flags, **deterministic()
            )
            partials |= {slot: gradients[i] for i, slot in enumerate(_BACKWARD) if flags[i]}
        return partials

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """As for any form that samples, where boxes are constants."""
        if slot != "boxes":
            yield from super().along(slot, direction, values, wanted)

    def speed(self, direction: Tensor, axis: int, values: Values) -> Tensor:
        """A bin moves as its part does, in all channels of a class: [K, C / groups, bins]."""
        speed = direction[:, 1 - axis :: 2]
        for dim, bins in zip((2, 3), self.sampling.output_size, strict=True):
            parts = speed.shape[dim]
            if parts != bins:
                part = torch.arange(bins, device=speed.device) * parts // bins
                speed = speed.index_select(dim, part)
        groups = self.sampling.group_size[0] * self.sampling.group_size[1]
        channels = values["input"].shape[1] // groups
        return speed.repeat_interleave(channels // speed.shape[1], 1)

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are more channels, or more boxes."""
        images = values["input"].shape[-4]
        folded, dims = fold_with_boxes(size, images, values, batched, wanted)
        return self, folded, lambda slot, tensor: unfold(size, tensor, dims[slot])


def roi_average_shape(
    checks: Checks, input: Tensor, boxes: Tensor, offset: Tensor | None, bins: Bins
) -> tuple[Any, ...]:
    """The shape of what `roi_average` returns; raises ValueError or TypeError."""
    checks.tensor("input", input, "[N, C, H, W]")
    check_rows(checks, boxes, "input", input)
    checks.pair("output_size", bins.output_size, 1)
    checks.positive("spatial_scale", bins.spatial_scale)
    checks.choice("semantics", bins.semantics, tuple(_SEMANTICS))
    checks.pair("group_size", bins.group_size, 1)
    _check_samples(checks, bins)
    checks.require(max(bins.order) <= 1, "order", "0 or 1 for each axis", bins.order)
    groups = bins.group_size[0] * bins.group_size[1]
    expected = f"a number of channels that is a multiple of the {groups} groups"
    checks.require(input.shape[1] % groups == 0, "input", expected, input.shape[1])
    channels = input.shape[1] // groups
    if offset is not None:
        _check_offset(checks, input, boxes, offset, channels, bins)
    return (boxes.shape[0], channels, *bins.output_size)


def _check_samples(checks: Checks, bins: Bins) -> None:
    samples, kind = bins.samples_per_bin, _SEMANTICS[bins.semantics]
    checks.integer("samples_per_bin", samples)
    expected = f"an integer <= {_MOST_SAMPLES}"
    checks.require(samples <= _MOST_SAMPLES, "samples_per_bin", expected, samples)
    if kind == "pixels":
        expected = "0, since these bins are made of pixels"
        checks.require(samples == 0, "samples_per_bin", expected, samples)
        checks.require(max(bins.order) == 0, "order", "0 for each axis", bins.order)
    if kind == "samples":
        checks.require(samples >= 1, "samples_per_bin", "an integer >= 1", samples)


def _check_offset(
    checks: Checks, input: Tensor, boxes: Tensor, offset: Tensor, channels: Any, bins: Bins
) -> None:
    checks.tensor("offset", offset, _OFFSET)
    checks.like("offset", offset, "input", input)
    checks.number("offset_scale", bins.offset_scale)
    is_pixels = _SEMANTICS[bins.semantics] == "pixels"
    expected = "none, since these bins are made of pixels"
    checks.require(not is_pixels, "offset", expected, list(offset.shape))
    count, expected = boxes.shape[0], f"shape {_OFFSET} with "
    got = list(offset.shape)
    checks.require(offset.shape[0] == count, "offset", f"{expected}K = {count} boxes", got)
    checks.require(offset.shape[1] % 2 == 0, "offset", f"{expected}two channels a class", got)
    checks.require(offset.shape[1] >= 2, "offset", f"{expected}at least one class", got)
    expected += f"a number of classes that divides the {channels} channels of the output"
    checks.require(channels % (offset.shape[1] // 2) == 0, "offset", expected, got)
    for parts in offset.shape[2:]:
        checks.require(parts >= 1, "offset", f"shape {_OFFSET} with at least one part", got)


def _fake_forward(input: Tensor, boxes: Tensor, offset: Tensor | None, *bins: Any) -> Tensor:
    shape = roi_average_shape(Checks("roi_average"), input, boxes, offset, Bins(*bins))
    return laid_out_like(input, shape)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    boxes: Tensor,
    offset: Tensor | None,
    *bins: Any,
    deterministic: bool = False,
) -> tuple[Tensor, Tensor]:
    *shared, wanted = bins
    checks = Checks("roi_average_backward")
    shape = roi_average_shape(checks, input, boxes, offset, Bins(*shared))
    checks.tensor("grad_output", grad_output, _OUTPUT)
    checks.like("grad_output", grad_output, "input", input)
    checks.shape("grad_output", grad_output, shape, _OUTPUT)
    expected = "no gradient of offset, which is absent"
    checks.require(not wanted[1] or offset is not None, "wanted", expected, wanted)
    grad_input = laid_out_like(input, input.shape) if wanted[0] else input.new_empty(0)
    if offset is None or not wanted[1]:
        return grad_input, input.new_empty(0)
    return grad_input, input.new_empty(offset.shape)


def register(library: torch.library.Library) -> None:
    """Registers all of the two ops but their kernels."""
    for name, fake, results in (
        ("roi_average", _fake_forward, ["grad_output"]),
        ("roi_average_backward", _fake_backward, _BACKWARD),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        register_derivatives(library, name, AverageForm, results)
        register_autocast(library, name, widest, kept=["boxes"])


def check_parts(
    checks: Checks, offset: Tensor | None, output_size: Pair, part_size: int | Pair | None
) -> None:
    """Offsets for as many parts as a public function was told, by default one for each bin."""
    checks.pair("output_size", output_size, 1)
    part_size = output_size if part_size is None else pair("part_size", part_size)
    checks.pair("part_size", part_size, 1)
    if offset is not None:
        checks.tensor("offset", offset, _OFFSET)
        shape = (*offset.shape[:2], *part_size)
        checks.shape("offset", offset, shape, _OFFSET)


def average(
    checks: Checks, input: Tensor, boxes: Boxes, offset: Tensor | None, bins: Bins
) -> Tensor:
    """What the public functions do: `roi_average` of boxes in any form, errors in their words."""
    rows = as_rows(checks, boxes, input)
    try:
        return torch.ops.deformops.roi_average(input, rows, offset, *bins)
    except RuntimeError:
        roi_average_shape(checks, input, rows, offset, bins)
        check_images(checks, rows, input.shape[0])
        raise
