"""How the weights of convolutions and fully connected layers start."""

from __future__ import annotations

from typing import Literal

from torch import nn


def he(layer: nn.Conv2d | nn.Linear, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Normally distributed weights that keep the variance through a ReLU; biases 0."""
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def normal(layer: nn.Conv2d | nn.Linear, std: float, bias: float = 0.0) -> None:
    """Normally distributed weights, and biases of one value."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Zeros."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
