"""roi_pool, gather_maxima, scatter_maxima: the largest pixels of the bins of boxes.

They are the derivatives of one form,

    M(input, grad_output; boxes, index) = <grad_output, input[image of the box, index]>

where the index says which pixel of a bin is the largest: `gather_maxima` is dM/dgrad_output,
`scatter_maxima` dM/dinput, and `roi_pool` dM/dgrad_output at the index that it finds. The index
does not change but where two pixels are equal, so it is a constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deformops.ops._boxes import check_rows, fold_with_boxes
from deformops.ops._checks import Checks
from deformops.ops._forms import Form, Partials, Unfold, Values, register_derivatives, unfold
from deformops.ops._layout import laid_out_like
from deformops.ops._sampling import Pair
from deformops.ops._switches import deterministic

SEMANTICS = ("caffe", "mmcv")
_OUTPUT = "[K, C, pooled_y, pooled_x]"


class PixelBins(NamedTuple):
    """The arguments of `roi_pool` that say where bins are, in the order of its schema."""

    output_size: Pair
    spatial_scale: float
    semantics: str


@dataclass(frozen=True)
class MaximumForm(Form):
    """<grad_output, input[image of the box, index]>."""

    slots = ("grad_output", "input", "boxes", "index")

    ops: Any
    input_size: tuple[Any, ...]
    bins: tuple[Any, ...]
    """Where to look for the index, if it is to be found: `PixelBins`; otherwise empty."""

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> MaximumForm:
        """The form that one of the three raw ops differentiates."""
        input = arguments.get("input")
        return cls(
            ops=ops,
            input_size=tuple(arguments["input_size"] if input is None else input.shape[-4:]),
            bins=tuple(arguments[name] for name in PixelBins._fields if name in arguments),
        )

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dM/dslot for the wanted slots, and the index if it is wanted and not there."""
        grad_output, input, boxes, index = (values[slot] for slot in self.slots)
        if index is None:
            output, index = self.ops.roi_pool(
                input, boxes, *self.bins, want_index="index" in wanted
            )
            return {"grad_output": output, "index": index}
        partials: Partials = {}
        if "grad_output" in wanted:
            partials["grad_output"] = self.ops.gather_maxima(input, boxes, index)
        if "input" in wanted:
            partials["input"] = self.ops.scatter_maxima(
                grad_output, boxes, index, self.input_size, **deterministic()
            )
        return partials

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """As for any form, where boxes are constants."""
        if slot != "boxes":
            yield from super().along(slot, direction, values, wanted)

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are more channels, or more boxes."""
        input_size = list(self.input_size)
        folded, dims = fold_with_boxes(size, input_size[0], values, batched, wanted)
        if "input" in dims:
            input_size[dims["input"]] *= size
        form = replace(self, input_size=tuple(input_size))
        return form, folded, lambda slot, tensor: unfold(size, tensor, dims[slot])


def roi_pool_shape(
    checks: Checks, input: Tensor, boxes: Tensor, bins: PixelBins
) -> tuple[Any, ...]:
    """The shape of what `roi_pool` returns; raises ValueError or TypeError."""
    checks.tensor("input", input, "[N, C, H, W]")
    check_rows(checks, boxes, "input", input)
    checks.pair("output_size", bins.output_size, 1)
    checks.positive("spatial_scale", bins.spatial_scale)
    checks.choice("semantics", bins.semantics, SEMANTICS)
    return (boxes.shape[0], input.shape[1], *bins.output_size)


def _index_dtype(height: Any, width: Any) -> torch.dtype:
    """Wide enough for the number of a pixel; of sizes that are not known yet, int32.

    To ask whether they fit would make a condition of it, on which an export with named sizes fails.
    """
    pixels, largest = height * width, torch.iinfo(torch.int32).max
    if isinstance(pixels, torch.SymInt):
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return torch.int64 if statically_known_true(pixels > largest) else torch.int32
    return torch.int64 if pixels > largest else torch.int32


def _check_index(
    checks: Checks, index: Tensor, boxes: Tensor, input_size: Sequence[Any], like: Tensor
) -> None:
    checks.rank("index", index, _OUTPUT)
    checks.shape("index", index, (boxes.shape[0], input_size[1], *index.shape[2:]), _OUTPUT)
    dtype = _index_dtype(*input_size[2:])
    checks.dtype("index", index, dtype, f"maps of {list(input_size[2:])} pixels")
    checks.device("index", index, "the values", like)


def _fake_pool(
    input: Tensor, boxes: Tensor, *bins: Any, want_index: bool = True
) -> tuple[Tensor, Tensor]:
    shape = roi_pool_shape(Checks("roi_pool"), input, boxes, PixelBins(*bins))
    output = laid_out_like(input, shape)
    dtype = _index_dtype(*input.shape[2:])
    if want_index:
        return output, torch.empty_like(output, dtype=dtype)
    return output, input.new_empty(0, dtype=dtype)


def _fake_gather(input: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
    checks = Checks("gather_maxima")
    checks.tensor("input", input, "[N, C, H, W]")
    check_rows(checks, boxes, "input", input)
    _check_index(checks, index, boxes, input.shape, input)
    return laid_out_like(input, index.shape)


def _fake_scatter(
    grad_output: Tensor,
    boxes: Tensor,
    index: Tensor,
    input_size: Sequence[Any],
    deterministic: bool = False,
) -> Tensor:
    checks = Checks("scatter_maxima")
    checks.tensor("grad_output", grad_output, _OUTPUT)
    check_rows(checks, boxes, "grad_output", grad_output)
    checks.require(len(input_size) == 4, "input_size", "[N, C, H, W]", list(input_size))
    for size in input_size:
        checks.require(size >= 0, "input_size", "sizes >= 0", list(input_size))
    shape = (boxes.shape[0], input_size[1], *grad_output.shape[2:])
    checks.shape("grad_output", grad_output, shape, _OUTPUT)
    _check_index(checks, index, boxes, input_size, grad_output)
    checks.shape("index", index, shape, _OUTPUT)
    return laid_out_like(grad_output, input_size)


def register(library: torch.library.Library) -> None:
    """Registers all of the three ops but their kernels."""
    for name, fake, result, found in (
        ("roi_pool", _fake_pool, "grad_output", "index"),
        ("gather_maxima", _fake_gather, "grad_output", None),
        ("scatter_maxima", _fake_scatter, "input", None),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        register_derivatives(library, name, MaximumForm, [result], found)
