"""The dense CRF: published numbers, the definition over all pairs, enumeration, and learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import deformops
from deformops import (
    Bilateral,
    FeatureKernel,
    Gaussian,
    PermutohedralLattice,
    crf_energy,
    dense_crf,
    grid_energy,
    unary_from_labels,
    unary_from_probabilities,
)
from deformops.nn import DenseCRF
from deformops.ops import DEEPLAB
from deformops.testing import check_op
from tests import crf_goldens as goldens
from tests.cases import arrange, assert_close, numpy
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


# --- published numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens.SMALL)
def test_published_marginals(name: str) -> None:
    """Of the reference, with its lattice, and of dense_crf in both types."""
    case = goldens.SMALL[name]
    options: list[dict[str, Any]] = []
    features = []
    for kernel in case.kernels:
        option = dict(goldens.GAUSSIAN if kernel == "gaussian" else goldens.BILATERAL)
        if case.weight is not None:
            option["weight"] = case.weight
        options.append(option)
        features.append(
            reference.spatial_features((3, 4), 3.0)
            if kernel == "gaussian"
            else reference.bilateral_features(goldens.SMALL_IMAGE, 5.0, 20.0)
        )
    penalties = [
        reference.penalty(option["weight"] * np.asarray(case.compatibility or 1.0), 2)
        for option in options
    ]
    used = terms([x_first(each) for each in features], penalties, case.normalization, "lattice")
    unary = goldens.SMALL_UNARY.reshape(2, -1).T
    q = reference.mean_field(unary, used, case.iterations)[-1]
    np.testing.assert_allclose(q[:, 0], case.first, atol=5e-6)

    for dtype in (torch.float64, torch.float32):
        output = dense_crf(
            tensor(goldens.SMALL_UNARY).to(dtype),
            tensor(goldens.SMALL_IMAGE),
            pairwise=[
                (Gaussian if kernel == "gaussian" else Bilateral)(**option)
                for kernel, option in zip(case.kernels, options, strict=True)
            ],
            iterations=case.iterations,
            normalization=case.normalization,
            compatibility=case.compatibility,
        )
        assert output.dtype == dtype
        np.testing.assert_allclose(numpy(output[0, 0]).ravel(), case.first, atol=5e-6)
        np.testing.assert_allclose(numpy(output.sum(1)), 1, atol=1e-6)


def test_published_block() -> None:
    """The best labelling is the block, and pydensecrf's divergences follow from ours."""
    unary, image = tensor(goldens.block_unary()), tensor(goldens.block_image()).to(torch.uint8)
    term = Bilateral(**goldens.BLOCK_KERNEL)
    q, energies = dense_crf(unary, image, pairwise=[term], iterations=10, return_kl=True)
    block = np.zeros((10, 10), dtype=np.int64)
    block[2:8, 2:8] = 1
    np.testing.assert_array_equal(numpy(q.argmax(1)[0]), block)
    assert (energies.diff(dim=0) < 0).all()

    features = PermutohedralLattice(term.features((10, 10), image.double()))
    ones = torch.ones(1, 1, 10, 10, dtype=DOUBLE)
    constant = 3 * features.filter(ones, normalization="symmetric").sum()
    for steps, published in enumerate(goldens.BLOCK_KL):
        q = dense_crf(unary, image, pairwise=[term], iterations=steps)
        single = (q * unary).sum() - torch.special.entr(q).sum()
        pairs_twice = 2 * (energies[steps, 0] - single) - constant
        assert float(single + pairs_twice) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize(("image", "attraction", "first"), goldens.MONAI_CRF)
@pytest.mark.parametrize("kind", ["number", "vector", "matrix"])
def test_published_monai(image: Array, attraction: float, first: Array, kind: str) -> None:
    """MONAI's compatibility attracts: it is our penalty with the other sign."""
    penalty: Any = {
        "number": attraction,
        "vector": [-attraction] * 2,
        "matrix": [[-attraction, 0], [0, -attraction]],
    }[kind]
    output = dense_crf(
        -tensor(goldens.MONAI_LOGITS),
        tensor(image[None]),
        pairwise=[Bilateral(5.0, 0.5, 1.0), Gaussian(5.0, 0.3)],
        iterations=5,
        normalization="after",
        compatibility=penalty,
    )
    np.testing.assert_allclose(numpy(output[0, 0]), first, atol=1e-6)


def test_published_unary() -> None:
    right, wrong, unsure = 0.356675, 1.897120, 1.098612
    got = unary_from_labels(torch.tensor([[0, 1, 2, 3]]), 3, 0.7)
    want = np.full((1, 3, 4), wrong)
    want[0, :, 0] = unsure
    want[0, [0, 1, 2], [1, 2, 3]] = right
    np.testing.assert_allclose(numpy(got), want, atol=1e-6)


