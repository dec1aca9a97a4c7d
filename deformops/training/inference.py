"""What a trained network says about photos, and how right it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deformops.nets.segmenter import Segmenter
from deformops.ops import Bilateral, Gaussian, dense_crf
from deformops.ops.pairwise import Pairwise
from deformops.training.augmentation import scaled
from deformops.training.data import LabelledPhotos
from deformops.training.processes import Processes
from deformops.training.scores import Confusion, trimap

Refinement = Callable[[Tensor, Tensor], Tensor]


class Predictor:
    """A network that labels photos.

    Args:
        net: a segmentation network; it is put into eval mode.
        reduce: photos are made so many times smaller first, and scores larger again.
    """

    def __init__(self, net: Segmenter, reduce: float = 1.0) -> None:
        self.net = net.eval()
        self.reduce = reduce

    @torch.no_grad()
    def scores(self, photo: Tensor) -> Tensor:
        """Scores of each class at each pixel.

        Args:
            photo: [3, H, W] uint8.

        Returns:
            [classes, H, W] float32, on the CPU.
        """
        device = next(self.net.parameters()).device
        images = photo[None].to(device)
        size = photo.shape[-2:]
        if self.reduce != 1:
            small = scaled(size, 1 / self.reduce)
            images = F.interpolate(images, small, mode="bilinear", antialias=True)
        scores: Tensor = self.net(self.net.preprocessing(images)).float()
        if scores.shape[-2:] != size:
            scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        return scores[0].cpu()


def most_probable(scores: Tensor, photo: Tensor) -> Tensor:
    """The class of the highest score, [H, W] uint8; the photo does not matter."""
    return scores.argmax(0).to(torch.uint8)


def crf(terms: Sequence[Pairwise], iterations: int = 10) -> Refinement:
    """What a dense CRF makes of scores and the photo.

    Args:
        terms: pairwise ones, see `dense_crf`.
        iterations: of mean field.

    Returns:
        A function of scores [classes, H, W] and the photo [3, H, W] that returns labels [H, W].
    """

    def refined(scores: Tensor, photo: Tensor) -> Tensor:
        unary = -scores[None].log_softmax(1)
        q = dense_crf(unary, photo[None], pairwise=list(terms), iterations=iterations)
        return q[0].argmax(0).to(torch.uint8)

    return torch.no_grad()(refined)


def crf_ablation(
    gaussian: Gaussian, bilateral: Bilateral, iterations: int = 10
) -> dict[str, Refinement]:
    """The network alone, each term of the CRF alone, and both."""
    return {
        "unary": most_probable,
        "gaussian": crf([gaussian], iterations),
        "bilateral": crf([bilateral], iterations),
        "both": crf([gaussian, bilateral], iterations),
    }


def evaluate(
    predictor: Predictor,
    photos: LabelledPhotos,
    refinements: Mapping[str, Refinement] | None = None,
    *,
    widths: Sequence[int] = (),
    processes: Processes | None = None,
    on_photo: Callable[[int, int], None] | None = None,
) -> dict[str, list[Confusion]]:
    """Scores a network on labelled photos, at the size of their labels.

    Args:
        predictor: the network.
        photos: and their labels.
        refinements: by name, what makes labels of scores and the photo; None: "unary" alone, the
            most probable class.
        widths: of bands around the boundaries to count in, see `trimap`.
        processes: the photos are shared by them; each gets the whole result.
        on_photo: called after each photo with its number, from 1 on, and how many this process has.

    Returns:
        For each refinement what was counted: everywhere, then in the band of each width.
    """
    together = processes or Processes()
    ways = refinements or {"unary": most_probable}
    counts = {
        name: [Confusion(photos.classes, photos.ignore) for _ in (None, *widths)] for name in ways
    }
    own = range(together.rank, len(photos), together.count)
    for number, which in enumerate(own, 1):
        photo, truth = photos[which]
        scores = predictor.scores(photo)
        places = [None, *(trimap(truth, width) for width in widths)]
        for name, refine in ways.items():
            labels = refine(scores, photo)
            for confusion, where in zip(counts[name], places, strict=True):
                confusion.add(labels, truth, where)
        if on_photo is not None:
            on_photo(number, len(own))
    for confusions in counts.values():
        for confusion in confusions:
            confusion.counts = together.sum(confusion.counts)
    return counts
