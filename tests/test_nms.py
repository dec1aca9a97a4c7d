"""nms, batched_nms and nms_padded against published numbers, brute force and torchvision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import deformops
from tests.boxes import GOLDENS, SCENES, Drawn, clusters, disjoint, problems
from tests.devices import Device
from tests.reference import suppression

Threads = Callable[[int], AbstractContextManager[None]]

ROOT = Path(__file__).parents[1]
PAIRS = [(name, threshold) for name, golden in GOLDENS.items() for threshold in golden.kept]


def keep(
    device: Device,
    boxes: Any,
    scores: Any,
    threshold: float,
    idxs: Tensor | None = None,
    plus_one: bool = False,
) -> list[int]:
    """The raw op."""
    tensors = (torch.as_tensor(boxes), torch.as_tensor(scores), idxs)
    moved = (None if tensor is None else tensor.to(device.type) for tensor in tensors)
    kept: list[int] = device.raw.nms(*moved, threshold, plus_one=plus_one).tolist()
    return kept


# --- published numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "threshold"), PAIRS)
def test_goldens(device: Device, name: str, threshold: float, dtype: torch.dtype) -> None:
    golden = GOLDENS[name]
    boxes, scores = (torch.tensor(of, dtype=dtype) for of in (golden.boxes, golden.scores))
    assert keep(device, boxes, scores, threshold) == golden.kept[threshold]


def test_goldens_of_a_score_threshold(device: Device) -> None:
    """ONNX's second case drops low scores first: nms of what is left."""
    golden = GOLDENS["onnx"]
    boxes, scores = torch.tensor(golden.boxes), torch.tensor(golden.scores)
    left = torch.nonzero(scores > 0.4)[:, 0]
    assert left[keep(device, boxes[left], scores[left], 0.5)].tolist() == [3, 0]


# --- references -----------------------------------------------------------------------------------


def check(device: Device, problem: Drawn) -> None:
    want = suppression.nms(
        problem.boxes, problem.scores, problem.threshold, problem.idxs, problem.plus_one
    )
    boxes, scores, idxs = problem.tensors(device.type)
    kept = device.raw.nms(boxes, scores, idxs, problem.threshold, plus_one=problem.plus_one)
    assert kept.tolist() == want
    assert kept.dtype == torch.int64


@given(problem=problems())
def test_brute_force(device: Device, problem: Drawn) -> None:
    check(device, problem)


@given(problem=problems(most=60), data=st.data())
def test_half_types(device: Device, problem: Drawn, data: st.DataObject) -> None:
    """They decide as float32 does on the same numbers."""
    half = data.draw(st.sampled_from([torch.float16, torch.bfloat16]))
    boxes, scores, idxs = problem.tensors(device.type)
    boxes, scores = boxes.to(half), scores.to(half)
    want = suppression.nms(
        boxes.float().cpu().numpy(),
        scores.float().cpu().numpy(),
        problem.threshold,
        problem.idxs,
        problem.plus_one,
    )
    kept = device.raw.nms(boxes, scores, idxs, problem.threshold, plus_one=problem.plus_one)
    assert kept.tolist() == want


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 129, 511, 513, 1025, 1537])
def test_sizes_around_tiles(device: Device, count: int, threshold: float) -> None:
    boxes, scores = clusters(count, seed=count)
    want = suppression.nms(boxes.numpy(), scores.numpy(), threshold)
    assert keep(device, boxes, scores, threshold) == want


