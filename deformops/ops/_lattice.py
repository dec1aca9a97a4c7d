"""The filter on the permutohedral lattice, and its derivatives of every order.

    F(values, splat_weight, slice_weight, grad_output)
        = <grad_output, slice_weight . blur(splat_weight^T values)>

`lattice_filter` is dF/dgrad_output, `lattice_contract` dF/dslice_weight; with the two ends of the
form exchanged, and the blur along the axes in reverse order, they are dF/dvalues and
dF/dsplat_weight. The weights are barycentric: linear in the features within a simplex,

    G(tangent, grad_weight; features) = <grad_weight, J(features) tangent>,

whose derivatives are `lattice_weights_forward` and `lattice_weights_backward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deformops.ops._checks import Checks
from deformops.ops._forms import Form, Partials, Unfold, Values, fold, register_derivatives, unfold

STRUCTURE = ("vertex", "start", "entry", "neighbor")
"""The results of `lattice_build` that are integers."""


@dataclass(frozen=True)
class LatticeForm(Form):
    """<grad_output, slice_weight . blur(splat_weight^T values)>."""

    slots = ("grad_output", "values", "splat_weight", "slice_weight")

    ops: Any
    structure: tuple[Tensor, ...]
    reverse: bool

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> LatticeForm:
        """The form that `lattice_filter` or `lattice_contract` differentiates."""
        structure = tuple(arguments[name] for name in STRUCTURE)
        return cls(ops, structure, arguments["reverse"])

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dF/dslot for the wanted slots."""
        grad, value, splat, slices = (values[slot] for slot in self.slots)
        there = (*self.structure, self.reverse)
        back = (*self.structure, not self.reverse)
        partials: Partials = {}
        if "grad_output" in wanted:
            partials["grad_output"] = self.ops.lattice_filter(value, splat, slices, *there)
        if "values" in wanted:
            partials["values"] = self.ops.lattice_filter(grad, slices, splat, *back)
        if "slice_weight" in wanted:
            partials["slice_weight"] = self.ops.lattice_contract(grad, value, splat, *there)
        if "splat_weight" in wanted:
            partials["splat_weight"] = self.ops.lattice_contract(value, grad, slices, *back)
        return partials

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms with the same weights are more channels; with others, copies of the lattice."""
        weights = ("splat_weight", "slice_weight")
        if not any(slot in batched or slot in wanted for slot in weights):
            dims = {"grad_output": 1, "values": 1}
            folded = fold(size, values, batched, dims)
            return self, folded, lambda _, tensor: unfold(size, tensor, 1)
        folded = fold(size, values, batched, dict.fromkeys(self.slots, 0))
        points = next(tensor.shape[0] for tensor in folded.values() if tensor is not None)
        structure = self.structure
        if structure[0].shape[0] < points:  # else it was built of all copies, see _vmap_build
            structure = _repeated(size, *structure)
        form = LatticeForm(self.ops, structure, self.reverse)
        return form, folded, lambda _, tensor: unfold(size, tensor, 0)


def _repeated(
    size: int, vertex: Tensor, start: Tensor, entry: Tensor, neighbor: Tensor
) -> tuple[Tensor, ...]:
    """The lattice of as many copies of all points, whose vertices know nothing of each other."""
    vertices, entries = neighbor.shape[1], entry.shape[0]
    copies = torch.arange(size, device=vertex.device, dtype=vertex.dtype)
    later = (copies * vertices)[:, None, None]
    ends = start[1:] + (copies * entries)[:, None]
    linked = torch.where(neighbor < 0, -1, neighbor + later[..., None])
    return (
        (vertex + later).flatten(0, 1),
        torch.cat([start[:1], ends.flatten()]),
        (entry + (copies * entries)[:, None]).flatten(),
        linked.transpose(0, 1).flatten(1, 2),
    )


@dataclass(frozen=True)
class WeightsForm(Form):
    """<grad_weight, J(features) tangent>, J being constant within a simplex."""

    slots = ("tangent", "grad_weight")

    ops: Any
    features: Tensor

    @classmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> WeightsForm:
        """The form that one of the two raw ops differentiates."""
        return cls(ops, arguments["features"])

    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """dG/dslot for the wanted slots."""
        tangent, grad_weight = (values[slot] for slot in self.slots)
        partials: Partials = {}
        if "tangent" in wanted:
            partials["tangent"] = self.ops.lattice_weights_backward(grad_weight, self.features)
        if "grad_weight" in wanted:
            partials["grad_weight"] = self.ops.lattice_weights_forward(tangent, self.features)
        return partials

    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Forms side by side are more images of the same features."""
        folded = fold(size, values, batched, dict.fromkeys(self.slots, 0))
        own = "features" in batched
        features = self.features.flatten(0, 1) if own else self.features.repeat(size, 1, 1)
        form = WeightsForm(self.ops, features)
        return form, folded, lambda _, tensor: unfold(size, tensor, 0)


