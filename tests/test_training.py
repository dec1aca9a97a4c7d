"""Training: its steps by hand, in parts, in processes, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from deformops.training import (
    Augmentation,
    DivergedError,
    LabelledPhotos,
    Processes,
    Recipe,
    Trainer,
    parameter_groups,
    poly,
)
from deformops.training.checkpoint import load, save
from deformops.training.loss import shrink_labels, summed_loss
from tests.training_net import PREPROCESSING, TinyNet, TwoScores, weights, write_photos
from tests.training_run import STEPS, recipe

ROOT = Path(__file__).parents[1]
WHOLE = Augmentation(crop=None, mirror=False)


@pytest.fixture
def photos(tmp_path: Path) -> LabelledPhotos:
    return LabelledPhotos.of(write_photos(tmp_path / "photos"), classes=3)


def trained(net: TinyNet, photos: LabelledPhotos, recipe: Recipe, steps: int = 2) -> Trainer:
    trainer = Trainer(net, photos, recipe)
    for _ in range(steps):
        trainer.step()
    return trainer


def net(kind: type[TinyNet] = TinyNet, **options: Any) -> TinyNet:
    torch.manual_seed(0)
    return kind(**options)


# --- the schedule and the groups ------------------------------------------------------------------


def test_poly() -> None:
    """DeepLab's: a quarter of the way, 7.7189e-4 of 1e-3 are left."""
    assert poly(1e-3, 5000, 20000) == pytest.approx(7.7189e-4, rel=1e-5)
    assert poly(1e-3, 0, 20000) == 1e-3
    assert poly(1e-3, 20000, 20000) == 0
    assert poly(1e-3, 5000, 20000, power=1) == pytest.approx(7.5e-4)
    assert poly(1e-10, 99_999, 100_000, power=0) == 1e-10
    for iteration in (-1, 11):
        with pytest.raises(ValueError, match=rf"iteration: expected 0 to 10, got {iteration}"):
            poly(1.0, iteration, 10)


def test_groups() -> None:
    """Each parameter once, in the group that it belongs to."""
    module = net(norm=True)
    module.body[4].weight.requires_grad_(False)
    groups = {group["name"]: group for group in parameter_groups(module, 1e-3, 5e-4)}
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert rates == {
        "body weights": (1e-3, 5e-4),
        "body biases": (2e-3, 0.0),
        "body scales": (1e-3, 0.0),
        "head weights": (1e-2, 5e-4),
        "head biases": (2e-2, 0.0),
    }
    members = {name: [id(one) for one in group["params"]] for name, group in groups.items()}
    body, score = module.body, module.score
    assert members["body weights"] == [id(body[0].weight)]
    assert members["body biases"] == [id(body[0].bias), id(body[1].bias), id(body[4].bias)]
    assert members["body scales"] == [id(body[1].weight)]
    assert members["head weights"] == [id(score.weight)]
    assert members["head biases"] == [id(score.bias)]
    with pytest.raises(ValueError, match="net: expected parameters"):
        parameter_groups(module.requires_grad_(False), 1e-3)


def test_two_steps_by_hand(photos: LabelledPhotos) -> None:
    """Momentum, decay of weights alone, twice the rate for biases, ten times for the head, poly."""
    settings = Recipe(10, batch=2, lr=0.01, momentum=0.9, weight_decay=0.1, augmentation=WHOLE)
    module, other = net(), net()
    trainer = trained(module, photos, settings, steps=2)
    assert trainer.iteration == 2

    moving: dict[str, Tensor] = {}
    samples = Trainer(net(), photos, settings)._rows()
    for iteration in range(2):
        images, labels = next(samples)
        scores = other(PREPROCESSING(images))
        counted = labels != 255
        right = scores.log_softmax(1).gather(1, labels.long().clamp(max=2)[:, None])[:, 0]
        loss = -(right * counted).sum() / counted.sum()
        parameters = dict(other.named_parameters())
        slopes = torch.autograd.grad(loss, list(parameters.values()))
        lr = 0.01 * (1 - iteration / 10) ** 0.9
        with torch.no_grad():
            for (name, parameter), slope in zip(parameters.items(), slopes, strict=True):
                bias = name.endswith("bias")
                factor = (2 if bias else 1) * (10 if name.startswith("score") else 1)
                total = slope + (0 if bias else 0.1) * parameter
                moving[name] = 0.9 * moving.get(name, torch.zeros_like(total)) + total
                parameter -= lr * factor * moving[name]
    torch.testing.assert_close(weights(module), weights(other), rtol=1e-5, atol=1e-7)


# --- the loss -------------------------------------------------------------------------------------