# --- against the definition ----------------------------------------------------------------------

COMPATIBILITIES: dict[str, Any] = {
    "Potts": None,
    "number": 0.7,
    "vector": [0.5, -0.3, 0.2],
    "matrix": [[0.0, 1.0, 2.0], [0.5, -0.2, 0.3], [1.0, 0.1, 0.4]],
}


@pytest.mark.parametrize("method", ["exact", "lattice"])
@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
@pytest.mark.parametrize("self_message", [True, False])
def test_is_its_definition(
    method: str, normalization: str, compatibility: str, self_message: bool
) -> None:
    """Marginals and free energies of every step; energies of labellings."""
    unary, image = random(1, 3, 3, 4), 2 * random(1, 2, 3, 4, seed=1)
    pairwise = [Gaussian(1.5, 0.8), Bilateral((2.0, 3.0), 1.2, 1.1)]
    bilateral = reference.bilateral_features(image[0].numpy(), 1.0, 1.2)
    bilateral[:, :2] /= 2.0, 3.0
    features = [reference.spatial_features((3, 4), 1.5), bilateral]
    given = COMPATIBILITIES[compatibility]
    penalties = [reference.penalty(1.0 if given is None else given, 3) * w for w in (0.8, 1.1)]
    used = terms([x_first(each) for each in features], penalties, normalization, method)
    steps = reference.mean_field(by_pixel(unary), used, 3, self_message)

    options: dict[str, Any] = {
        "pairwise": pairwise,
        "normalization": normalization,
        "compatibility": given,
        "method": method,
    }
    q, energies = dense_crf(
        unary, image, iterations=3, self_message=self_message, return_kl=True, **options
    )
    assert_close(q[0].flatten(1).t(), steps[-1])
    want = [reference.free_energy(step, by_pixel(unary), used, self_message) for step in steps]
    assert_close(energies[:, 0], np.array(want))
    quick = dense_crf(unary, image, iterations=3, self_message=self_message, **options)
    assert_close(quick, q)
    log = dense_crf(unary, image, iterations=3, self_message=self_message, log=True, **options)
    assert_close(log.exp(), q)

    labels = torch.arange(12).reshape(1, 3, 4) * 7 % 3
    energy = reference.energy(by_pixel(unary), labels.flatten().numpy(), used)
    assert_close(crf_energy(unary, image, labels, **options), np.array([energy]))


def test_defaults_are_deeplab() -> None:
    unary, image = random(1, 4, 6, 7), 255 * torch.rand(1, 3, 6, 7, dtype=DOUBLE)
    want = dense_crf(
        unary, image, pairwise=[Gaussian(1.0, 3.0), Bilateral(67.0, 3.0, 4.0)], iterations=10
    )
    assert torch.equal(dense_crf(unary, image), want)
    assert len(DEEPLAB) == 2


def test_a_compatibility_of_its_own() -> None:
    """A term's own compatibility takes the place of that of the CRF."""
    unary, image = random(1, 2, 3, 4), random(1, 1, 3, 4)
    own = [Gaussian(2.0, 1.0, [1.0, -2.0]), Bilateral(2.0, 1.0, 0.5)]
    features = [
        x_first(reference.spatial_features((3, 4), 2.0)),
        x_first(reference.bilateral_features(image[0].numpy(), 2.0, 1.0)),
    ]
    penalties = [reference.penalty([1.0, -2.0], 2), 0.5 * reference.penalty(3.0, 2)]
    used = terms(features, penalties, "symmetric", "lattice")
    q = dense_crf(unary, image, pairwise=own, iterations=2, compatibility=3.0)
    assert_close(q[0].flatten(1).t(), reference.mean_field(by_pixel(unary), used, 2)[-1])


def test_no_terms_and_no_steps() -> None:
    unary = random(2, 3, 4, 5)
    assert_close(dense_crf(unary, pairwise=[]), (-unary).softmax(1))
    assert_close(dense_crf(unary, pairwise=[Gaussian(2.0)], iterations=0), (-unary).softmax(1))


