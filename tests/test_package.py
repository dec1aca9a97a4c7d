"""The package as users get it: versions, the binary's promises, the wheel, C++, import errors."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

import deformops
from deformops import _library

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(deformops.__file__).parent
# Tools that pip installed (cmake, ninja) are beside the Python that runs.
PATH = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"


def run(*command: str | Path, **environment: str) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"PATH": PATH} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} returned {done.returncode}:\n{done.stdout}"
    return done.stdout


def build_info() -> dict[str, str]:
    info: dict[str, str] = json.loads(torch.ops.deformops.build_info())
    return info


def test_version_is_the_same_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", deformops.__version__)
    assert build_info()["version"] == deformops.__version__
    assert importlib.metadata.version("deformops-vision") == deformops.__version__


def test_build_info_is_complete() -> None:
    info = build_info()
    assert info["torch_target"] == "2.13"
    assert info["cpu_isa"] in {"portable", "avx2", "avx512"}
    assert info["compiler"]
    assert bool(info["cuda"]) == bool(info["architectures"])


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_import_brings_only_torch() -> None:
    """What an import costs beyond torch's own: nothing that only an extra installs."""
    code = (
        "import torch, sys; before = set(sys.modules); import deformops;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    brought = set(run(sys.executable, "-c", code).split())
    assert brought <= {"deformops", "numpy", "torch"} | set(sys.stdlib_module_names)


# --- the binary ----------------------------------------------------------------------------------


def dynamic_symbols(which: str) -> list[str]:
    """Names from the library's dynamic symbol table; `which` is "defined" or "undefined"."""
    lines = run("nm", "-D", f"--{which}-only", "--format=posix", _library.LIBRARY).splitlines()
    return [line.split()[0] for line in lines]


def test_the_binary_asks_for_the_stable_abi_only() -> None:
    """Any Python, any torch since 2.13: no Python C-API, of torch only the C functions."""
    # Symbols of the C and C++ runtimes carry a version (memcpy@GLIBC_2.14) or are weak hooks.
    plain = [name for name in dynamic_symbols("undefined") if "@" not in name]
    hooks = {"__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"}
    foreign = [name for name in plain if not re.match(r"(aoti_torch|torch)_", name)]
    assert set(foreign) <= hooks
    assert any(name.startswith("torch_") for name in plain)
    assert not [name for name in dynamic_symbols("undefined") if re.match(r"_?Py[A-Z_]", name)]


def test_the_binary_exports_nothing() -> None:
    assert dynamic_symbols("defined") == []


def test_the_binary_has_no_path_of_the_building_machine() -> None:
    dynamic = run("readelf", "-d", _library.LIBRARY)
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert "libtorch_cpu.so" in needed
    assert not [name for name in needed if "/" in name or "cuda" in name or "python" in name]
    assert str(ROOT).encode() not in _library.LIBRARY.read_bytes()


FOREIGN = "#include <string>\nstd::string g(std::string s, int n) { s.resize(n, 'x'); return s; }\n"


@pytest.mark.parametrize(
    ("source", "culprit"),
    [
        ("namespace deformops::avx512 { float f(float x) { return x + x; } }", None),
        ("namespace deformops { float f(float x) { return x + x; } }", "_ZN9deformops1fEf"),
        (
            "template <class T> __attribute__((noinline)) T f(T x) { return x + x; }\n"
            "namespace deformops::avx512 { float g(float x) { return f(x); } }",
            "_Z1fIfET_S0_",
        ),
    ],
    ids=["own", "global", "inline"],
)
def test_code_for_one_instruction_set_cannot_leak(
    source: str, culprit: str | None, tmp_path: Path
) -> None:
    """The check that every build makes of the objects of *.isa.cpp."""
    (tmp_path / "planted.cpp").write_text(source)
    planted = tmp_path / "planted.o"
    run("c++", "-std=c++17", "-O2", "-c", tmp_path / "planted.cpp", "-o", planted)
    cmake = shutil.which("cmake", path=PATH)
    assert cmake
    check = [cmake, "-DISA=avx512", "-DNM=nm", f"-DOBJECTS={planted}"]
    check += ["-P", str(ROOT / "cmake/check_isa_symbols.cmake")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (culprit is None)
    if culprit:
        assert culprit in done.stderr


# --- the wheel and the CMake package -------------------------------------------------------------


def same_build() -> dict[str, str]:
    """Environment that makes setup.py build what is built already, so that it compiles nothing."""
    info = build_info()
    if not info["cuda"]:
        return {"DEFORMOPS_CUDA": "OFF"}
    numbers = re.findall(r"(sm|compute)_(\d+)(\d[af]?)", info["architectures"])
    return {
        "DEFORMOPS_CUDA": "ON",
        "TORCH_CUDA_ARCH_LIST": " ".join(
            f"{major}.{minor}{'+PTX' if kind == 'compute' else ''}"
            for kind, major, minor in numbers
        ),
    }


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path)]
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT, **same_build())
    (wheel,) = tmp_path.glob("*.whl")
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version) == ("deformops_vision", deformops.__version__)
    assert (python, abi) == ("py3", "none")
    assert platform.startswith(("linux_", "manylinux_"))
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        metadata = archive.read(f"{name}-{version}.dist-info/METADATA").decode()
        tags = archive.read(f"{name}-{version}.dist-info/WHEEL").decode()
    assert {
        "deformops/__init__.py",
        "deformops/py.typed",
        "deformops/simulation/_device.pyi",
        "deformops/libdeformops.so",
        "deformops/share/cmake/deformops/deformopsConfig.cmake",
        "deformops/share/cmake/deformops/deformopsConfigVersion.cmake",
    } <= files
    # Not the simulated device, even where this checkout has it.
    assert [file for file in files if file.endswith(".so")] == ["deformops/libdeformops.so"]
    assert {file.split("/")[0] for file in files} == {"deformops", f"{name}-{version}.dist-info"}
    assert "Root-Is-Purelib: false" in tags
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)
    assert {line for line in required if "extra ==" not in line} == {"torch>=2.13", "numpy"}


