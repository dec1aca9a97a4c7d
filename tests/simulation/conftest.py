"""The simulated device's own tests: with kernels made for them, none of the package's."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

try:
    from deformops.simulation import has_sanitizer, selftest

    BUILDS = ["asan"] if has_sanitizer() else ["plain", "race"]
except ImportError:
    # Where it was asked for, its absence is a failure.
    if os.environ.get("DEFORMOPS_SIMULATION", "OFF") not in ("", "OFF", "0"):
        raise
    collect_ignore_glob = ["test_*"]
    BUILDS = []


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> str:
    """Each build that this process can use; asan has a process of its own (test_asan.py)."""
    return str(request.param)


@pytest.fixture
def kernels(build: str) -> ModuleType:
    """The kernels of csrc/simulation/selftest in one build."""
    return selftest.module_of(build)


@pytest.fixture
def race_kernels() -> ModuleType:
    """The same in the build that sees every access to memory."""
    if "race" not in BUILDS:
        pytest.skip("not in the process of the asan build")
    return selftest.module_of("race")