def test_free_energy_is_the_divergence_from_the_true_distribution() -> None:
    """KL(Q | P) - log Z, by enumeration, when pixels are no pairs with themselves."""
    unary, image = random(1, 2, 2, 3), random(1, 3, 2, 3, seed=1)
    options: dict[str, Any] = {"pairwise": [Bilateral(1.5, 1.0, 0.7)], "method": "exact"}
    labellings = torch.from_numpy(np.stack(list(reference.labellings(6, 2)))).reshape(-1, 2, 3)
    count = len(labellings)
    energies = crf_energy(
        unary.expand(count, -1, -1, -1),
        image.expand(count, -1, -1, -1),
        labellings,
        normalization="symmetric",
        **options,
    )
    log_z = torch.logsumexp(-energies, 0)
    q, kl = dense_crf(unary, image, iterations=4, self_message=False, return_kl=True, **options)
    log_q = q.log().flatten(2)[0]
    under_q = torch.stack([log_q[x.flatten(), torch.arange(6)].sum() for x in labellings])
    divergence = (under_q.exp() * (under_q + energies + log_z)).sum()
    torch.testing.assert_close(kl[-1, 0] + log_z, divergence)
    assert float(divergence) > 0
    assert (kl.diff(dim=0) < 0).all()
    # And mean field is near the marginals.
    weights = (-energies).softmax(0)
    marginal = torch.stack(
        [weights[labellings[:, y, x] == 0].sum() for y in (0, 1) for x in range(3)]
    )
    assert float((q[0, 0].flatten() - marginal).abs().max()) < 0.1


def test_energy_of_all_labellings() -> None:
    unary, image = random(1, 3, 1, 4), random(1, 1, 1, 4)
    features = reference.bilateral_features(image[0].numpy(), 1.5, 0.8)
    used = terms([features], [0.9 * reference.penalty(1.0, 3)], "none", "exact")
    for labelling in reference.labellings(4, 3):
        got = crf_energy(
            unary,
            image,
            torch.from_numpy(labelling).reshape(1, 1, 4),
            pairwise=[Bilateral(1.5, 0.8, 0.9)],
        )
        assert_close(got, np.array([reference.energy(by_pixel(unary), labelling, used)]))


def test_energy_of_a_grid() -> None:
    """Of a 3x3 image, by hand, and each pair of neighbours once."""
    unary = torch.zeros(1, 2, 3, 3)
    unary[0, 1] = torch.arange(9.0).reshape(3, 3)
    labels = torch.tensor([[[0, 1, 0], [1, 1, 0], [0, 0, 1]]])
    single = 1 + 3 + 4 + 8
    # Rows differ in 2, 1, 1 places along x; columns in 2, 1, 1 along y.
    potts = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert float(grid_energy(unary, labels, potts)) == single + 4 + 4
    assert float(grid_energy(unary, labels, [10 * potts, potts])) == single + 40 + 4
    # From the upper to the lower, from the left to the right.
    rising = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    zero = torch.zeros(2, 2)
    assert float(grid_energy(unary, labels, [zero, rising])) == single + 1 + 0 + 1
    assert float(grid_energy(unary, labels, [rising, zero])) == single + 1 + 0 + 1


@pytest.mark.parametrize("size", [(12,), (3, 4), (2, 3, 2)])
def test_spatial_dimensions_and_channels(size: tuple[int, ...]) -> None:
    """1 to 3 spatial dimensions, images of any channels, labels of any number."""
    unary, image = random(1, 5, *size), random(1, 4, *size, seed=1)
    features = reference.bilateral_features(image[0].numpy(), 2.0, 1.5)
    used = terms(
        [x_first(features, len(size))], [reference.penalty(1.0, 5)], "symmetric", "lattice"
    )
    q = dense_crf(unary, image, pairwise=[Bilateral(2.0, 1.5)], iterations=2)
    assert q.shape == unary.shape
    assert_close(q[0].flatten(1).t(), reference.mean_field(by_pixel(unary), used, 2)[-1])


def test_bandwidths_by_axis_and_channel() -> None:
    unary, image = random(1, 2, 4, 5), random(1, 3, 4, 5, seed=1)
    given = Bilateral([2.0, 3.0], [1.0, 2.0, 0.5])
    y, x = np.mgrid[:4.0, :5.0]
    colors = image / torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    features = torch.cat([tensor(np.stack([x / 3, y / 2])), colors], 1)
    want = dense_crf(unary, pairwise=[FeatureKernel(features)])
    assert_close(dense_crf(unary, image, pairwise=[given]), want)
    shared = PermutohedralLattice(features)
    assert_close(dense_crf(unary, pairwise=[FeatureKernel(shared)]), want)
    output = dense_crf(unary, image, pairwise=[given], method="exact")
    assert_close(dense_crf(unary, pairwise=[FeatureKernel(features)], method="exact"), output)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_batch_is_a_loop(method: str) -> None:
    unary, image = random(3, 4, 5, 6), random(3, 3, 5, 6, seed=1)
    pairwise: list[Any] = [Gaussian(1.5, 2.0), Bilateral(2.0, 0.8, 3.0)]
    together, kl = dense_crf(unary, image, pairwise=pairwise, method=method, return_kl=True)
    labels = together.argmax(1)
    energies = crf_energy(unary, image, labels, pairwise=pairwise, method=method)
    for n in range(3):
        one = slice(n, n + 1)
        alone, own = dense_crf(
            unary[one], image[one], pairwise=pairwise, method=method, return_kl=True
        )
        assert_close(alone, together[one])
        assert_close(own, kl[:, one])
        energy = crf_energy(unary[one], image[one], labels[one], pairwise=pairwise, method=method)
        assert_close(energy, energies[one])


