"""grid_energy: what a labelling costs where only neighbours meet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._labels import check_labels
from deformops.ops._points import check_map


def grid_energy(unary: Tensor, labels: Tensor, pairwise: Tensor | Sequence[Tensor]) -> Tensor:
    """Returns the energy of a labelling of a grid, in which each pixel meets its neighbours.

        E(x) = sum_i unary_i(x_i) + sum over neighbours (i, j) of pairwise(x_i, x_j)

    Neighbours are next to each other along one axis, 4 of them in an image; each pair counts once,
    and i comes before j. The bridge between chain and image: with height 1 it is the energy of a
    linear chain (`LinearChain`: the score is -E of negated scores), with all pairs in place of the
    neighbours that of a dense CRF (`crf_energy`).

    Args:
        unary: [N, L, ...] energies.
        labels: [N, ...] integers from 0 to L - 1.
        pairwise: [L, L], what the labels of the first (row) and of the second (column) of a pair
            cost; or a list of these, one for each spatial dimension: (vertical, horizontal).

    Returns:
        [N] energies.

    Raises:
        ValueError: shapes do not fit, or a label is out of range.
        TypeError: an argument has the wrong type.
    """
    checks = Checks("grid_energy")
    check_map(checks, "unary", unary, "L")
    check_labels(checks, labels, unary)
    dims = unary.dim() - 2
    costs = [pairwise] * dims if isinstance(pairwise, Tensor) else list(pairwise)
    checks.require(len(costs) == dims, "pairwise", f"one or {dims} of [L, L]", f"{len(costs)}")
    count = unary.shape[1]
    places = labels.long()
    total = unary.gather(1, places.unsqueeze(1)).flatten(1).sum(1)
    for axis, cost in enumerate(costs):
        checks.tensor("pairwise", cost, "[L, L]")
        checks.like("pairwise", cost, "unary", unary)
        checks.shape("pairwise", cost, (count, count), "[L, L]")
        length = places.shape[axis + 1]
        first = places.narrow(axis + 1, 0, max(length - 1, 0))
        second = places.narrow(axis + 1, min(length, 1), max(length - 1, 0))
        total = total + cost[first, second].flatten(1).sum(1)
    return total
