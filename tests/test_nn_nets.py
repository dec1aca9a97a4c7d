"""The layers that networks are made of, against references, goldens and identities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

import deformops
from deformops.nn import (
    ASPP,
    AtrousConv2d,
    BilinearDeconv2d,
    CaffeAvgPool2d,
    CaffeMaxPool2d,
    DeformConv2dPack,
    Dropout,
    FrozenBatchNorm2d,
    Interp,
    LocalResponseNorm,
    bilinear_filter,
    interp,
)
from tests.reference.normalization import caffe_pool, local_response_norm


def tensor(*rows: list[float]) -> torch.Tensor:
    """A map [1, 1, H, W] of rows."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


# --- LocalResponseNorm ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["mean", "sum", "within"])
@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_local_response_norm_is_the_formula(form: Any, size: int) -> None:
    if form == "within" and size == 4:
        return
    x = torch.randn(2, 7, 4, 5, dtype=torch.float64)
    layer = LocalResponseNorm(size, alpha=0.3, beta=0.75, k=1.7, form=form)
    want = np.stack([local_response_norm(one, size, 0.3, 0.75, 1.7, form) for one in x.numpy()])
    torch.testing.assert_close(layer(x), torch.from_numpy(want), rtol=0, atol=1e-9)
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(layer, x)


def test_local_response_norm_as_published() -> None:
    """Caffe's is torch's; the paper's is torch's with alpha times n."""
    x = 30 * torch.randn(2, 16, 5, 5)
    caffe = LocalResponseNorm(5, 1e-4, 0.75)
    torch.testing.assert_close(caffe(x), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x))
    paper = LocalResponseNorm(5, 1e-4, 0.75, 2.0, "sum")
    torch.testing.assert_close(paper(x), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(x))
    within = LocalResponseNorm(3, 5e-5, 0.75, form="within")
    constant = torch.full((1, 2, 5, 5), 100.0)
    assert within(constant)[0, 0, 2, 2].item() == pytest.approx(100 / 1.5**0.75)
    assert within(constant)[0, 0, 0, 0].item() == pytest.approx(100 / (1 + 0.5 * 4 / 9) ** 0.75)


def test_local_response_norm_refuses() -> None:
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        LocalResponseNorm(0)
    with pytest.raises(ValueError, match=r"form: expected one of .*, got 'across'"):
        LocalResponseNorm(form="across")
    with pytest.raises(ValueError, match="size: expected an odd number, got 4"):
        LocalResponseNorm(4, form="within")


# --- Caffe's pooling ------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_caffe_pooling_against_the_reference(reduce: str) -> None:
    layer = CaffeMaxPool2d if reduce == "max" else CaffeAvgPool2d
    every = itertools.product((2, 3, 4), (1, 2, 3), (0, 1, 2))
    windows = [(k, s, p) for k, s, p in every if p < k and s <= k]
    for (kernel, stride, padding), size in itertools.product(windows, ((6, 5), (7, 4), (5, 8))):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        want = [[caffe_pool(c, kernel, stride, padding, reduce) for c in n] for n in x.numpy()]
        pool = layer(kernel, stride, padding)
        torch.testing.assert_close(pool(x), torch.from_numpy(np.array(want)))
        assert tuple(pool(x).shape[2:]) == tuple(pool.output_size(n, a) for a, n in enumerate(size))


def test_caffe_pooling_goldens() -> None:
    """The cases of Caffe's own tests."""
    x = tensor([1, 2, 4], [2, 3, 2], [4, 2, 1])
    assert CaffeMaxPool2d(3, 2, 2)(x).tolist() == [[[[1, 4, 4], [4, 4, 4], [4, 4, 1]]]]
    row = [8 / 9, 4 / 3, 8 / 9]
    mean = CaffeAvgPool2d(3, 1, 1)(tensor(*[[2.0] * 3] * 3))
    torch.testing.assert_close(mean, tensor(row, [4 / 3, 2, 4 / 3], row))
    assert CaffeMaxPool2d(3, 2)(torch.zeros(1, 1, 6, 5)).shape[2:] == (3, 2)
    assert CaffeMaxPool2d(3, 2, 1)(torch.zeros(1, 1, 6, 5)).shape[2:] == (4, 3)
    x = tensor([1, 2, 5, 2, 3], [9, 4, 1, 4, 8], [1, 2, 5, 2, 3])
    assert CaffeMaxPool2d(2, 1)(x).tolist() == [[[[9, 5, 5, 8]] * 2]]


