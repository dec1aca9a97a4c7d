"""What is learned how fast: parameter groups, and the schedule of the learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

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
        Groups for `torch.optim.SGD`; "name" says which one it is, and "factor" by what a learning
        rate has to be multiplied for it.

    Raises:
        ValueError: nothing can be learned.

    Source: `lr_mult` and `decay_mult` in the published train.prototxt of both.
    """
    new = {id(parameter) for module in net.head() for parameter in module.parameters()}
    groups: dict[str, list[nn.Parameter]] = {}
    for module in net.modules():
        scales = isinstance(module, nn.modules.batchnorm._NormBase)
        for name, parameter in module.named_parameters(recurse=False):
            kind = "biases" if name.endswith("bias") else "scales" if scales else "weights"
            place = "head" if id(parameter) in new else "body"
            if parameter.requires_grad:
                members = groups.setdefault(f"{place} {kind}", [])
                if not any(parameter is member for member in members):
                    members.append(parameter)
    if not groups:
        raise ValueError("net: expected parameters that need gradients, got none")
    result = []
    for group, parameters in groups.items():
        place, kind = group.split()
        factor = (head_factor if place == "head" else 1.0) * (2.0 if kind == "biases" else 1.0)
        decay = weight_decay if kind == "weights" else 0.0
        rates = {"lr": lr * factor, "factor": factor, "weight_decay": decay}
        result.append({"params": parameters, "name": group, **rates})
    return result
