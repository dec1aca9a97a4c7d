"""Networks' weights: how they start, where they come from, and what they compute."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from deformops import nets
from deformops.nets import resnet
from deformops.nn import DeformConv2dPack, DenseCRF

# --- torchvision: the same names, the same outputs ------------------------------------------------


def drawn(net: nn.Module) -> dict[str, Tensor]:
    """Random weights for a network on the meta device, with which values stay moderate."""
    weights = {}
    for name, like in net.state_dict().items():
        if like.dim() > 1:
            value = torch.randn(like.shape) * (2 / like[0].numel()) ** 0.5
        elif not like.is_floating_point():
            value = torch.zeros(like.shape, dtype=like.dtype)
        else:
            value = torch.rand(like.shape) * 0.2 + (0.9 if "bias" not in name else -0.1)
        weights[name] = value
    return weights


def both(ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module]) -> list[nn.Module]:
    """Our network and torchvision's, with the same random weights, loaded by name."""
    with torch.device("meta"):
        pair = [ours(), theirs()]
    weights = drawn(pair[1])
    for net in pair:
        net.load_state_dict(weights, strict=True, assign=True)
        net.eval()
    return pair


@pytest.mark.parametrize("size", [(1, 3, 224, 224), (2, 3, 64, 96)])
def test_vgg16_is_torchvisions(size: tuple[int, ...]) -> None:
    ours, theirs = both(nets.VGG16, lambda: torchvision.models.vgg16(weights=None))
    image = torch.randn(size)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_resnet_is_torchvisions(name: str) -> None:
    ours, theirs = both(
        getattr(nets, name), lambda: getattr(torchvision.models, name)(weights=None)
    )
    image = torch.randn(1, 3, 75, 98)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)
        # In training batch normalisation uses the batch; frozen, it does not.
        frozen = getattr(nets, name)(norm="frozen")
        frozen.load_state_dict(theirs.state_dict(), strict=True)
        torch.testing.assert_close(frozen.train()(image), theirs(image), rtol=1e-4, atol=1e-4)


def test_dense_trunk_is_torchvisions() -> None:
    """The backbone of its fcn_resnet50 and deeplabv3_resnet50."""
    models = torchvision.models.segmentation
    ours, theirs = both(
        lambda: nets.ResNetTrunk(output_stride=8),
        lambda: models.fcn_resnet50(weights=None, weights_backbone=None).backbone,
    )
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image)["out"], rtol=1e-4, atol=1e-4)


def test_backbone_of_a_classifier_loads_by_name() -> None:
    """Nothing is renamed: the dense network's convolutions are the classifier's (row 23)."""
    with torch.device("meta"):
        vgg, theirs = nets.VGG16(), torchvision.models.vgg16(weights=None)
        for dense in (nets.FCN().features, nets.DeepLabVGG().features):
            dense.load_state_dict(vgg.features.state_dict(), strict=True, assign=True)
            dense.load_state_dict(theirs.features.state_dict(), strict=True, assign=True)
        weights = torchvision.models.resnet101(weights=None).state_dict()
        trunk = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        nets.DeepLabResNet().backbone.load_state_dict(trunk, strict=True, assign=True)


# --- how weights start ----------------------------------------------------------------------------


def test_alexnet_starts_as_published() -> None:
    net = nets.AlexNet(10, width=0.25)
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            std = 0.005 if name in ("fc6", "fc7") else 0.01
            assert layer.weight.std().item() == pytest.approx(std, rel=0.1), name
            zero = name in ("features.conv1", "features.conv3", "fc8")
            assert torch.equal(layer.bias, torch.full_like(layer.bias, 0.0 if zero else 0.1))
    caffenet = nets.CaffeNet(10, width=0.25)
    assert torch.equal(caffenet.fc6.bias, torch.ones_like(caffenet.fc6.bias))
    order = [name for name, _ in caffenet.features.named_children()]
    assert order[:5] == ["conv1", "relu1", "pool1", "norm1", "conv2"]
    order = [name for name, _ in net.features.named_children()]
    assert order[:5] == ["conv1", "relu1", "norm1", "pool1", "conv2"]


