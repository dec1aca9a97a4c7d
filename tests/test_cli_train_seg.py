"""`deformops train-seg` and `eval-seg`: what they learn, print, write, and say to what is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from PIL import Image

from deformops.__main__ import main
from deformops.cli import session
from deformops.nets.segmentation import build_segmenter
from deformops.training import Trainer
from deformops.training.checkpoint import load, save
from deformops.training.network import Network
from tests.training_net import write_photos

ROOT = Path(__file__).parents[1]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
SLIM = ("--net", "deeplab-largefov", "--width", "0.03", "--preprocessing", "torchvision")
QUICK = ("--crop", "17", "25", "--batch", "2", "--lr", "0.01", "--device", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos in train and val, and names of the classes."""
    folder = tmp_path / "data"
    write_photos(folder / "train", 4)
    write_photos(folder / "val", 2)
    (folder / "classes.txt").write_text("ground\ndisk\nbar\n")
    return folder


def train(data: Path, *words: str, output: str = "net.pt", steps: int = 4) -> int:
    file = str(data.parent / output)
    options = [*SLIM, *QUICK, "--iterations", str(steps)]
    return main(["train-seg", str(data), "-o", file, *options, *words])


def evaluate(data: Path, *words: str) -> int:
    return main(["eval-seg", str(data), "--weights", str(data.parent / "net.pt"), *words])


