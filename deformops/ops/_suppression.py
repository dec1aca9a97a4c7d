"""What the ops on boxes have in Python: checks, shapes, derivatives, batches.

Which boxes are kept does not change with a small change of the input, so `nms` and its relatives
return indices and no derivatives. `box_iou` and the scores of `soft_nms` have some: where these are
asked for, the result is composed of torch's own ops, which have derivatives of every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deformops.ops._autocast import register_autocast, widest
from deformops.ops._checks import Checks

METHODS = ("linear", "gaussian", "naive")


class BoxChecks(Checks):
    """Checks of one call of an op on boxes."""

    def boxes(self, argument: str, value: Any, layout: str = "[N, 4]") -> None:
        """Boxes as x1, y1, x2, y2."""
        self.tensor(argument, value, layout)
        self.require(value.shape[-1] == 4, argument, f"shape {layout}", list(value.shape))

    def scores(self, value: Any, boxes: Tensor, layout: str = "[N]") -> None:
        """A score for each box."""
        self.tensor("scores", value, layout)
        self.like("scores", value, "boxes", boxes)
        self.shape("scores", value, boxes.shape[:-1], layout)

    def idxs(self, value: Any, scores: Tensor, layout: str = "[N]") -> None:
        """An integer for each box."""
        if not isinstance(value, Tensor) or value.dtype != torch.int64:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(self._message("idxs", f"a tensor {layout} of int64", got))
        self.device("idxs", value, "boxes", scores)
        expected = f"shape {layout} = {list(scores.shape)}"
        self.require(value.dim() == scores.dim(), "idxs", expected, list(value.shape))
        self.shape("idxs", value, scores.shape, layout)

    def threshold(self, value: Any) -> None:
        """A number from 0 to 1."""
        self.number("iou_threshold", value)
        self.require(0 <= value <= 1, "iou_threshold", "a number from 0 to 1", value)


def check_box_iou(boxes1: Any, boxes2: Any, plus_one: Any) -> None:
    """Raises ValueError or TypeError if `box_iou` would not take these."""
    checks = BoxChecks("box_iou")
    checks.boxes("boxes1", boxes1)
    checks.boxes("boxes2", boxes2, "[M, 4]")
    checks.like("boxes2", boxes2, "boxes1", boxes1)
    checks.flag("plus_one", plus_one)


def check_nms(
    op: str, boxes: Any, scores: Any, idxs: Any, iou_threshold: Any, plus_one: Any
) -> None:
    """Raises ValueError or TypeError if `nms` would not take these."""
    checks = BoxChecks(op)
    checks.boxes("boxes", boxes)
    checks.scores(scores, boxes)
    if idxs is not None:
        checks.idxs(idxs, scores)
    checks.threshold(iou_threshold)
    checks.flag("plus_one", plus_one)


def check_nms_padded(
    boxes: Any,
    scores: Any,
    idxs: Any,
    iou_threshold: Any,
    max_output: Any,
    plus_one: Any,
    batch: str = "B, ",
) -> None:
    """Raises ValueError or TypeError if `nms_padded` would not take these."""
    checks = BoxChecks("nms_padded")
    checks.boxes("boxes", boxes, f"[{batch}N, 4]")
    checks.scores(scores, boxes, f"[{batch}N]")
    if idxs is not None:
        checks.idxs(idxs, scores, f"[{batch}N]")
    checks.threshold(iou_threshold)
    checks.size("max_output", max_output)
    checks.flag("plus_one", plus_one)


def check_soft_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: Any,
    sigma: Any,
    min_score: Any,
    method: Any,
    plus_one: Any,
) -> None:
    """Raises ValueError or TypeError if `soft_nms` would not take these."""
    checks = BoxChecks("soft_nms")
    checks.boxes("boxes", boxes)
    checks.scores(scores, boxes)
    checks.threshold(iou_threshold)
    checks.positive("sigma", sigma)
    checks.number("min_score", min_score)
    checks.require(min_score >= 0, "min_score", "a number of at least 0", min_score)
    checks.choice("method", method, METHODS)
    checks.flag("plus_one", plus_one)


# --- fake kernels ---------------------------------------------------------------------------------


def _fake_box_iou(boxes1: Tensor, boxes2: Tensor, *, plus_one: bool = False) -> Tensor:
    check_box_iou(boxes1, boxes2, plus_one)
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0])


def _some_of(boxes: Tensor) -> Any:
    """How many boxes are kept, which nobody knows before."""
    return torch.library.get_ctx().new_dynamic_size()


def _fake_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    iou_threshold: float,
    *,
    plus_one: bool = False,
) -> Tensor:
    check_nms("nms", boxes, scores, idxs, iou_threshold, plus_one)
    return boxes.new_empty(_some_of(boxes), dtype=torch.int64)


def _fake_nms_padded(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None,
    iou_threshold: float,
    max_output: int,
    *,
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    check_nms_padded(boxes, scores, idxs, iou_threshold, max_output, plus_one)
    indices = boxes.new_empty(boxes.shape[0], max_output, dtype=torch.int64)
    return indices, boxes.new_empty(boxes.shape[0], dtype=torch.int64)


def _fake_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    check_soft_nms(boxes, scores, iou_threshold, sigma, min_score, method, plus_one)
    kept = _some_of(boxes)
    return scores.new_empty(kept), boxes.new_empty(kept, dtype=torch.int64)


# --- derivatives ----------------------------------------------------------------------------------


def _measure(boxes1: Tensor, boxes2: Tensor, plus_one: bool) -> tuple[Tensor, Tensor]:
    """Intersection and union of all pairs, [..., N, M], rounded like those of the kernels."""
    dtype = boxes1.dtype if boxes1.dtype == torch.float64 else torch.float32
    more = 1 if plus_one else 0

    def area(boxes: Tensor) -> Tensor:
        sides = boxes[..., 2:] - boxes[..., :2] + more
        return sides[..., 0] * sides[..., 1]

    wide1, wide2 = boxes1.to(dtype), boxes2.to(dtype)
    low = torch.maximum(wide1[..., :, None, :2], wide2[..., None, :, :2])
    high = torch.minimum(wide1[..., :, None, 2:], wide2[..., None, :, 2:])
    sides = (high - low + more).clamp(min=0)
    common = sides[..., 0] * sides[..., 1]
    return common, area(wide1)[..., :, None] + area(wide2)[..., None, :] - common


def _composed_box_iou(_: Any, boxes1: Tensor, boxes2: Tensor, *, plus_one: bool = False) -> Tensor:
    check_box_iou(boxes1, boxes2, plus_one)
    common, union = _measure(boxes1, boxes2, plus_one)
    return (common / union).to(boxes1.dtype)


def _composed_soft_nms(
    kernel: Callable[..., tuple[Tensor, Tensor]],
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    sigma: float = 0.5,
    method: str = "linear",
    plus_one: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Each chosen score times its decays by those chosen before."""
    options |= {"sigma": sigma, "method": method, "plus_one": plus_one}
    _, indices = kernel(boxes.detach(), scores.detach(), iou_threshold, **options)
    chosen = scores[indices]
    if method == "naive":
        return chosen, indices
    common, union = _measure(boxes[indices], boxes[indices], plus_one)
    overlaps = common / torch.where(union > 0, union, 1)
    if method == "gaussian":
        logs, decays = -(overlaps**2) / sigma, overlaps > 0
    else:
        tiny = torch.finfo(overlaps.dtype).tiny
        logs, decays = (1 - overlaps).clamp(min=tiny).log(), overlaps > iou_threshold
    earlier = torch.ones_like(decays).tril(-1)
    weight = torch.where(decays & earlier, logs, 0).sum(1).exp()
    return (chosen * weight).to(scores.dtype), indices


