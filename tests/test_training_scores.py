"""Scores, bands around boundaries, tiles, and what a network says of whole photos."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from deformops.analysis import mean_iou
from deformops.ops import Bilateral, Gaussian, dense_crf
from deformops.training import (
    Confusion,
    LabelledPhotos,
    Predictor,
    crf_ablation,
    evaluate,
    in_tiles,
    spans,
    tiles,
    trimap,
)
from tests.training_net import TinyNet, write_photos

TRUTH = torch.tensor([[0, 0, 1, 255], [1, 1, 2, 255]])
LABELS = torch.tensor([[0, 1, 1, 0], [1, 2, 2, 3]])


def test_scores_by_hand() -> None:
    """Class 3 is nowhere that counts, and does not count."""
    confusion = Confusion(4)
    confusion.add(LABELS, TRUTH)
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion.pixel_accuracy == pytest.approx(4 / 6)
    assert confusion.mean_accuracy == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert confusion.ious[:3].tolist() == [0.5, 0.5, 0.5]
    assert math.isnan(confusion.ious[3])
    assert confusion.mean_iou == 0.5
    assert confusion.frequency_weighted_iou == pytest.approx(0.5)


def test_a_class_that_is_only_said() -> None:
    """Its IoU is 0, it has no accuracy, and no weight."""
    confusion = Confusion(3)
    confusion.add(torch.tensor([0, 0, 2, 1]), torch.tensor([0, 0, 0, 1]))
    assert confusion.ious.tolist() == pytest.approx([2 / 3, 1, 0])
    assert confusion.mean_iou == pytest.approx(5 / 9)
    assert confusion.mean_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert confusion.frequency_weighted_iou == pytest.approx(0.75 * 2 / 3 + 0.25)


def test_scores_are_those_of_all_photos_together() -> None:
    confusion = Confusion(5)
    labels, truth = torch.randint(0, 5, (3, 20, 30)), torch.randint(0, 5, (3, 20, 30))
    truth[:, :4] = 255
    for one, other in zip(labels, truth, strict=True):
        confusion.add(one, other)
    assert confusion.mean_iou == pytest.approx(mean_iou(labels, truth))


def test_scores_refuse() -> None:
    confusion = Confusion(3, ignore=11)
    with pytest.raises(ValueError, match=r"truth: expected \[2, 4\], got \[1, 4\]"):
        confusion.add(LABELS, TRUTH[:1])
    with pytest.raises(ValueError, match="truth: expected 0 to 2, got 0 to 255"):
        confusion.add(LABELS.clamp(max=2), TRUTH)


def test_trimap() -> None:
    """Grows with its width from the pixels at a boundary to the whole image."""
    truth = torch.zeros(20, 30, dtype=torch.uint8)
    truth[:, 12:] = 1
    columns = torch.arange(30)
    for width in (1, 2, 5):
        near = ((columns - 11.5).abs() < width).expand(20, 30)
        assert torch.equal(trimap(truth, width), near)
    corner = torch.zeros(9, 9, dtype=torch.uint8)
    corner[4, 4] = 255
    assert int(trimap(corner, 1).sum()) == 5
    before = torch.zeros(9, 9, dtype=torch.bool)
    for width in range(1, 9):
        band = trimap(corner, width)
        assert (band | ~before).all()
        before = band
    assert before.all()
    assert trimap(torch.zeros(4, 6), 6).all()
    assert not trimap(torch.zeros(4, 6), 5).any()
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        trimap(truth, 0)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((64, 48), 20, 6), ((20, 61), 20, 19), ((7, 9), 20, 0), ((41, 40), 20, 0), ((1, 100), 33, 5)],
)
def test_tiles(size: tuple[int, int], tile: int, overlap: int) -> None:
    """The identity comes back exactly; tiles lie inside and share what they should."""
    picture = torch.randn(2, *size)
    assert torch.equal(in_tiles(lambda part: part, picture, tile, overlap), picture)
    for length in size:
        row = spans(length, tile, overlap)
        assert row[0].start == 0
        assert row[-1].stop == length
        assert {one.stop - one.start for one in row} == {min(tile, length)}
        for one, other in pairwise(row):
            assert one.stop - other.start >= overlap
            assert one.keep_stop == other.keep_start
            assert one.start <= one.keep_start < one.keep_stop <= one.stop
    covered = torch.zeros(size, dtype=torch.int64)
    for rows, columns in tiles(size, tile, overlap):
        covered[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] += 1
    assert (covered == 1).all()


def test_the_last_tile_is_shifted_inside() -> None:
    """Cityscapes in tiles of 1000 pixels: the last starts at 1048 rather than 1400."""
    assert [span.start for span in spans(2048, 1000, 300)] == [0, 700, 1048]
    assert [span.start for span in spans(1024, 1000, 300)] == [0, 24]
    assert [span.start for span in spans(1000, 500, 0)] == [0, 500]


def test_tiles_keep_what_lies_inside() -> None:
    """A convolution in tiles is the convolution, where the overlap is as wide as it looks."""
    picture = torch.randn(3, 50, 70)
    net = torch.nn.Conv2d(3, 4, 7, padding=3)
    with torch.no_grad():
        want = net(picture[None])[0]
        got = in_tiles(lambda part: net(part[None])[0], picture, 24, 6)
        narrow = in_tiles(lambda part: net(part[None])[0], picture, 24, 4)
    torch.testing.assert_close(got, want)
    assert not torch.allclose(narrow, want, atol=1e-3)


def test_tiles_refuse() -> None:
    picture = torch.zeros(3, 30, 30)
    with pytest.raises(ValueError, match="overlap: expected 0 to 19, less than a tile, got 20"):
        in_tiles(lambda part: part, picture, 20, 20)
    with pytest.raises(ValueError, match=r"function: .*size \[20, 20\], got \[3, 10, 10\]"):
        in_tiles(lambda part: part[:, ::2, ::2], picture, 20, 4)


def photos_and_net(tmp_path: Path) -> tuple[LabelledPhotos, TinyNet]:
    return LabelledPhotos.of(write_photos(tmp_path), classes=3), TinyNet()


def test_segmenter(tmp_path: Path) -> None:
    """Scores have the photo's size, reduced or not; the network is in eval mode."""
    photos, net = photos_and_net(tmp_path)
    photo, _ = photos[0]
    scores = Predictor(net).scores(photo)
    assert not net.training
    assert torch.equal(scores, net(net.preprocessing(photo[None]))[0].detach())
    assert Predictor(net, reduce=2.5).scores(photo).shape == (3, 24, 32)


