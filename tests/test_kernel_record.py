"""`python -m benchmarks kernels`: nvcc's report is understood, nothing worse passes the gate."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import kernels
from benchmarks.kernels import Kernel, Usage

# Two architectures, a kernel with shared memory and one that spills, as ptxas -v prints them.
REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{gather}' for 'sm_75'
ptxas info    : Function properties for {gather}
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 71 registers, used 1 barriers, 15360 bytes smem, 840 bytes cmem[0]
ptxas info    : Compile time = 310.120 ms
ptxas info    : Compiling entry function '{round}' for 'sm_80'
ptxas info    : Function properties for {round}
    0 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 10 registers, 380 bytes cmem[0]
ptxas info    : Compile time = 3.700 ms
""".format(
    gather="_ZN9deformops4cuda56_GLOBAL__N__4c47d8a1_17_gather_columns_cu_2808ab0c_1274921"
    "gather_columns_kernelINS_4halfELNS0_5LanesE1EEEvNS1_6GatherIT_EE",
    round="_ZN9deformops4cuda17round_sums_kernelINS_4halfEEEvPKNS_7computeIT_E4typeEPS3_l",
)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build tree with one report."""
    folder = tmp_path / "CMakeFiles" / "deformops_cuda.dir"
    folder.mkdir(parents=True)
    (folder / "gather_columns.cu.o.resources").write_text(REPORT)
    return tmp_path


def test_a_report_is_read(build: Path) -> None:
    assert kernels.read_build(build) == {
        "gather_columns_kernel<half, kChannels>": Kernel(128, {"sm_75": Usage(71, 15360, 8, 0)}),
        "round_sums_kernel<half>": Kernel(128, {"sm_80": Usage(10, 0, 0, 32)}),
    }


def test_a_report_that_is_not_understood(build: Path) -> None:
    (file,) = build.rglob("*.resources")
    file.write_text(REPORT.replace("registers", "rogisters"))
    with pytest.raises(kernels.ReportError, match="registers"):
        kernels.read_build(build)


def test_copies_of_a_kernel_count_as_the_worst(build: Path) -> None:
    (file,) = build.rglob("*.resources")
    other = file.with_name("scatter_columns.cu.o.resources")
    other.write_text(REPORT.replace("Used 10", "Used 9").replace("12 bytes", "48 bytes"))
    usage = kernels.read_build(build)["round_sums_kernel<half>"].usage["sm_80"]
    assert usage == Usage(10, 0, 0, 68)


def test_reports_of_sources_that_are_gone_do_not_count(build: Path) -> None:
    (file,) = build.rglob("*.resources")
    file.rename(file.with_name("no_such_source.cu.o.resources"))
    with pytest.raises(kernels.ReportError, match="no reports"):
        kernels.read_build(build)


def test_the_gate() -> None:
    usage = Usage(registers=100, shared=0, stack=0, spills=0)
    right = {"a_kernel": Kernel(128, {"sm_80": usage}), "b_kernel": Kernel(64, {"sm_80": usage})}

    def judge(**changed: int) -> list[str]:
        built = {**right, "a_kernel": Kernel(128, {"sm_80": replace(usage, **changed)})}
        return kernels.problems(built, right)

    assert judge() == []
    assert judge(registers=110) == []
    assert judge(registers=50, shared=100) == []
    assert judge(registers=111) == [
        "a_kernel on sm_80 takes 111 registers, 10% more than the 100 recorded are allowed"
    ]
    assert judge(spills=4) == ["a_kernel on sm_80 spills 4 bytes of registers to memory"]
    record = {"b_kernel": right["b_kernel"]}
    assert kernels.problems(right, record) == ["a_kernel on sm_80 is not recorded"]
    assert kernels.problems(record, right) == ["a_kernel is recorded and not built any more"]
    # A build for one architecture says nothing of the others.
    wide = {"a_kernel": Kernel(128, {"sm_80": usage, "sm_90": usage})}
    assert kernels.problems({"a_kernel": right["a_kernel"]}, wide) == []


def test_check_and_update(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(kernels, "TABLE", tmp_path / "table.md")
    monkeypatch.setattr(kernels.load_record, "__defaults__", (tmp_path / "record.json",))
    words = ["--build", str(build)]
    assert kernels.main([*words, "--check"]) == 1
    error = capsys.readouterr().err
    assert "gather_columns_kernel<half, kChannels> on sm_75 is not recorded" in error
    assert kernels.UPDATE in error
    assert kernels.main([*words, "--update"]) == 0
    assert kernels.main([*words, "--check"]) == 1  # a record does not excuse spills
    error = capsys.readouterr().err
    assert "spills 32 bytes" in error
    assert "not recorded" not in error
    (file,) = build.rglob("*.resources")
    file.write_text(REPORT.replace("12 bytes", "0 bytes").replace("20 bytes", "0 bytes"))
    assert kernels.main([*words, "--check"]) == 0
    assert kernels.main(words) == 0
    assert "| `gather_columns_kernel<half, kChannels>` | 128 | 15360 | 71, " in (
        capsys.readouterr().out
    )


def test_a_build_without_nvcc_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    assert kernels.main(["--check"]) == 0
    assert "nvcc" in capsys.readouterr().out


def test_the_newest_build_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    for age, name in enumerate(("native-new", "native-old")):
        file = tmp_path / "build" / name / "CMakeFiles/deformops_cuda.dir/a.cu.o.resources"
        file.parent.mkdir(parents=True)
        file.write_text(REPORT)
        os.utime(file, (time.time() - 100 * age,) * 2)
    assert kernels._newest_build() == tmp_path / "build" / "native-new"


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        # As NVIDIA's calculator (cuda_occupancy.h) has them.
        ("sm_80", 256, 40, 0, 0.75),
        ("sm_80", 256, 32, 0, 1.0),
        ("sm_75", 128, 167, 43008, 4 / 32),
        ("sm_80", 128, 168, 43008, 12 / 64),
        ("sm_86", 128, 168, 43008, 8 / 48),
        ("sm_90", 128, 255, 0, 8 / 64),
        ("sm_120", 32, 16, 0, 24 / 48),
    ],
)
def test_occupancy(
    architecture: str, threads: int, registers: int, shared: int, expected: float
) -> None:
    limits = kernels.MULTIPROCESSORS[architecture]
    assert limits.occupancy(threads, registers, shared) == expected


def test_the_record_and_its_table_are_of_one_build() -> None:
    record = kernels.load_record()
    assert kernels.TABLE.read_text() == kernels.page(record)
    assert {key for kernel in record.values() for key in kernel.usage} == {*kernels.MULTIPROCESSORS}
    assert all(re.fullmatch(r"\w+_kernel(<.*>)?", name) for name in record)