@pytest.mark.parametrize("threshold", [0.0, 0.03, 0.1, 1 / 3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("scene", SCENES)
def test_torchvision_agrees(scene: str, threshold: float) -> None:
    """On boxes of every kind, more than a list holds and fewer than torchvision takes long for."""
    boxes, scores = SCENES[scene](2500)
    for dtype in (torch.float32, torch.float64):
        arguments = (boxes.to(dtype), scores.to(dtype), threshold)
        want = torchvision.ops.nms(*arguments)
        assert torch.equal(deformops.nms(*arguments), want)


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_torchvision_agrees_on_many(threshold: float) -> None:
    boxes, scores = clusters(70_001)
    want = torchvision.ops.nms(boxes, scores, threshold)
    assert torch.equal(deformops.nms(boxes, scores, threshold), want)


def test_very_many() -> None:
    """400,000 boxes, of which 2 of 3 go."""
    boxes, scores = disjoint(133_334)
    boxes = boxes.repeat(3, 1)[:400_000]
    scores = torch.cat([scores, scores - 1, scores - 2])[:400_000]
    kept = deformops.nms(boxes, scores, 0.5)
    assert torch.equal(kept, scores[:133_334].argsort(descending=True, stable=True))


# --- what is decided how --------------------------------------------------------------------------


def test_exactly_the_threshold_stays(device: Device) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 1, 0.5]])
    assert keep(device, boxes, [3.0, 2.0, 1.0], 0.5) == [0, 1, 2]
    assert keep(device, boxes, [3.0, 2.0, 1.0], np.nextafter(0.5, 0)) == [0, 2]


def test_the_threshold_is_a_float64(device: Device) -> None:
    """A tenth is above 0.1 in float32 and equal to it in float64."""
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 1, 1]])
    assert keep(device, boxes, [2.0, 1.0], 0.1) == [0]
    assert keep(device, boxes, [2.0, 1.0], float(np.float32(0.1))) == [0, 1]
    assert keep(device, boxes.double(), torch.tensor([2.0, 1.0]).double(), 0.1) == [0, 1]


def test_ties_go_by_index(device: Device) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.5], [9, 9, 12, 12], [0, 0, 4, 4]])
    assert keep(device, boxes, [0.5, 0.5, 0.5, 0.5], 0.5) == [0, 2]
    assert keep(device, boxes, [0.0, -0.0, 0.0, 1.0], 0.5) == [3, 2]
    many = torch.zeros(300, 4)
    assert keep(device, many, torch.zeros(300), 0.5) == list(range(300))


def test_nan_scores_go_first(device: Device) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12], [0, 0, 4, 4]])
    nan, inf = float("nan"), float("inf")
    assert keep(device, boxes, [1.0, nan, inf, nan], 0.5) == [1, 2]
    assert keep(device, boxes, [-inf, -nan, -inf, inf], 0.5) == [1, 2]


@pytest.mark.parametrize(
    "odd",
    [
        [float("nan"), 0, 4, 4],
        [0, 0, 4, float("nan")],
        [1, 1, 1, 3],
        [1, 1, 1, 1],
        [4, 0, 0, 4],
        [4, 4, 0, 0],
        [float("-inf"), 0, float("inf"), 4],
        [-1e30, -1e30, 1e30, 1e30],
    ],
    ids=str,
)
def test_odd_boxes_are_kept_and_drop_no_other(device: Device, odd: list[float]) -> None:
    usual = [0.0, 0.0, 4.0, 4.0]
    boxes = torch.tensor([odd, usual, odd, usual, odd])
    assert keep(device, boxes, [5.0, 4.0, 3.0, 2.0, 1.0], 0.0) == [0, 1, 2, 4]


def test_plus_one(device: Device) -> None:
    """Overlaps of 1/3 with the last pixel, 2/7 without."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    assert keep(device, boxes, [2.0, 1.0], 0.3) == [0, 1]
    assert keep(device, boxes, [2.0, 1.0], 0.3, plus_one=True) == [0]
    pixel = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3]])
    assert keep(device, pixel, [2.0, 1.0], 0.3, plus_one=True) == [0]


def test_any_strides(device: Device) -> None:
    boxes, scores = clusters(200)
    want = keep(device, boxes, scores, 0.5)
    strided = torch.full((200, 9), float("nan"))
    strided[:, ::2][:, :4] = boxes
    assert keep(device, strided[:, ::2][:, :4], scores, 0.5) == want
    assert keep(device, boxes.T.contiguous().T, scores[:, None].expand(200, 3)[:, 1], 0.5) == want


def test_nothing(device: Device) -> None:
    assert keep(device, torch.empty(0, 4), torch.empty(0), 0.5) == []
    indices, counts = device.raw.nms_padded(
        torch.empty(2, 0, 4, device=device.type),
        torch.empty(2, 0, device=device.type),
        None,
        0.5,
        3,
    )
    assert indices.tolist() == [[-1] * 3] * 2
    assert counts.tolist() == [0, 0]


# --- groups ---------------------------------------------------------------------------------------


def class_by_class(boxes: Tensor, scores: Tensor, idxs: Tensor, threshold: float) -> Tensor:
    """torchvision's nms for each class, and then by score."""
    kept = []
    for group in idxs.unique():
        of_group = torch.nonzero(idxs == group)[:, 0]
        kept.append(of_group[torchvision.ops.nms(boxes[of_group], scores[of_group], threshold)])
    every = torch.cat(kept).sort().values
    return every[scores[every].argsort(descending=True, stable=True)]