def test_same_bits_with_any_threads(threads: Callable[[int], AbstractContextManager[None]]) -> None:
    """Enough pixels for several threads, more of them than most machines have cores for."""
    unary, image = random(1, 21, 90, 100).float(), 40 * random(1, 3, 90, 100, seed=1).float()
    results = []
    for count in (1, 2, 8, 8):
        with threads(count), torch.no_grad():
            results.append(dense_crf(unary, image, iterations=3))
    for other in results[1:]:
        assert torch.equal(other, results[0])


def test_near_the_exact_marginals() -> None:
    """On a smooth image the lattice is within .06 of the definition, and labels are the same."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    disk = ((y - 9) ** 2 + (x - 12) ** 2 < 50).double()
    image = torch.stack([100 * disk + 3 * x, 60 + 2 * y, 90 + 50 * disk]).double()[None]
    unary = random(1, 2, 20, 24) + torch.stack([disk, 1 - disk])[None]
    pairwise: list[Any] = [Gaussian(2.0, 1.0), Bilateral(6.0, 30.0, 2.0)]
    lattice, exact = (
        dense_crf(unary, image, pairwise=pairwise, method=method) for method in ("lattice", "exact")
    )
    assert float((lattice - exact).abs().max()) < 0.06
    assert torch.equal(lattice.argmax(1), exact.argmax(1))
    assert float((exact.argmax(1) == disk).double().mean()) > 0.97


# --- types, layouts, steps -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(dtype: torch.dtype) -> None:
    """Half types are computed in float32 and rounded once; autocast changes nothing."""
    unary, image = random(1, 3, 5, 6).to(dtype), 50 * random(1, 3, 5, 6, seed=1).float()
    options: dict[str, Any] = {"pairwise": [Bilateral(3.0, 40.0, 2.0)]}
    want = dense_crf(unary.float(), image, **options)
    got = dense_crf(unary, image, **options)
    assert got.dtype == dtype
    assert torch.equal(got, want.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dense_crf(unary.float(), image, **options), want)
        assert torch.equal(
            dense_crf(unary.float(), image, compatibility=torch.eye(3), **options),
            dense_crf(unary.float(), image, compatibility=torch.eye(3).double(), **options),
        )


def test_whole_numbers_and_layouts() -> None:
    image = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    unary = random(2, 4, 5, 6)
    want = dense_crf(unary, image.double())
    assert torch.equal(dense_crf(unary, image), want)
    last = dense_crf(unary.contiguous(memory_format=torch.channels_last), image)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_close(last, want)
    assert_close(dense_crf(arrange(unary, "strided"), arrange(image, "permuted")), want)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_steps_are_shown(method: str) -> None:
    unary, image = random(1, 3, 4, 5), random(1, 3, 4, 5, seed=1)
    options: dict[str, Any] = {"pairwise": [Bilateral(2.0, 1.0)], "method": method}
    shown: list[tuple[int, Tensor]] = []
    final = dense_crf(
        unary, image, iterations=3, on_step=lambda n, q: shown.append((n, q)), **options
    )
    assert [n for n, _ in shown] == [1, 2, 3]
    for n, q in shown:
        assert_close(q, dense_crf(unary, image, iterations=n, **options))
    assert_close(shown[-1][1], final)


def test_impossible_labels() -> None:
    """An infinite energy forbids a label and harms nothing else."""
    unary = random(1, 3, 4, 5)
    unary[0, 1, 2] = torch.inf
    for method in ("exact", "lattice"):
        q, kl = dense_crf(unary, pairwise=[Gaussian(2.0)], method=method, return_kl=True)
        assert (q[0, 1, 2] == 0).all()
        assert q.isfinite().all()
        assert kl.isfinite().all()


def test_log_does_not_underflow() -> None:
    unary = torch.zeros(1, 2, 1, 3)
    unary[0, 1] = 500.0
    q = dense_crf(unary, pairwise=[Gaussian(1.0)])
    log = dense_crf(unary, pairwise=[Gaussian(1.0)], log=True)
    assert (q[0, 1] == 0).all()
    assert (log[0, 1] < -490).all()
    assert log.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5)])
@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_empty(shape: tuple[int, ...], method: str) -> None:
    unary = torch.zeros(shape, requires_grad=True)
    image = torch.zeros(shape[0], 3, *shape[2:])
    for used in (unary, unary.detach()):
        output = dense_crf(used, image, method=method)
        assert output.shape == shape
    dense_crf(unary, image, method=method).sum().backward()


# --- unaries -------------------------------------------------------------------------------------


def test_unary_from_labels() -> None:
    labels = torch.tensor([[[0, 2], [255, 1]]], dtype=torch.uint8)
    got = unary_from_labels(labels, 3, 0.9, zero_unsure=False, ignore_index=255)
    right, wrong, unsure = -np.log([0.9, 0.05, 1 / 3])
    want = [
        [[right, wrong], [unsure, wrong]],
        [[wrong, wrong], [unsure, right]],
        [[wrong, right], [unsure, wrong]],
    ]
    np.testing.assert_allclose(numpy(got)[0], want, atol=1e-6)
    assert_close((-got).exp().sum(1), torch.ones(1, 2, 2))


def test_unary_from_probabilities() -> None:
    probabilities = torch.tensor([[[0.0, 0.25, 1.0], [1.0, 0.75, 0.0]]], dtype=DOUBLE)
    got = unary_from_probabilities(probabilities)
    want = -np.log(np.clip(probabilities.numpy(), 1e-5, 1))
    np.testing.assert_allclose(numpy(got), want)
    got = unary_from_probabilities(probabilities, scale=0.8, clip=None)
    np.testing.assert_allclose(numpy(got), -np.log(0.8 * probabilities.numpy() + 0.1))


def test_unaries_are_those_of_pydensecrf() -> None:
    utils = pytest.importorskip("pydensecrf.utils", reason="extra [bench] is not installed")
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, (1, 6, 7))
    want = utils.unary_from_labels(labels[0], 4, 0.6)
    got = unary_from_labels(torch.from_numpy(labels), 4, 0.6)
    np.testing.assert_allclose(numpy(got)[0].reshape(4, -1), want, atol=1e-6)
    softmax = random.dirichlet(np.ones(4), 42).T.reshape(4, 6, 7)
    want = utils.unary_from_softmax(softmax, scale=0.7)
    got = unary_from_probabilities(torch.from_numpy(softmax)[None], scale=0.7)
    np.testing.assert_allclose(numpy(got)[0].reshape(4, -1), want, atol=1e-6)


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_marginals_are_those_of_pydensecrf(normalization: str) -> None:
    """On a random image; some points that lie between two simplices in one float32 or the other
    miss a vertex more.
    """
    theirs = pytest.importorskip("pydensecrf.densecrf", reason="extra [bench] is not installed")
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    unary = random.random((3, 9, 11)).astype(np.float32)
    kind = {
        "symmetric": theirs.NORMALIZE_SYMMETRIC,
        "before": theirs.NORMALIZE_BEFORE,
        "after": theirs.NORMALIZE_AFTER,
        "none": theirs.NO_NORMALIZATION,
    }[normalization]
    crf = theirs.DenseCRF2D(11, 9, 3)
    crf.setUnaryEnergy(unary.reshape(3, -1))
    crf.addPairwiseGaussian(2, 1.5, normalization=kind)
    crf.addPairwiseBilateral((7, 5), (40, 50, 60), image, 2, normalization=kind)
    want = np.array(crf.inference(4)).reshape(3, 9, 11)
    got = dense_crf(
        torch.from_numpy(unary)[None],
        torch.from_numpy(image).permute(2, 0, 1)[None],
        pairwise=[Gaussian(2, 1.5), Bilateral((5, 7), (40, 50, 60), 2)],
        iterations=4,
        normalization=normalization,
    )
    difference = np.abs(numpy(got)[0] - want)
    assert np.median(difference) < 1e-5
    assert difference.max() < 3e-3


# --- derivatives and learning --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "lattice"])
@pytest.mark.parametrize("self_message", [True, False])
def test_gradients_of_everything(method: str, self_message: bool) -> None:
    """gradcheck and gradgradcheck for unary, image, bandwidths, weights and compatibility."""

    def infer(
        unary: Tensor, image: Tensor, sigmas: Tensor, weights: Tensor, compatibility: Tensor
    ) -> Tensor:
        return dense_crf(
            unary,
            image,
            pairwise=[
                Gaussian(sigmas[0], weights[0]),
                Bilateral(sigmas[1], sigmas[2:], weights[1]),
            ],
            iterations=2,
            compatibility=compatibility,
            method=method,
            self_message=self_message,
        )

    inputs = [
        random(1, 2, 2, 3),
        random(1, 2, 2, 3, seed=1),
        torch.tensor([1.3, 2.1, 0.9, 1.7], dtype=DOUBLE),
        torch.tensor([0.8, 1.4], dtype=DOUBLE),
        random(2, 2, seed=2),
    ]
    checks = ["gradients", "forward", "func"]
    check_op(infer, *inputs, checks=checks if self_message else checks[:1])
    leaves = [each.requires_grad_() for each in inputs]
    if method == "exact" and self_message:
        torch.autograd.gradgradcheck(infer, leaves, fast_mode=True)


def test_other_outputs_have_gradients() -> None:
    unary, image = random(1, 2, 2, 3), random(1, 2, 2, 3, seed=1)
    labels = torch.tensor([[[0, 1, 1], [0, 0, 1]]])
    term = Bilateral(1.5, 1.0, 0.7)
    for method in ("exact", "lattice"):

        def free_energy(unary: Tensor, image: Tensor, method: str = method) -> Tensor:
            options: Any = {"pairwise": [term], "iterations": 1, "method": method}
            return dense_crf(unary, image, return_kl=True, **options)[1]

        def log_q(unary: Tensor, image: Tensor, method: str = method) -> Tensor:
            return dense_crf(unary, image, pairwise=[term], iterations=1, method=method, log=True)

        def energy(unary: Tensor, image: Tensor, method: str = method) -> Tensor:
            return crf_energy(unary, image, labels, pairwise=[term], method=method)

        for function in (free_energy, log_q, energy):
            leaves = (unary.clone().requires_grad_(), image.clone().requires_grad_())
            assert torch.autograd.gradcheck(function, leaves)


def test_lattice_gradients_near_exact_ones() -> None:
    """Of a loss with respect to the energies and all parameters of a layer.

    Only where they are not next to nothing: bandwidths that hardly matter have the slopes of the
    lattice's own errors.
    """
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    disk = ((y - 14) ** 2 + (x - 20) ** 2 < 128).long()
    image = torch.stack([100 * disk + 3 * x, 60 + 2 * y])[None] + 10 * random(1, 2, 32, 40)
    unary = random(1, 2, 32, 40, seed=1) + torch.stack([disk, 1 - disk])[None]
    gradients = []
    for method in ("lattice", "exact"):
        pairwise = [Gaussian(3.0, 1.0), Bilateral(8.0, 60.0, 1.5)]
        crf = DenseCRF(2, pairwise=pairwise, method=method).double()
        leaf = unary.clone().requires_grad_()
        loss = F.nll_loss(crf(leaf, image, log=True), disk[None])
        gradients.append(torch.autograd.grad(loss, [leaf, *crf.parameters()]))
    for got, want in zip(*gradients, strict=True):
        assert float(F.cosine_similarity(got.flatten(), want.flatten(), dim=0)) > 0.97
        assert 0.65 < float(got.norm() / want.norm()) < 1.5


def coarse_problem() -> tuple[Tensor, Tensor, Tensor]:
    """Energies of a blocky mask of a photo's disk, the photo, and the disk."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    disk = ((y - 22) ** 2 + (x - 30) ** 2 < 250).long()
    shade = torch.stack([80 + x, 120 + y, 100 - x / 2])
    noise = torch.randn(3, 48, 64, generator=torch.Generator().manual_seed(0))
    image = shade + 60 * disk + 8 * noise
    blocks = F.avg_pool2d(disk[None].float(), 8).round().repeat_interleave(8, 1)
    coarse = blocks.repeat_interleave(8, 2).long()
    return unary_from_labels(coarse, 2, 0.7, zero_unsure=False), image[None], disk[None]


