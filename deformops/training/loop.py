"""The loop that trains a network, whatever it learns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from deformops.training.data import Samples, numbers_of
from deformops.training.processes import Processes

Sample = TypeVar("Sample")
Part = TypeVar("Part")


@dataclass(frozen=True)
class LoopRecipe(ABC):
    """What every training decides beside the network and the data.

    Attributes:
        iterations: steps of the optimiser.
        batch: photos in each step, of all processes together.
        parts: so many parts of a batch go through the network one after another, or in several
            processes at once; gradients are added. Memory is for one part.
        lr: the learning rate that the schedule begins with.
        momentum: of the optimiser.
        weight_decay: the factor of L2.
        clip: gradients longer than this, all parameters taken together, are made so long; None:
            none is.
        seed: of the samples and of what layers draw.

    Raises:
        ValueError: a number is out of range.
    """

    iterations: int
    batch: int = 10
    parts: int = 1
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float | None = None
    seed: int = 0

    #: Attributes that must not be negative.
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("weight_decay",)

    def __post_init__(self) -> None:
        """Raises ValueError for what is no recipe."""
        for name, least in (("iterations", 1), ("batch", 1), ("parts", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.batch % self.parts:
            raise ValueError(
                f"parts: expected a divisor of the batch {self.batch}, got {self.parts}"
            )
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value}")
        for name in self.NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected 0 up to below 1, got {self.momentum}")

    @abstractmethod
    def rate(self, iteration: int) -> float:
        """The learning rate of a step, after so many."""


class DivergedError(ArithmeticError):
    """The loss is no number any more."""


class TrainingLoop(ABC, Generic[Sample, Part]):
    """Trains a network, one step at a time; what its loss is, is said by those that derive from it.

    What step i does depends on the network's weights, the optimiser's momentum, the recipe and i
    alone: samples are numbered, and what layers draw (dropout) is seeded anew for each part of each
    batch. So a training that goes on from a checkpoint gives the bits that it would have given, on
    the CPU with the same number of threads; and P processes do what one does with P parts, up to
    the rounding of sums. Normalisation that learns statistics of batches takes them from a part;
    on CUDA from that part in all processes.

    Args:
        net: what is trained and saved.
        losses: a module around it whose forward is all that a step needs of it.
        samples: numbered without end.
        collate: makes a part of a batch of its samples.
        groups: of the parameters, each with the "factor" of its learning rate.
        recipe: how it learns.
        frozen: modules of the network that stay as they are, bit by bit: they need no gradients,
            and see photos as in test.
        processes: which one of them this is.
        workers: processes that read photos ahead; 0: none.

    Raises:
        ValueError: the recipe's parts cannot be shared by the processes, or the network cannot.
    """

    net: nn.Module
    recipe: LoopRecipe

    def __init__(
        self,
        net: nn.Module,
        losses: nn.Module,
        samples: Samples[Sample],
        collate: Callable[[Sequence[Sample]], Part],
        groups: Callable[[], list[dict[str, Any]]],
        recipe: LoopRecipe,
        *,
        frozen: Iterable[nn.Module] = (),
        processes: Processes | None = None,
        workers: int = 0,
    ) -> None:
        self.processes = processes or Processes()
        if recipe.parts % self.processes.count:
            raise ValueError(
                f"parts: expected a multiple of the {self.processes.count} processes, got "
                f"{recipe.parts}"
            )
        net.to(self.processes.device)
        self.net = net
        self.recipe = recipe
        self._frozen = [module.requires_grad_(False) for module in frozen]
        self.workers = workers
        self.iteration = 0
        self.losses: dict[str, float] = {}
        """Of the last step, by their names."""
        self.optimizer = torch.optim.SGD(groups(), lr=recipe.lr, momentum=recipe.momentum)
        self._shared = self.processes.share(losses)
        self._samples = samples
        self._collate = collate
        self._ahead: Iterator[Part] | None = None

    @abstractmethod
    def loss_of(self, batch: Sequence[Part]) -> Callable[[Part], dict[str, Tensor]]:
        """What a part of a batch adds to the losses of the batch.

        Args:
            batch: the parts of this process.

        Returns:
            A function of one of these parts: losses by their names, to be summed.
        """

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.iteration >= self.recipe.iterations

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.recipe.rate(self.iteration)

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
        self._shared.train()
        for module in self._frozen:
            module.eval()
        own = self.recipe.parts // self.processes.count
        batch = [next(self._rows()) for _ in range(own)]
        loss_of = self.loss_of(batch)
        totals: dict[str, float] = {}
        for number, part in enumerate(batch):
            with self._drawing(self.processes.rank * own + number), self._sync(number == own - 1):
                losses = loss_of(part)
                # Gradients become means over the processes; they are to be sums.
                (sum_of(losses) * self.processes.count).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + float(loss.detach())
        *summed, stops = self.processes.sum([*totals.values(), float(stop)]).tolist()
        total = sum(summed)
        if not math.isfinite(total):
            raise DivergedError(
                f"the loss is {total} at iteration {self.iteration}: a smaller learning rate?"
            )
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.iteration += 1
        self.losses = dict(zip(totals, summed, strict=True))
        return total, stops > 0

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
        if last or not isinstance(self._shared, DistributedDataParallel):
            return nullcontext()
        shared: AbstractContextManager[None] = self._shared.no_sync()
        return shared

    def _rows(self) -> Iterator[Part]:
        """This process's parts of all batches from the next one on."""
        if self._ahead is None:
            parts, size = self.recipe.parts, self.recipe.batch // self.recipe.parts
            count, rank = self.processes.count, self.processes.rank
            loader = DataLoader(
                self._samples,
                batch_sampler=_Endless(
                    lambda: numbers_of(parts, size, self.iteration, rank, count)
                ),
                num_workers=self.workers,
                collate_fn=self._collate,
            )
            self._ahead = iter(loader)
        return self._ahead

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
        for name in (one.name for one in fields(self.recipe)):
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
        self._ahead = None


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """The sum of losses, each a number."""
    return torch.stack(list(losses.values())).sum()


class _Endless:
    """Lists of numbers without end, begun anew each time."""

    def __init__(self, begin: Callable[[], Iterator[list[int]]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[list[int]]:
        return self.begin()
