"""Deformable layers inside networks: how they are found, where they look, and `deformops look`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("PIL", reason="extra [viz] is not installed")
pytest.importorskip("matplotlib", reason="extra [viz] is not installed")

import numpy as np
from PIL import Image

from deformops import deform_conv2d
from deformops.__main__ import main
from deformops.analysis import (
    Window,
    effective_receptive_field,
    look_at,
    sampling_points,
    stack_points,
    trace_receptive_fields,
)
from deformops.figures import sheet
from deformops.nn import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack
from deformops.training.checkpoint import save
from deformops.training.detection.network import DetectionNetwork
from deformops.training.network import Network


class Foreign(nn.Module):
    """Made as mmcv's packs are; its operator is none of torch's that are known."""

    def __init__(self, modulated: bool) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = (3, 3), (1, 1), (2, 2), (2, 2)
        self.deform_groups = 2
        self.weight = nn.Parameter(torch.rand(4, 4, 3, 3))
        self.modulated = modulated
        per_tap = 3 if modulated else 2
        self.conv_offset = nn.Conv2d(4, per_tap * 2 * 9, 3, 1, 2, 2)

    def forward(self, input: Tensor) -> Tensor:
        offset = self.conv_offset(input)
        output = torch.from_numpy(np.ones(input.shape, dtype=np.float32))  # torch sees nothing
        return output.requires_grad_(offset.requires_grad)


class Zoo(nn.Module):
    """Deformable layers of all kinds, with others between them, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.pack = DeformConv2dPack(4, 4, 3, padding=2, dilation=2)
        self.twice = ModulatedDeformConv2dPack(4, 4, 3, padding=1, offset_groups=2)
        self.given = DeformConv2d(4, 4, (3, 1), stride=2, padding=(1, 0))
        self.beside = DeformConv2dPack(4, 4, 3, padding=1)
        self.offsets = nn.Conv2d(4, 6, 1, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        values = self.stem(image)
        values = values + self.pack(values)
        values = F.relu(self.twice(self.twice(values)))
        side = self.beside(self.stem(image))
        values = self.given(values, self.offsets(values))
        weight = torch.ones(4, 4, 1, 1)
        values = deform_conv2d(values, values.new_zeros(1, 2, *values.shape[-2:]), weight)
        return F.interpolate(values, side.shape[-2:], mode="bilinear") + side


def zoo() -> Zoo:
    torch.manual_seed(0)
    net = Zoo()
    for layer in (net.pack, net.twice, net.beside):
        nn.init.normal_(layer.conv_offset.bias, std=2.0)
    return net.eval()


def test_deformable_layers_of_all_kinds_are_found() -> None:
    net, image = zoo(), torch.rand(1, 3, 32, 48)
    traced = trace_receptive_fields(net, image)
    found = {run.name: run for run in traced.deformable}
    assert list(found) == ["pack", "twice", "twice:2", "beside", "given", ""]
    assert [sorted(run.input.passed) for run in found.values()] == [
        *([], [0], [0, 1], [], [0, 1, 2], [0, 1, 2, 4]),
    ]
    assert [run.groups for run in found.values()] == [1, 2, 2, 1, 1, 1]
    assert found["given"].window == Window((3, 1), (2, 2), (1, 0), (1, 1))
    assert found["twice:2"].module == ("twice", 2)
    with torch.no_grad():
        values = net.stem(image)
        assert torch.equal(found["pack"].offset, net.pack.conv_offset(values)[0])
        values = net.twice(values + net.pack(values))
        assert torch.equal(found["twice:2"].offset, net.twice.conv_offset(values)[0, :36])
    names = [run.name for run in traced.stack_below("given", 3)]
    assert names == ["twice", "twice:2", "given"]
    assert [run.name for run in traced.stack_below("given", 9)] == ["pack", *names]
    assert [run.name for run in traced.stack_below("beside", 3)] == ["beside"]
    with pytest.raises(ValueError, match=r"layer: expected one of pack, twice.*got 'stem'"):
        traced.stack_below("stem", 3)
    # With holes 2: 5 cells of the stem's map, 2 pixels apart, that see 3; the offsets see as much.
    assert traced["pack"].box((8, 9)) == (2 * 6 - 1, 2 * 7 - 1, 2 * 10 + 1, 2 * 11 + 1)


@pytest.mark.parametrize("modulated", [False, True])
def test_layers_that_are_made_like_those_of_mmcv_are_found(modulated: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Foreign(modulated), nn.AvgPool2d(2))
    image = torch.rand(1, 3, 16, 16)
    traced = trace_receptive_fields(net, image)
    (run,) = traced.deformable
    assert (run.name, run.groups, run.window) == ("1", 2, Window((3, 3), (1, 1), (2, 2), (2, 2)))
    with torch.no_grad():
        assert torch.equal(run.offset, net[1].conv_offset(net[0](image))[0, :36])  # type: ignore
    assert traced["2"].box((3, 4)) == (4, 6, 9, 11)


def test_torchvisions_layer_is_found() -> None:
    torchvision = pytest.importorskip("torchvision")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Conv2d(3, 18, 3, stride=2)
            self.deform = torchvision.ops.DeformConv2d(3, 4, 3, stride=2)

        def forward(self, image: Tensor) -> Tensor:
            return self.deform(image, self.offset(image))

    net, image = Net(), torch.rand(1, 3, 17, 17)
    traced = trace_receptive_fields(net, image)
    (run,) = traced.deformable
    assert (run.name, run.window) == ("deform", Window((3, 3), (2, 2), (0, 0), (1, 1)))
    assert torch.equal(run.offset, net.offset(image)[0].detach())
    assert traced["deform"].box((2, 3)) == (4, 6, 6, 8)


def stacked(strides: tuple[int, int] = (1, 1), offset: float = 0.0) -> nn.Sequential:
    """Three packs behind a stem of stride 2; all offsets (y, x) are (offset, -offset)."""
    packs = [
        DeformConv2dPack(3, 3, 3, padding=2, dilation=2),
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3, strides[0], 1)),
        DeformConv2dPack(3, 3, 3, padding=1),
        DeformConv2dPack(3, 3, 3, strides[1], padding=1),
    ]
    for pack in packs:
        if isinstance(pack, DeformConv2dPack):
            with torch.no_grad():
                pack.conv_offset.bias.copy_(offset * torch.tensor([1.0, -1.0]).repeat(9))
    return nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), *packs)


