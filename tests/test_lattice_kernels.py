"""Every variant of the lattice's kernels, against the same steps written with tensors.

Numbers are positive, weights and values small and whole: splat and blur are then exact, and no term
of a sum is so small beside the others that it could be missing unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from deformops import Bilateral, Gaussian
from deformops.nn import DenseCRF
from deformops.ops._lattice import LatticeFilter
from tests.devices import Device
from tests.reference import lattice as reference

pytestmark = pytest.mark.variants

DTYPES = [torch.float32, torch.float64]


@dataclass(frozen=True)
class Arrays:
    """What lattice_build returns, in the order in which the other ops take it."""

    vertex: Tensor  # [P, d + 1]
    start: Tensor  # [V + 1]
    entry: Tensor  # [P * (d + 1)]
    neighbor: Tensor  # [d + 1, V, 2]

    def all(self) -> tuple[Tensor, ...]:
        return self.vertex, self.start, self.entry, self.neighbor


def points(device: Device, dtype: torch.dtype, images: int, count: int, dims: int) -> Tensor:
    """Features [N, M, d] that share vertices and have neighbours."""
    random = np.random.default_rng(dims)
    features = torch.from_numpy(random.normal(size=(images, count, dims)))
    return features.to(device.type, dtype)


def whole(like: Tensor, *shape: int, most: int = 3, seed: int = 0) -> Tensor:
    """Whole numbers from 1 to `most`, of the type of `like`."""
    numbers = np.random.default_rng(seed).integers(1, most + 1, shape)
    return torch.from_numpy(numbers).to(like.device, like.dtype)


def build(device: Device, features: Tensor) -> tuple[Arrays, Tensor]:
    """The lattice and the barycentric weights."""
    vertex, weight, start, entry, neighbor = device.raw.lattice_build(features)
    return Arrays(vertex, start, entry, neighbor), weight


def expected_lattice(features: Tensor) -> tuple[Arrays, Tensor]:
    """The same, from the definition."""
    count, dims = features.shape[1:]
    lifted = reference.elevate(features.cpu().double().numpy().reshape(-1, dims))
    corners, weights = [], []
    for number, point in enumerate(lifted):
        vertices, weight = reference.simplex(point)
        corners += [(number // count, *vertex) for vertex in vertices]
        weights.append(weight)
    keys = sorted(set(corners))
    number_of = {key: number for number, key in enumerate(keys)}
    vertex = torch.tensor([number_of[key] for key in corners], dtype=torch.int32)
    entry = vertex.argsort(stable=True)
    start = torch.zeros(len(keys) + 1, dtype=torch.int64)
    start[1:] = vertex.bincount(minlength=len(keys)).cumsum(0)
    neighbor = torch.empty(dims + 1, len(keys), 2, dtype=torch.int32)
    for axis, (number, key), side in product(range(dims + 1), enumerate(keys), range(2)):
        step = np.ones(dims + 1, dtype=int)
        step[axis] = -dims
        moved = np.array(key[1:]) + (step if side else -step)
        neighbor[axis, number, side] = number_of.get((key[0], *moved.tolist()), -1)
    arrays = Arrays(vertex.view(-1, dims + 1), start.int(), entry.int(), neighbor)
    return arrays, torch.from_numpy(np.array(weights))


def blurred(lattice: Arrays, values: Tensor, weight: Tensor, reverse: bool) -> Tensor:
    """Splat and blur with the tensors' own operations: the rows of the vertices."""
    corners = lattice.vertex.shape[1]
    products = weight[:, :, None] * values[:, None]
    rows = values.new_zeros(lattice.start.numel() - 1, values.shape[1])
    rows = rows.index_add(0, lattice.vertex.flatten(), products.flatten(0, 1))
    for axis in reversed(range(corners)) if reverse else range(corners):
        padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])  # number -1 is a row of zeros
        rows = rows + padded[lattice.neighbor[axis].long()].sum(1) / 2
    return rows / (1 + 2.0 ** (1 - corners))


def filtered(
    lattice: Arrays, values: Tensor, splat: Tensor, slice_: Tensor, reverse: bool = False
) -> Tensor:
    rows = blurred(lattice, values, splat, reverse)
    return (slice_[:, :, None] * rows[lattice.vertex.long()]).sum(1)


def assert_close(got: Tensor, want: Tensor) -> None:
    limit = 2e-6 if got.dtype == torch.float32 else 1e-14
    torch.testing.assert_close(got, want.to(got.dtype), rtol=limit, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5, 6, 11])
