"""The command line: what it prints, what it returns, and what it says to a wrong word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deformops
from deformops.__main__ import main

ROOT = Path(__file__).parents[1]
PUBLIC = ("deform_conv2d", "gather_columns", "scatter_columns", "atrous_conv2d")


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


def test_check_one_op(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--op", "gather_columns", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "gather_columns" in text
    assert "deform_conv2d" not in text


def test_a_failed_check_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong number ends in a non-zero status, and the table says which op."""
    right = torch.ops.deformops.gather_columns

    def wrong(*arguments: object, **options: object) -> torch.Tensor:
        result: torch.Tensor = right(*arguments, **options) * 1.001
        return result

    monkeypatch.setattr("deformops.gather_columns", wrong)
    monkeypatch.setattr("deformops.ops.gather_columns", wrong)
    monkeypatch.setattr(torch.ops.deformops, "gather_columns", wrong)
    assert main(["check", "--op", "gather_columns"]) == 1
    captured = capsys.readouterr()
    assert "gather_columns" in captured.out
