"""The code of a box: where it lies seen from another one, which is what detectors predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deformops.ops._checks import Checks

Numbers = Sequence[float]

# exp(60) pixels times any picture is a finite float32, far outside of any picture.
_FINITE = 60.0


@dataclass(frozen=True)
class BoxCoder:
    """Turns boxes into what is to be predicted of them, and back.

    Seen from a reference (an anchor or a proposal) with centre (x_a, y_a), width w_a and height h_a

        t_x = (x - x_a) / w_a,   t_y = (y - y_a) / h_a,   t_w = log(w / w_a),   t_h = log(h / h_a)

    and the code is (t - means) / stds, so that its numbers are of the size of 1.

    Args:
        plus_one: the last pixel belongs to a box, width = x2 - x1 + 1, as in all R-CNN code; if
            not, as in torchvision and detectron2, width = x2 - x1.
        style: "exact": decoding undoes encoding. "py-faster-rcnn": x2 and y2 come out one larger
            (for `plus_one`), as they do in that code, and weights trained with it expect.
        max_log_size: decoding takes no larger t_w and t_h; torchvision has log(1000 / 16). If None,
            they only are kept so small that boxes are finite.
        means: 4 numbers, or 4 for each class.
        stds: 4 numbers, or 4 for each class; (0.1, 0.1, 0.2, 0.2) in end-to-end training.

    Raises:
        ValueError: there is no such style, or a number is not positive.

    Source: Girshick et al., R-CNN (2014), appendix C; Ren et al., Faster R-CNN (2015), equation 2.
    """

    plus_one: bool = True
    style: str = "exact"
    max_log_size: float | None = None
    means: Numbers | Sequence[Numbers] = (0.0, 0.0, 0.0, 0.0)
    stds: Numbers | Sequence[Numbers] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        checks = Checks("BoxCoder")
        checks.choice("style", self.style, ("exact", "py-faster-rcnn"))
        if self.max_log_size is not None:
            checks.positive("max_log_size", self.max_log_size)
        for name, numbers in (("means", self.means), ("stds", self.stds)):
            table = torch.tensor(numbers, device="cpu")
            fits = table.dim() in (1, 2) and table.shape[-1] == 4
            checks.require(fits, name, "4 numbers, or 4 for each class", numbers)
        positive = bool((torch.tensor(self.stds, device="cpu") > 0).all())
        checks.require(positive, "stds", "positive numbers", self.stds)

    def encode(self, boxes: Tensor, references: Tensor, labels: Tensor | None = None) -> Tensor:
        """What is to be predicted of boxes.

        Args:
            boxes: [..., 4] as (x1, y1, x2, y2).
            references: [..., 4], from where they are seen.
            labels: int64 [...], the class of each, where means and stds are given for each class.

        Returns:
            [..., 4] as (t_x, t_y, t_w, t_h). Not finite where a box has no area.

        Raises:
            ValueError: a shape does not fit, or labels are missing.
        """
        checks = Checks("BoxCoder.encode")
        _check_last(checks, "boxes", boxes)
        _check_last(checks, "references", references)
        centre, size = self._centre_and_size(boxes)
        from_centre, from_size = self._centre_and_size(references)
        code = torch.cat([(centre - from_centre) / from_size, (size / from_size).log()], dim=-1)
        means, stds = self._table(self.means, code), self._table(self.stds, code)
        if means.dim() == 2 or stds.dim() == 2:
            checks.require(labels is not None, "labels", "the class of each box", None)
            means = means[labels] if means.dim() == 2 else means
            stds = stds[labels] if stds.dim() == 2 else stds
        return (code - means) / stds

    def decode(self, code: Tensor, references: Tensor) -> Tensor:
        """The boxes that were predicted.

        Args:
            code: [..., 4] as (t_x, t_y, t_w, t_h); [..., classes, 4] where means and stds are given
                for each class.
            references: [..., 4], from where they are seen; the same shape but for sizes of 1.

        Returns:
            [..., 4] as (x1, y1, x2, y2), finite if the code is; float16 and bfloat16 are computed
            in float32, and the boxes stay float32.

        Raises:
            ValueError: a shape does not fit.
        """
        checks = Checks("BoxCoder.decode")
        _check_last(checks, "code", code)
        _check_last(checks, "references", references)
        code = code if code.dtype == torch.float64 else code.float()
        code = code * self._table(self.stds, code) + self._table(self.means, code)
        centre, size = self._centre_and_size(references.to(code.dtype))
        largest = _FINITE if self.max_log_size is None else self.max_log_size
        centre = code[..., :2] * size + centre
        half = (code[..., 2:].clamp(max=largest).exp() * size - int(self.plus_one)) / 2
        beyond = int(self.plus_one and self.style == "py-faster-rcnn")
        return torch.cat([centre - half, centre + half + beyond], dim=-1)

    def absorb_normalisation(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Makes a layer predict t itself, so that it can be used without means and stds.

        py-faster-rcnn does this to the last layer when it saves one.

        Args:
            layer: it predicts the code of one class after the other, 4 numbers for each; changed in
                place.

        Raises:
            ValueError: its number of outputs does not fit.
        """
        weight, bias = layer.weight, layer.bias
        classes = weight.shape[0] // 4
        checks = Checks("BoxCoder.absorb_normalisation")
        fits = weight.shape[0] % 4 == 0 and bias is not None
        checks.require(fits, "layer", "a bias, and 4 outputs for each class", tuple(weight.shape))
        assert bias is not None
        with torch.no_grad():
            means = self._table(self.means, weight).expand(classes, 4).flatten()
            stds = self._table(self.stds, weight).expand(classes, 4).flatten()
            weight.mul_(stds.reshape(-1, *[1] * (weight.dim() - 1)))
            bias.mul_(stds).add_(means)

    def _centre_and_size(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        low, high = boxes[..., :2], boxes[..., 2:]
        return (low + high) / 2, high - low + int(self.plus_one)

    def _table(self, numbers: Numbers | Sequence[Numbers], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)


def clip_boxes(boxes: Tensor, image_sizes: Tensor, *, plus_one: bool = True) -> Tensor:
    """Moves corners outside of an image to its border.

    Args:
        boxes: [N, ..., 4] as (x1, y1, x2, y2).
        image_sizes: [N, 2] as (H, W), in pixels.
        plus_one: the last pixel belongs to a box: corners end at W - 1 and H - 1; if not, at W and
            H.

    Returns:
        [N, ..., 4].

    Raises:
        ValueError: a shape does not fit.
        TypeError: an argument is no tensor.
    """
    checks = Checks("clip_boxes")
    _check_last(checks, "boxes", boxes)
    checks.rank("image_sizes", image_sizes, "[N, 2]")
    checks.shape("image_sizes", image_sizes, (boxes.shape[0], 2), "[N, 2]")
    last = (image_sizes.flip(-1) - int(plus_one)).to(boxes.dtype)
    last = last.reshape(-1, *[1] * (boxes.dim() - 2), 2)
    corners = boxes.unflatten(-1, (2, 2)).clamp(min=0)
    return torch.minimum(corners, last.unsqueeze(-2)).flatten(-2)


def _check_last(checks: Checks, name: str, value: Tensor) -> None:
    fits = value.dim() > 0 and value.shape[-1] == 4
    checks.require(fits, name, "shape [..., 4]", list(value.shape))