def test_layer_learns() -> None:
    """Training on one photo lowers the loss and moves every parameter, on the lattice."""
    unary, image, disk = coarse_problem()
    crf = DenseCRF(2, pairwise=[Gaussian(3.0, 0.3), Bilateral(10.0, 15.0, 0.3)], iterations=3)
    before = {name: value.detach().clone() for name, value in crf.named_parameters()}
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        loss = F.nll_loss(crf(unary, image, log=True), disk)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for name, value in crf.named_parameters():
        assert not torch.equal(value, before[name]), name
        assert value.isfinite().all(), name


def test_layer_is_the_function() -> None:
    unary, image, _ = coarse_problem()
    pairwise = [Gaussian(3.0, 1.0), Bilateral((8.0, 10.0), (15.0, 20.0, 25.0), 2.0)]
    crf = DenseCRF(2, pairwise=pairwise, iterations=4)
    with torch.no_grad():
        want = dense_crf(unary, image, pairwise=pairwise, iterations=4)
        torch.testing.assert_close(crf(unary, image), want)
        want = dense_crf(unary, image, pairwise=pairwise, iterations=4, log=True)
        torch.testing.assert_close(crf(unary, image, log=True), want)


def test_layer_state() -> None:
    """The documented keys; what is loaded computes the same."""
    crf = DenseCRF(3, pairwise=[Gaussian(2.0, 1.0), Bilateral(4.0, (5.0, 6.0), 2.0)])
    shapes = {name: tuple(value.shape) for name, value in crf.state_dict().items()}
    assert shapes == {
        "compatibility": (3, 3),
        "terms.0.weight": (),
        "terms.0.log_sigma": (),
        "terms.1.weight": (),
        "terms.1.log_sigma_xy": (),
        "terms.1.log_sigma_rgb": (2,),
    }
    other = DenseCRF(3, pairwise=[Gaussian(1.0), Bilateral(1.0, (1.0, 1.0))])
    other.load_state_dict(crf.state_dict())
    unary, image = random(1, 3, 4, 5).float(), random(1, 2, 4, 5, seed=1).float()
    assert torch.equal(crf(unary, image), other(unary, image))
    for text in ("num_labels=3", "sigma=2", "sigma_rgb=[5, 6]", "weight=2"):
        assert text in repr(crf)
    assert DenseCRF(2, dtype=DOUBLE).compatibility.dtype == DOUBLE


