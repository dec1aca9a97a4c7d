"""Anchors and the code of boxes: published numbers, and torchvision where it is the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder as PeerCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from deformops.nets.detection import BoxCoder, base_anchors, clip_boxes, grid_anchors, inside_image
from tests.reference import detection as reference


def random_boxes(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator, dtype=dtype) * 200
    size = torch.rand(*shape, 2, generator=generator, dtype=dtype) * 100 + 1
    return torch.cat([corner, corner + size], dim=-1)


def test_the_nine_anchors() -> None:
    """What the Python of py-faster-rcnn returns; the table in its comments is one larger."""
    assert base_anchors().tolist() == [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
    assert base_anchors(scales=(4, 8))[0].tolist() == [-38, -16, 53, 31]


def test_other_families() -> None:
    chainercv = base_anchors(16, (0.25, 1, 4), (8, 16), family="chainercv")
    rows, columns = [1, 0, 3, 2], slice(None)
    assert chainercv[:2][columns, rows].tolist() == [[-24, -120, 40, 136], [-56, -248, 72, 264]]
    detectron2 = base_anchors(32, (0.25, 1, 4), (1, 2), family="detectron2")
    assert detectron2.tolist() == [
        [-32, -8, 32, 8],
        [-16, -16, 16, 16],
        [-8, -32, 8, 32],
        [-64, -16, 64, 16],
        [-32, -32, 32, 32],
        [-16, -64, 16, 64],
    ]
    torchvision = base_anchors(128, (0.5, 1), (1,), family="torchvision")
    assert torchvision.tolist() == [[-91, -45, 91, 45], [-64, -64, 64, 64]]


@pytest.mark.parametrize("family", ["chainercv", "detectron2", "torchvision"])
def test_a_ratio_is_height_over_width(family: str) -> None:
    x1, y1, x2, y2 = base_anchors(16, (4.0,), (8,), family=family)[0].tolist()
    assert (y2 - y1) / (x2 - x1) == 4


def test_counts_of_published_sizes() -> None:
    for size, cells, every, inside in (
        ((600, 1000), (38, 63), 21546, 8151),
        ((600, 800), (38, 50), 17100, 5944),
    ):
        anchors = grid_anchors(base_anchors(), cells, 16)
        assert len(anchors) == every
        assert int(inside_image(anchors, torch.tensor([size])).sum()) == inside


def test_order_is_rows_cells_anchors() -> None:
    base = base_anchors(dtype=torch.float64)
    anchors = grid_anchors(base, (3, 4), (16, 8)).reshape(3, 4, 9, 4)
    for y in range(3):
        for x in range(4):
            moved = base + torch.tensor([8 * x, 16 * y, 8 * x, 16 * y])
            assert torch.equal(anchors[y, x], moved)


def test_torchvision_has_the_same_anchors() -> None:
    sizes, ratios = (64, 128, 256), (0.5, 1.0, 2.0)
    peer = AnchorGenerator((sizes,), (ratios,))
    images = ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)])
    expected = peer(images, [torch.zeros(1, 1, 8, 12)])[0]
    base = base_anchors(1, ratios, sizes, family="torchvision")
    assert torch.equal(grid_anchors(base, (8, 12), 16), expected)


def test_an_anchor_on_the_border() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [-1, 0, 9, 9], [0, 0, 10, 9], [0, 0, 9, 20]])
    sizes = torch.tensor([[10, 10], [21, 11]])
    expected = [[True, False, False, False], [True, False, True, True]]
    assert inside_image(boxes, sizes).tolist() == expected
    assert inside_image(boxes, sizes[:1], border=1).tolist() == [[True, True, True, False]]


def test_decoding_undoes_encoding() -> None:
    boxes, references = random_boxes(40), random_boxes(40, seed=1)
    for plus_one in (True, False):
        coder = BoxCoder(plus_one, means=(0.1, 0, 0, -0.2), stds=(0.1, 0.1, 0.2, 0.2))
        again = coder.decode(coder.encode(boxes, references), references)
        torch.testing.assert_close(again, boxes, rtol=0, atol=1e-9)


def test_the_code_is_the_formula() -> None:
    boxes, references = random_boxes(20), random_boxes(20, seed=1)
    pairs = list(zip(boxes.numpy(), references.numpy(), strict=True))
    expected = np.array([reference.encode(*pair) for pair in pairs])
    coder = BoxCoder()
    np.testing.assert_allclose(coder.encode(boxes, references), expected, atol=1e-12)
    decoded = coder.decode(torch.from_numpy(expected), references)
    again = [reference.decode(code, box) for code, (_, box) in zip(expected, pairs, strict=True)]
    np.testing.assert_allclose(decoded, again, atol=1e-9)


def test_py_faster_rcnn_decodes_one_pixel_more() -> None:
    anchor = torch.tensor([[10.0, 20, 41, 67]])
    nothing = torch.zeros(1, 4)
    assert torch.equal(BoxCoder().decode(nothing, anchor), anchor)
    larger = BoxCoder(style="py-faster-rcnn").decode(nothing, anchor)
    assert larger.tolist() == [[10, 20, 42, 68]]
    # Width 32, height 48: twice as wide around the same centre, half a width to the right.
    code = torch.tensor([[0.5, 0, math.log(2), 0]])
    moved = BoxCoder(style="py-faster-rcnn").decode(code, anchor)
    torch.testing.assert_close(moved, torch.tensor([[10.0, 20, 74, 68]]))


def test_torchvision_has_the_same_code() -> None:
    boxes, references = random_boxes(30).float(), random_boxes(30, seed=1).float()
    peer = PeerCoder((10.0, 10.0, 5.0, 5.0))
    coder = BoxCoder(False, max_log_size=math.log(1000 / 16), stds=(0.1, 0.1, 0.2, 0.2))
    code = coder.encode(boxes, references)
    torch.testing.assert_close(code, peer.encode([boxes], [references])[0])
    code = code * torch.tensor([1.0, 1, 40, 40])  # some beyond the limit
    expected = peer.decode(code, [references])[:, 0]
    torch.testing.assert_close(coder.decode(code, references), expected)


def test_large_codes_give_finite_boxes() -> None:
    code = torch.tensor([[0.0, 0, 1e4, 1e4], [1e4, -1e4, 500, -500]])
    anchor = torch.tensor([[0.0, 0, 511, 511]])
    assert BoxCoder().decode(code, anchor).isfinite().all()
    clipped = clip_boxes(BoxCoder().decode(code[None], anchor), torch.tensor([[60, 80]]))
    assert clipped[0, 0].tolist() == [0, 0, 79, 59]


def test_means_and_deviations_of_each_class() -> None:
    means = torch.arange(12.0).reshape(3, 4).tolist()
    stds = (torch.arange(12.0).reshape(3, 4) + 1).tolist()
    by_class = BoxCoder(means=means, stds=stds)
    boxes, references = random_boxes(6), random_boxes(6, seed=1)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    code = by_class.encode(boxes, references, labels)
    for n, label in enumerate(labels.tolist()):
        single = BoxCoder(means=means[label], stds=stds[label])
        assert torch.equal(code[n], single.encode(boxes[n], references[n]))
    all_classes = torch.randn(6, 3, 4, dtype=torch.float64) / 10
    decoded = by_class.decode(all_classes, references[:, None])
    for label in range(3):
        single = BoxCoder(means=means[label], stds=stds[label])
        expected = single.decode(all_classes[:, label], references)
        torch.testing.assert_close(decoded[:, label], expected)
    with pytest.raises(ValueError, match="labels: expected the class of each box"):
        by_class.encode(boxes, references)


def test_a_layer_absorbs_the_normalisation() -> None:
    coder = BoxCoder(means=(1.0, 2, 3, 4), stds=(0.1, 0.2, 0.3, 0.4))
    references = random_boxes(5)
    features = torch.randn(5, 7, dtype=torch.float64)
    for layer, input in (
        (nn.Linear(7, 12).double(), features),
        (nn.Conv2d(7, 12, 1).double(), features[..., None, None]),
    ):
        before = layer(input).reshape(5, 3, 4)
        coder.absorb_normalisation(layer)
        after = layer(input).reshape(5, 3, 4)
        expected = coder.decode(before, references[:, None])
        torch.testing.assert_close(BoxCoder().decode(after, references[:, None]), expected)


def test_clipping() -> None:
    boxes = torch.tensor([[[-5.0, -6, 200, 300]], [[3, 4, 5, 6]]])
    sizes = torch.tensor([[40, 60], [4, 5]])
    assert clip_boxes(boxes, sizes).tolist() == [[[0, 0, 59, 39]], [[3, 3, 4, 3]]]
    assert clip_boxes(boxes, sizes, plus_one=False)[0].tolist() == [[0, 0, 60, 40]]


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="base_anchors: family: expected 'py-faster-rcnn' or"):
        base_anchors(family="caffe")
    with pytest.raises(ValueError, match="ratios: expected a positive number, got 0"):
        base_anchors(ratios=(0.0,))
    with pytest.raises(ValueError, match="scales: expected at least one number"):
        base_anchors(scales=())
    with pytest.raises(ValueError, match="grid_anchors: stride: expected numbers >= 1"):
        grid_anchors(base_anchors(), (2, 2), 0)
    with pytest.raises(ValueError, match="base: expected shape"):
        grid_anchors(torch.zeros(2, 5), (2, 2), 16)
    with pytest.raises(ValueError, match="BoxCoder: style: expected 'exact' or"):
        BoxCoder(style="matlab")
    with pytest.raises(ValueError, match="BoxCoder: stds: expected positive numbers"):
        BoxCoder(stds=(0.0, 1, 1, 1))
    with pytest.raises(ValueError, match="means: expected 4 numbers"):
        BoxCoder(means=(0.0, 1))
    with pytest.raises(ValueError, match=r"decode: code: expected shape \[..., 4\], got \[2, 5\]"):
        BoxCoder().decode(torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="image_sizes: expected shape"):
        clip_boxes(torch.zeros(2, 3, 4), torch.zeros(1, 2))
