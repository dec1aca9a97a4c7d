"""`python -m benchmarks kernels`: what launches move, and times that are predicted from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import kernels, launches
from benchmarks.launches import GPUS, Row

COPY = Row("an_op", "float32", "2x3", "copy_kernel<float>", 2, 8, 1 << 20, 0.0, 0)
PRODUCT = replace(
    COPY,
    kernel="product_kernel<half>",
    dtype="float16",
    launches=1,
    flops=4e9,
    tensor_products=10**6,
)


def test_the_roofline_is_the_larger_of_two_times() -> None:
    gpu = replace(GPUS["T4"], bandwidth=1e9, flops=1e9, tensor=8e9)
    assert COPY.seconds(gpu) == (1 << 20) / 1e9
    assert PRODUCT.seconds(gpu) == 0.5
    assert replace(PRODUCT, dtype="float32").seconds(gpu) == 4


def test_a_table_says_what_is_predicted_and_what_was_measured() -> None:
    def occupancy(kernel: str, architecture: str) -> float | None:
        return 0.5 if (kernel, architecture) == (COPY.kernel, "sm_75") else None

    predicted = launches.table([COPY, PRODUCT], occupancy)
    assert "measured" not in predicted
    head, _, copy, product = predicted.splitlines()
    assert all(f"{name}, µs predicted" in head for name in GPUS)
    assert copy.startswith("| an_op float32 | 2x3 | `copy_kernel<float>` | 2 | 8 | 1024 | - |")
    assert "| 3.28 (50%) |" in copy
    assert "| 4000 (1.02x) |" in product
    assert "%" not in product
    both = launches.table([COPY, PRODUCT], occupancy, {COPY: 1.234e-5}, "a GPU").splitlines()
    assert both[0].endswith("| a GPU, µs **measured** |")
    assert both[2].endswith("| 12.3 |")
    assert both[3].endswith("| - |")


def test_kernels_are_found_in_what_torch_recorded() -> None:
    key = "void deformops::cuda::(anonymous namespace)::copy_kernel<float>(float const*, float*)"
    events = [
        SimpleNamespace(key=key, self_device_time_total=2.0),
        SimpleNamespace(key=key.replace("float>", "half>"), self_device_time_total=3.0),
        SimpleNamespace(key="Memcpy DtoD", self_device_time_total=100.0),
    ]
    seconds = launches.by_kernel(events)
    assert seconds["copy_kernel<float>"] == pytest.approx(2e-6)
    assert seconds["copy_kernel<half>"] == pytest.approx(3e-6)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "launches.json"
    assert launches.load_record(file) == []
    file.write_text(launches.dump([COPY, PRODUCT]))
    assert launches.load_record(file) == [COPY, PRODUCT]


def test_the_record_is_of_the_kernels_and_gpus_there_are() -> None:
    """That it is of the problems there are, tests/simulation sees."""
    rows = launches.load_record()
    assert {row.kernel for row in rows} <= kernels.load_record().keys()
    assert {gpu.architecture for gpu in GPUS.values()} == kernels.MULTIPROCESSORS.keys()


def test_tensor_cores_multiply_what_the_relation_says() -> None:
    rows = [row for row in launches.load_record() if row.tensor_products]
    assert rows
    for row in rows:
        # Tiles have 128 channels, the problem 64.
        assert row.flops <= row.computed <= 2 * row.flops, row


def test_without_a_build_the_record_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "_newest_build", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernels.main([]) == 0
    text = capsys.readouterr().out
    assert "kernels as they were recorded" in text
    assert "deform_conv2d_kernel<Math<float, false>, kPixels>" in text
    assert "RTX 5090, µs predicted" in text
    assert "Predicted, not measured" in text
    for gate in ("--check", "--update"):
        assert kernels.main([gate]) == 0
        assert "nothing to look at" in capsys.readouterr().out


def test_launches_need_the_simulated_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> list[Row]:
        raise ImportError("no such build")

    monkeypatch.setattr(launches, "count", absent)
    assert kernels.main(["--update-launches"]) == 1
    assert "no simulated device here (make simulated): no such build" in capsys.readouterr().err