def test_torch_transforms() -> None:
    """compile as one graph, with the lattice and exactly; vmap with gradients of each image."""
    unary, image = random(2, 2, 3, 4), random(2, 2, 3, 4, seed=1)
    for method in ("exact", "lattice"):

        def infer(unary: Tensor, image: Tensor, method: str = method) -> Tensor:
            return dense_crf(
                unary, image, pairwise=[Bilateral(2.0, 1.0)], iterations=2, method=method
            )

        leaf = unary.clone().requires_grad_()
        compiled = torch.compile(infer, fullgraph=True, backend="aot_eager")
        assert_close(compiled(leaf, image), infer(unary, image))
        torch._dynamo.reset()

        def loss(unary: Tensor, image: Tensor) -> Tensor:
            return infer(unary[None], image[None]).square().sum()

        each = torch.vmap(lambda *one: infer(*(tensor[None] for tensor in one))[0])(unary, image)
        assert_close(each, infer(unary, image))
        each = torch.vmap(torch.func.grad(loss, (0, 1)))(unary, image)
        for n in range(2):
            alone = torch.func.grad(loss, (0, 1))(unary[n], image[n])
            for got, want in zip(each, alone, strict=True):
                assert_close(got[n], want)


# --- bad input -----------------------------------------------------------------------------------

