"""Plants mistakes in the CUDA kernels, one at a time, and demands that the tests notice.

    python -m tests.simulation.mutants [--only TEXT] [--folder FOLDER]

Each mutant is a small change of one source file, of the kind that a compiler and a careless reader
let pass. A copy of the checkout is changed, one build of the simulated device compiled, and the
tests run that `make test-simulated` runs. What the first build lets pass, the next one is asked;
a mutant that all of them let pass is a hole in the tests. The result of the last run is kept in
csrc/simulation/README.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import deformops
from deformops import simulation
from deformops.simulation.__main__ import environment

ROOT = Path(__file__).parents[2]
KERNELS = "csrc/kernels/cuda"
VARIANTS = "tests/test_convolution_kernels.py"
COPIED = (
    *("CMakeLists.txt", "README.md", "benchmarks", "cmake", "csrc", "deformops"),
    *("pyproject.toml", "tests"),
)


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old`, which occurs once in the file, becomes `new`."""

    file: str  # below csrc/kernels/cuda
    mistake: str
    old: str
    new: str
    builds: tuple[str, ...] = simulation.BUILDS  # in the order in which they are asked

    @property
    def name(self) -> str:
        return f"{self.file}: {self.mistake}"

    def apply(self, source: str) -> str:
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: the text to change occurs {count} times, not once")
        return source.replace(self.old, self.new)


RACE_FIRST = ("race", "plain", "asan")


def _dropped(file: str, mistake: str, before: str, statement: str, after: str = "") -> Mutant:
    """A statement that orders threads is gone."""
    return Mutant(file, mistake, before + statement + after, before + after, RACE_FIRST)


BARRIER = "__syncthreads();\n"
WAIT = "copy_async_wait();\n"

