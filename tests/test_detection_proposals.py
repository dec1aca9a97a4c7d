"""Proposals and detections of a batch, against loops over boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork as PeerRPN
from torchvision.models.detection.rpn import RPNHead

from deformops.nets.detection import (
    BoxCoder,
    Proposals,
    RegionProposalNetwork,
    base_anchors,
    grid_anchors,
    propose,
    select_detections,
)
from tests.devices import Device
from tests.reference import detection as reference
from tests.test_detection_anchors import random_boxes

OPTIONS: list[dict[str, Any]] = [
    {"most_before": 400, "most": 50},
    {"most_before": 30, "most": 50, "iou_threshold": 0.3},
    {"most_before": None, "most": 2500, "min_size": 40.0},
    {"most_before": 400, "most": 7, "min_size": 0.0, "iou_threshold": 0.9},
]


def predictions(cells: tuple[int, int] = (6, 9)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, codes, anchors and sizes of three images; some scores tie."""
    generator = torch.Generator().manual_seed(0)
    anchors = grid_anchors(base_anchors(scales=(2, 4, 8), dtype=torch.float64), cells, 16)
    shape = (3, len(anchors))
    scores = torch.rand(shape, generator=generator, dtype=torch.float64).mul(300).round() / 300
    codes = torch.randn(*shape, 4, generator=generator, dtype=torch.float64) * 0.3
    return scores, codes, anchors, torch.tensor([[90, 140], [96, 144], [70, 100]])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_proposals_are_those_of_the_loop(options: dict[str, Any]) -> None:
    scores, codes, anchors, sizes = predictions()
    scales = torch.tensor([1.0, 1.6, 0.5])
    found = propose(scores, codes, anchors, sizes, image_scales=scales, **options)
    assert found.boxes.shape == (3, options["most"], 4)
    settings = {"iou_threshold": 0.7, "min_size": 16.0, **options}
    settings["most_before"] = settings["most_before"] or 10**6
    lists = found.as_list()
    for n in range(3):
        scaled = {**settings, "min_size": settings["min_size"] * float(scales[n])}
        values = (scores[n].numpy(), codes[n].numpy(), anchors.numpy())
        boxes, of_boxes = reference.propose(*values, tuple(sizes[n].tolist()), **scaled)
        count = len(boxes)
        assert int(found.counts[n]) == count
        np.testing.assert_allclose(lists[n], boxes, atol=1e-9)
        np.testing.assert_array_equal(found.scores[n, :count], of_boxes)
        assert not found.boxes[n, count:].any()
        assert found.exist()[n].sum() == count


def test_float32_and_no_gradient(device: Device) -> None:
    place = torch.device(device.type)
    scores, codes, anchors, sizes = (value.to(place) for value in predictions())
    expected = propose(scores, codes, anchors, sizes, most=20)
    floats = [value.float().requires_grad_() for value in (scores, codes)]
    found = propose(*floats, anchors.float(), sizes, most=20)
    assert not found.boxes.requires_grad
    assert found.boxes.dtype == torch.float32
    torch.testing.assert_close(found.boxes, expected.boxes.float(), rtol=0, atol=1e-3)


def test_an_image_without_large_enough_boxes() -> None:
    scores, codes, anchors, sizes = predictions()
    scales = torch.tensor([1.0, 100.0, 1.0])
    found = propose(scores, codes, anchors, sizes, image_scales=scales)
    assert int(found.counts[1]) == 0
    assert min(found.counts[::2].tolist()) > 0
    assert found.as_list()[1].shape == (0, 4)
    again = found.repeated()
    assert again.counts.tolist() == [300, 0, 300]


def test_no_anchor_is_no_proposal() -> None:
    found = propose(
        torch.zeros(2, 0), torch.zeros(2, 0, 4), torch.zeros(0, 4), torch.tensor([[5, 5]] * 2)
    )
    assert found.boxes.shape == (2, 300, 4)
    assert found.counts.tolist() == [0, 0]


def test_repeats_take_the_place_of_zeros() -> None:
    scores, codes, anchors, sizes = predictions()
    found = propose(scores, codes, anchors, sizes, most=250)
    again = found.repeated(torch.Generator().manual_seed(0))
    for n, (before, count) in enumerate(zip(found.as_list(), found.counts, strict=True)):
        assert 0 < count < 250
        assert torch.equal(again.boxes[n, :count], before)
        added = again.boxes[n, count:].unsqueeze(1)
        assert (added == before).all(-1).any(1).all()
    assert again.counts.tolist() == [250] * 3
    assert torch.equal(found.repeated(torch.Generator().manual_seed(0)).boxes, again.boxes)


