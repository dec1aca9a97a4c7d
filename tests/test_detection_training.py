"""Training of detectors: photos, the description of the network, steps, parts, and resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from deformops.nets.detection import (
    RFCN_SETTINGS,
    Batch,
    Detector,
    TwoStageDetector,
    build_detector,
)
from deformops.nets.preprocessing import TORCHVISION_RGB
from deformops.training.checkpoint import load, save
from deformops.training.detection.alternation import beginning, four_steps, make_proposals
from deformops.training.detection.augmentation import fitting_scale, resized, side_by_side
from deformops.training.detection.data import AnnotatedPhotos
from deformops.training.detection.network import DetectionNetwork
from deformops.training.detection.scenes import Scene, Scenes, Variation, proposals_of
from deformops.training.detection.statistics import box_statistics
from deformops.training.detection.trainer import DetectionRecipe, DetectionTrainer
from deformops.training.optimizer import detector_groups
from tests.detection_data import write_voc

SIZE = (48, 80)
RECIPE = DetectionRecipe(6, parts=2, lr=0.02, keep_first=False, variation=Variation((40, 48), 80))


@pytest.fixture
def photos(tmp_path: Path) -> AnnotatedPhotos:
    return AnnotatedPhotos.voc(write_voc(tmp_path / "voc"), "train")


def tiny(name: str = "faster-rcnn-vgg16", **options: Any) -> Detector:
    """A detector of a few thousand parameters, the same each time."""
    torch.manual_seed(0)
    options = {"width": 1 / 64, "scales": (1.0, 2.0), **options}
    settings = {"min_size": 4.0, "rois": 16, "proposals": (32, 32)}
    return DetectionNetwork(name, ("cell", "wheel"), options, None, SIZE, settings).build()


def trained(
    net: Detector, photos: AnnotatedPhotos, recipe: DetectionRecipe, steps: int
) -> Detector:
    trainer = DetectionTrainer(net, Scenes(photos), recipe)
    for _ in range(steps):
        trainer.step()
    return net


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same bits."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# --- photos, and the network ----------------------------------------------------------------------


def test_fitting_scale() -> None:
    """The shorter side unless the longer one is in the way, as py-faster-rcnn has it."""
    assert fitting_scale((480, 640), 600, 1000) == 1.25
    assert fitting_scale((375, 500), 600, 1000) == 1.6
    assert fitting_scale((333, 1000), 600, 1000) == 1.0
    assert fitting_scale((480, 640), 240, 320) == 0.5
    photo, scale = resized(torch.zeros(3, 90, 41, dtype=torch.uint8), 20, 40)
    assert (photo.shape, photo.dtype, scale) == ((3, 40, 18), torch.uint8, 40 / 90)


def test_side_by_side() -> None:
    """Zeros surround what is prepared: the mean colour, not black."""
    photos = [torch.full((3, 4, 6), 200, dtype=torch.uint8), torch.zeros(3, 5, 3)]
    images, sizes = side_by_side(photos, TORCHVISION_RGB)
    assert sizes.tolist() == [[4, 6], [5, 3]]
    assert images.shape == (2, 3, 5, 6)
    for image, photo in zip(images, photos, strict=True):
        height, width = photo.shape[1:]
        assert torch.equal(image[:, :height, :width], TORCHVISION_RGB(photo))
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_description() -> None:
    """What a checkpoint says is what is built: a class more, other settings and colours."""
    chosen = {"width": 0.05, "norm": "batch"}
    network = DetectionNetwork(
        "rfcn-resnet50", ("cell", "wheel"), chosen, "torchvision", (240, 400), {"min_size": 4.0}
    )
    assert DetectionNetwork.of(network.state()) == network
    net = network.build()
    assert (net.classes, net.preprocessing) == (3, TORCHVISION_RGB)
    assert (net.settings.min_size, net.settings.hard_rois) == (4.0, RFCN_SETTINGS.hard_rois)
    with pytest.raises(ValueError, match="describes no DetectionNetwork"):
        DetectionNetwork.of({**network.state(), "ignore": 255})
    with pytest.raises(ValueError, match=r"settings: expected some of .* got 'anchor'"):
        DetectionNetwork("rfcn-zf", ("cell",), settings={"anchor": 1}).build()
    with pytest.raises(ValueError, match="size: expected the shorter side"):
        DetectionNetwork("rfcn-zf", ("cell",), size=(600, 500))


def test_description_of_a_code(tmp_path: Path) -> None:
    """Means and deviations go through a file, to the coder of boxes seen from proposals alone."""
    code = (((0.0,) * 4, (0.5, 0.0, 0.25, 0.0)), ((1.0,) * 4, (0.1, 0.2, 0.3, 0.4)))
    network = DetectionNetwork("faster-rcnn-zf", ("cell",), {"width": 0.05}, box_code=code)
    save(tmp_path / "net.pt", {"network": network.state()})
    read = DetectionNetwork.of(load(tmp_path / "net.pt")["network"])
    assert read == network
    settings, usual = read.build().settings, replace(network, box_code=None).build().settings
    assert (settings.roi_coder.means, settings.roi_coder.stds) == code
    assert settings == replace(
        usual, roi_coder=replace(usual.roi_coder, means=code[0], stds=code[1])
    )


@pytest.mark.parametrize("mirror", [False, True])
def test_box_statistics(mirror: bool, photos: AnnotatedPhotos) -> None:
    """Objects and proposals that overlap them by half or more count, one by one."""
    near: list[list[float]]
    near = [[4, 6, 25, 28], [2, 4, 23, 25], [40, 30, 60, 45], [6, 9, 22, 27]]
    proposals = [torch.tensor(near), torch.zeros(0, 4)]
    settings = tiny().settings
    means, stds = box_statistics(Scenes(photos, proposals), settings, mirror=mirror)
    codes = []
    counted: list[list[float]] = [[4, 6, 23, 25], *near[:2], near[3]]
    for x1, y1, x2, y2 in counted:
        for side in (1, -1) if mirror else (1,):
            width, height = x2 - x1 + 1, y2 - y1 + 1
            along = side * ((4 + 23) / 2 - (x1 + x2) / 2) / width
            down = ((6 + 25) / 2 - (y1 + y2) / 2) / height
            codes.append([along, down, np.log(20 / width), np.log(20 / height)])
    codes += [[0.0] * 4] * (2 if mirror else 1)  # The object of the second photo.
    np.testing.assert_allclose(means[1], np.mean(codes, axis=0), atol=6e-5)
    np.testing.assert_allclose(stds[1], np.std(codes, axis=0), atol=6e-5)
    # Of wheels there is but the object: nothing differs.
    assert (means[2], stds[2]) == ((0.0,) * 4, settings.roi_coder.stds)
    with pytest.raises(ValueError, match="expected proposals"):
        box_statistics(Scenes(photos), settings)


def test_variation() -> None:
    """Boxes and proposals go where their pixels go, in the mirror and at another size."""
    photo = torch.zeros(3, 20, 30, dtype=torch.uint8)
    photo[:, 4:10, 2:12] = 255
    box = torch.tensor([[2.0, 4, 11, 9]])
    scene = Scene(box, torch.tensor([1]), box)
    plain, mirrored = Variation((20,), 60, mirror=False), Variation((40,), 60)
    random = np.random.default_rng(0)
    assert plain(photo, scene, random).photo is photo
    seen = set()
    for _ in range(20):
        sample = mirrored(photo, scene, random)
        assert (sample.photo.shape, sample.scale) == ((3, 40, 60), 2)
        assert sample.scene.proposals is not None
        assert torch.equal(sample.scene.boxes, sample.scene.proposals)
        x1, y1, x2, y2 = (int(number) for number in sample.scene.boxes[0])
        inside = sample.photo[:, y1 + 2 : y2, x1 + 2 : x2]
        assert (inside > 250).all()
        assert sample.photo.sum() < 1.3 * 255 * 3 * (x2 - x1 + 2) * (y2 - y1 + 2)
        seen.add(x1)
    assert seen == {4, 36}
    with pytest.raises(ValueError, match="sizes: expected numbers from 1 to the longest side's 60"):
        Variation((80,), 60)


def test_scenes(photos: AnnotatedPhotos) -> None:
    """Difficult objects and crowds are not learned."""
    objects = photos.annotations[0]
    for name in ("difficult", "crowd"):
        odd = replace(objects, **{name: torch.tensor([True, False])})
        few = replace(photos, annotations=[odd, photos.annotations[1]])
        assert torch.equal(Scenes(few)[0][1].boxes, objects.boxes[1:])
        assert torch.equal(Scenes(few)[0][1].labels, objects.labels[1:])
    with pytest.raises(ValueError, match="proposals: expected those of 2 photos, got 1"):
        Scenes(photos, [torch.zeros(1, 4)])


def test_proposals_of() -> None:
    """Side by side, with zeros where a photo has fewer."""
    none = torch.zeros(0, 4)
    scenes = [Scene(none, none, torch.ones(count, 4)) for count in (1, 3, 0)]
    found = proposals_of(scenes, like=torch.zeros(1, dtype=torch.float64))
    assert (found.boxes.dtype, found.boxes.shape) == (torch.float64, (3, 3, 4))
    assert found.counts.tolist() == [1, 3, 0]
    assert found.boxes.sum((1, 2)).tolist() == [4, 12, 0]
    with pytest.raises(ValueError, match="expected proposals for each"):
        proposals_of([Scene(none, none)], like=none)


# --- rates ----------------------------------------------------------------------------------------


def test_rates() -> None:
    """A tenth while it warms up, then all of it, and a tenth after each drop."""
    recipe = DetectionRecipe(100, lr=1.0, warm_up=3, drops=(0.5, 0.75))
    rates = [recipe.rate(iteration) for iteration in (0, 2, 3, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.1, 0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_groups() -> None:
    """Biases learn twice as fast and decay as weights do; what makes offsets learns slowly."""
    net = tiny(deformable_rois=True)
    rates = {
        one["name"]: (one["factor"], one["weight_decay"])
        for one in detector_groups(net, 1e-3, 5e-4)
    }
    assert rates == {
        "body weights": (1, 5e-4),
        "body biases": (2, 5e-4),
        "slow weights": (0.01, 5e-4),
        "slow biases": (0.02, 5e-4),
    }


# --- steps ----------------------------------------------------------------------------------------


def test_a_step_by_hand(photos: AnnotatedPhotos) -> None:
    """The mean over the parts of the detector's own losses, and one step of SGD with decay."""
    still = Variation((48,), 80, mirror=False)
    # All examples count, so that nothing depends on what is drawn.
    settings: dict[str, Any] = {"rois": None, "anchors": 1000, "positive_anchors": 1000}
    recipe = replace(RECIPE, variation=still, weight_decay=0.1, momentum=0.0)
    nets = [tiny(dropout=0.0) for _ in range(2)]
    for net in nets:
        net.settings = replace(net.settings, **settings)
    trainer = DetectionTrainer(nets[0], Scenes(photos), recipe)
    loss, _ = trainer.step()
    assert set(trainer.losses) == {
        *("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    }
    total = torch.zeros(())
    for number in range(2):
        photo, objects = photos[number]
        targets = [{"boxes": objects.boxes, "labels": objects.labels}]
        losses = nets[1].train()(nets[1].preprocessing(photo[None]), None, targets)
        assert isinstance(losses, dict)
        total = total + torch.stack(list(losses.values())).sum() / 2
    assert loss == pytest.approx(total.item(), rel=1e-5)
    total.backward()
    for (name, one), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert other.grad is not None
        rate = 0.04 if name.endswith("bias") else 0.02
        want = other - rate * (other.grad + 0.1 * other)
        torch.testing.assert_close(one, want, rtol=1e-4, atol=1e-6)


def test_clip(photos: AnnotatedPhotos) -> None:
    """No step is longer than the rate times the length; a far longer one changes nothing."""
    plain = replace(RECIPE, momentum=0.0, weight_decay=0.0, lr=0.1)
    start = [one.detach().clone() for one in tiny().parameters()]

    def way(clip: float | None) -> Tensor:
        net = trained(tiny(), photos, replace(plain, clip=clip), 1)
        moved = zip(net.named_parameters(), start, strict=True)
        factors = [(one - before) / (2 if "bias" in name else 1) for (name, one), before in moved]
        return torch.cat([one.detach().flatten() for one in factors])

    free = way(None)
    assert torch.equal(way(1e6), free)
    assert way(0.01).norm().item() == pytest.approx(0.001, rel=1e-3)
    assert free.norm() > 0.002


@pytest.mark.parametrize("stop_at", [1, 4])
def test_resume(stop_at: int, photos: AnnotatedPhotos, tmp_path: Path) -> None:
    """To go on from a file gives the bits of weights, statistics and momentum."""
    name, options = "rfcn-resnet50", {"norm": "batch", "width": 1 / 32}
    whole = DetectionTrainer(tiny(name, **options), Scenes(photos), RECIPE)
    while not whole.done:
        whole.step()
        if whole.iteration == stop_at:
            save(tmp_path / "half.pt", {"network": {}, **whole.state()})
    rest = DetectionTrainer(tiny(name, **options), Scenes(photos), RECIPE)
    rest.resume(load(tmp_path / "half.pt"))
    assert rest.iteration == stop_at
    while not rest.done:
        rest.step()
    assert same(rest.state(), whole.state())
    with pytest.raises(ValueError, match=r"drops: expected \(0\.75,\), as the checkpoint has it"):
        DetectionTrainer(tiny(name, **options), Scenes(photos), replace(RECIPE, drops=())).resume(
            load(tmp_path / "half.pt")
        )


def test_layers_that_are_kept(photos: AnnotatedPhotos) -> None:
    """Neither weights nor statistics of conv1 and res2 move; all others that learn do."""
    options = {"norm": "batch", "width": 1 / 32}
    before = tiny("faster-rcnn-resnet50", **options).state_dict()
    net = trained(
        tiny("faster-rcnn-resnet50", **options), photos, replace(RECIPE, keep_first=True), 2
    )
    after = net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    first = ("trunk.backbone.conv1", "trunk.backbone.bn1", "trunk.backbone.layer1")
    kept = {name for name in before if name.startswith(first)}
    assert kept
    assert not kept & moved
    assert moved == before.keys() - kept


def test_bad_recipes() -> None:
    for options, says in (
        ({"stage": "third"}, "stage: expected joint or proposals or head, got 'third'"),
        ({"drops": (0.5, 2.0)}, "drops: expected fractions of all steps"),
        ({"warm_up": -1}, "warm_up: expected a number >= 0"),
        ({"clip": 0.0}, "clip: expected a number above 0"),
    ):
        with pytest.raises(ValueError, match=says):
            replace(RECIPE, **options)  # type: ignore[arg-type]
    net = build_detector("class-aware-rpn-vgg16", 3, width=1 / 64)
    with pytest.raises(ValueError, match="stage: expected joint for a detector of one stage"):
        DetectionTrainer(net, Scenes.__new__(Scenes), replace(RECIPE, stage="head"))


# --- four steps -----------------------------------------------------------------------------------


def test_four_steps() -> None:
    """As published: the second stage takes half as many steps, and the last two keep the trunk."""
    steps = four_steps(replace(RECIPE, iterations=81))
    assert [(one.stage, one.iterations, one.keep_shared) for one in steps] == [
        ("proposals", 81, False),
        ("head", 40, False),
        ("proposals", 81, True),
        ("head", 40, True),
    ]


@pytest.mark.parametrize("name", ["faster-rcnn-vgg16", "rfcn-vgg16"])
def test_beginnings(name: str) -> None:
    """Steps 1 and 2 with the same; 4 with the head of step 2, its last layers new or not."""
    net = tiny(name)
    first = {key: value.clone() for key, value in net.state_dict().items()}
    third = {key: value + 1 for key, value in first.items()}
    for step in (1, 2):
        assert beginning(step, first, third, net, "py-faster-rcnn") is first
    assert beginning(3, first, third, net, "py-faster-rcnn") is third
    assert beginning(4, first, third, net, "matlab") is third
    fourth = beginning(4, first, third, net, "py-faster-rcnn")
    new = {key for key in first if fourth[key] is first[key]}
    last = ("rfcn_cls", "rfcn_bbox") if name == "rfcn-vgg16" else ("cls_score", "bbox_pred")
    assert new == {f"roi_head.{layer}.{kind}" for layer in last for kind in ("weight", "bias")}
    assert all(fourth[key] is third[key] for key in first.keys() - new)
    with pytest.raises(ValueError, match="fourth: expected py-faster-rcnn or matlab, got 'c'"):
        beginning(4, first, third, net, "c")


def test_make_proposals(photos: AnnotatedPhotos) -> None:
    """Those that the network makes on the photo at its size, seen in the photo; of all anchors."""
    net = tiny()
    assert isinstance(net, TwoStageDetector)
    net.settings = replace(net.settings, proposals=(40, 3), proposals_before=(5, 5))
    usual = net.settings
    made = make_proposals(net, photos, (96, 200))
    assert net.settings is usual
    for boxes, (photo, _) in zip(made, (photos[0], photos[1]), strict=True):
        height, width = photo.shape[1:]
        assert 5 < len(boxes) <= 40
        large = nn.functional.interpolate(
            photo[None], (2 * height, 2 * width), mode="bilinear", antialias=True
        )
        net.settings = replace(usual, proposals=(40, 40), proposals_before=(10**6, 10**6))
        sizes = torch.tensor([[2 * height, 2 * width]])
        images = net.preprocessing(large)
        batch = Batch(images, sizes, torch.tensor([2.0]))
        want = net.eval().proposals(batch).as_list()[0]
        torch.testing.assert_close(boxes, want / 2)
        net.settings = usual
