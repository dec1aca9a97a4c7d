"""The networks' layer tables: numbers of parameters, sizes, places of cells, options."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from deformops import nets
from deformops.nets import segmentation

SIZES = [(1, 1), (33, 47), (375, 500)]
SLIM = 1 / 16


def count(net: nn.Module, *, without: str = "nothing") -> int:
    """How many parameters a network has but for layers with a name."""
    named = net.named_parameters()
    return sum(parameter.numel() for name, parameter in named if without not in name)


def slim(name: str, classes: int = 5, **options: object) -> nets.Segmenter:
    """A narrow network whose random weights give finite scores."""
    if "resnet" in name:
        options["norm"] = "batch"
    return nets.build_segmenter(name, classes, width=SLIM, **options).eval()


# Counts of the papers' and published networks. Deconvolutions are fixed: counted apart.


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (nets.AlexNet, 60_965_224),
        (lambda: nets.AlexNet(groups=1), 62_378_344),
        (nets.CaffeNet, 60_965_224),
        (nets.VGG16, 138_357_544),
        (nets.resnet50, 25_557_032),
        (nets.resnet101, 44_549_160),
        (lambda: nets.resnet101(style="caffe", norm="frozen"), 44_549_160),
    ],
)
def test_parameters_of_classifiers(build, expected: int) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        assert count(build()) == expected


@pytest.mark.parametrize(
    ("name", "bare", "with_dense_deconvolution"),
    [
        ("fcn32s", 134_346_581, 136_152_917),
        ("fcn16s", 134_357_354, 134_815_994),
        ("fcn8s", 134_362_751, 134_489_759),
        ("fcn8s-atonce", 134_362_751, 134_489_759),
        ("fcn-alexnet", 56_954_261, 58_704_590),
    ],
)
def test_parameters_of_fcn(name: str, bare: int, with_dense_deconvolution: int) -> None:
    with torch.device("meta"):
        net = nets.build_segmenter(name, 21, dense_deconv=True)
    assert count(net, without="upscore") == bare
    assert count(net) == with_dense_deconvolution


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deeplab-largefov", 20_505_429),
        ("deeplab-aspp-s", 37_877_652),
        ("deeplab-aspp-l", 37_877_652),
        ("deeplab-resnet101", 44_048_532),
        ("deeplab-msc-resnet101", 44_048_532),
        ("deeplab-deform-resnet101", 44_868_747),
    ],
)
def test_parameters_of_deeplab(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert count(nets.build_segmenter(name, 21), without="upscore") == expected


def test_sizes_of_the_layer_tables() -> None:
    """The last column of each table, at full width: AlexNet at 227, VGG and ResNet at 224."""

    def sizes(layers: Iterable[nn.Module], size: int) -> list[tuple[int, ...]]:
        images, found = torch.empty(1, 3, size, size, device="meta"), []
        for layer in layers:
            images = layer(images)
            found.append(tuple(images.shape[1:]))
        return found

    with torch.device("meta"):
        alexnet, vgg, resnet = nets.AlexNet(), nets.VGG16(), nets.resnet50(style="caffe")
        pools = [
            size
            for size, (name, _) in zip(
                sizes(alexnet.features, 227), alexnet.features.named_children(), strict=True
            )
            if name in ("conv1", "pool1", "pool2", "conv3", "conv4", "pool5")
        ]
        assert pools == [
            (96, 55, 55),
            (96, 27, 27),
            (256, 13, 13),
            (384, 13, 13),
            (384, 13, 13),
            (256, 6, 6),
        ]
        assert sizes(vgg.features, 224)[-1] == (512, 7, 7)
        maps = [tuple(values.shape[1:]) for values in resnet.maps(torch.empty(1, 3, 224, 224))]
        assert maps == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
        deeplab = nets.DeepLabResNet()
        assert deeplab.coarse(torch.empty(1, 3, 321, 321)).shape == (1, 21, 41, 41)
        assert nets.FCN()(torch.empty(1, 3, 500, 375)).shape == (1, 21, 500, 375)


@pytest.mark.parametrize("name", nets.networks())
def test_scores_have_the_size_of_the_image(name: str) -> None:
    net = slim(name)
    for size in SIZES:
        with torch.no_grad():
            scores = net(torch.randn(1, 3, *size))
        assert scores.shape == (1, 5, *size)
        assert scores.isfinite().all()


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of fcn32s, .*, got 'fcn4s'"):
        nets.build_segmenter("fcn4s", 21)
    with pytest.raises(ValueError, match=r"fcn8s: expected options among .*width.*, got 'colour'"):
        nets.build_segmenter("fcn8s", 21, colour=1)
    with pytest.raises(ValueError, match=r"got 'stride'"):
        nets.build_segmenter("fcn8s", 21, stride=32)
    with pytest.raises(ValueError, match=r"classes: expected at least 1, got 0"):
        nets.build_segmenter("fcn8s", 0)
    assert "deformable_layers" in segmentation.options("deeplab-deform-resnet50")
    assert "width" in segmentation.options("deeplab-msc-resnet101")


@pytest.mark.parametrize("name", ["fcn8s", "deeplab-deform-resnet50"])
def test_networks_compile(name: str) -> None:
    """As one graph, and in the other memory format."""
    torch.compiler.reset()
    net = slim(name)
    for layer in net.head():
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        scores = net(images)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), scores, rtol=1e-4, atol=1e-4)
        last = net.to(memory_format=torch.channels_last)
        found = last(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-3)
    torch.compiler.reset()
