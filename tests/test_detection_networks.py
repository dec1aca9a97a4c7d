"""Detectors: sizes of the published ones, where their cells look, what they learn and return."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deformops
from deformops.nets import VGG16, ResNetTrunk, transplant
from deformops.nets.detection import (
    RFCN_SETTINGS,
    AlignedInceptionResNet,
    AlignedInceptionResNetTrunk,
    Batch,
    Detector,
    DetectorSettings,
    RegionProposalNetwork,
    RFCNHead,
    TwoStageDetector,
    ZFFeatures,
    build_detector,
    networks,
    options,
    vote,
)
from deformops.nets.grid import Grid
from tests.test_nets_tables import count

SMALL = (2.0, 4.0)


def slim(name: str, classes: int = 4, **chosen: Any) -> Any:
    """A narrow detector with small anchors."""
    if "resnet" in name:
        chosen["norm"] = "batch"
    return build_detector(name, classes, **{"width": 1 / 16, "scales": SMALL, **chosen})


def photos(number: int = 2) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Noise with boxes; the last photo has none."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 3, 96, 128, generator=generator) * 50
    some = {
        "boxes": torch.tensor([[10.0, 20, 49, 59], [60, 5, 119, 70], [33, 44, 70, 90]]),
        "labels": torch.tensor([1, 3, 2]),
    }
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [some] * (number - 1) + [none]


@pytest.mark.parametrize(
    ("name", "chosen", "expected", "rpn"),
    [
        ("faster-rcnn-zf", {}, 59_294_751, 603_958),
        ("faster-rcnn-vgg16", {}, 137_078_239, 2_387_510),
        ("faster-rcnn-resnet101", {}, 61_774_815, 4_746_806),
        (
            "faster-rcnn-resnet101",
            {"deformable_layers": 3, "deformable_rois": True},
            63_999_769,
            4_746_806,
        ),
        ("rfcn-resnet101", {}, 50_801_667, 4_746_806),
        (
            "rfcn-resnet101",
            {"deformable_layers": 3, "deformable_rois": True},
            54_007_111,
            4_746_806,
        ),
    ],
)
def test_parameters(name: str, chosen: dict[str, Any], expected: int, rpn: int) -> None:
    with torch.device("meta"):
        net = build_detector(name, 21, **chosen)
    assert count(net) == expected
    assert count(net.rpn) == rpn


def test_parameters_of_aligned_inception_resnet() -> None:
    with torch.device("meta"):
        net = AlignedInceptionResNet()
    assert count(net) == 64_381_800
    norms = sum(count(layer) for layer in net.modules() if isinstance(layer, nn.BatchNorm2d))
    assert count(net) - norms == 64_252_072


@pytest.mark.parametrize("detector", ["faster-rcnn-resnet101", "class-aware-rpn-resnet101"])
def test_names_of_deformable_layers(detector: str) -> None:
    res5 = [f"trunk.backbone.layer4.{block}.conv2" for block in range(3)]
    res4 = [f"trunk.backbone.layer3.{block}.conv2" for block in (20, 21, 22)]
    for number, expected in ((0, []), (1, res5[2:]), (2, res5[1:]), (3, res5), (6, res4 + res5)):
        with torch.device("meta"):
            net = build_detector(detector, 21, deformable_layers=number)
        assert net.deformable_layers() == expected
        for name in expected:
            layer = net.get_submodule(name)
            dilation = 2 if name in res5 else 1
            assert layer.offset_groups == 4
            assert layer.conv_offset.out_channels == 72
            assert layer.dilation == layer.conv_offset.dilation == (dilation, dilation)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("faster-rcnn-vgg16", (600, 1000), (38, 63)),
        ("faster-rcnn-vgg16", (600, 800), (38, 50)),
        ("faster-rcnn-zf", (224, 224), (15, 15)),
        ("rfcn-resnet50", (600, 1000), (38, 63)),
        ("class-aware-rpn-aligned-inception-resnet", (256, 320), (16, 20)),
    ],
)
def test_sizes_of_maps(name: str, size: tuple[int, int], cells: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = slim(name)
        shared = net.trunk(torch.empty(1, 3, *size))
        assert shared.shape == (1, net.trunk.channels, *cells)
        assert net.trunk.deeper(shared).shape == (1, net.trunk.deeper_channels, *cells)


def test_pixels_that_a_cell_of_proposals_sees() -> None:
    """171 and 228 pixels, the numbers of the paper."""
    for name, expected in (("faster-rcnn-zf", 171), ("faster-rcnn-vgg16", 228)):
        with torch.device("meta"):
            net = slim(name)
        seen, step = 1, 1
        for layer in [*net.trunk.backbone, net.rpn.conv]:
            if type(layer).__name__ != "LocalResponseNorm" and hasattr(layer, "kernel_size"):
                seen += (layer.kernel_size[0] - 1) * step
                step *= layer.stride[0]
        assert (seen, step) == (expected, 16)


def test_zf_is_its_table() -> None:
    net = ZFFeatures(1 / 16).double()
    image = torch.randn(1, 3, 40, 51, dtype=torch.float64)
    values = image
    for layer, window in (("conv1", (2, 3)), ("conv2", (2, 2))):
        conv = getattr(net, layer)
        values = nn.functional.conv2d(values, conv.weight, conv.bias, *window).relu()
        squares = nn.functional.avg_pool2d(values**2, 3, 1, 1)
        values = values / (1 + 5e-5 * squares) ** 0.75
        values = nn.functional.max_pool2d(values, 3, 2, 1, ceil_mode=True)
    for layer in ("conv3", "conv4", "conv5"):
        conv = getattr(net, layer)
        values = nn.functional.conv2d(values, conv.weight, conv.bias, padding=1).relu()
    torch.testing.assert_close(net(image), values)


@pytest.mark.parametrize("output_stride", [16, 32])
def test_cells_of_aligned_inception_resnet_are_aligned(output_stride: int) -> None:
    """Through every branch cell i lies at stride * i."""
    with torch.device("meta"):
        net = AlignedInceptionResNetTrunk(width=1 / 16, output_stride=output_stride)
    grid = Grid().after([net.conv1, net.maxpool])
    for stage in net.stages():
        for block in stage:
            ways = [block.branch_a, block.branch_b, block.shortcut]
            grids = {grid.after(way.modules()) for way in ways}
            assert len(grids) == 1
            grid = grids.pop()
    assert grid == Grid(Fraction(output_stride))


def test_a_cell_of_aligned_inception_resnet_sees_around_its_place() -> None:
    net = AlignedInceptionResNetTrunk(width=1 / 32, blocks=(1, 1, 1, 1)).double().eval()
    net.maxpool = nn.AvgPool2d(3, 2, 1)  # of equal pixels the maximum is but one
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 4:
                parameter.fill_(0.5)
    image = torch.ones(1, 3, 1, 481, dtype=torch.float64, requires_grad=True)
    cells = net(image)[0, 0, 0]
    for cell in (6, 7, 8):
        (grad,) = torch.autograd.grad(cells[cell], image, retain_graph=True)
        seen = grad[0, 0, 0].nonzero().flatten()
        assert (int(seen[0]) + int(seen[-1])) / 2 == 32 * cell


def test_order_of_the_channels_of_proposals() -> None:
    rpn = RegionProposalNetwork(2, 3)
    nn.init.zeros_(rpn.cls_score.weight)
    nn.init.zeros_(rpn.bbox_pred.weight)
    with torch.no_grad():
        rpn.cls_score.bias.copy_(torch.arange(18.0))
        rpn.bbox_pred.bias.copy_(torch.arange(36.0))
    scores, codes = rpn(torch.zeros(2, 2, 4, 5))
    assert scores.shape == (2, 180, 2)
    assert scores[1, 9:18].T.tolist() == [list(range(9)), list(range(9, 18))]
    assert codes[1, 9:18].flatten().tolist() == list(range(36))
    assert rpn.anchors(torch.zeros(2, 2, 4, 5)).shape == (180, 4)
    at_cells = RegionProposalNetwork(1, 1)
    for layer in (at_cells.conv, at_cells.cls_score):
        nn.init.ones_(layer.weight)
    spot = torch.zeros(1, 1, 4, 5)
    spot[0, 0, 2, 3] = 1
    hit = at_cells(spot)[0].reshape(4, 5, 9, 2)[..., 0, 0]
    assert hit.nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (2, 3, 4)]


@pytest.mark.parametrize("name", ["faster-rcnn-zf", "faster-rcnn-vgg16"])
def test_a_shift_by_16_pixels_shifts_proposals_by_16(name: str) -> None:
    settings = DetectorSettings(proposals=(20, 20), proposals_before=(30, 30), min_size=2)
    torch.manual_seed(0)
    net = slim(name, scales=(0.5, 1.0), settings=settings).double().eval()
    nn.init.normal_(net.rpn.bbox_pred.weight, std=1e-3)
    for layer in (net.rpn.conv, net.rpn.cls_score):
        nn.init.normal_(layer.weight, std=1.0)
    photo = torch.randn(1, 3, 48, 48, dtype=torch.float64) * 20
    sizes = torch.tensor([[448, 448]])

    def proposals(y: int, x: int) -> Any:
        image = torch.zeros(1, 3, 448, 448, dtype=torch.float64)
        image[:, :, y : y + 48, x : x + 48] = photo
        return net.proposals(Batch(image, sizes))

    here = proposals(192, 192)
    assert here.scores[0, int(here.counts) - 1] > 0.5, "the background scores 0.5"
    for y, x in ((0, 16), (16, 0), (-32, 48)):
        there = proposals(192 + y, 192 + x)
        assert torch.equal(there.counts, here.counts)
        shift = torch.tensor([x, y, x, y], dtype=torch.float64)
        torch.testing.assert_close(there.boxes[here.exist()], here.boxes[here.exist()] + shift)


def test_a_vote_is_the_mean_over_49_bins() -> None:
    torch.manual_seed(0)
    head = RFCNHead(6, 3, hidden=5).double()
    nn.init.normal_(head.conv_new_1.weight)
    nn.init.normal_(head.rfcn_cls.weight)
    deeper = torch.randn(2, 6, 12, 14, dtype=torch.float64)
    boxes = torch.tensor([[0, 8.0, 3, 150, 170], [1, 40, 20, 100, 60]], dtype=torch.float64)
    scores, codes = head(deeper, boxes)
    assert scores.shape == (2, 3)
    assert codes.shape == (2, 2, 4)
    maps = head.rfcn_cls(head.conv_new_1(deeper).relu())
    bins = torch.zeros(2, 3, 7, 7, dtype=torch.float64)
    for row in range(7):
        for column in range(7):
            own = maps[:, (torch.arange(3) * 7 + row) * 7 + column]
            pooled = deformops.ps_roi_pool(
                own.repeat_interleave(49, 1), boxes, 7, 1 / 16, group_size=7
            )
            bins[:, :, row, column] = pooled[:, :, row, column]
    torch.testing.assert_close(scores, bins.sum((2, 3)) / 49)
    assert torch.equal(vote(bins), bins.mean((2, 3)))


def test_offsets_of_each_class_move_its_own_parts() -> None:
    torch.manual_seed(0)
    head = RFCNHead(4, 3, hidden=5, deformable=True).double()
    plain = RFCNHead(4, 3, hidden=5).double()
    for layer in (head.conv_new_1, head.rfcn_cls, head.rfcn_bbox):
        nn.init.normal_(layer.weight)
    plain.load_state_dict(head.state_dict(), strict=False)
    deeper = torch.randn(1, 4, 12, 14, dtype=torch.float64)
    boxes = torch.tensor([[0, 30.0, 30, 150, 140]], dtype=torch.float64)
    still = head(deeper, boxes)[0]
    with torch.no_grad():
        head.rfcn_cls_offset.bias.view(3, 2, 49)[1, 0] = 1.0  # class 1 to the right
    moved = head(deeper, boxes)[0]
    assert (moved - still).ne(0).tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", ["faster-rcnn-resnet50", "rfcn-resnet50"])
def test_offsets_start_at_zero_and_learn_at_once(name: str) -> None:
    torch.manual_seed(0)
    net = slim(name, deformable_layers=3, deformable_rois=True)
    images, targets = photos()
    nn.init.normal_(net.roi_head.bbox_pred.weight if "fast" in name else net.rpn.conv.weight)
    sum(net(images, None, targets).values()).backward()
    offsets = [
        (path, parameter)
        for path, parameter in net.named_parameters()
        if "offset" in path and path.endswith("weight")
    ]
    assert len(offsets) == (4 if "fast" in name else 5)
    for path, parameter in offsets:
        assert not parameter.detach().any(), path
        assert parameter.grad.abs().max() > 0, path

    plain = slim(name).eval()
    plain.load_state_dict(net.state_dict(), strict=False)
    net.eval()
    shared, expected = net.trunk(images), plain.trunk(images)
    values = net.trunk.deeper(shared), plain.trunk.deeper(expected)
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in networks() if "101" not in name])
def test_every_detector_learns_and_detects(name: str) -> None:
    torch.manual_seed(0)
    net = slim(name)
    images, targets = photos()
    names = {"loss_objectness", "loss_rpn_box_reg"}
    if isinstance(net, TwoStageDetector):
        names |= {"loss_classifier", "loss_box_reg"}
    losses = net(images, torch.tensor([[96, 128], [90, 120]]), targets)
    assert set(losses) == names
    assert all(bool(loss.isfinite()) and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.settings = dataclasses.replace(net.settings, min_score=0.0)
    net.eval()
    with torch.no_grad():
        for found in net(images):
            boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
            assert len(boxes) == len(scores) == len(labels) > 0
            assert len(boxes) <= 100
            assert torch.equal(scores, scores.sort(descending=True).values)
            assert set(labels.tolist()) <= {1, 2, 3}
            assert boxes.min() >= 0
            assert (boxes.amax(0) <= torch.tensor([127, 95, 127, 95])).all()


def test_images_of_a_batch_do_not_know_each_other() -> None:
    torch.manual_seed(0)
    net = slim("faster-rcnn-vgg16", settings=DetectorSettings(min_score=0.0)).eval()
    images, _ = photos(3)
    with torch.no_grad():
        together = net(images)
        for n in range(3):
            alone = net(images[n : n + 1])[0]
            torch.testing.assert_close(alone["boxes"], together[n]["boxes"], rtol=0, atol=1e-2)


def test_an_anchor_may_have_one_logit() -> None:
    """The logit of an object is its score less that of background."""
    torch.manual_seed(0)
    with_two, with_one = slim("faster-rcnn-zf"), slim("faster-rcnn-zf", sigmoid=True)
    weights = with_two.state_dict()
    for name in ("rpn.cls_score.weight", "rpn.cls_score.bias"):
        background, object_ = weights[name].chunk(2)
        weights[name] = object_ - background
    with_one.load_state_dict(weights)
    images, targets = photos()

    def losses(net: TwoStageDetector) -> dict[str, Tensor]:
        net.roi_head.drop.p = 0.0
        return net(images, None, targets, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(losses(with_one), losses(with_two), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["faster-rcnn-vgg16", "rfcn-vgg16", "class-aware-rpn-vgg16"])
def test_half_precision(name: str) -> None:
    """Maps in bfloat16; boxes stay in float32, where 2049 is a number."""
    torch.manual_seed(0)
    net = slim(name)
    images, targets = photos()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(images, None, targets, generator=torch.Generator().manual_seed(0))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in mixed.values())
    net.settings = dataclasses.replace(net.settings, min_score=0.0)
    with torch.no_grad():
        found = net.bfloat16().eval()(images.bfloat16())[0]
    assert found["boxes"].dtype == torch.float32
    assert len(found["boxes"]) > 0
    anchors = net.rpn.anchors(torch.empty(1, 1, 1, 257, dtype=torch.bfloat16))
    assert torch.equal(anchors, slim(name).rpn.anchors(torch.empty(1, 1, 1, 257)))


def test_draws_follow_the_generator() -> None:
    torch.manual_seed(0)
    net = slim("faster-rcnn-vgg16", dropout=0.0)
    images, targets = photos()

    def losses(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [loss.item() for loss in net(images, None, targets, generator=generator).values()]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_parts_of_alternating_training_are_those_of_joint_training() -> None:
    torch.manual_seed(0)
    net = slim("faster-rcnn-zf", dropout=0.0)
    images, targets = photos()
    sizes = torch.tensor([[96, 128]] * 2)
    objects = deformops.nets.detection.stack_targets(targets, images)
    joint = net(images, sizes, targets, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    batch = Batch(images, sizes)
    first = net.proposal_losses(batch, objects, generator)
    second = net.head_losses(batch, net.proposals(batch), objects, generator)
    assert {**first, **second} == joint


def test_hard_examples_are_a_part_of_all() -> None:
    torch.manual_seed(0)
    images, targets = photos()
    everything = dataclasses.replace(RFCN_SETTINGS, hard_rois=None)
    net = slim("rfcn-vgg16", settings=everything)
    on_average = net(images, None, targets)["loss_classifier"]
    net.settings = dataclasses.replace(RFCN_SETTINGS, hard_rois=16)
    assert net(images, None, targets)["loss_classifier"] > on_average


def test_weights_of_classifiers_find_their_places() -> None:
    detector, classifier = slim("faster-rcnn-vgg16"), VGG16(width=1 / 16)
    report = transplant(detector, classifier.state_dict())
    assert sorted(report.dropped) == ["classifier.6.bias", "classifier.6.weight"]
    missing = {name.rpartition(".")[0] for name in report.missing}
    assert missing == {
        "rpn.conv",
        "rpn.cls_score",
        "rpn.bbox_pred",
        "roi_head.cls_score",
        "roi_head.bbox_pred",
    }
    assert torch.equal(detector.roi_head.fc6.weight, classifier.classifier[0].weight)
    detector = slim("rfcn-resnet50")
    report = transplant(detector, ResNetTrunk(width=1 / 16).state_dict())
    assert report.dropped == []
    assert not any(name.startswith("trunk.") for name in report.missing)
    names = slim("faster-rcnn-zf").published_names()
    assert names["trunk.backbone.conv1"] == ("conv1",)
    assert names["rpn.cls_score"] == ("rpn_cls_score",)


def test_layers_that_learn_otherwise() -> None:
    net = slim("faster-rcnn-resnet50", deformable_rois=True)
    assert list(net.slow_layers()) == [(net.roi_head.pool.offset_fc, 0.01)]
    backbone = net.trunk.backbone
    assert list(net.trunk.first_layers()) == [backbone.conv1, backbone.bn1, backbone.layer1]
    vgg = slim("faster-rcnn-vgg16")
    convs = [layer for layer in vgg.trunk.first_layers() if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [4, 4, 8, 8]
    assert list(vgg.shared_layers()) == [vgg.trunk]


def test_errors_name_the_argument() -> None:
    net = slim("faster-rcnn-zf")
    images, targets = photos()
    assert isinstance(net, Detector)
    with pytest.raises(ValueError, match="TwoStageDetector: targets: expected the objects of each"):
        net(images)
    with pytest.raises(ValueError, match="targets: expected those of 2 images, got 1"):
        net(images, None, targets[:1])
    with pytest.raises(ValueError, match=r"image_sizes: expected shape \[N, 2\] = \[2, 2\]"):
        net(images, torch.tensor([[96, 128]]), targets)
    targets[0]["labels"] = torch.tensor([1, 4, 2])
    with pytest.raises(ValueError, match="labels: expected classes from 1 to 3, got"):
        net(images, None, targets)
    with pytest.raises(ValueError, match=r"images: expected 4 dimensions \[N, 3, H, W\]"):
        net(images[0])
    with pytest.raises(ValueError, match=r"name: expected one of faster-rcnn-zf, .* got 'yolo'"):
        build_detector("yolo", 2)
    with pytest.raises(ValueError, match=r"rfcn-vgg16: expected options among .* got 'dropout'"):
        build_detector("rfcn-vgg16", 2, dropout=0.1)
    with pytest.raises(ValueError, match=r"deformable_layers: expected 0, 1, 2, 3 or 6, got 4"):
        slim("rfcn-resnet50", deformable_layers=4)
    with pytest.raises(ValueError, match="classes: expected at least 2"):
        slim("faster-rcnn-zf", classes=1)
    with pytest.raises(ValueError, match="classes: expected at least 3"):
        slim("class-aware-rpn-zf", classes=2)
    with pytest.raises(ValueError, match="output_stride: expected 16 or 32, got 8"):
        AlignedInceptionResNetTrunk(output_stride=8)
    assert options("rfcn-resnet50")["deformable_layers"] == 0
