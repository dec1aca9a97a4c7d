"""ONNX export: the exported model computes the same, by an engine that is not ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deformops
from deformops import onnx as deformops_onnx
from deformops.nn import (
    DeformConv2dPack,
    DeformRoIPool,
    ModulatedDeformConv2dPack,
    PSRoIAlign,
    RoIAlign,
    RoIPool,
)
from tests.boxes import clusters

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX engines come with [bench]")
pytest.importorskip("onnxscript", reason="torch's ONNX exporter needs it")


def export(layer: nn.Module, input: Tensor, file: Path, *boxes: Tensor) -> None:
    sizes: tuple[Any, ...] = ({0: torch.export.Dim("n"), 2: torch.export.Dim("h")},)
    if boxes:
        sizes += ({0: torch.export.Dim("k")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            layer,
            (input, *boxes),
            dynamo=True,
            opset_version=19,
            dynamic_shapes=sizes,
            custom_translation_table=deformops_onnx.translations(),
        )
    assert program is not None
    program.save(str(file))


@pytest.mark.parametrize("kind", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_an_engine_agrees(kind: type[DeformConv2dPack], tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = kind(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, offset_groups=2)
    nn.init.normal_(layer.conv_offset.weight, std=0.3)
    export(layer.eval(), torch.randn(2, 4, 9, 11), tmp_path / "layer.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "layer.onnx"))
    (name,) = (argument.name for argument in session.get_inputs())
    for input in (torch.randn(2, 4, 9, 11), torch.randn(3, 4, 14, 11)):
        (output,) = session.run(None, {name: input.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), layer(input).detach())


def test_what_onnx_does_not_have(tmp_path: Path) -> None:
    layer = DeformConv2dPack(2, 2, 3, padding=1, border="v1")
    with pytest.raises(Exception, match="border 'v2'"):
        export(layer, torch.randn(1, 2, 5, 5), tmp_path / "layer.onnx")


def boxes_in(images: int, count: int) -> Tensor:
    """Boxes inside and across the borders of maps of 9 x 11 pixels at scale 1 / 2."""
    corners = torch.rand(count, 4) * 16 - 3
    corners[:, 2:] = corners[:, :2] + 2 + corners[:, 2:].abs()
    return torch.cat([torch.randint(images, (count, 1)).float(), corners], 1)


@pytest.mark.parametrize(
    "layer",
    [
        RoIPool((3, 2), 0.5),
        RoIAlign((3, 2), 0.5),
        RoIAlign((3, 2), 0.5, 2, aligned=True),
        RoIAlign((3, 2), 0.5, -1, aligned=True),
    ],
    ids=str,
)
def test_an_engine_agrees_on_poolings(layer: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(layer, torch.randn(2, 4, 9, 11), tmp_path / "layer.onnx", boxes_in(2, 5))
    session = onnxruntime.InferenceSession(str(tmp_path / "layer.onnx"))
    names = [argument.name for argument in session.get_inputs()]
    for images, count, height in ((2, 5, 9), (3, 7, 14)):
        input, boxes = torch.randn(images, 4, height, 11), boxes_in(images, count)
        given = dict(zip(names, (input.numpy(), boxes.numpy()), strict=True))
        (output,) = session.run(None, given)
        torch.testing.assert_close(torch.from_numpy(output), layer(input, boxes))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (RoIPool(2, semantics="mmcv"), "semantics 'caffe'"),
        (PSRoIAlign(2), r"groups \(2, 2\)"),
        (DeformRoIPool(2), "semantics 'dcn'"),
    ],
    ids=str,
)
def test_poolings_that_onnx_does_not_have(layer: nn.Module, says: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=says):
        export(layer, torch.randn(2, 4, 9, 11), tmp_path / "layer.onnx", boxes_in(2, 5))


class Postprocess(nn.Module):
    """All ways to suppress that ONNX has."""

    def __init__(self, plus_one: bool = False) -> None:
        super().__init__()
        self.plus_one = plus_one

    def forward(self, boxes: Tensor, scores: Tensor, idxs: Tensor) -> tuple[Tensor, ...]:
        """Indices, those of groups, padded ones and their number."""
        kept = deformops.nms(boxes, scores, 0.4, plus_one=self.plus_one)
        grouped = deformops.batched_nms(boxes, scores, idxs, 0.4)
        padded, count = deformops.nms_padded(boxes, scores, 0.4, 25, idxs=idxs)
        short, few = deformops.nms_padded(boxes, scores, 0.4, 5)
        long, _ = deformops.nms_padded(boxes, scores, 0.4, boxes.shape[0])
        return kept, grouped, padded, count, short, few, long


def export_suppression(model: nn.Module, file: Path) -> None:
    boxes, scores = clusters(50)
    count = {0: torch.export.Dim("count", min=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (boxes, scores, torch.arange(50) % 3),
            dynamo=True,
            opset_version=19,
            dynamic_shapes=(count, count, count),
            custom_translation_table=deformops_onnx.translations(),
        )
    assert program is not None
    program.save(str(file))


def test_an_engine_agrees_on_suppression(tmp_path: Path) -> None:
    model = Postprocess()
    export_suppression(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    names = [argument.name for argument in session.get_inputs()]
    for count in (50, 13, 200):
        boxes, scores = clusters(count, seed=count)
        scores = (scores * 20).round()  # ties, which go by index
        idxs = torch.arange(count) % 4 * 10**10
        arrays = (boxes.numpy(), scores.numpy(), idxs.numpy())
        results = session.run(None, dict(zip(names, arrays, strict=True)))
        for got, want in zip(results, model(boxes, scores, idxs), strict=True):
            assert got.tolist() == want.tolist()


def test_suppression_that_onnx_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no plus_one"):
        export_suppression(Postprocess(plus_one=True), tmp_path / "model.onnx")