def test_evaluate(tmp_path: Path) -> None:
    """Four numbers with and without terms of the CRF, and bands up to the whole."""
    photos, net = photos_and_net(tmp_path)
    predictor = Predictor(net)
    terms = Gaussian(2.0, 3.0), Bilateral(20.0, 20.0, 4.0)
    counts = evaluate(predictor, photos, crf_ablation(*terms), widths=(1, 3, 32))
    assert list(counts) == ["unary", "gaussian", "bilateral", "both"]
    want: dict[str, list[Tensor]] = {name: [] for name in counts}
    for photo, _ in (photos[number] for number in range(6)):
        unary = -predictor.scores(photo)[None].log_softmax(1)
        for name, pairs in zip(counts, ([], terms[:1], terms[1:], list(terms)), strict=True):
            q = dense_crf(unary, photo[None], pairwise=pairs, iterations=10)
            want[name].append(q[0].argmax(0))
    truth = torch.stack([photos[number][1] for number in range(6)]).long()
    for name, (everywhere, *bands) in counts.items():
        assert everywhere.mean_iou == pytest.approx(mean_iou(torch.stack(want[name]), truth))
        sizes = [int(band.counts.sum()) for band in bands]
        assert 0 < sizes[0] < sizes[1] < sizes[2]
        assert torch.equal(bands[-1].counts, everywhere.counts)
    assert len({confusions[0].mean_iou for confusions in counts.values()}) == 4