def _fake_build(features: Tensor) -> tuple[Tensor, ...]:
    checks = Checks("lattice_build")
    checks.tensor("features", features, "[N, M, d]")
    images, points, dims = features.shape
    checks.require(dims >= 1, "features", "at least one feature", list(features.shape))
    corners = images * points * (dims + 1)
    vertices = torch.library.get_ctx().new_dynamic_size()

    def whole(*shape: Any) -> Tensor:
        return features.new_empty(shape, dtype=torch.int32)

    vertex = whole(images * points, dims + 1)
    weight = features.new_empty(vertex.shape)
    return vertex, weight, whole(vertices + 1), whole(corners), whole(dims + 1, vertices, 2)


def _fake_filter(
    values: Tensor, splat_weight: Tensor, slice_weight: Tensor, vertex: Tensor, *_: Any
) -> Tensor:
    checks = Checks("lattice_filter")
    _check_values(checks, "values", values, vertex)
    for name, weight in (("splat_weight", splat_weight), ("slice_weight", slice_weight)):
        checks.like(name, weight, "values", values)
        checks.shape(name, weight, vertex.shape, "[P, d + 1]")
    return values.new_empty(values.shape)


def _fake_contract(
    grad_output: Tensor, values: Tensor, splat_weight: Tensor, vertex: Tensor, *_: Any
) -> Tensor:
    checks = Checks("lattice_contract")
    _check_values(checks, "values", values, vertex)
    checks.like("grad_output", grad_output, "values", values)
    checks.shape("grad_output", grad_output, values.shape, "[P, L]")
    checks.like("splat_weight", splat_weight, "values", values)
    checks.shape("splat_weight", splat_weight, vertex.shape, "[P, d + 1]")
    return values.new_empty(vertex.shape)


def _check_values(checks: Checks, name: str, values: Tensor, vertex: Tensor) -> None:
    checks.tensor(name, values, "[P, L]")
    checks.shape(name, values, (vertex.shape[0], values.shape[1]), "[P, L]")


def _fake_weights_forward(tangent: Tensor, features: Tensor) -> Tensor:
    checks = Checks("lattice_weights_forward")
    checks.tensor("features", features, "[N, M, d]")
    checks.like("tangent", tangent, "features", features)
    checks.shape("tangent", tangent, features.shape, "[N, M, d]")
    images, points, dims = features.shape
    return features.new_empty((images * points, dims + 1))


def _fake_weights_backward(grad_weight: Tensor, features: Tensor) -> Tensor:
    checks = Checks("lattice_weights_backward")
    checks.tensor("features", features, "[N, M, d]")
    checks.like("grad_weight", grad_weight, "features", features)
    images, points, dims = features.shape
    checks.shape("grad_weight", grad_weight, (images * points, dims + 1), "[N * M, d + 1]")
    return features.new_empty(features.shape)


def _fake_mean_field(unary: Tensor, *_: Any) -> Tensor:
    Checks("mean_field").tensor("unary", unary, "[N, L, M]")
    return unary.new_empty(unary.shape)


def _vmap_build(library: torch.library.Library) -> Any:
    build = getattr(torch.ops, library.ns).lattice_build

    def rule(info: Any, in_dims: tuple[int], features: Tensor) -> tuple[Any, Any]:
        """One lattice for all: its integers are those of all copies, its weights are dealt out."""
        stacked = features.movedim(in_dims[0], 0).flatten(0, 1)
        vertex, weight, start, entry, neighbor = build(stacked)
        own = unfold(info.batch_size, weight, 0)
        return (vertex, own, start, entry, neighbor), (None, 0, None, None, None)

    return rule


