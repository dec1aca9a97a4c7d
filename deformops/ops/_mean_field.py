"""Mean field in a dense CRF whose pairwise terms are filters of points.

With K the filter of a term and C its attraction, a step is

    Q <- softmax(-unary + sum over terms of C K Q).

The attraction is the penalty with the other sign. Of Potts' penalty, w where labels differ, only
w K Q is left of it: the rest, w times the sum of K Q over all labels, is the same for all labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deformops.ops._checks import Checks, as_numbers
from deformops.ops._filters import NORMALIZATIONS, ExactFilter, PairFilter, normalized
from deformops.ops._lattice import STRUCTURE, LatticeFilter, recorded
from deformops.ops._points import as_points, check_alike, check_map
from deformops.ops.pairwise import Bilateral, FeatureKernel, Gaussian, Pairwise
from deformops.ops.permutohedral_filter import PermutohedralLattice

METHODS = ("lattice", "exact")


@dataclass(frozen=True)
class Term:
    """A pairwise term of a CRF with N images of M pixels."""

    filter: PairFilter
    attraction: Tensor
    """[] for Potts, [L] by label, or [L, L], symmetric."""
    self_weight: Tensor | None
    """[N, M, 1], what to take off the diagonal of the filter."""

    def filtered(self, q: Tensor) -> Tensor:
        """K Q, [N, M, L]."""
        result = self.filter(q)
        return result if self.self_weight is None else result - self.self_weight * q

    def message(self, filtered: Tensor) -> Tensor:
        """C K Q, from K Q."""
        if self.attraction.dim() == 2:
            return filtered @ self.attraction
        return self.attraction * filtered

    def cost(self, q: Tensor, filtered: Tensor) -> Tensor:
        """The expected cost of all pairs of pixels, each once, [N]."""
        total = -(q * self.message(filtered)).sum((1, 2))
        if self.attraction.dim() == 0:
            total = total + self.attraction * (q.sum(2) * filtered.sum(2)).sum(1)
        return total / 2


@dataclass(frozen=True)
class MeanField:
    """A CRF: energies of the pixels, [N, M, L], and pairwise terms."""

    unary: Tensor
    terms: Sequence[Term]

    def contiguous(self) -> MeanField:
        """The same with the numbers of each pixel side by side, as filters like them."""
        return replace(self, unary=self.unary.contiguous())

    def logits(self, q: Tensor) -> Tensor:
        """Of the Q that follows."""
        logits = -self.unary
        for term in self.terms:
            logits = logits + term.message(term.filtered(q))
        return logits

    def energy(self, q: Tensor) -> Tensor:
        """The expected energy under Q, every pair once, [N]."""
        total = torch.where(q > 0, q * self.unary, 0.0).sum((1, 2))
        for term in self.terms:
            total = total + term.cost(q, term.filtered(q))
        return total

    @property
    def fusible(self) -> bool:
        """Whether one call can do all steps: on lattices, when nobody wants derivatives."""
        weights = [term.attraction for term in self.terms]
        for term in self.terms:
            if not isinstance(term.filter, LatticeFilter):
                return False
            weights += [term.filter.splat_weight, term.filter.slice_weight]
        return not recorded(self.unary, *weights)

    def run(self, iterations: int, q: Tensor | None) -> Tensor:
        """So many steps in one call, from Q or from the start."""
        filters: Any = [term.filter for term in self.terms]
        result: Tensor = torch.ops.deformops.mean_field(
            self.unary.transpose(1, 2),
            [each.splat_weight for each in filters],
            [each.slice_weight for each in filters],
            *([each.structure[i] for each in filters] for i in range(len(STRUCTURE))),
            [term.attraction for term in self.terms],
            [term.self_weight.flatten() for term in self.terms if term.self_weight is not None],
            None if q is None else q.transpose(1, 2),
            iterations,
        )
        return result.transpose(1, 2)


def build(
    op: str,
    unary: Any,
    image: Any,
    pairwise: Any,
    *,
    normalization: Any,
    compatibility: Any,
    method: Any,
    self_message: bool,
    certain: bool = False,
) -> MeanField:
    """Checks the arguments of a public function and makes the CRF of them.

    `certain` says that Q will be of labels that are certain: with Potts' penalty, then, a pixel
    costs nothing beside itself, whether that is left out or not.
    """
    checks = Checks(op)
    check_map(checks, "unary", unary, "L")
    checks.require(unary.shape[1] >= 1, "unary", "at least one label", list(unary.shape))
    kind = torch.promote_types(unary.dtype, torch.float32)
    if image is not None:
        if isinstance(image, Tensor) and not image.is_floating_point():
            image = image.to(kind)
        check_map(checks, "image", image, "C")
        check_alike(checks, "image", image, "unary", unary)
        image = image.to(kind)
    checks.choice("normalization", normalization, NORMALIZATIONS)
    checks.choice("method", method, METHODS)
    points = as_points(unary.to(kind))
    terms = []
    for number, term in enumerate(_listed(checks, pairwise)):
        name = f"pairwise[{number}]"
        whole = _filter(checks, name, term, image, unary, points, method)
        scaled = normalized(whole, normalization)
        given = compatibility if term.compatibility is None else term.compatibility
        attraction = _attraction(checks, name, term.weight, given, points)
        kept = self_message or (certain and attraction.dim() == 0)
        self_weight = None if kept else scaled.diagonal().reshape(*points.shape[:2], 1)
        terms.append(Term(scaled, attraction, self_weight))
    return MeanField(points, terms)


def _listed(checks: Checks, pairwise: Any) -> Sequence[Pairwise]:
    expected = "a list of Gaussian, Bilateral and FeatureKernel"
    if not isinstance(pairwise, Sequence):
        raise TypeError(f"{checks.op}: pairwise: expected {expected}, got {_type(pairwise)}")
    for term in pairwise:
        if not isinstance(term, (Gaussian, Bilateral, FeatureKernel)):
            raise TypeError(f"{checks.op}: pairwise: expected {expected}, got {_type(term)} in it")
    return pairwise


def _filter(
    checks: Checks,
    name: str,
    term: Pairwise,
    image: Tensor | None,
    unary: Tensor,
    points: Tensor,
    method: str,
) -> PairFilter:
    """The filter of a term, not normalised."""
    if isinstance(term, FeatureKernel):
        features: Any = term.features
        if isinstance(features, PermutohedralLattice):
            expected = "features in place of a lattice with method 'exact'"
            checks.require(method == "lattice", name, expected, "a PermutohedralLattice")
            return features.filter_for(checks, name, points, unary)
        check_map(checks, name, features, "d")
    else:
        if image is None and isinstance(term, Bilateral):
            raise ValueError(f"{checks.op}: image: expected a tensor for {name}, got None")
        like = unary.to(points.dtype) if image is None else image
        try:
            features = term.features(unary.shape[2:], like)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{checks.op}: {name}.{error}") from None
        features = features.expand(unary.shape[0], *features.shape[1:])
    check_alike(checks, name, features, "unary", unary)
    places = as_points(features).to(points.dtype)
    if method == "exact":
        return ExactFilter(places)
    return LatticeFilter.build(places, f"{checks.op}: {name}: features")


def _attraction(
    checks: Checks, name: str, weight: Any, compatibility: Any, points: Tensor
) -> Tensor:
    """The penalty of a term with the other sign: [], [L] or [L, L]."""
    labels = points.shape[2]
    options: dict[str, Any] = {"dtype": points.dtype, "device": points.device}
    scale = as_numbers(f"{checks.op}: {name}.weight", weight, **options)
    checks.require(scale.dim() == 0, f"{name}.weight", "a number", list(scale.shape))
    if compatibility is None:
        return scale
    given = as_numbers(f"{checks.op}: compatibility", compatibility, **options)
    expected = f"a number, [{labels}] or [{labels}, {labels}]"
    fits = given.dim() <= 2 and all(length == labels for length in given.shape)
    checks.require(fits, "compatibility", expected, f"shape {list(given.shape)}")
    if given.dim() == 0:
        return scale * given
    if given.dim() == 1:
        return -scale * given
    return -scale * (given + given.t()) / 2


def _type(value: Any) -> str:
    return type(value).__name__
