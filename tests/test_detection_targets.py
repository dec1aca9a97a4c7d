"""What is learned: matches, draws and losses, by published numbers, loops and torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from deformops.nets.detection import (
    BoxCoder,
    Proposals,
    Targets,
    anchor_targets,
    base_anchors,
    box_losses,
    detection_loss,
    grid_anchors,
    hard_examples,
    match,
    rpn_loss,
    sample,
    sample_rois,
    smooth_l1,
    stack_targets,
)
from tests.reference import detection as reference
from tests.reference.suppression import box_iou
from tests.test_detection_anchors import random_boxes

QUALITY = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]]).T


def two_images() -> list[dict[str, Tensor]]:
    """Three objects, one of them smaller than any anchor; and none."""
    return [
        {
            "boxes": torch.tensor([[40.0, 30, 180, 150], [150, 90, 420, 290], [300, 20, 311, 29]]),
            "labels": torch.tensor([2, 1, 3]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]


def test_published_matches() -> None:
    matches = match(QUALITY)
    assert matches.nearest.tolist() == [1, 1, 2, 0]
    assert matches.labels.tolist() == [-1, 1, 0, 1]
    assert matches.overlaps.tolist() == pytest.approx([0.3, 0.65, 0.25, 0.6])
    assert match(QUALITY, low_quality=False).labels.tolist() == [-1, -1, 0, -1]
    assert match(QUALITY, low=0.6, high=0.6, low_quality=False).labels.tolist() == [0, 1, 0, 1]


def test_all_boxes_that_tie_count() -> None:
    overlaps = torch.tensor([[0.2, 0.0], [0.2, 0.1], [0.1, 0.0], [0.0, 0.05]])
    assert match(overlaps).labels.tolist() == [1, 1, 0, 0]


def test_an_object_that_nothing_overlaps_has_no_box() -> None:
    overlaps = torch.tensor([[0.8, 0.0], [0.1, 0.0], [math.nan, -1.0]])
    assert match(overlaps).labels.tolist() == [1, 0, 0]
    assert match(torch.full((3, 2), -1.0)).labels.tolist() == [0, 0, 0]
    assert match(torch.zeros(3, 0)).labels.tolist() == [0, 0, 0]
    assert match(torch.zeros(0, 2)).labels.tolist() == []


def test_an_object_that_nothing_overlaps_has_all_boxes_when_asked() -> None:
    """As in py-faster-rcnn; but for boxes that do not count at all."""
    overlaps = torch.tensor([[0.8, 0.0], [0.1, 0.0], [0.5, 0.0], [-1.0, -1.0]])
    assert match(overlaps, zero_ties=True).labels.tolist() == [1, 1, 1, 0]
    assert match(torch.full((3, 2), -1.0), zero_ties=True).labels.tolist() == [0, 0, 0]
    anchors = torch.tensor([[10.0, 10, 25, 25], [30, 30, 45, 45], [-9, -9, 6, 6]])
    image = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([1])}
    targets, sizes = stack_targets([image], anchors), torch.tensor([[50, 50]])
    assert anchor_targets(anchors, targets, sizes).labels.tolist() == [[0, 0, -1]]
    assert anchor_targets(anchors, targets, sizes, zero_ties=True).labels.tolist() == [[1, 1, -1]]


@pytest.mark.parametrize("low_quality", [True, False])
def test_torchvision_has_the_same_matches(low_quality: bool) -> None:
    quality = torch.rand(200, 7, generator=torch.Generator().manual_seed(0))
    quality[:, 3:] *= quality[:, 3:] > 0.9
    quality[:, 6] *= low_quality
    expected = Matcher(0.7, 0.3, low_quality)(quality.T.clone())
    matches = match(quality, low_quality=low_quality, zero_ties=True)
    assert torch.equal(matches.labels, (expected + 1).clamp(max=1))
    positive = matches.labels > 0
    assert torch.equal(matches.nearest[positive], expected[positive])


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(500, 5000, (128, 128)), (10, 5000, (10, 246)), (300, 50, (128, 50)), (0, 0, (0, 0))],
)
def test_numbers_that_are_drawn(positive: int, negative: int, expected: tuple[int, int]) -> None:
    labels = torch.tensor([1] * positive + [0] * negative + [-1] * 77)
    labels = torch.stack([labels, labels.flip(0)])
    drawn = sample(labels, 256, 128, generator=torch.Generator().manual_seed(0))
    for row, chosen in zip(labels, drawn, strict=True):
        counts = [int((row[chosen] == label).sum()) for label in (1, 0, -1)]
        assert counts == [*expected, 0]


def test_draws_follow_the_seed_and_are_uniform() -> None:
    labels = torch.tensor([1] * 20 + [0] * 80).repeat(400, 1)
    first = sample(labels, 30, 10, generator=torch.Generator().manual_seed(3))
    again = sample(labels, 30, 10, generator=torch.Generator().manual_seed(3))
    other = sample(labels, 30, 10, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shares = first.double().mean(0)
    assert float((shares[:20] - 10 / 20).abs().max()) < 0.11
    assert float((shares[20:] - 20 / 80).abs().max()) < 0.11


@pytest.mark.parametrize("cells", [(20, 32), (10, 12)])
def test_torchvision_has_the_same_labels_of_anchors(cells: tuple[int, int]) -> None:
    """And what they are to say of boxes; the smaller map leaves an object without an anchor."""
    anchors = grid_anchors(base_anchors(scales=(2, 4, 8), family="torchvision"), cells, 16)
    targets = stack_targets(two_images()[:1], anchors)
    peer = RegionProposalNetwork(AnchorGenerator(), RPNHead(4, 3), 0.7, 0.3, 9, 0.5, {}, {}, 0.7)
    labels, boxes = peer.assign_targets_to_anchors([anchors], two_images()[:1])
    everything, coder = len(anchors), BoxCoder(plus_one=False)
    ours = anchor_targets(
        anchors,
        targets,
        16 * torch.tensor([cells]),
        size=everything,
        most_positive=everything,
        zero_ties=True,
        border=None,
        coder=coder,
    )
    assert torch.equal(ours.labels, labels[0].long()[None])
    positive = ours.labels[0] > 0
    assert bool(positive.all()) == (cells == (10, 12))
    expected = peer.box_coder.encode([boxes[0][positive]], [anchors[positive]])[0]
    torch.testing.assert_close(ours.codes[0, positive], expected)


def test_torchvision_has_the_same_boxes_that_a_detector_learns_from() -> None:
    """All of them, since each draws by its own chance."""
    weights = (10.0, 10.0, 5.0, 5.0)
    peer = RoIHeads(None, None, None, 0.5, 0.5, 999, 1.0, weights, 0.05, 0.5, 100)
    near = two_images()[0]["boxes"][torch.arange(30) % 3]
    near = near + torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) * 4
    boxes = torch.cat([near, random_boxes(40).float()])
    found, _, labels, codes = peer.select_training_samples([boxes], two_images()[:1])
    ours = sample_rois(
        Proposals(boxes[None], torch.zeros(1, 70), torch.tensor([70])),
        stack_targets(two_images()[:1], boxes),
        size=None,
        coder=BoxCoder(plus_one=False, stds=tuple(1 / weight for weight in weights)),
    )
    assert torch.equal(ours.boxes[0], found[0])
    assert torch.equal(ours.labels[0], labels[0])
    positive = labels[0] > 0
    assert 10 < positive.sum() < 70
    torch.testing.assert_close(ours.codes[0, positive], codes[0][positive])


def test_labels_of_anchors_are_those_of_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors = grid_anchors(base_anchors(scales=(2, 4, 8)), (20, 32), 16)
    sizes = torch.tensor([[310, 500], [320, 512]])
    images = two_images()
    targets = stack_targets(images, anchors)
    everything = len(anchors)
    found = anchor_targets(anchors, targets, sizes, size=everything, most_positive=everything)
    objects = images[0]["boxes"].numpy()
    labels, nearest = reference.anchor_labels(anchors.numpy(), objects, (310, 500), 0.3, 0.7)
    assert found.labels[0].tolist() == labels
    assert labels.count(1) >= 3
    assert set(found.labels[1].tolist()) == {0, -1}
    for place in (found.labels[0] > 0).nonzero().flatten().tolist():
        expected = reference.encode(objects[nearest[place]], anchors[place].numpy())
        np.testing.assert_allclose(found.codes[0, place], expected, atol=1e-5)
    assert not found.codes[found.labels <= 0].any()

    drawn = anchor_targets(anchors, targets, sizes, generator=generator)
    assert (drawn.labels >= 0).sum(1).tolist() == [256, 256]
    some = drawn.labels >= 0
    assert torch.equal(drawn.labels[some], found.labels[some])
    classes = anchor_targets(
        anchors, targets, sizes, size=everything, most_positive=everything, class_aware=True
    )
    positive = found.labels[0] > 0
    of_nearest = images[0]["labels"][torch.tensor(nearest)]
    assert torch.equal(classes.labels[0, positive], of_nearest[positive])
    assert torch.equal(classes.labels[0, ~positive], found.labels[0, ~positive])


def test_anchors_across_the_border_count_when_asked() -> None:
    anchors = torch.tensor([[-8.0, 0, 7, 15], [0, 0, 15, 15], [90, 90, 105, 105]])
    image = {"boxes": torch.tensor([[0.0, 0, 7, 15]]), "labels": torch.tensor([1])}
    targets = stack_targets([image], anchors)
    sizes = torch.tensor([[100, 100]])
    assert anchor_targets(anchors, targets, sizes).labels.tolist() == [[-1, 1, -1]]
    assert anchor_targets(anchors, targets, sizes, border=None).labels.tolist() == [[1, 1, 0]]


def rois(**options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals of two images around objects, and away from them."""
    near = two_images()[0]["boxes"][torch.arange(60) % 3]
    near = near + torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * 3
    far = random_boxes(300).float()
    boxes = torch.stack([torch.cat([near, far]), torch.cat([far, near])])
    proposals = Proposals(boxes, torch.zeros(2, 360), torch.tensor([360, 200]))
    targets = stack_targets(two_images(), boxes)
    return sample_rois(proposals, targets, **options)