def test_build(device: Device, dims: int, dtype: torch.dtype) -> None:
    """Keys of 11 coordinates have several words."""
    features = points(device, dtype, 2, 23, dims)
    (got, weight), (want, want_weight) = build(device, features), expected_lattice(features)
    for name in ("vertex", "start", "entry", "neighbor"):
        torch.testing.assert_close(getattr(got, name).cpu(), getattr(want, name), msg=name)
    limit = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(weight.cpu().double(), want_weight, atol=limit, rtol=0.0)


def test_build_of_many_points(device: Device) -> None:
    """Sorting more corners than the counts of one tile; their keys have all digits."""
    features = points(device, torch.float32, 1, 8200, 1) * 60
    got, want = build(device, features)[0], expected_lattice(features)[0]
    for name in ("vertex", "start", "entry", "neighbor"):
        torch.testing.assert_close(getattr(got, name).cpu(), getattr(want, name), msg=name)


def test_build_of_vertices_with_one_word_alike(device: Device) -> None:
    """Points apart by a step that only the last coordinates, in a key's last word, see."""
    dims = 11
    step = np.zeros(dims + 1)
    step[dims - 2 : dims] = dims + 1, -dims - 1
    lifted = reference.elevate(np.eye(dims))
    shift = torch.from_numpy(np.linalg.lstsq(lifted.T, step, rcond=None)[0])
    features = points(device, torch.float64, 1, 10, dims)
    features = torch.cat([features, features + shift.to(features)], 1)
    got, want = build(device, features)[0], expected_lattice(features)[0]
    for name in ("vertex", "start", "entry", "neighbor"):
        torch.testing.assert_close(getattr(got, name).cpu(), getattr(want, name), msg=name)


@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.parametrize("far", [1, 20, 50, 100, 139])
def test_build_with_a_far_point(device: Device, dims: int, far: int) -> None:
    """Keys have room for the range of all points, whatever thread sees the first and the last."""
    features = points(device, torch.float32, 1, 140, dims)
    features[0, far] += 1000
    features[0, far - 1] -= 1000
    got, want = build(device, features)[0], expected_lattice(features)[0]
    for name in ("vertex", "start", "entry", "neighbor"):
        torch.testing.assert_close(getattr(got, name).cpu(), getattr(want, name), msg=name)


def test_build_of_more_points_than_threads(device: Device) -> None:
    """Those that look for the range of the points take several points each."""
    near = points(device, torch.float32, 1, 65_600, 1)
    far = torch.tensor([[[1000.0], [-1000.0]]], device=device.type)
    alone, together = (build(device, each)[0] for each in (near, torch.cat([near, far], 1)))
    assert torch.equal(together.vertex[:-2], alone.vertex + 2)
    last = together.start.numel() - 2
    assert last == alone.start.numel() - 2 + 4
    assert together.vertex[-2:].sort(1).values.tolist() == [[last - 1, last], [0, 1]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3, 5, 6])
def test_slopes_of_weights(device: Device, dims: int, dtype: torch.dtype) -> None:
    """Weights are linear in the features as long as the simplex stays the same."""
    features = points(device, dtype, 2, 9, dims)
    tangent = points(device, dtype, 2, 9, dims).flip(1)
    grad = whole(features, 18, dims + 1)
    change = device.raw.lattice_weights_forward(tangent, features)
    gradient = device.raw.lattice_weights_backward(grad, features)
    step = 1e-7
    exact, direction = features.double(), tangent.double() * step
    ahead, behind = (expected_lattice(exact + sign * direction)[1] for sign in (1, -1))
    want = (ahead - behind) / (2 * step)
    torch.testing.assert_close(change.cpu().double(), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((gradient * tangent).sum(), (grad * change).sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 8, 13, 21, 40, 70])
def test_filter(device: Device, channels: int, dtype: torch.dtype, reverse: bool) -> None:
    features = points(device, dtype, 2, 30, 2)
    lattice, _ = build(device, features)
    values = whole(features, 60, channels)
    splat, slice_ = (whole(features, 60, 3, seed=seed) for seed in (1, 2))
    want = filtered(lattice, values, splat, slice_, reverse)
    for layout in (values, values.t().contiguous().t()):
        got = device.raw.lattice_filter(layout, splat, slice_, *lattice.all(), reverse)
        assert_close(got, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 21, 70])
