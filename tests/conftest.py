"""Devices, types, threads, seeds and hypothesis profiles shared by all tests.

``pytest -m slow`` runs what takes gigabytes or minutes; otherwise those tests are skipped.
``HYPOTHESIS_PROFILE`` selects ``ci`` (the same examples every time; default where CI is set),
``dev`` (fresh examples, default elsewhere) or ``thorough`` (many more).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import hypothesis
import pytest
import torch

import deformops
from tests.devices import DEVICES, Device

_BOUNDED: dict[str, Any] = {
    "max_examples": 25,
    "deadline": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
}
hypothesis.settings.register_profile("ci", derandomize=True, database=None, **_BOUNDED)
hypothesis.settings.register_profile("dev", print_blob=True, **_BOUNDED)
hypothesis.settings.register_profile("thorough", **{**_BOUNDED, "max_examples": 500})
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers share the cores: more threads than one each only get in each other's way.
        torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="slow: run with -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_report_header() -> str:
    names = ", ".join(DEVICES)
    return f"deformops {deformops.__version__}, torch {torch.__version__}, devices: {names}"


@pytest.fixture(params=list(DEVICES))
def device(request: pytest.FixtureRequest) -> Device:
    """Where the ops run: always the CPU, and whatever else this machine has."""
    return DEVICES[request.param]


@pytest.fixture(params=FLOATS, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    result: torch.dtype = request.param
    return result


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same random numbers, in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], AbstractContextManager[None]]]:
    """``with threads(n):`` runs torch, and so the ops, on ``n`` threads."""
    before = torch.get_num_threads()

    @contextmanager
    def use(count: int) -> Iterator[None]:
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    yield use
    torch.set_num_threads(before)