@pytest.mark.parametrize("classes", [1, 7, 500])
def test_classes(device: Device, classes: int) -> None:
    boxes, scores = clusters(900)
    boxes = boxes - 5000  # shifting coordinates apart would fail here
    idxs = torch.randint(classes, (900,), generator=torch.Generator().manual_seed(0)) * 10**12
    want = class_by_class(boxes, scores, idxs, 0.3)
    assert keep(device, boxes, scores, 0.3, idxs) == want.tolist()


def test_a_large_class_among_small_ones(threads: Threads) -> None:
    boxes, scores = clusters(40_000)
    idxs = (torch.rand(40_000, generator=torch.Generator().manual_seed(0)) ** 4 * 60).long()
    want = class_by_class(boxes, scores, idxs, 0.3)
    for count in (1, 2, 3):
        with threads(count):
            assert torch.equal(deformops.batched_nms(boxes, scores, idxs, 0.3), want)


# --- padded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("most", [0, 1, 40, 700])
def test_padded(device: Device, most: int, grouped: bool) -> None:
    """A batch: the first indices of every image by itself, then -1."""
    scenes = [clusters(600, seed) for seed in range(3)]
    boxes, scores = (torch.stack(list(of)) for of in zip(*scenes, strict=True))
    idxs = torch.arange(1800).reshape(3, 600) % 5 if grouped else None
    moved = (None if t is None else t.to(device.type) for t in (boxes, scores, idxs))
    indices, counts = device.raw.nms_padded(*moved, 0.5, most)
    for image in range(3):
        groups = None if idxs is None else idxs[image]
        want = keep(device, boxes[image], scores[image], 0.5, groups)[:most]
        assert counts[image] == len(want)
        assert indices[image].tolist() == want + [-1] * (most - len(want))


def test_padded_in_a_batch() -> None:
    """vmap is one call for all images, over any of the tensors."""
    scenes = [clusters(80, seed) for seed in range(4)]
    boxes, scores = (torch.stack(list(of)) for of in zip(*scenes, strict=True))
    idxs = torch.arange(320).reshape(80, 4) % 3

    def function(boxes: Tensor, scores: Tensor, idxs: Tensor | None) -> tuple[Tensor, Tensor]:
        return deformops.nms_padded(boxes, scores, 0.4, 50, idxs=idxs)

    for dims in ((0, 0, 1), (0, 0, None), (None, 0, 1), (0, None, None)):
        given = [
            tensor if dim is not None else tensor.select(default, 0)
            for tensor, dim, default in zip((boxes, scores, idxs), dims, (0, 0, 1), strict=True)
        ]
        indices, counts = torch.vmap(function, dims)(*given)
        for image in range(4):
            single = (
                tensor if dim is None else tensor.select(dim, image)
                for tensor, dim in zip(given, dims, strict=True)
            )
            want = function(*single)
            assert torch.equal(indices[image], want[0])
            assert torch.equal(counts[image], want[1])


def test_without_padding_there_is_no_batch() -> None:
    boxes, scores = torch.zeros(2, 3, 4), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"nms: vmap: expected .*nms_padded"):
        torch.vmap(lambda boxes, scores: deformops.nms(boxes, scores, 0.5))(boxes, scores)