def test_overlapping_pooling_of_alexnet() -> None:
    sizes = [55]
    for _ in range(3):
        sizes.append(CaffeMaxPool2d(3, 2).output_size(sizes[-1]))
    assert sizes == [55, 27, 13, 6]


def test_pools_that_keep_the_size_of_deeplab() -> None:
    sizes = [321]
    for stride in (2, 2, 2, 1, 1):
        sizes.append(CaffeMaxPool2d(3, stride, 1).output_size(sizes[-1]))
    assert sizes == [321, 161, 81, 41, 41, 41]


def test_caffe_pooling_refuses() -> None:
    for window in ((0, 1, 0), (2, 0, 0), (2, 1, 2), (2, 1, -1)):
        with pytest.raises(ValueError, match="CaffeMaxPool2d: expected kernel_size and stride"):
            CaffeMaxPool2d(*window)


# --- Dropout --------------------------------------------------------------------------------------


def test_dropout_of_2012() -> None:
    """Values are kept or left out in training, and all are multiplied by 1 - p after it."""
    x = torch.rand(10_000, requires_grad=True)
    layer = Dropout(0.4, scale_train=False)
    output = layer(x)
    kept = output != 0
    assert torch.equal(output[kept], x[kept])
    assert kept.double().mean().item() == pytest.approx(0.6, abs=0.02)
    output.sum().backward()
    assert torch.equal(x.grad, kept.float())
    torch.testing.assert_close(layer.eval()(x), 0.6 * x)
    torch.manual_seed(4)
    assert torch.equal(Dropout(0.5, scale_train=False).eval()(x), 0.5 * x)


def test_inverted_dropout() -> None:
    x = torch.rand(10_000)
    layer = Dropout(0.5)
    output = layer(x)
    assert set((output / x).round(decimals=4).tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(x), x)
    with pytest.raises(ValueError, match=r"p: expected a number from 0 to below 1, got 1.0"):
        Dropout(1.0)


# --- BilinearDeconv2d -----------------------------------------------------------------------------


def test_bilinear_filter_goldens() -> None:
    rows = bilinear_filter(4, dtype=torch.float64)
    assert rows[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert rows[1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]
    assert bilinear_filter(3)[1].tolist() == [0.5, 1.0, 0.5]
    assert bilinear_filter(63).amax() == 1
    with pytest.raises(ValueError, match="kernel_size: expected at least 1, got 0"):
        bilinear_filter(0)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (63, 32), (64, 32)])
def test_deconvolution_interpolates(kernel: int, stride: int) -> None:
    """A ramp over the cells is a ramp over the pixels, wherever two cells are around."""
    layer = BilinearDeconv2d(2, kernel, stride).double()
    cells = torch.arange(5, dtype=torch.float64)
    x = torch.stack([cells[:, None].expand(5, 4), cells[None, :4].expand(5, 4)])[None]
    output = layer(x)
    assert output.shape[2:] == (4 * stride + kernel, 3 * stride + kernel)
    inside = slice(kernel - stride, -(kernel - stride))
    places = (torch.arange(output.shape[2], dtype=torch.float64) - (kernel - 1) / 2) / stride
    want = places[inside][:, None].expand_as(output[0, 0, inside, inside])
    torch.testing.assert_close(output[0, 0, inside, inside], want)
    want = places[: output.shape[3]][inside].expand_as(output[0, 1, inside, inside])
    torch.testing.assert_close(output[0, 1, inside, inside], want)


def test_deconvolution_is_fixed_and_diagonal() -> None:
    dense, grouped = BilinearDeconv2d(3, 4, 2, dense=True), BilinearDeconv2d(3, 4, 2)
    for a, b in itertools.product(range(3), range(3)):
        want = bilinear_filter(4) if a == b else torch.zeros(4, 4)
        assert torch.equal(dense.weight[a, b], want)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    torch.testing.assert_close(dense(x), grouped(x))
    before = grouped.weight.clone()
    score = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(score, grouped)
    step = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    net(x).square().sum().backward()
    step.step()
    assert torch.equal(grouped.weight, before)
    assert list(grouped.state_dict()) == ["weight"]
    assert not grouped.weight.requires_grad
    with pytest.raises(ValueError, match="BilinearDeconv2d: stride: expected at least 1, got 0"):
        BilinearDeconv2d(3, 4, 0)


def test_deconvolution_is_the_adjoint_of_convolution() -> None:
    """<conv(x), y> = <x, deconv(y)>."""
    layer = BilinearDeconv2d(3, 6, 3).double()
    y = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    x = torch.randn(2, 3, *layer(y).shape[2:], dtype=torch.float64)
    conv = F.conv2d(x, layer.weight, stride=3, groups=3)
    torch.testing.assert_close((conv * y).sum(), (x * layer(y)).sum())


