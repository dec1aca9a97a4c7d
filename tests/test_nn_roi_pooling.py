"""The layers of RoI pooling: calls, options, and the one that predicts its offsets."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import deformops
from deformops.nn import (
    DeformPSRoIPool,
    DeformRoIPool,
    DeformRoIPoolPack,
    PSRoIAlign,
    PSRoIPool,
    RoIAlign,
    RoIPool,
)
from tests.cases import assert_close

# Layer, function, options that are not the defaults.
LAYERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "RoIPool": (RoIPool, deformops.roi_pool, {"semantics": "mmcv"}),
    "RoIAlign": (RoIAlign, deformops.roi_align, {"sampling_ratio": 3, "aligned": True}),
    "PSRoIPool": (
        PSRoIPool,
        deformops.ps_roi_pool,
        {"group_size": (1, 2), "semantics": "torchvision"},
    ),
    "PSRoIAlign": (PSRoIAlign, deformops.ps_roi_align, {"sampling_ratio": 3}),
    "DeformRoIPool": (
        DeformRoIPool,
        deformops.deform_roi_pool,
        {"samples_per_bin": 2, "offset_scale": 0.3, "part_size": 1, "semantics": "mmcv"},
    ),
    "DeformPSRoIPool": (
        DeformPSRoIPool,
        deformops.deform_ps_roi_pool,
        {"group_size": 1, "part_size": 1, "samples_per_bin": 3, "offset_scale": 0.2},
    ),
}


def image_and_boxes(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 8, 12, 13, generator=generator, dtype=torch.float64).to(dtype)
    boxes = torch.tensor([[0.0, 3, 2, 17, 21], [1, 1, 4, 15, 14], [1, -3, 5, 29, 22]])
    return image, boxes


@pytest.mark.parametrize("name", LAYERS)
def test_options_reach_the_function(name: str) -> None:
    """Each of them, and all at once; without any, the defaults are the function's."""
    kind, function, options = LAYERS[name]
    image, boxes = image_and_boxes()
    arguments: list[Any] = [image, boxes]
    for given in ({}, options, *({key: value} for key, value in options.items())):
        if "Deform" in name:
            parts = given.get("part_size", 2)
            arguments[2:] = [0.3 + torch.zeros(3, 2, parts, parts)]
        got = kind(2, 0.5, **given)(*arguments)
        assert torch.equal(got, function(*arguments, 2, 0.5, **given)), given
        if given:
            assert not torch.equal(got, function(*arguments[:2], *_none(name), 2, 0.5)), given


def _none(name: str) -> list[None]:
    return [None] if "Deform" in name else []


@pytest.mark.parametrize("name", ["DeformRoIPool", "DeformPSRoIPool"])
def test_offsets_may_be_left_out(name: str) -> None:
    kind, function, _ = LAYERS[name]
    image, boxes = image_and_boxes()
    assert torch.equal(kind(2, 0.5)(image, boxes), function(image, boxes, None, 2, 0.5))


@pytest.mark.parametrize("name", ["RoIPool", "RoIAlign", "PSRoIAlign"])
def test_layers_are_torchvisions(name: str) -> None:
    """The same constructor, call and numbers."""
    image, boxes = image_and_boxes()
    arguments = (2, 0.5) if name == "RoIPool" else (2, 0.5, 2)
    ours, theirs = LAYERS[name][0](*arguments), getattr(torchvision.ops, name)(*arguments)
    lists = [boxes[:1, 1:], boxes[1:, 1:]]
    assert_close(ours(image, boxes), theirs(image, boxes))
    assert_close(ours(image, lists), theirs(image, lists))
    assert list(ours.state_dict()) == list(theirs.state_dict()) == []


@pytest.mark.parametrize("name", LAYERS)
def test_repr_says_the_options(name: str) -> None:
    kind, _, options = LAYERS[name]
    text = repr(kind((2, 3), 0.5, **options))
    assert text.startswith(f"{name}(output_size=(2, 3), spatial_scale=0.5, ")
    for key, value in options.items():
        assert f"{key}={value!r}" in text


@pytest.mark.parametrize("name", LAYERS)
def test_options_are_attributes(name: str) -> None:
    """As with torchvision's layers, one can be changed afterwards."""
    kind, function, _ = LAYERS[name]
    image, boxes = image_and_boxes()
    layer = kind(2, 0.5)
    layer.spatial_scale = 0.25
    assert torch.equal(layer(image, boxes), function(image, boxes, *_none(name), 2, 0.25))


# --- the layer that predicts its offsets ----------------------------------------------------------


@pytest.mark.parametrize("semantics", ["dcn", "mmcv"])
@pytest.mark.parametrize("hidden", [(), (5,), (6, 4)], ids=str)
def test_pack_starts_as_plain_pooling(hidden: tuple[int, ...], semantics: str) -> None:
    """And is ready to learn: the last layer has a gradient, that of the others comes with it."""
    image, boxes = image_and_boxes()
    layer = DeformRoIPoolPack(3, 8, 0.5, hidden_channels=hidden, semantics=semantics)
    output = layer(image, boxes)
    want = deformops.deform_roi_pool(image, boxes, None, 3, 0.5, semantics=semantics)
    assert torch.equal(output, want)
    output.square().sum().backward()
    last: Any = layer.offset_fc[-1]
    assert (last.bias.grad.abs() > 1e-5).all(), "an offset learns nothing"
    assert last.weight.grad.count_nonzero() > 0


