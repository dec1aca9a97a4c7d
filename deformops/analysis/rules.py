"""Where operators look: on which rows and columns of its arguments a result depends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deformops.analysis.footprint import Footprint
from deformops.analysis.spans import Spans, chain, join, pooled, resized, spread, windowed
from deformops.analysis.windows import Window


class LostError(Exception):
    """Where a value looks cannot be said; the text says why."""


@dataclass
class Call:
    """One call of an operator.

    Attributes:
        name: "namespace::operator".
        arguments: by the names of its schema.
        outputs: its tensors.
        tracked: the tensors among its arguments that depend on the input, and their footprints.
        pointwise: whether it works place by place.
    """

    name: str
    arguments: dict[str, Any]
    outputs: list[Tensor]
    tracked: list[tuple[Tensor, Footprint]]
    pointwise: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def one(self) -> Footprint:
        """The footprint of the only tensor that depends on the input."""
        if len(self.tracked) != 1:
            raise LostError(f"{self.name} of several maps")
        return self.tracked[0][1]

    def map(self) -> Footprint:
        """The same, where rows and columns are the last two dimensions."""
        footprint, dims = self.one(), self.tracked[0][0].ndim
        if footprint.dims != (dims - 2, dims - 1):
            raise LostError(
                f"{self.name} of a map whose rows and columns are not its last dimensions"
            )
        return footprint


def follow(call: Call) -> list[Footprint]:
    """The footprints of what an operator returns.

    Raises:
        LostError: it is none of those that are known.
    """
    rule = RULES.get(call.name)
    if rule is not None:
        found = rule(call)
        return found if isinstance(found, list) else [found] * len(call.outputs)
    if call.pointwise or all(found.dims == (None, None) for _, found in call.tracked):
        return [_joined(call)] * len(call.outputs)
    raise LostError(f"{call.name} may look anywhere")


def _joined(call: Call) -> Footprint:
    """The union of all that depends on the input, place by place."""
    result = call.outputs[0]
    dims: list[int | None] = []
    for axis in (0, 1):
        found = {
            footprint.dims[axis] + result.ndim - tensor.ndim  # type: ignore[operator]
            for tensor, footprint in call.tracked
            if footprint.dims[axis] is not None
        }
        if len(found) > 1:
            raise LostError(f"{call.name} of maps whose rows and columns are different dimensions")
        dims.append(found.pop() if found else None)
    footprints = [footprint for _, footprint in call.tracked]
    sides = []
    for axis, dim in enumerate(dims):
        side = join([footprint.axis(axis) for footprint in footprints])
        sides.append(side if dim is None else side.widened(result.shape[dim]))
    return Footprint(sides[0], sides[1], (dims[0], dims[1]))


def _each_axis(call: Call, of_axis: Callable[[Spans, int, int], Spans]) -> Footprint:
    """Rows and columns that are made of those of one map: `of_axis(spans, count, axis)`."""
    footprint, result = call.map(), call.outputs[0]
    sides = [of_axis(footprint.axis(axis), result.shape[axis - 2], axis) for axis in (0, 1)]
    return Footprint(sides[0], sides[1], (result.ndim - 2, result.ndim - 1))


def _pair(value: Any) -> tuple[int, int]:
    """An option of an operator as (y, x)."""
    both = [value] if isinstance(value, int) else list(value)
    return int(both[0]), int(both[-1])


def window_of_call(call: Call) -> Window:
    """The window of an operator of convolution or pooling."""
    if "stride_h" in call.arguments:  # torchvision's deformable convolution
        both = (("stride_h", "stride_w"), ("pad_h", "pad_w"), ("dilation_h", "dilation_w"))
        stride, padding, dilation = ((int(call[y]), int(call[x])) for y, x in both)
    else:
        stride = _pair(call["stride"] or call["kernel_size"])
        padding, dilation = _pair(call["padding"]), _pair(call.arguments.get("dilation", 1))
    weight = call.arguments.get("weight")
    kernel = _pair(call["kernel_size"]) if weight is None else tuple(weight.shape[-2:])
    return Window(_pair(kernel), stride, padding, dilation)


def _windowed(call: Call) -> Footprint:
    if call.outputs[0].ndim not in (3, 4):
        raise LostError(f"{call.name} on {call.outputs[0].ndim - 2} axes")
    window = window_of_call(call)
    look = spread if call.arguments.get("transposed", False) else windowed
    return _each_axis(call, lambda spans, count, axis: look(spans, count, *window.axis(axis)))


def _deformable(call: Call) -> Footprint:
    """The window of regular taps, and what the offsets depend on that move them."""
    regular = _windowed(
        replace(call, tracked=[(t, f) for t, f in call.tracked if t is call["input"]])
    )
    pairs = [(call.outputs[0], regular)]
    pairs += [(tensor, found) for tensor, found in call.tracked if tensor is not call["input"]]
    return _joined(replace(call, tracked=pairs))


def _resize(taps: str) -> Callable[[Call], Footprint]:
    def rule(call: Call) -> Footprint:
        factors = (call.arguments.get("scales_h"), call.arguments.get("scales_w"))

        def of_axis(spans: Spans, count: int, axis: int) -> Spans:
            factor = factors[axis]
            step = 1 / factor if factor else len(spans) / count
            corners = bool(call.arguments.get("align_corners", False))
            return resized(spans, count, step, corners=corners, taps=taps)

        return _each_axis(call, of_axis)

    return rule


def _pad(call: Call) -> Footprint:
    """Padding of any kind: [left, right, top, bottom, ...], from the last dimension on."""
    sizes = call["pad" if "pad" in call.arguments else "padding"]
    footprint, shape = call.one(), call["self"].shape
    for axis, dim in enumerate(footprint.dims):
        from_behind = 0 if dim is None else len(shape) - 1 - dim
        if dim is None or 2 * from_behind >= len(sizes):
            continue
        index = torch.arange(call.outputs[0].shape[dim]) - sizes[2 * from_behind]
        count, at = shape[dim], index
        if "reflection" in call.name:
            index = (count - 1) - ((index.abs() - (count - 1)).abs())
        elif "replication" in call.name:
            index = index.clamp(0, count - 1)
        footprint = footprint.over(axis, footprint.axis(axis).read(index[:, None], at), dim)
    return footprint


def _reduce(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    call.one()
    dims = call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(tensor.ndim))
    gone = sorted(dim % tensor.ndim for dim in dims)
    keep = bool(call.arguments.get("keepdim", False))
    for axis, dim in enumerate(footprint.dims):
        if dim is None:
            continue
        spans = footprint.axis(axis).whole() if dim in gone else footprint.axis(axis)
        left = dim if keep else dim - sum(one < dim for one in gone)
        footprint = footprint.over(axis, spans, None if dim in gone and not keep else left)
    return footprint


def _reshape(call: Call) -> Footprint:
    """Rows and columns must stay dimensions of their own, unless there is only one."""
    tensor, footprint = call.tracked[0]
    old, new = tensor.shape, call.outputs[0].shape
    free = list(range(len(new)))
    for axis, dim in enumerate(footprint.dims):
        if dim is None:
            continue
        before = old[:dim].numel()
        found = [at for at in free if new[at] == old[dim] and new[:at].numel() == before]
        if not found and old[dim] > 1:
            raise LostError(f"{call.name} of rows or columns together with other dimensions")
        if found:
            free.remove(found[0])
        footprint = footprint.over(axis, footprint.axis(axis), found[0] if found else None)
    return footprint


def _permute(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    order = list(range(tensor.ndim))
    if "dims" in call.arguments:
        order = [dim % tensor.ndim for dim in call["dims"]]
    else:  # transpose, t
        a, b = (call.arguments.get(name, at) for name, at in (("dim0", 0), ("dim1", -1)))
        order[a], order[b] = order[b], order[a]
    for axis, dim in enumerate(footprint.dims):
        moved = None if dim is None else order.index(dim)
        footprint = footprint.over(axis, footprint.axis(axis), moved)
    return footprint


def _taken(footprint: Footprint, dim: int, index: Tensor) -> Footprint:
    """With some of the rows, or columns, if that is what a dimension is."""
    for axis, own in enumerate(footprint.dims):
        if own == dim:
            return footprint.over(axis, footprint.axis(axis).take(index), dim)
    return footprint


def _slice(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    dim = call["dim"] % tensor.ndim
    chosen = slice(call["start"], call["end"], call["step"])
    return _taken(footprint, dim, torch.arange(tensor.shape[dim])[chosen])


def _without(footprint: Footprint, dim: int) -> Footprint:
    """After a dimension has gone."""
    for axis, own in enumerate(footprint.dims):
        if own is not None and own >= dim:
            footprint = footprint.over(axis, footprint.axis(axis), None if own == dim else own - 1)
    return footprint


def _select(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    dim = call["dim"] % tensor.ndim
    index = torch.tensor([call["index"] % tensor.shape[dim]])
    return _without(_taken(footprint, dim, index), dim)


def _split(call: Call) -> list[Footprint]:
    tensor, footprint = call.tracked[0]
    dim, start, parts = call["dim"] % tensor.ndim, 0, []
    single = call.name.endswith("unbind")
    for part in call.outputs:
        count = 1 if single else part.shape[dim]
        one = _taken(footprint, dim, torch.arange(start, start + count))
        parts.append(_without(one, dim) if single else one)
        start += count
    return parts


def _flip(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    for dim in call["dims"]:
        index = torch.arange(tensor.shape[dim]).flip(0)
        footprint = _taken(footprint, dim % tensor.ndim, index)
    return footprint


def _roll(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    if not call["dims"]:
        raise LostError(f"{call.name} over all dimensions")
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        index = torch.arange(tensor.shape[dim]).roll(shift)
        footprint = _taken(footprint, dim % tensor.ndim, index)
    return footprint


def _join_maps(call: Call) -> Footprint:
    tensors, result = call["tensors"], call.outputs[0]
    if call.name.endswith("stack"):
        joined = [_new_dim(found, call["dim"] % result.ndim) for _, found in call.tracked]
        return _joined(replace(call, tracked=[(result, found) for found in joined]))
    dim = call["dim"] % result.ndim
    found = {id(tensor): footprint for tensor, footprint in call.tracked}
    known = [(tensor, found.get(id(tensor))) for tensor in tensors if tensor.numel()]
    axes = {f.dims.index(dim) for _, f in known if f is not None and dim in f.dims}
    if not axes:
        return _joined(call)
    (axis,) = axes
    parts = [
        Spans.of_nothing(tensor.shape[dim]) if footprint is None else footprint.axis(axis)
        for tensor, footprint in known
    ]
    across = join([footprint.axis(1 - axis) for _, footprint in known if footprint is not None])
    first = next(footprint for _, footprint in known if footprint is not None)
    return first.over(1 - axis, across, first.dims[1 - axis]).over(axis, chain(parts), dim)


def _new_dim(footprint: Footprint, dim: int) -> Footprint:
    for axis, own in enumerate(footprint.dims):
        if own is not None and own >= dim:
            footprint = footprint.over(axis, footprint.axis(axis), own + 1)
    return footprint


def _unsqueeze(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    return _new_dim(footprint, call["dim"] % (tensor.ndim + 1))


def _adaptive(call: Call) -> Footprint:
    return _each_axis(call, lambda spans, count, axis: pooled(spans, count))


def _shuffle(call: Call) -> Footprint:
    factor = int(call["upscale_factor"])
    return _each_axis(call, lambda spans, count, axis: spans.take(torch.arange(count) // factor))


def _first(call: Call) -> Footprint:
    """Only the first tensor counts: normalisation, whose statistics do not."""
    return call.tracked[0][1]


def _copied(call: Call) -> Footprint:
    """What is written into a tensor, all of it."""
    written = [(tensor, found) for tensor, found in call.tracked if tensor is call["src"]]
    if not written:
        return Footprint(Spans.of_nothing(1), Spans.of_nothing(1), (None, None))
    return _joined(replace(call, tracked=written))


def _softmax(call: Call) -> Footprint:
    tensor, footprint = call.tracked[0]
    if call["dim"] % tensor.ndim in footprint.dims:
        raise LostError(f"{call.name} over rows or columns")
    return footprint


#: Operators that take only shape and type from their arguments.
FACTORIES = {
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    )
}

#: Operators of deformable convolution.
DEFORMABLE = ("deformops::deform_conv2d", "torchvision::deform_conv2d")

RULES: dict[str, Callable[[Call], Footprint | list[Footprint]]] = {
    **dict.fromkeys(DEFORMABLE, _deformable),
    **dict.fromkeys(
        (
            "aten::convolution",
            "aten::max_pool2d_with_indices",
            "aten::max_pool2d",
            "aten::avg_pool2d",
        ),
        _windowed,
    ),
    **dict.fromkeys(
        ("aten::upsample_nearest2d", "aten::_upsample_nearest_exact2d"), _resize("nearest")
    ),
    "aten::upsample_bilinear2d": _resize("linear"),
    "aten::upsample_bicubic2d": _resize("cubic"),
    "aten::_upsample_bilinear2d_aa": _resize("antialias"),
    **dict.fromkeys(("aten::_adaptive_avg_pool2d", "aten::adaptive_max_pool2d"), _adaptive),
    **dict.fromkeys(
        ("aten::constant_pad_nd", "aten::reflection_pad2d", "aten::replication_pad2d"), _pad
    ),
    **dict.fromkeys(
        (
            "aten::mean",
            "aten::sum",
            "aten::amax",
            "aten::amin",
            "aten::max",
            "aten::min",
            "aten::argmax",
            "aten::logsumexp",
        ),
        _reduce,
    ),
    **dict.fromkeys(
        ("aten::view", "aten::_unsafe_view", "aten::reshape", "aten::squeeze"), _reshape
    ),
    **dict.fromkeys(("aten::permute", "aten::transpose", "aten::t"), _permute),
    "aten::slice": _slice,
    "aten::select": _select,
    **dict.fromkeys(("aten::split", "aten::split_with_sizes", "aten::unbind"), _split),
    "aten::flip": _flip,
    "aten::roll": _roll,
    **dict.fromkeys(("aten::cat", "aten::stack"), _join_maps),
    "aten::unsqueeze": _unsqueeze,
    "aten::pixel_shuffle": _shuffle,
    **dict.fromkeys(
        (
            "aten::native_batch_norm",
            "aten::_native_batch_norm_legit_no_training",
            "aten::_native_batch_norm_legit",
            "aten::cudnn_batch_norm",
            "aten::native_group_norm",
            "aten::native_layer_norm",
        ),
        _first,
    ),
    "aten::copy_": _copied,
    **dict.fromkeys(("aten::_softmax", "aten::_log_softmax"), _softmax),
    **dict.fromkeys(
        (
            "aten::alias",
            "aten::detach",
            "aten::lift_fresh",
            "aten::_to_copy",
            "aten::hardswish_",
            "aten::hardtanh_",
            "aten::native_dropout",
            "aten::expand",
            "aten::clone",
            "aten::leaky_relu_",
            "aten::celu_",
            "aten::elu_",
        ),
        _joined,
    ),
}
