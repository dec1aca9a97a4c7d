"""Filters whose values follow the input, and filters whose positions do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deformops.demo.straighten import identity_layer, psnr, window_offsets
from deformops.demo.warp import inside, pixel_grid, warped_photo
from deformops.figures.sheet import Panel, as_image, compose, on_paper

FILE = "values-and-positions.png"
REACH = 1  # of a window of 3x3


def best_permutation(image: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """Filters an image with one 1 and eight 0s, in each window where they serve best.

    That is a dynamic filter of 3x3 with all the freedom to permute its values: at each pixel it
    passes through that of the nine it sees which is most like what is wanted.

    Args:
        image: [C, H, W].
        wanted: [C, H, W], what each pixel should become.

    Returns:
        [C, H, W].
    """
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (REACH, REACH), (REACH, REACH)))
    side = range(2 * REACH + 1)
    seen = np.stack([padded[:, i : i + height, j : j + width] for i in side for j in side])
    best = ((seen - wanted) ** 2).sum(axis=1).argmin(axis=0)
    result: NDArray[Any] = np.take_along_axis(seen, best[None, None], axis=0)[0]
    return result


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Straightens a warped photo with both kinds of filters, prints how well, and draws it.

    Args:
        photo: [3, H, W] in [0, 1], float32.
        output: folder for the picture.
        say: prints a line.
    """
    original = photo.numpy()
    warp, warped, there = warped_photo(original)
    height, width = there.shape
    grid = pixel_grid(height, width)
    places = warp(grid)
    visible = inside(places, height, width) & there
    permuted = best_permutation(warped, original)
    with torch.no_grad():
        layer, offset = identity_layer(3), window_offsets(places).float()
        moved = layer(torch.from_numpy(warped)[None], offset)[0].numpy()
    by_values, by_places = (
        psnr(image[:, visible], original[:, visible]) for image in (permuted, moved)
    )
    way = np.abs(places - grid).max(axis=-1)
    near = float((way <= REACH).mean())

    say("dynamic: a 3x3 filter at each pixel, to undo a warp; nine values, of which one is 1")
    say(
        f"  asked     to read up to {way.max():.0f} pixels away, on average {way.mean():.0f}; a "
        f"window reaches {REACH}, enough for {near:.1%} of the pixels"
    )
    say(f"  values    permuted at each pixel with the answer at hand: {by_values:.1f} dB")
    say(f"  positions moved, values as they are: {by_places:.1f} dB")

    panels = [
        Panel(as_image(original), "What is wanted", "The photo."),
        Panel(
            on_paper(as_image(warped), there),
            "What there is",
            f"The photo, warped: things lie up to {way.max():.0f} pixels, on average "
            f"{way.mean():.0f}, from where they are wanted.",
        ),
        Panel(
            on_paper(as_image(permuted), visible),
            f"Values change: {by_values:.1f} dB",
            "At each pixel the nine values of a 3x3 filter are permuted in the best way of all, "
            "chosen by somebody who knows the answer. It still sees nine pixels, and puts the "
            "picture together from what happens to be near.",
        ),
        Panel(
            on_paper(as_image(moved), inside(places, height, width)),
            f"Positions change: {by_places:.1f} dB",
            "The values stay, one 1 and eight 0s, and offsets move the taps to where the warp has "
            "taken each pixel: what a deformable convolution does.",
        ),
    ]
    compose(
        "Dynamic filters change values, deformable ones positions",
        "Both make their filter anew at each place. Only one of them can look elsewhere. Numbers: "
        "PSNR where the warped photo has something to show.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")
