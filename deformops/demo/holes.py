"""Dense answers of a small kernel: holes in the kernel instead of in the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deformops.figures.sheet import Panel, compose, on_paper
from deformops.ops import atrous_conv2d

FILE = "holes.png"
RATE = 2
# Pixels of the photo that the picture shows, at most: few enough to see them one by one.
SHOWN = (66, 88)


class Answers(NamedTuple):
    """What the kernel says about a photo of [H, W], computed in two ways."""

    subsampled: Tensor
    """Of every other pixel, dealt back to their places; 0 elsewhere, [H, W]."""
    filled: Tensor
    """Where that has an answer, [H, W]."""
    atrous: Tensor
    """With holes in the kernel, of all pixels, [H, W]."""


def gaussian_derivative(taps: int = 7, sigma: float = 1.5) -> Tensor:
    """A kernel, float64 [taps, taps], that answers to vertical edges: d/dx of a Gaussian."""
    at = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    gaussian = torch.exp(-at.square() / (2 * sigma**2))
    kernel = gaussian[:, None] * (at * gaussian)
    return kernel / kernel.abs().sum()


def answers(grey: Tensor, rate: int = RATE) -> Answers:
    """Lets the kernel loose on a photo in both ways.

    Args:
        grey: [H, W], float64.
        rate: subsampling of the one way, dilation of the other.
    """
    kernel = gaussian_derivative()[None, None]
    around = kernel.shape[-1] // 2
    image = grey[None, None]
    small = atrous_conv2d(image[..., ::rate, ::rate], kernel, padding=around)
    subsampled, filled = torch.zeros_like(grey), torch.zeros_like(grey, dtype=torch.bool)
    subsampled[::rate, ::rate] = small[0, 0]
    filled[::rate, ::rate] = True
    atrous = atrous_conv2d(image, kernel, padding=around * rate, dilation=rate)
    return Answers(subsampled, filled, atrous[0, 0])


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Prints how many positions get an answer in both ways, and draws the middle of the photo.

    Args:
        photo: [3, H, W] in [0, 1], float32.
        output: folder for the picture.
        say: prints a line.
    """
    grey = (photo.double() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    subsampled, filled, atrous = answers(grey)
    largest = float((subsampled - atrous)[filled].abs().max())

    say(f"holes: a 7x7 derivative of a Gaussian at half the resolution ({grey.numel()} pixels)")
    say(f"  filled    {float(filled.double().mean()):.1%} by subsampling and dealing back")
    say(f"            100.0% by holes in the kernel, rate {RATE}: the same 49 multiplications each")
    apart = f"differ by at most {largest:.0e}" if largest else "are equal to the last bit"
    say(f"  answers   {apart} where there are both")

    middle = _middle(grey.shape)
    scale = float(atrous.abs().max()) or 1.0
    panels = [
        Panel(_grey(grey[middle]), "The photo", "Its middle, pixel by pixel."),
        Panel(
            _grey(_blocks(grey[::RATE, ::RATE], grey.shape)[middle]),
            "At half the resolution",
            "What the kernel sees in the first way.",
        ),
        Panel(
            on_paper(_signed(subsampled[middle] / scale), filled[middle].numpy()),
            "Subsample, filter, deal back",
            f"Every {RATE}nd pixel on both axes has an answer: "
            f"{float(filled.double().mean()):.0%} of all. "
            "Red: it gets brighter to the right; blue: darker.",
        ),
        Panel(
            _signed(atrous[middle] / scale),
            "Holes in the kernel",
            f"All pixels have one; where there are both, they {apart}.",
        ),
    ]
    compose(
        "Atrous convolution answers everywhere",
        "A network that halves its maps knows something about every fourth pixel. The same kernel "
        "with holes, on the whole map, sees as far and says it of every pixel.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")


def _middle(shape: torch.Size) -> tuple[slice, slice]:
    """The middle of a map, from even pixels on."""
    first = [2 * (max(0, size - shown) // 4) for size, shown in zip(shape, SHOWN, strict=True)]
    return slice(first[0], first[0] + SHOWN[0]), slice(first[1], first[1] + SHOWN[1])


def _blocks(small: Tensor, size: torch.Size) -> Tensor:
    """[h, w] at [H, W], each value as a block."""
    large = small.repeat_interleave(RATE, 0).repeat_interleave(RATE, 1)
    return large[: size[0], : size[1]]


def _grey(values: Tensor) -> NDArray[np.float64]:
    """[H, W] in [0, 1] as an image."""
    image: NDArray[np.float64] = values.numpy()[..., None].repeat(3, axis=-1)
    return image


def _signed(values: Tensor) -> NDArray[np.float64]:
    """[H, W] in [-1, 1] as an image: blue below 0, orange above."""
    strength: NDArray[Any] = np.sqrt(np.abs(values.numpy()))[..., None]
    below, above = np.array([0.05, 0.42, 0.58]), np.array([0.95, 0.33, 0.16])
    ink = np.where(values.numpy()[..., None] < 0, below, above)
    image: NDArray[np.float64] = 1 - strength * (1 - ink)
    return image
