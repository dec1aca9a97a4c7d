"""`deformops train-det`: what it learns, prints, writes, keeps, and says to what is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from deformops.__main__ import main
from deformops.cli import alternation
from deformops.training.checkpoint import load
from deformops.training.detection.alternation import make_proposals
from deformops.training.detection.data import AnnotatedPhotos
from deformops.training.detection.network import DetectionNetwork
from deformops.training.detection.scenes import Scenes
from deformops.training.detection.statistics import box_statistics
from deformops.training.detection.trainer import DetectionTrainer
from tests.detection_data import write_voc

ROOT = Path(__file__).parents[1]
BCCD = ROOT.parent / "shared" / "data" / "bccd"
SLIM = ("--net", "faster-rcnn-vgg16", "--width", "0.015625", "--anchor-scales", "1", "2")
FEW = ("--min-size", "4", "--rois", "16", "--proposals", "32", "--sizes", "48", "--longest", "80")
QUICK = ("--lr", "0.01", "--iterations", "4", "--device", "cpu")
PARTS = ("trunk", "rpn", "roi_head")
RESIDUAL = ("--net", "rfcn-resnet50", "--norm", "batch", "--width", "0.03125", "--hard-rois", "8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data")


def train(data: Path, *words: str, output: str = "net.pt") -> int:
    file = str(data.parent / output)
    return main(["train-det", str(data), "-o", file, *SLIM, *FEW, *QUICK, *words])


def weights(data: Path, file: str, part: str = "") -> dict[str, Tensor]:
    """What a checkpoint has of a part of the network."""
    model: dict[str, Tensor] = load(data.parent / file)["model"]
    return {name: value for name, value in model.items() if name.startswith(part)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def interrupted(monkeypatch: pytest.MonkeyPatch, stage: str, at: int) -> None:
    """Ctrl-C comes before a step of a stage."""
    step = DetectionTrainer.step

    def interrupting(trainer: DetectionTrainer, stop: bool = False) -> tuple[float, bool]:
        if trainer.recipe.stage == stage and trainer.iteration == at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, stop)

    monkeypatch.setattr(DetectionTrainer, "step", interrupting)


def test_train(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint says what the network is, and a line tells of each loss."""
    words = ["--report-every", "2", "--preprocessing", "torchvision", "--anchors", "64"]
    assert train(data, *words) == 0
    text = capsys.readouterr().out
    assert "2 photos, 2 classes: cell, wheel" in text
    number = r"\d+\.\d{4}"
    losses = rf"objectness {number}, rpn_box_reg {number}, classifier {number}, box_reg {number}"
    assert re.search(rf"step 2: loss {number} \({losses}\), .* left\nstep 4: loss", text)
    state = load(data.parent / "net.pt")
    network = DetectionNetwork(
        "faster-rcnn-vgg16",
        ("cell", "wheel"),
        {"width": 0.015625, "scales": (1.0, 2.0)},
        "torchvision",
        (48, 80),
        {
            **{"min_size": 4.0, "rois": 16, "anchors": 64, "positive_anchors": 32},
            **{"proposals": (32, 300), "proposals_before": (192, 6000)},
        },
    )
    assert DetectionNetwork.of(state["network"]) == network
    assert state["iteration"] == 4
    network.build().load_state_dict(state["model"])


