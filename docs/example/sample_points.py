"""The form of `sample_points`: all its derivatives, and its vmap rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deformops.ops._forms import Form, Partials, Unfold, Values, fold, register_derivatives, unfold


@dataclass(frozen=True)
class PointsForm(Form):
    """<values, gather(input; points)>: linear in values and input, not in points."""

    slots = ("values", "input", "points")

    ops: Any
    size: Sequence[int]
    order: tuple[int, int]

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> PointsForm:
        """The form that either op differentiates."""
        input = arguments.get("input")
        size = arguments["size"] if input is None else input.shape[-2:]
        return cls(ops, size, tuple(arguments["order"]))

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """Each derivative is an op, at this order or, along an axis of the points, the next."""
        given, input, points = (values[slot] for slot in self.slots)
        partials: Partials = {}
        if "values" in wanted:
            partials["values"] = self.ops.sample_points(input, points, self.order)
        if "input" in wanted:
            partials["input"] = self.ops.spread_points(given, points, self.size, self.order)
        if "points" in wanted:
            slopes = [
                (given * form.ops.sample_points(input, points, form.order)).sum(1)
                for form in (self.raised(0), self.raised(1))
            ]
            partials["points"] = torch.stack(slopes, 2)
        return partials

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """Moving the points is the form one order higher, its values weighed by the direction."""
        if slot != "points":
            yield from super().along(slot, direction, values, wanted)
            return
        for axis in (0, 1):
            weight = direction[:, None, :, axis]
            given = None if values["values"] is None else values["values"] * weight
            moved = self.raised(axis).partials({**values, "values": given}, wanted)
            if "values" in moved:
                moved["values"] = moved["values"] * weight
            yield moved

    def raised(self, axis: int) -> PointsForm:
        """The form with the derivative of the hat on one more axis; beyond 1 it is zero."""
        return replace(self, order=(self.order[0] + (axis == 0), self.order[1] + (axis == 1)))

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are a larger batch of images."""
        folded = fold(size, values, batched, dict.fromkeys(self.slots, 0))
        return self, folded, lambda _, tensor: unfold(size, tensor, 0)


def register(library: torch.library.Library) -> None:
    """Gives both ops what they have in Python."""

    def sample(input: Tensor, points: Tensor, order: Sequence[int]) -> Tensor:
        return input.new_empty((*input.shape[:2], points.shape[1]))

    def spread(values: Tensor, points: Tensor, size: Sequence[int], order: Sequence[int]) -> Tensor:
        return values.new_empty((*values.shape[:2], *size))

    for name, fake, result in (
        ("sample_points", sample, "values"),
        ("spread_points", spread, "input"),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        register_derivatives(library, name, PointsForm, [result])


def sample_points(input: Tensor, points: Tensor) -> Tensor:
    """Reads [N, C, H, W] at [N, P, 2] points (y, x): [N, C, P]."""
    return torch.ops.example.sample_points(input, points, [0, 0])
