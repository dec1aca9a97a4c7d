"""ONNX export: the exported model computes the same, by an engine that is not ours."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deformops import onnx as deformops_onnx
from deformops.nn import DeformConv2dPack, ModulatedDeformConv2dPack

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX engines come with [bench]")
pytest.importorskip("onnxscript", reason="torch's ONNX exporter needs it")


def export(layer: nn.Module, input: Tensor, file: Path) -> None:
    sizes = ({0: torch.export.Dim("n"), 2: torch.export.Dim("h")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            layer,
            (input,),
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