def test_pack_is_two_passes() -> None:
    image, boxes = image_and_boxes(torch.float64)
    layer = DeformRoIPoolPack((2, 3), 8, 0.5, hidden_channels=(6,), part_size=(1, 3)).double()
    nn.init.normal_(layer.offset_fc[-1].weight)
    plain = deformops.deform_roi_pool(image, boxes, None, (2, 3), 0.5)
    first, _, second = layer.offset_fc
    offset = second(first(plain.reshape(3, 8 * 6)).relu()).reshape(3, 2, 1, 3)
    assert torch.equal(layer.offsets(image, boxes), offset)
    want = deformops.deform_roi_pool(image, boxes, offset, (2, 3), 0.5, part_size=(1, 3))
    assert torch.equal(layer(image, boxes), want)
    assert not torch.equal(want, plain)


def test_pack_keys_are_mmcvs() -> None:
    layer = DeformRoIPoolPack(2, 8, hidden_channels=(16, 16), semantics="mmcv")
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert shapes == {
        "offset_fc.0.weight": (16, 32),
        "offset_fc.0.bias": (16,),
        "offset_fc.2.weight": (16, 16),
        "offset_fc.2.bias": (16,),
        "offset_fc.4.weight": (8, 16),
        "offset_fc.4.bias": (8,),
    }


def test_pack_has_a_learning_rate_of_its_own() -> None:
    layer, head = DeformRoIPoolPack(2, 8, lr_factor=0.25), nn.Linear(32, 3)
    groups = layer.parameter_groups(0.8)
    optimizer = torch.optim.SGD([*groups, {"params": head.parameters()}], lr=0.8)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.8]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in layer.parameters()}
    assert DeformRoIPoolPack(2, 8).lr_factor == 0.01


def test_pack_learns_to_move() -> None:
    """Only the offsets train, and find what is beside the box, for boxes of two sizes at once."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = -torch.stack(
        [
            ((rows - y) ** 2 + (columns - x) ** 2) / size**2
            for y, x, size in ((20, 23, 8), (28.5, 34.5, 16))
        ]
    )[:, None].double()
    # Samples are at the start of their eighth of a bin: their mean is at (19, 21) and (26.5, 30.5),
    # a quarter of an extent to the left of the object and an eighth above.
    boxes = torch.tensor([[0, 18.0, 16.0, 25, 23], [1, 24, 20, 39, 35]]).double()
    layer = DeformRoIPoolPack(1, 1, samples_per_bin=8).double()
    optimizer = torch.optim.Adam([layer.offset_fc[-1].bias], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-layer(image, boxes).mean()).backward()
        optimizer.step()
    learned: Any = layer.offset_fc[-1].bias
    # The slope between two pixels is that of their middle: half a pixel of the smaller box is 0.6.
    torch.testing.assert_close(
        learned.detach(), torch.tensor([2.5, 1.25]).double(), atol=0.4, rtol=0
    )


def test_pack_factory_arguments() -> None:
    layer = DeformRoIPoolPack(2, 8, hidden_channels=(3,), dtype=torch.float64, device="meta")
    for parameter in layer.parameters():
        assert parameter.dtype == torch.float64
        assert parameter.is_meta


def test_pack_starts_the_same_when_reset() -> None:
    """As a whole, and module by module, as frameworks do that build on the meta device."""
    for whole in (True, False):
        layer = DeformRoIPoolPack(2, 8, hidden_channels=(3,), device="meta").to_empty(device="cpu")
        for parameter in layer.parameters():
            nn.init.constant_(parameter, 5.0)
        modules: list[Any] = [layer] if whole else list(layer.offset_fc)
        for module in modules:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        first: Any = layer.offset_fc[0]
        last: Any = layer.offset_fc[-1]
        assert 0.01 < first.weight.std() < 1
        assert last.weight.count_nonzero() == 0
        assert last.bias.count_nonzero() == 0


def test_pack_copies_files_and_types() -> None:
    layer = DeformRoIPoolPack(2, 8, 0.5, hidden_channels=(3,))
    nn.init.normal_(layer.offset_fc[-1].weight)
    image, boxes = image_and_boxes()
    want = layer(image, boxes)
    assert torch.equal(copy.deepcopy(layer)(image, boxes), want)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(image, boxes), want)
    assert_close(want, layer.double()(image.double(), boxes))


def test_pack_repr() -> None:
    text = repr(DeformRoIPoolPack(7, 256, 1 / 16))
    assert text.startswith("DeformRoIPoolPack(")
    assert "channels=256, output_size=(7, 7), spatial_scale=0.0625" in text
    assert "lr_factor=0.01" in text


def test_pack_without_boxes() -> None:
    image, boxes = image_and_boxes()
    layer = DeformRoIPoolPack(2, 8, 0.5)
    output = layer(image, boxes[:0])
    assert output.shape == (0, 8, 2, 2)
    output.sum().backward()
    last: Any = layer.offset_fc[-1]
    assert last.weight.grad.count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_pack_under_autocast(dtype: torch.dtype) -> None:
    """Boxes stay in float32; parameters and their gradients, too."""
    image, boxes = image_and_boxes()
    layer = DeformRoIPoolPack(2, 8, 0.5)
    with torch.autocast("cpu", dtype=dtype):
        output = layer(image.to(dtype), boxes)
    assert output.dtype == dtype
    output.float().square().sum().backward()
    last: Any = layer.offset_fc[-1]
    assert last.bias.grad.dtype == torch.float32
    assert last.bias.grad.count_nonzero() > 0
