"""Layers that predict offsets start at zero."""

from __future__ import annotations

from torch import nn


class StartsAtZero(nn.Module):
    """A layer whose parameters start at zero, whoever resets it: its owner or a framework."""

    def reset_parameters(self) -> None:
        """Fills all parameters with zeros."""
        for parameter in self.parameters(recurse=False):
            nn.init.zeros_(parameter)


class ZeroConv2d(StartsAtZero, nn.Conv2d):
    """A convolution that starts at zero."""


class ZeroLinear(StartsAtZero, nn.Linear):
    """A fully connected layer that starts at zero."""
