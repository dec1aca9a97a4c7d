"""PermutohedralLattice and permutohedral_filter: Gaussian filtering in many dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._filters import NORMALIZATIONS, normalized
from deformops.ops._lattice import LatticeFilter
from deformops.ops._points import as_points, check_alike, check_map, check_maps, like_map


class PermutohedralLattice:
    """The lattice of the pixels of some images, built once and used for any number of filters.

    A pixel is a point of d features: its place, its colour, whatever. The lattice has the vertices
    of the simplices in which there is a point; a filter adds the value of each point to the
    vertices of its simplex (splat), blurs along d + 1 axes, and reads back (slice). That
    approximates

        output_i = sum_j exp(-|f_i - f_j|^2 / 2) values_j,      j = i included,

    up to a factor of about the same size everywhere, in time linear in the number of points. The
    images of a batch know nothing of each other. Differentiable in the values and, as long as
    points stay in their simplices, in the features: the weights with which a point splats and
    slices change linearly with them.

    In float32 it takes 12 (d + 1) bytes for each point and 8 (d + 1) for each vertex, of which
    there are at most d + 1 for each point; on the CPU, building takes 24 (d + 1) more for each
    point. Filtering takes a row of up to 32 channels for each vertex, a third of that for the way
    from axis to axis, and another for each point whose channels are not side by side.

    Args:
        features: [N, d, ...] in units of the bandwidths, any number of spatial dimensions.

    Raises:
        ValueError: a feature is NaN or infinite, or so large that its last digits would not tell
            where in a simplex it lies; shapes do not fit.
        TypeError: features is no tensor of floating-point numbers.

    Source: Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice
    (2010).
    """

    def __init__(self, features: Tensor) -> None:
        checks = Checks("PermutohedralLattice")
        check_map(checks, "features", features, "d")
        kind = torch.promote_types(features.dtype, torch.float32)
        self._like = features.detach()[:, :0]  # images, spatial dimensions and device, no numbers
        places = as_points(features).to(kind)
        self._filter = LatticeFilter.build(places, "PermutohedralLattice: features")

    @property
    def num_vertices(self) -> int:
        """The number of vertices, of all images together."""
        return self._filter.structure[3].shape[1]

    @property
    def spatial_size(self) -> torch.Size:
        """The spatial dimensions of the maps that it filters."""
        return self._like.shape[2:]

    def filter(
        self, values: Tensor, *, normalization: str = "none", transposed: bool = False
    ) -> Tensor:
        """Filters maps of the pixels that the lattice was built of.

        Args:
            values: [N, C, ...] with any number of channels.
            normalization: what K, the filter as a matrix, is divided by; s are the sums of its
                rows. "none"; "after": rows by s, so that weights sum to 1; "before": columns by s;
                "symmetric": both by the root of s.
            transposed: whether to apply the transpose of K. It differs from K by what is lost at
                the border of the lattice: blurs along different axes exchange only where all
                vertices between are there.

        Returns:
            [N, C, ...], of the type of values. Half types are computed in float32.

        Raises:
            ValueError: shapes do not fit; there is no such normalization.
            TypeError: values is no tensor of floating-point numbers.
        """
        checks = Checks("PermutohedralLattice.filter")
        check_map(checks, "values", values, "C")
        checks.choice("normalization", normalization, NORMALIZATIONS)
        points = as_points(values).to(self._filter.splat_weight.dtype)
        chosen = normalized(self.filter_for(checks, "values", points, values), normalization)
        with torch.autocast(values.device.type, enabled=False):
            return like_map((chosen.transposed if transposed else chosen)(points), values)

    def filter_for(self, checks: Checks, name: str, points: Tensor, like: Tensor) -> LatticeFilter:
        """The filter as an operator on points, if it fits those of a map; else ValueError."""
        check_alike(checks, name, like, "the lattice's features", self._like)
        kind = self._filter.splat_weight.dtype
        expected = f"the type of the lattice's features, {kind}"
        checks.require(points.dtype == kind, name, expected, points.dtype)
        return self._filter


def permutohedral_filter(
    values: Tensor, features: Tensor, *, normalization: str = "none"
) -> Tensor:
    """Filters with a Gaussian in the space of some features: `PermutohedralLattice`, used once.

    Args:
        values: [N, C, ...].
        features: [N, d, ...], of the same spatial dimensions, in units of the bandwidths.
        normalization: see `PermutohedralLattice.filter`.

    Returns:
        [N, C, ...], of the type of values.

    Raises:
        ValueError: shapes do not fit, or a feature is too large, NaN or infinite.
        TypeError: an argument is no tensor of floating-point numbers.
    """
    check_maps("permutohedral_filter", values, features)
    wide = torch.promote_types(values.dtype, features.dtype)
    return PermutohedralLattice(features.to(wide)).filter(values, normalization=normalization)