def test_summed_loss() -> None:
    """FCN's: the sum over pixels, without those that are ignored."""
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, 1:3] = 7
    want = torch.zeros((), dtype=torch.float64)
    for n, y, x in (labels != 7).nonzero().tolist():
        want = want - scores[n, :, y, x].log_softmax(0)[labels[n, y, x]]
    torch.testing.assert_close(summed_loss(scores, labels, 7), want)
    assert summed_loss(scores, torch.full_like(labels, 7), 7).item() == 0


def test_shrink_labels() -> None:
    """321 to 41 takes every eighth, from corner to corner."""
    labels = torch.arange(321 * 321).reshape(1, 321, 321)
    assert torch.equal(shrink_labels(labels, (41, 41)), labels[:, ::8, ::8])
    assert shrink_labels(labels, (321, 321)) is labels
    small = shrink_labels(labels, (31, 21))
    assert small[0, 0, 0] == 0
    assert small[0, 1, 1] == 11 * 321 + 16  # Row 10.67, column 16.
    assert small[0, -1, -1] == 321 * 321 - 1


def test_sum_and_mean(photos: LabelledPhotos) -> None:
    """A step with the summed loss is one with the mean, with the rate times the pixels."""
    mean = Recipe(10, batch=1, lr=0.01, weight_decay=0, augmentation=WHOLE)
    pixels = int((Trainer(net(), photos, mean).photos[0][1] != 255).sum())
    order = Trainer(net(), photos, mean)._rows()
    pixels = int((next(order)[1] != 255).sum())
    one = trained(net(), photos, mean, steps=1)
    other = trained(net(), photos, replace(mean, loss="sum", lr=0.01 / pixels), steps=1)
    torch.testing.assert_close(weights(one.net), weights(other.net), rtol=1e-5, atol=1e-7)


# --- parts, processes, kills ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TinyNet, TwoScores])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts(kind: type[TinyNet], parts: int, photos: LabelledPhotos) -> None:
    """Parts of a batch add up to the batch, though they differ in how many pixels count."""
    whole = recipe()
    one = trained(net(kind), photos, whole)
    other = trained(net(kind), photos, replace(whole, parts=parts))
    torch.testing.assert_close(weights(one.net), weights(other.net), rtol=1e-5, atol=1e-7)
    start = weights(net(kind))
    assert not torch.allclose(weights(one.net), start, atol=1e-3)


def test_several_scores(photos: LabelledPhotos) -> None:
    """The losses of all scores are added, each a mean over its own pixels."""
    settings = Recipe(5, batch=2, augmentation=WHOLE)
    trainer = Trainer(net(TwoScores), photos, settings)
    images, labels = next(Trainer(net(), photos, settings)._rows())
    want = 0.0
    module: Any = net(TwoScores)
    for scores in module.all_scores(PREPROCESSING(images)):
        small = shrink_labels(labels, scores.shape[-2:]).long()
        want += nn.functional.cross_entropy(scores, small, ignore_index=255).item()
    assert trainer.step()[0] == pytest.approx(want, rel=1e-5)


def test_photos_of_several_sizes(tmp_path: Path) -> None:
    """Whole photos, each a part of its own: the loss is the mean over all their pixels."""
    for number, size in enumerate([(24, 32), (20, 44)]):
        write_photos(tmp_path / f"{number}", 1, size)
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / f"{number}" / part / "0.png").rename(tmp_path / part / f"{number}.png")
    photos = LabelledPhotos.of(tmp_path, classes=3)
    settings = Recipe(5, batch=2, parts=2, augmentation=WHOLE)
    module = net()
    total, count = 0.0, 0
    for photo, labels in (photos[number] for number in range(2)):
        total += summed_loss(module(PREPROCESSING(photo[None])), labels[None], 255).item()
        count += int((labels != 255).sum())
    assert Trainer(module, photos, settings).step()[0] == pytest.approx(total / count, rel=1e-5)
    with pytest.raises(ValueError, match="crop: expected photos of one size"):
        Trainer(net(TwoScores), photos, settings).step()


def test_seeds(photos: LabelledPhotos) -> None:
    """The same seed gives the same bits, whatever else is drawn; another gives others."""
    settings = recipe(2)
    runs = []
    for seed, drawn in ((0, 0), (0, 1), (1, 0)):
        trainer = Trainer(net(dropout=0.5), photos, replace(settings, seed=seed))
        for _ in range(2):
            torch.rand(drawn)
            trainer.step()
        runs.append(weights(trainer.net))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    before = torch.random.get_rng_state()
    trainer.step()
    assert torch.equal(before, torch.random.get_rng_state())


