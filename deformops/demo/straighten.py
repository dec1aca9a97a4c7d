"""A deformable layer undoes a known warp."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deformops.demo.warp import Points, Warp, inside, pixel_grid, sample_exactly, warped_photo
from deformops.figures.sheet import ACCENTS, Panel, as_image, compose, on_paper
from deformops.nn import DeformConv2d

FILE = "straighten.png"
AMPLIFIED = 5
ROUNDS = 7
# Output pixels, as fractions (y, x) of the map, whose offsets are drawn.
SHOWN = ((0.2, 0.2), (0.3, 0.85), (0.8, 0.12), (0.75, 0.68))


def identity_layer(channels: int) -> DeformConv2d:
    """Returns a 3x3 layer that passes the centre tap of each channel through."""
    layer = DeformConv2d(channels, channels, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(channels), range(channels), 1, 1] = 1
    return layer


def window_offsets(places: Points) -> Tensor:
    """Returns float64 offsets, [1, 18, H, W], that move the 3x3 window of each pixel to a place."""
    moved = torch.from_numpy(places - pixel_grid(*places.shape[:2])).permute(2, 0, 1)
    return moved.repeat(9, 1, 1).unsqueeze(0)


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Warps the photo, straightens it with one layer, prints how well, and draws it.

    Args:
        photo: [3, H, W] in [0, 1], float32.
        output: folder for the picture.
        say: prints a line.
    """
    original = photo.numpy()
    warp, warped, there = warped_photo(original)
    height, width = there.shape
    places = warp(pixel_grid(height, width))
    offset = window_offsets(places)
    straight = _run(warped, offset, torch.float32)

    exact = sample_exactly(warped, places)
    largest, largest64 = (
        float(np.abs(image - exact).max())
        for image in (straight, _run(warped, offset, torch.float64))
    )
    # Pixels that are read back from nothing but photo.
    valid = sample_exactly(there[None].astype(float), places)[0] > 1 - 1e-9
    ours, limit = (psnr(image[:, valid], original[:, valid]) for image in (straight, exact))

    say(f"straighten: one deformable 3x3 layer undoes a known warp ({width} x {height} pixels)")
    say(
        f"  error     {largest:.0e} in float32, {largest64:.0e} in float64: the largest, against "
        "exact bilinear sampling in numpy"
    )
    say(
        f"  PSNR      {ours:.2f} dB against the photo, of which {valid.mean():.0%} are in view; "
        f"exact bilinear sampling: {limit:.2f} dB"
    )
    _compare_times(warped, offset, say)

    panels = [
        Panel(as_image(original), "The photo", "With a grid, to follow it.", _straight_grid(warp)),
        Panel(
            on_paper(as_image(warped), there),
            "The input of the layer",
            f"The photo, bent by {warp.amplitude:.0f} pixels, turned by "
            f"{np.degrees(warp.angle):.0f} degrees, scaled by {warp.scale:.2f}. Coloured: offsets "
            "of four output pixels, from the pixel (ring) to the place it reads (dot).",
            _warped_grid(warp),
        ),
        Panel(
            on_paper(as_image(straight), inside(places, height, width)),
            "The output of the layer",
            "The kernel passes its centre tap through; the offsets are the warp. No value is more "
            f"than {largest:.0e} from exact bilinear sampling.",
            _straight_grid(warp, dots=True),
        ),
        Panel(
            on_paper(as_image(_difference(straight, original)), valid),
            f"What is lost, amplified {AMPLIFIED} times",
            f"Output against photo: {ours:.1f} dB. Sampling twice, at scale {warp.scale:.2f}, "
            f"loses fine texture; exact bilinear sampling loses the same ({limit:.1f} dB).",
        ),
    ]
    compose(
        "One deformable layer straightens a photo",
        "A deformable convolution reads its input where its offsets say. Given the offsets of a "
        "known warp, it undoes the warp, and its error can be measured against the exact answer.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")


def psnr(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Returns the peak signal-to-noise ratio in dB, for values in [0, 1]."""
    if not image.size:
        return float("nan")
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def _run(warped: NDArray[np.float32], offset: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    layer = identity_layer(len(warped)).to(dtype)
    with torch.no_grad():
        output: Tensor = layer(torch.from_numpy(warped).unsqueeze(0).to(dtype), offset.to(dtype))
    result: NDArray[Any] = output[0].numpy()
    return result


def _compare_times(warped: NDArray[np.float32], offset: Tensor, say: Callable[[str], None]) -> None:
    """Times the layer and torchvision's op by turns."""
    try:
        from torchvision.ops import deform_conv2d as theirs
    except ImportError:
        say("  time      torchvision is not installed: nothing to compare with")
        return
    layer, input, offset = identity_layer(3), torch.from_numpy(warped).unsqueeze(0), offset.float()
    runs: list[Callable[[], Tensor]] = [
        lambda: layer(input, offset),
        lambda: theirs(input, offset, layer.weight, padding=1),
    ]
    with torch.no_grad():
        first, second = (run() for run in runs)
        rounds = [[_seconds(run) for run in runs] for _ in range(ROUNDS)]
    ours, other = (statistics.median(times) * 1e3 for times in zip(*rounds, strict=True))
    ratio = statistics.median(other / ours for ours, other in rounds)
    say(
        f"  time      {ours:.1f} ms, torchvision {other:.1f} ms ({ratio:.1f}x), "
        f"{torch.get_num_threads()} threads; outputs differ by at most "
        f"{float((first - second).abs().max()):.0e}"
    )


def _seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _difference(image: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    """Returns the mean error over colours as ink on white, [3, H, W]."""
    error = np.abs(image - reference).mean(axis=0, keepdims=True)
    return 1 - np.minimum(1, AMPLIFIED * error).repeat(3, axis=0)


def _grid_lines(warp: Warp) -> list[Points]:
    """Returns lines of the straight map, eight squares to its shorter side, centred."""
    step = max(1.0, min(warp.height, warp.width) / 8)
    last = np.array([warp.height - 1, warp.width - 1])
    lines = []
    for axis in (0, 1):
        reach = int(last[axis] / 2 / step)
        for k in range(-reach, reach + 1):
            line = np.empty((200, 2))
            line[:, axis] = last[axis] / 2 + k * step
            line[:, 1 - axis] = np.linspace(0, last[1 - axis], 200)
            lines.append(line)
    return lines


def _shown(warp: Warp) -> Points:
    return np.round(np.array(SHOWN) * (warp.height - 1, warp.width - 1))


def _straight_grid(warp: Warp, dots: bool = False) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for line in _grid_lines(warp):
            axes.plot(line[:, 1], line[:, 0], **GRID_STYLE)
        for (y, x), color in zip(_shown(warp) if dots else [], ACCENTS, strict=False):
            axes.plot(x, y, "o", mfc="none", mec=color, **RING_STYLE)

    return draw


def _warped_grid(warp: Warp) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for line in map(warp, _grid_lines(warp)):
            axes.plot(line[:, 1], line[:, 0], **GRID_STYLE)
        for start, color in zip(_shown(warp), ACCENTS, strict=True):
            end = warp(start)
            axes.plot([start[1], end[1]], [start[0], end[0]], color=color, linewidth=1.4)
            axes.plot(start[1], start[0], "o", mfc="white", mec=color, **RING_STYLE)
            axes.plot(end[1], end[0], "o", color=color, markersize=5, mec="white", mew=0.7)

    return draw


GRID_STYLE: dict[str, Any] = {"color": "white", "linewidth": 0.7, "alpha": 0.5}
RING_STYLE: dict[str, Any] = {"markersize": 6, "mew": 1.6}
