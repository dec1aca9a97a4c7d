"""The layers: parameters, keys and starts of the peers they replace, and what they compute."""

from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import deformops
from deformops.nn import (
    AtrousConv2d,
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
)
from tests.cases import assert_close
from tests.goldens import CASE_A, CASE_M, Learned

PACKS = (DeformConv2dPack, ModulatedDeformConv2dPack)
LAYERS: dict[str, Any] = {
    "AtrousConv2d": lambda **options: AtrousConv2d(4, 6, 3, padding=2, dilation=2, **options),
    "DeformConv2d": lambda **options: DeformConv2d(4, 6, 3, padding=1, **options),
    "DeformConv2dPack": lambda **options: DeformConv2dPack(4, 6, 3, padding=1, **options),
    "ModulatedDeformConv2dPack": lambda **options: ModulatedDeformConv2dPack(
        4, 6, 3, padding=1, **options
    ),
}


def arguments_of(layer: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """What the layer is called with: offsets too if it does not predict them."""
    if type(layer) is DeformConv2d:
        batch, _, height, width = image.shape
        return image, 0.3 * torch.ones(batch, 18, height, width, dtype=image.dtype)
    return (image,)


# --- DeformConv2d: torchvision's ------------------------------------------------------------------

CONFIGURATIONS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2},
    {"kernel_size": 1, "bias": False},
]


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
def test_deform_conv2d_is_torchvisions(options: dict[str, Any]) -> None:
    """Same constructor, same keys, same start from the same seed, same numbers."""
    torch.manual_seed(3)
    ours = DeformConv2d(4, 6, **options)
    torch.manual_seed(3)
    theirs = torchvision.ops.DeformConv2d(4, 6, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name

    image = torch.randn(2, 4, 8, 9)
    kernel_h, kernel_w = theirs.kernel_size
    with torch.no_grad():
        height, width = F.conv2d(
            image[:, :1],
            torch.zeros(1, 1, kernel_h, kernel_w),
            None,
            theirs.stride,
            theirs.padding,
            theirs.dilation,
        ).shape[-2:]
    offset = torch.randn(2, 2 * 2 * kernel_h * kernel_w, height, width)
    mask = torch.rand(2, 2 * kernel_h * kernel_w, height, width)
    assert_close(ours(image, offset), theirs(image, offset))
    assert_close(ours(image, offset, mask), theirs(image, offset, mask))
    assert_close(ours(image, offset, mask=mask), theirs(image, offset, mask=mask))

    other = torchvision.ops.DeformConv2d(4, 6, **options)
    ours.load_state_dict(other.state_dict(), strict=True)
    other.load_state_dict(ours.state_dict(), strict=True)
    assert_close(ours(image, offset, mask), other(image, offset, mask))


@pytest.mark.parametrize("name", ["in_channels", "out_channels"])
def test_groups_have_to_divide_channels(name: str) -> None:
    channels = {"in_channels": 4, "out_channels": 4, name: 5}
    with pytest.raises(ValueError, match=name):
        DeformConv2d(**channels, kernel_size=3, groups=2)


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("offset_groups", [0, 3])
def test_offset_groups_have_to_divide_channels(pack: Any, offset_groups: int) -> None:
    with pytest.raises(ValueError, match="offset_groups"):
        pack(4, 4, 3, offset_groups=offset_groups)


@pytest.mark.parametrize("layer", [DeformConv2d, *PACKS])
@pytest.mark.parametrize(
    ("name", "value"), [("kernel_size", 0), ("stride", (1, 0)), ("padding", -1), ("dilation", 0)]
)
def test_windows_are_checked_at_once(layer: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{layer.__name__}: {name}: expected integers >= [01]"):
        layer(4, 4, **{"kernel_size": 3, name: value})


@pytest.mark.parametrize("pack", PACKS)
def test_packs_say_what_they_expect(pack: Any) -> None:
    """Of an image without a batch, too, which torch's own convolution takes."""
    layer = pack(4, 6, 3)
    for size in ((4, 9, 9), (2, 3, 9, 9)):
        expected = rf"{pack.__name__}: input: expected shape \[N, 4, H, W\], got \[{size[0]}, "
        with pytest.raises(ValueError, match=expected):
            layer(torch.zeros(size))
    with pytest.raises(TypeError, match=r"input: expected a tensor .* got str"):
        layer("photo")


# --- packs: mmcv's --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("pack", "per_tap"), zip(PACKS, (2, 3), strict=True))
def test_pack_keys_are_mmcvs(pack: Any, per_tap: int, bias: bool) -> None:
    layer = pack(4, 6, (3, 2), groups=2, offset_groups=2, bias=bias)
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    want: dict[str, tuple[int, ...]] = {
        "weight": (6, 2, 3, 2),
        "conv_offset.weight": (per_tap * 2 * 6, 4, 3, 2),
        "conv_offset.bias": (per_tap * 2 * 6,),
    }
    assert shapes == want | ({"bias": (6,)} if bias else {})


@pytest.mark.parametrize("kink", ["inner", "zero"])
@pytest.mark.parametrize("case", [CASE_A, CASE_M], ids=["A", "M"])
def test_pack_goldens(case: Learned, kink: str) -> None:
    """mmcv's own numbers, and torchvision's where they differ on the border."""
    pack = ModulatedDeformConv2dPack if case.modulated else DeformConv2dPack
    layer = pack(1, 1, 2, padding=case.padding, bias=False, kink=kink).double()
    layer.load_state_dict(
        {
            "weight": torch.from_numpy(case.weight),
            "conv_offset.weight": torch.from_numpy(case.offset_weight),
            "conv_offset.bias": torch.from_numpy(case.offset_bias),
        }
    )
    image = torch.from_numpy(case.input).requires_grad_()
    output = layer(image)
    output.sum().backward()
    for got, want in (
        (output, case.output),
        (image.grad, case.grad_input),
        (layer.weight.grad, case.grad_weight),
        (layer.conv_offset.weight.grad, case.grad_offset_weight[kink]),
        (layer.conv_offset.bias.grad, case.grad_offset_bias[kink]),
    ):
        torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset_groups", [1, 2])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), ((1, 2), (2, 1), (2, 1))], ids=str
)
def test_packs_start_as_a_convolution(
    offset_groups: int, stride: Any, padding: Any, dilation: Any
) -> None:
    """v1 as the plain one, v2 as half of it (the sigmoid of zero), and both ready to learn."""
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    image = torch.randn(2, 4, 9, 8)
    for pack, scale in zip(PACKS, (1.0, 0.5), strict=True):
        layer = pack(4, 6, 3, offset_groups=offset_groups, **window)
        assert layer.conv_offset.weight.count_nonzero() == 0
        assert layer.conv_offset.bias.count_nonzero() == 0
        assert layer.weight.count_nonzero() > 0
        plain = F.conv2d(image, layer.weight, None, **window)
        output = layer(image)
        assert_close(output, scale * plain + layer.bias[:, None, None])

        output.square().sum().backward()
        gradient = layer.conv_offset.bias.grad
        assert (gradient.abs() > 1e-4).all(), "a channel of the offset branch learns nothing"
        assert (layer.conv_offset.weight.grad.abs().amax((1, 2, 3)) > 1e-4).all()


def test_modulated_pack_splits_in_thirds() -> None:
    """Two thirds offsets, the last third a mask through a sigmoid."""
    layer = ModulatedDeformConv2dPack(4, 6, 3, padding=1, offset_groups=2).double()
    nn.init.normal_(layer.conv_offset.weight, std=0.1)
    image = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    predicted = layer.conv_offset(image)
    want = torchvision.ops.deform_conv2d(
        image,
        predicted[:, :36],
        layer.weight,
        layer.bias,
        padding=1,
        mask=predicted[:, 36:].sigmoid(),
    )
    assert_close(layer(image), want)


def test_pack_learns_to_shift() -> None:
    """Only the offset branch trains, and finds a known shift of half a pixel."""
    torch.manual_seed(0)
    layer = DeformConv2dPack(1, 1, 1, bias=False).double()
    nn.init.ones_(layer.weight)
    image = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    image = F.interpolate(image, scale_factor=4, mode="bicubic", align_corners=True)
    target = 0.5 * (image + image.roll(-1, dims=3))
    optimizer = torch.optim.Adam([layer.conv_offset.bias], lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        (layer(image) - target)[..., 2:-2, 2:-2].square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(
        layer.conv_offset.bias.detach(), torch.tensor([0.0, 0.5]).double(), atol=0.02, rtol=0
    )


# --- AtrousConv2d: torch's Conv2d -----------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["auto", "direct", "holes", "subsample", "winograd"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 2, "dilation": 2},
        {"padding": "same", "dilation": 3},
        {"padding": "valid", "dilation": 2, "stride": 2},
        {"padding": (1, 3), "dilation": (1, 3), "groups": 2, "bias": False},
        {"padding": 2, "dilation": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_atrous_conv2d_is_a_conv2d(options: dict[str, Any], algorithm: str) -> None:
    torch.manual_seed(3)
    ours = AtrousConv2d(4, 6, 3, algorithm=algorithm, **options)
    torch.manual_seed(3)
    theirs = nn.Conv2d(4, 6, 3, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    image = torch.randn(2, 4, 11, 13)
    assert_close(ours(image), theirs(image))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(nn.Conv2d(4, 6, 3, **options).state_dict(), strict=True)


# --- any layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_factory_arguments(name: str) -> None:
    layer = LAYERS[name](dtype=torch.float64, device="meta")
    for parameter in layer.parameters():
        assert parameter.dtype == torch.float64
        assert parameter.is_meta


@pytest.mark.parametrize("name", LAYERS)
def test_copies_files_and_types(name: str) -> None:
    """deepcopy, a file, and ``.double()`` give the same layer."""
    layer = LAYERS[name]()
    image = torch.randn(2, 4, 7, 8)
    want = layer(*arguments_of(layer, image))
    assert torch.equal(copy.deepcopy(layer)(*arguments_of(layer, image)), want)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(*arguments_of(layer, image)), want)
    assert_close(want, layer.double()(*arguments_of(layer, image.double())))


@pytest.mark.parametrize("name", LAYERS)
def test_memory_format_is_kept(name: str) -> None:
    layer = LAYERS[name]().to(memory_format=torch.channels_last)
    image = torch.randn(2, 4, 7, 8).contiguous(memory_format=torch.channels_last)
    output = layer(*arguments_of(layer, image))
    assert output.is_contiguous(memory_format=torch.channels_last)
    contiguous = LAYERS[name]()
    contiguous.load_state_dict(layer.state_dict())
    plain = image.contiguous()
    torch.testing.assert_close(output, contiguous(*arguments_of(layer, plain)))


@pytest.mark.parametrize("name", LAYERS)
def test_repr_says_what_is_not_default(name: str) -> None:
    text = repr(LAYERS[name]())
    assert text.startswith(f"{name}(")
    assert "4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(" in text
    other = "algorithm" if name == "AtrousConv2d" else "kink"
    assert other not in text
    value = "holes" if name == "AtrousConv2d" else "zero"
    assert f"{other}={value!r}" in repr(LAYERS[name](**{other: value}))


@pytest.mark.parametrize("pack", PACKS)
def test_packs_start_the_same_when_reset_child_by_child(pack: Any) -> None:
    """As frameworks do that build on the meta device: every module is reset by itself."""
    layer = pack(4, 6, 3, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 5.0)
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert layer.weight.std() > 0.01
    assert layer.conv_offset.weight.count_nonzero() == 0
    assert layer.conv_offset.bias.count_nonzero() == 0


@pytest.mark.parametrize("name", LAYERS)
def test_reset_parameters_starts_anew(name: str) -> None:
    torch.manual_seed(5)
    layer = LAYERS[name]()
    start = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 7.0)
    torch.manual_seed(5)
    layer.reset_parameters()
    for key, tensor in layer.state_dict().items():
        assert torch.equal(tensor, start[key]), key


def test_options_reach_the_op() -> None:
    """Border and kink are no decoration."""
    image, offset = torch.randn(1, 2, 6, 6), torch.randn(1, 18, 6, 6)
    for border, kink in itertools.product(("v2", "v1"), ("inner", "zero")):
        layer = DeformConv2d(2, 3, 3, padding=1, border=border, kink=kink)
        want = deformops.deform_conv2d(
            image, offset, layer.weight, layer.bias, padding=1, border=border, kink=kink
        )
        assert torch.equal(layer(image, offset), want)


@pytest.mark.parametrize("name", LAYERS)
def test_compile(name: str) -> None:
    torch.compiler.reset()
    layer = LAYERS[name]()
    arguments = arguments_of(layer, torch.randn(2, 4, 7, 8))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), layer(*arguments))
    torch.compiler.reset()
