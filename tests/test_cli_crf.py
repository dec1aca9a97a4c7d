"""`deformops crf`: what it refines, what it writes, and what it says to files that do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("PIL", reason="extra [viz] is not installed")

from PIL import Image

from deformops.__main__ import main
from deformops.analysis import mean_iou
from deformops.cli import refinement
from deformops.pictures import LabelMap, PictureError, edges, voc_colors

SIZE = (40, 56)
Files = dict[str, Path]
Array = NDArray[np.int64]


def disk() -> Array:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((y - 18) ** 2 + (x - 27) ** 2 < 190).astype(np.int64)


def blocky(labels: Array, block: int = 8) -> Array:
    """Each block with the label of its centre."""
    coarse = labels[block // 2 :: block, block // 2 :: block]
    return coarse.repeat(block, 0).repeat(block, 1)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A photo of a disk, its mask and the mask in blocks, with labels 0 and 15."""
    random = np.random.default_rng(0)
    shade = np.stack([disk() * 90 + 60, 80 + disk() * 40, 200 - disk() * 120], -1)
    noisy = np.clip(shade + random.normal(0, 4, shade.shape), 0, 255).astype(np.uint8)
    paths = {name: tmp_path / f"{name}.png" for name in ("photo", "truth", "labels", "out", "over")}
    Image.fromarray(noisy).save(paths["photo"])
    for name, labels in (("truth", disk()), ("labels", blocky(disk()))):
        LabelMap(15 * labels, voc_colors()).picture().save(paths[name])
    return paths


def crf(files: Files, *words: str, labels: str = "labels") -> int:
    given = [str(files["photo"]), str(files[labels]), "-o", str(files["out"])]
    # Colours of this photo differ by more than DeepLab's sigma allows for.
    return main(["crf", *given, "--bilateral", "30", "12", "4", *words])


def read(file: Path) -> Array:
    return np.asarray(Image.open(file)).astype(np.int64)


def test_refines(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean IoU rises; the result is a palette picture with the same labels."""
    assert crf(files, "--truth", str(files["truth"]), "--overlay", str(files["over"])) == 0
    text = capsys.readouterr().out
    scores = re.search(r"mean IoU (\S+)% before, (\S+)% after", text)
    assert scores is not None
    before, after = (float(score) / 100 for score in scores.groups())
    assert after > 0.97 > before
    with Image.open(files["out"]) as picture:
        assert picture.mode == "P"
        assert picture.size == (SIZE[1], SIZE[0])
    refined = torch.from_numpy(read(files["out"]))
    assert set(refined.unique().tolist()) == {0, 15}
    assert mean_iou(refined, torch.from_numpy(15 * disk())) == pytest.approx(after, abs=1e-4)
    with Image.open(files["over"]) as picture:
        assert picture.size == (SIZE[1], SIZE[0])
        assert picture.mode == "RGB"
    for word in ("2 labels", f"{SIZE[1]} x {SIZE[0]}", str(files["out"]), str(files["over"])):
        assert word in text


def test_ablation(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Four numbers from one command, which are those of the single parts."""
    assert crf(files, "--truth", str(files["truth"]), "--ablation") == 0
    scores = dict(re.findall(r"^  (\w+) +(\S+)%", capsys.readouterr().out, re.M))
    assert list(scores) == ["unary", "gaussian", "bilateral", "both"]
    both = read(files["out"])
    for part in ("unary", "gaussian", "bilateral"):
        assert crf(files, f"--{part}-only", "--truth", str(files["truth"])) == 0
        assert f"{scores[part]}% after" in capsys.readouterr().out
    assert crf(files) == 0
    assert np.array_equal(read(files["out"]), both)
    assert float(scores["bilateral"]) > float(scores["gaussian"])
    assert float(scores["both"]) > float(scores["unary"])


def test_unary_alone_changes_nothing(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert crf(files, "--unary-only") == 0
    assert np.array_equal(read(files["out"]), read(files["labels"]))
    assert "0.0% of the pixels changed" in capsys.readouterr().out


def test_probabilities(files: Files, tmp_path: Path) -> None:
    files["scores"] = tmp_path / "scores.npy"
    inside = 0.3 + 0.4 * blocky(disk())
    np.save(files["scores"], np.stack([1 - inside, inside]).astype(np.float32))
    assert crf(files, labels="scores") == 0
    from_scores = read(files["out"])
    assert crf(files) == 0
    assert np.array_equal(15 * from_scores, read(files["out"]))


def test_labels_of_an_array(files: Files, tmp_path: Path) -> None:
    files["array"] = tmp_path / "array.npy"
    np.save(files["array"], 15 * blocky(disk()).astype(np.uint8))
    assert crf(files, labels="array") == 0
    from_array = read(files["out"])
    assert crf(files) == 0
    assert np.array_equal(from_array, read(files["out"]))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "RGB", "RGBA"])
