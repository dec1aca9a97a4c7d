"""The loop that trains a segmentation network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from deformops.nets.segmenter import Segmenter
from deformops.training.augmentation import Augmentation
from deformops.training.data import LabelledPhotos, Samples, numbers_of, stack
from deformops.training.loss import count_pixels, shrink_labels, summed_loss
from deformops.training.optimizer import parameter_groups, poly
from deformops.training.processes import Processes


@dataclass(frozen=True)
class Recipe:
    """All that decides, beside the network and the photos, what a training comes to.

    Attributes:
        iterations: steps of the optimiser.
        batch: photos in each step, of all processes together.
        parts: so many parts of a batch go through the network one after another, or in several
            processes at once; gradients are added. Memory is for one part.
        lr: the learning rate of body weights in the first step, see `parameter_groups`.
        power: of its schedule, see `poly`.
        momentum: of the optimiser.
        weight_decay: the factor of L2 for weights.
        head_factor: by which new layers learn faster.
        loss: "mean" over the pixels of the batch that count (DeepLab), or their "sum" (FCN).
        seed: of the samples and of what layers draw.
        augmentation: what happens to photos first.

    Raises:
        ValueError: a number is out of range.
    """

    iterations: int
    batch: int = 10
    parts: int = 1
    lr: float = 1e-3
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    head_factor: float = 10.0
    loss: str = "mean"
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Raises ValueError for what is no recipe."""
        for name, least in (("iterations", 1), ("batch", 1), ("parts", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.batch % self.parts:
            raise ValueError(
                f"parts: expected a divisor of the batch {self.batch}, got {self.parts}"
            )
        if not self.lr > 0:
            raise ValueError(f"lr: expected a number above 0, got {self.lr}")
        for name in ("power", "weight_decay", "head_factor"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected 0 up to below 1, got {self.momentum}")
        if self.loss not in ("mean", "sum"):
            raise ValueError(f"loss: expected mean or sum, got {self.loss!r}")


class DivergedError(ArithmeticError):
    """The loss is no number any more."""


class _Scores(nn.Module):
    """A network whose forward returns all scores that have a loss."""

    def __init__(self, net: Segmenter) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W] to scores [N, classes, h, w], one or several."""
        all_scores: Callable[[Tensor], list[Tensor]] | None = getattr(self.net, "all_scores", None)
        return [self.net(images)] if all_scores is None else all_scores(images)


class Trainer:
    """Trains a network, one step at a time.

    What step i does depends on the network's weights, the optimiser's momentum, the recipe and i
    alone: samples are numbered, and what layers draw (dropout) is seeded anew for each part of each
    batch. So a training that goes on from a checkpoint gives the bits that it would have given, on
    the CPU with the same number of threads; and P processes do what one does with P parts, up to
    the rounding of sums. Normalisation that learns statistics of batches takes them from a part;
    on CUDA from that part in all processes.

    Args:
        net: the network.
        photos: what it learns.
        recipe: how.
        processes: which one of them this is.
        workers: processes that read photos ahead; 0: none.

    Raises:
        ValueError: the recipe's parts cannot be shared by the processes, or the network cannot.
    """

    def __init__(
        self,
        net: Segmenter,
        photos: LabelledPhotos,
        recipe: Recipe,
        *,
        processes: Processes | None = None,
        workers: int = 0,
    ) -> None:
        self.processes = processes or Processes()
        if recipe.parts % self.processes.count:
            raise ValueError(
                f"parts: expected a multiple of the {self.processes.count} processes, got "
                f"{recipe.parts}"
            )
        self.net = net.to(self.processes.device)
        self.recipe = recipe
        self.photos = photos
        self.workers = workers
        self.iteration = 0
        self.optimizer = torch.optim.SGD(
            parameter_groups(net, recipe.lr, recipe.weight_decay, recipe.head_factor),
            lr=recipe.lr,
            momentum=recipe.momentum,
        )
        self._scores = self.processes.share(_Scores(self.net))
        self._samples: Iterator[tuple[Tensor, Tensor]] | None = None

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.iteration >= self.recipe.iterations

    @property
    def lr(self) -> float:
        """The learning rate of body weights in the next step."""
        return poly(self.recipe.lr, self.iteration, self.recipe.iterations, power=self.recipe.power)

    def step(self, stop: bool = False) -> tuple[float, bool]:
        """Does one step.

        Args:
            stop: whether this process has been asked to stop.

        Returns:
            The loss of the batch before the step, and whether any process has been asked to stop:
            all processes get the same.

        Raises:
            DivergedError: the loss is infinite or NaN; weights are as they were.
            PictureError: a photo cannot be used.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        self._scores.train()
        own = self.recipe.parts // self.processes.count
        batch = [next(self._rows()) for _ in range(own)]
        divisors: list[float] = []
        total = 0.0
        for number, (photos, labels) in enumerate(batch):
            with self._drawing(self.processes.rank * own + number), self._sync(number == own - 1):
                device = self.processes.device
                images = self.net.preprocessing(photos.to(device))
                scores = self._scores(images)
                divisors = divisors or self._divisors(batch, scores)
                loss = torch.zeros((), device=device)
                for score, divisor in zip(scores, divisors, strict=True):
                    small = shrink_labels(labels.to(device), score.shape[-2:])
                    loss = loss + summed_loss(score, small, self.photos.ignore) / divisor
                # Gradients become means over the processes; they are to be sums.
                (loss * self.processes.count).backward()
            total += float(loss.detach())
        mean, stops = self.processes.sum([total, float(stop)]).tolist()
        if not math.isfinite(mean):
            raise DivergedError(
                f"the loss is {mean} at iteration {self.iteration}: a smaller learning rate?"
            )
        self.optimizer.step()
        self.iteration += 1
        return mean, stops > 0

    def _divisors(self, batch: list[tuple[Tensor, Tensor]], scores: list[Tensor]) -> list[float]:
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

    @contextmanager
    def _drawing(self, part: int) -> Iterator[None]:
        """What layers draw depends on the seed, the iteration and the part of the batch alone."""
        seeds = np.random.SeedSequence([self.recipe.seed, 2, self.iteration, part])
        device = self.processes.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(seeds.generate_state(1, np.uint32)[0]))
            yield

    def _sync(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are shared after the last part only."""
        if last or not isinstance(self._scores, DistributedDataParallel):
            return nullcontext()
        shared: AbstractContextManager[None] = self._scores.no_sync()
        return shared

    def _rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's parts of all batches from the next one on."""
        if self._samples is None:
            recipe = self.recipe
            size = recipe.batch // recipe.parts
            count, rank = self.processes.count, self.processes.rank
            loader = DataLoader(
                Samples(self.photos, recipe.augmentation, recipe.seed),
                batch_sampler=_Endless(
                    lambda: numbers_of(recipe.parts, size, self.iteration, rank, count)
                ),
                num_workers=self.workers,
                collate_fn=stack,
            )
            self._samples = iter(loader)
        return self._samples

    def state(self) -> dict[str, Any]:
        """All that the training needs to go on: tensors and plain values."""
        return {
            "iteration": self.iteration,
            "recipe": asdict(self.recipe),
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken.

        Raises:
            ValueError: it is of another recipe or network.
        """
        before, now = state["recipe"], asdict(self.recipe)
        for name in (one.name for one in fields(Recipe)):
            if before.get(name) != now[name]:
                raise ValueError(
                    f"{name}: expected {before.get(name)!r}, as the checkpoint has it, got "
                    f"{now[name]!r}"
                )
        try:
            self.net.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"the checkpoint is of another network: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = int(state["iteration"])
        self._samples = None


class _Endless:
    """Lists of numbers without end, begun anew each time."""

    def __init__(self, begin: Callable[[], Iterator[list[int]]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[list[int]]:
        return self.begin()
