"""`deformops segment`: the overlay, its legend, the labels, and tiles of any size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("PIL", reason="extra [nets] is not installed")

from PIL import Image

from deformops.__main__ import main
from deformops.cli.segmentation import with_legend
from deformops.ops import Bilateral, Gaussian, dense_crf
from deformops.pictures import LabelMap, class_colors, voc_colors
from deformops.training import Predictor
from deformops.training.checkpoint import save
from deformops.training.network import Network
from tests.training_net import photo

NAMES = ("ground", "disk", "a bar with quite a long name")
SIZE = (60, 84)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A photo, and a network whose head is drawn at random."""
    paths = {name: tmp_path / f"{name}.png" for name in ("photo", "over", "labels")}
    Image.fromarray(photo(1, SIZE)[0]).save(paths["photo"])
    network = Network("deeplab-largefov", NAMES, {"width": 0.03}, "torchvision")
    net = network.build()
    recipe = {"augmentation": {"reduce": 1.0}}
    state = {"network": network.state(), "recipe": recipe, "model": net.state_dict()}
    paths["weights"] = tmp_path / "net.pt"
    save(paths["weights"], state)
    return paths


def segment(files: dict[str, Path], *words: str) -> int:
    given = [str(files["photo"]), "--weights", str(files["weights"]), "-o", str(files["over"])]
    return main(["segment", *given, "--labels", str(files["labels"]), "--device", "cpu", *words])


def scores(
    files: dict[str, Path], rows: slice = slice(None), columns: slice = slice(None)
) -> torch.Tensor:
    """What the network says of the photo or a part of it, [classes, H, W]."""
    net = Network("deeplab-largefov", NAMES, {"width": 0.03}, "torchvision").build()
    net.load_state_dict(torch.load(files["weights"])["model"])
    return Predictor(net).scores(pixels(files)[:, rows, columns])


def pixels(files: dict[str, Path]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(files["photo"])).copy()).permute(2, 0, 1)


def labels(files: dict[str, Path]) -> NDArray[np.int64]:
    return np.asarray(Image.open(files["labels"])).astype(np.int64)


def test_labels(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The most probable class of each pixel; the overlay has a legend of those that occur."""
    assert segment(files) == 0
    want = scores(files).argmax(0).numpy()
    assert np.array_equal(labels(files), want)
    text = capsys.readouterr().out
    assert "84 x 60 pixels" in text
    for number in range(3):
        share = (want == number).mean()
        assert bool(re.search(rf"{NAMES[number]} +{100 * share:.1f}%", text)) == (share > 0)
    with Image.open(files["over"]) as overlay, Image.open(files["photo"]) as original:
        assert overlay.height > original.height
        assert overlay.width >= original.width
        expected = LabelMap(want, class_colors(NAMES)).over(np.asarray(original))
        corner = overlay.crop((0, 0, *original.size))
        assert np.array_equal(np.asarray(corner), np.asarray(expected))


def test_tiles(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The network never sees more than a tile; each pixel has the label that its tile gives it."""
    seen: list[tuple[int, ...]] = []
    scored = Predictor.scores

    def watched(predictor: Predictor, tile: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tile.shape))
        return scored(predictor, tile)

    monkeypatch.setattr(Predictor, "scores", watched)
    assert segment(files, "--tile", "40", "--overlap", "12") == 0
    assert seen == [(3, 40, 40)] * 6
    top_left = scores(files, slice(40), slice(40)).argmax(0).numpy()
    bottom_right = scores(files, slice(20, 60), slice(44, 84)).argmax(0).numpy()
    # They begin at rows 0, 20 and columns 0, 28, 44, and meet in the middle of what they share.
    assert np.array_equal(labels(files)[:30, :34], top_left[:30, :34])
    assert np.array_equal(labels(files)[30:, 56:], bottom_right[10:, 12:])
    assert segment(files, "--tile", "4096") == 0
    assert np.array_equal(labels(files), scores(files).argmax(0).numpy())


def test_crf(files: dict[str, Path]) -> None:
    words = ("--gaussian", "2", "3", "--bilateral", "20", "20", "4")
    assert segment(files, "--crf", *words) == 0
    terms = [Gaussian(2, 3), Bilateral(20, 20, 4)]
    unary = -scores(files)[None].log_softmax(1)
    q = dense_crf(unary, pixels(files)[None], pairwise=terms)
    assert np.array_equal(labels(files), q[0].argmax(0).numpy())
    before = labels(files)
    assert segment(files) == 0
    assert not np.array_equal(labels(files), before)


def test_legend() -> None:
    """Names in rows below the picture, as wide as the picture unless one name is wider."""
    found = LabelMap(np.array([[0, 1], [2, 2]]).repeat(100, 1).repeat(50, 0), class_colors(NAMES))
    picture = Image.new("RGB", (200, 100), "black")
    sheet = with_legend(picture, found, NAMES)
    below = np.asarray(sheet)[100:]
    for color in found.colors[:3]:
        assert (below == color).all(-1).sum() > 50
    assert (below[-1] == 255).all()
    assert with_legend(picture, found.with_labels(found.labels * 0), NAMES).size[1] < sheet.height
    assert sheet.width >= 200


def test_colors_of_classes() -> None:
    """Black is for the background alone."""
    assert np.array_equal(class_colors(["Background", "cat"]), voc_colors())
    colors = class_colors(["Sky", "Road"]).astype(int)
    assert colors.any(1).all()
    apart = np.abs(colors[:21, None] - colors[None, :21]).sum(-1) + 1000 * np.eye(21, dtype=int)
    assert apart.min() > 60


def test_progress_on_a_terminal(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert segment(files, "--tile", "48", "--overlap", "16") == 0
    error = capsys.readouterr().err
    assert "tile 6 of 6" in error
    assert error.endswith("\r\033[K")


BAD = {
    "photo": (["PHOTO", "no.jpg"], "no.jpg cannot be read as a photo"),
    "weights": (["--weights", "no.pt"], r"segment: no\.pt: No such file"),
    "overlap": (["--tile", "64", "--overlap", "64"], "--overlap: expected 0 up to less than"),
    "tile": (["--tile", "0"], "--tile: expected at least 1, got 0"),
    "labels": (["--labels", "labels.jpg"], "--labels: expected a name ending in .png"),
    "output": (["-o", "no/such/out.png"], "no/such is no folder"),
    "kind": (["-o", "OUT.nonsense"], r"cannot be written: expected a name .* got \.nonsense"),
    "iterations": (["--iterations", "-2"], "--iterations: expected 0 or more"),
    "bandwidth": (["--crf", "--gaussian", "0", "3"], "sigma"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    name: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, says = BAD[name]
    if words[0] == "PHOTO":
        files["photo"] = Path(words[1])
        words = []
    words = [word.replace("OUT", str(tmp_path / "over")) for word in words]
    assert segment(files, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("deformops segment: ")
    assert re.search(says, error), error
    assert not files["over"].exists()
