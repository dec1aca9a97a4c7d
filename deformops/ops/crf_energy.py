"""crf_energy: what a labelling costs in a dense CRF."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deformops.ops import _mean_field
from deformops.ops._checks import Checks
from deformops.ops._labels import check_labels, one_hot
from deformops.ops._points import as_points
from deformops.ops.pairwise import Compatibility, Pairwise


def crf_energy(
    unary: Tensor,
    image: Tensor | None,
    labels: Tensor,
    *,
    pairwise: Sequence[Pairwise],
    normalization: str = "none",
    compatibility: Compatibility | None = None,
    method: str = "exact",
) -> Tensor:
    """Returns the energy of a labelling, each pair of pixels counted once.

        E(x) = sum_i unary_i(x_i) + sum_{i < j} sum_k w_k mu_k(x_i, x_j) K_k(i, j)

    `dense_crf` infers the marginals of the distribution that is proportional to exp(-E(x)).

    Args:
        unary: [N, L, ...] energies.
        image: [N, C, ...], or None.
        labels: [N, ...] integers from 0 to L - 1.
        pairwise: the terms of the CRF; see `dense_crf`.
        normalization: see `dense_crf`, whose default is "symmetric"; here the kernels are used as
            they are unless you say otherwise. Where K is not symmetric, a pair has the mean of
            K(i, j) and K(j, i).
        compatibility: see `dense_crf`.
        method: "exact" sums over all pairs, see `dense_crf` for how long that takes; "lattice"
            takes the filter on the permutohedral lattice in place of K, in linear time.

    Returns:
        [N] energies, of the type of unary, float32 for half types. Differentiable in all but the
        labels.

    Raises:
        ValueError: a shape, an option or a label does not fit.
        TypeError: an argument has the wrong type.

    Source: Kraehenbuehl and Koltun (2011), equation 1.
    """
    with torch.autocast(unary.device.type if isinstance(unary, Tensor) else "cpu", enabled=False):
        crf = _mean_field.build(
            "crf_energy",
            unary,
            image,
            pairwise,
            normalization=normalization,
            compatibility=compatibility,
            method=method,
            self_message=False,
            certain=True,
        )
        check_labels(Checks("crf_energy"), labels, unary)
        return crf.energy(as_points(one_hot(labels, unary.shape[1], crf.unary.dtype)))
