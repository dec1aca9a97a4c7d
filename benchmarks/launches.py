"""What launches of kernels move and compute, and the time that GPUs need for that at the least.

Bytes are counted on the simulated device, which sees every access: the distinct 32-byte sectors
that a launch reads and writes, each once, as if a cache kept them all. Flops are those of the
matrix products, by the relation that is the floor of the benchmark suites. The larger of both times
at a GPU's published peaks is the roofline: **predicted, and nothing is that fast**. With a GPU at
hand the time of every launch is measured beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .suites.deform_conv import Problem as Convolution
from .table import three_digits

if TYPE_CHECKING:
    from deformops.simulation._device import Launch

RECORD = Path(__file__).with_name("launches.json")
TYPES = (torch.float32, torch.float16)
# Kernels that multiply columns by weights, once for each launch.
PRODUCTS = ("deform_conv2d_kernel", "backward_data_kernel", "backward_weight_kernel")
CALLS = 20  # of an op, of which a measured time is the mean


@dataclass(frozen=True)
class Gpu:
    """Published peaks, dense, at boost clock."""

    architecture: str
    bandwidth: float  # bytes a second
    flops: float  # a second, float32 outside of tensor cores
    tensor: float  # float16 or bfloat16 products with float32 sums
    source: str

    def seconds(self, moved: float, computed: float, dtype: torch.dtype) -> float:
        """Returns the roofline time."""
        peak = self.flops if dtype == torch.float32 else self.tensor
        return max(moved / self.bandwidth, computed / peak)


GPUS = {
    "T4": Gpu("sm_75", 320e9, 8.1e12, 65e12, "NVIDIA T4 Tensor Core GPU, product brief"),
    "A100": Gpu("sm_80", 2039e9, 19.5e12, 312e12, "NVIDIA A100 datasheet, 80 GB SXM"),
    "RTX 3090": Gpu("sm_86", 936e9, 35.6e12, 71e12, "NVIDIA Ampere GA102 whitepaper, appendix A"),
    "H100": Gpu("sm_90", 3350e9, 67e12, 989e12, "NVIDIA H100 datasheet, SXM"),
    "B200": Gpu("sm_100", 7700e9, 75e12, 2250e12, "NVIDIA Blackwell datasheet, HGX B200"),
    "RTX 5090": Gpu(
        "sm_120", 1792e9, 104.8e12, 209.5e12, "NVIDIA RTX Blackwell whitepaper, appendix A"
    ),
}


@dataclass(frozen=True)
class Row:
    """All launches of one kernel in one call of an op."""

    op: str
    dtype: str
    shape: str
    kernel: str
    launches: int
    blocks: int  # of all launches
    bytes: int
    flops: float
    tensor_products: int  # mma.sync of warps, as counted: 16 x 8 x 16 with half types

    @property
    def computed(self) -> float:
        """Flops on tensor cores as counted, those of the padding of tiles included."""
        return self.tensor_products * 2.0 * 16 * 8 * 16

    def seconds(self, gpu: Gpu) -> float:
        """Returns the roofline time of all launches."""
        return gpu.seconds(self.bytes, self.flops, getattr(torch, self.dtype))


def count(ops: Iterable[str] | None = None) -> list[Row]:
    """Runs each op's problem on the simulated device and counts.

    Args:
        ops: names of `deformops.simulation.problems`; None: all.

    Raises:
        ImportError: the simulated device is not built.
    """
    from deformops import simulation
    from deformops.simulation.problems import Tensors, problems

    simulation.load("race")
    rows = []
    for dtype in TYPES:
        known = problems(torch.ops.deformops_simulated, Tensors(dtype, False), {})
        for name in known if ops is None else ops:
            if dtype == TYPES[0] or "conv" in name:
                problem = known[name]()
                with simulation.profile() as launches:
                    problem.call()
                rows += summed(name, dtype, shape_of(problem.inputs), launches)
    return rows


def shape_of(inputs: Sequence[torch.Tensor]) -> str:
    """Returns the shapes of the larger inputs, in words."""
    shapes = ["x".join(map(str, tensor.shape)) for tensor in inputs if tensor.dim() > 1]
    return ", ".join(list(dict.fromkeys(shapes))[:3])


def summed(op: str, dtype: torch.dtype, shape: str, launches: Sequence[Launch]) -> list[Row]:
    """Returns a row for each kernel, in the order of their first launches."""
    from deformops.simulation.report import SECTOR_BYTES

    from .kernels import readable

    rows = []
    names = [readable(launch.kernel) for launch in launches]
    for name in dict.fromkeys(names):
        of_kernel = [each for each, its in zip(launches, names, strict=True) if its == name]
        sectors = sum(each.sectors_read + each.sectors_written for each in of_kernel)
        product = name.partition("<")[0] in PRODUCTS
        rows.append(
            Row(
                op=op,
                dtype=str(dtype).removeprefix("torch."),
                shape=shape,
                kernel=name,
                launches=len(of_kernel),
                blocks=sum(each.grid[0] * each.grid[1] * each.grid[2] for each in of_kernel),
                bytes=sectors * SECTOR_BYTES,
                flops=len(of_kernel) * product_flops() if product else 0.0,
                tensor_products=sum(each.multiplications for each in of_kernel),
            )
        )
    return rows


def product_flops() -> float:
    """Returns the flops of one product of the convolution that is counted."""
    from deformops.simulation.problems import CHANNELS, SIZE

    return Convolution(CHANNELS, CHANNELS, SIZE, SIZE).flops


def load_record(path: Path = RECORD) -> list[Row]:
    """Returns the rows recorded; none if there is no record."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.is_file() else []


