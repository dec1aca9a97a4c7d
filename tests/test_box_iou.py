"""box_iou against published numbers, brute force and torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import deformops
from deformops.testing import check_op
from tests.boxes import Drawn, clusters, problems
from tests.devices import Device
from tests.reference import suppression


def test_goldens(device: Device) -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 50, 50], [200, 200, 300, 300]])
    want = torch.tensor([[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1]])
    boxes = boxes.to(device.type)
    assert torch.equal(device.raw.box_iou(boxes, boxes).cpu(), want)


def test_plus_one(device: Device) -> None:
    left, right = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 0, 14, 9]])
    for plus_one, want in ((False, 2 / 7), (True, 1 / 3)):
        overlap = device.raw.box_iou(
            left.to(device.type), right.to(device.type), plus_one=plus_one
        ).item()
        assert overlap == np.float32(want)


@given(problem=problems(most=70, groups=False))
def test_brute_force(device: Device, problem: Drawn) -> None:
    """To the bit."""
    other = problem.boxes[::3]
    want = suppression.box_iou(problem.boxes, other, problem.plus_one)
    boxes, _, _ = problem.tensors(device.type)
    overlaps = device.raw.box_iou(boxes, boxes[::3], plus_one=problem.plus_one)
    np.testing.assert_array_equal(overlaps.cpu().numpy(), want)


@pytest.mark.variants
def test_types(device: Device, dtype: torch.dtype) -> None:
    """Half types are computed in float32 and rounded once."""
    boxes = clusters(40)[0].to(dtype)
    wide = boxes.double() if dtype == torch.float64 else boxes.float()
    want = suppression.box_iou(wide.numpy(), wide.numpy())
    overlaps = device.raw.box_iou(boxes.to(device.type), boxes.to(device.type))
    assert torch.equal(overlaps.cpu(), torch.from_numpy(want).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchvision_agrees(dtype: torch.dtype) -> None:
    boxes = clusters(500)[0].to(dtype)
    overlaps = deformops.box_iou(boxes, boxes[:33])
    assert torch.equal(overlaps, torchvision.ops.box_iou(boxes, boxes[:33]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (2, 130), (300, 1)])
def test_sizes(device: Device, shape: tuple[int, int]) -> None:
    boxes, _ = clusters(300)
    rows, columns = boxes[: shape[0]], boxes[: shape[1]]
    overlaps = device.raw.box_iou(rows.to(device.type), columns.to(device.type))
    assert overlaps.shape == shape
    want = suppression.box_iou(rows.numpy(), columns.numpy())
    np.testing.assert_array_equal(overlaps.cpu().numpy(), want)


def test_odd_boxes(device: Device) -> None:
    """0 / 0 is NaN, as a NaN is; boxes the wrong way round have nothing in common with any."""
    nan, inf = float("nan"), float("inf")
    usual = [[0.0, 0, 4, 4]]
    odd = [[1, 1, 1, 1], [nan, 0, 4, 4], [4, 0, 0, 4], [4, 4, 0, 0], [-inf, 0, inf, 4]]
    boxes = torch.tensor(odd + usual, device=device.type)
    overlaps = device.raw.box_iou(boxes, boxes)
    assert torch.equal(overlaps[-1].nan_to_num(-1).cpu(), torch.tensor([0.0, -1, -1, 0, 0, 1]))
    assert overlaps[0, 0].isnan()


def test_everything_an_op_can_do(device: Device) -> None:
    """Derivatives of both orders and directions, func, vmap, compile, export, types, layouts."""
    random = torch.Generator().manual_seed(0)
    low = torch.rand(7, 2, generator=random, dtype=torch.float64) * 4
    sides = 1 + 3 * torch.rand(7, 2, generator=random, dtype=torch.float64)
    boxes = torch.cat([low, low + sides], 1).to(device.type)

    def reference(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        overlaps = suppression.box_iou(boxes1.cpu().numpy(), boxes2.cpu().numpy(), True)
        return torch.from_numpy(overlaps).to(boxes1)

    check_op(
        lambda boxes1, boxes2: device.raw.box_iou(boxes1, boxes2, plus_one=True),
        boxes[:4],
        boxes[4:],
        reference=reference,
        raw_calls=[(device.raw.box_iou.default, (boxes[:4], boxes[4:]))],
        batch_inputs=[0],
        exhaustive=True,
    )


def test_the_same_with_and_without_derivatives() -> None:
    boxes, _ = clusters(60)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = boxes.to(dtype)
        with_derivatives = deformops.box_iou(given.clone().requires_grad_(), given)
        assert with_derivatives.requires_grad
        assert torch.equal(with_derivatives, deformops.box_iou(given, given))


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_mistakes(fake: bool) -> None:
    boxes = torch.zeros(3, 4)
    for first, second, error, message in (
        (boxes[0], boxes, ValueError, "boxes1: expected"),
        (boxes, boxes[:, :2], ValueError, "boxes2: expected shape"),
        (boxes, boxes.double(), TypeError, "boxes2: expected the dtype of boxes1"),
        (boxes, [1, 2, 3, 4], TypeError, "boxes2: expected a tensor"),
        (boxes.int(), boxes.int(), TypeError, "boxes1: expected .*float64"),
    ):
        mode = FakeTensorMode()
        given = [
            mode.from_tensor(value) if fake and isinstance(value, Tensor) else value
            for value in (first, second)
        ]
        with pytest.raises(error, match=f"^box_iou: {message}"):
            deformops.box_iou(*given)
    word: Any = "no"
    with pytest.raises(TypeError, match=r"^box_iou: plus_one: expected True or False, got 'no'"):
        deformops.box_iou(boxes, boxes, plus_one=word)