def test_parts_draw_anew(photos: LabelledPhotos) -> None:
    """What layers draw is another thing in each part of each step."""
    drawn: list[float] = []
    module = net()
    module.body.register_forward_hook(lambda *_: drawn.append(torch.rand(1).item()))
    trained(module, photos, recipe(2), steps=2)
    assert len(set(drawn)) == len(drawn) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_resume(workers: int, photos: LabelledPhotos, tmp_path: Path) -> None:
    """To go on from a file, whatever was done before, gives the bits of weights and momentum."""
    settings = recipe(2)
    want = trained(net(dropout=0.5, norm=True), photos, settings, steps=STEPS)
    half = trained(net(dropout=0.5, norm=True), photos, settings, steps=3)
    save(tmp_path / "half.pt", {"network": {}, **half.state()})
    torch.manual_seed(5)
    rest = Trainer(TinyNet(dropout=0.5, norm=True), photos, settings, workers=workers)
    rest.step()
    rest.resume(load(tmp_path / "half.pt"))
    assert rest.iteration == 3
    while not rest.done:
        rest.step()
    for one, other in zip(_tensors(rest.state()), _tensors(want.state()), strict=True):
        assert torch.equal(one, other)


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for key in sorted(state, key=str) for tensor in _tensors(state[key])]
    return []


def test_resume_refuses(photos: LabelledPhotos) -> None:
    """Another recipe or network."""
    state = trained(net(), photos, recipe(), steps=1).state()
    with pytest.raises(ValueError, match=r"lr: expected 0\.05, as the checkpoint has it, got 0\.1"):
        Trainer(net(), photos, replace(recipe(), lr=0.1)).resume(state)
    with pytest.raises(ValueError, match="another network"):
        Trainer(net(norm=True), photos, recipe()).resume(state)


def test_kill(tmp_path: Path, threads: Callable[[int], AbstractContextManager[None]]) -> None:
    """A training killed without warning, while it may be writing, goes on from what is there."""
    folder, file = write_photos(tmp_path / "photos"), tmp_path / "killed.pt"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training_run", str(folder), str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    state = load(file)
    assert 3 <= state["iteration"] < STEPS
    photos = LabelledPhotos.of(folder, classes=3)
    with threads(1):
        rest = Trainer(TinyNet(dropout=0.3), photos, recipe())
        rest.resume(state)
        while not rest.done:
            rest.step()
        want = trained(net(dropout=0.3), photos, recipe(), steps=STEPS)
    pairs = zip(_tensors(rest.state()), _tensors(want.state()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# --- what can be wrong ----------------------------------------------------------------------------


def test_divergence_is_said(photos: LabelledPhotos) -> None:
    module = net()
    trainer = Trainer(module, photos, recipe())
    with torch.no_grad():
        module.score.bias[0] = float("inf")
    before = weights(module)
    with pytest.raises(DivergedError, match="the loss is nan at iteration 0"):
        trainer.step()
    assert torch.equal(weights(module), before)


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "iterations": ({"iterations": 0}, "iterations: expected at least 1, got 0"),
    "parts": ({"batch": 10, "parts": 3}, "parts: expected a divisor of the batch 10, got 3"),
    "lr": ({"lr": 0.0}, "lr: expected a number above 0"),
    "nan": ({"power": float("nan")}, "power: expected a number >= 0, got nan"),
    "momentum": ({"momentum": 1.0}, "momentum: expected 0 up to below 1"),
    "loss": ({"loss": "median"}, "loss: expected mean or sum, got 'median'"),
    "seed": ({"seed": -1}, "seed: expected at least 0"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_bad_recipes(name: str) -> None:
    options, says = RECIPES[name]
    with pytest.raises(ValueError, match=says):
        Recipe(**{"iterations": 5, **options})


def test_processes_and_parts(photos: LabelledPhotos) -> None:
    with pytest.raises(ValueError, match="parts: expected a multiple of the 2 processes, got 1"):
        Trainer(net(), photos, recipe(), processes=Processes(0, 2))
    with pytest.raises(ValueError, match="expected frozen batch normalisation"):
        Trainer(net(norm=True), photos, recipe(2), processes=Processes(0, 2))
    with pytest.raises(ValueError, match="expected cpu or cuda, got 'abacus'"):
        Processes.join("abacus")


def test_checkpoints_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file, and nothing beside it."""
    file = tmp_path / "state.pt"
    save(file, {"network": {}, "iteration": 1})

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(file, {"network": {}, "iteration": 2})
    assert load(file)["iteration"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"state\.pt: expected a checkpoint of deformops"):
        load(file)
    torch.save({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="got other contents"):
        load(file)