def test_points_of_layers_in_a_network_are_those_of_the_layers_alone() -> None:
    net, image = stacked(), torch.rand(1, 3, 64, 64)
    for name in ("1", "3", "4"):
        nn.init.normal_(net.get_submodule(name).conv_offset.bias, std=2.0)  # type: ignore
    stack = trace_receptive_fields(net, image).stack_below("4", 3)
    levels = stack_points(stack, (16, 15))
    assert [len(level) for level in levels] == [1, 9, 81, 729]
    alone = sampling_points([run.window for run in stack], [run.offset for run in stack], (16, 15))
    # The stem's cell i lies at pixel 2 i.
    torch.testing.assert_close(levels[-1], 2 * alone, atol=1e-9, rtol=0)
    assert levels[0].tolist() == [[32.0, 30.0]]


def test_constant_offsets_shift_the_cloud_exactly() -> None:
    """By the sum of offsets times the pixels from cell to cell of the map that each moves on."""
    image = torch.rand(1, 3, 96, 96)
    clouds = []
    for offset in (0.0, 0.75):
        traced = trace_receptive_fields(stacked((3, 2), offset), image)
        clouds.append(stack_points(traced.stack_below("4", 3), (4, 5))[-1])
    shift = 0.75 * (2 + 6 + 6)  # after the stem; after the layer of stride 3, twice
    assert torch.equal(clouds[1], clouds[0] + torch.tensor([shift, -shift]).double())
    still = stack_points(traced.stack_below("4", 3), (4, 5), moved=False)[-1]
    assert torch.equal(still, clouds[0])


def test_what_offsets_depend_on_counts() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deform = DeformConv2d(3, 3, 3, padding=1)
            self.offset = nn.Conv2d(3, 18, (1, 9), padding=(0, 4))

        def forward(self, image: Tensor) -> Tensor:
            return self.deform(image, self.offset(image))

    fields = trace_receptive_fields(Wide(), torch.rand(1, 3, 20, 20))
    assert fields["deform"].box((9, 10)) == (8, 6, 10, 14)


