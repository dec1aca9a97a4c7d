"""No kernel escapes: all are found in the library, and a run that leaves one out fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deformops import simulation
from deformops.simulation.__main__ import environment

ROOT = Path(__file__).parents[2]


def test_kernels_are_known_by_their_names() -> None:
    """`simulation.kernels` and `benchmarks.kernels` find kernels by this."""
    sources = sorted((ROOT / "csrc/kernels/cuda").glob("*.cu*"))
    text = "\n".join(re.sub(r"//.*", "", source.read_text()) for source in sources)
    bounded = re.findall(r"__global__\s+void\s+__launch_bounds__\([^()]*\)\s+\w+_kernel\(", text)
    assert len(bounded) == text.count("__global__")


@pytest.mark.skipif(simulation.has_sanitizer(), reason="once is enough")
def test_a_kernel_left_out_is_a_failure() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--device", "simulated", "--every-kernel"]
    command += ["tests/test_stencil_edges.py::test_one_pixel_map"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment("plain")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "1 passed" in done.stdout
    launched = "deformops::cuda::gather_columns_kernel<double, (deformops::cuda::Lanes)0>"
    assert f"never launched: {launched}" not in done.stdout
    assert f"never launched: {launched.replace('double', 'float')}" in done.stdout
    assert "never launched: deformops::cuda::write_kept_kernel" in done.stdout