def test_deconvolution_golden() -> None:
    """Caffe's own case: three channels of ones, 3x3, stride 2, bias 0.1."""
    columns = torch.full((1, 1, 9, 6, 4), 3.0, dtype=torch.float64)
    output = 0.1 + deformops.scatter_columns(columns, (13, 9), 3, stride=2)[0, 0]
    rows, cols = torch.arange(13), torch.arange(9)
    both = [((n % 2 == 0) & (n > 0) & (n < n[-1])).double() for n in (rows, cols)]
    want = 0.1 + 3 * (1 + both[0])[:, None] * (1 + both[1])
    torch.testing.assert_close(output, want)
    assert set(want.unique().tolist()) == {3.1, 6.1, 12.1}
    layer = BilinearDeconv2d(3, 3, 2, dense=True).double()
    nn.init.ones_(layer.weight)
    ones = torch.ones(1, 3, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(0.1 + layer(ones)[0, 0], want)


# --- Interp ---------------------------------------------------------------------------------------


def test_interp_sizes_and_corners() -> None:
    assert [Interp(shrink=2).size(321), Interp(shrink=4, zoom=3).size(321)] == [161, 241]
    assert Interp(zoom=8).size(41) == 321
    assert Interp(shrink=8).size(321) == 41
    x = torch.arange(41.0)[None, None, None].expand(1, 2, 3, 41)
    wide = Interp(zoom=8)(x)
    assert wide.shape == (1, 2, 17, 321)
    torch.testing.assert_close(wide[0, 0, 5], torch.arange(321.0) / 8)
    torch.testing.assert_close(Interp(shrink=8)(wide), x)
    assert interp(x, (3, 41)) is x
    with pytest.raises(ValueError, match="Interp: shrink: expected at least 1, got 0"):
        Interp(shrink=0)


# --- ASPP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [None, 6])
def test_aspp_sums_branches_of_their_own(hidden: int | None) -> None:
    layer = ASPP(4, 3, (6, 12, 18, 24), hidden=hidden).eval()
    firsts = [m for m in layer.modules() if isinstance(m, AtrousConv2d)]
    assert [conv.dilation for conv in firsts] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert [conv.padding for conv in firsts] == [conv.dilation for conv in firsts]
    assert len({conv.weight.data_ptr() for conv in firsts}) == 4
    x = torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(layer(x), sum(branch(x) for branch in layer.branches))
    names = [name for name, _ in layer.branches[0].named_children()]
    assert [n for n in names if n[:2] == "fc"] == ([] if hidden is None else ["fc6", "fc7", "fc8"])
    with pytest.raises(ValueError, match="rates: expected at least one, got none"):
        ASPP(4, 3, ())


def test_aspp_starts_as_published() -> None:
    pyramids = (ASPP(64, 21, (6,)), ASPP(64, 21, (6,), hidden=256))
    for layer in (pyramids[0].branches[0], pyramids[1].get_submodule("branches.0.fc8")):
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert layer.bias.count_nonzero() == 0


# --- FrozenBatchNorm2d ----------------------------------------------------------------------------


def test_frozen_batch_norm_is_the_evaluated_one() -> None:
    plain, frozen = nn.BatchNorm2d(4), FrozenBatchNorm2d(4)
    with torch.no_grad():
        for value in plain.state_dict().values():
            value.copy_(torch.rand(value.shape) + 0.5)
    frozen.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(frozen.train()(x), plain.eval()(x))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])


# --- offset_dilation ------------------------------------------------------------------------------


def test_offsets_from_a_window_of_another_dilation() -> None:
    """DeepLab's published offsets: dilation 1 beside a layer of dilation 2, on the same centres."""
    layer = DeformConv2dPack(4, 6, 3, stride=2, padding=2, dilation=2, offset_dilation=1)
    offset = layer.conv_offset
    assert (offset.dilation, offset.padding, offset.stride) == ((1, 1), (1, 1), (2, 2))
    x = torch.randn(1, 4, 9, 11)
    want = F.conv2d(x, layer.weight, layer.bias, 2, 2, 2)
    torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-5)
    assert "offset_dilation=(1, 1)" in repr(layer)
    with pytest.raises(ValueError, match="offset_dilation: expected one that centres"):
        DeformConv2dPack(4, 6, 3, dilation=2, offset_dilation=1)
