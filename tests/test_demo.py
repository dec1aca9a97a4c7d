"""The demo: its exact answers are exact, its pictures come out, its errors help."""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="extra [viz] is not installed")
pytest.importorskip("matplotlib", reason="extra [viz] is not installed")
pytest.importorskip("imgviz", reason="extra [viz] is not installed")

from PIL import Image

from deformops import demo
from deformops.analysis import sampling_points
from deformops.demo import boxes, dynamic, follow, holes, photo, reach, refine, straighten
from deformops.demo.warp import Warp, inside, pixel_grid, sample_exactly
from deformops.figures import sheet

PICTURES = {
    *(scene.FILE for scene in (straighten, dynamic, holes, follow, boxes, refine)),
    reach.STRIDES_FILE,
    reach.DEPTH_FILE,
}


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def run_demo(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.run(parser.parse_args(arguments))


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures, and the time of CRFs not measured: what is drawn is the same."""
    monkeypatch.setattr(sheet, "PIXELS_PER_INCH", 20)
    monkeypatch.setattr(refine, "_compare_times", lambda *_: None)
    for name, value in (("DEPTHS", (1, 2)), ("SHOWN", (1,)), ("SIDE", 9), ("SEEDS", 1)):
        monkeypatch.setattr(reach, name, value)


@pytest.mark.parametrize("size", [(300, 451), (40, 7), (1, 1)])
def test_the_warp_has_an_inverse(size: tuple[int, int]) -> None:
    warp, grid = Warp.for_map(*size), pixel_grid(*size)
    np.testing.assert_allclose(warp.inverse(warp(grid)), grid, atol=1e-10)
    np.testing.assert_allclose(warp(warp.inverse(grid)), grid, atol=1e-10)


def test_the_warp_bends_turns_and_shrinks() -> None:
    warp = Warp(11, 21, angle=np.pi / 2, scale=0.5, amplitude=2.0, period=20.0)
    # (5, 10) is the centre; five pixels to its right the sine is at its crest.
    np.testing.assert_allclose(warp(np.array([5.0, 10.0])), [5, 10], atol=1e-12)
    np.testing.assert_allclose(warp(np.array([5.0, 15.0])), [5 - 0.5 * 5, 10 + 0.5 * 2], atol=1e-12)


def test_exact_sampling_is_bilinear_with_nothing_outside() -> None:
    image = np.arange(12.0).reshape(1, 3, 4) + 1
    places = np.array([[1, 2], [0.5, 0], [2, 2.25], [-0.5, 0], [2.75, 3.5], [-1, 0], [9, 9]])
    expected = [7, 3, 11.25, 0.5, 12 * 0.25 * 0.5, 0, 0]
    np.testing.assert_allclose(sample_exactly(image, places)[0], expected, atol=1e-12)
    assert inside(places, 3, 4).tolist() == [True, True, True, False, False, False, False]


def test_the_layer_gives_the_exact_answer_in_float64() -> None:
    random = np.random.default_rng(1)
    image = random.random((3, 23, 31)).astype(np.float32)
    places = Warp.for_map(23, 31)(pixel_grid(23, 31))
    offset = straighten.window_offsets(places)
    layer = straighten.identity_layer(3).double()
    with torch.no_grad():
        output = layer(torch.from_numpy(image).double()[None], offset)[0].numpy()
    np.testing.assert_allclose(output, sample_exactly(image, places), atol=1e-13)


def test_offsets_that_follow_the_warp_take_points_where_the_warp_does() -> None:
    # Without a bend the warp is affine, and interpolating its offsets is exact.
    warp = Warp(60, 70, angle=0.3, scale=0.7, amplitude=0.0, period=50.0)
    windows = follow.windows_for(60, 70)
    offsets = [follow.following_offsets(warp, follow.dilation_of(window)) for window in windows]
    unit = torch.tensor([30.0, 33.0], dtype=torch.float64)
    moved = sampling_points(windows, list(offsets), unit).numpy()
    regular = sampling_points(windows, [None] * 3, torch.from_numpy(warp.inverse(unit.numpy())))
    np.testing.assert_allclose(moved, warp(regular.numpy()), atol=1e-9)
    assert len(np.unique(moved.round(6), axis=0)) == 729


def test_offsets_put_bins_where_the_warp_takes_them() -> None:
    warp = Warp.for_map(60, 70)
    for box in boxes.boxes_of(60, 70):
        around = boxes.warped_box(warp, box)
        offset = boxes.following_offsets(warp, box, around, 5)
        right, down = (0.1 * offset[0]).numpy()
        centres = around.centres(5)
        centres[..., 0] += down * around.extent[0]
        centres[..., 1] += right * around.extent[1]
        np.testing.assert_allclose(centres, warp(box.centres(5)), atol=1e-9)
        corners = np.stack([box.low, box.high, [box.low[0], box.high[1]]])
        assert inside(warp(corners) - around.low, *(around.high - around.low + 1)).all()


def test_bins_that_follow_the_warp_see_the_same() -> None:
    """On a smooth image, but for what bins that are not turned cannot show."""
    image = np.sin(pixel_grid(90, 110) / 9).sum(-1)[None]
    warp = Warp.for_map(90, 110)
    warped = sample_exactly(image, warp.inverse(pixel_grid(90, 110)))
    box = boxes.boxes_of(90, 110)[0]
    around = boxes.warped_box(warp, box)
    straight = boxes._pool(image, box)
    offset = boxes.following_offsets(warp, box, around, boxes.FINE)
    in_place, moved = boxes._pool(warped, around), boxes._pool(warped, around, offset)
    assert abs(moved - straight).max() < 0.1 * abs(in_place - straight).max()


@pytest.mark.parametrize(("size", "filled"), [((40, 60), 1 / 4), ((41, 61), 21 * 31 / (41 * 61))])
def test_holes_in_the_kernel_fill_those_in_the_result(size: tuple[int, int], filled: float) -> None:
    """A quarter of the positions against all of them, and the same answers in that quarter."""
    found = holes.answers(torch.rand(size, dtype=torch.float64))
    assert found.filled.double().mean().item() == pytest.approx(filled)
    assert (found.subsampled != 0).sum() == found.filled.sum()
    assert (found.atrous != 0).all()
    torch.testing.assert_close(found.subsampled[found.filled], found.atrous[found.filled])
    # Steps from dark to bright and back: positive and negative, twice as far apart in pixels.
    step = (torch.arange(60) >= 30).double().expand(40, 60)
    line = holes.answers(step).atrous[20]
    assert line[29] > 0.1
    assert torch.equal(line[6:23], torch.zeros(17).double())
    torch.testing.assert_close(holes.answers(-step).atrous[20], -line)


def test_psnr() -> None:
    black = np.zeros((3, 4, 4))
    assert straighten.psnr(black, black) == float("inf")
    assert straighten.psnr(black + 0.1, black) == pytest.approx(20)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("size", [(48, 64), (64, 40), (20, 90), (1, 1), (1, 30)])
def test_photos_of_any_shape(
    size: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(*size).save(tmp_path / "photo.png")
    status = run_demo("--photo", str(tmp_path / "photo.png"), "--output", str(tmp_path / "a" / "b"))
    text = capsys.readouterr().out
    assert status == 0, text
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == PICTURES
    for name in PICTURES:
        with Image.open(tmp_path / "a" / "b" / name) as picture:
            assert picture.size[0] >= sheet.NARROWEST * 20 - 1
    errors = re.findall(r"error +(\S+) in float32, (\S+) in float64", text)
    assert len(errors) == 2
    for single, double in errors:
        assert float(single) < 1e-4
        assert float(double) < 1e-12


@pytest.mark.usefixtures("coarse")
def test_the_same_photo_gives_the_same_pictures(tmp_path: Path) -> None:
    noise(30, 40).save(tmp_path / "photo.png")
    for name in ("first", "second"):
        run_demo("--photo", str(tmp_path / "photo.png"), "--output", str(tmp_path / name))
    for name in PICTURES:
        pictures = [(tmp_path / run / name).read_bytes() for run in ("first", "second")]
        assert pictures[0] == pictures[1], name


def test_strides_and_holes_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "PIXELS_PER_INCH", 20)
    for name, value in (("DEPTHS", (2, 8)), ("SHOWN", (8,)), ("SIDE", 25), ("SEEDS", 2)):
        monkeypatch.setattr(reach, name, value)
    lines: list[str] = []
    reach.show(torch.zeros(3, 1, 1), tmp_path, lines.append)
    text = "\n".join(lines)
    assert "stride 2  7; without it 5; without it, with holes 7" in text
    assert "1.155 with equal weights (sqrt(2 n / 3) = 1.155)" in text  # n = 2
    assert "2.309 with equal weights (sqrt(2 n / 3) = 2.309)" in text  # n = 8, twice as wide
    assert "the theoretical field: 17 pixels" in text


def test_permuted_values_stay_in_their_window() -> None:
    random = np.random.default_rng(2)
    image = random.permutation(20 * 24).reshape(1, 20, 24).astype(float)
    wanted = random.permutation(image.ravel()).reshape(image.shape)
    found = dynamic.best_permutation(image, wanted)
    padded = np.pad(image[0], 1)
    for row in range(20):
        for column in range(24):
            window = padded[row : row + 3, column : column + 3]
            nearest = np.abs(window - wanted[0, row, column]).min()
            assert found[0, row, column] in window
            assert abs(found[0, row, column] - wanted[0, row, column]) == nearest
    shifted = np.roll(image, (1, -1), (1, 2))
    assert (dynamic.best_permutation(shifted, image)[:, :-1, 1:] == image[:, :-1, 1:]).all()


def test_positions_do_what_values_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "PIXELS_PER_INCH", 20)
    image = torch.from_numpy(np.sin(pixel_grid(60, 80) / 5).sum(-1) / 4 + 0.5).float()
    lines: list[str] = []
    dynamic.show(image.expand(3, -1, -1), tmp_path, lines.append)
    values, positions = (
        float(re.search(r"([\d.]+) dB$", line)[1]) for line in lines if line.endswith(" dB")
    )
    assert positions > values + 10


def test_blocks_have_their_most_frequent_label() -> None:
    labels = torch.zeros(30, 50, dtype=torch.int64)
    labels[:, 20:] = 5
    labels[3, 3] = 9
    blocks = refine.coarse(labels)
    assert blocks.shape == labels.shape
    assert (blocks[:, :24] == 0).all()
    assert (blocks[:, 24:] == 5).all()


def test_labels_have_their_name_on_them() -> None:
    labels = torch.zeros(90, 120, dtype=torch.int64)
    labels[10:80, 5:30], labels[40:50, 100:110] = 1, 3
    tags: dict[str, tuple[int, int]] = {}

    class Axes:
        def text(self, x: int, y: int, name: str, **_: object) -> None:
            tags[name] = (y, x)

    refine._tags(labels, ["background", "bar", "nothing", "box"])(Axes())
    assert {name: int(labels[place]) for name, place in tags.items()} == {"bar": 1, "box": 3}


def test_the_border_is_not_counted() -> None:
    labels = torch.zeros(20, 20, dtype=torch.int64)
    labels[10, 10] = 3
    counted = refine.with_border(labels)
    assert counted[10, 10] == 3
    assert int((counted == refine.VOID).sum()) == 11 * 11 - 1
    assert (counted[5:16, 5:16] > 0).all()


def test_the_mask_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All labels that blocks leave much of."""
    monkeypatch.setattr(sheet, "PIXELS_PER_INCH", 20)
    monkeypatch.setattr(refine, "ROUNDS", 1)
    lines: list[str] = []
    refine.show(torch.zeros(3, 1, 1), tmp_path, lines.append)
    text = "\n".join(lines)
    whole = re.search(r"mean IoU +(\S+)% before, (\S+)% after", text)
    assert whole is not None
    assert float(whole[2]) > float(whole[1]) + 3
    parts = re.findall(r"(\w+) (\d+)% -> (\d+)%", text)
    assert {name for name, *_ in parts} == {
        "background",
        "bottle",
        "chair",
        "diningtable",
        "person",
    }
    assert all(int(after) > int(before) for name, before, after in parts if name != "chair")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_photos_of_any_kind(mode: str, tmp_path: Path) -> None:
    noise(6, 9).convert("L" if mode == "I;16" else mode).save(tmp_path / "photo.png")
    image = photo.load(tmp_path / "photo.png")
    assert (image.shape, image.dtype) == ((3, 6, 9), torch.float32)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_large_photos_are_reduced_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise(40, 2000).save(tmp_path / "photo.jpg", exif=exif)
    assert photo.load(tmp_path / "photo.jpg").shape == (3, photo.LONGEST_SIDE, 16)


def test_the_default_photo_is_a_photo() -> None:
    pytest.importorskip("skimage", reason="extra [viz] is not installed")
    image = photo.load(None)
    assert image.shape == (3, 300, 451)
    assert 0.2 < float(image.std()) * 2 < 1


def test_missing_packages_are_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    absent = {"skimage", "matplotlib"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    assert run_demo("--output", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert "matplotlib and scikit-image" in error
    assert "deformops-vision[viz]" in error
    absent.remove("matplotlib")
    assert "scikit-image" not in str(demo._missing(Path("photo.png")))


@pytest.mark.parametrize("content", [None, b"", b"not a photo"])
def test_a_file_that_is_no_photo_is_an_error(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "photo.png").write_bytes(content)
    status = run_demo("--photo", str(tmp_path / "photo.png"), "--output", str(tmp_path / "out"))
    assert status == 1
    assert "photo.png cannot be read as an image" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(8, 8).save(tmp_path / "photo.png")
    (tmp_path / "out").write_text("a file, not a folder")
    status = run_demo("--photo", str(tmp_path / "photo.png"), "--output", str(tmp_path / "out"))
    assert status == 1
    assert "cannot be written" in capsys.readouterr().err
