"""Prints what kernels did on the simulated device: one table of launches, one of source lines.

Numbers are counts; nothing here is a time. Efficiency is the share of memory transactions that
would be left if the same bytes lay densely (global memory) or met no bank conflict (shared memory).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from deformops.simulation._device import Instruction, Launch

SECTOR_BYTES = 32


class Traffic(NamedTuple):
    """Memory requests of warps, summed over instructions."""

    requests: int  # of whole warps
    partial: int  # requests in which not all threads of the warp took part
    bytes: int  # that threads asked for
    transactions: int  # global: sectors of 32 bytes; shared: passes over the banks
    ideal: int  # the same, had the bytes lain densely

    @property
    def efficiency(self) -> float:
        """Ideal over actual transactions; 1 where there were none."""
        return self.ideal / self.transactions if self.transactions else 1.0


def total(launches: Iterable[Launch], space: str, *motions: str) -> Traffic:
    """Sum over the instructions of launches.

    Args:
        launches: launches recorded by `deformops.simulation.profile` in the race build.
        space: "global" or "shared".
        motions: of "load", "store" and "atomic", those to count; none: all.
    """
    chosen = [
        row
        for launch in launches
        for row in launch.instructions
        if row["space"] == space and (not motions or row["motion"] in motions)
    ]
    return _sum(chosen)


def _sum(rows: Iterable[Instruction]) -> Traffic:
    rows = list(rows)
    return Traffic(
        requests=sum(row["requests"] for row in rows),
        partial=sum(row["partial"] for row in rows),
        bytes=sum(row["bytes"] for row in rows),
        transactions=sum(row["transactions"] for row in rows),
        ideal=sum(row["ideal"] for row in rows),
    )


def table(launches: Sequence[Launch]) -> str:
    """One line for each launch."""
    head = ["kernel", "grid", "block", "shared", "threads"]
    head += ["barriers", "warp ops", "mma", "atomics"]
    profiled = any(launch.profiled for launch in launches)
    if profiled:
        head += ["read", "written", "DRAM min", "global eff.", "shared eff.", "divergent"]
    rows = []
    for launch in launches:
        row = [
            launch.kernel.replace("deformops::cuda::", "").replace("deformops::", ""),
            _extent(launch.grid),
            _extent(launch.block),
            _bytes(launch.static_shared_bytes + launch.dynamic_shared_bytes),
            str(launch.threads),
            str(launch.block_barriers),
            str(launch.warp_collectives),
            str(launch.multiplications),
            str(launch.atomics),
        ]
        if profiled:
            everything = _sum(launch.instructions)
            sectors = launch.sectors_read + launch.sectors_written
            row += [
                _bytes(launch.bytes_read),
                _bytes(launch.bytes_written),
                _bytes(sectors * SECTOR_BYTES),
                f"{total([launch], 'global').efficiency:.0%}",
                f"{total([launch], 'shared').efficiency:.0%}",
                f"{everything.partial / max(everything.requests, 1):.0%}",
            ]
        rows.append(row)
    return _align([head, *rows])


def movement(
    launches: Sequence[Launch], inputs: Iterable[Tensor], outputs: Iterable[Tensor]
) -> str:
    """What was moved, against reading every input once and writing every output once.

    Args:
        launches: all launches of one call, recorded by `deformops.simulation.profile`.
        inputs: what the call reads.
        outputs: what it returns.
    """
    once = sum(tensor.nbytes for tensor in (*inputs, *outputs))
    dram = sum(launch.sectors_read + launch.sectors_written for launch in launches)
    blocks = sum(launch.block_sectors_read + launch.block_sectors_written for launch in launches)
    rows = [
        ["inputs once, outputs once", _bytes(once), ""],
        ["DRAM at least, each launch by itself", *_against(dram * SECTOR_BYTES, once)],
        ["blocks at least, each by itself", *_against(blocks * SECTOR_BYTES, once)],
    ]
    return _align(rows)


def _against(moved: int, once: int) -> tuple[str, str]:
    return _bytes(moved), f"{moved / max(once, 1):.2f} x"


def hot_lines(launches: Sequence[Launch], count: int = 20) -> str:
    """The instructions that cost most transactions beyond the ideal, with their source lines."""
    rows = [row for launch in launches for row in launch.instructions]
    rows.sort(key=lambda row: (row["ideal"] - row["transactions"], -row["transactions"]))
    head = ["space", "motion", "requests", "divergent"]
    head += ["transactions", "ideal", "efficiency", "line"]
    body = [
        [
            row["space"],
            row["motion"],
            str(row["requests"]),
            f"{row['partial'] / row['requests']:.0%}",
            str(row["transactions"]),
            str(row["ideal"]),
            f"{row['ideal'] / row['transactions']:.0%}",
            " < ".join(row["places"]),
        ]
        for row in rows[:count]
    ]
    return _align([head, *body])


def _extent(extent: tuple[int, int, int]) -> str:
    x, y, z = extent
    return str(x) if y == z == 1 else f"{x}x{y}" if z == 1 else f"{x}x{y}x{z}"


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 10 << 20 else f"{count / 2**20:.0f} MiB"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first and the last to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
