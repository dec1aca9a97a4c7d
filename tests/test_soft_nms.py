"""soft_nms against published numbers and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import deformops
from deformops.testing import check_op
from tests.boxes import GOLDENS, Drawn, clusters, identical, problems
from tests.devices import Device
from tests.reference import suppression

METHODS = ("linear", "gaussian", "naive")

# mmcv, test_nms.py: an overlap of 0.3, sigma 0.5, min_score 0.01.
MMCV = {
    "linear": ([0.9, 0.6, 0.29024392, 0.2], [1, 0, 2, 3]),
    "gaussian": ([0.9, 0.59630775, 0.35275510, 0.18650459], [1, 0, 2, 3]),
    "naive": ([0.9, 0.6, 0.2], [1, 0, 3]),
}


@pytest.mark.parametrize("method", METHODS)
def test_goldens(device: Device, method: str) -> None:
    golden = GOLDENS["mmcv"]
    boxes, scores = (torch.tensor(of, device=device.type) for of in (golden.boxes, golden.scores))
    want, indices = MMCV[method]
    chosen, kept = device.raw.soft_nms(
        boxes.float(), scores, 0.3, sigma=0.5, min_score=0.01, method=method
    )
    assert kept.tolist() == indices
    torch.testing.assert_close(chosen.cpu(), torch.tensor(want), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems(most=60, groups=False), data=st.data())
def test_brute_force(device: Device, method: str, problem: Drawn, data: st.DataObject) -> None:
    sigma = data.draw(st.sampled_from([0.1, 0.5, 2.0]))
    min_score = data.draw(st.sampled_from([0.0, 1e-3, 0.3]))
    options = {"sigma": sigma, "min_score": min_score, "method": method}
    options["plus_one"] = problem.plus_one
    want, indices = suppression.soft_nms(
        problem.boxes, problem.scores, problem.threshold, **options
    )
    boxes, scores, _ = problem.tensors(device.type)
    chosen, kept = device.raw.soft_nms(boxes, scores, problem.threshold, **options)
    assert kept.tolist() == indices
    assert kept.dtype == torch.int64
    rtol = 4 * np.finfo(want.dtype).eps * (1 + len(indices))
    np.testing.assert_allclose(chosen.cpu().numpy(), want, rtol=rtol)


def test_many(device: Device) -> None:
    boxes, scores = (tensor.double() for tensor in clusters(700))
    want, indices = suppression.soft_nms(boxes.numpy(), scores.numpy(), method="gaussian")
    moved = boxes.to(device.type), scores.to(device.type)
    chosen, kept = device.raw.soft_nms(*moved, 0.3, method="gaussian")
    assert kept.tolist() == indices
    np.testing.assert_allclose(chosen.cpu().numpy(), want, rtol=1e-12)


def test_naive_is_nms(device: Device) -> None:
    boxes, scores = (tensor.to(device.type) for tensor in clusters(300))
    chosen, kept = device.raw.soft_nms(boxes, scores, 0.4, min_score=0.2, method="naive")
    want = device.raw.nms(boxes, scores, None, 0.4)
    want = want[scores[want] >= 0.2]
    assert torch.equal(kept, want)
    assert torch.equal(chosen, scores[want])


@pytest.mark.variants
def test_types(device: Device, dtype: torch.dtype) -> None:
    """Half types are computed in float32 and rounded once."""
    boxes, scores = (tensor.to(dtype) for tensor in clusters(90))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want, indices = suppression.soft_nms(boxes.to(wide).numpy(), scores.to(wide).numpy())
    chosen, kept = device.raw.soft_nms(boxes.to(device.type), scores.to(device.type), 0.3)
    assert kept.tolist() == indices
    assert torch.equal(chosen.cpu(), torch.from_numpy(want).to(dtype))


def test_what_is_decided_how(device: Device) -> None:
    """Ties by index, NaN first, a weight of 0 leaves 0, the lowest score stays."""
    nan, inf = float("nan"), float("inf")

    def run(boxes: Tensor, scores: list[float], **options: Any) -> tuple[list[float], list[int]]:
        moved = boxes.to(device.type), torch.tensor(scores, device=device.type)
        chosen, kept = device.raw.soft_nms(*moved, 0.5, **options)
        return chosen.tolist(), kept.tolist()

    apart = torch.tensor([[0.0, 0, 4, 4], [10, 10, 14, 14], [20, 20, 24, 24], [30, 30, 34, 34]])
    assert run(apart, [0.5, 0.75, 0.5, 0.75]) == ([0.75, 0.75, 0.5, 0.5], [1, 3, 0, 2])
    assert run(apart, [0.5, nan, inf, -nan])[1] == [1, 3, 2, 0]
    assert run(apart, [0.5, 0.25, -1.0, 0.125], min_score=0.25) == ([0.5, 0.25], [0, 1])
    assert run(apart, [0.0, -0.0, 1.0, 0.0], min_score=0.0)[1] == [2, 0, 1, 3]
    same = identical(3)[0]
    assert run(same, [0.5, inf, inf]) == ([inf], [1])
    assert run(same, [0.5, inf, inf], min_score=0.0) == ([inf, 0.0, 0.0], [1, 0, 2])
    points = torch.zeros(3, 4)
    assert run(points, [0.25, 0.5, 1.0])[1] == [2, 1, 0]
    assert run(points, [0.25, 0.5, 1.0], method="gaussian")[0] == [1.0, 0.5, 0.25]


def test_nothing(device: Device) -> None:
    empty = torch.empty(0, 4, device=device.type)
    chosen, kept = device.raw.soft_nms(empty, empty[:, 0], 0.5)
    assert chosen.shape == kept.shape == (0,)
    boxes, scores = (tensor.to(device.type) for tensor in clusters(10))
    chosen, kept = device.raw.soft_nms(boxes, scores, 0.5, min_score=2)
    assert chosen.shape == kept.shape == (0,)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_derivatives(method: str) -> None:
    """Of the chosen scores, with respect to boxes and scores."""
    low = torch.tensor([[0.0, 0], [1, 0.5], [2, 1.5], [9, 9]], dtype=torch.float64)
    boxes = torch.cat([low, low + torch.tensor([[4.0, 5], [5, 4], [4.5, 4], [3, 3]])], 1)
    scores = torch.tensor([0.9, 0.7, 0.6, 0.8], dtype=torch.float64)

    def function(boxes: Tensor, scores: Tensor) -> Tensor:
        return deformops.soft_nms(boxes, scores, 0.2, sigma=0.7, min_score=0.01, method=method)[0]

    def reference(boxes: Tensor, scores: Tensor) -> Tensor:
        arrays = boxes.numpy(), scores.numpy()
        return torch.from_numpy(suppression.soft_nms(*arrays, 0.2, 0.7, 0.01, method)[0])

    checks = ["values", "gradients", "second", "forward", "func", "compile", "export", "types"]
    check_op(function, boxes, scores, reference=reference, exhaustive=True, checks=checks)


def test_derivatives_without_decay() -> None:
    boxes, scores = clusters(30)
    chosen, kept = deformops.soft_nms(boxes, scores.requires_grad_(), method="naive")
    chosen.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros(30).index_fill(0, kept, 1))


def test_derivatives_beside_boxes_without_area() -> None:
    boxes = torch.zeros(3, 4, requires_grad=True)
    scores = torch.tensor([0.3, 0.2, 0.1], requires_grad=True)
    chosen, _ = deformops.soft_nms(boxes, scores)
    chosen.sum().backward()
    assert torch.equal(boxes.grad, torch.zeros(3, 4))  # type: ignore[arg-type]
    assert torch.equal(scores.grad, torch.ones(3))  # type: ignore[arg-type]


def test_opcheck(device: Device) -> None:
    boxes, scores = (tensor.to(device.type) for tensor in clusters(30))
    torch.library.opcheck(device.raw.soft_nms.default, (boxes, scores, 0.5), {"plus_one": True})
    with pytest.raises(ValueError, match="soft_nms: vmap: expected"):
        torch.vmap(lambda boxes, scores: device.raw.soft_nms(boxes, scores, 0.5))(
            boxes[None], scores[None]
        )


BOXES, SCORES = torch.zeros(3, 4), torch.zeros(3)
MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "three corners": ({"boxes": BOXES[:, :3]}, ValueError, "boxes: expected"),
    "other scores": ({"scores": SCORES[:2]}, ValueError, "scores: expected shape"),
    "other type": ({"scores": SCORES.half()}, TypeError, "scores: expected the dtype of boxes"),
    "threshold": ({"iou_threshold": -1.0}, ValueError, "iou_threshold: .* -1"),
    "sigma": ({"sigma": 0.0}, ValueError, "sigma: expected a positive number, got 0"),
    "sigma a word": ({"sigma": "wide"}, TypeError, "sigma: expected a number, got 'wide'"),
    "min_score": ({"min_score": -0.5}, ValueError, "min_score: expected .* at least 0, got -0.5"),
    "min_score NaN": ({"min_score": float("nan")}, ValueError, "min_score: .* nan"),
    "plus_one": ({"plus_one": "no"}, TypeError, "plus_one: expected True or False, got 'no'"),
    "method": ({"method": "cubic"}, ValueError, "method: expected 'linear' or .*'cubic'"),
}


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, fake: bool) -> None:
    changed, error, message = MISTAKES[mistake]
    arguments: dict[str, Any] = {"boxes": BOXES, "scores": SCORES, **changed}
    if fake:
        mode = FakeTensorMode()
        arguments = {
            name: mode.from_tensor(value) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }
    with pytest.raises(error, match=f"^soft_nms: {message}"):
        deformops.soft_nms(**arguments)
