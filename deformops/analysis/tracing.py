"""What every layer of a network can depend on, found while the network runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from deformops.analysis.dilation import effective_dilation
from deformops.analysis.footprint import Footprint, Mark
from deformops.analysis.rules import DEFORMABLE, FACTORIES, Call, LostError, follow, window_of_call
from deformops.analysis.windows import Window, window_of


@dataclass(frozen=True)
class DeformableCall:
    """One run of a deformable convolution in a network.

    Attributes:
        name: of its module in the network; ":2" is added for a module's second run, and so on.
        window: of its regular taps.
        offset: [2 * G * K, oH, oW], of the first image; float32 on the CPU.
        groups: G, of channels with offsets of their own.
        input: what is known of the map that it reads.
        output: and of the one that it writes.
        grids: where the cells of these two maps lie; spaced evenly if that is not known.
    """

    name: str
    window: Window
    offset: Tensor
    groups: int
    input: Mark
    output: Mark
    grids: tuple[Footprint, Footprint]

    @property
    def module(self) -> tuple[str, int]:
        """The name of its module, and the how many-th run of that it is, from 1 on."""
        name, _, run = self.name.partition(":")
        return name, int(run or 1)

    @property
    def effective_dilation(self) -> Tensor:
        """Of each place and group, [G, oH, oW]; see the function of this name."""
        kernel, dilation = (
            (self.window.axis(0)[entry], self.window.axis(1)[entry]) for entry in (0, 3)
        )
        return effective_dilation(self.offset[None], kernel, dilation)[0]


class TracedFields:
    """What the layers of a network can depend on of its input.

    Attributes:
        marks: by name of the module, what is known of what it returned last; "" is the network.
        deformable: the runs of deformable convolutions, in their order.
        size: of the input, height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.marks: dict[str, Mark] = {}
        self.deformable: list[DeformableCall] = []
        self.size = size

    def __getitem__(self, name: str) -> Footprint:
        """The footprint of what a module returned.

        Raises:
            ValueError: there is no such module, it did not run, or it could not be followed.
        """
        if name not in self.marks:
            ran = ", ".join(repr(one) for one in self.marks) or "none"
            raise ValueError(
                f"layer: expected one that ran and returned a map ({ran}), got {name!r}"
            )
        mark = self.marks[name]
        if mark.footprint is None:
            raise ValueError(
                f"layer {name!r}: its receptive field could not be followed: {mark.lost}"
            )
        return mark.footprint

    def stack_below(self, name: str, depth: int) -> list[DeformableCall]:
        """A deformable layer and those that its input went through, each below the one before.

        Args:
            name: of the layer.
            depth: how many at most, itself included.

        Returns:
            From the input to the output.

        Raises:
            ValueError: there is no such deformable layer.
        """
        names = [call.name for call in self.deformable]
        if name not in names:
            raise ValueError(f"layer: expected one of {', '.join(names)}, got {name!r}")
        stack = [self.deformable[names.index(name)]]
        while len(stack) < depth and stack[0].input.passed:
            stack.insert(0, self.deformable[max(stack[0].input.passed)])
        return stack


@torch.no_grad()
def trace_receptive_fields(model: nn.Module, *inputs: Any) -> TracedFields:
    """Runs a network and finds what every layer's values can depend on.

    Each operator is watched while it runs, whatever Python code calls it: convolution (transposed,
    dilated, deformable), pooling, resizing, padding, cutting, joining, sums of branches, everything
    that works value by value. What operators are given and return carries, for each row and column
    of its map, the first and last pixel of the input that they depend on. Deformable layers count
    with their regular taps and with what their offsets depend on; the statistics of normalisation
    do not count.

    The network runs once, in eval mode, without gradients. Tensors and network may be on the device
    "meta": then nothing is computed, and the input may be so large that no field meets its border.

    Args:
        model: any network.
        *inputs: what it is called with; tensors [..., H, W] of at least three dimensions are taken
            for images, which must be of one size.

    Returns:
        Boxes, by names of modules, and the runs of deformable layers. An operator that may look
        anywhere loses what it returns: asking for a layer behind it raises an error that names it.

    Raises:
        ValueError: there is no image, or there are some of several sizes.

    Example:
        >>> deconvolution = torch.nn.ConvTranspose2d(8, 3, 4, stride=2)
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), deconvolution)
        >>> trace_receptive_fields(net, torch.zeros(1, 3, 33, 33))[""].box((8, 9))
        (6, 6, 10, 10)
    """
    images = [one for one in tree_leaves(inputs) if isinstance(one, Tensor) and one.ndim >= 3]
    sizes = {(image.shape[-2], image.shape[-1]) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"inputs: expected images of one size, got {sorted(sizes) or 'none'}")
    traced = TracedFields(sizes.pop())
    tracer = _Tracer(traced, images)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with tracer.watching(model), tracer:
            model(*inputs)
    finally:
        for module in training:
            module.training = True
    return traced