def _register_composed(
    library: torch.library.Library, name: str, composed: Callable[..., Any]
) -> None:
    """Gives a raw op the derivatives of a function that is composed of torch's ops.

    Args:
        library: where the op is registered.
        name: the op's name.
        composed: takes the op without derivatives, and its arguments.
    """
    overload = getattr(getattr(torch.ops, library.ns), name).default

    def autograd(keyset: Any, *args: Any, **options: Any) -> Any:
        def kernel(*args: Any, **options: Any) -> Any:
            below = keyset & torch._C._after_autograd_keyset
            with torch._C._AutoDispatchBelowAutograd():
                return overload.redispatch(below, *args, **options)

        if any(isinstance(arg, Tensor) and _wants_derivatives(arg) for arg in args):
            return composed(kernel, *args, **options)
        return kernel(*args, **options)

    library.impl(name, autograd, "Autograd", with_keyset=True)


def _wants_derivatives(tensor: Tensor) -> bool:
    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    return forward_ad.unpack_dual(tensor, level=0).tangent is not None


# --- batches --------------------------------------------------------------------------------------


def _vmap_box_iou(
    _: Any, dims: tuple[Any, ...], boxes1: Tensor, boxes2: Tensor, *, plus_one: bool = False
) -> tuple[Tensor, int]:
    stacked1, stacked2 = (
        boxes if dim is None else boxes.movedim(dim, 0)
        for boxes, dim in zip((boxes1, boxes2), dims, strict=True)
    )
    common, union = _measure(stacked1, stacked2, plus_one)
    return (common / union).to(boxes1.dtype), 0


def _vmap_nms_padded(ops: Any) -> Callable[..., Any]:
    """More images in the batch that the op has already."""

    def rule(
        info: Any,
        dims: tuple[Any, ...],
        boxes: Tensor,
        scores: Tensor,
        idxs: Tensor | None,
        *options: Any,
        plus_one: bool = False,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None:
                return None
            stacked = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor
            return stacked.movedim(dim or 0, 0).flatten(0, 1)

        folded = map(fold, (boxes, scores, idxs), dims[:3])
        results = ops.nms_padded(*folded, *options, plus_one=plus_one)
        indices, counts = (result.unflatten(0, (info.batch_size, -1)) for result in results)
        return (indices, counts), (0, 0)

    return rule


def _no_vmap(name: str) -> Callable[..., Any]:
    def rule(*_: Any, **__: Any) -> Any:
        raise ValueError(
            f"{name}: vmap: expected results of one size, got a number of boxes for each batch; "
            "nms_padded pads them"
        )

    return rule


def register(library: torch.library.Library) -> None:
    """Registers all of the four ops but their kernels."""
    ops = getattr(torch.ops, library.ns)
    for name, fake, vmap in (
        ("box_iou", _fake_box_iou, _vmap_box_iou),
        ("nms", _fake_nms, _no_vmap("nms")),
        ("nms_padded", _fake_nms_padded, _vmap_nms_padded(ops)),
        ("soft_nms", _fake_soft_nms, _no_vmap("soft_nms")),
    ):
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        torch.library.register_vmap(f"{library.ns}::{name}", vmap, lib=library)
        register_autocast(library, name, widest, kept=("idxs",))
    _register_composed(library, "box_iou", _composed_box_iou)
    _register_composed(library, "soft_nms", _composed_soft_nms)
