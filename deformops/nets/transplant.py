"""Bringing a classifier's weights into a dense network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deformops.nn import BilinearDeconv2d


@dataclass
class TransplantReport:
    """What became of every weight; names are the network's, those of `dropped` the file's.

    Args:
        loaded: taken as they were.
        reshaped: taken with another shape, as those of fully connected layers are.
        mismatched: not taken, since there are more or fewer outputs or values; with both shapes.
        missing: of the network, for which the file has nothing.
        dropped: of the file, for which the network has no place.
    """

    loaded: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded"]
        for name in ("reshaped", "mismatched", "missing", "dropped"):
            weights = getattr(self, name)
            if weights:
                lines.append(f"{len(weights)} {name}: {', '.join(weights)}")
        return "\n".join(lines)


def transplant(
    net: nn.Module, weights: Mapping[str, Tensor], *, reverse_channels: bool = False
) -> TransplantReport:
    """Copies weights into a network by name, and says what fitted.

    A weight of the network is looked for under its own name, then under what the network's
    `published_names()` say that files call its layer. With as many outputs and values but
    another shape it is viewed in the network's: (O, C * kH * kW) of a fully connected layer becomes
    (O, C, kH, kW) of a convolution. Fixed deconvolutions are left alone. Before all that, a
    network may adapt the weights: DeepLab decimates VGG-16's fc6 and fc7.

    Args:
        net: any module.
        weights: names and tensors, as `load_weights` returns them.
        reverse_channels: reverse the input channels of the first convolution: for weights that were
            trained on BGR in a network that sees RGB, and the other way round.

    Returns:
        The report.

    Raises:
        ValueError: nothing fits; the message names what was looked for.
    """
    published: Mapping[str, tuple[str, ...]] = _told(net, "published_names", dict)()
    weights = _told(net, "adapted", lambda kept: kept)(weights)
    fixed = {name for name, module in net.named_modules() if isinstance(module, BilinearDeconv2d)}
    report = TransplantReport()
    used = set()
    first = next((n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)), None)
    for name, own in net.state_dict().items():
        layer, _, entry = name.rpartition(".")
        candidates = [name, *(f"{other}.{entry}" for other in published.get(layer, ()))]
        source = next((candidate for candidate in candidates if candidate in weights), None)
        if source is not None:
            used.add(source)
        if layer in fixed:
            continue
        if source is None:
            if entry != "num_batches_tracked":
                report.missing.append(name)
            continue
        value = weights[source]
        if value.numel() != own.numel() or value.shape[:1] != own.shape[:1]:
            report.mismatched.append(f"{name} {list(own.shape)} from {list(value.shape)}")
            continue
        (report.loaded if value.shape == own.shape else report.reshaped).append(name)
        with torch.no_grad():
            value = value.reshape(own.shape)
            if reverse_channels and layer == first and entry == "weight":
                value = value.flip(1)
            own.copy_(value)
    report.dropped = [name for name in weights if name not in used]
    if not report.loaded and not report.reshaped:
        some = ", ".join(list(weights)[:5])
        raise ValueError(
            f"weights: expected names such as {', '.join(report.missing[:3])}, got {some}"
        )
    return report


def _told(net: nn.Module, method: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A method that networks of this package have, and others need not."""
    found: Callable[..., Any] = getattr(net, method, otherwise)
    return found


def convolutionalize(
    linear: nn.Linear, kernel_size: int | tuple[int, int], **window: Any
) -> nn.Conv2d:
    """The convolution that is a fully connected layer at every position.

    Args:
        linear: of the values [C, kH, kW] of a map, flattened.
        kernel_size: (kH, kW), or one number for both.
        **window: `stride`, `padding`, `dilation` of the convolution.

    Returns:
        A convolution with the same values: the weight [O, C * kH * kW] viewed as [O, C, kH, kW].

    Raises:
        ValueError: the inputs do not divide into such windows.

    Source: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation
    (2015), section 3.1.
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if linear.in_features % (height * width) != 0:
        raise ValueError(
            f"kernel_size: expected one whose taps divide {linear.in_features}, got "
            f"{(height, width)}"
        )
    conv = nn.Conv2d(
        linear.in_features // (height * width),
        linear.out_features,
        (height, width),
        bias=linear.bias is not None,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
        **window,
    )
    with torch.no_grad():
        conv.weight.copy_(linear.weight.reshape(conv.weight.shape))
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv


def decimated(
    fc6: tuple[Tensor, Tensor],
    fc7: tuple[Tensor, Tensor],
    *,
    channels: int = 512,
    kept: int = 1024,
    generator: torch.Generator | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Makes DeepLab's small fc6 and fc7 of VGG-16's large ones.

    Of the 7x7 taps of fc6 every third on each axis stays, and of its filters, and those of fc7, a
    random choice, the same for fc7's inputs as for fc6's outputs.

    Args:
        fc6: weight [4096, channels * 7 * 7] (or with these dimensions apart) and bias [4096].
        fc7: weight [4096, 4096] (or with two dimensions of 1 more) and bias [4096].
        channels: of the map that fc6 sees.
        kept: how many filters stay in each layer.
        generator: of the choice; None: torch's global one.

    Returns:
        Weights [kept, channels, 3, 3] and [kept, kept, 1, 1], each with its bias [kept].

    Raises:
        ValueError: `kept` is more than there are filters.

    Source: Chen et al., DeepLab (2017), section 4.1.
    """
    (weight6, bias6), (weight7, bias7) = fc6, fc7
    outputs6, outputs7 = weight6.shape[0], weight7.shape[0]
    if not 1 <= kept <= min(outputs6, outputs7):
        raise ValueError(f"kept: expected 1 to {min(outputs6, outputs7)}, got {kept}")
    side = round((weight6[0].numel() / channels) ** 0.5)
    filters6 = torch.randperm(outputs6, generator=generator)[:kept]
    filters7 = torch.randperm(outputs7, generator=generator)[:kept]
    weight6 = weight6.reshape(outputs6, channels, side, side)[filters6][..., ::3, ::3]
    weight7 = weight7.reshape(outputs7, outputs6)[filters7][:, filters6]
    return (weight6, bias6[filters6]), (weight7[..., None, None], bias7[filters7])
