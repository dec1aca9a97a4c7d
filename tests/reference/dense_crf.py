"""The dense CRF over all pairs: kernels as matrices, mean field, energy, and all labellings.

Written from Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials (2011). A kernel is a matrix ``[P, P]``, exact here; where the lattice is the judge, its
own matrix takes the place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Term = tuple[Array, Array]
"""A normalised kernel ``[P, P]`` and its penalty ``[L, L]``, weight included."""


def spatial_features(size: Sequence[int], sigma: float) -> Array:
    """Coordinates ``[P, n]`` of the pixels of an image, in units of sigma."""
    grids = np.meshgrid(*(np.arange(float(n)) for n in size), indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=1) / sigma


def bilateral_features(image: Array, sigma_xy: float, sigma_rgb: float) -> Array:
    """Coordinates and colours ``[P, n + C]`` of an image ``[C, ...]``."""
    colors = image.reshape(image.shape[0], -1).T / sigma_rgb
    return np.concatenate([spatial_features(image.shape[1:], sigma_xy), colors], axis=1)


def gaussian_kernel(features: Array) -> Array:
    """``exp(-|f_i - f_j|^2 / 2)`` for every pair."""
    difference = features[:, None, :] - features[None, :, :]
    kernel: Array = np.exp(-0.5 * (difference**2).sum(-1))
    return kernel


def normalize(kernel: Array, normalization: str) -> Array:
    """The kernel with rows, columns or both divided by the sums of its rows."""
    total = kernel.sum(1)
    rows = {"none": 1.0, "before": 1.0, "after": 1 / total, "symmetric": total**-0.5}
    columns = {"none": 1.0, "before": 1 / total, "after": 1.0, "symmetric": total**-0.5}
    scaled: Array = (
        kernel
        * np.broadcast_to(rows[normalization], total.shape)[:, None]
        * np.broadcast_to(columns[normalization], total.shape)[None, :]
    )
    return scaled


def penalty(compatibility: object, labels: int) -> Array:
    """What a pair of labels costs, ``[L, L]``.

    A number: that for any two labels that differ; a vector: for two pixels of the same label; a
    matrix: its symmetric part.
    """
    given = np.asarray(compatibility, dtype=np.float64)
    if given.ndim == 0:
        return given * (1 - np.eye(labels))
    if given.ndim == 1:
        return np.diag(given)
    return (given + given.T) / 2


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities: Array = powers / powers.sum(-1, keepdims=True)
    return probabilities


def mean_field(
    unary: Array, terms: Sequence[Term], iterations: int, self_message: bool = True
) -> list[Array]:
    """Q ``[P, L]`` at the start and after every step, from energies ``[P, L]``."""
    steps = [softmax(-unary)]
    for _ in range(iterations):
        steps.append(softmax(-unary - _messages(steps[-1], terms, self_message)))
    return steps


def free_energy(q: Array, unary: Array, terms: Sequence[Term], self_message: bool = True) -> float:
    """The expected energy under Q less its entropy: KL(Q | P) less log Z."""
    safe = np.where(q > 0, q, 1.0)
    pairs = 0.5 * (q * _messages(q, terms, self_message)).sum()
    return float((q * unary).sum() + pairs + (q * np.log(safe)).sum())


def _messages(q: Array, terms: Sequence[Term], self_message: bool) -> Array:
    total = np.zeros_like(q)
    for kernel, costs in terms:
        used = kernel if self_message else kernel - np.diag(np.diag(kernel))
        total += used @ q @ costs.T
    return total


def energy(unary: Array, labels: Labels, terms: Sequence[Term]) -> float:
    """Of one labelling ``[P]``: every pixel, and every pair once."""
    total = 0.0
    for i in range(len(labels)):
        total += unary[i, labels[i]]
        for j in range(i):
            for kernel, costs in terms:
                total += 0.5 * (kernel[i, j] + kernel[j, i]) * costs[labels[i], labels[j]]
    return float(total)


def labellings(pixels: int, labels: int) -> Iterator[Labels]:
    """Every way to label so many pixels."""
    for labelling in itertools.product(range(labels), repeat=pixels):
        yield np.array(labelling, dtype=np.int64)
