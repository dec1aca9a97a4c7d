"""`deformops detect` and `eval-det`: what they find, draw, print, and say to what is wrong."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from PIL import Image

from deformops.__main__ import main
from deformops.cli.boxes import Labelled, Rectangle, _free_place, draw_boxes
from deformops.cli.command import Command
from deformops.nets.detection import Detector, TwoStageDetector
from deformops.pictures import class_colors
from deformops.training.checkpoint import save
from deformops.training.data import read_tensor
from deformops.training.detection.data import AnnotatedPhotos
from deformops.training.detection.inference import DetectionPredictor, evaluate_detector
from deformops.training.detection.network import DetectionNetwork
from deformops.training.network import Network
from tests.detection_data import write_coco, write_voc

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("cell", "wheel")


@pytest.fixture(scope="module")
def net() -> Detector:
    """Drawn at random, and so that it tells the classes apart."""
    torch.manual_seed(0)
    detector = described().build()
    assert isinstance(detector, TwoStageDetector)
    torch.nn.init.normal_(detector.roi_head.get_submodule("cls_score").weight, std=0.5)
    return detector


def described() -> DetectionNetwork:
    options = {"width": 0.03, "scales": (1.0, 2.0)}
    return DetectionNetwork(
        "faster-rcnn-zf", NAMES, options, size=(96, 128), settings={"min_size": 4.0}
    )


@pytest.fixture
def data(net: Detector, tmp_path: Path) -> Path:
    """A folder with photos in `voc` and the network in `net.pt`; it is the current one."""
    save(tmp_path / "net.pt", {"network": described().state(), "model": net.state_dict()})
    write_voc(tmp_path / "voc")
    return tmp_path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def detect(*words: str) -> int:
    photo = "voc/JPEGImages/one.jpg"
    return main(["detect", photo, "--weights", "net.pt", "--device", "cpu", *words])


def evaluate(*words: str) -> int:
    return main(["eval-det", "voc", "--weights", "net.pt", "--device", "cpu", *words])


def seen(net: Detector) -> dict[str, Tensor]:
    """What the network finds on the photo."""
    photo = read_tensor(Path("voc/JPEGImages/one.jpg"))
    return DetectionPredictor(net, (96, 128)).detections(photo)


def test_detect(data: Path, net: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each box, by falling score; the drawing has the colours of their classes."""
    assert detect("--min-score", "0.06", "--top", "7") == 0
    text = capsys.readouterr().out
    found = seen(net)
    boxes, labels, scores = (found[name][:7].tolist() for name in ("boxes", "labels", "scores"))
    assert len(boxes) == 7
    assert "one.jpg: 64 x 48 pixels" in text
    assert "7 objects above 6%" in text
    lines = re.findall(r"^  (cell|wheel) +([\d.]+)% +(\d+) +(\d+) +(\d+) +(\d+)$", text, re.M)
    assert [line[0] for line in lines] == [NAMES[label - 1] for label in labels]
    for line, box, score in zip(lines, boxes, scores, strict=True):
        assert float(line[1]) == pytest.approx(100 * score, abs=0.06)
        assert [int(side) for side in line[2:]] == [round(side) for side in box]
    assert "wrote one-boxes.png" in text
    pixels = np.asarray(Image.open("one-boxes.png"))
    assert pixels.shape == (48 * 16, 64 * 16, 3)
    for label in set(labels):
        assert (pixels == class_colors(NAMES)[label - 1]).all(-1).sum() > 100


def test_detect_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detect("--min-score", "0.999", "-o", "sure.jpg") == 0
    assert "0 objects above 100%" in capsys.readouterr().out
    with Image.open("sure.jpg") as picture:
        assert picture.size == (64 * 16, 48 * 16)