def dump(rows: Iterable[Row]) -> str:
    """Returns the record as text: a line for each row, so that changes can be read."""
    return "[\n" + ",\n".join(f" {json.dumps(asdict(row))}" for row in rows) + "\n]\n"


# --- with a GPU -----------------------------------------------------------------------------------


def measure(rows: Sequence[Row]) -> dict[Row, float]:
    """Returns the seconds of each row's launches on the current CUDA device."""
    from torch.profiler import ProfilerActivity, profile

    from deformops.simulation.problems import Tensors, problems

    seconds = {}
    for op, dtype in dict.fromkeys((row.op, row.dtype) for row in rows):
        tensors = Tensors(getattr(torch, dtype), False, "cuda")
        problem = problems(torch.ops.deformops, tensors, {})[op]()
        problem.call()
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            for _ in range(CALLS):
                problem.call()
            torch.cuda.synchronize()
        times = by_kernel(recorded.key_averages())
        for row in rows:
            if (row.op, row.dtype) == (op, dtype) and row.kernel in times:
                seconds[row] = times[row.kernel] / CALLS
    return seconds


def by_kernel(events: Iterable[Any]) -> dict[str, float]:
    """Kernel -> seconds on the device, from what torch's profiler saw."""
    from .kernels import readable

    seconds: dict[str, float] = {}
    for event in events:
        name = readable(event.key)
        seconds[name] = seconds.get(name, 0.0) + event.self_device_time_total / 1e6
    return seconds


# --- the table ------------------------------------------------------------------------------------


def table(
    rows: Sequence[Row],
    occupancy: Callable[[str, str], float | None],
    measured: Mapping[Row, float] | None = None,
    device: str = "",
) -> str:
    """Markdown: a row for each op and kernel, a column for each GPU.

    Args:
        rows: of the record.
        occupancy: of a kernel on an architecture; None where it is unknown.
        measured: seconds of rows on this machine's GPU, called ``device``.
    """
    head = ["op", "problem", "kernel", "launches", "blocks", "KiB", "MFLOP"]
    head += [f"{name}, µs predicted" for name in GPUS]
    if measured is not None:
        head.append(f"{device}, µs **measured**")
    lines = [f"| {' | '.join(head)} |", f"| --- | --- | --- |{' ---: |' * (len(head) - 3)}"]
    last = None
    for row in rows:
        op, shape = f"{row.op} {row.dtype}", row.shape
        if last == (op, shape):
            op, shape = "", ""
        else:
            last = (op, shape)
        cells = [op, shape, f"`{row.kernel}`", str(row.launches), str(row.blocks)]
        flops = f"{row.flops / 1e6:.0f}" if row.flops else "-"
        if row.computed:
            flops += f" ({row.computed / row.flops:.2f}x)"
        cells += [f"{row.bytes / 1024:.0f}", flops]
        for gpu in GPUS.values():
            share = occupancy(row.kernel, gpu.architecture)
            filled = "" if share is None else f" ({share:.0%})"
            cells.append(three_digits(row.seconds(gpu) * 1e6) + filled)
        if measured is not None:
            cells.append(three_digits(measured[row] * 1e6) if row in measured else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def legend() -> str:
    """Returns what the columns are, and where the peaks were published."""
    gpus = "\n".join(
        f"- {name}: {gpu.bandwidth / 1e9:.0f} GB/s, {gpu.flops / 1e12:g} TFLOP/s in float32, "
        f"{gpu.tensor / 1e12:g} in half types on tensor cores ({gpu.source})"
        for name, gpu in GPUS.items()
    )
    return f"""\
One call of each op at the problem of `python -m deformops.simulation profile`; launches and blocks
of all of them; bytes that they read and write at least (distinct sectors of each launch, counted on
the simulated device); flops of matrix products, and in brackets how many times as many tensor cores
were seen to compute, the padding of tiles included (a tile has 128 channels of the output, of which
this problem fills 64). **Predicted, not measured:** the larger of bytes at the GPU's bandwidth and
flops at its peak, in microseconds, and in brackets the occupancy. So small a problem fills no large
GPU, and a launch takes a few microseconds whatever it does: read these times as what bounds a
kernel, and beside each other.

{gpus}
"""
