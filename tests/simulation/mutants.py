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
CONVOLUTION = ("tests/test_convolution_kernels.py",)
SUPPRESSION = ("tests/test_nms.py", "tests/test_soft_nms.py", "tests/test_box_iou.py")
LATTICE = ("tests/test_lattice_kernels.py",)
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
    tests: tuple[str, ...] = CONVOLUTION  # the family's

    @property
    def name(self) -> str:
        return f"{self.file}: {self.mistake}"

    def apply(self, source: str) -> str:
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: the text to change occurs {count} times, not once")
        return source.replace(self.old, self.new)


RACE_FIRST = ("race", "plain", "asan")


def _dropped(
    file: str, mistake: str, before: str, statement: str, tests: tuple[str, ...] = CONVOLUTION
) -> Mutant:
    """A statement that orders threads is gone."""
    return Mutant(file, mistake, before + statement, before, RACE_FIRST, tests)


def _boxes(file: str, mistake: str, old: str, new: str, first: str = "plain") -> Mutant:
    return Mutant(file, mistake, old, new, _asked(first), SUPPRESSION)


def _lattice(file: str, mistake: str, old: str, new: str, first: str = "plain") -> Mutant:
    return Mutant(file, mistake, old, new, _asked(first), LATTICE)


def _asked(first: str) -> tuple[str, ...]:
    return RACE_FIRST if first == "race" else simulation.BUILDS


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
    # --- nms -----------------------------------------------------------------------------------
    _dropped(
        "nms.cu",
        "no barrier before the kept are read",
        "shares[at] = judge.share(kept[at]);\n  }\n  ",
        BARRIER,
        SUPPRESSION,
    ),
    _dropped(
        "nms.cu",
        "no barrier before the kept are counted",
        "kept_count = 0;\n  ",
        BARRIER,
        SUPPRESSION,
    ),
    _boxes(
        "nms.cu",
        "nobody is alive at first, by luck",
        """    check(cudaMemsetAsync(dead_, 0, static_cast<size_t>(total_),
                          static_cast<cudaStream_t>(context_.stream)),
          "nms");
""",
        "",
        "race",
    ),
    _boxes(
        "nms.cu",
        "just the threshold is too much",
        "measure.overlap(a, b) > limit.threshold",
        "measure.overlap(a, b) >= limit.threshold",
    ),
    _boxes(
        "nms.cu",
        "pairs reach behind the last box",
        "column > place && column < end",
        "column > place && column <= end",
        "race",
    ),
    _boxes(
        "nms.cu",
        "two warps resolve a tile",
        "mark - stride < first",
        "mark - stride <= first",
        "race",
    ),
    _boxes(
        "nms.cu",
        "a segment goes on in the next image",
        "inside && (place % count == 0 || group_at(place)",
        "inside && (place == 0 || group_at(place)",
    ),
    _boxes(
        "nms.cu",
        "one more is written than there is room for",
        "&& at < limit",
        "&& at <= limit",
        "race",
    ),
    _boxes(
        "nms.cu",
        "the dead of the next word are forgotten",
        "lane > word && lane < kWords",
        "lane > word + 1 && lane < kWords",
    ),
    _boxes(
        "nms.cu",
        "negative scores rise",
        "return bits >> 31 ? bits : bits ^ 0x7fffffffu;",
        "return bits ^ 0x7fffffffu;",
    ),
    # --- soft_nms, box_iou ---------------------------------------------------------------------
    _dropped(
        "soft_nms.cu",
        "no barrier before scores change",
        "",
        "__syncthreads();  // all have read what changes now\n",
        SUPPRESSION,
    ),
    _boxes(
        "soft_nms.cu",
        "of equal scores the last goes first",
        "other_rank == rank && other_index > index",
        "other_rank == rank && other_index < index",
    ),
    _boxes(
        "soft_nms.cu",
        "half of a warp is not asked",
        "int distance = 16;",
        "int distance = 8;",
    ),
    _boxes(
        "box_iou.cu",
        "a row behind the last",
        "if (row >= overlaps.sizes[0]) return;",
        "if (row > overlaps.sizes[0]) return;",
        "race",
    ),
    _boxes("boxes.cuh", "corners lie side by side", "numbers[2 * stride]", "numbers[2]"),
    # --- what suppression and lattice share ----------------------------------------------------
    _boxes(
        "sort.cuh",
        "equal keys are turned around",
        "__popc(same & lower_lanes)",
        "__popc(same & ~lower_lanes) - 1",
    ),
    _lattice(
        "scan.cuh",
        "lanes of a warp not all summed",
        "distance < 32; distance *= 2",
        "distance < 16; distance *= 2",
    ),
    _lattice(
        "scan.cuh",
        "sums of tiles are not added",
        "if (tiles <= 1) return;",
        "if (tiles <= 5) return;",
    ),
    # --- lattice -------------------------------------------------------------------------------
    _lattice(
        "lattice_build.cu",
        "the range of half a warp",
        "int distance = 16;",
        "int distance = 8;",
    ),
    _dropped(
        "lattice_build.cu",
        "no barrier before the next coordinate",
        "? warps[w] : value;\n  ",
        "__syncthreads();  // the memory may be used again\n",
        LATTICE,
    ),
    _lattice(
        "lattice_build.cu",
        "vertices are told apart by one word",
        "for (int w = 1; w < count; ++w)",
        "for (int w = 1; w < 1; ++w)",
    ),
    _lattice(
        "lattice_build.cu",
        "no neighbour is something",
        "0xFF,  // -1",
        "0x00,  // -1",
    ),
    _lattice(
        "lattice_build.cu",
        "a neighbour is told the wrong way round",
        "neighbor(axis, low, 0) = static_cast<int32_t>(v);",
        "neighbor(axis, low, 1) = static_cast<int32_t>(v);",
    ),
    _lattice(
        "lattice_simplex.cuh",
        "a thread stops after its first point",
        "p += points.threads",
        "p += points.count",
    ),
    _lattice(
        "lattice_blur.cuh",
        "a vertex that ends with its piece goes on",
        "last = (lattice.start(v + 1) - 1) / kPiece",
        "last = lattice.start(v + 1) / kPiece",
    ),
    _lattice(
        "lattice_blur.cuh",
        "a vertex that begins with its piece began before",
        "began_before = start[v] < begin",
        "began_before = start[v] <= begin",
    ),
    _lattice(
        "lattice_blur.cuh",
        "axes in the same order both ways",
        "reverse ? axes - 1 - i : i",
        "reverse ? i : i",
    ),
    _lattice("lattice_filter.cu", "adds to what is not there", ", first > 0);", ", true);", "race"),
    _lattice(
        "lattice_filter.cu",
        "half of the lanes not added",
        "int distance = kDotLanes / 2;",
        "int distance = kDotLanes / 4;",
    ),
    _lattice(
        "lattice_weights.cu",
        "the corner that falls grows",
        "change(p, falling_corner(d, rank)) -= t;",
        "change(p, falling_corner(d, rank)) += t;",
    ),
    # --- mean_field ----------------------------------------------------------------------------
    _dropped(
        "mean_field.cu",
        "no barrier before the square is turned",
        "* stride + l];\n    }\n  }\n  ",
        BARRIER,
        LATTICE,
    ),
    _lattice(
        "mean_field.cu",
        "labels behind the last are read",
        "square[y][x] = l < labels && m < size",
        "square[y][x] = l < stride && m < size",
        "race",
    ),
    _lattice(
        "mean_field.cu",
        "half of the lanes not asked",
        "int distance = group / 2;",
        "int distance = group / 4;",
    ),
    _lattice(
        "mean_field.cu",
        "labels are mixed the other way round",
        "compatibility(l, from) * row[from]",
        "compatibility(from, l) * row[from]",
    ),
    _lattice(
        "mean_field.cu",
        "the first four kernels are forgotten",
        "        start = sums_;\n",
        "",
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

    def test(self, build: str, *what: str) -> str:
        """What the tests find in one build; empty if they pass.

        Args:
            build: one of `simulation.BUILDS`.
            what: pytest's arguments.
        """
        self.build(f"deformops_simulated_{build}")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["--device", "simulated", *what]
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
            asked = [(build, ("-m", "variants", *mutant.tests)) for build in mutant.builds]
            asked += [("plain", mutant.tests), ("plain", ("--schedules", "2"))]
            for build, tests in asked:
                finding = self.test(build, *tests)
                if finding:
                    return build, finding
            return "", ""
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
    for build, tests in sorted({(mutant.builds[0], mutant.tests) for mutant in chosen}):
        finding = workshop.test(build, "-m", "variants", *tests)
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
