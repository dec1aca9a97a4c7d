"""Non-maximum suppression: ours, torchvision, OpenVINO, ONNX Runtime and OpenCV; and overlaps.

Suppression has no floor: what has to be computed depends on the boxes. Results are lists of chosen
boxes; who chooses others is timed up to 2 % of them, and their number is printed. The floor of
overlaps is a copy of as many bytes as boxes and overlaps have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import engines
from ..case import OURS, Case, Competitor, Entry, Part, Suite, Target, Work
from ..place import Place
from ..torch_ops import Function, entry

TORCHVISION, OPENVINO, ONNXRUNTIME, OPENCV = "torchvision", "openvino", "onnxruntime", "opencv"
WIDTH, HEIGHT = 1333, 800
PER_OBJECT = 20
CLASSES = 80
LINEAR, GAUSSIAN = "soft_nms linear", "soft_nms gaussian"
SOFT = {LINEAR: 0.3, GAUSSIAN: 1.0}  # the overlap above which a score is lowered; dropped
SIGMA, MIN_SCORE = 0.5, 0.1  # of both
OTHER_BOXES = 0.02  # largest share at which a peer is timed
MANY = 100_000  # boxes for which all peers but OpenVINO take seconds


def clusters(count: int, random: torch.Generator) -> Tensor:
    """Boxes as an RPN proposes them: about 20 for each object, cut off where the image ends."""
    objects = max(1, count // PER_OBJECT)
    size = 16 * 32 ** torch.rand(objects, generator=random)
    aspect = torch.exp(0.4 * torch.randn(objects, generator=random))
    centre = torch.rand(objects, 2, generator=random) * torch.tensor([WIDTH, HEIGHT])
    extent = torch.stack([size * aspect, size / aspect], 1)
    chosen = torch.randint(objects, (count,), generator=random)
    extent = extent[chosen] * torch.exp(0.15 * torch.randn(count, 2, generator=random))
    centre = centre[chosen] + 0.15 * extent * torch.randn(count, 2, generator=random)
    corners = [centre - extent / 2, centre + extent / 2]
    last = torch.tensor([WIDTH, HEIGHT])
    return torch.cat([corner.clamp(min=0).minimum(last) for corner in corners], 1)


def whole_pixels(count: int, random: torch.Generator) -> Tensor:
    """The same in whole pixels: some overlaps are exactly the threshold."""
    return clusters(count, random).round()


def identical(count: int, random: torch.Generator) -> Tensor:
    """One box, again and again."""
    return torch.tensor([10.0, 20, 50, 80]).repeat(count, 1)


def disjoint(count: int, random: torch.Generator) -> Tensor:
    """Tiles: all are kept."""
    number = torch.arange(count)
    side = round(count**0.5)
    x, y = 10.0 * (number % side), 10.0 * (number // side)
    return torch.stack([x, y, x + 9, y + 9], 1)


def giant(count: int, random: torch.Generator) -> Tensor:
    """Clusters, and one box that covers them all."""
    boxes = clusters(count, random)
    boxes[0] = torch.tensor([0.0, 0, WIDTH, HEIGHT])
    return boxes


def pile(count: int, random: torch.Generator) -> Tensor:
    """All around one place, in many sizes."""
    centre = 200 + 10 * torch.randn(count, 2, generator=random)
    extent = 100 * torch.exp(0.3 * torch.randn(count, 2, generator=random))
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)


Scene = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Problem:
    """Boxes and a threshold for one of the ops."""

    op: str
    scene: Scene
    count: int
    threshold: float

    def __str__(self) -> str:
        scene = self.scene.__name__.replace("_", " ")
        of = f" {CLASSES} classes" if self.op == "batched_nms" else ""
        threshold = "" if self.op == GAUSSIAN else f" above {self.threshold:g}"
        return f"{self.op} {self.count} {scene}{of}{threshold}"

    def tensors(self) -> dict[str, Tensor]:
        """Returns boxes [count, 4], scores and, where there are any, classes."""
        random = torch.Generator().manual_seed(0)
        tensors = {"boxes": self.scene(self.count, random)}
        tensors["scores"] = torch.rand(self.count, generator=random)
        if self.op == "batched_nms":
            tensors["classes"] = torch.randint(CLASSES, (self.count,), generator=random)
        return tensors

    def ours(self) -> Function:
        """Our op."""
        from deformops import ops

        return {
            "nms": lambda of: ops.nms(of["boxes"], of["scores"], self.threshold),
            "batched_nms": lambda of: ops.batched_nms(
                of["boxes"], of["scores"], of["classes"], self.threshold
            ),
            LINEAR: lambda of: ops.soft_nms(
                of["boxes"], of["scores"], self.threshold, min_score=MIN_SCORE
            )[1],
            GAUSSIAN: lambda of: ops.soft_nms(
                of["boxes"], of["scores"], method="gaussian", sigma=SIGMA, min_score=MIN_SCORE
            )[1],
        }[self.op]

    def torchvision(self) -> Function:
        """torchvision's op of the same name."""
        suppress = getattr(engines.require("torchvision").ops, self.op)
        return lambda of: suppress(*of.values(), self.threshold)

    def openvino(self, place: Place) -> Competitor:
        """OpenVINO's NonMaxSuppression-9, hard or Gaussian."""
        import numpy as np

        soft = self.op == GAUSSIAN

        def build(opset: Any, of: Mapping[str, Any]) -> Any:
            numbers = (
                1.0 if soft else self.threshold,
                MIN_SCORE if soft else float("-inf"),
                SIGMA / 2 if soft else 0.0,  # exp(-overlap^2 / (2 sigma))
            )
            return opset.non_max_suppression(
                of["boxes"],
                of["scores"],
                opset.constant(np.int64(self.count)),
                *(opset.constant(np.float32(number)) for number in numbers),
                box_encoding="corner",
                sort_result_descending=False,
                output_type="i64",
            )

        def read(selected: Tensor, scores: Tensor, count: Tensor) -> Tensor:
            return selected[: int(count[0]), 2].clone()

        return engines.openvino(build, self._batch_of_one(), place, read=read)

    def onnxruntime(self, place: Place) -> Competitor:
        """ONNX's NonMaxSuppression."""
        constants = {
            "most": torch.tensor([self.count]),
            "threshold": torch.tensor([self.threshold]),
        }
        tensors = self._batch_of_one()
        node = engines.onnx_node("NonMaxSuppression", [*tensors, *constants])
        return engines.onnxruntime(
            node, tensors, constants, None, place, read=lambda selected: selected[:, 2].clone()
        )

    def _batch_of_one(self) -> dict[str, Tensor]:
        tensors = self.tensors()
        return {"boxes": tensors["boxes"][None], "scores": tensors["scores"][None, None]}

    def opencv(self, place: Place) -> Competitor:
        """OpenCV's NMSBoxes and its relatives, which take (x, y, width, height)."""
        boxes, *others = self.tensors().values()
        sizes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        arrays = [sizes.double().numpy(), *(other.numpy() for other in others)]

        def nms(cv2: Any) -> Any:
            return cv2.dnn.NMSBoxes(*arrays, 0.0, self.threshold)

        def batched_nms(cv2: Any) -> Any:
            return cv2.dnn.NMSBoxesBatched(*arrays, 0.0, self.threshold)

        def soft_nms(cv2: Any) -> Any:
            kind = "LINEAR" if self.op == LINEAR else "GAUSSIAN"
            method = getattr(cv2.dnn, f"SOFT_NMSMETHOD_SOFTNMS_{kind}")
            options = {"top_k": 0, "sigma": SIGMA, "method": method}
            return cv2.dnn.softNMSBoxes(*arrays, MIN_SCORE, self.threshold, **options)[1]

        if self.op == "batched_nms":
            arrays[2] = arrays[2].astype("int32")
        if self.op in SOFT:
            arrays[0] = arrays[0].astype("int32")
        suppress = {"nms": nms, "batched_nms": batched_nms}.get(self.op, soft_nms)

        def call(cv2: Any) -> Tensor:
            return torch.from_numpy(suppress(cv2)).flatten().long()

        return engines.opencv(call, place)

    def case(self, *targets: Target, quick: bool = False) -> Case:
        """Everybody who has the op."""
        slow = self.count >= MANY
        batched = self.op == "batched_nms"  # OpenCV compares boxes of different classes, too
        peers = {
            TORCHVISION: entry(self.tensors, self.torchvision, slow=slow),
            OPENVINO: Entry(self.openvino, tolerance=OTHER_BOXES),
            ONNXRUNTIME: Entry(self.onnxruntime, tolerance=OTHER_BOXES, slow=slow),
            OPENCV: Entry(self.opencv, tolerance=OTHER_BOXES, slow=slow or batched),
        }
        able = {
            "nms": peers.keys(),
            "batched_nms": {TORCHVISION, OPENCV},
            LINEAR: {OPENCV},
            GAUSSIAN: {OPENVINO, OPENCV},
        }[self.op]
        entries = {OURS: entry(self.tensors, self.ours)}
        entries |= {name: peer for name, peer in peers.items() if name in able}
        return Case(str(self), (Part("forward", ("forward",)),), entries, targets, quick)


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of every box with every anchor."""

    boxes: int
    anchors: int

    def __str__(self) -> str:
        return f"box_iou {self.boxes} x {self.anchors}"

    def tensors(self) -> dict[str, Tensor]:
        """Returns two lists of boxes [count, 4]."""
        random = torch.Generator().manual_seed(0)
        counts = {"boxes": self.boxes, "anchors": self.anchors}
        return {name: clusters(count, random) for name, count in counts.items()}

    def ours(self) -> Function:
        """Our op."""
        from deformops.ops import box_iou

        return lambda of: box_iou(of["boxes"], of["anchors"])

    def torchvision(self) -> Function:
        """torchvision's composition of torch's ops."""
        box_iou = engines.require("torchvision").ops.box_iou
        return lambda of: box_iou(of["boxes"], of["anchors"])

    def case(self, *, quick: bool = False) -> Case:
        """Inference; engines have no such op."""
        numbers = 4 * (self.boxes + self.anchors) + self.boxes * self.anchors
        entries = {
            OURS: entry(self.tensors, self.ours),
            TORCHVISION: entry(self.tensors, self.torchvision),
        }
        parts = (Part("forward", ("forward",), Work.bytes(4 * numbers)),)
        return Case(str(self), parts, entries, (NOT_BEHIND,), quick)


ADVERSE = (identical, disjoint, giant, pile)
NOT_BEHIND = Target("forward", (TORCHVISION,), 1 / 1.05)  # 1, less the noise of a run


def _cases() -> list[Case]:
    cases = []
    for count in (1000, 10_000, MANY):
        for threshold in (0.5, 0.7):
            targets = [Target("forward", (OPENVINO,), 1.3)]
            if count == MANY:
                targets.append(Target("forward", (TORCHVISION,), 100))
            quick = count < MANY or threshold == 0.7
            cases.append(Problem("nms", clusters, count, threshold).case(*targets, quick=quick))
    cases.append(Problem("nms", whole_pixels, 10_000, 0.5).case(quick=True))
    for scene in ADVERSE:
        quick = scene in (giant, pile)
        cases.append(Problem("nms", scene, 10_000, 0.5).case(NOT_BEHIND, quick=quick))
    cases.append(Problem("batched_nms", clusters, 20_000, 0.5).case(NOT_BEHIND, quick=True))
    for count in (1000, 10_000):
        # Of whole pixels: OpenCV takes no others for these.
        for op, threshold in SOFT.items():
            cases.append(Problem(op, whole_pixels, count, threshold).case(quick=count == 1000))
    # A detector's boxes among themselves, and a photo's objects with the anchors of a pyramid.
    return [*cases, Overlaps(1000, 1000).case(quick=True), Overlaps(20, 200_000).case()]


SUITE = Suite(
    name="nms",
    title="non-maximum suppression and overlaps",
    cases=_cases(),
    warm_up=[
        *(Problem(op, clusters, 40, 0.5).case() for op in ("nms", "batched_nms")),
        *(Problem(op, whole_pixels, 40, above).case() for op, above in SOFT.items()),
        Overlaps(30, 40).case(),
    ],
    notes=(
        f"clusters: about {PER_OBJECT} boxes for each object; above: the overlap that drops a box",
        "torchvision, onnxruntime, opencv use one thread; openvino drops at the threshold itself",
        "opencv takes numbers in float64 and sizes in place of corners, made before it is timed",
        f"soft_nms: down to a score of {MIN_SCORE:g}; linear above the overlap that lowers a score "
        "(opencv: at it, too); opencv takes whole pixels only",
        "box_iou: torchvision's is composed of torch's ops",
    ),
)
