"""How far units see: strides and holes, and what depth does to the effective receptive field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deformops.analysis import (
    EffectiveField,
    Window,
    effective_receptive_field,
    receptive_field,
    sampling_points,
    uniform_std,
)
from deformops.figures.fields import frame, heat
from deformops.figures.sheet import ACCENTS, HAIRLINE, INK, PAPER, QUIET, Panel, compose

STRIDES_FILE, DEPTH_FILE = "strides-and-holes.png", "depth.png"
# Pooling, then a layer of three taps; on one axis.
STACKS = {
    "Pooling with stride 2": (Window((1, 3), stride=(1, 2)), Window((1, 3))),
    "Its stride is gone": (Window((1, 3)), Window((1, 3))),
    "And holes instead": (Window((1, 3)), Window((1, 3), dilation=(1, 2))),
}
TELLS = (
    "Three neighbours after pooling show {size} pixels, but there is one for every second only.",
    "There is a cell for each pixel, but three neighbours show {size}: less than before.",
    "With holes three cells show {size} pixels as before, and there is a cell for each.",
)
DEPTHS = (1, 2, 4, 8, 16, 32)
SHOWN = (4, 16, 32)
SIDE, CHANNELS, SEEDS = 81, 8, 6


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Computes both, prints them, and draws them.

    Args:
        photo: not looked at: what a stack can see does not depend on it.
        output: folder for the pictures.
        say: prints a line.
    """
    del photo
    sizes = [receptive_field(stack).size[1] for stack in STACKS.values()]
    say("reach: how many pixels three neighbouring cells behind a pool of 3 show")
    say(f"  stride 2  {sizes[0]}; without it {sizes[1]}; without it, with holes {sizes[2]}")
    panels = [
        Panel(_blank(4, 1.2), f"{heading}: {size} pixels", tells.format(size=size), _diagram(stack))
        for (heading, stack), tells, size in zip(STACKS.items(), TELLS, sizes, strict=True)
    ]
    compose(
        "Holes win back what the stride gave",
        "A network that is to answer for each pixel gives up the stride of its pools. Its weights "
        "fit as before only if the layers behind get holes.",
        panels,
        output / STRIDES_FILE,
    )
    say(f"  picture   {output / STRIDES_FILE}")

    uniform = {depth: _measured(_uniform(depth)) for depth in DEPTHS}
    random = {depth: [_measured(_random(depth, seed)) for seed in range(SEEDS)] for depth in DEPTHS}
    say("depth: the effective receptive field of n layers of 3x3, its deviation in pixels")
    for depth in DEPTHS:
        spread = np.mean([field.std for field in random[depth]])
        say(
            f"  n = {depth:<5} {uniform[depth].std[0]:.3f} with equal weights "
            f"(sqrt(2 n / 3) = {uniform_std([Window(3)] * depth)[0]:.3f}), {spread:.2f} with "
            f"random ones and ReLU; the theoretical field: {2 * depth + 1} pixels"
        )
    mean = [torch.stack([field.mass for field in random[depth]]).mean(0).numpy() for depth in SHOWN]
    shape = _blank(1, 1)
    compose(
        "The receptive field that counts grows as the square root of the depth",
        "Each layer of 3x3 lets a unit see one pixel farther. But most paths from it to the input "
        "stay near the middle.",
        [
            Panel(
                shape,
                "Width against depth",
                f"Deviations of units' gradients: dots with equal weights, rings with random ones "
                f"and ReLU (mean of {SEEDS}), about sqrt(2) times as wide: of these the squares "
                "add up. The theoretical field reaches n pixels to each side.",
                _growth(uniform, random),
            ),
            *(
                Panel(
                    heat(np.ones((SIDE, SIDE, 3)) * _color(PAPER), mass, ACCENTS[0]),
                    f"{depth} layers",
                    f"Ink: the gradient of the middle unit, mean of {SEEDS} random networks. "
                    f"Dashed: the theoretical field, {2 * depth + 1} x {2 * depth + 1} pixels.",
                    frame(_field(depth), INK, (0, (4, 2))),
                )
                for depth, mass in zip(SHOWN, mean, strict=True)
            ),
        ],
        output / DEPTH_FILE,
    )
    say(f"  picture   {output / DEPTH_FILE}")


def _uniform(depth: int) -> nn.Sequential:
    """Layers of 3x3 whose weights are all equal."""
    return nn.Sequential(*(nn.AvgPool2d(3, 1, 1) for _ in range(depth)))