def test_any_kind_of_label_picture(mode: str, files: Files) -> None:
    """Grey levels, bits and colours; colours come back as colours."""
    assert crf(files) == 0
    want = read(files["out"]) > 0
    labels = blocky(disk())
    if mode in ("RGB", "RGBA"):
        picture = Image.fromarray(np.array([[9, 99, 3], [200, 10, 250]], dtype=np.uint8)[labels])
        picture = picture.convert(mode)
    elif mode == "1":
        picture = Image.fromarray(labels.astype(bool))
    else:
        picture = Image.fromarray((255 * labels).astype(np.uint16 if "16" in mode else np.uint8))
    picture.save(files["labels"])
    assert crf(files) == 0
    refined = read(files["out"])
    if mode in ("RGB", "RGBA"):
        assert {tuple(color) for color in refined.reshape(-1, 3).tolist()} == {
            (9, 99, 3),
            (200, 10, 250),
        }
        refined = refined[..., 0] == 200
    assert np.array_equal(refined > 0, want)


def test_unsure(files: Files) -> None:
    """What is unsure is filled with what is sure around it and looks alike."""
    labels = 15 * disk()
    labels[edges(disk())] = 255
    labels[20:, :] = 255
    LabelMap(labels, voc_colors()).picture().save(files["labels"])
    assert crf(files, "--unsure", "255") == 0
    assert set(np.unique(read(files["out"]))) == {0, 15}
    assert (read(files["out"]) == 15 * disk()).mean() > 0.97


