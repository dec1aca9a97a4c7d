"""Arrows between layers point one way: reads every include of csrc and every import of the package.

    deformops.training -> deformops.nets -> deformops.nn -> deformops.ops -> torch.ops.deformops
    csrc/ops -> csrc/kernels -> csrc/geometry -> csrc/core

Only csrc/ops sees torch, and of torch only the stable ABI's headers; the kernels of one processor
do not see those of another; the references share nothing with what they judge.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layer of csrc -> what its files may include: layers of csrc, or a family of outside headers.
INCLUDES = {
    "core": {"core", "CUDA"},
    "geometry": {"geometry", "core"},
    "kernels": {"kernels", "geometry", "core"},
    "kernels/cpu": {"kernels/cpu", "kernels", "geometry", "core"},
    "kernels/cuda": {"kernels/cuda", "kernels", "geometry", "core", "simulation", "CUDA"},
    "ops": {"ops", "kernels", "geometry", "core", "simulation", "stable torch"},
    "simulation": {"simulation", "core", "CUDA", "Python"},
}
# The first match names the family of an outside header; a header of no family is free for all.
FAMILIES = {
    "stable torch": r"torch/(csrc/stable|headeronly)/",
    "torch": r"(torch|ATen|c10|caffe2)/",
    "Python": r"(Python\.h|pybind11/)",
    "CUDA": r"(cuda|device_|vector_types|mma\.h|cooperative_groups|cub/|thrust/|nv)",
}

# Part of the package -> the other parts that it may import. Parts not named stand above all of
# these: they may import anything, and nothing named here may import them.
IMPORTS = {
    "deformops._library": set[str](),
    "deformops.ops": {"deformops._library"},
    "deformops.nn": {"deformops.ops"},
    "deformops.nets": {"deformops.nn", "deformops.ops"},
    "deformops.pictures": set[str](),
    "deformops.training": {
        "deformops.nets",
        "deformops.nn",
        "deformops.ops",
        "deformops.pictures",
    },
    "tests.reference": set[str](),
}


def layer_of(path: Path) -> str:
    """Layer of a file of csrc: its folder; the folders of the simulated device are one layer."""
    return "simulation" if path.parts[0] == "simulation" else path.parent.as_posix()


def included_layer(header: str, quoted: bool) -> str | None:
    """Layer of csrc or family of outside headers that `header` belongs to; None: neither."""
    for family, pattern in FAMILIES.items():
        if re.match(pattern, header):
            return family
    return layer_of(Path(header)) if quoted else None


def wrong_includes(root: Path) -> Iterator[str]:
    csrc = root / "csrc"
    for path in sorted(csrc.rglob("*")):
        if path.suffix not in {".h", ".cpp", ".cuh", ".cu"}:
            continue
        own = layer_of(path.relative_to(csrc))
        where = path.relative_to(root)
        if own not in INCLUDES:
            yield f"{where}: csrc/{own} is no layer; give it a row in {Path(__file__).name}"
            continue
        for match in re.finditer(r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(), re.M):
            quoted, header = match[1] == '"', match[2]
            if quoted and not (csrc / header).is_file():
                yield f'{where}: "{header}" is not a path from csrc'
                continue
            layer = included_layer(header, quoted)
            if layer is not None and layer not in INCLUDES[own]:
                yield f"{where}: csrc/{own} may not include {header} ({layer})"


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that the source of `module` imports; `from a import b` may mean a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            above = parents[: len(parents) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str:
    """`deformops.ops.deform_conv2d` -> `deformops.ops`."""
    return ".".join(name.split(".")[:2])


def uses_raw_ops(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.ops.deformops")
        for node in ast.walk(tree)
    )


def wrong_imports(root: Path) -> Iterator[str]:
    for top in ("deformops", "tests/reference"):
        for path in sorted((root / top).rglob("*.py")):
            where = path.relative_to(root)
            is_package = path.stem == "__init__"
            module = ".".join((where.parent if is_package else where.with_suffix("")).parts)
            part = part_of(module)
            if part not in IMPORTS:
                continue
            tree = ast.parse(path.read_text())
            allowed = IMPORTS[part] | {part}
            for name in imported_modules(tree, module, is_package):
                inside = name.split(".")[0] == "deformops" or part_of(name) == "tests.reference"
                if inside and part_of(name) not in allowed:
                    yield f"{where}: {part} may not import {name}"
            if part in {"deformops.nn", "deformops.nets"} and uses_raw_ops(tree):
                yield f"{where}: {part} may not call torch.ops.deformops past deformops.ops"


def wrong_arrows(root: Path) -> list[str]:
    return [*wrong_includes(root), *wrong_imports(root)]


def test_arrows_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_every_layer_is_read() -> None:
    """The check above finds nothing wrong because it looks, and not because it looks nowhere."""
    layers = {layer_of(path.relative_to(ROOT / "csrc")) for path in ROOT.glob("csrc/**/*.h")}
    assert {"core", "geometry", "kernels", "ops"} <= layers
    assert list(ROOT.glob("deformops/ops/*.py"))
    assert list(ROOT.glob("deformops/nn/*.py"))
    assert list(ROOT.glob("tests/reference/*.py"))


PLANTED = {
    "csrc/core/a.h": '#include "geometry/b.h"',
    "csrc/geometry/a.h": '#include "kernels/b.h"',
    "csrc/geometry/cuda.h": "#include <cuda_runtime.h>",
    "csrc/kernels/a.h": '#include "kernels/cpu/b.h"',
    "csrc/kernels/cpu/a.cpp": '#include "kernels/cuda/b.h"',
    "csrc/kernels/cpu/torch.cpp": "#include <torch/csrc/stable/tensor.h>",
    "csrc/kernels/cuda/a.cu": '  #  include "kernels/cpu/b.h"',
    "csrc/ops/a.cpp": "#include <ATen/ATen.h>",
    "csrc/ops/extension.cpp": "#include <torch/extension.h>",
    "csrc/ops/python.cpp": "#include <Python.h>",
    "csrc/ops/beside.cpp": '#include "missing.h"',
    "csrc/simulation/engine/a.cpp": '#include "kernels/b.h"',
    "csrc/elsewhere/a.cpp": "",
    "deformops/ops/a.py": "from deformops.nn import DeformConv2d",
    "deformops/ops/package.py": "import deformops",
    "deformops/ops/relative.py": "from ..nn import DeformConv2d",
    "deformops/ops/late.py": "def f():\n    from deformops import testing",
    "deformops/nn/a.py": "from deformops.nets import FCN",
    "deformops/nn/raw.py": "import torch\ntorch.ops.deformops.gather_columns()",
    "deformops/nets/a.py": "import deformops.testing",
    "tests/reference/a.py": "import deformops",
}


@pytest.mark.parametrize("path", PLANTED)
def test_a_planted_wrong_arrow_is_found(path: str, tmp_path: Path) -> None:
    for header in ("geometry/b.h", "kernels/b.h", "kernels/cpu/b.h", "kernels/cuda/b.h"):
        (tmp_path / "csrc" / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "csrc" / header).touch()
    assert wrong_arrows(tmp_path) == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(PLANTED[path] + "\n")
    found = wrong_arrows(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}: ")