def test_resume(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that is interrupted and goes on writes the file it would have written."""
    assert train(data, output="whole.pt") == 0
    with monkeypatch.context() as patch:
        interrupted(patch, "joint", 1)
        assert train(data) == 130
    assert load(data.parent / "net.pt")["iteration"] == 3
    assert train(data) == 1
    assert train(data, "--resume") == 0
    assert same(weights(data, "net.pt"), weights(data, "whole.pt"))
    capsys.readouterr()
    assert train(data, "--resume") == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_interrupted_at_the_end_of_a_step(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the last iteration of one of the four steps is not lost."""
    interrupted(monkeypatch, "proposals", 3)
    assert train(data, *RESIDUAL, "--schedule", "alternate") == 130
    assert load(data.parent / "net.step1.pt")["iteration"] == 4
    assert not (data.parent / "net.proposals1.pt").exists()


def test_alternate(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step begins with what it should, moves what it learns, and leaves the rest bit by bit.

    Interrupted in step 2, it goes on there, with the proposals that step 1 has made.
    """
    words = [*RESIDUAL, "--schedule", "alternate"]
    assert train(data, *words) == 0
    files = ["net.pt", *(f"net.{what}.pt" for what in ("proposals1", "proposals3"))]
    files += [f"net.step{step}.pt" for step in range(1, 5)]
    assert sorted(file.name for file in data.parent.glob("*.pt")) == sorted(files)

    network = DetectionNetwork.of(load(data.parent / "net.pt")["network"])
    torch.manual_seed(0)
    start: dict[str, Tensor] = network.build().state_dict()
    begins = {part: {n: v for n, v in start.items() if n.startswith(part)} for part in PARTS}
    one, two, three, four = (
        {part: weights(data, f"net.step{step}.pt", part) for part in PARTS} for step in range(1, 5)
    )
    assert same(one["roi_head"], begins["roi_head"])
    assert same(two["rpn"], begins["rpn"])
    for part, before, after in (
        *(("trunk", begins, one), ("rpn", begins, one)),
        *(("trunk", begins, two), ("trunk", one, two), ("roi_head", begins, two)),
        *(("rpn", begins, three), ("rpn", one, three)),
        *(("roi_head", two, four), ("roi_head", begins, four)),
    ):
        assert not same(before[part], after[part])
    for part, before, after in (
        *(("trunk", two, three), ("trunk", two, four)),
        *(("roi_head", two, three), ("rpn", three, four)),
    ):
        assert same(before[part], after[part])
    assert any("running_var" in name for name in two["trunk"])
    assert same(weights(data, "net.pt"), weights(data, "net.step4.pt"))

    with monkeypatch.context() as patch:
        interrupted(patch, "head", 0)
        assert train(data, *words, output="again.pt") == 130
    assert load(data.parent / "again.step2.pt")["iteration"] == 2
    assert not (data.parent / "again.pt").exists()
    assert train(data, *words, output="again.pt") == 1
    made: list[int] = []
    make = make_proposals

    def counted(*words: Any, **named: Any) -> list[Tensor]:
        made.append(1)
        return make(*words, **named)

    monkeypatch.setattr(alternation, "make_proposals", counted)
    assert train(data, *words, "--resume", output="again.pt") == 0
    assert made == [1]
    assert same(weights(data, "again.pt"), weights(data, "net.pt"))


@pytest.mark.parametrize("fourth", ["py-faster-rcnn", "matlab"])
def test_measured_code(fourth: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file says by what its head's boxes are divided: those of the proposals it learned."""
    words = [*RESIDUAL, "--schedule", "alternate", "--step4", fourth]
    measured = [*words, "--box-code", "measured"]
    assert train(data, *measured, "--val", "test") == 0
    text = capsys.readouterr().out
    files = [*(f"net.step{step}.pt" for step in range(1, 5)), "net.pt"]
    codes = [load(data.parent / file)["network"]["box_code"] for file in files]
    assert codes[0] is None
    assert codes[1] == codes[2]
    assert codes[3] == codes[4]
    scenes = [
        Scenes(AnnotatedPhotos.of(data, "train"), load(data.parent / file)["proposals"])
        for file in ("net.proposals1.pt", "net.proposals3.pt")
    ]
    settings = DetectionNetwork.of(load(data.parent / "net.step1.pt")["network"]).build().settings
    first, second = (box_statistics(one, settings) for one in scenes)
    assert first != second
    assert codes[1] == first
    assert codes[3] == (first if fourth == "matlab" else second)
    assert main(["eval-det", str(data), "--weights", str(data.parent / "net.pt")]) == 0
    assert text[text.index("AP ") :] in capsys.readouterr().out
    assert train(data, *measured, "--resume") == 0
    assert train(data, *words, "--resume") == 1
    assert "net.step2.pt has another network" in capsys.readouterr().err


def test_scores_at_the_end(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are those of eval-det; classes go by the order that a file names them in."""
    (data / "names.txt").write_text("wheel\ncell\n")
    assert train(data, "--val", "test", "--names", str(data / "names.txt")) == 0
    assert load(data.parent / "net.pt")["network"]["class_names"] == ("wheel", "cell")
    text = capsys.readouterr().out
    scores = text[text.index("AP ") :]
    assert "cell" in scores
    assert main(["eval-det", str(data), "--weights", str(data.parent / "net.pt")]) == 0
    assert scores in capsys.readouterr().out


def test_weights(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A classifier's convolutions are where it begins, and conv1_x and conv2_x stay so."""
    torch.manual_seed(3)
    trunk = DetectionNetwork("faster-rcnn-vgg16", ("a",), {"width": 0.015625}).build().trunk
    classifier = {
        name.replace("backbone", "features"): 0.1 * torch.randn_like(value)
        for name, value in trunk.state_dict().items()
    }
    torch.save(classifier, data.parent / "vgg16.pth")
    words = ["--weights", str(data.parent / "vgg16.pth"), "--lr", "1e-3"]
    assert train(data, *words) == 0
    assert re.search(r"vgg16\.pth: 26 loaded", capsys.readouterr().out)
    learned = weights(data, "net.pt")
    for name, want in classifier.items():
        value = learned[name.replace("features", "trunk.backbone")]
        torch.testing.assert_close(value, want, rtol=0, atol=0.1)
        first = int(name.split(".")[1]) < 10
        assert torch.equal(value, want) == first
    assert train(data, *words, "--first-layers", "learn", output="all.pt") == 0
    name = "trunk.backbone.0.weight"
    assert not torch.equal(weights(data, "all.pt")[name], learned[name])


def test_overfits_two_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two photos of blood cells, a third of their size, learned for 60 steps of plain SGD."""
    if not BCCD.is_dir():
        pytest.skip("photos with boxes are not at ../shared/data/bccd")
    folder = tmp_path / "bccd"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for part in ("Annotations", "JPEGImages"):
        (folder / part).symlink_to(BCCD / part)
    names = ("BloodImage_00001", "BloodImage_00010")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names) + "\n")
    words = ["train-det", str(folder), "-o", str(tmp_path / "net.pt"), *RESIDUAL[:4]]
    words += ["--width", "0.125", "--deformable-layers", "3", "--deformable-rois", *FEW[:4]]
    words += ["--hard-rois", "0", "--sizes", "160", "--longest", "214", "--no-mirror"]
    words += ["--anchor-scales", "1", "2", "4", "--proposals", "100", "--device", "cpu"]
    words += ["--preprocessing", "torchvision", "--lr", "0.02", "--clip", "10"]
    assert main([*words, "--iterations", "60", "--report-every", "10", "--val", "train"]) == 0
    text = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r": loss (\S+) ", text)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.7 * losses[0]


def test_torchrun(data: Path) -> None:
    """Two processes do the four steps that one does with two parts."""
    words = [*SLIM, *FEW, *QUICK, "--schedule", "alternate"]
    assert train(data, "--schedule", "alternate", "--parts", "2", output="one.pt") == 0
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    output = ["-o", str(data.parent / "two.pt")]
    process = subprocess.run(
        [sys.executable, *runner, "deformops", "train-det", str(data), *output, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("step 3 of 4") == 1
    one, two = (weights(data, name) for name in ("one.pt", "two.pt"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


BAD: dict[str, tuple[list[str], str]] = {
    "split": (["--split", "none"], "none"),
    "option": (["--norm", "batch"], "faster-rcnn-vgg16: expected options among width"),
    "sizes": (["--sizes", "90"], "sizes: expected numbers from 1 to the longest side"),
    "rois": (["--rois", "-1"], "--rois: expected 0 or more, got -1"),
    "output": (["-o", "no/such/net.pt"], "no/such is no folder"),
    "lr": (["--lr", "1e30"], "the loss is .* smaller learning rate"),
    "code": (["--box-code", "measured"], "measured: expected --schedule alternate, got joint"),
    "stages": (
        ["--net", "class-aware-rpn-vgg16", "--schedule", "alternate"],
        "net: expected a detector of two stages",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, says = BAD[name]
    assert train(data, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("deformops train-det: ")
    assert re.search(says, error), error


def test_resume_with_other_options(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, "--iterations", "1") == 0
    assert train(data, "--iterations", "1", "--resume", "--lr", "0.5") == 1
    assert "lr: expected 0.01, as the checkpoint has it, got 0.5" in capsys.readouterr().err
    assert train(data, "--iterations", "1", "--resume", "--anchor-scales", "1") == 1
    assert "has another network" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", ["joint", "alternate"])
def test_resume_with_other_weights(
    schedule: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a training began with is kept by its contents, whatever the name of the file."""
    files = [data.parent / name for name in ("one.pth", "other.pth", "copy.pth")]
    for file in files[:2]:
        torch.save({"features.0.weight": torch.randn(1, 3, 3, 3)}, file)
    files[2].write_bytes(files[0].read_bytes())
    one, other, copy = (["--schedule", schedule, "--weights", str(file)] for file in files)
    assert train(data, *one, output="whole.pt") == 0
    with monkeypatch.context() as patch:
        interrupted(patch, "joint" if schedule == "joint" else "head", 0)
        assert train(data, *one) == 130
    capsys.readouterr()
    keep = ["--first-layers", "keep"]
    for words, got in ((other, files[1]), (["--schedule", schedule, *keep], "none")):
        assert train(data, *words, "--resume") == 1
        error = capsys.readouterr().err
        assert re.search(r"--weights: expected those with the SHA-256 [0-9a-f]{64}, ", error)
        assert error.endswith(f"began with, got {got}\n")
    assert train(data, *copy, "--resume") == 0
    assert same(weights(data, "net.pt"), weights(data, "whole.pt"))


def test_resume_with_weights_where_there_were_none(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data.parent / "one.pth"
    torch.save({"features.0.weight": torch.randn(1, 3, 3, 3)}, file)
    assert train(data, "--first-layers", "learn") == 0
    assert train(data, "--first-layers", "learn", "--weights", str(file), "--resume") == 1
    assert f"--weights: expected none, as {data.parent / 'net.pt'} " in capsys.readouterr().err