def test_colours_of_the_truth(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Where labels are colours, those of the truth are the same colours, whatever else it has."""
    colors = np.array([[9, 99, 3], [200, 10, 250], [1, 2, 3]], dtype=np.uint8)
    truth = disk()
    truth[0, 0] = 2
    Image.fromarray(colors[blocky(disk())]).save(files["labels"])
    Image.fromarray(colors[truth]).save(files["truth"])
    assert crf(files, "--truth", str(files["truth"])) == 0
    text = capsys.readouterr().out
    _, after = re.findall(r"(\d+\.\d+)% (?:before|after)", text)
    assert 60 < float(after) < 67  # two labels nearly right, one of a single pixel not at all


@pytest.mark.parametrize("words", [["--help"], []], ids=["help", "nothing"])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(["crf", *words])
    assert info.value.code == (0 if words else 2)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    for word in ("PHOTO", "LABELS", "--bilateral-only"):
        assert word in text


def test_ctrl_c(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps: nothing is written."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refinement._Progress, "step", interrupted)
    assert crf(files) == 130
    assert not files["out"].exists()


def test_progress_on_a_terminal(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert crf(files, "--iterations", "3") == 0
    error = capsys.readouterr().err
    for number in (1, 2, 3):
        assert f"step {number} of 3" in error
    assert error.endswith("\r\033[K")


BAD: dict[str, tuple[Callable[[Files], object], list[str], str]] = {
    "sizes": (
        lambda f: Image.new("L", (SIZE[1], SIZE[0] - 1)).save(f["labels"]),
        [],
        rf"{SIZE[1]} x {SIZE[0]} pixels.*{SIZE[1]} x {SIZE[0] - 1}.*one size",
    ),
    "no photo": (lambda f: f["photo"].unlink(), [], "photo.png cannot be read as a photo"),
    "no labels": (lambda f: f["labels"].unlink(), [], "labels.png cannot be read as a picture"),
    "no picture": (
        lambda f: f["labels"].write_bytes(b"no picture"),
        [],
        "labels.png cannot be read as a picture",
    ),
    "too many labels": (
        lambda f: Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        ).save(f["labels"]),
        [],
        "different colours.*at most 256",
    ),
    "one label": (
        lambda f: Image.new("L", (SIZE[1], SIZE[0]), 7).save(f["labels"]),
        [],
        "only the label 7.*nothing to refine",
    ),
    "unsure": (
        lambda f: Image.new("L", (SIZE[1], SIZE[0]), 7).save(f["labels"]),
        ["--unsure", "7"],
        "no label.*nothing to refine",
    ),
    "confidence": (lambda f: None, ["--confidence", "1.5"], "--confidence.*1.5"),
    "iterations": (lambda f: None, ["--iterations", "-1"], "--iterations.*-1"),
    "bandwidth": (lambda f: None, ["--bilateral", "0", "3", "4"], "--bilateral.*above 0.* 0.0 3.0"),
    "weight": (lambda f: None, ["--gaussian", "3", "nan"], "--gaussian.*finite.*nan"),
    "small bandwidth": (
        lambda f: None,
        ["--bilateral", "3", "1e-9", "4"],
        r"pairwise\[1\].*features",
    ),
    "ablation": (lambda f: None, ["--ablation"], "--ablation.*--truth"),
    "output": (lambda f: None, ["-o", "out.jpg"], "--output.*png.*out.jpg"),
    "folder": (lambda f: None, ["-o", "no/such/out.png"], "no/such is no folder"),
    "truth": (lambda f: None, ["--truth", "missing.png"], "missing.png cannot be read"),
    "truth's size": (
        lambda f: Image.new("L", (3, 2)).save(f["truth"]),
        ["--truth", "TRUTH"],
        "3 x 2.*one size",
    ),
    "truth's kind": (
        lambda f: Image.new("RGB", (SIZE[1], SIZE[0])).save(f["truth"]),
        ["--truth", "TRUTH"],
        "truth.png has colours.*numbers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    change, words, says = BAD[name]
    change(files)
    words = [str(files["truth"]) if word == "TRUTH" else word for word in words]
    assert crf(files, *words) == 1
    captured = capsys.readouterr()
    assert re.search(says, captured.err), captured.err
    assert captured.err.startswith("deformops crf: ")
    assert not files["out"].exists()


ARRAYS = {
    "not an array": (None, "cannot be read as an array"),
    "shape": (np.zeros(3), r"expected labels \[H, W\].*\[3\]"),
    "numbers": (np.zeros(SIZE), r"expected labels \[H, W\] of integers.*float64"),
    "labels": (np.full(SIZE, 700), "labels from 700 to 700; expected 0 to 255"),
    "one label": (np.zeros((1, *SIZE)), "has 1 labels; expected 2 to 256"),
    "many labels": (np.zeros((300, *SIZE)), "has 300 labels; expected 2 to 256"),
    "nan": (np.full((2, *SIZE), np.nan), "NaN"),
    "negative": (np.full((2, *SIZE), -1.0), "negative"),
    "size": (np.full((2, 3, 4), 0.5), "4 x 3.*one size"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_bad_arrays(
    name: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array, says = ARRAYS[name]
    files["array"] = tmp_path / "array.npy"
    if array is None:
        files["array"].write_bytes(b"no array")
    else:
        np.save(files["array"], array)
    assert crf(files, labels="array") == 1
    assert re.search(says, capsys.readouterr().err)


def test_probabilities_are_as_sure_as_they_say(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files["array"] = tmp_path / "array.npy"
    np.save(files["array"], np.full((2, *SIZE), 0.5))
    assert crf(files, "--unsure", "1", labels="array") == 1
    assert re.search("--unsure is for labels", capsys.readouterr().err)


def test_colors_of_pascal() -> None:
    colors = voc_colors()
    assert colors.shape == (256, 3)
    assert colors[[0, 1, 2, 15, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(colors, axis=0)) == 256


def test_label_map_round_trip(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.int64).reshape(16, 16)
    LabelMap(labels, voc_colors()).picture().save(tmp_path / "labels.png")
    assert np.array_equal(LabelMap.read(tmp_path / "labels.png").labels, labels)
    with pytest.raises(PictureError, match=r"missing\.png"):
        LabelMap.read(tmp_path / "missing.png")


def test_mean_iou() -> None:
    truth = torch.tensor([[0, 0, 1, 255], [1, 1, 2, 255]])
    labels = torch.tensor([[0, 1, 1, 0], [1, 2, 2, 3]])
    # 0: 1 of 2, 1: 2 of 4, 2: 1 of 2.
    assert mean_iou(labels, truth) == pytest.approx(0.5)
    assert mean_iou(truth, truth) == 1.0
    # With nothing ignored, 255 and 3 are labels nobody gets right.
    assert mean_iou(labels, truth, ignore_index=None) == pytest.approx((1 / 3 + 0.5 + 0.5) / 5)
    assert np.isnan(mean_iou(labels[:0], truth[:0]))
    with pytest.raises(ValueError, match=r"truth.*\[2, 4\].*\[1, 4\]"):
        mean_iou(labels, truth[:1])
    with pytest.raises(TypeError, match=r"labels.*float"):
        mean_iou(labels.float(), truth)