def test_contract(device: Device, channels: int, dtype: torch.dtype) -> None:
    features = points(device, dtype, 1, 40, 3)
    lattice, _ = build(device, features)
    values, grad = (whole(features, 40, channels, seed=seed) for seed in (1, 2))
    splat = whole(features, 40, 4, seed=3)
    for reverse in (False, True):
        rows = blurred(lattice, values, splat, reverse)
        want = (grad[:, None] * rows[lattice.vertex.long()]).sum(2)
        got = device.raw.lattice_contract(grad, values, splat, *lattice.all(), reverse)
        assert_close(got, want)


def test_one_vertex_has_everything(device: Device) -> None:
    """Pieces of the splat that are all of one vertex, and one with the end of a vertex."""
    features = torch.zeros(1, 150, 1, device=device.type)
    lattice, _ = build(device, features)
    values, weight = whole(features, 150, 5), whole(features, 150, 2, seed=1)
    got = device.raw.lattice_filter(values, weight, weight, *lattice.all(), False)
    assert_close(got, filtered(lattice, values, weight, weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("labels", "kinds"),
    [
        (1, [0] * 5),
        (2, [1] * 5),
        (21, [0, 0]),
        (7, [2, 0, 1, 2, 0]),
        (35, [2]),
        (70, [1]),
        (150, [0]),
        (4, []),
    ],
)
def test_mean_field(device: Device, labels: int, kinds: list[int], dtype: torch.dtype) -> None:
    """`kinds` are the numbers of dimensions of the kernels' compatibilities."""
    images, count = 2, 7
    random = np.random.default_rng(labels)

    def numbers(*shape: int) -> Tensor:
        return torch.from_numpy(random.uniform(0.2, 1.0, shape)).to(device.type, dtype)

    lattices = [
        build(device, points(device, dtype, images, count, 2 + k % 2))[0] for k in range(len(kinds))
    ]
    splat = [numbers(*lattice.vertex.shape) for lattice in lattices]
    slice_ = [numbers(*lattice.vertex.shape) / 4 for lattice in lattices]
    compatibility = [numbers(*[labels] * kind) - 0.5 for kind in kinds]
    own = [numbers(images * count) for _ in kinds]
    columns = [[lattice.all()[i] for lattice in lattices] for i in range(4)]
    unary = numbers(images, labels, count)
    start = numbers(images, labels, count)

    def step(q: Tensor, own: list[Tensor]) -> Tensor:
        rows = q.double().transpose(1, 2).reshape(images * count, labels)
        scores = -unary.double()
        for k, kind in enumerate(kinds):
            message = filtered(lattices[k], rows, splat[k].double(), slice_[k].double())
            if own:
                message = message - own[k].double()[:, None] * rows
            gain = compatibility[k].double()
            message = message @ gain.T if kind == 2 else message * gain
            scores = scores + message.view(images, count, labels).transpose(1, 2)
        return scores.softmax(1)

    permuted = unary.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for weights, initial, layout in ([], None, unary), (own, start, permuted):
        q = (-unary.double()).softmax(1) if initial is None else initial.double()
        for iterations in range(3):
            arguments = (splat, slice_, *columns, compatibility, weights, initial, iterations)
            got = device.raw.mean_field(layout, *arguments)
            limit = 2e-5 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(got.double(), q, rtol=limit, atol=limit)
            q = step(q, weights)


def test_gradients_of_a_layer(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Energies, image and parameters get from the device's lattices what they get on the CPU."""
    random = torch.Generator().manual_seed(0)
    unary, image = (torch.randn(2, 3, 5, 6, generator=random).double() for _ in range(2))
    labels = torch.randint(3, (2, 5, 6), generator=random)
    terms = [Gaussian((1.5, 1.2), 0.7), Bilateral(4.0, 0.6, 1.1)]

    def gradients(kind: str) -> list[Tensor]:
        crf = DenseCRF(3, pairwise=terms, iterations=2, dtype=torch.float64, device=kind)
        inputs = [tensor.to(kind).requires_grad_() for tensor in (unary, image)]
        loss = torch.nn.functional.nll_loss(crf(*inputs, log=True), labels.to(kind))
        return list(torch.autograd.grad(loss, [*inputs, *crf.parameters()]))

    want = gradients("cpu")
    build_there = partial(LatticeFilter.build, ops=device.raw)
    monkeypatch.setattr(LatticeFilter, "build", build_there)
    for one, another in zip(gradients(device.type), want, strict=True):
        assert float(another.abs().max()) > 1e-6
        torch.testing.assert_close(one.cpu(), another, rtol=1e-9, atol=1e-12)
