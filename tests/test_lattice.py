"""The permutohedral lattice: against its definition as matrices, against the exact Gaussian filter
within a stated bound, and the derivatives of both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deformops
from deformops import Bilateral, PermutohedralLattice, gaussian_filter, permutohedral_filter
from deformops.ops._lattice import LatticeFilter
from deformops.testing import check_op
from tests import crf_goldens as goldens
from tests.cases import arrange, assert_close, numpy
from tests.reference import dense_crf as exact
from tests.reference import lattice as reference

Threads = Callable[[int], AbstractContextManager[None]]
raw = torch.ops.deformops
DOUBLE = torch.float64


def points(*shape: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    """Features [N, M, d] or values, in float64; every other point is the neighbour of the last."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=DOUBLE) * spread


def as_map(tensor: Tensor) -> Tensor:
    """[N, M, C] as [N, C, M]."""
    return tensor.transpose(1, 2)


# --- the reference -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens.FILTERED)
def test_reference_gives_published_filters(name: str) -> None:
    case = goldens.FILTERED[name]
    kernel = reference.build(case.features[:, None]).kernel
    np.testing.assert_allclose(case.input @ kernel.T / kernel.sum(1), case.output, atol=6e-7)


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_reference_interpolates(dims: int) -> None:
    """Barycentric weights are positive, sum to 1 and have the point as their mean."""
    lifted = reference.elevate(points(50, dims).numpy())
    for point in lifted:
        vertices, weights = reference.simplex(point)
        assert weights.min() >= -1e-12
        np.testing.assert_allclose(weights @ np.array(vertices), point, atol=1e-9)
        for remainder, vertex in enumerate(vertices):
            assert sum(vertex) == 0
            assert {coordinate % (dims + 1) for coordinate in vertex} == {remainder}


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens.FILTERED)
def test_published_filters(name: str) -> None:
    case = goldens.FILTERED[name]
    values, features = (torch.from_numpy(x)[None] for x in (case.input, case.features[None]))
    output = permutohedral_filter(values, features, normalization="after")
    np.testing.assert_allclose(output[0].numpy(), case.output, atol=6e-7)
    single = permutohedral_filter(values.float(), features.float(), normalization="after")
    np.testing.assert_allclose(single[0].numpy(), case.output, atol=2e-6)


@given(
    images=st.integers(1, 3),
    count=st.integers(1, 14),
    dims=st.sampled_from((1, 2, 3, 4, 5, 6, 9)),
    channels=st.sampled_from((1, 2, 5, 17)),
    spread=st.sampled_from((0.1, 1.0, 4.0)),
    dtype=st.sampled_from((torch.float64, torch.float32)),
    layout=st.sampled_from(("contiguous", "strided", "permuted")),
    seed=st.integers(0, 2**16),
)
def test_filter_is_its_matrix(
    images: int,
    count: int,
    dims: int,
    channels: int,
    spread: float,
    dtype: torch.dtype,
    layout: str,
    seed: int,
) -> None:
    """And so are its transpose and its diagonal; images know nothing of each other."""
    # Multiples of 1/64 are the same simplex in both types.
    features = (points(images, count, dims, spread=64 * spread, seed=seed).round() / 64).to(dtype)
    values = arrange(points(images, count, channels, seed=seed + 1).to(dtype), layout)
    built = LatticeFilter.build(features)
    kernels = [reference.build(numpy(image)).kernel for image in features]
    assert built.structure[3].shape[1] == sum(
        len(reference.build(numpy(image)).vertices) for image in features
    )
    want = np.stack([kernel @ numpy(v) for kernel, v in zip(kernels, values, strict=True)])
    assert_close(built(values), want)
    want = np.stack([kernel.T @ numpy(v) for kernel, v in zip(kernels, values, strict=True)])
    assert_close(built.transposed(values), want)
    assert_close(built.diagonal(), np.concatenate([np.diag(kernel) for kernel in kernels]))
    assert_close(built.transposed.diagonal(), built.diagonal())