def test_train_and_evaluate(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint says what the network is; the scores at the end are those of eval-seg."""
    assert train(data, "--report-every", "2") == 0
    text = capsys.readouterr().out
    for word in ("4 photos, 3 classes: ground, disk, bar", "step 2: loss", "step 4: loss"):
        assert word in text
    state = load(data.parent / "net.pt")
    assert state["network"] == {
        "name": "deeplab-largefov",
        "class_names": ("ground", "disk", "bar"),
        "options": {"width": 0.03},
        "preprocessing": "torchvision",
        "ignore": 255,
    }
    assert state["iteration"] == 4
    scores = text[text.index("IoU ") :].splitlines()
    assert evaluate(data) == 0
    again = capsys.readouterr().out
    for row in scores[1:]:
        assert row in again
    names = [row.split("  ")[1] for row in scores[1:]]
    means = ["mean IoU", "mean accuracy", "pixel accuracy", "weighted IoU"]
    assert names == ["ground", "disk", "bar", *means]


def test_corners(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the scores' corners lie is part of the network, for all who read its checkpoint."""
    assert train(data, "--no-align-corners") == 0
    trained = capsys.readouterr().out
    state = load(data.parent / "net.pt")
    assert state["network"]["options"] == {"width": 0.03, "align_corners": False}
    scores = trained[trained.index("IoU ") :].splitlines()[1:]
    assert evaluate(data) == 0
    evaluated = capsys.readouterr().out
    for row in scores:
        assert row in evaluated
    net: Any = Network.of(state["network"]).build().eval()
    net.load_state_dict(state["model"])
    image = torch.randn(1, 3, 24, 32)
    cells = net.coarse(image)
    want = torch.nn.functional.interpolate(cells, (24, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(image), want)
    assert train(data, "--resume") == 1
    assert "has another network" in capsys.readouterr().err


def test_ablation_and_bands(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four mean IoUs from one command; the widest band is everything."""
    assert train(data, "--val", "none") == 0
    assert "mean IoU" not in capsys.readouterr().out
    crf = ["--gaussian", "2", "3", "--bilateral", "20", "20", "4"]
    assert evaluate(data, "--crf-ablation", *crf, "--trimap", "1", "32") == 0
    text = capsys.readouterr().out
    assert re.search(r"IoU +unary +gaussian +bilateral +both\n", text)
    means = re.findall(r"mean IoU" + r" +(\S+)%" * 4, text)
    whole = re.findall(r"^  32" + r" +(\S+)%" * 4, text, re.M)
    assert means == whole
    assert evaluate(data, "--crf", *crf) == 0
    both = re.findall(r"mean IoU +(\S+)% +(\S+)%", capsys.readouterr().out)
    assert both == [(means[0][0], means[0][3])]


def test_resume(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is interrupted and goes on writes the file it would have written."""
    assert train(data, output="whole.pt") == 0
    step = Trainer.step

    def interrupted(trainer: Trainer, stop: bool = False) -> tuple[float, bool]:
        if trainer.iteration == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, stop)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert train(data, output="net.pt") == 130
    assert 0 < load(data.parent / "net.pt")["iteration"] < 4
    monkeypatch.setattr(Trainer, "step", step)
    assert train(data) == 1
    assert train(data, "--resume") == 0
    one, other = (load(data.parent / name) for name in ("whole.pt", "net.pt"))
    assert one["iteration"] == other["iteration"] == 4
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert train(data, "--resume") == 0  # Nothing is left to do.


def test_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with session.Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_torchrun(data: Path) -> None:
    """Two processes by torchrun: one of them prints, and the file is that of one with two parts."""
    assert train(data, "--parts", "2", "--val", "none", output="one.pt") == 0
    words = ["train-seg", str(data), "-o", str(data.parent / "two.pt"), *SLIM, *QUICK]
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    process = subprocess.run(
        [sys.executable, *runner, "deformops", *words, "--iterations", "4"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("4 photos, 3 classes") == 1
    assert process.stdout.count("mean IoU") == 1
    one, two = (load(data.parent / name)["model"] for name in ("one.pt", "two.pt"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_weights(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of another file are where it begins, and what was taken is said."""
    torch.manual_seed(3)
    net = build_segmenter("deeplab-largefov", 5, width=0.03)
    torch.save(net.state_dict(), data.parent / "five.pth")
    assert train(data, "--weights", str(data.parent / "five.pth"), "--lr", "1e-12") == 0
    text = capsys.readouterr().out
    assert re.search(r"five\.pth: \d+ loaded\n2 mismatched: .*fc8", text)
    model = load(data.parent / "net.pt")["model"]
    want = net.state_dict()["features.0.weight"]
    torch.testing.assert_close(model["features.0.weight"], want)


def test_progress_on_a_terminal(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert train(data) == 0
    error = capsys.readouterr().err
    for text in ("] step 3 of 4, loss ", "] photo 2 of 2"):
        assert text in error
    assert error.endswith("\r\033[K")


def test_quiet_elsewhere(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["train-seg", "eval-seg", "segment"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of a manual, with examples, no line of which is too long for a terminal."""
    with pytest.raises(SystemExit) as info:
        main([command, "--help"])
    assert info.value.code == 0
    text = capsys.readouterr().out
    assert f"deformops {command} " in text[text.index("examples:") :]
    assert max(len(line) for line in text.splitlines()) <= 100


def labels(folder: Path, value: int, size: tuple[int, int] = (32, 24)) -> None:
    Image.new("L", size, value).save(folder / "train" / "labels" / "0.png")


BAD: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "partner": (lambda f: (f / "train" / "labels" / "0.png").unlink(), [], "none for 0"),
    "sizes": (lambda f: labels(f, 0, (31, 24)), ["--batch", "4"], "must be of one size"),
    "label": (lambda f: labels(f, 3), ["--batch", "4"], "has the label 3; expected 0 to 2"),
    "no data": (lambda f: None, ["--split", "test"], "test: expected the folders images and"),
    "names": (lambda f: None, ["--classes", "4"], "--classes: expected 3, as .*classes.txt has"),
    "no names": (lambda f: None, ["--names", "no.txt"], "no.txt cannot be read"),
    "option": (lambda f: None, ["--pad", "1"], "deeplab-largefov: expected options among width"),
    "corners": (
        lambda f: None,
        ["--net", "deeplab-msc-resnet101", "--no-align-corners"],
        "net: expected align_corners=True",
    ),
    "width": (lambda f: None, ["--width", "0"], "width: expected a fraction above 0"),
    "crop": (lambda f: None, ["--crop", "1", "2", "3"], "--crop: expected one or two numbers"),
    "crops": (lambda f: None, ["--crop", "0", "3"], "crop: expected at least 1 x 1"),
    "parts": (lambda f: None, ["--parts", "3"], "parts: expected a divisor of the batch 2"),
    "lr": (lambda f: None, ["--lr", "1e30", "--no-mirror"], "the loss is .* smaller learning"),
    "weights": (lambda f: None, ["--weights", "no.pth"], "no.pth"),
    "output": (lambda f: None, ["-o", "no/such/net.pt"], "no/such is no folder"),
    "workers": (lambda f: None, ["--workers", "-1"], "--workers: expected 0 or more"),
    "every": (lambda f: None, ["--save-every", "0"], "--save-every: expected at least 1"),
    "device": (lambda f: None, ["--device", "abacus"], "device: expected cpu or cuda"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, words, says = BAD[name]
    change(data)
    assert train(data, *words, "--val", "none") == 1
    error = capsys.readouterr().err
    assert error.startswith("deformops train-seg: ")
    assert re.search(says, error), error


def test_resume_with_other_options(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, "--val", "none") == 0
    assert train(data, "--resume", "--lr", "0.5") == 1
    assert "lr: expected 0.01, as the checkpoint has it, got 0.5" in capsys.readouterr().err
    assert train(data, "--resume", "--width", "0.05") == 1
    assert "has another network" in capsys.readouterr().err


BAD_EVALUATIONS: dict[str, tuple[list[str], str]] = {
    "no file": (["--weights", "no.pt"], "no.pt"),
    "other file": (["--weights", "WEIGHTS"], "expected a checkpoint of deformops train-seg"),
    "trimap": (["--trimap", "0"], r"--trimap: expected widths of at least 1"),
    "split": (["--split", "test"], "test: expected the folders images and labels"),
    "iterations": (["--iterations", "-1"], "--iterations: expected 0 or more"),
}


@pytest.mark.parametrize("name", BAD_EVALUATIONS)
def test_bad_evaluations(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, says = BAD_EVALUATIONS[name]
    other = data.parent / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    given = [str(other) if word == "WEIGHTS" else word for word in words]
    assert evaluate(data, *given) == 1
    assert re.search(says, capsys.readouterr().err)


def test_checkpoint_of_another_network(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, "--val", "none") == 0
    state = load(data.parent / "net.pt")
    state["network"]["options"] = {"width": 0.05}
    save(data.parent / "net.pt", state)
    assert evaluate(data) == 1
    assert "does not fit its network" in capsys.readouterr().err


def test_overfits_two_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two street photos of CamVid, learned by heart in 60 steps: the mean loss falls below 0.4."""
    if not CAMVID.is_dir():
        pytest.skip("photos with labels are not at ../shared/data/camvid")
    for part in ("images", "labels"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for file in sorted((CAMVID / "train" / part).iterdir())[:200:100]:
            (tmp_path / "photos" / part / file.name).symlink_to(file)
    words = ["train-seg", str(tmp_path / "photos"), "-o", str(tmp_path / "net.pt")]
    words += ["--net", "deeplab-deform-resnet50", "--width", "0.25", "--norm", "batch"]
    words += ["--classes", "11", "--ignore", "11", "--reduce", "4", "--crop", "0", "--no-mirror"]
    words += ["--batch", "2", "--lr", "0.01", "--power", "0", "--iterations", "60"]
    assert main([*words, "--report-every", "10", "--device", "cpu"]) == 0
    losses = [float(loss) for loss in re.findall(r"loss (\S+),", capsys.readouterr().out)]
    assert losses[0] > 1
    assert losses[-1] < 0.4


def test_labels_with_a_palette(data: Path) -> None:
    """The numbers count, not their colours."""
    for file in (data / "train" / "labels").iterdir():
        picture = Image.open(file)
        indexed = Image.fromarray(np.asarray(picture), "P")
        indexed.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype("uint8").tobytes())
        indexed.save(file)
    assert train(data, output="palette.pt") == 0