def test_all_is_longer_by_one_or_nothing_is() -> None:
    """Two boxes of 3 x 1 that share 2 pixels overlap by 2 / 4, or by 1 / 3 without the ends."""
    anchors = torch.tensor([[10.0, 10, 12, 10], [11, 10, 13, 10]])
    tall = torch.tensor([[10.0, 10, 12, 12], [11, 10, 13, 12]])
    sizes = torch.tensor([[50, 50]])
    scores, codes = torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, 4)
    for plus_one, boxes, count in ((True, anchors, 1), (True, tall, 1), (False, tall, 2)):
        found = propose(
            scores,
            codes,
            boxes,
            sizes,
            iou_threshold=0.45,
            min_size=0,
            coder=BoxCoder(plus_one),
        )
        assert int(found.counts) == count


def test_a_shift_by_the_stride_shifts_proposals() -> None:
    """Predictions one cell to the right; all boxes lie far from the border."""
    scores, codes, _, _ = predictions((12, 12))
    scores, codes = scores.reshape(3, 12, 12, 9)[:, 4:8, 4:8], codes.reshape(3, 12, 12, 9, 4)
    codes = codes[:, 4:8, 4:8]
    base = base_anchors(scales=(1, 2), dtype=torch.float64)[:6]
    anchors = grid_anchors(base, (12, 12), 16)
    sizes = torch.tensor([[192, 192]] * 3)

    def at(row: int, column: int) -> Proposals:
        everywhere = torch.zeros(3, 12, 12, 6, dtype=torch.float64)
        moved = torch.zeros(3, 12, 12, 6, 4, dtype=torch.float64)
        everywhere[:, row : row + 4, column : column + 4] = scores[..., :6] + 1
        moved[:, row : row + 4, column : column + 4] = codes[..., :6, :]
        flat = everywhere.flatten(1), moved.flatten(1, 3)
        return propose(*flat, anchors, sizes, most_before=96, most=40, min_size=4)

    here, there = at(4, 4), at(4, 5)
    assert torch.equal(here.scores, there.scores)
    shift = torch.tensor([16.0, 0, 16, 0], dtype=torch.float64)
    torch.testing.assert_close(there.boxes[here.exist()], here.boxes[here.exist()] + shift)