def test_structure() -> None:
    """What `lattice_build` promises about its tensors."""
    features = points(2, 40, 3, spread=0.7)
    vertex, weight, start, entry, neighbor = (x.numpy() for x in raw.lattice_build(features))
    count = neighbor.shape[1]
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-12)
    assert weight.min() >= -1e-12
    assert np.array_equal(np.unique(vertex), np.arange(count))
    for v in range(count):
        own = entry[start[v] : start[v + 1]]
        assert (np.diff(own) > 0).all()
        assert (vertex.flatten()[own] == v).all()
    for axis in range(4):
        behind, ahead = neighbor[axis].T
        found = np.flatnonzero(ahead >= 0)
        assert np.array_equal(behind[ahead[found]], found)
    assert vertex[:40].max() < vertex[40:].min()


@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
def test_normalization(normalization: str) -> None:
    features, values = points(1, 11, 3), points(1, 11, 2)
    kernel = exact.normalize(reference.build(features[0].numpy()).kernel, normalization)
    lattice = PermutohedralLattice(as_map(features))
    output = lattice.filter(as_map(values), normalization=normalization)
    assert_close(output[0].t(), kernel @ values[0].numpy())
    output = lattice.filter(as_map(values), normalization=normalization, transposed=True)
    assert_close(output[0].t(), kernel.T @ values[0].numpy())
    if normalization == "after":
        ones = torch.ones(1, 1, 11, dtype=DOUBLE)
        assert_close(lattice.filter(ones, normalization=normalization), ones)


def test_linear_and_adjoint() -> None:
    lattice = PermutohedralLattice(points(2, 5, 6, 7))
    x, y = points(2, 3, 6, 7, seed=1), points(2, 3, 6, 7, seed=2)
    assert_close(lattice.filter(2 * x - y), 2 * lattice.filter(x) - lattice.filter(y))
    back = (x * lattice.filter(y, transposed=True)).sum()
    torch.testing.assert_close((lattice.filter(x) * y).sum(), back, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("dims", "bound"), [(1, 1e-12), (2, 2e-3), (3, 1e-2)])
def test_symmetric_where_the_lattice_is_dense(dims: int, bound: float) -> None:
    """Blurs along different axes exchange where no vertex between is missing."""
    lattice = PermutohedralLattice(points(1, dims, 4000, spread=0.8))
    inside = torch.zeros(1, 1, 4000, dtype=DOUBLE)
    inside[..., :50] = torch.rand(50, dtype=DOUBLE)
    forth, back = lattice.filter(inside), lattice.filter(inside, transposed=True)
    assert float((forth - back).norm() / forth.norm()) < bound


def test_permuted_pixels() -> None:
    features, values = points(1, 4, 60), points(1, 3, 60, seed=1)
    order = torch.randperm(60)
    output = permutohedral_filter(values, features)
    assert_close(permutohedral_filter(values[..., order], features[..., order]), output[..., order])


def test_channels_are_apart() -> None:
    features, values = points(1, 3, 50), points(1, 21, 50, seed=1)
    lattice = PermutohedralLattice(features)
    together = lattice.filter(values)
    for channel in range(21):
        assert_close(lattice.filter(values[:, channel : channel + 1])[:, 0], together[:, channel])


def test_images_are_apart() -> None:
    """A batch is a loop, however near the points of its images are to each other."""
    features, values = points(3, 4, 30), points(3, 2, 30, seed=1)
    features[2] = features[0]
    together = permutohedral_filter(values, features)
    for n in range(3):
        one = permutohedral_filter(values[n : n + 1], features[n : n + 1])
        assert_close(one[0], together[n])


@pytest.mark.parametrize("size", [(24,), (4, 6), (2, 3, 4)])
def test_spatial_dimensions(size: tuple[int, ...]) -> None:
    features, values = points(2, 3, 24), points(2, 5, 24, seed=1)
    want = permutohedral_filter(values, features)
    shaped = permutohedral_filter(values.unflatten(2, size), features.unflatten(2, size))
    assert torch.equal(shaped, want.unflatten(2, size))