def test_units_of_a_later_run_of_a_layer() -> None:
    net, image = zoo(), torch.rand(1, 3, 32, 48)
    traced = trace_receptive_fields(net, image)
    masses = [
        look_at(net, image, traced.stack_below(name, 1), (16, 24)).field.mass
        for name in ("twice", "twice:2")
    ]
    counts = [int((mass > 0).sum()) for mass in masses]
    assert counts[0] < counts[1]
    with pytest.raises(ValueError, match="layer: expected one that the network runs 3 times"):
        effective_receptive_field(net, image, (3, 3), layer="twice", run=3)


def test_a_look_has_all_there_is_to_see() -> None:
    net, image = stacked(offset=1.0), torch.rand(1, 3, 64, 64)
    stack = trace_receptive_fields(net, image).stack_below("4", 2)
    found = look_at(net, image, stack, (30.4, 33.7))
    assert (found.cell, found.place, found.lost) == ((15, 17), (30.0, 34.0), "")
    assert [len(level) for level in found.levels] == [1, 9, 81]
    assert found.extents == ((9, 9), (9, 9))
    # Five cells of the stem's map to each side: one for each 3x3, two for that with holes.
    assert found.box == (30 - 11, 34 - 11, 30 + 11, 34 + 11)
    # Offsets move what is read, and not what the formula says.
    assert found.field.center[0] > 30 + 2 * 2
    assert found.field.center[1] < 34 - 2 * 2
    corner = look_at(net, image, stack, (-9, 900))
    assert corner.cell == (0, 31)
    with pytest.raises(ValueError, match="stack: expected at least one"):
        look_at(net, image, [], (3, 3))


