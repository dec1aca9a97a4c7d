"""The problems that `python -m deformops.simulation profile` runs, here on the CPU."""

from __future__ import annotations

import pytest
import torch

import deformops
from deformops.simulation.problems import MEANS, Tensors, problems

assert deformops.__version__  # its ops are registered
OPTIONS = {"deterministic": False, "allow_tf32": False}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_problem_runs(dtype: torch.dtype, channels_last: bool) -> None:
    known = problems(torch.ops.deformops, Tensors(dtype, channels_last), OPTIONS)
    for op in ("roi_pool", *MEANS):
        assert {op, f"{op}_backward"} <= known.keys()
    for name, make in known.items():
        result = make().call()
        outputs = result if isinstance(result, tuple) else (result,)
        assert all(output.isfinite().all() for output in outputs), name
        assert any(output.numel() for output in outputs), name