def test_new_layers_start_as_published() -> None:
    """FCN's scores at zero, DeepLab's with deviation 0.01, offsets at zero; the head is these."""
    fcn = nets.FCN(7, width=1 / 16)
    assert [layer.weight.shape[0] for layer in fcn.head()] == [7, 7, 7]
    assert all(layer.weight.count_nonzero() == 0 for layer in fcn.head())
    image = torch.randn(1, 3, 40, 50)
    assert fcn.eval()(image).count_nonzero() == 0
    deeplab = nets.DeepLabVGG(7, width=1 / 4, rates=(6, 12))
    for layer in deeplab.head():
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
    net = nets.DeformableDeepLab(7, blocks=nets.RESNET50, width=1 / 8)
    packs = [module for module in net.modules() if isinstance(module, DeformConv2dPack)]
    assert len(packs) == 3
    assert all(pack.conv_offset.weight.count_nonzero() == 0 for pack in packs)
    assert not any(p is q for p in packs for layer in net.head() for q in layer.modules())


def test_the_seed_decides() -> None:
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        net = nets.build_segmenter("deeplab-deform-resnet50", 4, width=1 / 32)
        weights.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_all_gradients_arrive() -> None:
    """After a first step every weight that learns has a gradient; the fixed ones never do."""
    for name in ("fcn8s", "deeplab-aspp-s", "deeplab-deform-resnet50"):
        options = {"norm": "batch"} if "resnet" in name else {}
        net = nets.build_segmenter(name, 3, width=1 / 16, **options)
        for layer in net.head():
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=0.1)
        net(torch.randn(2, 3, 65, 65)).square().mean().backward()
        for parameter_name, parameter in net.named_parameters():
            fixed = "upscore" in parameter_name
            assert (parameter.grad is None) == fixed, parameter_name
            if not fixed:
                assert parameter.grad.isfinite().all()


# --- structure ------------------------------------------------------------------------------------


