"""The Gaussian filter over all pairs of points, and its derivatives of every order.

    F(values, grad_output; features) = sum_ij <grad_output_i, values_j> exp(-|f_i - f_j|^2 / 2)

`gaussian_filter` is dF/dgrad_output and, since the kernel is symmetric, dF/dvalues with the two
exchanged. The derivative of the kernel with respect to f_i is (f_j - f_i) times the kernel: it is a
filter of values multiplied by features, so that all derivatives are filters again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deformops.ops._autocast import register_autocast, widest
from deformops.ops._checks import Checks
from deformops.ops._forms import Form, Partials, Unfold, Values, fold, register_derivatives, unfold

# Numbers of the kernel that exist at a time: 64 MiB in float32.
_CHUNK = 2**24


@dataclass(frozen=True)
class GaussianForm(Form):
    """sum_ij <grad_output_i, values_j> exp(-|f_i - f_j|^2 / 2)."""

    slots = ("grad_output", "values", "features")

    ops: Any

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> GaussianForm:
        """The form that `gaussian_filter` differentiates."""
        return cls(ops)

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dF/dslot for the wanted slots."""
        grad, value, features = (values[slot] for slot in self.slots)
        partials: Partials = {}
        if "grad_output" in wanted:
            partials["grad_output"] = self.ops.gaussian_filter(value, features)
        if "values" in wanted:
            partials["values"] = self.ops.gaussian_filter(grad, features)
        if "features" in wanted:
            # sum_j (<grad_i, value_j> + <value_i, grad_j>) (f_j - f_i) K_ij
            both = torch.cat([value, grad], -1)
            other = torch.cat([grad, value], -1)
            moments = torch.cat([_times(both, features), both], -1)
            filtered = self.ops.gaussian_filter(moments, features)
            first, zeroth = filtered.split([moments.shape[-1] - both.shape[-1], both.shape[-1]], -1)
            first = _apart(first, features.shape[-1], both.shape[-1])
            partials["features"] = (first * other.unsqueeze(-2)).sum(-1) - features * (
                other * zeroth
            ).sum(-1, keepdim=True)
        return partials

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """The derivatives of <direction, dF/dslot>.

        Along the features it is F of other values, in which each channel has become 2 d + 2: with
        d_i the direction and s_i = <d_i, f_i>,

            sum_ij K_ij (<d_i, f_j> - s_i + <f_i, d_j> - s_j) <grad_i, value_j>.

        Of that only the derivative with respect to grad_output is ever asked: the one result of
        the one op.
        """
        if slot != "features":
            yield from super().along(slot, direction, values, wanted)
            return
        assert list(wanted) == ["grad_output"]
        value, features = values["values"], values["features"]
        along = (direction * features).sum(-1, keepdim=True)
        ones = torch.ones_like(along)
        # The factors of grad and of value in each of the 2 d + 2 products.
        left = torch.cat([direction, -along, features, -ones], -1)
        right = torch.cat([features, ones, direction, along], -1)
        filtered = self.ops.gaussian_filter(_times(value, right), features)
        products = _apart(filtered, left.shape[-1], value.shape[-1])
        yield {"grad_output": (products * left.unsqueeze(-1)).sum(-2)}

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are a larger batch; with the same features, more channels."""
        if "features" in batched or "features" in wanted:
            dims = dict.fromkeys(self.slots, 0)
        else:
            dims = {"grad_output": 2, "values": 2}
        folded = fold(size, values, batched, dims)
        return self, folded, lambda slot, tensor: unfold(size, tensor, dims[slot])


def _times(values: Tensor, factors: Tensor) -> Tensor:
    """Every channel times every factor: [N, M, C] and [N, M, D] to [N, M, D * C]."""
    products = factors.unsqueeze(-1) * values.unsqueeze(-2)
    return products.reshape(*values.shape[:-1], factors.shape[-1] * values.shape[-1])


def _apart(products: Tensor, factors: int, channels: int) -> Tensor:
    """[N, M, D * C] as [N, M, D, C]."""
    return products.reshape(*products.shape[:-1], factors, channels)


def check_points(checks: Checks, values: Tensor, features: Tensor) -> None:
    """Values and features of the same points."""
    checks.tensor("features", features, "[N, M, d]")
    checks.tensor("values", values, "[N, M, C]")
    checks.like("values", values, "features", features)
    shape = (*features.shape[:2], values.shape[2])
    checks.shape("values", values, shape, "[N, M, C]")


def _filter(values: Tensor, features: Tensor) -> Tensor:
    check_points(Checks("gaussian_filter"), values, features)
    kind = torch.promote_types(values.dtype, torch.float32)
    points, value = features.to(kind), values.to(kind)
    batch, count = points.shape[:2]
    output = value.new_empty(value.shape)
    rows = max(1, _CHUNK // max(1, count))
    for image in range(batch):
        for start in range(0, count, rows):
            some = points[image, start : start + rows]
            # Not by |a|^2 + |b|^2 - 2 ab, which loses what distant points have in common.
            kernel = torch.cdist(some, points[image], compute_mode="donot_use_mm_for_euclid_dist")
            kernel.square_().mul_(-0.5).exp_()
            torch.mm(kernel, value[image], out=output[image, start : start + rows])
    return output.to(values.dtype)


def _fake(values: Tensor, features: Tensor) -> Tensor:
    check_points(Checks("gaussian_filter"), values, features)
    return values.new_empty(values.shape)


def register(library: torch.library.Library) -> None:
    """Defines the op, on every device, with all that raw ops have."""
    name = "gaussian_filter"
    library.define(f"{name}(Tensor values, Tensor features) -> Tensor")
    library.impl(name, _filter, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{library.ns}::{name}", _fake, lib=library)
    register_derivatives(library, name, GaussianForm, ["grad_output"])
    register_autocast(library, name, widest)