MUTANTS = [
    # --- deform_conv2d -------------------------------------------------------------------------
    _dropped(
        "deform_conv2d.cu",
        "no barrier after the stencils",
        "walk.block_end(tiling) - walk.block, first_pixel);\n        ",
        BARRIER,
    ),
    _dropped("deform_conv2d.cu", "no wait for the weights", "", WAIT),
    _dropped("deform_conv2d.cu", "no barrier between steps", WAIT + "    ", BARRIER),
    _dropped(
        "deform_conv2d.cu",
        "no barrier before the sums are stored",
        "product.store(memory.stage, half);\n    ",
        BARRIER,
    ),
    Mutant(
        "deform_conv2d.cu",
        "rows beyond the last output channel are stored",
        "      if (row >= outputs) return;\n      C value",
        "      C value",
    ),
    Mutant(
        "deform_conv2d.cu",
        "pixel shifted by one (channels_last)",
        "const int pixel = first_pixel + column;\n      to[",
        "const int pixel = first_pixel + column + 1;\n      to[",
    ),
    Mutant(
        "deform_conv2d.cu",
        "wrong buffer of two is multiplied",
        "operands.b[(step - 1) % 2]",
        "operands.b[step % 2]",
    ),
    # --- backward_data -------------------------------------------------------------------------
    _dropped(
        "backward_data.cu",
        "no barrier between steps",
        WAIT + "      ",
        BARRIER,
    ),
    _dropped("backward_data.cu", "no wait for the weights", "", WAIT),
    _dropped(
        "backward_data.cu",
        "no barrier before the stage is refilled",
        "rows, sums);\n      }\n      ",
        BARRIER,
    ),
    Mutant(
        "backward_data.cu",
        "channels beyond the last are stored",
        "if (tap >= rows.taps || tile_channel >= rows.channels) continue;",
        "if (tap >= rows.taps) continue;",
    ),
    Mutant(
        "backward_data.cu",
        "slopes read the corners of the value",
        "axes = {pack_axis(union_of(value.y, slope.y)), pack_axis(union_of(value.x, slope.x))};",
        "axes = {pack_axis(value.y), pack_axis(value.x)};",
    ),
    Mutant(
        "backward_data.cu",
        "output channel shifted by one",
        "first_output + step * Shape::kK, problem",
        "first_output + step * Shape::kK + 1, problem",
    ),
    # --- backward_weight -----------------------------------------------------------------------
    _dropped(
        "backward_weight.cu",
        "no barrier after the stencils",
        "first_tap, taps, first_pixel);\n        ",
        BARRIER,
    ),
    _dropped(
        "backward_weight.cu",
        "no barrier between steps",
        "operands.b[(step - 1) % 2]);\n    ",
        BARRIER,
    ),
    Mutant(
        "backward_weight.cu",
        "shares overlap",
        "const int64_t first = share * problem.spans / problem.shares * kSteps;",
        "const int64_t first = share * (problem.spans / problem.shares) * kSteps;",
        ("plain", "race", "asan"),
    ),
    Mutant(
        "backward_weight.cu",
        "a share is left out",
        "for (int64_t share = 0; share < shares;",
        "for (int64_t share = 1; share < shares;",
    ),
    # --- gather, scatter, contract -------------------------------------------------------------
    Mutant(
        "gather_columns.cu",
        "no barrier after the samples",
        "__syncthreads();  // the other half",
        "// the other half",
        RACE_FIRST,
    ),
    Mutant(
        "gather_columns.cu",
        "channels beyond the last are stored",
        "if (tap >= taps || tiling.channel_of(row) >= channels) continue;",
        "if (tap >= taps) continue;",
    ),
    _dropped(
        "scatter_columns.cu",
        "no barrier before the stage is refilled",
        "{channels, taps, 0, 0});\n    ",
        BARRIER,
    ),
    _dropped(
        "contract_columns.cu",
        "no barrier before the sums are used",
        "taps, 0, 0}, sums);\n    ",
        BARRIER,
    ),
    # --- what they share -----------------------------------------------------------------------
    Mutant(
        "scatter.cuh",
        "not atomic (pixels)",
        "atomicAdd(pixel_at(to, plane, corners.offset[corner]), weights.corner[corner] * value);\n"
        "        }\n      }\n      to +=",
        "*pixel_at(to, plane, corners.offset[corner]) += weights.corner[corner] * value;\n"
        "        }\n      }\n      to +=",
        RACE_FIRST,
    ),
    Mutant(
        "contract.cuh",
        "lanes of a run not all added",
        "for (int distance = kLanesOfRun / 2; distance > 0",
        "for (int distance = kLanesOfRun / 2; distance > 1",
    ),
    Mutant(
        "sample.cuh",
        "reads channels beyond the last (pixels)",
        "if (channel + j < rows.channels && corners.has(corner)) {",
        "if (corners.has(corner)) {",
        RACE_FIRST,
    ),
    Mutant(
        "sample.cuh",
        "vector loads without asking (channels)",
        "if (source.vectors && channels >= kSize) {",
        "if (channels >= kSize) {",
        RACE_FIRST,
    ),
    Mutant(
        "taps.cuh",
        "stencils of pixels beyond the last",
        "if (oy < window.y.output) {",
        "if (oy <= window.y.output) {",
        RACE_FIRST,
    ),
    Mutant(
        "product.cuh",
        "fragment of a with its halves in one place",
        "lane / 16 * 4 * kWord;",
        "lane / 32 * 4 * kWord;",
    ),
    Mutant(
        "weights.cuh",
        "a tile's copy overruns it",
        "for (int i = threadIdx.x; i < Shape::kM * kVectors; i += kThreads) {\n    copy_async",
        "for (int i = threadIdx.x; i <= Shape::kM * kVectors; i += kThreads) {\n    copy_async",
        RACE_FIRST,
    ),
    _dropped(
        "sort.cuh",
        "no barrier before counts are cleared",
        "entries[i];\n    }\n    ",
        BARRIER,
    ),
    Mutant(
        "ordered_scatter.cuh",
        "the right one of two cells is left out",
        "sorted.keys[i] <= left + 1;",
        "sorted.keys[i] < left + 1;",
    ),
    Mutant(
        "rows.cuh",
        "a block of taps begins one late",
        "      block += kBlockTaps;\n",
        "      block += kBlockTaps + 1;\n",
    ),
]


