"""The training of a segmentation network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deformops.nets.segmenter import Segmenter
from deformops.training.augmentation import Augmentation
from deformops.training.data import LabelledPhotos, Samples, stack
from deformops.training.loop import DivergedError, LoopRecipe, TrainingLoop
from deformops.training.loss import count_pixels, shrink_labels, summed_loss
from deformops.training.optimizer import parameter_groups, poly
from deformops.training.processes import Processes

__all__ = ["DivergedError", "Recipe", "Trainer"]

#: A photo [3, h, w] and its labels [h, w]; of a part of a batch [N, 3, h, w] and [N, h, w].
Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe(LoopRecipe):
    """All that decides, beside the network and the photos, what a training comes to.

    Attributes:
        power: of the schedule, see `poly`.
        head_factor: by which new layers learn faster, see `parameter_groups`.
        loss: "mean" over the pixels of the batch that count (DeepLab), or their "sum" (FCN).
        augmentation: what happens to photos first.

    Raises:
        ValueError: a number is out of range.
    """

    power: float = 0.9
    head_factor: float = 10.0
    loss: str = "mean"
    augmentation: Augmentation = field(default_factory=Augmentation)

    NOT_NEGATIVE = ("power", "weight_decay", "head_factor")

    def __post_init__(self) -> None:
        """Raises ValueError for what is no recipe."""
        super().__post_init__()
        if self.loss not in ("mean", "sum"):
            raise ValueError(f"loss: expected mean or sum, got {self.loss!r}")

    def rate(self, iteration: int) -> float:
        """The learning rate of body weights in a step, after so many."""
        return poly(self.lr, iteration, self.iterations, power=self.power)


class _Scores(nn.Module):
    """A network whose forward returns all scores that have a loss."""

    def __init__(self, net: Segmenter) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W] to scores [N, classes, h, w], one or several."""
        all_scores: Callable[[Tensor], list[Tensor]] | None = getattr(self.net, "all_scores", None)
        return [self.net(images)] if all_scores is None else all_scores(images)


class Trainer(TrainingLoop[Labelled, Labelled]):
    """Trains a segmentation network, one step at a time; see `TrainingLoop`.

    Args:
        net: the network.
        photos: what it learns.
        recipe: how.
        processes: which one of them this is.
        workers: processes that read photos ahead; 0: none.

    Raises:
        ValueError: the recipe's parts cannot be shared by the processes, or the network cannot.
    """

    net: Segmenter
    recipe: Recipe

    def __init__(
        self,
        net: Segmenter,
        photos: LabelledPhotos,
        recipe: Recipe,
        *,
        processes: Processes | None = None,
        workers: int = 0,
    ) -> None:
        self.photos = photos
        super().__init__(
            net,
            _Scores(net),
            Samples(photos, recipe.augmentation, recipe.seed),
            stack,
            lambda: parameter_groups(net, recipe.lr, recipe.weight_decay, recipe.head_factor),
            recipe,
            processes=processes,
            workers=workers,
        )

    def loss_of(self, batch: Sequence[Labelled]) -> Callable[[Labelled], dict[str, Tensor]]:
        """The losses of all scores of a part, added."""
        divisors: list[float] = []

        def loss_of(part: Labelled) -> dict[str, Tensor]:
            photos, labels = (values.to(self.processes.device) for values in part)
            scores = self._shared(self.net.preprocessing(photos))
            if not divisors:
                divisors.extend(self._divisors(batch, scores))
            loss = torch.zeros((), device=self.processes.device)
            for score, divisor in zip(scores, divisors, strict=True):
                small = shrink_labels(labels, score.shape[-2:])
                loss = loss + summed_loss(score, small, self.photos.ignore) / divisor
            return {"loss": loss}

        return loss_of

    def _divisors(self, batch: Sequence[Labelled], scores: list[Tensor]) -> list[float]:
        """By what the summed loss of each score is divided: the pixels of the whole batch, or 1."""
        if self.recipe.loss == "sum":
            return [1.0] * len(scores)
        all_labels = [labels for _, labels in batch]
        full = all_labels[0].shape[-2:]
        counts = []
        for score in scores:
            size, counted = score.shape[-2:], all_labels
            if size != full:
                if any(labels.shape[-2:] != full for labels in all_labels):
                    raise ValueError(
                        "crop: expected photos of one size, since the network has losses at "
                        "smaller sizes, which must be known for all parts of a batch"
                    )
                counted = [shrink_labels(labels, size) for labels in all_labels]
            counts.append(sum(count_pixels(labels, self.photos.ignore) for labels in counted))
        return [max(1.0, float(count)) for count in self.processes.sum(torch.tensor(counts))]