@pytest.mark.variants
@pytest.mark.parametrize("grouped", [False, True])
def test_variants(device: Device, dtype: torch.dtype, grouped: bool) -> None:
    """Every kernel in every type: several images, some segments longer than a tile.

    The last group of an image has the number of the next one's first: it ends all the same.
    """
    scenes = [clusters(610, seed) for seed in range(2)]
    boxes, scores = (torch.stack(list(of)).to(dtype) for of in zip(*scenes, strict=True))
    small = (torch.arange(1220).reshape(2, 610) % 9 == 0).long()
    idxs = small + torch.arange(2)[:, None] if grouped else None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    moved = [None if t is None else t.to(device.type) for t in (boxes, scores, idxs)]
    for most in (600, 90):
        indices, counts = device.raw.nms_padded(*moved, 0.6, most)
        for image in range(2):
            groups = None if idxs is None else idxs[image].numpy()
            image_boxes, image_scores = (of[image].to(wide).numpy() for of in (boxes, scores))
            want = suppression.nms(image_boxes, image_scores, 0.6, groups)[:most]
            assert indices[image].tolist() == want + [-1] * (most - len(want))
            assert counts[image] == len(want)


# --- the same every time --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.1, 0.7])
def test_any_number_of_threads(threads: Threads, threshold: float) -> None:
    boxes, scores = clusters(40_000)
    kept = []
    for count in (1, 2, 3, 1):
        with threads(count):
            kept.append(deformops.nms(boxes, scores, threshold))
            limited, _ = deformops.nms_padded(boxes, scores, threshold, 500)
        assert torch.equal(kept[-1], kept[0])
        assert torch.equal(limited, kept[0][:500])


def test_a_crowd_behind_a_pile(threads: Threads) -> None:
    """Threads take more boxes at a time while one drops all; then every other one is kept."""
    crowd = disjoint(10_000)[0].repeat_interleave(2, 0) + 100
    boxes = torch.cat([torch.tensor([[0.0, 0, 9, 9]]).expand(20_000, 4), crowd])
    want = torch.cat([torch.tensor([0]), torch.arange(20_000, 40_000, 2)])
    for count in (1, 2, 3):
        with threads(count):
            assert torch.equal(deformops.nms(boxes, torch.arange(40_000.0).flip(0), 0.5), want)


DECISIONS = """
import hashlib, json
import torch, deformops
from tests.boxes import SCENES

digest = hashlib.sha256()
for scene in SCENES.values():
    boxes, scores = scene(1500)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = boxes.to(dtype), scores.to(dtype)
        for threshold in (0.2, 1 / 3, 0.7):
            digest.update(deformops.nms(*given, threshold).numpy().tobytes())
        overlaps = deformops.box_iou(given[0][:200], given[0][:200])
        digest.update(overlaps.nan_to_num(-1).double().numpy().tobytes())
        for method in ("linear", "gaussian"):
            scored, kept = deformops.soft_nms(given[0][:200], given[1][:200], method=method)
            digest.update(scored.double().numpy().tobytes() + kept.numpy().tobytes())
print(digest.hexdigest(), json.loads(torch.ops.deformops.build_info())["cpu_isa"])
"""


