"""Runs as documents: JSON and back, compared with older ones, as a page with pictures."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.flop_counter

from benchmarks import __main__ as command
from benchmarks import compare, gpu_limits, plot, split, suites
from benchmarks.case import OURS, Case, Competitor, Entry, Part, Suite, Target, Work
from benchmarks.options import without_files
from benchmarks.place import Place
from benchmarks.plan import Plan, Remaining, Step, minutes
from benchmarks.result import CaseResult, Line, Measurement, judge
from benchmarks.rotation import Effort
from benchmarks.run import Run, SuiteResult, load
from benchmarks.suites import networks
from benchmarks.table import Table

ONE, TWO = Place(1), Place(2)


def a_line(case: str, place: Place, *, work: Work | None = None, seconds: float = 0.005) -> Line:
    measurements = {
        OURS: Measurement((seconds, 1.02 * seconds), 1.26 if work else math.nan),
        "peer": Measurement((0.04, 0.05), 8.7),
        "plain": Measurement((0.0045, 0.0046), 0.9, landmark=True),
    }
    line = Line(case, "forward", place, work, 0.004 if work else math.nan, measurements)
    line.refused["liar"], line.missing["absent"] = "differs", "absent is not installed"
    line.verdicts = [judge(Target("forward", ("peer",), 2), measurements)]
    return line


def a_run(*cases: str, seconds: float = 0.005) -> Run:
    """Two suites on one and two threads; the second has no floor, and its time is split."""
    suites = [SuiteResult("one", "first title", ["a note"]), SuiteResult("two", "second", [])]
    for case in cases or ("a case", "another"):
        for suite, work in zip(suites, (Work.flops(1e9), None), strict=True):
            lines = [a_line(case, place, work=work, seconds=seconds) for place in (ONE, TWO)]
            suite.results.append(CaseResult(case, lines, {OURS: 8_100_000, "peer": None}, 1.5))
    for line in suites[1].lines:
        line.split = {OURS: {"convolution": 0.003, "ReLU": 0.001}}
    machine = {
        "cpu": "a processor",
        "cores": 2,
        "system": "Linux",
        "python": "3.11",
        "versions": {"torch": "2.14.1"},
        "torch_threads": 2,
    }
    return Run("python -m benchmarks", "2026-01-01", machine, [ONE, TWO], True, "AVX", suites, True)


# Documents


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run, file = a_run(), tmp_path / "run.json"
    run.save(file)
    assert json.dumps(load(file).as_dict()) == json.dumps(run.as_dict())
    assert load(file).suites[0].lines[1].measurements == run.suites[0].lines[1].measurements
    assert [name for name, _ in run] == ["one"] * 4 + ["two"] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("{", "JSONDecodeError"), ("[]", "TypeError"), ("{}", "suites")],
)
def test_what_is_no_run_is_an_error(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "run.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(file)


# Comparing


def test_rows_of_two_runs_are_put_side_by_side() -> None:
    old, new = a_run("a case", "old"), a_run("a case", "new", seconds=0.01)
    for line in new.suites[0].lines:
        line.floor_seconds = 0.006
    comparison = compare.compare(new, old)
    assert [row.key[:2] for row in comparison.rows] == [("one", "a case")] * 2 + [
        ("two", "a case")
    ] * 2
    assert {key[1] for key in comparison.appeared} == {"new"}
    assert {key[1] for key in comparison.vanished} == {"old"}
    assert comparison.differences == []
    with_floor, without = comparison.rows[0], comparison.rows[2]
    assert with_floor.ratio == pytest.approx(2)
    assert with_floor.floor == pytest.approx(1.5)
    assert with_floor.adjusted == pytest.approx(4 / 3)
    assert without.adjusted == pytest.approx(2)
    assert with_floor.peers()["peer"] == (8.7, 8.7)
    stream = io.StringIO()
    compare.show(Table(stream), comparison, old)
    text = stream.getvalue()
    for words in ("2.00x", "1.33x", "peer 8.70x > 8.70x", "new: one, new: forward, 1 thread"):
        assert words in text
    assert "gone: two, old: forward, 2 threads" in text


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    old, new = a_run(), a_run()
    new.machine = {**new.machine, "cpu": "another", "versions": {"torch": "2.15", "OpenCV": "5"}}
    new.places, new.quick, old.finished = [ONE], False, False
    next(iter(new))[1].others_share = 0.5
    assert list(compare.differences(new, old)) == [
        "cpu: a processor then, another now",
        "torch: 2.14.1 then, 2.15 now",
        "OpenCV: not there then, 5 now",
        "measured on 1 thread, 2 threads then, on 1 thread now",
        "a quick look then, a full run now",
        "the run then was ended early",
        "other processes used up to 50% of the machine now",
    ]


def test_two_files_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, run in (("old", a_run()), ("new", a_run(seconds=0.01))):
        run.save(tmp_path / name)
    assert command.main(["compare", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert "2.00x" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["compare", str(tmp_path / "old"), "no_such_file"])
    assert "cannot read no_such_file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["deform_conv", "--compare", "no_such_file"])
    assert "cannot read no_such_file" in capsys.readouterr().err


# Plans


def test_a_plan_names_suites_and_times() -> None:
    entries = {name: Entry(lambda place: Competitor({}, dict)) for name in (OURS, "peer")}
    entries["slow"] = replace(entries["peer"], slow=True)
    part = Part("forward", ("forward",))
    steps = [
        Step(Suite(name, name, cases, ()), cases)
        for name in ("one", "second")
        for cases in [[Case(str(i), (part,), entries) for i in range(60)]]
    ]
    plan = Plan(steps, [ONE, TWO], Effort(), False, memory=False)
    quick = replace(plan, effort=Effort.quick(), quick=True)
    case = steps[0].cases[0]
    assert quick.seconds(case) < plan.seconds(case) < replace(plan, memory=True).seconds(case)
    *lines, last = plan.describe()
    assert [line.split()[0] for line in lines] == ["one", "second"]
    assert all("60 cases, 2 beside ours, about" in line for line in lines)
    assert "120 cases on 1 thread, 2 threads, without memory: about" in last
    remaining = Remaining(plan)
    assert str(remaining).startswith("0/120, about")
    remaining.case_done()
    assert str(remaining).startswith("1/120, about")


def test_a_command_is_kept_without_names_of_files() -> None:
    words = ["nms", "--json", "a.json", "--quick", "--plot=b.png", "--threads", "1", "--compare"]
    assert without_files(words) == ["nms", "--quick", "--threads", "1"]


def test_durations_are_rough() -> None:
    assert [minutes(s) for s in (0.1, 42, 100, 3599, 9000)] == [
        "5 s",
        "40 s",
        "2 min",
        "60 min",
        "2.5 h",
    ]


# Pages and pictures


def test_a_report_says_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = a_run()
    run.suites[1].lines[0].measurements["peer"] = Measurement((0.002,), 0.4)
    run.finished = False
    run.suites[0].lines[0].others_share = 0.3
    run.save(tmp_path / "run.json")
    page = tmp_path / "PAGE.md"
    assert command.main(["report", str(tmp_path / "run.json"), "--output", str(page)]) == 0
    text = page.read_text()
    for words in (
        "    python -m benchmarks\n",
        "a processor, 2 cores",
        "did not come to its end",
        "Other processes used up to 30%",
        "| [one](#one) | 4 | 1.26x (1.26x - 1.26x) | peer 8.70x (8.70x - 8.70x) | 4 of 4 |",
        "| two | a case: forward | 1 thread | peer | 0.40x |",
        "- a note\n",
        "![first title](PAGE-one.png)",
        "| a case: forward (1.00 GFLOP) | 2 threads | 5.05 | 4.00 | 1.26x | 8.70x |",
        "| refused | missing | ours 8.1 |",
        "| a case: forward | 1 thread | ours | convolution 75%, ReLU 25% |",
        "python -m benchmarks kernels",
    ):
        assert words in text
    pictures = {file.name for file in tmp_path.glob("*.png")}
    assert pictures == {"PAGE-one.png", "PAGE-two.png", "PAGE-two-split.png"}
    assert "wrote" in capsys.readouterr().out


def test_a_report_of_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["no_such_file"], "cannot read no_such_file"),
        (["--output", "no/such/folder/page.md"], "--output: no/such/folder is no folder"),
        (["--cases", "no such case"], "no case has 'no such case'"),
    ):
        with pytest.raises(SystemExit):
            command.main(["report", *words])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_everybody_is_drawn(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = a_run()
    run.suites[0].lines[0].others_share = 0.5
    plot.draw(run, tmp_path / f"chart.{ending}")
    chart = (tmp_path / f"chart.{ending}").read_bytes()
    assert len(chart) > 5000
    if ending == "svg":
        for words in (b"First title", b"Second", b"peer", b"plain", b"floor", b"another: forward"):
            assert words in chart
        for words in (b"2 threads", b"5.05 ms", b"Disturbed", b"50%"):
            assert words in chart


def test_marks_leave_room_for_our_time() -> None:
    lines = a_run().suites[0].lines
    first, last = plot._limits(lines)
    largest = max(
        one.ratio for line in lines for name, one in line.measurements.items() if name != OURS
    )
    assert math.log(largest / first) / math.log(last / first) == pytest.approx(plot.MARKED)


def test_kinds_of_layers_differ_in_colour() -> None:
    kinds = {*networks.KINDS, networks.SUPPRESSION, split.REST}
    assert len(kinds) <= len(set(plot.KINDS)) == len(plot.KINDS)


def test_only_a_time_that_is_split_is_drawn_so(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = a_run()
    plot.draw_split(run.suites[1], tmp_path / "split.svg")
    for words in ("convolution", "ReLU", "another, 2 threads: ours", "4.00 ms"):
        assert words in (tmp_path / "split.svg").read_text()
    with pytest.raises(ValueError, match="one: the time of no line is split"):
        plot.draw_split(run.suites[0], tmp_path / "no.svg")


# Networks


def test_time_belongs_to_the_innermost_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    class DeformConv2dPack(torch.nn.Sequential):
        pass

    inner = torch.nn.Linear(1, 1)
    network = torch.nn.Sequential(DeformConv2dPack(inner), torch.nn.ReLU())
    times = iter(range(100))
    monkeypatch.setattr(Place, "mark", lambda place: next(times))
    watch = split.Split(ONE)
    with watch.of_layers(network, networks.kind_of):
        network(torch.ones(1))
        watch.watched(networks.SUPPRESSION, len)([])
    seconds = watch.seconds()
    assert seconds.pop(split.REST) == 6
    assert seconds.pop("deformable convolution") == 2
    assert seconds == {"fully connected": 1, "ReLU": 1, networks.SUPPRESSION: 1}
    assert list(inner._forward_hooks) == []


def test_a_network_is_measured_with_the_ops_of_others() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    pytest.importorskip("imgviz", reason="imgviz is not installed")
    from deformops.nets.detection import proposals

    ours, calls = proposals.best_boxes, []
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30], [0, 0, 0, 0]]])
    scores = torch.tensor([[0.5, 0.7, 0.6, -torch.inf]])
    theirs = networks.of_torchvision()
    for groups in (None, torch.tensor([[0, 1, 0, 0]])):
        args = (boxes, scores, 0.5, 3)
        expected = ours(*args, groups=groups)
        found = theirs[networks.SUPPRESSING[0]](*args, groups=groups)
        assert [t.tolist() for t in found] == [t.tolist() for t in expected]
    path = "deformops.nn.atrous_conv2d.atrous_conv2d"

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(path)
        return theirs[path](*arguments, **options)

    network = networks.Network("fcn8s", width=1 / 16, height=32, length=32)
    made = network.competitor(ONE, {**theirs, path: counted})
    made.results()
    assert len(calls) == 13
    assert made.split is not None
    assert made.split()["convolution"] > 0


def test_the_floor_of_a_network_is_what_torch_counts() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    network = networks.Network("deeplab-largefov", width=1 / 16, height=33, length=41)
    with (
        torch.utils.flop_counter.FlopCounterMode(display=False) as counter,
        networks.replaced(networks.of_torchvision()),
    ):
        network.blank()(torch.zeros(1, 3, 33, 41))
    assert network.flops() == counter.get_total_flops() > 1e6


# GPUs


def test_a_gpu_is_asked_for_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["deform_conv", "--device", "cuda"])
    message = capsys.readouterr().err
    assert f"torch {torch.__version__} sees no CUDA device (it is built " in message


def test_a_gpu_multiplies_in_full_precision() -> None:
    products = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [product.fp32_precision for product in products]
    with Place(device="cuda").chosen():
        assert [product.fp32_precision for product in products] == ["ieee", "ieee"]
    assert [product.fp32_precision for product in products] == before


class Events:
    """CUDA's events on a device that needs a second from each to the next."""

    count = 0

    def __init__(self, **options: bool) -> None:
        assert options == {"enable_timing": True}
        self.done = False

    def record(self) -> None:
        Events.count += 1
        self.at = Events.count

    def synchronize(self) -> None:
        self.done = True

    def elapsed_time(self, end: Events) -> float:
        assert end.done
        return 1e3 * (end.at - self.at)