def test_boxes_that_a_detector_learns_from() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, labels, codes = rois(generator=generator)
    assert boxes.shape == (2, 128, 4)
    assert (labels > 0).sum(1).tolist() == [32, 0]
    assert (labels == 0).sum(1).tolist() == [96, 128]
    objects = two_images()[0]
    for box, label, code in zip(boxes[0], labels[0].tolist(), codes[0], strict=True):
        overlaps = box_iou(box[None].numpy(), objects["boxes"].numpy(), plus_one=True)[0]
        nearest = int(overlaps.argmax())
        assert label == (int(objects["labels"][nearest]) if overlaps.max() >= 0.5 else 0)
        if label:
            target = objects["boxes"][nearest].numpy()
            np.testing.assert_allclose(code, reference.encode(target, box.numpy()), atol=1e-5)
        else:
            assert not code.any()


def test_objects_are_proposals_of_themselves() -> None:
    boxes, labels, codes = rois(size=None)
    assert boxes.shape == (2, 363, 4)
    assert torch.equal(boxes[0, -3:], two_images()[0]["boxes"])
    assert labels[0, -3:].tolist() == [2, 1, 3]
    assert not codes[0, -3:].any()
    assert labels[1, :200].eq(0).all()
    assert labels[1, 200:].eq(-1).all()


