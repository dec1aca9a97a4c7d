"""The small problems of the dense CRF for `deformops check`.

The references are dense: splat, blur and slice are matrices over all vertices, and simplices are
found by sorting.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.cli.case import Case
from deformops.ops import permutohedral_filter
from deformops.testing import CHECKS

_IMAGES, _POINTS, _FEATURES, _CHANNELS = 2, 5, 3, 2
_CORNERS = _FEATURES + 1
_BANDWIDTH = 0.7
_STEPS = 2


def crf_cases(namespace: str, device: str) -> list[Case]:
    """The cases for the ops in `torch.ops.<namespace>` and tensors on a device."""
    ops = getattr(torch.ops, namespace)
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)

    points = _IMAGES * _POINTS
    features = random(_IMAGES, _POINTS, _FEATURES) / _BANDWIDTH
    values, grad_output = random(points, _CHANNELS), random(points, _CHANNELS)
    splat, slices = random(points, _CORNERS), random(points, _CORNERS)
    tangent = random(_IMAGES, _POINTS, _FEATURES)
    images = random(_IMAGES, _POINTS, _CHANNELS)
    result = []
    if namespace == "deformops":
        exact = (images, features)
        result.append(
            Case(
                "gaussian_filter",
                ops.gaussian_filter,
                _gaussian,
                exact,
                (0, 1),
                [(ops.gaussian_filter.default, exact)],
                _without("threads"),  # torch's own products decide about their bits
            )
        )

    built = ops.lattice_build(features) if device != "meta" else [features] * 5
    structure = (built[0], *built[2:])
    matrices = _Matrices(*structure)

    def follows(features: Tensor) -> Tensor:
        """Barycentric weights by their definition, [P, d + 1]."""
        return _simplices(features.flatten(0, 1))[1]

    if namespace == "deformops":
        maps = (images.transpose(1, 2), features.transpose(1, 2))
        result.append(
            Case(
                "permutohedral_filter",
                permutohedral_filter,
                _by_matrices,
                maps,
                (0, 1),
                checks=_without("opcheck"),
            )
        )
    filtered = (values, splat, slices)
    contracted = (grad_output, values, splat)
    result += [
        Case(
            "lattice_filter",
            lambda *tensors: ops.lattice_filter(*tensors, *structure, False),
            matrices.filter,
            filtered,
            (),
            [(ops.lattice_filter.default, (*filtered, *structure, False))],
            _without("types"),
        ),
        Case(
            "lattice_contract",
            lambda *tensors: ops.lattice_contract(*tensors, *structure, False),
            matrices.contract,
            contracted,
            (),
            [(ops.lattice_contract.default, (*contracted, *structure, False))],
            _without("types"),
        ),
        # The features keep their type.
        Case(
            "lattice_weights_forward",
            lambda tangent: ops.lattice_weights_forward(tangent, features),
            lambda tangent: torch.func.jvp(follows, (features,), (tangent,))[1],
            (tangent,),
            (),
            [(ops.lattice_weights_forward.default, (tangent, features))],
            _without("types", "threads"),
        ),
        Case(
            "lattice_weights_backward",
            lambda grad: ops.lattice_weights_backward(grad, features),
            lambda grad: torch.func.vjp(follows, features)[1](grad)[0],
            (splat,),
            (),
            [(ops.lattice_weights_backward.default, (splat, features))],
            _without("types", "threads"),
        ),
    ]
    unary = random(_IMAGES, _CHANNELS, _POINTS)
    penalty = random(_CHANNELS, _CHANNELS)
    lists = [[splat], [slices], *([tensor] for tensor in structure), [penalty], []]

    def steps(unary: Tensor) -> Tensor:
        q = unary.neg().softmax(1)
        for _ in range(_STEPS):
            message = matrices.filter(q.transpose(1, 2).flatten(0, 1), splat, slices) @ penalty.t()
            q = (message.unflatten(0, (_IMAGES, _POINTS)).transpose(1, 2) - unary).softmax(1)
        return q

    result.append(
        Case(
            "mean_field",
            lambda unary: ops.mean_field(unary, *lists, None, _STEPS),
            steps,
            (unary,),
            (),
            [(ops.mean_field.default, (unary, *lists, None, _STEPS))],
            ("values", "opcheck", "export"),  # it has no derivatives
        )
    )
    return result


def _without(*names: str) -> tuple[str, ...]:
    return tuple(check for check in CHECKS if check not in names)


def _gaussian(values: Tensor, features: Tensor) -> Tensor:
    distance = features[:, :, None] - features[:, None]
    return torch.exp(-0.5 * distance.square().sum(-1)) @ values


class _Matrices:
    """Splat and blur of a lattice that was built, over all its vertices."""

    def __init__(self, vertex: Tensor, start: Tensor, entry: Tensor, neighbor: Tensor) -> None:
        self.vertex = vertex
        self.neighbor = neighbor

    def filter(self, values: Tensor, splat: Tensor, slices: Tensor) -> Tensor:
        """Slices of blur(splat^T values)."""
        blurred = self._blur(values, splat)
        return torch.einsum("pkl,pk->pl", blurred[self.vertex.long()], slices)

    def contract(self, grad_output: Tensor, values: Tensor, splat: Tensor) -> Tensor:
        """<grad_output, blur(splat^T values)> at each corner."""
        return torch.einsum(
            "pkl,pl->pk", self._blur(values, splat)[self.vertex.long()], grad_output
        )

    def _blur(self, values: Tensor, splat: Tensor) -> Tensor:
        count = self.neighbor.shape[1]
        numbers = torch.arange(count, device=values.device)
        corners = (self.vertex[..., None] == numbers).to(values.dtype)  # [P, d + 1, V]
        total = torch.einsum("pkv,pk,pl->vl", corners, splat, values)
        for links in self.neighbor:
            beside = (links[..., None] == numbers).to(values.dtype).sum(1)  # [V, V]
            total = total + beside @ total / 2
        return total / (1 + 2.0 ** (1 - _CORNERS))


def _by_matrices(values: Tensor, features: Tensor) -> Tensor:
    """The filter of maps [N, C, M] by its definition, image by image."""
    outputs = []
    for value, feature in zip(values, features, strict=True):
        keys, weights = _simplices(feature.t())
        vertices, number = keys.flatten(0, 1).unique(dim=0, return_inverse=True)
        neighbors = []
        for axis in range(_CORNERS):
            step = torch.ones(_CORNERS, dtype=keys.dtype, device=keys.device)
            step[axis] = 1 - _CORNERS
            found = [_find(vertices, vertices + sign * step) for sign in (-1, 1)]
            neighbors.append(torch.stack(found, 1))
        number = number.reshape(keys.shape[:2])
        matrices = _Matrices(number, number, number, torch.stack(neighbors))
        outputs.append(matrices.filter(value.t(), weights, weights).t())
    return torch.stack(outputs) if outputs else values * features.sum()


def _find(vertices: Tensor, wanted: Tensor) -> Tensor:
    """The number of each wanted vertex, -1 where there is none."""
    same = (vertices == wanted[:, None]).all(-1)
    return torch.where(same.any(1), same.int().argmax(1), -1)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """The corners [P, d + 1, d + 1] of each point's simplex, and their weights [P, d + 1]."""
    size = _CORNERS
    lift = features.new_zeros(size - 1, size)
    for i in range(size - 1):
        scale = size * (2 / 3 / ((i + 1) * (i + 2))) ** 0.5
        lift[i, : i + 1] = scale
        lift[i, i + 1] = -(i + 1) * scale
    lifted = features @ lift
    base = (lifted / size).round() * size
    excess = base.sum(1, keepdim=True) / size
    rank = (lifted - base).argsort(1, descending=True).argsort(1)
    # Rounding left the plane: back where it went furthest.
    base = base - size * (rank >= size - excess) + size * (rank < -excess)
    order = (lifted - base).argsort(1, descending=True)
    rank = order.argsort(1)
    away = ((lifted - base) / size).gather(1, order)
    weights = torch.cat([1 - away[:, :1] + away[:, -1:], (away[:, :-1] - away[:, 1:]).flip(1)], 1)
    remainder = torch.arange(size, device=features.device)[:, None]
    corners = base[:, None] + remainder - size * (rank[:, None] >= size - remainder)
    return corners.detach().long(), weights