def test_a_gpu_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import rotation

    monkeypatch.setattr(torch.cuda, "Event", Events)
    monkeypatch.setattr(rotation, "PAUSE_SECONDS", 0)
    waits: list[int] = []
    competitor = Competitor({"forward": lambda: waits.append(Events.count), "backward": int}, dict)
    place = Place(device="cuda")
    assert str(place) == "cuda"
    seconds = rotation.take_turn(competitor, 0.1, 0.4, place)
    assert seconds == {"forward": 1.0, "backward": 1.0}
    assert len(waits) == 4


def test_the_floor_of_a_gpu_is_a_product_in_the_type_of_the_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter = gpu_limits.GpuLimits()
    rates = {torch.float32: 1e9, torch.float16: 4e9}
    monkeypatch.setattr(meter, "flops_per_second", lambda place, dtype: rates[dtype])
    monkeypatch.setattr(meter, "bytes_per_second", lambda place, moved: 2e9)
    works = [Work.flops(1e9), Work.flops(1e9, torch.float16), Work.bytes(1e9)]
    assert meter.seconds(works, Place(device="cuda")) == dict(
        zip(works, (1.0, 0.25, 0.5), strict=True)
    )


def test_the_meter_of_a_gpu_multiplies_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_limits, "SIZE", 16)
    monkeypatch.setattr(gpu_limits, "LARGEST_COPY", 1 << 10)
    meter: Any = gpu_limits.GpuLimits()
    assert meter.flops_per_second(ONE, torch.float64) > 0
    assert meter.bytes_per_second(ONE, 1 << 20) > 0
    assert "GB/s" in meter.rates(ONE)


def test_engines_are_missing_on_a_gpu() -> None:
    from benchmarks.case import MissingPeerError

    case = suites.load("deform_conv").warm_up[0]
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(MissingPeerError, match=f"{name} is measured on the CPU only"):
            case.entries[name].factory(Place(device="cuda"))
