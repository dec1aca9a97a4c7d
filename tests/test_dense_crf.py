"""The dense CRF: published numbers, the definition over all pairs, and enumeration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

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
from deformops.ops import DEEPLAB
from tests import crf_goldens as goldens
from tests.cases import assert_close, numpy
from tests.crf_cases import DOUBLE, Array, by_pixel, random, tensor, terms, x_first
from tests.reference import dense_crf as reference

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


def test_public_names() -> None:
    """Everything is at hand under the package's own name."""
    for name in ("dense_crf", "crf_energy", "Gaussian", "Bilateral", "PermutohedralLattice"):
        assert getattr(deformops, name) is getattr(deformops.ops, name)