def test_evaluation(data: Path, net: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    """The scores that the same photos have in Python, and word of a box that is none."""
    truth = AnnotatedPhotos.of(data / "voc", "train", NAMES)
    scores = evaluate_detector(DetectionPredictor(net, (96, 128)), truth)
    file = data / "voc/Annotations/two.xml"
    wrong = "<object><name>cell</name><bndbox/></object>"
    file.write_text(file.read_text().replace("</annotation>", f"{7 * wrong}</annotation>"))
    assert evaluate("--split", "train", "--coco") == 0
    text = capsys.readouterr().out
    assert text.startswith("faster-rcnn-zf, 2 photos of voc, train\n")
    assert text.count("dropped\n") == 5
    assert "two.xml, object 2 (cell): the box nan" in text
    assert "and 2 boxes more" in text
    coco = scores.coco()
    columns = [scores.voc(), scores.voc(eleven_points=True), coco.classes]
    for number, (name, count) in enumerate({"cell": 2, "wheel": 1}.items()):
        wanted = " +".join(f"{column[number]:.2%}" for column in columns)
        assert re.search(rf"^  {name} +{count} +{wanted}$", text, re.M)
    wanted = " +".join(f"{float(column.nanmean()):.2%}" for column in columns)
    assert re.search(rf"^  mean +3 +{wanted}$", text, re.M)
    assert re.search(rf"^  AR 100 +{coco.summary['AR 100']:.2%}$", text, re.M)
    assert evaluate() == 0
    text = capsys.readouterr().out
    assert "1 photos of voc, test" in text
    assert "COCO" not in text


def test_evaluation_of_coco(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same photos have the same scores, whichever way they are laid out."""
    assert evaluate("--split", "train") == 0
    _, *expected = capsys.readouterr().out.splitlines()
    file = write_coco(data / "coco") / "annotations" / "instances_train.json"
    assert main(["eval-det", str(file), "--weights", "net.pt", "--device", "cpu"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"faster-rcnn-zf, 2 photos of {file}"
    assert lines == expected


def test_a_class_that_is_not_there(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has a dash, and no part in the mean."""
    file = data / "voc/Annotations/one.xml"
    file.write_text(file.read_text().replace("wheel", "cell"))
    assert evaluate("--coco") == 0
    assert re.search(r"^  wheel +0 +- +- +-$", capsys.readouterr().out, re.M)


def test_progress_on_a_terminal(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert evaluate("--split", "train") == 0
    error = capsys.readouterr().err
    assert "] photo 2 of 2" in error
    assert error.endswith("\r\033[K")


def test_ctrl_c(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectionPredictor, "detections", interrupted)
    assert evaluate() == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def left_alone(_: argparse.Namespace) -> int:
    raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_has_gone_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """`deformops detect ... | head -3`."""
    command = Command("detect", nothing, __name__, left_alone.__name__)
    with pytest.raises(BrokenPipeError):
        command(argparse.Namespace())
    assert capsys.readouterr().err == ""


def test_torchrun(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes by torchrun: one of them prints what one alone does."""
    assert evaluate("--split", "train", "--coco") == 0
    alone = capsys.readouterr().out
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = ["eval-det", "voc", "--weights", "net.pt", "--split", "train", "--coco"]
    process = subprocess.run(
        [sys.executable, *runner, "deformops", *words, "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == alone


@pytest.mark.parametrize("command", ["eval-det", "detect"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of a manual, with examples, no line of which is too long for a terminal."""
    with pytest.raises(SystemExit) as info:
        main([command, "--help"])
    assert info.value.code == 0
    text = capsys.readouterr().out
    assert f"deformops {command} " in text[text.index("examples:") :]
    assert max(len(line) for line in text.splitlines()) <= 100


def segmenter(folder: Path) -> None:
    network = Network("deeplab-largefov", ("ground", "disk"), {"width": 0.03})
    state = {"network": network.state(), "model": network.build().state_dict()}
    save(folder / "net.pt", state)


def fewer_classes(folder: Path) -> None:
    network = DetectionNetwork("faster-rcnn-zf", ("cell",), {"width": 0.03})
    save(folder / "net.pt", {"network": network.state(), "model": network.build().state_dict()})


def other_weights(folder: Path) -> None:
    save(folder / "net.pt", {"network": described().state(), "model": {}})


def nothing(_: object) -> None:
    pass


BAD: dict[str, tuple[Callable[..., int], Callable[[Path], object], list[str], str]] = {
    "photo": (detect, lambda f: (f / "voc/JPEGImages/one.jpg").unlink(), [], "one.jpg cannot be"),
    "score": (detect, nothing, ["--min-score", "1"], "--min-score: expected a number from 0 to"),
    "top": (detect, nothing, ["--top", "0"], "--top: expected at least 1, got 0"),
    "folder": (detect, nothing, ["-o", "no/such.png"], "no is no folder to write to"),
    "kind": (
        detect,
        nothing,
        ["-o", "out.nonsense"],
        r"out.nonsense cannot be written: expected .*, got \.non",
    ),
    "segmenter": (
        detect,
        segmenter,
        [],
        "a checkpoint of train-det, got another one: .* has ignore",
    ),
    "fit": (detect, other_weights, [], r"net\.pt does not fit its network"),
    "device": (detect, nothing, ["--device", "abacus"], "device: expected cpu or cuda"),
    "no file": (evaluate, lambda f: (f / "net.pt").unlink(), [], r"net\.pt"),
    "no checkpoint": (evaluate, lambda f: (f / "net.pt").write_text("hello"), [], "a checkpoint"),
    "other class": (evaluate, fewer_classes, [], "one.xml, object 2 is a wheel; expected .* cell"),
    "split": (evaluate, nothing, ["--split", "dev"], r"dev\.txt cannot be read"),
    "no XML": (evaluate, lambda f: (f / "voc/Annotations/one.xml").unlink(), [], "one.xml cannot"),
    "no folder": (evaluate, lambda f: (f / "voc/Annotations").rename(f / "A"), [], "expected Pasc"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, spoil, words, says = BAD[name]
    spoil(data)
    assert command(*words) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"deformops {'detect' if command is detect else 'eval-det'}: ")
    assert re.search(says, error), error
    assert not list(data.glob("*.png"))


@pytest.mark.parametrize(("module", "words"), [("PIL", []), ("pycocotools", ["--coco"])])
def test_missing_packages(
    module: str,
    words: list[str],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else name)
    assert evaluate(*words) == 1
    assert "pip install 'deformops-vision[nets]'" in capsys.readouterr().err


RED, WHITE = (230, 25, 25), (255, 255, 255)


def test_drawing() -> None:
    """Outlines lie on the outermost pixels of their boxes; later boxes below earlier ones."""
    photo = np.full((1000, 1200, 3), 128, dtype=np.uint8)
    box = (100.0, 200.0, 499.4, 599.0)
    drawn = draw_boxes(photo, [Labelled(box, "a", RED), Labelled(box, "bb", WHITE)])
    pixels = np.asarray(drawn)
    assert pixels.shape == photo.shape
    rows, columns = np.nonzero((pixels[220:] == RED).all(-1))
    assert (columns.min(), columns.max()) == (100, 499)
    assert 220 + rows.max() == 599
    assert (pixels[300:500, 150:450] == 128).all()
    assert (pixels[400, 100:102] == RED).all()
    small = draw_boxes(photo[:100, :300], [Labelled((10, 10, 19, 19), "a", RED)])
    assert small.size == (1200, 400)
    rows, columns = np.nonzero((np.asarray(small) == RED).all(-1))
    assert columns.max() >= 4 * 20 - 1


def test_tags_lie_apart() -> None:
    """At another corner where one is taken, and inside the picture."""
    tags: list[Rectangle] = []
    for box in (Rectangle(100, 100, 199, 199),) * 6:
        tags.append(_free_place(box, (40, 12), (640, 480), tags))
    assert tags[0] == Rectangle(100, 88, 139, 99)
    assert sum(a.shared(b) for a in tags for b in tags) == sum(a.shared(a) for a in tags)
    for box in (Rectangle(0, 0, 9, 9), Rectangle(600, 470, 639, 479), Rectangle(0, 0, 639, 479)):
        left, top, right, bottom = _free_place(box, (40, 12), (640, 480), [])
        assert min(left, top) >= 0
        assert right < 640
        assert bottom < 480
    crowd = np.random.default_rng(0).integers(0, 400, (20, 2))
    tags = []
    for x, y in crowd.tolist():
        tags.append(_free_place(Rectangle(x, y, x + 99, y + 99), (80, 20), (640, 480), tags))
    assert sum(a.shared(b) for a in tags for b in tags if a is not b) == 0