class Workshop:
    """A copy of the checkout in which one file at a time is changed, built and tested."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.cmake = folder / "tree", folder / "cmake"
        for name in COPIED:
            self._copy(ROOT / name, self.tree / name)
        shutil.copy2(Path(deformops.__file__).parent / "libdeformops.so", self.tree / "deformops")
        self._run(
            *(self._tool("cmake"), "-S", self.tree, "-B", self.cmake, "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={self._tool('ninja')}",
            *("-DDEFORMOPS_SIMULATION=ON", "-DDEFORMOPS_CUDA=OFF"),
            f"-DDEFORMOPS_TORCH_DIR={Path(torch.__file__).parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
        )
        self.build("deformops_device_module")

    def _copy(self, source: Path, target: Path) -> None:
        """Leaves files alone that are the same, so that they are not compiled again."""
        if source.is_file():
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            return
        names = {path.name for path in source.iterdir()}
        for path in target.iterdir() if target.is_dir() else ():
            if path.name not in names and path.is_file():
                path.unlink()
        for path in source.iterdir():
            if path.name != "__pycache__" and path.suffix != ".so":
                self._copy(path, target / path.name)

    def _tool(self, name: str) -> str:
        beside = Path(sysconfig.get_path("scripts")) / name
        return str(beside) if beside.is_file() else name

    def _run(self, *command: str | Path) -> None:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def build(self, target: str) -> None:
        """Compiles a target and puts the libraries where the copy's Python looks for them."""
        self._run(self._tool("cmake"), "--build", self.cmake, "--parallel", "--target", target)
        for library in (self.cmake / "csrc/simulation").glob("*.so"):
            shutil.copy2(library, self.tree / "deformops/simulation")

    def test(self, build: str, *, thoroughly: bool = False) -> str:
        """What the tests find in one build; empty if they pass.

        Args:
            build: one of `simulation.BUILDS`.
            thoroughly: all that CI runs in the build; otherwise the family's variants, which find
                most, and sooner.
        """
        self.build(f"deformops_simulated_{build}")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["--device", "simulated"]
        command += ["--schedules", "2"] if thoroughly else ["-m", "variants", VARIANTS]
        done = subprocess.run(
            command,
            cwd=self.tree,
            env={**os.environ, **environment(build)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        if done.returncode < 0:
            return f"the process ends by {signal.Signals(-done.returncode).name}"
        errors = [line[1:].strip() for line in done.stdout.splitlines() if line.startswith("E  ")]
        return errors[0] if errors else done.stdout[-500:] + done.stderr[-500:]

    def find(self, mutant: Mutant) -> tuple[str, str]:
        """The build that notices a mutant, and what it says; nothing if it survives."""
        path = self.tree / KERNELS / mutant.file
        right = path.read_text()
        path.write_text(mutant.apply(right))
        try:
            for build in mutant.builds:
                finding = self.test(build)
                if finding:
                    return build, finding
            return "plain", self.test("plain", thoroughly=True)
        finally:
            path.write_text(right)


def main() -> int:
    parser = argparse.ArgumentParser(description="Plants mistakes and demands that tests notice.")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants with TEXT in the name")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/mutants")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    for mutant in chosen:
        mutant.apply((ROOT / KERNELS / mutant.file).read_text())
    workshop = Workshop(options.folder.resolve())
    for build in sorted({mutant.builds[0] for mutant in chosen}):
        finding = workshop.test(build)
        if finding:
            raise RuntimeError(f"without a mutant, the {build} build is red: {finding}")
    survivors = 0
    for mutant in chosen:
        start = time.monotonic()
        build, finding = workshop.find(mutant)
        survivors += not finding
        print(
            f"| {mutant.file} | {mutant.mistake} | {build} | {finding[:110] or 'SURVIVES'} |",
            end="",
        )
        print(f" {time.monotonic() - start:.0f} s", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
