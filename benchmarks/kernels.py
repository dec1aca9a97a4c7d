"""``python -m benchmarks kernels``: what the CUDA kernels take and move, and a gate.

nvcc's own report on registers, shared memory, stack and spills is kept beside every object when the
library is built. Here it becomes a table, with the occupancy that follows, and is held against the
record in kernels.json. What launches move and compute is counted on the simulated device
(`launches`), with the time that GPUs need for it at the least: predicted, unless there is a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from . import launches

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "csrc"
RECORD = Path(__file__).with_name("kernels.json")
TABLE = Path(__file__).with_name("kernels.md")
UPDATE = "python -m benchmarks kernels --update"
TOLERANCE = 1.10  # registers that a kernel may take, over those recorded


@dataclass(frozen=True)
class Multiprocessor:
    """The limits of one multiprocessor: CUDA C++ Programming Guide, compute capabilities."""

    warps: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that the system takes of each block
    registers: int = 65536

    def occupancy(self, threads: int, registers: int, shared: int) -> float:
        """The share of its warps that blocks of a kernel can fill."""
        warps = -(-threads // 32)
        # Each of four schedulers has a quarter of the registers, dealt out 256 at a time.
        of_warp = -(-registers * 32 // 256) * 256
        by_registers = 4 * (self.registers // 4 // of_warp) // warps if registers else self.blocks
        of_block = -(-(shared + self.reserved) // 128) * 128
        by_shared = self.shared // of_block if of_block else self.blocks
        return min(self.blocks, self.warps // warps, by_registers, by_shared) * warps / self.warps


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(warps=32, blocks=16, shared=64 << 10, reserved=0),
    "sm_80": Multiprocessor(warps=64, blocks=32, shared=164 << 10, reserved=1024),
    "sm_86": Multiprocessor(warps=48, blocks=16, shared=100 << 10, reserved=1024),
    "sm_90": Multiprocessor(warps=64, blocks=32, shared=228 << 10, reserved=1024),
    "sm_100": Multiprocessor(warps=64, blocks=32, shared=228 << 10, reserved=1024),
    "sm_120": Multiprocessor(warps=48, blocks=24, shared=100 << 10, reserved=1024),
}


@dataclass(frozen=True)
class Usage:
    """What a kernel takes on one architecture."""

    registers: int  # of a thread
    shared: int  # bytes of a block, static
    stack: int  # bytes of a thread
    spills: int  # bytes of a thread that are moved between registers and memory, both ways

    @classmethod
    def worst(cls, usages: Iterable[Usage]) -> Usage:
        """Of the copies of a kernel that several files have."""
        columns = zip(*(asdict(usage).values() for usage in usages), strict=True)
        return cls(*map(max, columns))


@dataclass(frozen=True)
class Kernel:
    """A kernel on all architectures it was compiled for."""

    threads: int  # of a block, at most
    usage: Mapping[str, Usage]  # by architecture

    def occupancy(self, architecture: str) -> float | None:
        """The share of a multiprocessor's warps it can fill; None if the limits are unknown."""
        limits, usage = MULTIPROCESSORS.get(architecture), self.usage[architecture]
        if limits is None:
            return None
        return limits.occupancy(self.threads, usage.registers, usage.shared)


Kernels = Mapping[str, Kernel]


class ReportError(Exception):
    """There is no report to read, or it cannot be read."""


# --- nvcc's report --------------------------------------------------------------------------------

_ENTRY = "ptxas info    : Compiling entry function "


def parse(report: str) -> dict[tuple[str, str], Usage]:
    """(mangled name, architecture) -> usage, from the output of ``ptxas -v``."""
    entries = {}
    for part in report.split(_ENTRY)[1:]:

        def number(pattern: str, otherwise: int | None = None, text: str = part) -> int:
            match = re.search(pattern, text)
            if match is None and otherwise is None:
                raise ReportError(f"no '{pattern}' in: {_ENTRY}{text[:1000]}")
            return int(match[1]) if match else otherwise or 0

        symbol, architecture = re.findall(r"'(\w+)'", part)[:2]
        entries[symbol, architecture] = Usage(
            registers=number(r"Used (\d+) registers"),
            shared=number(r"(\d+) bytes smem", 0),
            stack=number(r"(\d+) bytes stack frame"),
            spills=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        )
    return entries