def test_background_overlaps_some_when_asked() -> None:
    _, labels, _ = rois(size=None, background=(0.1, 0.5))
    _, all_labels, _ = rois(size=None)
    assert (labels == 0).sum() < (all_labels == 0).sum()
    assert not (labels[1] == 0).any()
    assert torch.equal(labels > 0, all_labels > 0)


def test_too_few_boxes_leave_places_that_do_not_count() -> None:
    boxes = random_boxes(1, 5).float() + 1000
    proposals = Proposals(boxes, torch.zeros(1, 5), torch.tensor([4]))
    targets = stack_targets(two_images()[:1], boxes)
    found = sample_rois(proposals, targets, size=12)
    assert found.boxes.shape == (1, 12, 4)
    assert sorted(found.labels[0].tolist()) == [-1, -1, -1, -1, -1, 0, 0, 0, 0, 1, 2, 3]


def test_targets_are_checked() -> None:
    like = torch.zeros(())
    good = two_images()[0]
    for wrong, message in (
        ({"labels": torch.tensor([1, 0, 2])}, "labels: expected classes from 1, got"),
        ({"labels": torch.tensor([1])}, r"boxes: expected shape \[L, 4\] = \[1, 4\], got"),
        ({"boxes": good["boxes"].flip(1)}, "boxes: expected x1 <= x2, y1 <= y2, got"),
        ({"boxes": good["boxes"] * math.nan}, "boxes: expected x1 <= x2"),
    ):
        with pytest.raises(ValueError, match=message):
            stack_targets([{**good, **wrong}], like)
    with pytest.raises(TypeError, match="expected a tensor 'labels' for each image"):
        stack_targets([{"boxes": good["boxes"]}], like)


