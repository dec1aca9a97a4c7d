"""Devices, types, threads, seeds and hypothesis profiles shared by all tests.

``pytest -m slow`` runs what takes gigabytes or minutes; otherwise those tests are skipped.
``--device NAME`` leaves only the tests that run on that device; ``--schedules N`` runs those of the
simulated device under so many schedules of its threads; ``--every-kernel`` makes it a failure if
one of its kernels was never launched.
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
from tests.devices import SIMULATED, Device, devices, launched

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


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("deformops")
    names = [device.name for device in devices()]
    group.addoption("--device", choices=names, help="run only the tests of this device")
    group.addoption(
        "--schedules",
        type=int,
        default=1,
        metavar="N",
        help="run the tests of the simulated device under N schedules (default: 1)",
    )
    group.addoption(
        "--every-kernel",
        action="store_true",
        help="fail if the tests leave out a kernel of the simulated device's library",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "variants: small tests that together launch every kernel in every variant"
    )
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers share the cores: more threads than one each only get in each other's way.
        torch.set_num_threads(1)
    if config.getoption("every_kernel"):
        if not SIMULATED:
            raise pytest.UsageError("--every-kernel needs DEFORMOPS_SIMULATED=plain, race or asan")
        config.pluginmanager.register(EveryKernel(), "every-kernel")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        everywhere = devices(metafunc.config.getoption("schedules"))
        metafunc.parametrize("device", everywhere, ids=lambda device: device.name, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only = config.getoption("device")
    if only:
        away = [item for item in items if _device_of(item).partition("-")[0] != only]
        items[:] = [item for item in items if item not in away]
        config.hook.pytest_deselected(items=away)
    if "slow" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="slow: run with -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def _device_of(item: pytest.Item) -> str:
    """The name of the device that a test runs on; empty if it does not take one."""
    call = getattr(item, "callspec", None)
    return call.params["device"].name if call and "device" in call.params else ""


def pytest_report_header(config: pytest.Config) -> str:
    names = ", ".join(device.name for device in devices(config.getoption("schedules")))
    return f"deformops {deformops.__version__}, torch {torch.__version__}, devices: {names}"


class EveryKernel:
    """Asks at the end which kernels of the simulated device's library no test has launched."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done."""
        launched.update(getattr(node, "workeroutput", {}).get("launched", ()))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        worker = getattr(session.config, "workeroutput", None)
        if worker is not None:
            worker["launched"] = sorted(launched)
            return
        from deformops import simulation

        self.missing = sorted(simulation.kernels() - launched)
        if self.missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("kernels of the simulated device", sep="-")
        terminalreporter.line(f"{len(launched)} launched, {len(self.missing)} never")
        for name in self.missing:
            terminalreporter.line(f"never launched: {name}", red=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Where the ops run: always the CPU, and whatever else this machine has."""
    chosen: Device = request.param
    with chosen.running():
        yield chosen


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