@pytest.mark.slow
def test_find_package(tmp_path: Path) -> None:
    """A C++ program finds the package, links it and calls an op through the dispatcher."""
    arguments = {
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_PREFIX_PATH": PACKAGE,
        "TORCH_DIR": Path(torch.__file__).parent,
    }
    definitions = [f"-D{name}={value}" for name, value in arguments.items()]
    run("cmake", "-G", "Ninja", "-S", ROOT / "tests/cpp", "-B", tmp_path, *definitions)
    run("cmake", "--build", tmp_path)
    assert "largest difference" in run(tmp_path / "consumer")


# --- import errors -------------------------------------------------------------------------------


def import_error(path: Path = _library.LIBRARY) -> str:
    with pytest.raises(ImportError) as caught:
        _library.load_library("9.8.7", path)
    message = str(caught.value)
    cuda = torch.version.cuda or "none"
    assert f"deformops 9.8.7, torch {torch.__version__} (CUDA {cuda}), {path}" in message
    return message


def test_import_error_of_an_old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert "pip install --upgrade 'torch>=2.13'" in import_error()


def test_import_error_of_a_tree_that_was_not_built(tmp_path: Path) -> None:
    assert "make build" in import_error(tmp_path / "libdeformops.so")


def test_import_error_of_a_damaged_library(tmp_path: Path) -> None:
    damaged = tmp_path / "libdeformops.so"
    damaged.write_bytes(_library.LIBRARY.read_bytes()[:16])
    assert "reinstall" in import_error(damaged)


def test_import_error_of_an_undefined_symbol(tmp_path: Path) -> None:
    source, library = tmp_path / "stale.cpp", tmp_path / "libdeformops.so"
    source.write_text('extern "C" int torch_of_another_age();\nint x = torch_of_another_age();\n')
    run("c++", "-shared", "-fPIC", source, "-o", library)
    message = import_error(library)
    assert "torch_of_another_age" in message
    assert "rebuild" in message
