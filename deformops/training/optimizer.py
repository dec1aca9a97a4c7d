"""What is learned how fast: parameter groups, and the schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from deformops.nets.detection import Detector
from deformops.nets.segmenter import Segmenter


def poly(base: float, iteration: int, iterations: int, power: float = 0.9) -> float:
    """The learning rate of the poly schedule.

        base * (1 - iteration / iterations) ^ power

    Args:
        base: the first.
        iteration: how many are done, up to `iterations`.
        iterations: how many there are.
        power: 0.9 in DeepLab; 0 keeps it constant, 1 makes it fall along a line.

    Returns:
        The rate, `base` for the first iteration.

    Raises:
        ValueError: an iteration out of range.

    Source: Caffe's `poly`, as in DeepLab (2016), section 4.1.2.
    """
    if not 0 <= iteration <= iterations or iterations < 1:
        raise ValueError(f"iteration: expected 0 to {max(iterations, 1)}, got {iteration}")
    return base * (1 - iteration / iterations) ** power


def step_down(
    base: float, iteration: int, iterations: int, drops: Sequence[float], factor: float = 0.1
) -> float:
    """The learning rate of a schedule that falls at a few places, and is constant between them.

    Args:
        base: the first.
        iteration: how many are done.
        iterations: how many there are.
        drops: where it falls, as fractions of all: 0.75 in py-faster-rcnn.
        factor: what it is multiplied by each time.

    Returns:
        The rate.

    Source: Caffe's `step` and `multistep`, as in py-faster-rcnn.
    """
    return base * factor ** sum(iteration >= drop * iterations for drop in drops)


@dataclass(frozen=True)
class Rates:
    """How fast a kind of parameters learns, and how much of it decays.

    Attributes:
        factor: of the learning rate.
        decay: the factor of L2.
    """

    factor: float
    decay: float


def grouped(
    net: nn.Module,
    lr: float,
    kinds: Mapping[str, Rates],
    places: Sequence[tuple[str, nn.Module, float]] = (),
) -> list[dict[str, Any]]:
    """The parameters of a network that need gradients, by what they are and where.

    Args:
        net: the network.
        lr: the learning rate.
        kinds: of "weights", "biases" and "scales" (of normalisation).
        places: names of modules, which may share one, and factors of their rates; the rest of the
            network is its "body", with the factor 1.

    Returns:
        Groups for `torch.optim.SGD`; "name" says which one it is, and "factor" by what a learning
        rate has to be multiplied for it.

    Raises:
        ValueError: nothing can be learned.
    """
    place_of = {
        id(parameter): (name, factor)
        for name, module, factor in places
        for parameter in module.parameters()
    }
    groups: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for module in net.modules():
        normalises = isinstance(module, nn.modules.batchnorm._NormBase)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            kind = "biases" if name.endswith("bias") else "scales" if normalises else "weights"
            place, factor = place_of.get(id(parameter), ("body", 1.0))
            factor, decay = factor * kinds[kind].factor, kinds[kind].decay
            rates = {"lr": lr * factor, "factor": factor, "weight_decay": decay}
            group = {"params": [], "name": f"{place} {kind}", **rates}
            groups.setdefault(f"{place} {kind}", group)["params"].append(parameter)
    if not groups:
        raise ValueError("net: expected parameters that need gradients, got none")
    return list(groups.values())


def parameter_groups(
    net: Segmenter, lr: float, weight_decay: float = 5e-4, head_factor: float = 10.0
) -> list[dict[str, Any]]:
    """The parameters of a network as FCN and DeepLab train them.

    Weights decay. Biases do not, and learn twice as fast. The layers that `net.head()` names are
    new, and learn `head_factor` times as fast. Scales of normalisation neither decay nor hurry.
    What needs no gradient is left out.

    Args:
        net: the network.
        lr: of the weights.
        weight_decay: the factor of L2.
        head_factor: of the head's rates.

    Returns:
        Groups for `torch.optim.SGD`, as `grouped` returns them.

    Raises:
        ValueError: nothing can be learned.

    Source: `lr_mult` and `decay_mult` in the published train.prototxt of both.
    """
    kinds = {
        "weights": Rates(1.0, weight_decay),
        "biases": Rates(2.0, 0.0),
        "scales": Rates(1.0, 0.0),
    }
    return grouped(net, lr, kinds, [("head", module, head_factor) for module in net.head()])


def detector_groups(net: Detector, lr: float, weight_decay: float = 5e-4) -> list[dict[str, Any]]:
    """The parameters of a detector as py-faster-rcnn and the deformable networks train them.

    Weights decay, and so do biases, which learn twice as fast. The layers that `net.slow_layers()`
    names learn slowlier. Scales of normalisation neither decay nor hurry. What needs no gradient is
    left out.

    Args:
        net: the network.
        lr: of the weights.
        weight_decay: the factor of L2.

    Returns:
        Groups for `torch.optim.SGD`, as `grouped` returns them.

    Raises:
        ValueError: nothing can be learned.

    Source: `lr_mult` in the published train.prototxt of py-faster-rcnn.
    """
    kinds = {
        "weights": Rates(1.0, weight_decay),
        "biases": Rates(2.0, weight_decay),
        "scales": Rates(1.0, 0.0),
    }
    return grouped(net, lr, kinds, [("slow", module, by) for module, by in net.slow_layers()])
