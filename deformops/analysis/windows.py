"""The windows of layers: where convolution and pooling look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from deformops.nn import BilinearDeconv2d, Dropout, FrozenBatchNorm2d, LocalResponseNorm

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pooling layer; each entry one number or (y, x).

    Output position ``p`` and tap ``i`` look at ``p * stride - padding + i * dilation``.

    Args:
        kernel_size: taps on each axis.
        stride: pixels of the input from one output to the next.
        padding: pixels added on each side.
        dilation: pixels from one tap to the next.

    Raises:
        ValueError: an entry is out of range; the message names it.
    """

    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    dilation: int | Pair = 1

    def __post_init__(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
            if len(both) != 2 or any(not isinstance(v, int) or v < least for v in both):
                raise ValueError(
                    f"{name}: expected one or two whole numbers of at least {least}, got {value!r}"
                )

    @property
    def taps(self) -> int:
        """How many places of the input an output looks at."""
        return self.axis(0)[0] * self.axis(1)[0]

    def axis(self, axis: int) -> tuple[int, int, int, int]:
        """Returns kernel size, stride, padding and dilation on axis 0 (y) or 1 (x)."""
        entries = (self.kernel_size, self.stride, self.padding, self.dilation)
        kernel, stride, padding, dilation = (
            entry if isinstance(entry, int) else entry[axis] for entry in entries
        )
        return kernel, stride, padding, dilation


Layers = nn.Module | Window | Iterable[nn.Module | Window]

#: Layers that leave every value at its place. Statistics over places are not counted.
IN_PLACE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Softmax2d,
    nn.ChannelShuffle,
    Dropout,
    FrozenBatchNorm2d,
)

#: Layers whose `kernel_size` is that of what an input reaches, not of what an output looks at.
SPREADING = (BilinearDeconv2d, nn.MaxUnpool2d, nn.Fold, nn.Unfold)


def windows_of(layers: Layers) -> list[Window]:
    """Reads the windows off layers that come one after the other.

    Known are, from torch and from this package: convolution and pooling (of torchvision and others
    too: anything with a `kernel_size`, a `stride` and a `padding`), `nn.Sequential` of such, and
    layers that leave values at their places (activations, dropout, normalisation), which have no
    window. Of a deformable layer it is the window of regular taps.

    Args:
        layers: a module, a `Window`, or several of them from the input to the output.

    Returns:
        The windows from the input to the output.

    Raises:
        TypeError: a layer has no window that is the same at every place (transposed convolution,
            resizing), or is a module that may do anything; `trace_receptive_fields` looks into
            such.
    """
    return list(_windows(layers))


def _windows(layers: Layers) -> Iterator[Window]:
    if isinstance(layers, Window):
        yield layers
    elif isinstance(layers, nn.Module):
        yield from _of_module(layers)
    else:
        for layer in layers:
            yield from _windows(layer)


def _of_module(layer: nn.Module) -> Iterator[Window]:
    if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        yield from _windows(list(layer))
    elif isinstance(layer, LocalResponseNorm):
        if layer.form == "within":
            yield Window(layer.size, padding=layer.size // 2)
    elif isinstance(layer, IN_PLACE) or _is_activation(layer):
        return
    elif _has_window(layer):
        yield window_of(layer)
    else:
        raise TypeError(
            "layers: expected convolution, pooling and layers that leave values in place, got "
            f"{type(layer).__name__}, which may look anywhere; trace_receptive_fields follows it"
        )


def _is_activation(layer: nn.Module) -> bool:
    of_torch = type(layer).__module__ == nn.ReLU.__module__
    return of_torch and not isinstance(layer, nn.MultiheadAttention)


def _has_window(layer: nn.Module) -> bool:
    """Whether a layer has one window, the same for all places."""
    named = all(hasattr(layer, name) for name in ("kernel_size", "stride", "padding"))
    spreads = isinstance(layer, SPREADING) or getattr(layer, "transposed", False)
    return named and not spreads


def window_of(layer: nn.Module) -> Window:
    """Reads the window off one layer of convolution or pooling.

    Raises:
        ValueError: it has none for two axes.
    """
    kernel, stride, dilation = (
        _pair(name, getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")
    )
    padding = getattr(layer, "padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # the smaller half comes before
        padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    return Window(kernel, stride, _pair("padding", padding), dilation)


def _pair(name: str, value: object) -> Pair:
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int) for v in both):
        raise ValueError(f"{name}: expected one or two whole numbers, got {value!r}")
    y, x = both
    return int(str(y)), int(str(x))