def _random(depth: int, seed: int) -> nn.Sequential:
    """Layers of 3x3 with He's initialisation, and ReLU between them."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        conv = nn.Conv2d(1 if number == 0 else CHANNELS, CHANNELS, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _measured(network: nn.Module) -> EffectiveField:
    image = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return effective_receptive_field(network, image, (SIDE // 2, SIDE // 2))


def _field(depth: int) -> tuple[int, int, int, int]:
    return receptive_field([Window(3, padding=1)] * depth).box((SIDE // 2, SIDE // 2))


def _color(name: str) -> NDArray[np.float64]:
    return np.array([int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _blank(width: float, height: float) -> NDArray[np.float64]:
    """Paper of some shape."""
    return np.ones((int(100 * height), int(100 * width), 3)) * _color(PAPER)


def _diagram(stack: Sequence[Window]) -> Callable[[Any], None]:
    """Draws the pixels, the cells of the pool and a unit behind it, and what sees what."""
    levels = [np.array([[0.0, 0.0]])]
    for first in reversed(range(len(stack))):
        layers = stack[first:]
        levels.append(sampling_points(layers, [None] * len(layers), (0, 0)).numpy())
    start = [receptive_field(stack[:number]) for number in range(len(stack) + 1)]
    middle = start[2].center((0, 0))[1]

    def draw(axes: Any) -> None:
        height, width = 120.0, 400.0
        step, rows = width / 12, (0.15 * height, 0.5 * height, 0.86 * height)

        def x(place: float) -> float:
            return width / 2 + (place - middle) * step

        for number, row in zip((2, 1, 0), rows, strict=True):
            field = start[number]
            cells = [field.center((0, cell))[1] for cell in range(-20, 21)]
            shown = [place for place in cells if abs(x(place) - width / 2) < 0.47 * width]
            axes.plot([x(p) for p in shown], [row] * len(shown), "o", color=HAIRLINE, ms=11, mew=0)
        seen = [
            [start[number].center((0, int(cell)))[1] for cell in np.unique(level[:, 1])]
            for number, level in zip((2, 1, 0), levels, strict=True)
        ]
        spans = (None, stack[1], stack[0])
        for number in (1, 2):
            window = spans[number]
            assert window is not None
            kernel, _, _, dilation = window.axis(1)
            below = start[2 - number]
            for place in seen[number - 1]:
                reach = (kernel - 1) / 2 * dilation * below.stride[1]
                for tap in np.linspace(-reach, reach, kernel):
                    line = [x(place), x(place + tap)], [rows[number - 1], rows[number]]
                    axes.plot(*line, color=ACCENTS[1], linewidth=1.1, alpha=0.8)
        for number, row in enumerate(rows):
            color = ACCENTS[0] if number != 1 else ACCENTS[1]
            places = [x(place) for place in seen[number]]
            axes.plot(places, [row] * len(places), "o", color=color, ms=11, mew=0)
        for row, name in zip(rows, ("unit", "after the pool", "pixels"), strict=True):
            axes.text(4, row - 9, name, fontsize=8, color=QUIET, va="center")
        axes.text(
            width - 4,
            rows[2] - 9,
            f"{len(seen[2])} pixels",
            fontsize=8,
            color=QUIET,
            va="center",
            ha="right",
        )

    return draw


def _growth(
    uniform: dict[int, EffectiveField], random: dict[int, list[EffectiveField]]
) -> Callable[[Any], None]:
    """Draws the width of fields against their depth."""

    def draw(axes: Any) -> None:
        inset = axes.inset_axes((0.12, 0.13, 0.83, 0.82))
        inset.set_facecolor(PAPER)
        depth = np.linspace(0, DEPTHS[-1] * 1.06, 200)
        inset.plot(depth, depth, color=QUIET, linewidth=1.2, linestyle=(0, (4, 2)))
        inset.plot(depth, np.sqrt(2 * depth / 3), color=ACCENTS[0], linewidth=1.6)
        widths = [field.std[0] for field in uniform.values()]
        inset.plot(list(uniform), widths, "o", color=ACCENTS[0], ms=5.5, mec="white", mew=0.8)
        means = [np.mean([field.std for field in fields]) for fields in random.values()]
        inset.plot(list(random), means, "o", color=ACCENTS[1], mfc="none", ms=7, mew=1.5)
        inset.set_xlim(0, DEPTHS[-1] * 1.06)
        inset.set_ylim(0, DEPTHS[-1] * 0.55)
        last = DEPTHS[-1]
        inset.text(last * 0.47, last * 0.5, "theoretical: n", fontsize=8.5, color=QUIET, ha="right")
        inset.text(
            last * 0.72, np.sqrt(last / 2) + 1.3, "sqrt(2 n / 3)", fontsize=8.5, color=ACCENTS[0]
        )
        inset.set_xlabel("layers of 3x3, n", fontsize=8.5, color=QUIET)
        inset.set_ylabel("pixels", fontsize=8.5, color=QUIET)
        inset.tick_params(labelsize=8, colors=QUIET, length=3, width=0.6)
        for side in ("top", "right"):
            inset.spines[side].set_visible(False)

    return draw
