"""What the tests of the dense CRF have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.cases import numpy
from tests.reference import dense_crf as reference
from tests.reference import lattice

DOUBLE = torch.float64
Array = NDArray[np.float64]


def tensor(array: Array) -> Tensor:
    """As a batch of one."""
    return torch.from_numpy(np.ascontiguousarray(array))[None]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def by_pixel(tensor: Tensor) -> Array:
    """One map [1, L, ...] as [P, L]."""
    array: Array = numpy(tensor[0].flatten(1).t())
    return array


def terms(
    features: Sequence[Array],
    penalties: Sequence[Array],
    normalization: str,
    method: str,
) -> list[reference.Term]:
    """The terms of the reference; the lattice takes coordinates x first."""
    kernels = {
        "exact": reference.gaussian_kernel,
        "lattice": lambda each: lattice.build(each).kernel,
    }
    return [
        (reference.normalize(kernels[method](each), normalization), penalty)
        for each, penalty in zip(features, penalties, strict=True)
    ]


def x_first(features: Array, dims: int = 2) -> Array:
    return np.concatenate([features[:, :dims][:, ::-1], features[:, dims:]], axis=1)