ops: Any = deformops  # which takes what it should not
layer: Any = DenseCRF
_UNARY, _IMAGE = torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3, 4)
_LABELS = torch.zeros(1, 3, 4, dtype=torch.int64)

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unary's type": (lambda: ops.dense_crf(3), TypeError, "unary.*int"),
    "unary of integers": (lambda: ops.dense_crf(_LABELS[None], _IMAGE), TypeError, "unary.*int64"),
    "unary's rank": (lambda: ops.dense_crf(_UNARY[0, 0], _IMAGE), ValueError, r"unary.*\[3, 4\]"),
    "no labels": (lambda: ops.dense_crf(_UNARY[:, :0], _IMAGE), ValueError, "unary.*one label"),
    "image's size": (
        lambda: ops.dense_crf(_UNARY, _IMAGE[..., :3]),
        ValueError,
        r"image.*\[1, 3, 4\].*\[1, 3, 3, 3\]",
    ),
    "images": (
        lambda: ops.dense_crf(_UNARY, _IMAGE.repeat(2, 1, 1, 1)),
        ValueError,
        "image.*unary",
    ),
    "no image": (lambda: ops.dense_crf(_UNARY), ValueError, "image.*None"),
    "image's device": (
        lambda: ops.dense_crf(_UNARY, _IMAGE.to("meta")),
        ValueError,
        "image.*device",
    ),
    "steps": (lambda: ops.dense_crf(_UNARY, _IMAGE, iterations=-1), ValueError, "iterations.*-1"),
    "steps' type": (lambda: ops.dense_crf(_UNARY, _IMAGE, iterations=1.5), TypeError, "iterations"),
    "normalization": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, normalization="all"),
        ValueError,
        "normalization.*'after'.*'all'",
    ),
    "method": (lambda: ops.dense_crf(_UNARY, _IMAGE, method="fast"), ValueError, "method.*'fast'"),
    "terms": (lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=3), TypeError, "pairwise.*int"),
    "a term": (lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[3]), TypeError, "pairwise.*int"),
    "sigma": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(0.0)]),
        ValueError,
        r"^dense_crf: pairwise\[0\].sigma: .*above 0.*0.0",
    ),
    "sigma a word": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(1.0), ops.Bilateral("wide", 1.0)]),
        TypeError,
        r"^dense_crf: pairwise\[1\].sigma_xy: expected numbers, got 'wide'",
    ),
    "sigmas": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Bilateral(1.0, (1.0, 2.0))]),
        ValueError,
        r"sigma_rgb.*3.*\[2\]",
    ),
    "small sigma": (
        lambda: ops.dense_crf(_UNARY, _IMAGE + 255, pairwise=[Bilateral(1.0, 1e-9)]),
        ValueError,
        r"^dense_crf: pairwise\[0\]: features: expected .*NaN",
    ),
    "weight": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(1.0, torch.ones(2))]),
        ValueError,
        "weight.*number",
    ),
    "compatibility": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, compatibility=[1.0, 2.0, 3.0]),
        ValueError,
        r"compatibility.*\[2\].*\[3\]",
    ),
    "compatibility of rows": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, compatibility=[[1.0, 2.0], [3.0]]),
        TypeError,
        r"^dense_crf: compatibility: expected numbers, got \[\[1.0, 2.0\], \[3.0\]\]",
    ),
    "weight a word": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[ops.Gaussian(1.0, "much")]),
        TypeError,
        r"^dense_crf: pairwise\[0\].weight: expected numbers, got 'much'",
    ),
    "lattice": (
        lambda: ops.dense_crf(
            _UNARY, pairwise=[FeatureKernel(PermutohedralLattice(torch.zeros(1, 2, 3, 5)))]
        ),
        ValueError,
        r"pairwise\[0\].*lattice.*\[1, 3, 5\]",
    ),
    "exact lattice": (
        lambda: ops.dense_crf(
            _UNARY,
            pairwise=[FeatureKernel(PermutohedralLattice(torch.zeros(1, 2, 3, 4)))],
            method="exact",
        ),
        ValueError,
        "exact",
    ),
    "labels' type": (
        lambda: ops.crf_energy(_UNARY, None, _UNARY[:, 0], pairwise=[]),
        TypeError,
        "labels.*integers.*float32",
    ),
    "labels' size": (
        lambda: ops.crf_energy(_UNARY, None, _LABELS[:, :2], pairwise=[]),
        ValueError,
        "labels.*unary",
    ),
    "label": (
        lambda: ops.crf_energy(_UNARY, None, _LABELS + 2, pairwise=[]),
        ValueError,
        "labels from 0 to 1.*2",
    ),
    "grid's label": (
        lambda: ops.grid_energy(_UNARY, _LABELS - 1, torch.zeros(2, 2)),
        ValueError,
        "labels from 0 to 1.*-1",
    ),
    "grid's costs": (
        lambda: ops.grid_energy(_UNARY, _LABELS, [torch.zeros(2, 2)]),
        ValueError,
        "pairwise.*2",
    ),
    "label of a unary": (
        lambda: ops.unary_from_labels(_LABELS + 3, 2, 0.7),
        ValueError,
        "labels from 1 to 2.*3",
    ),
    "probability": (lambda: ops.unary_from_labels(_LABELS, 2, 1.0), ValueError, "gt_prob.*1.0"),
    "scale": (lambda: ops.unary_from_probabilities(_UNARY, scale=0.0), ValueError, "scale.*0.0"),
    "clip": (lambda: ops.unary_from_probabilities(_UNARY, clip=2.0), ValueError, "clip.*2.0"),
    "layer's labels": (lambda: layer(0), ValueError, "num_labels.*0"),
    "layer's labels, a word": (lambda: layer("two"), TypeError, "num_labels: .*integer.*'two'"),
    "layer's sigma": (
        lambda: layer(2, pairwise=[Gaussian(-1.0)]),
        ValueError,
        "sigma.*above 0.*-1.0",
    ),
    "layer's term": (
        lambda: layer(2, pairwise=[FeatureKernel(_IMAGE)]),
        TypeError,
        "pairwise.*FeatureKernel",
    ),
    "layer's unary": (lambda: layer(3)(_UNARY, _IMAGE), ValueError, r"compatibility.*\[3, 3\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, says = BAD[name]
    with pytest.raises(error, match=says):
        call()


def test_public_names() -> None:
    """Everything is at hand under the package's own name."""
    for name in ("dense_crf", "crf_energy", "Gaussian", "Bilateral", "PermutohedralLattice"):
        assert getattr(deformops, name) is getattr(deformops.ops, name)