def test_smooth_l1() -> None:
    error = torch.tensor([0.1, -0.1, 0.5, -2.0], dtype=torch.float64)
    assert smooth_l1(error, 3).tolist() == pytest.approx([0.045, 0.045, 0.5 - 1 / 18, 2 - 1 / 18])
    assert smooth_l1(error).tolist() == pytest.approx([0.005, 0.005, 0.125, 1.5])
    error = error.requires_grad_()
    smooth_l1(error, 3).sum().backward()
    assert error.grad.tolist() == pytest.approx([0.9, -0.9, 1, -1])
    assert torch.autograd.gradcheck(smooth_l1, error)


def rpn_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two images of 300 anchors, of which 256 and 100 count."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 300, 2, generator=generator, dtype=torch.float64).requires_grad_()
    codes = torch.randn(2, 300, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.full((2, 300), -1)
    labels[0, :256], labels[0, :40] = 0, 1
    labels[1, :100], labels[1, :7] = 0, 1
    return scores, codes, labels, torch.randn(2, 300, 4, generator=generator, dtype=torch.float64)


def test_rpn_loss_by_hand() -> None:
    scores, codes, labels, targets = (value.detach() for value in rpn_case())
    entropy = boxes = 0.0
    for n in range(2):
        for a in range(300):
            if labels[n, a] >= 0:
                entropy -= float(scores[n, a].log_softmax(0)[labels[n, a]])
            if labels[n, a] > 0:
                for x in (codes - targets)[n, a].abs().tolist():
                    boxes += 4.5 * x * x if x < 1 / 9 else x - 1 / 18
    for normalisation, of_scores, of_boxes in (
        ("labels", 1 / 356, 1 / 356),
        ("paper", 1 / 512, 10 / 4800),
        ("mxnet", 1 / 356, 1 / 512),
    ):
        losses = rpn_loss(scores, codes, labels, targets, normalisation=normalisation)
        expected = [entropy * of_scores, boxes * of_boxes]
        assert [float(loss) for loss in losses] == pytest.approx(expected)


def test_only_positives_teach_boxes_and_only_drawn_ones_scores() -> None:
    scores, codes, labels, targets = rpn_case()
    sum(rpn_loss(scores, codes, labels, targets)).backward()
    assert torch.equal(codes.grad.ne(0).any(-1), labels > 0)
    assert torch.equal(scores.grad.ne(0).any(-1), labels >= 0)


def test_no_anchor_that_counts_is_no_loss() -> None:
    scores, codes, labels, targets = rpn_case()
    losses = rpn_loss(scores, codes, torch.full_like(labels, -1), targets)
    assert [loss.item() for loss in losses] == [0, 0]


def test_a_sigmoid_is_a_softmax_against_zero() -> None:
    scores, codes, labels, targets = rpn_case()
    logits = scores[..., 1:] - scores[..., :1]
    expected = rpn_loss(scores, codes, labels, targets)
    losses = rpn_loss(logits, codes, labels, targets)
    torch.testing.assert_close(losses, expected)


def test_torchvision_has_the_same_rpn_loss() -> None:
    """Its network draws by chance; the draw is put in its hands."""
    scores, codes, labels, targets = (value.detach() for value in rpn_case())
    size = 256
    peer = RegionProposalNetwork(AnchorGenerator(), RPNHead(4, 3), 0.7, 0.3, size, 0.5, {}, {}, 0.7)
    peer.fg_bg_sampler = lambda given: (
        [(row > 0).long() for row in given],
        [(row == 0).long() for row in given],
    )
    logits = scores[..., 0]
    expected = peer.compute_loss(
        logits.flatten()[:, None],
        codes.flatten(0, 1),
        list(labels.double()),
        list(targets),
    )
    losses = rpn_loss(logits[..., None], codes, labels, targets)
    torch.testing.assert_close(losses, expected)


def test_torchvisions_network_is_made_of_these_parts() -> None:
    """The numbers at which this file and its neighbours compare are those of its Faster R-CNN."""
    net = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    rpn, heads = net.rpn, net.roi_heads
    matcher, rois = rpn.proposal_matcher, heads.proposal_matcher
    assert (matcher.low_threshold, matcher.high_threshold) == (0.3, 0.7)
    assert (rois.low_threshold, rois.high_threshold) == (0.5, 0.5)
    assert (matcher.allow_low_quality_matches, rois.allow_low_quality_matches) == (True, False)
    assert rpn.box_coder.weights == (1.0, 1.0, 1.0, 1.0)
    assert heads.box_coder.weights == (10.0, 10.0, 5.0, 5.0)
    assert rpn.box_coder.bbox_xform_clip == heads.box_coder.bbox_xform_clip == math.log(1000 / 16)
    assert (rpn.nms_thresh, heads.nms_thresh, heads.score_thresh) == (0.7, 0.5, 0.05)
    for (size,), cells in zip(
        rpn.anchor_generator.sizes, rpn.anchor_generator.cell_anchors, strict=True
    ):
        assert torch.equal(base_anchors(1, scales=(size,), family="torchvision"), cells)


def detection_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 5, generator=generator, dtype=torch.float64).requires_grad_()
    codes = torch.randn(60, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 5, (60,), generator=generator)
    return scores, codes, labels, torch.randn(60, 4, generator=generator, dtype=torch.float64)