def test_two_towers_say_the_same() -> None:
    net = nets.AlexNet(10, width=1 / 8).eval()
    towers = net.two_towers()
    assert sum(isinstance(m, nets.TwoTowerConv2d) for m in towers.modules()) == 3
    image = 50 * torch.randn(2, 3, 227, 227)
    with torch.no_grad():
        assert net.features(image).shape == (2, 32, 6, 6)
        torch.testing.assert_close(towers(image), net(image), rtol=1e-6, atol=1e-6)
    grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    x = torch.randn(2, 4, 7, 8)
    torch.testing.assert_close(nets.TwoTowerConv2d(grouped)(x), grouped(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="conv: expected two groups and a bias"):
        nets.TwoTowerConv2d(nn.Conv2d(4, 6, 3))


def test_strides_and_holes_of_resnets() -> None:
    """Where the stride is, and which 3x3s have holes, in both styles and at all output strides."""

    def geometry(**options: Any) -> dict[str, tuple[int, int, int]]:
        with torch.device("meta"):
            trunk = nets.ResNetTrunk(**options)
        named = trunk.named_modules()
        blocks = {name: block for name, block in named if isinstance(block, nets.Bottleneck)}
        return {
            name: (block.conv1.stride[0], block.conv2.stride[0], block.conv2.dilation[0])  # type: ignore
            for name, block in blocks.items()
        }

    caffe = geometry(style="caffe", output_stride=8)
    assert caffe["layer2.0"] == (2, 1, 1)
    assert [caffe[f"layer3.{i}"] for i in range(6)] == 6 * [(1, 1, 2)]
    assert [caffe[f"layer4.{i}"] for i in range(3)] == 3 * [(1, 1, 4)]
    theirs = geometry(style="torchvision", output_stride=8)
    assert theirs["layer2.0"] == (1, 2, 1)
    assert [theirs[f"layer3.{i}"] for i in range(3)] == [(1, 1, 1), (1, 1, 2), (1, 1, 2)]
    assert [theirs[f"layer4.{i}"] for i in range(3)] == [(1, 1, 2), (1, 1, 4), (1, 1, 4)]
    assert geometry(style="caffe", output_stride=16)["layer4.0"] == (1, 1, 2)
    assert geometry(style="caffe")["layer4.0"] == (2, 1, 1)
    for wrong in ({"style": "mxnet"}, {"output_stride": 4}, {"norm": "group"}, {"width": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
            geometry(**wrong)


def test_names_of_deformable_layers() -> None:
    """res5c; res5b, c; res5a, b, c; and res4b20 to b22."""
    res5, res4 = [f"backbone.layer4.{i}.conv2" for i in range(3)], "backbone.layer3"
    expected = {
        0: [],
        1: res5[2:],
        2: res5[1:],
        3: res5,
        6: [*(f"{res4}.{i}.conv2" for i in (20, 21, 22)), *res5],
    }
    for layers, names in expected.items():
        with torch.device("meta"):
            net = nets.DeformableDeepLab(deformable_layers=layers)
            assert net.deformable_layers() == names
            caffe = {name: theirs[0] for name, theirs in net.published_names().items()}
    assert [caffe[name] for name in expected[6]] == [
        *(f"res4b{i}_branch2b" for i in (20, 21, 22)),
        *(f"res5{letter}_branch2b" for letter in "abc"),
    ]
    packs = [net.get_submodule(name) for name in expected[6]]
    assert [pack.dilation for pack in packs] == 3 * [(1, 1)] + 3 * [(2, 2)]
    for pack in packs:
        assert pack.conv_offset.dilation == pack.conv_offset.padding == (1, 1)  # type: ignore
    with torch.device("meta"):
        net = nets.DeformableDeepLab(offset_dilation=None)
    assert net.backbone.layer4[0].conv2.conv_offset.dilation == (2, 2)  # type: ignore
    with pytest.raises(ValueError, match="deformable_layers: expected 0, 1, 2, 3 or 6, got 4"):
        nets.DeformableDeepLab(deformable_layers=4)


def test_deformable_layers_start_as_plain_ones() -> None:
    torch.manual_seed(1)
    options: dict[str, Any] = {"blocks": nets.RESNET50, "width": 1 / 16, "norm": "batch"}
    plain = nets.DeformableDeepLab(3, deformable_layers=0, **options).eval()
    moved = nets.DeformableDeepLab(3, deformable_layers=6, **options).eval()
    report = nets.transplant(moved, plain.state_dict())
    assert all("conv_offset" in name for name in report.missing)
    assert len(report.missing) == 12
    image = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        torch.testing.assert_close(moved(image), plain(image), rtol=1e-4, atol=1e-5)
    trained = {name: value + 1.0 for name, value in moved.state_dict().items() if "offset" in name}
    moved.load_state_dict(trained, strict=False)
    with torch.no_grad():
        assert not torch.allclose(moved(image), plain(image), rtol=1e-2)


# --- transplanting --------------------------------------------------------------------------------


def test_transplanted_network_is_the_classifier() -> None:
    """At one position, of every layer; what does not fit is told."""
    vgg = nets.VGG16(6, width=1 / 16).eval()
    with torch.no_grad():
        for parameter in vgg.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-0.1, 0.1)
    fcn = nets.FCN(6, stride=32, width=1 / 16, pad=1).eval()
    report = nets.transplant(fcn, vgg.state_dict())
    assert report.missing == report.dropped == report.mismatched == []
    assert report.reshaped == ["fc6.weight", "fc7.weight", "score_fr.weight"]
    image = 50 * torch.randn(1, 3, 224, 224)
    scores: list[Tensor] = []
    fcn.score_fr.register_forward_hook(lambda _, __, output: scores.append(output))
    with torch.no_grad():
        fcn(image)
        assert scores[0].shape == (1, 6, 7, 7)
        torch.testing.assert_close(scores[0][..., 3, 3], vgg(image), rtol=1e-4, atol=1e-4)


def test_transplant_says_what_it_did() -> None:
    vgg = nets.VGG16(6, width=1 / 16)
    fcn = nets.FCN(4, stride=16, width=1 / 16)
    report = nets.transplant(fcn, {**vgg.state_dict(), "other.weight": torch.zeros(3)})
    assert report.missing == ["score_pool4.weight", "score_pool4.bias"]
    assert report.dropped == ["other.weight"]
    assert report.mismatched[0] == "score_fr.weight [4, 256, 1, 1] from [6, 256]"
    assert len(report.loaded) == 13 * 2 + 2
    turned = {"fc7.weight": fcn.fc7.weight, "fc6.weight": fcn.fc6.weight.transpose(0, 1)}
    assert nets.transplant(fcn, turned).mismatched == [
        "fc6.weight [256, 32, 7, 7] from [32, 256, 7, 7]"
    ]
    text = str(report)
    assert "28 loaded" in text
    assert "1 dropped: other.weight" in text
    with pytest.raises(
        ValueError, match=r"weights: expected names such as features.0.weight.*got a"
    ):
        nets.transplant(fcn, {"a": torch.zeros(1)})
    # The next finer network starts from this one.
    finer = nets.FCN(4, stride=8, width=1 / 16)
    report = nets.transplant(finer, fcn.state_dict())
    assert report.missing == ["score_pool3.weight", "score_pool3.bias"]
    assert torch.equal(finer.fc6.weight, fcn.fc6.weight)


def test_transplant_into_a_resnet_trunk() -> None:
    """torchvision's names without a prefix; BGR turned into RGB changes nothing but the order."""
    classifier = nets.ResNet(nets.RESNET50, 6, width=1 / 16).eval()
    net = nets.DeepLabResNet(3, blocks=nets.RESNET50, width=1 / 16, style="torchvision").eval()
    report = nets.transplant(net, classifier.state_dict())
    assert report.dropped == ["fc.weight", "fc.bias"]
    assert all(name.startswith("aspp.") for name in report.missing)
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        want = net(image)
        nets.transplant(net, classifier.state_dict(), reverse_channels=True)
        torch.testing.assert_close(net(image.flip(1)), want)
        assert not torch.allclose(net(image), want)


def test_decimation_keeps_the_same_filters_on_both_sides() -> None:
    """With filters 0 but for one path, the path survives with its taps 0, 3, 6."""
    fc6 = torch.arange(8 * 2 * 49.0).reshape(8, 98), torch.arange(8.0)
    fc7 = torch.arange(64.0).reshape(8, 8), 10 + torch.arange(8.0)
    (w6, b6), (w7, b7) = nets.decimated(fc6, fc7, channels=2, kept=5)
    assert w6.shape == (5, 2, 3, 3)
    assert w7.shape == (5, 5, 1, 1)
    kept6, kept7 = b6.long(), (b7 - 10).long()
    assert len(set(kept6.tolist())) == 5
    assert torch.equal(w6, fc6[0].reshape(8, 2, 7, 7)[kept6][..., [0, 3, 6], :][..., [0, 3, 6]])
    assert torch.equal(w7[..., 0, 0], fc7[0][kept7][:, kept6])
    with pytest.raises(ValueError, match="kept: expected 1 to 8, got 9"):
        nets.decimated(fc6, fc7, channels=2, kept=9)


@pytest.mark.parametrize("caffe", [True, False])
def test_vgg_transplanted_into_deeplab(caffe: bool) -> None:
    """Convolutions as they are; fc6 and fc7 decimated, otherwise in each branch; fc8 is new."""
    vgg = nets.VGG16(6, width=1 / 16)
    weights = vgg.state_dict()
    if caffe:
        names = vgg.published_names()
        weights = {
            f"{names[layer][0]}.{entry}": value
            for layer, _, entry, value in ((*n.rpartition("."), v) for n, v in weights.items())
        }
    net = nets.DeepLabVGG(4, width=1 / 16, rates=(6, 12))
    report = nets.transplant(nets.WithCRF(net) if caffe else net, weights)
    scored = [name for name in report.missing if "fc8" in name]
    assert len(scored) == 4
    assert all("crf" in name for name in report.missing if name not in scored)
    assert report.dropped == [
        f"{'fc8' if caffe else 'classifier.6'}.{e}" for e in ("weight", "bias")
    ]
    assert torch.equal(net.features[28].weight, vgg.features[28].weight)  # type: ignore
    filters = vgg.classifier[0].weight.reshape(256, 32, 7, 7)[..., ::3, ::3].flatten(1)  # type: ignore
    chosen = []
    for branch in net.aspp.branches:
        own = branch.get_submodule("fc6").weight.flatten(1)  # type: ignore
        matches = (own[:, None] == filters[None]).all(2)
        assert matches.sum(1).tolist() == 64 * [1]
        chosen.append(matches.int().argmax(1).tolist())
    assert len(set(chosen[0])) == 64
    assert chosen[0] != chosen[1]


# --- files ----------------------------------------------------------------------------------------


def caffe_messages() -> Any:
    """The messages of caffe.proto that hold weights, for google's own protocol buffers."""
    descriptors = importlib.import_module("google.protobuf.descriptor_pb2")
    factory = importlib.import_module("google.protobuf.message_factory")
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    field = descriptors.FieldDescriptorProto
    file = descriptors.FileDescriptorProto(name="weights.proto", package="w", syntax="proto2")
    kinds = {"f": field.TYPE_FLOAT, "d": field.TYPE_DOUBLE, "i": field.TYPE_INT64}
    kinds["s"] = field.TYPE_STRING
    messages: dict[str, list[tuple[str, int, str]]] = {
        "Shape": [("dim", 1, "i*")],
        "Blob": [
            ("num", 1, "i"),
            ("channels", 2, "i"),
            ("height", 3, "i"),
            ("width", 4, "i"),
            ("data", 5, "f*"),
            ("diff", 6, "f*"),
            ("shape", 7, "Shape"),
            ("double_data", 8, "d*"),
        ],
        "Layer": [("name", 1, "s"), ("type", 2, "s"), ("bottom", 3, "s"), ("blobs", 7, "Blob*")],
        "V1": [("bottom", 2, "s"), ("name", 4, "s"), ("type", 5, "i"), ("blobs", 6, "Blob*")],
        "Net": [("name", 1, "s"), ("layers", 2, "V1*"), ("layer", 100, "Layer*")],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            base = kind.rstrip("*")
            added = message.field.add(name=field_name, number=number)
            added.label = field.LABEL_REPEATED if kind != base else field.LABEL_OPTIONAL
            added.type = kinds.get(base, field.TYPE_MESSAGE)
            if base not in kinds:
                added.type_name = f".w.{base}"
            elif kind != base:
                added.options.packed = True
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName("w.Net"))


def write_caffe(path: Path, layers: Mapping[str, tuple[Any, list[Tensor]]], first: bool) -> None:
    """A .caffemodel of the first or the second format: layer -> type and blobs."""
    net = caffe_messages()(name="net")
    for name, (kind, tensors) in layers.items():
        layer = (net.layers if first else net.layer).add(name=name, type=kind, bottom="data")
        for tensor in tensors:
            blob = layer.blobs.add()
            if first:
                sizes = [1] * (4 - tensor.dim()) + list(tensor.shape)
                blob.num, blob.channels, blob.height, blob.width = sizes
            else:
                blob.shape.dim.extend(tensor.shape)
            values = tensor.flatten().tolist()
            (blob.double_data if tensor.dtype == torch.float64 else blob.data).extend(values)
            blob.diff.extend(values[:2])
    path.write_bytes(net.SerializeToString())


@pytest.mark.parametrize("first", [True, False])
def test_caffemodel_of_a_vgg(first: bool, tmp_path: Path) -> None:
    """Written by google's protocol buffers, read by ours, and transplanted by Caffe's names."""
    vgg = nets.VGG16(6, width=1 / 64)
    layers: dict[str, tuple[Any, list[Tensor]]] = {}
    for ours, (theirs,) in vgg.published_names().items():
        layer = vgg.get_submodule(ours)
        linear = isinstance(layer, nn.Linear)
        kind: Any = (
            (14 if linear else 4) if first else ("InnerProduct" if linear else "Convolution")
        )
        layers[theirs] = (kind, [layer.weight.detach(), layer.bias.detach()])  # type: ignore
    path = tmp_path / "vgg.caffemodel"
    write_caffe(path, layers, first)
    weights = nets.load_weights(path)
    assert list(weights)[:3] == ["conv1_1.weight", "conv1_1.bias", "conv1_2.weight"]
    assert weights["fc6.weight"].shape == vgg.classifier[0].weight.shape
    for name, value in weights.items():
        ours = next(o for o, t in vgg.published_names().items() if t[0] == name.split(".")[0])
        assert torch.equal(value, vgg.state_dict()[f"{ours}.{name.split('.')[1]}"])
    fcn = nets.FCN(4, width=1 / 64)
    report = nets.transplant(fcn, weights)
    assert torch.equal(fcn.fc6.weight.flatten(1), vgg.classifier[0].weight)
    assert len(report.loaded) + len(report.reshaped) == 30


def test_caffemodel_of_a_resnet(tmp_path: Path) -> None:
    """Batch statistics are divided by their factor; scales are layers of their own."""
    net = nets.DeepLabResNet(3, blocks=nets.RESNET101, width=1 / 64)
    names = net.published_names()
    layers: dict[str, tuple[Any, list[Tensor]]] = {}
    wanted: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        layer = net.get_submodule(ours)
        if isinstance(layer, nn.BatchNorm2d):
            mean, var, scale, shift = (torch.rand(layer.num_features) for _ in range(4))
            factor = torch.tensor([4.0])
            layers[theirs[0]] = ("BatchNorm", [4 * mean, 4 * var, factor])
            layers[theirs[1]] = ("Scale", [scale, shift])
            entries = {"running_mean": mean, "running_var": var, "weight": scale, "bias": shift}
            wanted.update({f"{ours}.{entry}": value for entry, value in entries.items()})
        else:
            assert isinstance(layer, nn.Conv2d)
            blobs = [torch.rand(parameter.shape).double() for parameter in layer.parameters()]
            layers[theirs[0]] = ("Convolution", blobs)
            wanted[f"{ours}.weight"] = blobs[0].float()
    path = tmp_path / "resnet.caffemodel"
    write_caffe(path, layers, first=False)
    report = nets.transplant(net, nets.load_weights(path))
    assert report.missing == report.dropped == report.mismatched == report.reshaped == []
    for name, value in wanted.items():
        torch.testing.assert_close(net.state_dict()[name], value)


def test_names_in_caffes_files() -> None:
    """Of the published networks."""
    names = {
        name for theirs in nets.VGG16(2, width=0.02).published_names().values() for name in theirs
    }
    assert {"conv1_1", "conv3_3", "conv5_3", "fc6", "fc8"} <= names
    assert len(names) == 16
    fifty = {name for names in resnet.caffe_names(nets.RESNET50, "").values() for name in names}
    assert {"conv1", "bn_conv1", "scale_conv1", "res2a_branch1", "bn2a_branch1"} <= fifty
    assert {"res3d_branch2a", "res4f_branch2c", "scale5c_branch2b"} <= fifty
    deep = {name for names in resnet.caffe_names(nets.RESNET101, "").values() for name in names}
    assert {"res3b3_branch2c", "res4a_branch1", "res4b22_branch2b", "res2c_branch2a"} <= deep
    assert not {"res3d_branch2a", "res4b_branch2a"} & deep


def test_files_of_torch_and_numpy(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(2, 3), "a.bias": torch.randn(2)}
    for name, content in (
        ("plain.pth", weights),
        ("wrapped.pt", {"state_dict": weights, "epoch": 3}),
        ("parallel.bin", {"model": {f"module.{name}": value for name, value in weights.items()}}),
    ):
        torch.save(content, tmp_path / name)
        read = nets.load_weights(tmp_path / name)
        assert list(read) == list(weights)
        assert all(torch.equal(read[key], value) for key, value in weights.items())
    np.savez(tmp_path / "numpy.npz", **{name: value.numpy() for name, value in weights.items()})
    read = nets.load_weights(str(tmp_path / "numpy.npz"))
    assert all(torch.equal(read[key], value) for key, value in weights.items())


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: expected a file that ends in .caffemodel, .npz"):
        nets.load_weights(tmp_path / "weights.onnx")
    with pytest.raises(OSError, match=r"none\.caffemodel"):
        nets.load_weights(tmp_path / "none.caffemodel")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"expected a file of names and tensors, got empty\.pth"):
        nets.load_weights(tmp_path / "empty.pth")
    write_caffe(tmp_path / "net.caffemodel", {"conv1": (4, [torch.rand(2, 3, 1, 1)])}, first=True)
    whole = (tmp_path / "net.caffemodel").read_bytes()
    for content in (whole[:-3], b"\xff" * 40, b"", whole[:5], b"text\n" * 9):
        (tmp_path / "bad.caffemodel").write_bytes(content)
        with pytest.raises(ValueError, match=r"path: expected a file of Caffe, got bad.caffemodel"):
            nets.read_caffemodel(tmp_path / "bad.caffemodel")


# --- preprocessing, CRF ---------------------------------------------------------------------------


def test_preprocessing() -> None:
    photo = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    caffe = nets.CAFFE_BGR(photo)
    for channel, mean in enumerate((104.00699, 116.66877, 122.67892)):
        torch.testing.assert_close(caffe[channel], photo[2 - channel] - mean)
    theirs = torchvision.transforms.functional.normalize(
        photo / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(nets.TORCHVISION_RGB(photo), theirs)
    batch = photo.expand(2, 3, 4, 5)
    for chosen in (nets.CAFFE_BGR, nets.TORCHVISION_RGB):
        assert torch.equal(chosen(batch)[1], chosen(photo))
        torch.testing.assert_close(chosen.inverse(chosen(batch)), batch.float())
    assert nets.CAFFE_BGR(photo.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"images: expected \[..., 3, H, W\], got \[1, 4, 5\]"):
        nets.CAFFE_BGR(photo[:1])
    for wrong in (
        ((1.0,),),
        ((1.0, 2.0, 3.0), (1.0, 0.0, 1.0)),
        ((1.0, 2.0, 3.0), (1.0,) * 3, "HSV"),
    ):
        with pytest.raises(ValueError, match="expected"):
            nets.Preprocessing(*wrong)
    assert (
        nets.DeepLabResNet(2, width=0.02, style="torchvision").preprocessing == nets.TORCHVISION_RGB
    )
    assert nets.FCN(2, width=0.02).preprocessing == nets.CAFFE_BGR


def test_crf_on_top() -> None:
    """Scores as unary energies, the photo itself as the image, and all of it learns."""
    net = nets.FCN(3, stride=32, width=1 / 32, pad=1)
    nn.init.normal_(net.score_fr.weight)
    photo = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8)
    images = net.preprocessing(photo)
    refined = nets.WithCRF(net, DenseCRF(3, iterations=2)).eval()
    log_q = refined(images)
    want = refined.crf(-net(images).log_softmax(1), photo.float(), log=True)
    torch.testing.assert_close(log_q, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(1, 20, 24))
    log_q[:, 0].sum().backward()
    assert refined.crf.compatibility.grad.count_nonzero() > 0
    assert net.score_fr.weight.grad.count_nonzero() > 0
    assert (refined.classes, list(refined.head())) == (3, list(net.head()))
    assert nets.WithCRF(net).crf.iterations == 10
    with pytest.raises(ValueError, match="crf: expected 3 labels, got 4"):
        nets.WithCRF(net, DenseCRF(4))