class _Tracer(TorchDispatchMode):
    """Marks tensors with what they depend on."""

    def __init__(self, traced: TracedFields, images: Sequence[Tensor]) -> None:
        super().__init__()
        self.traced = traced
        self.marks = WeakTensorKeyDictionary()
        self.bases = WeakTensorKeyDictionary()  # of tensors that are a part of another
        self.running = [""]  # names of the modules that are running, from the outermost on
        self.recorded = [0]  # how many deformable runs there were when each began
        self.returned: dict[str, Tensor] = {}  # what modules returned last
        for image in images:
            dims = (image.ndim - 2, image.ndim - 1)
            self.marks[image] = Mark(Footprint.of_input(*traced.size, dims))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        schema = func._schema
        arguments = {entry.name: entry.default_value for entry in schema.arguments}
        arguments.update(zip(arguments, args, strict=False))
        arguments.update(kwargs or {})
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        call = Call(schema.name, arguments, outputs, [], torch.Tag.pointwise in func.tags)
        if outputs:
            shared = any(entry.alias_info is not None for entry in schema.returns)
            writes = schema.is_mutable
            self._note(call, writes=writes, views=shared and not writes)
        return result

    def _note(self, call: Call, *, writes: bool = False, views: bool = False) -> None:
        """Marks what a call returned.

        Args:
            call: which.
            writes: whether it changes one of its arguments.
            views: whether what it returns is a part of its first argument.
        """
        tensors = [one for one in tree_leaves(call.arguments) if isinstance(one, Tensor)]
        marked = [(tensor, self.marks[tensor]) for tensor in tensors if tensor in self.marks]
        own = call.arguments.get("self")
        if views and isinstance(own, Tensor):
            for one in call.outputs:
                self.bases[one] = self.bases.get(own, own)
        if not marked or call.name in FACTORIES:
            return
        passed = frozenset[int]().union(*(mark.passed for _, mark in marked))
        lost = next((mark.lost for _, mark in marked if mark.footprint is None), "")
        call.tracked = [(one, mark.footprint) for one, mark in marked if mark.footprint is not None]
        found: list[Footprint | None] = [None] * len(call.outputs)
        if not lost:
            try:
                found = list(follow(call))
            except LostError as error:
                lost = str(error)
        for one, footprint in zip(call.outputs, found, strict=True):
            self.marks[one] = Mark(footprint, lost, passed)
        if writes and own is not None and own in self.bases:
            base = self.bases[own]
            whole = base.shape == own.shape
            self.marks[base] = (
                self.marks[own] if whole else Mark(None, f"{call.name} writes a part of it", passed)
            )
        if call.name in DEFORMABLE and call["offset"] is not None:
            self._record(call)

    def _record(self, call: Call) -> None:
        """Adds a run of a deformable layer, and marks that what it returned went through it."""
        input, offset, output = call["input"], call["offset"], call.outputs[0]
        window, own = window_of_call(call), self.running[-1]
        unknown = Mark(None, "it was computed from nothing that depends on the input")
        before, after = (self.marks.get(tensor, unknown) for tensor in (input, output))
        number = len(self.traced.deformable)
        self.marks[output] = Mark(after.footprint, after.lost, after.passed | {number})
        grids = [
            mark.footprint
            or Footprint.spaced((tensor.shape[-2], tensor.shape[-1]), self.traced.size)
            for mark, tensor in ((before, input), (after, output))
        ]
        runs = sum(run.module[0] == own for run in self.traced.deformable)
        moves = offset.detach()[0]
        self.traced.deformable.append(
            DeformableCall(
                name=f"{own}:{runs + 1}" if runs else own,
                window=window,
                offset=moves if moves.is_meta else moves.float().cpu(),
                groups=offset.shape[1] // (2 * window.taps),
                input=before,
                output=after,
                grids=(grids[0], grids[1]),
            )
        )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, the names of running modules are known, and what they return is kept."""
        handles: list[RemovableHandle] = []
        for name, module in model.named_modules():
            handles += [
                module.register_forward_pre_hook(partial(self._begin, name)),
                module.register_forward_hook(self._end),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str, module: nn.Module, args: Any) -> None:
        self.running.append(name)
        self.recorded.append(len(self.traced.deformable))

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.returned[self.running[-1]] = output
            if self.recorded[-1] == len(self.traced.deformable) and is_foreign(module):
                self._foreign(module, args, output)
            if output in self.marks:
                self.traced.marks[self.running[-1]] = self.marks[output]
        self.running.pop()
        self.recorded.pop()

    def _foreign(self, module: nn.Module, args: Sequence[Any], output: Tensor) -> None:
        """Records a deformable layer of another package, whose operator torch does not see.

        Its offsets are its second argument, or what its layer `conv_offset` returned: offsets, and
        in layers of the second version a mask behind them.
        """
        window, groups = window_of(module), offset_groups(module)
        name = f"{self.running[-1]}.conv_offset".lstrip(".")
        offset = args[1] if len(args) > 1 else self.returned.get(name)
        count = 2 * groups * window.taps
        if isinstance(offset, Tensor) and offset.shape[1] in (count, count * 3 // 2):
            arguments = {"input": args[0], "offset": offset[:, :count], **vars(window)}
            self._note(Call(DEFORMABLE[0], arguments, [output], []))


def is_foreign(module: nn.Module) -> bool:
    """Whether a module looks like a deformable convolution: of mmcv, detectron2 or their kin."""
    named = all(hasattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation"))
    return named and (offset_groups(module) > 0)


def offset_groups(module: nn.Module) -> int:
    """How many groups of channels have offsets of their own, by any of its names; 0: no such."""
    for name in ("offset_groups", "deform_groups", "deformable_groups"):
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    return 0