def test_without_a_way_to_follow_cells_are_spaced_evenly() -> None:
    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pack = DeformConv2dPack(3, 3, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            return self.pack(F.avg_pool2d(image, 4).sort(dim=-1).values)

    image = torch.rand(1, 3, 32, 40)
    net = Sorting()
    traced = trace_receptive_fields(net, image)
    found = look_at(net, image, traced.stack_below("pack", 3), (13.5, 21.5))
    assert (found.box, found.cell, found.place) == (None, (3, 5), (13.5, 21.5))
    assert "aten::sort" in found.lost


NETWORKS = """
import torch
from torch import nn
from helper import CHANNELS
from deformops.nn import DeformConv2dPack

torch.manual_seed(0)

def small():
    return nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, 2, 1),
        DeformConv2dPack(CHANNELS, 4, 3, padding=1, offset_groups=2),
        nn.ReLU(),
        DeformConv2dPack(4, 4, 3, padding=2, dilation=2),
    )

plain = nn.Conv2d(3, 4, 3)
number = 3

def failing():
    raise KeyError("weights")

class Picky(nn.Module):
    def forward(self, image):
        raise RuntimeError("only squares")
picky = Picky()
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sheet, "PIXELS_PER_INCH", 20)
    (tmp_path / "networks_of_mine.py").write_text(NETWORKS)
    (tmp_path / "helper.py").write_text("CHANNELS = 4\n")
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    return tmp_path


@pytest.mark.parametrize("model", ["networks_of_mine.py:small", "networks_of_mine:small"])
def test_the_picture_of_a_network_of_mine(
    model: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["look", model, "photo.png", "--at", "20,10", "50,30", "-o", "out.png"]) == 0
    text = capsys.readouterr().out
    assert "small sees photo.png as 60 x 40 pixels" in text
    assert "at 20,10:\n  unit        row 5, column 10 of layer 3, at 20,10" in text
    assert "reads       81 points" in text
    # 2 * 4 + 2 * 2 + 2 pixels and one more, cut by the upper border of the photo.
    assert "depends on  15 x 15 pixels of the photo, from 13,3 to 27,17" in text
    with Image.open(files / "out.png") as picture:
        assert picture.height > picture.width
    words = ["--layer", "1", "--group", "1", "--at", "20,10", "--size", "240"]
    assert main(["look", model, "photo.png", *words]) == 0
    # Pixel 20 of the photo reaches from 80 to 83 of what is seen, where cells lie at 2 i.
    assert "row 21, column 41 of layer 1, at 82,42" in capsys.readouterr().out
    assert (files / "look.png").exists()


def test_the_list(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--size", "120"]
    assert main(["look", "networks_of_mine.py:small", "photo.png", "--list", *size]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small sees photo.png as 120 x 80 pixels"
    assert lines[1].split()[:3] == ["layer", "taps", "dilation"]
    rows = [line.split() for line in lines[2:]]
    assert rows == [
        ["1", "3", "x", "3", "1", "2", "60", "x", "40", "2", "0", "1.00", "+-", "0.00"],
        ["3", "3", "x", "3", "2", "1", "60", "x", "40", "2", "1", "2.00", "+-", "0.00"],
    ]
    assert list(files.glob("*.png")) == [files / "photo.png"]


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_checkpoints(kind: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"width": 0.0625, "norm": "batch", "deformable_layers": 1}
    network: Any
    if kind == "segmentation":
        network = Network("deeplab-deform-resnet50", ("a", "b"), options)
        state = {"recipe": {"augmentation": {"reduce": 2.0}}}
        size, layer = "30 x 20", "backbone.layer4.2.conv2"
    else:
        network = DetectionNetwork("faster-rcnn-resnet50", ("a",), options, size=(80, 100))
        state, size, layer = {}, "100 x 67", "trunk.backbone.layer4.2.conv2"
    save(
        files / "net.pt",
        {"network": network.state(), "model": network.build().state_dict(), **state},
    )
    assert main(["look", "net.pt", "photo.png", "-o", "out.png"]) == 0
    text = capsys.readouterr().out
    assert f"{network.name} sees photo.png as {size} pixels" in text
    assert layer in text
    assert (files / "out.png").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["missing.pt", "photo.png"], "expected a checkpoint, package.module:name or file.py:name"),
        (["photo.png", "photo.png"], "photo.png: expected a checkpoint"),
        (["missing.py:net", "photo.png"], "there is no file missing.py"),
        (["missing_module:net", "photo.png"], "missing_module raised ModuleNotFoundError"),
        (["networks_of_mine.py:large", "photo.png"], "networks_of_mine.py has no 'large'"),
        (["networks_of_mine.py:number", "photo.png"], "expected a torch.nn.Module or a function"),
        (["networks_of_mine.py:failing", "photo.png"], "failing() raised KeyError: 'weights'"),
        (["networks_of_mine.py:plain", "photo.png"], "plain ran no deformable layer"),
        (["networks_of_mine.py:picky", "photo.png"], "[1, 3, 40, 60], raised RuntimeError: only"),
        (["networks_of_mine.py:small", "helper.py"], "helper.py cannot be read as a photo"),
        ([*"SP", "--at", "60,3"], "--at: expected points of the photo, 60 x 40 pixels, got 60,3"),
        ([*"SP", "--at", "3,-1"], "--at: expected points of the photo"),
        ([*"SP", "--layer", "2"], "layer: expected one of 1, 3, got '2'"),
        ([*"SP", "--layer", "1", "--group", "2"], "--group: expected one from 0 to 1 for 1, got 2"),
        ([*"SP", "--depth", "0"], "--depth: expected at least 1, got 0"),
        ([*"SP", "--depth", "9"], "--depth: expected at most 5, got 9"),
        ([*"SP", "-o", "nowhere/out.png"], "nowhere is no folder to write to"),
        ([*"SP", "-o", "out.xyz"], "xyz"),
    ],
)
def test_bad_input(
    words: list[str], match: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"S": "networks_of_mine.py:small", "P": "photo.png"}
    assert main(["look", *(usual.get(word, word) for word in words)]) == 1
    assert match in capsys.readouterr().err
    assert files.exists()


def test_points_are_numbers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["look", "networks_of_mine.py:small", "photo.png", "--at", "3"])
    assert "expected X,Y as in 220,140, got '3'" in capsys.readouterr().err


def test_without_matplotlib_there_is_only_the_list(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    words = ["look", "networks_of_mine.py:small", "photo.png"]
    assert main(words) == 1
    assert "deformops-vision[viz]" in capsys.readouterr().err
    assert main([*words, "--list"]) == 0