def test_any_instruction_set() -> None:
    """Decisions, overlaps and decayed scores have the same bits with all of them."""
    digests = {}
    for isa in ("portable", "avx2", "avx512"):
        process = subprocess.run(
            [sys.executable, "-c", DECISIONS],
            cwd=ROOT,
            env={**os.environ, "DEFORMOPS_CPU_ISA": isa, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        digest, used = process.stdout.split()
        digests[used] = digest
    assert "portable" in digests
    assert len(set(digests.values())) == 1, digests


# --- torch ----------------------------------------------------------------------------------------


def test_opcheck(device: Device) -> None:
    boxes, scores = (tensor.to(device.type) for tensor in clusters(50))
    idxs = torch.arange(50, device=device.type) % 3
    for arguments in ((boxes, scores, None, 0.5), (boxes.double(), scores.double(), idxs, 0.5)):
        torch.library.opcheck(device.raw.nms.default, arguments, {"plus_one": True})
    batch = (boxes[None], scores[None], idxs[None])
    torch.library.opcheck(device.raw.nms_padded.default, (*batch, 0.5, 20))


def test_compile_and_export() -> None:
    """Without graph breaks or recompilation for another number of boxes."""

    class Postprocess(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, idxs: Tensor) -> tuple[Tensor, ...]:
            kept = deformops.nms(boxes, scores, 0.5)
            grouped = deformops.batched_nms(boxes, scores, idxs, 0.5)
            padded, count = deformops.nms_padded(boxes, scores, 0.5, 10, idxs=idxs)
            every, _ = deformops.nms_padded(boxes, scores, 0.5, boxes.shape[0])
            return boxes[kept], scores[grouped], padded, count, every

    model = Postprocess()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    boxes = torch.export.Dim("boxes", min=2)
    exported = torch.export.export(
        model,
        (*clusters(30), torch.arange(30) % 4),
        dynamic_shapes={"boxes": {0: boxes}, "scores": {0: boxes}, "idxs": {0: boxes}},
    ).module()
    for count in (30, 47):
        given = (*clusters(count), torch.arange(count) % 4)
        want = model(*given)
        for candidate in (compiled, exported):
            for got, expected in zip(candidate(*given), want, strict=True):
                assert torch.equal(got, expected)


def test_autocast() -> None:
    """Boxes and scores are brought to the wider of their types, idxs stay."""
    boxes, scores = clusters(100)
    idxs = torch.arange(100) % 3
    with torch.autocast("cpu", torch.bfloat16):
        kept = deformops.batched_nms(boxes, scores.bfloat16(), idxs, 0.5)
        padded, _ = deformops.nms_padded(boxes, scores.bfloat16(), 0.5, 100, idxs=idxs)
    want = deformops.batched_nms(boxes, scores.bfloat16().float(), idxs, 0.5)
    assert torch.equal(kept, want)
    assert torch.equal(padded[: len(want)], want)


def test_derivatives_of_what_is_chosen() -> None:
    boxes, scores = clusters(20)
    boxes.requires_grad_()
    kept = deformops.nms(boxes, scores.requires_grad_(), 0.5)
    assert not kept.requires_grad
    boxes[kept].sum().backward()
    assert boxes.grad is not None
    assert torch.equal(boxes.grad[:, 0].nonzero()[:, 0], kept.sort().values)
    chosen = torch.func.grad(lambda boxes: boxes[deformops.nms(boxes, scores, 0.5)].sum())(boxes)
    assert torch.equal(chosen, boxes.grad)


# --- bad input ------------------------------------------------------------------------------------

BOXES, SCORES, IDXS = torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, dtype=torch.int64)
MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tensor": ({"boxes": [[0, 0, 1, 1]]}, TypeError, "boxes: expected a tensor .*list"),
    "integers": ({"boxes": BOXES.long()}, TypeError, "boxes: expected .*float64.*int64"),
    "three corners": ({"boxes": BOXES[:, :3]}, ValueError, r"boxes: expected shape .*4\]"),
    "one box": ({"boxes": BOXES[0]}, ValueError, "boxes: expected"),
    "other scores": ({"scores": SCORES[:2]}, ValueError, r"scores: expected shape .*\[3\]"),
    "other type": ({"scores": SCORES.double()}, TypeError, "scores: expected the dtype of boxes"),
    "threshold above 1": ({"iou_threshold": 1.5}, ValueError, "iou_threshold: .* 1.5"),
    "threshold below 0": ({"iou_threshold": -0.1}, ValueError, "iou_threshold: .* -0.1"),
    "threshold NaN": ({"iou_threshold": float("nan")}, ValueError, "iou_threshold: .* nan"),
    "threshold a word": ({"iou_threshold": "low"}, TypeError, "iou_threshold: .*number"),
    "other idxs": ({"idxs": IDXS[:2]}, ValueError, r"idxs: expected shape .*\[3\]"),
    "idxs with floats": ({"idxs": SCORES}, TypeError, "idxs: expected .*int64.*float32"),
    "plus_one a word": ({"plus_one": "yes"}, TypeError, "plus_one: expected True or False.*'yes'"),
    "huge size": ({"max_output": 2**31}, ValueError, "max_output: expected .*2147483648"),
    "endless size": ({"max_output": 2**80}, ValueError, "max_output: expected .*2147483647"),
    "negative size": ({"max_output": -1}, ValueError, "max_output: expected .*-1"),
    "half a size": ({"max_output": 1.5}, TypeError, "max_output: expected an integer"),
}
CALLS: dict[str, Callable[..., Any]] = {
    "nms": lambda boxes, scores, iou_threshold, plus_one, **_: deformops.nms(
        boxes, scores, iou_threshold, plus_one=plus_one
    ),
    "batched_nms": lambda max_output, **arguments: deformops.batched_nms(**arguments),
    "nms_padded": deformops.nms_padded,
}


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("op", CALLS)
def test_mistakes(op: str, mistake: str, fake: bool) -> None:
    changed, error, message = MISTAKES[mistake]
    arguments: dict[str, Any] = {
        "boxes": BOXES, "scores": SCORES, "idxs": IDXS, "iou_threshold": 0.5, "max_output": 2,
        "plus_one": False,
    }  # fmt: skip
    (argument,) = changed
    if (argument == "idxs" and op == "nms") or (argument == "max_output" and op != "nms_padded"):
        pytest.skip(f"{op} has no {argument}")
    arguments |= changed
    if fake:
        mode = FakeTensorMode()
        arguments = {
            name: mode.from_tensor(value) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }
    # The fake kernels speak for the raw ops: nms has groups, and nms_padded a batch.
    name = op.replace("batched_", "(batched_)?") if fake else op
    message = message.replace(r"\[3\]", "") if fake else message
    with pytest.raises(error, match=rf"^{name}: {message}"):
        CALLS[op](**arguments)


