"""gather, scatter and contract: the three derivatives of the form that only samples.

    T(input, columns, mask; offset) = <columns, mask * gather(input; offset)>

`gather_columns` is dT/dcolumns, `scatter_columns` dT/dinput and `contract_columns` dT/dmask. Where
the mask is absent it counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deformops.ops._autocast import register_autocast, widest
from deformops.ops._checks import Checks, count_groups
from deformops.ops._forms import Form, Partials, Unfold, Values, fold, register_derivatives, unfold
from deformops.ops._sampling import Pair, Sampling, WindowForm
from deformops.ops._switches import deterministic


@dataclass(frozen=True)
class ColumnsForm(WindowForm):
    """<columns, mask * gather(input; offset)>."""

    slots = ("input", "columns", "mask", "offset")

    kernel_size: Pair
    input_size: Pair
    offset_groups: int
    """Where neither offset nor mask tells."""

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> ColumnsForm:
        """The form that one of the three raw ops differentiates."""
        input_size = arguments.get("input_size")
        return cls(
            ops=ops,
            sampling=Sampling.read(arguments),
            kernel_size=arguments["kernel_size"],
            input_size=arguments["input"].shape[-2:] if input_size is None else input_size,
            offset_groups=arguments.get("offset_groups", 1),
        )

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dT/dslot for the wanted slots."""
        input, columns, mask, offset = (values[slot] for slot in self.slots)
        geometry = (self.kernel_size, *self.sampling)
        partials: Partials = {}
        if "columns" in wanted:
            partials["columns"] = self.ops.gather_columns(input, offset, mask, *geometry)
        if "input" in wanted:
            partials["input"] = self.ops.scatter_columns(
                columns, offset, mask, self.input_size, *geometry, **deterministic()
            )
        if "mask" in wanted:
            partials["mask"] = self._contract(self.sampling, values)
        if "offset" in wanted and self.sampling.order != (1, 1):
            slopes = [self._contract(self.sampling.raised(axis), values) for axis in (0, 1)]
            if mask is not None:
                slopes = [mask * slope for slope in slopes]
            partials["offset"] = torch.stack(slopes, dim=2).reshape(offset.shape)
        return partials

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are a larger batch of images."""
        folded = fold(size, values, batched, dict.fromkeys(self.slots, 0))
        return self, folded, lambda _, tensor: unfold(size, tensor, 0)

    def _contract(self, sampling: Sampling | None, values: Values) -> Tensor:
        """dT/dmask at the given order; None stands for one at which it is zero."""
        input, columns, mask, offset = (values[slot] for slot in self.slots)
        if sampling is None:
            return torch.zeros_like(offset[:, ::2])
        groups = count_groups(offset, mask, self.kernel_size, self.offset_groups)
        return self.ops.contract_columns(
            input, columns, offset, self.kernel_size, *sampling, groups
        )


def gather_columns_shape(
    input: Tensor,
    offset: Tensor | None,
    mask: Tensor | None,
    kernel_size: Pair,
    sampling: Sampling,
) -> tuple[int, ...]:
    """The shape of what `gather_columns` returns; raises ValueError or TypeError."""
    checks = Checks("gather_columns")
    checks.tensor("input", input, "[N, C, H, W]")
    output_size = checks.window(input.shape[2:], kernel_size, sampling)
    checks.points(offset, mask, kernel_size, output_size, "input", input)
    return (*input.shape[:2], kernel_size[0] * kernel_size[1], *output_size)


def scatter_columns_shape(
    columns: Tensor,
    offset: Tensor | None,
    mask: Tensor | None,
    input_size: Pair,
    kernel_size: Pair,
    sampling: Sampling,
) -> tuple[int, ...]:
    """The shape of what `scatter_columns` returns; raises ValueError or TypeError."""
    checks = Checks("scatter_columns")
    checks.tensor("columns", columns, "[N, C, kH * kW, oH, oW]")
    checks.pair("input_size", input_size, 0)
    output_size = checks.window(input_size, kernel_size, sampling)
    batch, channels = columns.shape[:2]
    _check_columns(checks, columns, batch, channels, kernel_size, output_size)
    checks.points(offset, mask, kernel_size, output_size, "columns", columns)
    return (batch, channels, *input_size)


def contract_columns_shape(
    input: Tensor,
    columns: Tensor,
    offset: Tensor | None,
    kernel_size: Pair,
    sampling: Sampling,
    offset_groups: int,
) -> tuple[int, ...]:
    """The shape of what `contract_columns` returns; raises ValueError or TypeError."""
    checks = Checks("contract_columns")
    checks.tensor("input", input, "[N, C, H, W]")
    checks.tensor("columns", columns, "[N, C, kH * kW, oH, oW]")
    checks.like("columns", columns, "input", input)
    output_size = checks.window(input.shape[2:], kernel_size, sampling)
    batch, channels = input.shape[:2]
    _check_columns(checks, columns, batch, channels, kernel_size, output_size)
    checks.points(offset, None, kernel_size, output_size, "input", input, offset_groups)
    groups = count_groups(offset, None, kernel_size, offset_groups)
    expected = f"the number of groups of offset, {groups}"
    checks.require(groups == offset_groups, "offset_groups", expected, offset_groups)
    return (batch, offset_groups * kernel_size[0] * kernel_size[1], *output_size)


def _check_columns(
    checks: Checks,
    columns: Tensor,
    batch: int,
    channels: int,
    kernel_size: Pair,
    output_size: tuple[int, int],
) -> None:
    shape = (batch, channels, kernel_size[0] * kernel_size[1], *output_size)
    checks.shape("columns", columns, shape, "[N, C, kH * kW, oH, oW]")


def _fake_gather(
    input: Tensor, offset: Tensor | None, mask: Tensor | None, kernel_size: Pair, *sampling: Any
) -> Tensor:
    shape = gather_columns_shape(input, offset, mask, kernel_size, Sampling(*sampling))
    return input.new_empty(shape)


def _fake_scatter(
    columns: Tensor,
    offset: Tensor | None,
    mask: Tensor | None,
    input_size: Pair,
    kernel_size: Pair,
    *sampling: Any,
    deterministic: bool = False,
) -> Tensor:
    geometry = (input_size, kernel_size, Sampling(*sampling))
    return columns.new_empty(scatter_columns_shape(columns, offset, mask, *geometry))


def _fake_contract(
    input: Tensor, columns: Tensor, offset: Tensor | None, kernel_size: Pair, *geometry: Any
) -> Tensor:
    *sampling, groups = geometry
    shape = contract_columns_shape(input, columns, offset, kernel_size, Sampling(*sampling), groups)
    return input.new_empty(shape)


def register(library: torch.library.Library) -> None:
    """Registers all of the three ops but their kernels."""
    for name, fake, result in (
        ("gather_columns", _fake_gather, "columns"),
        ("scatter_columns", _fake_scatter, "input"),
        ("contract_columns", _fake_contract, "mask"),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        register_derivatives(library, name, ColumnsForm, [result])
        register_autocast(library, name, widest)