@pytest.mark.parametrize("per_class", [True, False])
def test_detections_are_those_of_the_loop(per_class: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(2, 80, 4 if per_class else 1) - 30
    scores = torch.randn(2, 80, 4, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    sizes = torch.tensor([[250, 230], [150, 180]])
    for options in ({}, {"most": 9}, {"min_score": 0.6, "iou_threshold": 0.1}):
        settings = {"min_score": 0.05, "iou_threshold": 0.3, "most": 100, **options}
        found = select_detections(boxes, scores, sizes, **options)
        for n, image in enumerate(found):
            of_image = boxes[n].expand(-1, 4, -1).numpy(), scores[n].numpy()
            expected = reference.detections(*of_image, tuple(sizes[n].tolist()), **settings)
            assert image["labels"].tolist() == [label for _, label, _ in expected]
            assert image["scores"].tolist() == [score for score, _, _ in expected]
            np.testing.assert_allclose(image["boxes"], [box for _, _, box in expected])
    assert len(found[0]["labels"]) > 3


def test_torchvision_has_the_same_proposals() -> None:
    scores, codes, anchors, sizes = (value.float() for value in predictions())
    scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    coder = BoxCoder(False, max_log_size=math.log(1000 / 16))
    kept = {"training": 60, "testing": 60}
    peer = PeerRPN(
        AnchorGenerator(), RPNHead(4, 3), 0.7, 0.3, 256, 0.5, {**kept}, {**kept}, 0.7
    ).eval()
    peer.pre_nms_top_n = lambda: 200
    peer.post_nms_top_n = lambda: 60
    boxes = torch.stack([coder.decode(code, anchors) for code in codes])
    shapes = [tuple(size) for size in sizes.int().tolist()]
    per_level = [scores.shape[1]]
    expected, probabilities = peer.filter_proposals(boxes, scores, shapes, per_level)
    numbers = {"most_before": 200, "most": 60, "min_size": 1e-3, "coder": coder}
    found = propose(scores.sigmoid(), codes, anchors, sizes, **numbers)
    for n, ours in enumerate(found.as_list()):
        torch.testing.assert_close(ours, expected[n])
        torch.testing.assert_close(found.scores[n, : len(ours)], probabilities[n])


def test_torchvision_has_the_same_network_for_proposals() -> None:
    """The same weights make the same proposals of a map: layers, anchors, code and selection.

    Of all anchors: it takes the best before it drops what lies beyond the image, we after.
    """
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2, 12, 8, 11, generator=generator)
    before, kept = {"testing": 999}, {"testing": 40}
    peer = PeerRPN(
        AnchorGenerator(((32, 64, 128),)),
        RPNHead(12, 9),
        0.7,
        0.3,
        256,
        0.5,
        before,
        kept,
        0.7,
    ).eval()
    ours = RegionProposalNetwork(12, 12, scores=1, scales=(2, 4, 8), family="torchvision")
    (conv, *_), *_ = peer.head.conv
    for layer, other in (
        (ours.conv, conv),
        (ours.cls_score, peer.head.cls_logits),
        (ours.bbox_pred, peer.head.bbox_pred),
    ):
        torch.nn.init.normal_(other.weight, std=0.1, generator=generator)
        layer.load_state_dict(other.state_dict())
    sizes = torch.tensor([[128, 176], [110, 150]])
    images = ImageList(torch.zeros(2, 3, 128, 176), [tuple(size) for size in sizes.tolist()])
    expected, _ = peer(images, {"0": shared})
    coder = BoxCoder(False, max_log_size=math.log(1000 / 16))
    scores, codes = ours(shared)
    numbers = {"most_before": None, "most": 40, "min_size": 1e-3, "coder": coder}
    found = propose(scores[..., 0], codes, ours.anchors(shared), sizes, **numbers).as_list()
    for boxes, others in zip(found, expected, strict=True):
        assert len(boxes) > 10
        torch.testing.assert_close(boxes, others)


def test_torchvision_has_the_same_detections() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 80, 4, generator=generator) * 2
    codes = torch.randn(2, 80, 4, 4, generator=generator)
    proposals = random_boxes(2, 80).float()
    sizes = torch.tensor([[260, 250], [150, 180]])
    peer = RoIHeads(None, None, None, 0.5, 0.5, 128, 0.25, (10.0, 10.0, 5.0, 5.0), 0.05, 0.5, 100)
    shapes = [tuple(size) for size in sizes.tolist()]
    expected = peer.postprocess_detections(
        scores.flatten(0, 1), codes.flatten(0, 1).flatten(1), list(proposals), shapes
    )
    coder = BoxCoder(False, max_log_size=math.log(1000 / 16), stds=(0.1, 0.1, 0.2, 0.2))
    boxes = coder.decode(codes, proposals[:, :, None])
    found = select_detections(boxes, scores.softmax(-1), sizes, iou_threshold=0.5, plus_one=False)
    for n, image in enumerate(found):
        for name, values in zip(("boxes", "scores", "labels"), expected, strict=True):
            torch.testing.assert_close(image[name], values[n])
        assert len(image["labels"]) > 20


def test_nothing_is_detected() -> None:
    boxes = random_boxes(1, 5, 1)
    background = torch.tensor([[[1.0, 0, 0]]], dtype=torch.float64).expand(1, 5, 3)
    found = select_detections(boxes, background, torch.tensor([[99, 99]]))
    assert found[0]["boxes"].shape == (0, 4)
    assert found[0]["labels"].dtype == torch.int64
    none = select_detections(boxes[:, :0], background[:, :0], torch.tensor([[99, 99]]))
    assert none[0]["scores"].shape == (0,)


def test_errors_name_the_argument() -> None:
    scores, codes, anchors, sizes = predictions()
    with pytest.raises(ValueError, match="propose: codes: expected shape"):
        propose(scores, codes[:, 1:], anchors, sizes)
    with pytest.raises(ValueError, match="propose: anchors: expected shape"):
        propose(scores, codes, anchors[1:], sizes)
    with pytest.raises(ValueError, match="propose: image_sizes: expected shape"):
        propose(scores, codes, anchors, sizes[:1])
    with pytest.raises(ValueError, match="propose: most_before: expected a number above 0"):
        propose(scores, codes, anchors, sizes, most_before=0)
    with pytest.raises(ValueError, match=r"iou_threshold: expected .* got 2"):
        propose(scores, codes, anchors, sizes, iou_threshold=2)
    with pytest.raises(ValueError, match="select_detections: boxes: expected shape"):
        select_detections(codes[:, :, None].expand(-1, -1, 3, -1), scores[..., None], sizes)
