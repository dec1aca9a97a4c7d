"""The dense CRF: derivatives, and the layer that learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deformops import (
    Bilateral,
    Gaussian,
    crf_energy,
    dense_crf,
    unary_from_labels,
)
from deformops.nn import DenseCRF
from deformops.testing import check_op
from tests.cases import assert_close
from tests.crf_cases import DOUBLE, random

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
