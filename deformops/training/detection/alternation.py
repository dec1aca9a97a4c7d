"""Four-step alternating training: two stages that end up with the same convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from deformops.nets.detection import Batch, Detector, TwoStageDetector
from deformops.training.detection.augmentation import resized, side_by_side
from deformops.training.detection.data import AnnotatedPhotos
from deformops.training.detection.trainer import DetectionRecipe
from deformops.training.processes import Processes

#: Whose fourth step; see `beginning`.
FOURTH_STEPS = ("py-faster-rcnn", "matlab")

State = Mapping[str, Tensor]


def four_steps(recipe: DetectionRecipe) -> list[DetectionRecipe]:
    """The recipes of the four steps.

        step   trains                    begins with                   keeps
        1      proposals and trunk       the initial weights           the first layers
        2      head and trunk            the initial weights again     the first layers
        3      proposals alone           the trunk and head of 2       the trunk
        4      head alone                all of 3                      the trunk

    Steps 2 and 4 learn from proposals that 1 and 3 have made, once and for all, and take half as
    many iterations.

    Args:
        recipe: of the first step.

    Returns:
        Four recipes.

    Source: Ren et al., Faster R-CNN (2015), section 3.2; py-faster-rcnn.
    """
    half = max(1, recipe.iterations // 2)
    return [
        replace(recipe, stage=stage, iterations=iterations, keep_shared=keep)
        for keep in (False, True)
        for stage, iterations in (("proposals", recipe.iterations), ("head", half))
    ]


def beginning(step: int, initial: State, before: State, net: Detector, fourth: str) -> State:
    """The weights that a step begins with.

    What is new in steps 3 and 4 is what it was in the beginning: no step has touched it.

    Args:
        step: 1 to 4.
        initial: those of the beginning.
        before: those after the step before.
        net: the network.
        fourth: what the head of step 4 is: "py-faster-rcnn": that of step 2, with new layers for
            scores and boxes; "matlab": all of that of step 2.

    Returns:
        A state of the network.

    Raises:
        ValueError: the detector has but one stage, or there is no such fourth step.
    """
    if fourth not in FOURTH_STEPS:
        raise ValueError(f"fourth: expected {' or '.join(FOURTH_STEPS)}, got {fourth!r}")
    if not isinstance(net, TwoStageDetector):
        raise ValueError("net: expected a detector of two stages, which can alternate")
    if step <= 2:
        return initial
    if step == 3 or fourth == "matlab":
        return before
    return {**before, **{name: initial[name] for name in _outputs(net)}}


def _outputs(net: TwoStageDetector) -> list[str]:
    """The names of the weights of the layers that say what a box shows and where it is."""
    last: list[nn.Module] = list(net.roi_head.output_layers())
    return [
        f"{name}.{entry}"
        for name, module in net.named_modules()
        if any(module is one for one in last)
        for entry in module.state_dict()
    ]


@torch.no_grad()
def make_proposals(
    net: TwoStageDetector,
    photos: AnnotatedPhotos,
    size: tuple[int, int],
    *,
    processes: Processes | None = None,
    on_photo: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """What the first stage of a detector proposes for each photo.

    As many as in training, of all anchors: nothing is dropped before suppression.

    Args:
        net: the detector; it is put into eval mode.
        photos: to be looked at.
        size: see `DetectionNetwork`.
        processes: the photos are shared by them; each gets the whole result.
        on_photo: called after each photo with its number, from 1 on, and how many this process has.

    Returns:
        [P, 4] for each photo, as (x1, y1, x2, y2) in its pixels, by falling score; on the CPU.
    """
    together = processes or Processes()
    device = next(net.parameters()).device
    usual, most = net.settings, net.settings.proposals[0]
    net.eval().settings = replace(usual, proposals=(most, most), proposals_before=(None, None))
    own = range(together.rank, len(photos), together.count)
    made: dict[int, Tensor] = {}
    for number, which in enumerate(own, 1):
        photo, scale = resized(photos[which][0].to(device), *size)
        images, sizes = side_by_side([photo], net.preprocessing)
        batch = Batch(images, sizes, torch.tensor([scale], device=device))
        (boxes,) = net.proposals(batch).as_list()
        made[which] = (boxes / scale).cpu()
        if on_photo is not None:
            on_photo(number, len(own))
    net.settings = usual
    everything = {which: boxes for part in together.gather(made) for which, boxes in part.items()}
    return [everything[which] for which in range(len(photos))]