def register(library: torch.library.Library) -> None:
    """Registers all of the lattice's ops but their kernels.

    The build has no derivative: `LatticeFilter` lets the weights follow the features. Nor has mean
    field in one call: with derivatives it is a loop of filters.
    """
    for name, fake in (
        ("lattice_build", _fake_build),
        ("lattice_filter", _fake_filter),
        ("lattice_contract", _fake_contract),
        ("lattice_weights_forward", _fake_weights_forward),
        ("lattice_weights_backward", _fake_weights_backward),
        ("mean_field", _fake_mean_field),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
    register_derivatives(library, "lattice_filter", LatticeForm, ["grad_output"])
    register_derivatives(library, "lattice_contract", LatticeForm, ["slice_weight"])
    register_derivatives(library, "lattice_weights_forward", WeightsForm, ["grad_weight"])
    register_derivatives(library, "lattice_weights_backward", WeightsForm, ["tangent"])
    rule = _vmap_build(library)
    torch.library.register_vmap(f"{library.ns}::lattice_build", rule, lib=library)


class LatticeFilter:
    """The filter of some points as an operator on their values, [N, M, C] to [N, M, C].

    Differentiable in the values and in the weights, hence in the features.
    """

    def __init__(
        self,
        ops: Any,
        shape: torch.Size,
        structure: tuple[Tensor, ...],
        splat_weight: Tensor,
        slice_weight: Tensor,
        reverse: bool = False,
    ) -> None:
        self.ops = ops
        self.shape = shape
        self.structure = structure
        self.splat_weight = splat_weight
        self.slice_weight = slice_weight
        self.reverse = reverse

    @classmethod
    def build(
        cls, features: Tensor, name: str = "features", ops: Any = torch.ops.deformops
    ) -> LatticeFilter:
        """The lattice of points [N, M, d], in units of the bandwidths; `name` is for messages.

        Raises:
            ValueError: features that do not lie in a simplex: NaN, infinite or too large.
        """
        places = features.detach()
        try:
            vertex, weight, start, entry, neighbor = ops.lattice_build(places)
        except RuntimeError as error:
            _, refused, why = str(error).partition("features: expected")
            if refused:
                raise ValueError(f"{name}: expected{why}") from None
            raise
        if recorded(features):
            moved = ops.lattice_weights_forward(features, places)
            weight = weight + (moved - moved.detach())
        return cls(ops, features.shape[:2], (vertex, start, entry, neighbor), weight, weight)

    @property
    def transposed(self) -> LatticeFilter:
        """The filter with its two ends exchanged."""
        return self._with(self.slice_weight, self.splat_weight, not self.reverse)

    def __call__(self, values: Tensor) -> Tensor:
        """[N, M, C] to [N, M, C]."""
        weights = (self.splat_weight, self.slice_weight)
        filtered = self.ops.lattice_filter(
            values.flatten(0, 1), *weights, *self.structure, self.reverse
        )
        return filtered.unflatten(0, values.shape[:2])

    def scaled(self, before: Tensor | None, after: Tensor | None) -> LatticeFilter:
        """The filter between factors [N, M, 1] of what goes in and what comes out."""
        splat = _product(self.splat_weight, before)
        if self.slice_weight is self.splat_weight and before is after:
            return self._with(splat, splat, self.reverse)  # kept once
        return self._with(splat, _product(self.slice_weight, after), self.reverse)

    def _with(self, splat_weight: Tensor, slice_weight: Tensor, reverse: bool) -> LatticeFilter:
        return LatticeFilter(
            self.ops, self.shape, self.structure, splat_weight, slice_weight, reverse
        )

    def ones(self) -> Tensor:
        """Ones at all points, [N, M, 1]."""
        return self.splat_weight.new_ones((*self.shape, 1))

    def diagonal(self) -> Tensor:
        """What each point gets back of its own value, [P].

        From one corner of a simplex to another lead two ways: some axes forwards, or all the others
        backwards; and back to the same corner also all axes forwards. The blur goes a way if it
        finds its vertices, and weighs it by 1/2 for each step.
        """
        vertex, _, _, neighbor = self.structure
        vertex = vertex.long()
        axes = neighbor.shape[0]
        behind, ahead = neighbor.long().unbind(2)  # [d + 1, V]
        # The corner from which each axis leads to the next one, [P, d + 1].
        leads = ahead[:, vertex] == vertex.roll(-1, 1)
        place = leads.int().argmax(-1).transpose(0, 1)
        steps = torch.arange(axes + 1, device=vertex.device)
        there = self.splat_weight.new_tensor(0.5) ** steps
        around = there.flip(0)
        around[axes] = 0.0  # the way without a step, which is counted already
        order = range(axes - 1, -1, -1) if self.reverse else range(axes)
        total = torch.zeros_like(self.splat_weight[:, 0])
        for corner in range(axes):
            forwards = ((place - corner) % axes)[..., None] < steps  # [P, axis, steps]
            response: Tensor | float = 0.0
            for links, moves, share in ((ahead, forwards, there), (behind, ~forwards, around)):
                at = vertex[:, corner : corner + 1].expand(-1, axes + 1)
                for axis in order:
                    following = torch.where(at < 0, -1, links[axis][at.clamp(min=0)])
                    at = torch.where(moves[:, axis], following, at)
                response = response + (at >= 0) * share
            back = self.slice_weight[:, (steps + corner) % axes]
            total = total + self.splat_weight[:, corner] * (response * back).sum(1)
        return total / (1 + 2.0 ** (1 - axes))


def _product(weight: Tensor, factor: Tensor | None) -> Tensor:
    return weight if factor is None else weight * factor.flatten(0, 1)


def recorded(*tensors: Tensor) -> bool:
    """Whether somebody wants derivatives with respect to one of the tensors."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