def test_torchvision_has_the_same_detection_loss() -> None:
    """With its sigma of 3, where the first code has 1."""
    scores, codes, labels, targets = detection_case()
    expected = fastrcnn_loss(scores, codes.flatten(1), [labels], [targets])
    losses = detection_loss(scores, codes, labels, targets, sigma=3)
    torch.testing.assert_close(losses, expected)


def test_boxes_of_all_classes_are_one() -> None:
    scores, codes, labels, targets = detection_case()
    shared = codes[:, :2]
    every = torch.cat([shared[:, :1], shared[:, 1:].expand(-1, 4, -1)], dim=1)
    expected = box_losses(scores, every, labels, targets)
    torch.testing.assert_close(box_losses(scores, shared, labels, targets), expected)


def test_boxes_that_do_not_count() -> None:
    scores, codes, labels, targets = detection_case()
    labels[::3] = -1
    some = labels >= 0
    expected = detection_loss(scores[some], codes[some], labels[some], targets[some])
    losses = detection_loss(scores, codes, labels, targets)
    torch.testing.assert_close(losses, expected)
    sum(losses).backward()
    assert torch.equal(codes.grad.ne(0).any(-1).sum(-1), (labels > 0).long())
    assert not scores.grad[~some].any()


def test_hard_examples_are_those_learned_worst() -> None:
    losses = torch.tensor([[0.1, 3.0, 0.5, 3.0, 2.0], [1.0, 1, 1, 1, 1]], requires_grad=True)
    expected = [[False, True, False, True, False], [True, True, False, False, False]]
    assert hard_examples(losses, 2).tolist() == expected
    assert hard_examples(losses, 9).all()
    assert F.relu(losses)[hard_examples(losses, 2)].requires_grad


def test_targets_of_images_without_objects() -> None:
    boxes = random_boxes(4).float()
    targets = stack_targets(two_images()[1:], boxes)
    assert isinstance(targets, Targets)
    assert targets.boxes.shape == (1, 1, 4)
    assert targets.overlaps(boxes).eq(-1).all()


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="match: low: expected a number from 0 to high"):
        match(QUALITY, high=0.2)
    with pytest.raises(ValueError, match=r"match: overlaps: expected shape \[..., A, G\]"):
        match(torch.zeros(3))
    with pytest.raises(ValueError, match="most_positive: expected a number from 0 to size = 4"):
        sample(torch.zeros(3), 4, 5)
    with pytest.raises(ValueError, match="hard_examples: size: expected a number >= 0"):
        hard_examples(torch.zeros(3), -1)
    with pytest.raises(ValueError, match="smooth_l1: sigma: expected a positive number"):
        smooth_l1(torch.zeros(1), 0)
    scores, codes, labels, targets = rpn_case()
    with pytest.raises(ValueError, match="rpn_loss: normalisation: expected 'labels' or"):
        rpn_loss(scores, codes, labels, targets, normalisation="none")
    with pytest.raises(ValueError, match="rpn_loss: scores: expected the shape of labels"):
        rpn_loss(scores[:, 1:], codes, labels, targets)
    with pytest.raises(ValueError, match=r"codes: expected shape \[..., 4\] = \[2, 300, 4\]"):
        rpn_loss(scores, codes[..., :3], labels, targets)
    with pytest.raises(ValueError, match="box_losses: codes: expected shape"):
        box_losses(scores, codes, labels, targets)
    with pytest.raises(ValueError, match="sample_rois: foreground_fraction"):
        rois(foreground_fraction=2.0)
    with pytest.raises(ValueError, match="sample_rois: background: expected 0 <= low"):
        rois(background=(0.3, 0.7))
    with pytest.raises(ValueError, match="labels: expected the class of each box"):
        BoxCoder(means=[[0.0] * 4] * 2).encode(targets, targets)
