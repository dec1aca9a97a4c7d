"""The command line: what it prints, what it returns, and what it says to a wrong word."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import deformops
from deformops.__main__ import main
from deformops.cli import check
from deformops.cli.cases import cases

ROOT = Path(__file__).parents[1]
PUBLIC = (
    *("deform_conv2d", "gather_columns", "scatter_columns", "atrous_conv2d", "insert_holes"),
    *("roi_pool", "roi_align", "ps_roi_pool", "ps_roi_align"),
    *("deform_roi_pool", "deform_ps_roi_pool"),
)


def test_python_dash_m() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "deformops", "info", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(process.stdout)
    assert facts["deformops"].startswith(deformops.__version__)
    assert facts["torch"] == torch.__version__


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    """Versions, instruction set, CUDA or why not, and every op."""
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    build = json.loads(torch.ops.deformops.build_info())
    for fact in (deformops.__version__, torch.__version__, build["cpu_isa"], build["compiler"]):
        assert fact in text
    assert (build["cuda"] or "without") in text
    for op in ("deform_conv2d", "deform_conv2d_backward", "gather_columns", "scatter_columns"):
        assert op in text


@pytest.mark.parametrize("words", [["--help"], ["info", "--help"], ["check", "--help"]], ids=str)
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(words)
    assert info.value.code == 0
    text = capsys.readouterr().out
    assert "usage: deformops" in text
    assert words[0] in text or words == ["--help"]
    if words == ["--help"]:
        for command in ("info", "check", "demo"):
            assert command in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["info", "--nonsense"],
        ["check", "--op", "nonsense"],
        ["check", "--device", "nonsense"],
    ],
    ids=str,
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, nothing on stdout, and the wrong word named on stderr."""
    with pytest.raises(SystemExit) as info:
        main(words)
    assert info.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage" in captured.err
    assert not words or words[-1].lstrip("-") in captured.err


@pytest.mark.parametrize("op", PUBLIC)
def test_check_has_a_case_for_every_op(op: str) -> None:
    assert op in {case.op.split()[0] for case in cases("deformops", "cpu")}


def test_check_one_op(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "--op", "gather_columns", "--device", "cpu"]
    assert main([*words, "--check", "values", "--check", "types"]) == 0
    text = capsys.readouterr().out
    assert "gather_columns" in text
    assert "deform_conv2d" not in text
    for word in ("values", "types", "passed"):
        assert word in text
    assert "FAILED" not in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_check_without_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--device", "cuda"]) == 1
    assert "CUDA" in capsys.readouterr().err


def test_a_failed_check_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong number ends in status 1, and the output says which op and check."""

    def wrong(namespace: str, device: str) -> list[Any]:
        def spoilt(case: Any) -> Any:
            return replace(case, function=lambda *inputs: case.function(*inputs) * (1 + 1e-6))

        return [spoilt(case) for case in cases(namespace, device)]

    monkeypatch.setattr(check, "cases", wrong)
    assert main(["check", "--op", "gather_columns", "--check", "values"]) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "values: AssertionError" in text
