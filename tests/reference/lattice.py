"""The permutohedral lattice as matrices: which vertices enclose a point, and how they blur.

Written from Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice
(2010). Splat is a matrix ``[V, P]``, the blur along each axis another one ``[V, V]``: a filter is
their product, its transpose the product of the transposes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vertex = tuple[int, ...]


def elevate(features: Array) -> Array:
    """Points ``[P, d]`` on the hyperplane of d + 1 numbers whose sum is 0.

    The axes are scaled so that the blur of the lattice has about the variance 1 of the features.
    """
    points, dims = features.shape
    elevated = np.zeros((points, dims + 1))
    for i in range(dims):
        # The direction that gives numbers 0 to i the same, number i + 1 minus their sum.
        direction = np.zeros(dims + 1)
        direction[: i + 1] = 1.0
        direction[i + 1] = -(i + 1.0)
        scale = (dims + 1) * np.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2))
        elevated += scale * features[:, i : i + 1] * direction
    return elevated


def simplex(point: Array) -> tuple[list[Vertex], Array]:
    """The d + 1 lattice vertices around an elevated point, and its barycentric coordinates."""
    size = len(point)
    nearest = np.round(point / size) * size
    order = np.argsort(-(point - nearest), kind="stable")
    excess = int(nearest.sum()) // size
    # Vertices of remainder 0 have the sum 0: give back where rounding went furthest.
    if excess > 0:
        nearest[order[size - excess :]] -= size
    elif excess < 0:
        nearest[order[:-excess]] += size
    distance = point - nearest
    order = np.argsort(-distance, kind="stable")
    falling = distance[order] / size
    vertices, weights = [], []
    for remainder in range(size):
        vertex = nearest + remainder
        vertex[order[size - remainder :]] -= size
        vertices.append(tuple(int(number) for number in vertex))
        if remainder == 0:
            weights.append(1 - (falling[0] - falling[-1]))
        else:
            weights.append(falling[size - 1 - remainder] - falling[size - remainder])
    return vertices, np.array(weights)


@dataclass(frozen=True)
class Lattice:
    """Points, as columns of ``splat``, on the vertices that enclose any of them."""

    splat: Array  # [V, P]: barycentric weights
    axes: tuple[Array, ...]  # of each axis [V, V]: a vertex and half of its two neighbours
    vertices: tuple[Vertex, ...]

    @property
    def blur(self) -> Array:
        """The blur along all axes in turn, ``[V, V]``, with response 1 at distance 0 in the dense
        lattice.
        """
        product = np.eye(len(self.vertices))
        for axis in self.axes:
            product = axis @ product
        return product / (1 + 2.0 ** (1 - len(self.axes)))

    @property
    def kernel(self) -> Array:
        """The whole filter, ``[P, P]``; its transpose blurs along the axes in reverse order."""
        return self.splat.T @ self.blur @ self.splat


def build(features: Array) -> Lattice:
    """The lattice of points ``[P, d]``, whose features are in units of the bandwidths."""
    points, dims = features.shape
    numbers: dict[Vertex, int] = {}
    entries = []
    for p, point in enumerate(elevate(features)):
        for vertex, weight in zip(*simplex(point), strict=True):
            entries.append((numbers.setdefault(vertex, len(numbers)), p, weight))
    splat = np.zeros((len(numbers), points))
    for v, p, weight in entries:
        splat[v, p] += weight
    axes = []
    for axis in range(dims + 1):
        step = np.ones(dims + 1, dtype=int)
        step[axis] = -dims
        blur = np.eye(len(numbers))
        for vertex, v in numbers.items():
            for sign in (1, -1):
                neighbor = numbers.get(tuple(int(n) for n in np.array(vertex) + sign * step))
                if neighbor is not None:
                    blur[v, neighbor] = 0.5
        axes.append(blur)
    return Lattice(splat, tuple(axes), tuple(numbers))