def demangle(symbols: Sequence[str]) -> list[str]:
    """The names that a reader knows kernels by, as in ``gather_columns_kernel<half, kPixels>``."""
    answer = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True
    )
    return [readable(line) for line in answer.stdout.splitlines()]


def readable(name: str) -> str:
    """A demangled name without namespaces and arguments, and with the names of enumerators."""
    enumerators = _enumerators()

    def enumerator(match: re.Match[str]) -> str:
        names = enumerators.get(match[1], [])
        return names[int(match[2])] if int(match[2]) < len(names) else match[0]

    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N_\w+::|deformops::(cuda::)?", "", name)
    name = re.sub(r"\((\w+)\)(\d+)", enumerator, name)
    return name.removeprefix("void ").partition("(")[0].replace("> >", ">>")


@cache
def _enumerators() -> dict[str, list[str]]:
    """Enumeration -> its values' names, for those that have no numbers of their own."""
    found = {}
    for file in [*SOURCES.glob("core/*.h"), *SOURCES.glob("kernels/cuda/*.cuh")]:
        for name, values in re.findall(r"enum class (\w+)[^{;]*{([^}=]*)}", file.read_text()):
            found[name] = re.findall(r"\w+", values)
    return found


def block_sizes() -> dict[str, int]:
    """Kernel -> threads of its blocks, from ``__launch_bounds__`` in the sources.

    The bound is a number or a constant, which may be a product of numbers and constants. Kernels
    with another one are left out.
    """
    folder = SOURCES / "kernels/cuda"
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.cu*")))
    constants = dict(re.findall(r"constexpr int (k\w+) = ([\w\s*]+);", text))

    def value(word: str) -> int | None:
        factors = [
            int(factor) if factor.isdigit() else value(constants.get(factor, ""))
            for factor in re.split(r"\s*\*\s*", word)
            if factor
        ]
        known = [factor for factor in factors if factor is not None]
        return math.prod(known) if factors and len(known) == len(factors) else None

    bounds = re.findall(r"__launch_bounds__\((\w+)[^)]*\)\s+(\w+_kernel)\(", text)
    sizes = {kernel: value(word) for word, kernel in bounds}
    return {kernel: size for kernel, size in sizes.items() if size is not None}


def read_build(folder: Path) -> Kernels:
    """All kernels of a build tree.

    Raises:
        ReportError: it has no reports, or one of a kernel whose block size the sources do not say.
    """
    reports = [
        file
        for file in folder.rglob("*.cu.o.resources")
        if (SOURCES / "kernels/cuda" / file.name.removesuffix(".o.resources")).is_file()
    ]
    if not reports:
        raise ReportError(f"{folder} has no reports of nvcc")
    copies: dict[tuple[str, str], list[Usage]] = {}
    for file in sorted(reports):
        entries = parse(file.read_text())
        names = demangle([symbol for symbol, _ in entries])
        for name, ((_, architecture), usage) in zip(names, entries.items(), strict=True):
            copies.setdefault((name, architecture), []).append(usage)
    usages: dict[str, dict[str, Usage]] = {}
    for (name, architecture), found in sorted(copies.items()):
        usages.setdefault(name, {})[architecture] = Usage.worst(found)
    sizes = block_sizes()
    kernels = {}
    for name, usage_on in usages.items():
        threads = sizes.get(name.partition("<")[0])
        if threads is None:
            raise ReportError(
                f"{name}: give it __launch_bounds__ of a number or a constant, and a name ending "
                "in _kernel"
            )
        kernels[name] = Kernel(threads, {key: usage_on[key] for key in _in_order(usage_on)})
    return kernels