def photo_features() -> tuple[Tensor, Tensor]:
    """Five features of a synthetic photo, two surfaces with shading and noise; its two masks."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    disk = ((y - 15) ** 2 + (x - 18) ** 2 < 90).double()
    shade = torch.stack([40 + 3 * x, 60 + 2 * y, 90 + x + y]).double()
    image = shade + disk * 80 + points(3, 32, 32, spread=4.0)
    return Bilateral(8.0, 20.0).features((32, 32), image[None]), torch.stack([disk, 1 - disk])[None]


# Measured: .013, .013, .018, .021 and .056. Points in one simplex splat and slice linearly where
# the Gaussian is round; where vertices are missing, the blur is cut short.
BOUNDS = {1: 0.02, 2: 0.02, 3: 0.03, 5: 0.03}


@pytest.mark.parametrize("dims", BOUNDS)
def test_near_the_exact_filter(dims: int) -> None:
    """Symmetrically normalised, of random numbers: in relative norm within the stated bounds."""
    random = torch.Generator().manual_seed(0)
    features = 2 * torch.rand(1, dims, 600, generator=random, dtype=DOUBLE)
    values = torch.rand(1, 4, 600, generator=random, dtype=DOUBLE)
    assert relative_error(values, features) < BOUNDS[dims]


def test_near_the_exact_filter_on_a_photo() -> None:
    features, masks = photo_features()
    assert relative_error(masks, features) < 0.08


def relative_error(values: Tensor, features: Tensor) -> float:
    kernel = exact.normalize(exact.gaussian_kernel(features.flatten(2)[0].t().numpy()), "symmetric")
    want = torch.from_numpy(kernel @ values.flatten(2)[0].t().numpy()).t()
    got = permutohedral_filter(values, features, normalization="symmetric").flatten(2)[0]
    return float((got - want).norm() / want.norm())


# --- the exact filter ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_exact_filter_is_the_kernel(dtype: torch.dtype) -> None:
    features, values = points(2, 5, 3, 4).to(dtype), points(2, 3, 3, 4, seed=1).to(dtype)
    kernels = [exact.gaussian_kernel(numpy(image.flatten(1).t())) for image in features]
    want = [kernel @ numpy(v.flatten(1).t()) for kernel, v in zip(kernels, values, strict=True)]
    output = gaussian_filter(values, features)
    assert output.dtype == dtype
    assert_close(output.flatten(2).transpose(1, 2), np.stack(want))


def test_exact_filter_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = points(2, 3, 50), points(2, 4, 50, seed=1)
    want = gaussian_filter(values, features)
    monkeypatch.setattr("deformops.ops._gaussian._CHUNK", 7 * 50)
    assert_close(gaussian_filter(values, features), want)


def test_exact_filter_far_away() -> None:
    """Distances of points far from the origin do not lose their digits."""
    features, values = points(1, 2, 30).float().round(), points(1, 1, 30, seed=1).float()
    assert_close(gaussian_filter(values, features + 4096), gaussian_filter(values, features))


def test_exact_filter_check() -> None:
    def dense(values: Tensor, features: Tensor) -> Tensor:
        distance = features[:, :, None] - features[:, None]
        return torch.exp(-0.5 * (distance**2).sum(-1)) @ values

    values, features = points(2, 4, 2, spread=1.0), points(2, 4, 2, spread=1.0, seed=1)
    op = raw.gaussian_filter.default
    checked = {"reference": dense, "raw_calls": [(op, (values, features))], "batch_inputs": (0, 1)}
    check_op(op, values, features, **checked)


# --- derivatives on the lattice ------------------------------------------------------------------


def test_filter_of_values_and_features_check() -> None:
    """Between simplices the filter is a polynomial of the features: all that `check_op` asks."""

    def filtered(values: Tensor, features: Tensor) -> Tensor:
        return permutohedral_filter(values, features, normalization="symmetric")

    values, features = points(2, 2, 6, spread=1.0), points(2, 3, 6, spread=1.0, seed=1)
    check_op(filtered, values, features, batch_inputs=(0, 1))


@pytest.mark.parametrize("op", ["filter", "contract", "weights_forward", "weights_backward"])
def test_raw_op_check(op: str) -> None:
    features, values, grad = points(1, 7, 3), points(7, 2, seed=1), points(7, 2, seed=2)
    vertex, _, start, entry, neighbor = raw.lattice_build(features)
    structure = (vertex, start, entry, neighbor)
    splat, slices = points(7, 4, seed=3), points(7, 4, seed=4)
    arguments: dict[str, tuple[tuple[Tensor, ...], tuple[Any, ...]]] = {
        "filter": ((values, splat, slices), (*structure, False)),
        "contract": ((grad, values, splat), (*structure, True)),
        "weights_forward": ((points(1, 7, 3, seed=5),), (features,)),
        "weights_backward": ((splat,), (features,)),
    }
    tensors, constants = arguments[op]
    function = getattr(raw, f"lattice_{op}").default
    # The features keep their type: weights follow them only in it.
    left_out = {"types", "threads"} if op.startswith("weights") else {"types"}
    check_op(
        lambda *given: function(*given, *constants),
        *tensors,
        raw_calls=[(function, (*tensors, *constants))],
        checks=[check for check in deformops.testing.CHECKS if check not in left_out],
        name=op,
    )


def test_opcheck_of_the_build() -> None:
    torch.library.opcheck(raw.lattice_build.default, (points(2, 7, 3),))


@pytest.mark.parametrize("dims", [1, 3, 5])
def test_gradient_near_the_exact_one(dims: int) -> None:
    """With respect to values and bandwidths, of what a filter leaves of a smooth step."""
    features = 3 * torch.rand(1, dims, 800, dtype=DOUBLE)
    values = torch.tanh(features[:, :1] - 1.5)
    gradients = []
    for filtered in (permutohedral_filter, gaussian_filter):
        value = values.clone().requires_grad_()
        sigma = torch.ones(dims, 1, dtype=DOUBLE, requires_grad=True)
        scaled = features / sigma
        ones = torch.ones_like(value)
        output = filtered(value, scaled) / filtered(ones, scaled)
        gradients.append(torch.autograd.grad(output, (value, sigma), values))
    for got, want in zip(*gradients, strict=True):
        assert float((got - want).norm() / want.norm()) < 0.15


# --- what every op gives -------------------------------------------------------------------------


def test_same_bits_with_any_threads(threads: Threads) -> None:
    """Enough points for several threads, and enough vertices for these to meet in the blur."""
    features = points(1, 3, 180, 180, spread=8.0).float()
    values = points(1, 40, 180, 180, seed=1).float()
    results = []
    for count in (1, 2, 3, 8, 8, 8, 8):
        with threads(count):
            lattice = PermutohedralLattice(features)
            filtered = [lattice.filter(values, transposed=way) for way in (False, True)]
            results.append([*lattice._filter.structure, *filtered])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert torch.equal(one, another)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_values(dtype: torch.dtype) -> None:
    """Computed in float32, rounded once; also inside autocast."""
    features, values = points(1, 3, 8, 9).float(), points(1, 5, 8, 9, seed=1).to(dtype)
    want = permutohedral_filter(values.float(), features)
    assert torch.equal(permutohedral_filter(values, features), want.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(permutohedral_filter(values.float(), features), want)


def test_layouts() -> None:
    features, values = points(2, 3, 4, 5), points(2, 6, 4, 5, seed=1)
    want = permutohedral_filter(values, features)
    last = values.contiguous(memory_format=torch.channels_last)
    output = permutohedral_filter(last, arrange(features, "strided"))
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(output, want)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_empty(shape: tuple[int, ...]) -> None:
    values = torch.zeros(shape, dtype=DOUBLE, requires_grad=True)
    features = points(shape[0], 2, *shape[2:]).requires_grad_()
    for filtered in (permutohedral_filter, gaussian_filter):
        output = filtered(values, features)
        assert output.shape == shape
        output.sum().backward()


def test_a_lattice_is_reused() -> None:
    features, values = points(1, 5, 9, 9), points(1, 3, 9, 9)
    lattice = PermutohedralLattice(features)
    assert lattice.num_vertices == len(reference.build(features.flatten(2)[0].t().numpy()).vertices)
    assert lattice.spatial_size == (9, 9)
    assert torch.equal(lattice.filter(values), permutohedral_filter(values, features))


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no tensor": (lambda: PermutohedralLattice(3.0), TypeError, "features.*float"),
    "integers": (
        lambda: PermutohedralLattice(torch.zeros(1, 2, 3, dtype=torch.int64)),
        TypeError,
        "features.*int64",
    ),
    "rank": (lambda: PermutohedralLattice(torch.zeros(2, 3)), ValueError, r"features.*\[2, 3\]"),
    "no features": (
        lambda: PermutohedralLattice(torch.zeros(1, 0, 3)),
        ValueError,
        "features.*1 to 255",
    ),
    "values' size": (
        lambda: permutohedral_filter(torch.zeros(1, 2, 4), torch.zeros(1, 2, 5)),
        ValueError,
        r"features.*values.*\[1, 4\].*\[1, 2, 5\]",
    ),
    "values' images": (
        lambda: PermutohedralLattice(torch.zeros(1, 2, 5)).filter(torch.zeros(2, 2, 5)),
        ValueError,
        r"values.*\[1, 5\].*\[2, 2, 5\]",
    ),
    "normalization": (
        lambda: permutohedral_filter(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5), normalization="x"),
        ValueError,
        "normalization.*'symmetric'.*'x'",
    ),
    "exact, size": (
        lambda: gaussian_filter(torch.zeros(1, 2, 4), torch.zeros(1, 2, 5)),
        ValueError,
        "features.*values",
    ),
    "nan": (
        lambda: PermutohedralLattice(torch.full((1, 2, 5), torch.nan)),
        ValueError,
        "features.*NaN",
    ),
    "infinite": (
        lambda: PermutohedralLattice(torch.full((1, 2, 5), torch.inf)),
        ValueError,
        "features",
    ),
    "too large": (
        lambda: PermutohedralLattice(torch.full((1, 2, 5), 1e8)),
        ValueError,
        "^PermutohedralLattice: features: expected .*(large|far|small|coarse)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, says = BAD[name]
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("grad", [False, True])
def test_compiled(grad: bool) -> None:
    """As one graph, whose number of vertices is known at run time alone."""
    features, values = points(1, 3, 5, 6), points(1, 2, 5, 6, seed=1).requires_grad_(grad)
    compiled = torch.compile(permutohedral_filter, fullgraph=True, backend="aot_eager")
    with nullcontext() if grad else torch.no_grad():
        assert_close(compiled(values, features), permutohedral_filter(values, features))


@pytest.mark.parametrize("dims", [(0, 0), (-1, 1), (0, None), (None, 2)], ids=str)
def test_vmap(dims: tuple[int | None, int | None]) -> None:
    """Of the public functions: any dimension is that of the batch, of either argument or of one."""
    maps = points(3, 1, 2, 4, 5), points(3, 1, 2, 4, 5, seed=1)
    given = [
        tensor[0] if dim is None else tensor.movedim(0, dim)
        for tensor, dim in zip(maps, dims, strict=True)
    ]
    pairs = [
        [tensor[0 if dim is None else n] for tensor, dim in zip(maps, dims, strict=True)]
        for n in range(3)
    ]
    for function in (gaussian_filter, permutohedral_filter):
        want = torch.stack([function(*pair) for pair in pairs])
        assert_close(torch.vmap(function, dims)(*given), want)
