"""The same tests again in a process that was started with AddressSanitizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deformops import simulation


@pytest.mark.skipif(simulation.has_sanitizer(), reason="this is that process")
def test_tests_pass_with_sanitizers() -> None:
    command = [sys.executable, "-m", "deformops.simulation", "run", "asan", "--"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [str(Path(__file__).parent), "-k", "not translate"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