def _in_order(architectures: Iterable[str]) -> list[str]:
    return sorted(architectures, key=lambda key: int(re.sub(r"\D", "", key)))


# --- the record -----------------------------------------------------------------------------------


def load_record(path: Path = RECORD) -> Kernels:
    """The kernels recorded; none if there is no record."""
    if not path.is_file():
        return {}
    return {
        name: Kernel(
            kernel["threads"],
            {key: Usage(**usage) for key, usage in kernel["usage"].items()},
        )
        for name, kernel in json.loads(path.read_text()).items()
    }


def dump(kernels: Kernels) -> str:
    """The record as text: a line for each kernel and architecture, so that changes can be read."""
    parts = []
    for name, kernel in sorted(kernels.items()):
        lines = [
            f"   {json.dumps(key)}: {json.dumps(asdict(usage))}"
            for key, usage in kernel.usage.items()
        ]
        head = f' {json.dumps(name)}: {{"threads": {kernel.threads}, "usage": {{'
        parts.append(head + "\n" + ",\n".join(lines) + "}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def problems(kernels: Kernels, record: Kernels) -> list[str]:
    """What the gate does not let pass, each with the kernel and the architecture."""
    found = []
    built = {architecture for kernel in kernels.values() for architecture in kernel.usage}
    for name, kernel in kernels.items():
        recorded = record.get(name, Kernel(0, {})).usage
        for architecture, usage in kernel.usage.items():
            place = f"{name} on {architecture}"
            if usage.spills:
                found.append(f"{place} spills {usage.spills} bytes of registers to memory")
            if architecture not in recorded:
                found.append(f"{place} is not recorded")
            elif usage.registers > TOLERANCE * recorded[architecture].registers:
                found.append(
                    f"{place} takes {usage.registers} registers, {TOLERANCE - 1:.0%} more than the "
                    f"{recorded[architecture].registers} recorded are allowed"
                )
    for name, kernel in record.items():
        if name not in kernels and built & kernel.usage.keys():
            found.append(f"{name} is recorded and not built any more")
    return found


# --- the table ------------------------------------------------------------------------------------


def table(kernels: Kernels) -> str:
    """Markdown: a row for each kernel, a column for each architecture."""
    architectures = _in_order({key for kernel in kernels.values() for key in kernel.usage})
    lines = [
        f"| kernel | threads | shared | {' | '.join(architectures)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(architectures)}",
    ]
    for name, kernel in sorted(kernels.items()):
        shared = max(usage.shared for usage in kernel.usage.values())
        cells = (_cell(kernel, key) for key in architectures)
        lines.append(f"| `{name}` | {kernel.threads} | {shared} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(kernel: Kernel, architecture: str) -> str:
    usage = kernel.usage.get(architecture)
    if usage is None:
        return ""
    occupancy = kernel.occupancy(architecture)
    text = f"{usage.registers}" + ("" if occupancy is None else f", {occupancy:.0%}")
    if usage.stack:
        text += f", stack {usage.stack}"
    return text + (f", **spills {usage.spills}**" if usage.spills else "")


HEAD = f"""# What the CUDA kernels take of a multiprocessor

Written by `{UPDATE}` from nvcc's own report; do not edit. Threads of a
block; bytes of static shared memory of a block; for each architecture registers of a thread and
occupancy, the share of a multiprocessor's warps that the kernel's blocks can fill at once (a limit
that follows from these numbers, nothing measured), and bytes of stack and of spilled registers
where there are any.

"""


LAUNCHES = f"""## What launches move and compute

Written by `{UPDATE}-launches`; do not edit.

"""


# --- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="fail on spills, on more registers than recorded"
    )
    what.add_argument("--update", action="store_true", help=f"write {RECORD.name} and {TABLE.name}")
    what.add_argument(
        "--update-launches",
        action="store_true",
        help=f"count on the simulated device, minutes; write {launches.RECORD.name} and "
        f"{TABLE.name}",
    )
    parser.add_argument(
        "--build", type=Path, metavar="FOLDER", help="a build tree (default: the newest in build/)"
    )
    options = parser.parse_args(arguments)
    if options.update_launches:
        return _update_launches()
    try:
        folder = options.build or _newest_build()
        kernels = read_build(folder) if folder else None
    except ReportError as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 1
    if kernels is None and (options.update or options.check):
        print("kernels: no build with nvcc in build/: nothing to look at (see make build)")
        return 0
    if options.update and kernels is not None:
        return _update(kernels)
    if options.check and kernels is not None:
        return _check(kernels)
    if kernels is None:
        print("No build with nvcc in build/ (see make build): kernels as they were recorded.\n")
    _print(load_record() if kernels is None else kernels)
    return 0


def _print(kernels: Kernels) -> None:
    """Prints both tables; with a GPU, measured times stand beside those predicted."""
    print(f"{table(kernels)}\n{launches.legend()}")
    rows = launches.load_record()
    if not torch.cuda.is_available():
        print(launches.table(rows, _occupancy(kernels)), end="")
        return
    try:
        measured = launches.measure(rows)
    except ImportError as error:
        print(launches.table(rows, _occupancy(kernels)), end="")
        print(f"not measured, since the problems come with the simulated device: {error}")
        return
    device = torch.cuda.get_device_name()
    print(launches.table(rows, _occupancy(kernels), measured, device), end="")


def _occupancy(kernels: Kernels) -> Callable[[str, str], float | None]:
    """Looks a kernel's occupancy up; None where it is not known."""

    def occupancy(name: str, architecture: str) -> float | None:
        kernel = kernels.get(name)
        return kernel.occupancy(architecture) if kernel and architecture in kernel.usage else None

    return occupancy


def page(kernels: Kernels) -> str:
    """What kernels.md holds."""
    counted = launches.table(launches.load_record(), _occupancy(kernels))
    return f"{HEAD}{table(kernels)}\n{LAUNCHES}{launches.legend()}\n{counted}"


def _update_launches() -> int:
    try:
        rows = launches.count()
    except (ImportError, OSError) as error:
        print(f"kernels: no simulated device here (make simulated): {error}", file=sys.stderr)
        return 1
    launches.RECORD.write_text(launches.dump(rows))
    TABLE.write_text(page(load_record()))
    print(f"kernels: recorded {len(rows)} rows of launches")
    return 0


def _newest_build() -> Path | None:
    """The build tree that nvcc worked in last."""
    reports = (ROOT / "build").glob("native-*/CMakeFiles/**/*.cu.o.resources")
    newest = max(reports, key=lambda file: file.stat().st_mtime, default=None)
    return newest and ROOT / "build" / newest.relative_to(ROOT / "build").parts[0]


def _update(kernels: Kernels) -> int:
    missing = {key for kernel in load_record().values() for key in kernel.usage} - {
        key for kernel in kernels.values() for key in kernel.usage
    }
    if missing:
        print(
            f"kernels: built without {', '.join(sorted(missing))}, which the record has: build for "
            "all architectures first (TORCH_CUDA_ARCH_LIST= make build)",
            file=sys.stderr,
        )
        return 1
    RECORD.write_text(dump(kernels))
    TABLE.write_text(page(kernels))
    print(f"kernels: recorded {len(kernels)} kernels")
    return 0


def _check(kernels: Kernels) -> int:
    found = problems(kernels, load_record())
    for problem in found:
        print(f"kernels: {problem}", file=sys.stderr)
    if found:
        print(f"kernels: if that is meant, record it: {UPDATE}", file=sys.stderr)
        return 1
    count = sum(len(kernel.usage) for kernel in kernels.values())
    print(f"kernels: {len(kernels)} kernels, {count} with architectures: no spills, as recorded")
    return 0
