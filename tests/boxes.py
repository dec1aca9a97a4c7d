"""Boxes and scores for the tests of overlaps and suppression: drawn, published, and adverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

Scene = tuple[Tensor, Tensor]
"""Boxes [N, 4] and scores [N]."""


# --- published ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Golden:
    """Boxes and scores, and which of them are kept at a threshold."""

    boxes: list[list[float]]
    scores: list[float]
    kept: dict[float, list[int]]


# onnx/onnx, reference tests of NonMaxSuppression: places of boxes of one by one.
_ONNX = [0, 0.1, -0.1, 10, 10.1, 100]

GOLDENS: dict[str, Golden] = {
    "mmcv": Golden(
        [[6, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]],
        [0.6, 0.9, 0.7, 0.2],
        {0.3: [1, 0, 3]},
    ),
    "onnx": Golden(
        [[0, place, 1, place + 1] for place in _ONNX],
        [0.9, 0.75, 0.6, 0.95, 0.5, 0.3],
        {0.5: [3, 0, 5]},
    ),
    "onnx, identical": Golden([[0, 0, 1, 1]] * 10, [0.9] * 10, {0.5: [0]}),
    "chainercv": Golden(
        [[0, 0, 4, 4], [1, 1, 5, 5], [2, 1, 6, 5], [4, 0, 8, 4]],
        [0.9, 0.8, 0.7, 0.6],
        {1.0: [0, 1, 2, 3], 0.5: [0, 1, 3], 0.3: [0, 2, 3], 0.2: [0, 3]},
    ),
    "torchvision, half types": Golden(
        [
            [285.3538, 185.5758, 1193.5110, 851.4551],
            [285.1472, 188.7374, 1192.4984, 851.0669],
            [279.2440, 197.9812, 1189.4746, 849.2019],
        ],
        [0.6370, 0.7569, 0.3966],
        {0.2: [1]},
    ),
    "torchvision issue 2157": Golden(
        [
            [0.3764, 0.0905, 0.6533, 0.4487],
            [0.3744, 0.0899, 0.6535, 0.4513],
            [0.3753, 0.0916, 0.6532, 0.4512],
        ],
        [0.5, 0.5, 0.5],
        {0.2: [0]},
    ),
    "maskrcnn-benchmark issue 289": Golden([[7, 0, 12, 63], [7, 0, 12, 65]], [0, 1], {0.3: [1]}),
}


# --- drawn ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A problem of suppression, computed in float32 or float64."""

    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    idxs: NDArray[np.int64] | None
    threshold: float
    plus_one: bool

    def tensors(self, device: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes, scores and idxs."""
        idxs = None if self.idxs is None else torch.from_numpy(self.idxs).to(device)
        return (
            torch.from_numpy(self.boxes).to(device),
            torch.from_numpy(self.scores).to(device),
            idxs,
        )


@st.composite
def problems(draw: st.DrawFn, most: int = 120, groups: bool = True) -> Drawn:
    """Clusters with duplicates, ties, overlaps of simple fractions, and boxes that are none."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    count = draw(st.integers(0, most))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())  # corners on a coarse grid: overlaps like 1/3, exactly
    reach = draw(st.sampled_from([3, 10, 40]))
    centers = random.normal(draw(st.sampled_from([-1000, 0, 50])), reach, (count, 2))
    sides = random.uniform(0, draw(st.sampled_from([2, 10, 30])), (count, 2))
    boxes = np.concatenate([centers, centers + sides], 1)
    scores = random.uniform(-1, 1, count)
    if whole:
        boxes, scores = boxes.round(), (scores * 5).round()
    boxes, scores = boxes.astype(dtype), scores.astype(dtype)
    if draw(st.booleans()):
        odd = random.random(boxes.shape) < 0.03
        boxes[odd] = random.choice([np.nan, np.inf, -np.inf, -1e30, 1e30], odd.sum())
        scores[random.random(count) < 0.03] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        flipped = random.random(count) < 0.05
        boxes[flipped] = boxes[flipped][:, [2, 1, 0, 3]]
        twice = random.random(count) < 0.05
        boxes[twice] = boxes[: twice.sum()]
    idxs = None
    if groups and draw(st.booleans()):
        names = np.array([-(2**63), -1, 0, 3, 2**63 - 1])
        idxs = random.choice(names[: draw(st.integers(1, 5))], count)
    threshold = draw(st.sampled_from([0.0, 0.05, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.95, 1.0]))
    return Drawn(boxes, scores, idxs, threshold, draw(st.booleans()))


# --- made -----------------------------------------------------------------------------------------


def _random(seed: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return (
        lambda *shape: torch.rand(*shape, generator=generator),
        lambda *shape: torch.randn(*shape, generator=generator),
    )


def _around(centers: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centers - sides / 2, centers + sides / 2], 1)


def clusters(count: int, seed: int = 0) -> Scene:
    """Proposals of all sizes around objects, some 20 for each, as a detector has them."""
    uniform, normal = _random(seed)
    objects = max(1, count // 20)
    size = 16 * 32 ** uniform(objects, 1)
    aspect = (0.4 * normal(objects, 1)).exp()
    places = uniform(objects, 2) * torch.tensor([1333.0, 800.0])
    chosen = (uniform(count) * objects).long()
    sides = torch.cat([size * aspect, size / aspect], 1)[chosen] * (0.15 * normal(count, 2)).exp()
    return _around(places[chosen] + 0.15 * sides * normal(count, 2), sides), uniform(count)


def identical(count: int) -> Scene:
    """The same box again and again."""
    return torch.tensor([[10.0, 20.0, 50.0, 80.0]]).expand(count, 4), _random(0)[0](count)


def disjoint(count: int) -> Scene:
    """A chess-board of boxes that do not touch."""
    side = int(count**0.5) + 1
    index = torch.arange(count)
    corner = 10.0 * torch.stack([index % side, index // side], 1)
    return torch.cat([corner, corner + 9], 1), _random(0)[0](count)


def giant(count: int) -> Scene:
    """Clusters below a box that holds them all and is the best."""
    boxes, scores = clusters(count)
    boxes[count // 2] = torch.tensor([-1000.0, -1000.0, 3000.0, 3000.0])
    scores[count // 2] = 2
    return boxes, scores


def pile(count: int) -> Scene:
    """All about the same place and size."""
    uniform, normal = _random(0)
    return _around(200 + 10 * normal(count, 2), 100 * (0.3 * normal(count, 2)).exp()), uniform(
        count
    )


def slivers(count: int) -> Scene:
    """Long and thin, upright and flat."""
    uniform, normal = _random(0)
    aspect = (3 * normal(count, 1)).exp()
    return _around(1000 * uniform(count, 2), torch.cat([10 * aspect, 10 / aspect], 1)), uniform(
        count
    )


def scales(count: int) -> Scene:
    """Sides from a thousandth to a thousand."""
    uniform, _ = _random(0)
    return _around(1000 * uniform(count, 2), (14 * uniform(count, 2) - 7).exp()), uniform(count)


def concentric(count: int) -> Scene:
    """All sizes around one point."""
    uniform, _ = _random(0)
    center = torch.full((count, 2), 500.0)
    return _around(center, (14 * uniform(count, 2) - 7).exp()), uniform(count)


def far(count: int) -> Scene:
    """Where float32 counts in sixteenths."""
    boxes, scores = clusters(count)
    return boxes + 1e6, scores


def tiny(count: int) -> Scene:
    """Areas that are too small for normal float32 numbers."""
    boxes, scores = clusters(count)
    return boxes * 1e-22, scores


SCENES: dict[str, Callable[[int], Scene]] = {
    scene.__name__: scene
    for scene in (
        clusters,
        identical,
        disjoint,
        giant,
        pile,
        slivers,
        scales,
        concentric,
        far,
        tiny,
    )
}
