"""The op of docs/add-an-op.md: built by the command of that page, checked by its code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from deformops.testing import CHECKS, check_op
from docs.example import sample_points
from docs.tools.blocks import blocks

ROOT = Path(__file__).parents[1]
PAGE = {block.language: block for block in blocks((ROOT / "docs/add-an-op.md").read_text("utf-8"))}


def test_every_check_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("csrc", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euc", PAGE["sh"].text]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "torch": torch,
        "check_op": check_op,
        "sample_points": sample_points,
    }
    exec(PAGE["python"].text, names)
    results = names["report"].results
    assert {result.check: result.status for result in results} == dict.fromkeys(CHECKS, "passed")
