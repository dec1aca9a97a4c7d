"""`deformops info`: what is installed, what it can do here, and what is missing and why."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator

import torch

import deformops

EPILOG = """\
Each line says what is there, or what is missing and why: the version, the torch that the library
was built for and the one that is installed, the instruction set that the CPU kernels use here, the
architectures that CUDA kernels were compiled for, the devices that torch finds, and every raw op.
A report of a mistake should have this output.

examples:
  deformops info
  one fact, for a script:
    deformops info --json | python -c "import json, sys; print(json.load(sys.stdin)['torch'])"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object instead of a table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the facts.

    Args:
        arguments: parsed, with the options of `add_arguments`.

    Returns:
        The exit status, 0.
    """
    facts = dict(_facts())
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
    return 0


def _facts() -> Iterator[tuple[str, str]]:
    build = json.loads(torch.ops.deformops.build_info())
    yield "deformops", f"{deformops.__version__}, built by compiler {build['compiler']}"
    yield "library", f"for torch {build['torch_target']} and later"
    yield "torch", str(torch.__version__)
    yield "python", f"{platform.python_version()} ({sys.platform}, {platform.machine()})"
    yield "CPU kernels", f"{build['cpu_isa']}, {torch.get_num_threads()} threads"
    yield "CUDA kernels", _cuda_kernels(build)
    yield "CUDA device", _cuda_device()
    yield "ops", ", ".join(_op_names())


def _cuda_kernels(build: dict[str, str]) -> str:
    if not build["cuda"]:
        return "none: the library was built without nvcc, or with DEFORMOPS_CUDA=OFF"
    return f"CUDA {build['cuda']} for {build['architectures']}"


def _cuda_device() -> str:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names)
    if torch.version.cuda is None:
        return "none: this torch was built without CUDA"
    return f"none: torch has CUDA {torch.version.cuda}, but finds no device or driver"


def _op_names() -> list[str]:
    schemas = torch._C._jit_get_all_schemas()
    names = {schema.name for schema in schemas if schema.name.startswith("deformops::")}
    return sorted(name.removeprefix("deformops::") for name in names)