def test_groups_are_given() -> None:
    """None would be one group for the raw op."""
    nothing: Any = None
    with pytest.raises(TypeError, match=r"^batched_nms: idxs: expected a tensor .*NoneType"):
        deformops.batched_nms(BOXES, SCORES, nothing, 0.5)


@pytest.mark.parametrize("mistake", ["three corners", "other scores", "threshold above 1"])
def test_mistakes_of_raw_calls(device: Device, mistake: str) -> None:
    changed, _, message = MISTAKES[mistake]
    arguments = {"boxes": BOXES, "scores": SCORES, "iou_threshold": 0.5} | changed
    with pytest.raises(RuntimeError, match=rf"nms: {message.split(':')[0]}: expected"):
        keep(device, arguments["boxes"], arguments["scores"], arguments["iou_threshold"])  # type: ignore[arg-type]


# --- memory ---------------------------------------------------------------------------------------

MEASURE = """
import json
import torch, deformops
from tests.boxes import clusters, disjoint

torch.set_num_threads(2)

def peak():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

boxes, scores = clusters(100)
deformops.batched_nms(boxes, scores, torch.zeros(100).long(), 0.5)  # whatever is set up once
measured = {}
for scene in (clusters, disjoint):
    boxes, scores = scene(100_000)
    idxs = torch.arange(100_000) % 80
    for name, call in (
        ("nms", lambda: deformops.nms(boxes, scores, 0.7)),
        ("batched_nms", lambda: deformops.batched_nms(boxes, scores, idxs, 0.7)),
        ("soft_nms", lambda: deformops.soft_nms(boxes, scores, 0.0, min_score=0.95)),
    ):
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
        before = peak()
        call()
        measured[f"{name}, {scene.__name__}"] = (peak() - before) / 2**20
print(json.dumps(measured))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_for_100_000_boxes() -> None:
    """Below 64 MiB, where a bit for every pair would take 1192."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=ROOT,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(process.stdout)
    assert len(measured) == 6
    assert all(mebibytes < 64 for mebibytes in measured.values()), measured
    # Less than boxes in order take: nothing was measured.
    assert all(measured[name] > 1.6 for name in measured if "soft" not in name), measured
