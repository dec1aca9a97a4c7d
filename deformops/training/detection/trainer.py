"""The training of a detector, all at once or one of its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deformops.nets.detection import Batch, Detector, Proposals, TwoStageDetector, stack_targets
from deformops.training.data import Samples
from deformops.training.detection.augmentation import side_by_side
from deformops.training.detection.scenes import Sample, Scenes, Variation, proposals_of
from deformops.training.loop import LoopRecipe, TrainingLoop
from deformops.training.optimizer import detector_groups, step_down
from deformops.training.processes import Processes

#: What is learned: both stages together, or one of them.
STAGES = ("joint", "proposals", "head")


@dataclass(frozen=True)
class DetectionRecipe(LoopRecipe):
    """All that decides, beside the network and the photos, what a training comes to.

    Attributes:
        drops: where the learning rate falls to a tenth, as fractions of all steps.
        warm_up: so many steps are the first of all, at a tenth of the rate.
        stage: "joint" is approximate joint training, and the only one of detectors of one stage;
            "proposals" trains the first stage alone, "head" the second on proposals that are given.
        keep_first: the layers that published training leaves as they were trained before,
            `Trunk.first_layers()`, stay so.
        keep_shared: all layers that both stages share stay as they are.
        variation: what happens to photos first.

    Raises:
        ValueError: a number is out of range.
    """

    batch: int = 2
    drops: tuple[float, ...] = (0.75,)
    warm_up: int = 0
    stage: str = "joint"
    keep_first: bool = True
    keep_shared: bool = False
    variation: Variation = field(default_factory=Variation)

    NOT_NEGATIVE = ("weight_decay", "warm_up")

    def __post_init__(self) -> None:
        """Raises ValueError for what is no recipe."""
        super().__post_init__()
        if self.stage not in STAGES:
            raise ValueError(f"stage: expected {' or '.join(STAGES)}, got {self.stage!r}")
        if any(not 0 < drop <= 1 for drop in self.drops):
            raise ValueError(f"drops: expected fractions of all steps, got {list(self.drops)}")

    def rate(self, iteration: int) -> float:
        """The learning rate of weights in a step, after so many."""
        if iteration < self.warm_up:
            return 0.1 * self.lr
        return step_down(self.lr, iteration, self.iterations, self.drops)


class _Losses(nn.Module):
    """A detector whose forward returns the losses of a stage."""

    def __init__(self, net: Detector, stage: str) -> None:
        super().__init__()
        self.net = net
        if stage != "joint" and not isinstance(net, TwoStageDetector):
            raise ValueError(f"stage: expected joint for a detector of one stage, got {stage!r}")
        self.net = net
        self.stage = stage

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        targets: Sequence[dict[str, Tensor]],
        scales: Tensor,
        proposals: Proposals | None,
    ) -> dict[str, Tensor]:
        """Losses by their names; arguments are those of `Detector.forward`."""
        if self.stage == "joint":
            losses = self.net(images, sizes, targets, image_scales=scales)
            assert isinstance(losses, dict)
            return losses
        assert isinstance(self.net, TwoStageDetector)
        batch, objects = Batch(images, sizes, scales), stack_targets(targets, like=images)
        if proposals is None:
            return self.net.proposal_losses(batch, objects)
        return self.net.head_losses(batch, proposals, objects)


class DetectionTrainer(TrainingLoop[Sample, list[Sample]]):
    """Trains a detector, one step at a time; see `TrainingLoop`.

    The losses of a batch are the means of those of its parts, each of which is that of the detector
    for the photos of the part.

    Args:
        net: the detector.
        scenes: what it learns.
        recipe: how.
        processes: which one of them this is.
        workers: processes that read photos ahead; 0: none.

    Raises:
        ValueError: the recipe's parts cannot be shared by the processes, or the network cannot, or
            has not this stage.
    """

    net: Detector
    recipe: DetectionRecipe

    def __init__(
        self,
        net: Detector,
        scenes: Scenes,
        recipe: DetectionRecipe,
        *,
        processes: Processes | None = None,
        workers: int = 0,
    ) -> None:
        self.scenes = scenes
        super().__init__(
            net,
            _Losses(net, recipe.stage),
            Samples(scenes, recipe.variation, recipe.seed),
            list,
            lambda: detector_groups(net, recipe.lr, recipe.weight_decay),
            recipe,
            frozen=kept_layers(net, recipe),
            processes=processes,
            workers=workers,
        )

    def loss_of(self, batch: Sequence[list[Sample]]) -> Callable[[list[Sample]], dict[str, Tensor]]:
        """The losses of the detector for the photos of a part."""
        device = self.processes.device

        def loss_of(part: list[Sample]) -> dict[str, Tensor]:
            photos = [sample.photo.to(device) for sample in part]
            images, sizes = side_by_side(photos, self.net.preprocessing)
            scenes = [sample.scene for sample in part]
            targets = [
                {"boxes": one.boxes.to(device), "labels": one.labels.to(device)} for one in scenes
            ]
            scales = torch.tensor([sample.scale for sample in part], device=device)
            given = self.recipe.stage == "head"
            proposals = proposals_of(scenes, like=images) if given else None
            losses = self._shared(images, sizes, targets, scales, proposals)
            return {name: loss / self.recipe.parts for name, loss in losses.items()}

        return loss_of


def kept_layers(net: Detector, recipe: DetectionRecipe) -> Iterator[nn.Module]:
    """The layers that a training leaves as they are, or does not see."""
    if recipe.keep_first:
        yield from net.trunk.first_layers()
    if isinstance(net, TwoStageDetector):
        if recipe.keep_shared:
            yield from net.shared_layers()
        if recipe.stage == "proposals":
            yield from net.trunk.deeper_layers()
            yield net.roi_head
        if recipe.stage == "head":
            yield net.rpn
