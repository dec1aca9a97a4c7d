"""The benchmark harness: who is timed, what is compared, what is printed. No time is asserted."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import engines, limits, memory, rotation, suites
from benchmarks.case import (
    FLOOR,
    OURS,
    Case,
    Competitor,
    Entry,
    MissingPeerError,
    Part,
    Suite,
    Target,
    Work,
)
from benchmarks.measure import Measuring
from benchmarks.options import parse_threads, select
from benchmarks.place import Place
from benchmarks.plan import Plan, Step
from benchmarks.result import CaseResult, Line, Measurement, judge
from benchmarks.rotation import Effort, Samples, paired_ratio, rotate
from benchmarks.session import Session
from benchmarks.suites import atrous_conv, columns, nms, roi_pooling
from benchmarks.table import Table, three_digits, times
from benchmarks.torch_ops import training
from benchmarks.verify import largest_difference

BRIEF = Effort(min_rounds=2, min_seconds=0, turn_seconds=0)
WORK = Work.flops(1e6)
FORWARD = (Part("forward", ("forward",), WORK),)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rotation, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def constant(value: float = 1.0, calls: list[str] | None = None, name: str = "") -> Entry:
    """An entry that computes three equal numbers."""
    output = torch.full((3,), value)

    def forward() -> torch.Tensor:
        if calls is not None:
            calls.append(name)
        return output

    competitor = Competitor({"forward": forward}, lambda: {"output": output})
    return Entry(lambda place: competitor)


def failing(error: Exception) -> Callable[[Place], Competitor]:
    def factory(place: Place) -> Competitor:
        raise error

    return factory


def suite_of(*cases: Case) -> Suite:
    return Suite("made_up", "made up", cases, cases)


def measured_by(*made_up: Suite, places: Sequence[Place] = (Place(1),)) -> Measuring:
    """Measures all cases of some suites, briefly."""
    steps = [Step(suite, suite.cases) for suite in made_up]
    effort = Effort(min_rounds=1, min_seconds=0, turn_seconds=0)
    measuring = Measuring(Plan(steps, places, effort, True, memory=False), [], Table())
    measuring.all()
    return measuring


# Timing by turns


def test_everybody_has_enough_turns_and_ours_a_part_in_every_round() -> None:
    entries = {name: constant() for name in (OURS, "a", "b")}
    competitors = {name: entry.factory(Place(1)) for name, entry in entries.items()}
    samples = Samples.of(competitors)
    assert not samples.enough()
    rotate(competitors, Effort(min_rounds=4, min_seconds=0), samples, floor=lambda: {WORK: 1.0})
    assert samples.enough()
    assert set(samples.floor) == {0, 1, 2, 3}
    for name in entries:
        assert set(samples.times[name]["forward"]) == {0, 1, 2, 3}


def test_whoever_has_had_enough_drops_out_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def turn(competitor: Competitor, *arguments: object) -> dict[str, float]:
        name = next(n for n, c in competitors.items() if c is competitor)
        turns.append(name)
        return {"forward": 0.1 if name == "fast" else 1.0}

    monkeypatch.setattr(rotation, "take_turn", turn)
    competitors = {name: constant().factory(Place(1)) for name in (OURS, "slow", "fast")}
    effort = Effort(min_rounds=2, min_seconds=0.45, turn_seconds=0)
    rotate(competitors, effort, Samples.of(competitors))
    assert {name: turns.count(name) for name in competitors} == {OURS: 5, "slow": 2, "fast": 5}
    turns.clear()
    effort = Effort(min_rounds=4, min_seconds=0, turn_seconds=0, max_seconds=1)
    rotate(competitors, effort, Samples.of(competitors))
    assert {name: turns.count(name) for name in competitors} == {OURS: 4, "slow": 1, "fast": 4}


def test_the_order_of_turns_changes_and_is_the_same_in_every_run() -> None:
    orders = []
    for _ in range(2):
        calls: list[str] = []
        entries = {name: constant(1, calls, name) for name in (OURS, "a", "b", "c")}
        competitors = {name: entry.factory(Place(1)) for name, entry in entries.items()}
        effort = Effort(min_rounds=6, min_seconds=0, turn_seconds=1e-9)
        rotate(competitors, effort, Samples.of(competitors))
        orders.append(calls)
    assert orders[0] == orders[1]
    last_rounds = orders[0][-16:]
    assert last_rounds[:8] != last_rounds[8:]


def test_calls_that_lost_their_core_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 3.0])
    switches = iter([0, 0, 0, 1, 1, 1, 1, 2])
    monkeypatch.setattr(rotation, "laps", lambda *arguments: {"forward": next(seconds)})
    monkeypatch.setattr(rotation, "preemptions", lambda: next(switches))
    monkeypatch.setattr(rotation, "WAKE_BELOW_SECONDS", 0)
    assert rotation.take_turn(constant().factory(Place(1)), 1, 4) == {"forward": 2.0}


def test_ratios_are_taken_within_a_round() -> None:
    ours = {0: 1.0, 1: 10.0, 2: 1.0}
    peer = {0: 2.0, 1: 20.0, 2: 3.0, 3: 1000.0}
    assert paired_ratio(peer, ours) == 2
    assert math.isnan(paired_ratio({5: 1.0}, ours))


def test_the_time_of_a_part_is_the_sum_of_its_steps() -> None:
    samples = Samples({"a": {"forward": {0: 1.0, 1: 2.0}, "backward": {0: 3.0, 1: 4.0}}})
    assert samples.seconds("a", ("forward", "backward")) == {0: 4.0, 1: 6.0}


def test_an_interrupt_gives_the_collector_back() -> None:
    import gc

    def interrupted() -> dict[Work, float]:
        raise KeyboardInterrupt

    competitors = {OURS: constant().factory(Place(1))}
    with pytest.raises(KeyboardInterrupt):
        rotate(competitors, BRIEF, Samples.of(competitors), floor=interrupted)
    assert gc.isenabled()


# Who may be timed


def test_differences_are_relative_and_worst_first() -> None:
    ours = {"output": torch.ones(4), "grad": torch.ones(4)}
    theirs = {"output": torch.ones(4) * 1.5, "grad": torch.ones(4) * 1.25}
    name, difference = largest_difference(theirs, ours)
    assert (name, difference.share, str(difference)) == ("output", 0.5, "5.0e-01 (relative)")
    name, difference = largest_difference({"grad": torch.ones(4)}, ours)
    assert (name, difference.share, difference.notable) == ("grad", 0.0, False)


def test_choices_are_compared_by_their_number_in_any_order() -> None:
    ours = {"output": torch.tensor([7, 3, 5, 1])}

    def difference(*choice: int) -> tuple[float, str, bool]:
        _, result = largest_difference({"output": torch.tensor(choice)}, ours)
        return result.share, str(result), result.notable

    assert difference(1, 3, 5, 7) == (0, "0 of 4", False)
    assert difference(1, 3, 5) == (0.25, "1 of 4", True)
    assert difference(1, 3, 5, 8) == (0.5, "2 of 4", True)
    assert difference(1, 3, 5, 7, 7) == (0.25, "1 of 4", True)


@pytest.mark.parametrize(
    "wrong", [torch.ones(3), torch.full((4,), math.nan), torch.tensor([1.0, 1.0, 1.0, math.inf])]
)
def test_other_shapes_and_values_that_are_not_numbers_are_differences(wrong: torch.Tensor) -> None:
    _, difference = largest_difference({"output": wrong}, {"output": torch.ones(4)})
    assert not difference.share <= 1e-4
    assert difference.notable


def test_only_those_who_compute_the_same_are_timed() -> None:
    entries = {
        OURS: constant(),
        "right": constant(1 + 1e-6),
        "wrong": constant(1.01),
        "nan": constant(math.nan),
        "close enough": Entry(constant(1.01).factory, tolerance=0.1),
        "landmark": Entry(constant(7).factory, landmark=True),
        "absent": Entry(failing(MissingPeerError("absent is not installed"))),
        "broken": Entry(lambda place: Competitor({"forward": int}, lambda: {"output": 1 // 0})),
    }
    session = Session(suite_of(Case("c", FORWARD, entries)), [Place(1)], BRIEF)
    (result,) = session.run(session.suite.cases)
    (line,) = result.lines
    assert set(line.measurements) == {OURS, "right", "close enough", "landmark"}
    assert line.measurements["landmark"].landmark
    assert not line.measurements["right"].landmark
    assert line.missing == {"absent": "absent is not installed"}
    assert line.refused["wrong"] == "output differs from ours by 1.0e-02 (relative)"
    assert set(line.refused) == {"wrong", "nan", "broken"}
    assert "ZeroDivisionError" in line.refused["broken"]
    assert "absent is not installed" in session.notes
    assert any(note.startswith("wrong refused in c") for note in session.notes)
    assert "close enough timed in c though its output differs from ours by 1.0e-02 (relative)" in (
        session.notes
    )


def test_the_slow_are_left_out_of_a_first_look_by_name() -> None:
    entries = {OURS: constant(), "slow": Entry(constant().factory, slow=True)}
    suite = suite_of(Case("c", FORWARD, entries))
    for effort, missing in ((BRIEF, set()), (replace(BRIEF, slow=False), {"slow"})):
        session = Session(suite, [Place(1)], effort)
        (result,) = session.run(suite.cases)
        assert set(result.lines[0].missing) == missing
        assert set(result.lines[0].measurements) == {OURS, "slow"} - missing
        assert any("slow takes many seconds" in note for note in session.notes) == bool(missing)


def test_without_ours_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Case("c", FORWARD, {OURS: Entry(failing(MissingPeerError("not built")))})
    measuring = measured_by(suite_of(broken), suite_of(Case("d", FORWARD, {OURS: constant()})))
    assert measuring.status == 1
    assert not measuring.run.finished
    assert [[r.case for r in suite.results] for suite in measuring.run.suites] == [[], ["d"]]
    assert "stopped: c: not built" in capsys.readouterr().out


def test_training_gives_the_gradients_of_all_tensors() -> None:
    x, w = torch.randn(2, 3, 4, 4), torch.randn(3)
    competitor = training(lambda of: of["x"] * of["w"][:, None, None], {"x": x, "w": w})
    results = competitor.results()
    assert set(results) == {"output", "grad_x", "grad_w"}
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(results["grad_x"], grad * w[:, None, None])
    torch.testing.assert_close(results["grad_w"], (grad * x).sum((0, 2, 3)))
    for step in competitor.steps.values():
        step()


# Targets


def measured(ratio: float) -> Measurement:
    return Measurement((1.0,), ratio)


@pytest.mark.parametrize(
    ("target", "ratios", "value", "met"),
    [
        (Target("forward", (FLOOR,), 1.3), {OURS: 1.29}, 1.29, True),
        (Target("forward", (FLOOR,), 1.3), {OURS: 1.31}, 1.31, False),
        (Target("forward", (FLOOR,), 1.3), {OURS: math.nan}, None, None),
        (Target("forward", ("a", "b"), 1.15), {OURS: 1, "a": 1.2, "b": 1.1}, 1.1, False),
        (Target("forward", ("a", "b"), 1.15), {OURS: 1, "a": 1.2}, 1.2, True),
        (Target("forward", ("a", "b"), 1.15), {OURS: 1}, None, None),
        (Target("forward", ("a",), 1 / 1.5), {OURS: 1, "a": 0.8}, 1.25, True),
        (Target("forward", ("a",), 1 / 1.5), {OURS: 1, "a": 0.5}, 2, False),
    ],
)
def test_targets_are_judged_by_the_strongest_peer(
    target: Target, ratios: dict[str, float], value: float | None, met: bool | None
) -> None:
    verdict = judge(target, {name: measured(ratio) for name, ratio in ratios.items()})
    assert verdict.met is met
    assert math.isnan(verdict.value) if value is None else verdict.value == pytest.approx(value)


def test_targets_speak_of_their_part_and_threads() -> None:
    targets = (
        Target("forward", ("a",), 1),
        Target("forward", ("a",), 2, threads="one"),
        Target("forward", ("a",), 3, threads="all"),
        Target("backward", ("a",), 4),
    )
    case = Case("c", FORWARD, {OURS: constant(), "a": constant()}, targets)
    session = Session(suite_of(case), [Place(1), Place(2)], BRIEF)
    (result,) = session.run([case])
    bounds = [[verdict.target.split()[2] for verdict in line.verdicts] for line in result.lines]
    assert bounds == [["1x", "2x"], ["1x", "3x"]]


# The floor


@pytest.fixture
def meter() -> limits.Limits:
    try:
        return limits.Limits()
    except limits.NoCompilerError as error:
        pytest.skip(str(error))


def test_limits_are_measured_on_one_and_two_threads(meter: limits.Limits) -> None:
    assert meter.instructions in {"AVX-512", "AVX2+FMA", "SSE2", "NEON", "portable"}
    for threads in (1, 2):
        assert 1e8 < meter.flops_per_second(threads) < 1e13
        for moved in (0, 1001, 3 << 20):
            assert 1e6 < meter.bytes_per_second(threads, moved) < 1e13


def test_the_floor_of_work_is_a_time(meter: limits.Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "flops_per_second", lambda threads: 1e9 * threads)
    monkeypatch.setattr(meter, "bytes_per_second", lambda threads, moved: moved)
    works = [Work.flops(1e9), Work.flops(4e9), Work.bytes(3e6)]
    assert meter.seconds(works, Place(2)) == {works[0]: 0.5, works[1]: 2, works[2]: 1}


def test_the_meter_is_compiled_once(meter: limits.Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_again(*arguments: Any, **options: Any) -> None:
        pytest.fail("compiled again")

    monkeypatch.setattr(subprocess, "run", compile_again)
    limits.Limits()


def test_without_a_compiler_there_is_no_floor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    case = Case("c", FORWARD, {OURS: constant()}, (Target("forward", (FLOOR,), 1.3),))
    assert measured_by(suite_of(case)).status == 0
    text = capsys.readouterr().out
    assert "no floor: no C compiler" in text
    assert "targets: 0 of 0 met, 1 not measured" in text


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(limits.NoCompilerError, match="no such option"):
        limits.build()


@pytest.mark.parametrize("dilation", [1, 3, 12])
def test_the_floor_of_atrous_convolution_counts_taps_on_the_map(dilation: int) -> None:
    problem = atrous_conv.Problem(2, 5, 13, 7, dilation=dilation, batch=3)
    taps = [(i * dilation, j * dilation) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    pixels = [(y, x) for y in range(13) for x in range(7)]
    on_map = sum(0 <= y + i < 13 and 0 <= x + j < 7 for y, x in pixels for i, j in taps)
    assert problem.flops == 2 * 3 * 2 * 5 * on_map


@pytest.mark.parametrize("problem", roi_pooling.TINY, ids=str)
def test_the_floor_of_pooling_counts_what_is_read_and_written_once(
    problem: roi_pooling.Problem,
) -> None:
    tensors = problem.tensors()
    output = problem.ours()({**tensors, **problem.constants()})
    inputs = sum(t.nbytes for t in tensors.values())
    read_and_written = problem.boxes().nbytes + output.nbytes + inputs
    assert problem.work() == Work.bytes(read_and_written)
    # Backward, gradients stand in for the output and the inputs; a mean does not depend on these.
    reads_inputs = problem.op in {"roi_pool", "deform_roi_pool", "deform_ps_roi_pool"}
    backward = read_and_written + inputs * reads_inputs
    assert problem.work(backward=True) == Work.bytes(backward)


@pytest.mark.parametrize(
    "problem",
    [
        columns.Problem("gather_columns", 4, 6, 5),
        columns.Problem("scatter_columns", 4, 6, 5, dilation=2, offset_groups=2),
        nms.Overlaps(3, 7),
    ],
    ids=str,
)
def test_the_floor_of_what_only_moves_counts_inputs_and_outputs_once(
    problem: columns.Problem | nms.Overlaps,
) -> None:
    tensors = problem.tensors()
    output = problem.ours()(tensors)
    (part,) = problem.case().parts
    assert part.work == Work.bytes(output.nbytes + sum(t.nbytes for t in tensors.values()))


# Memory


needs_linux = pytest.mark.skipif(not memory.available(), reason="needs Linux's high-water mark")


@needs_linux
def test_the_high_water_mark_sees_what_was_there_for_a_moment() -> None:
    before = torch.ones(128 << 20, dtype=torch.uint8)
    del before
    mark = memory.HighWater()
    block = torch.ones(16 << 20, dtype=torch.uint8)
    del block
    assert 15 << 20 < mark.growth() < 40 << 20


@needs_linux
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    case = suites.load("atrous_conv").warm_up[0].name
    grown = memory.growth("atrous_conv", case, OURS, Place(1))
    assert grown is not None
    assert 0 <= grown < 100 << 20
    assert memory.growth("atrous_conv", case, "nobody", Place(1)) is None


# The suites


@pytest.mark.parametrize("name", suites.names())
def test_cases_have_distinct_names_and_consistent_parts(name: str) -> None:
    suite = suites.load(name)
    assert suite.name == name
    names = [case.name for case in suite.cases]
    assert len(set(names)) == len(names)
    assert any(case.quick for case in suite.cases)
    for case in suite.cases:
        parts = {part.name for part in case.parts}
        for target in case.targets:
            assert target.part in parts
            assert set(target.against) <= {FLOOR, *case.entries}
        assert suite.case(case.name) is case


@pytest.mark.parametrize("package", ["no_such_peer", "no_such_peer.inner", "json.no_such_peer"])
def test_a_missing_package_names_its_extra(package: str) -> None:
    with pytest.raises(MissingPeerError, match=rf"{package} is not installed \(extra \[bench\]\)"):
        engines.require(package)


@pytest.mark.parametrize("name", suites.names())
def test_everybody_agrees_on_the_tiny_cases(name: str) -> None:
    suite = suites.load(name)
    session = Session(suite, [Place(1), Place(2)], BRIEF)
    for case, result in zip(suite.warm_up, session.run(suite.warm_up), strict=True):
        for line in result.lines:
            assert line.refused == {}
            for missing in line.missing.values():
                assert "extra [bench]" in missing
            assert set(line.measurements) | set(line.missing) == set(case.entries)


@pytest.mark.parametrize("mask", [False, True])
def test_everybody_agrees_on_gradients_groups_and_dilation(mask: bool) -> None:
    from benchmarks.suites.deform_conv import Problem, forward_case, training_case

    problem = Problem(8, 16, 7, 9, batch=2, offset_groups=2, dilation=2, mask=mask)
    cases = [forward_case(problem), training_case(problem)]
    session = Session(suite_of(*cases), [Place(1)], BRIEF)
    for result in session.run(cases):
        for line in result.lines:
            assert line.refused == {}
            assert OURS in line.measurements


@pytest.mark.parametrize("scene", [nms.clusters, nms.giant, nms.pile, nms.disjoint])
def test_everybody_chooses_the_same_boxes(scene: nms.Scene) -> None:
    problem = nms.Problem("nms", scene, 400, 0.5)
    boxes = problem.tensors()["boxes"]
    assert boxes.shape == (400, 4)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    case = problem.case()
    session = Session(suite_of(case), [Place(1)], BRIEF)
    (result,) = session.run([case])
    assert result.lines[0].refused == {}
    assert not any("differs" in note for note in session.notes)


def test_openvino_drops_boxes_at_the_threshold_and_the_notes_count_them() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    case = nms.Problem("nms", nms.whole_pixels, 4000, 0.5).case().with_peers(["openvino"])
    session = Session(suite_of(case), [Place(1)], BRIEF)
    (result,) = session.run([case])
    assert set(result.lines[0].measurements) == {OURS, "openvino"}
    (note,) = session.notes
    assert re.fullmatch(r"openvino timed in .* its output differs from ours by \d+ of \d+", note)


@pytest.mark.parametrize("op", nms.SOFT)
def test_soft_suppression_drops_some_and_everybody_the_same(op: str) -> None:
    case = nms.Problem(op, nms.pile, 300, nms.SOFT[op]).case()
    kept = case.entries[OURS].factory(Place(1)).results()["output"]
    assert 0 < len(kept) < 300
    case = nms.Problem(op, nms.whole_pixels, 300, nms.SOFT[op]).case()
    (result,) = Session(suite_of(case), [Place(1)], BRIEF).run([case])
    assert result.lines[0].refused == {}


# The command


def made_up_suite(monkeypatch: pytest.MonkeyPatch, **entries: Entry) -> Suite:
    case = Case("first case", FORWARD, {OURS: constant(), **entries}, (), quick=True)
    parts = (
        Part("backward", ("backward",), Work.bytes(2e6)),
        Part("forward+backward", ("forward", "backward"), Work.bytes(3e6)),
    )
    both = Competitor({"forward": int, "backward": int}, lambda: {"output": 1})
    other = Case("second case", parts, {OURS: Entry(lambda place: both)})
    suite = suite_of(case, other)
    monkeypatch.setattr(suites, "load", lambda name: suite)
    return suite


BRIEFLY = ["--repeats", "2", "--min-time", "0", "--no-memory", "--threads", "1,2"]


def test_a_run_prints_blocks_summary_and_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    peer = Entry(failing(MissingPeerError("peer is not installed (extra [bench])")))
    made_up_suite(monkeypatch, peer=peer, other=constant())
    file = tmp_path / "out.json"
    assert command.main(["deform_conv", *BRIEFLY, "--json", str(file)]) == 0
    text = capsys.readouterr().out
    for words in ("first case  (0.00100 GFLOP)", "second case: backward  (2.00 MB)", "summary"):
        assert words in text
    assert text.count("peer is not installed (extra [bench])") == 1
    document = json.loads(file.read_text())
    (made_up,) = document["suites"]
    assert [result["case"] for result in made_up["results"]] == ["first case", "second case"]
    first = made_up["results"][0]["lines"]
    assert [line["threads"] for line in first] == [1, 2]
    assert len(first[0]["competitors"]["other"]["rounds_seconds"]) >= 2
    assert first[0]["missing"] == {"peer": "peer is not installed (extra [bench])"}
    assert document["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]


def test_an_interrupt_prints_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up_suite(monkeypatch)
    real, seen = rotation.take_turn, []

    def interrupted(competitor: Competitor, *arguments: float) -> dict[str, float]:
        if "backward" in competitor.steps:
            seen.append(competitor)
            if len(seen) == 4:  # the second round at two threads
                raise KeyboardInterrupt
        return real(competitor, *arguments)

    monkeypatch.setattr(rotation, "take_turn", interrupted)
    before = torch.get_num_threads()
    file = tmp_path / "out.json"
    assert command.main(["deform_conv", *BRIEFLY, "--json", str(file)]) == 130
    text = capsys.readouterr().out
    assert "second case: backward" in text
    assert "interrupted" in text
    lines = json.loads(file.read_text())["suites"][0]["results"][1]["lines"]
    assert [(line["threads"], line["part"]) for line in lines] == [
        (threads, part) for threads in (1, 2) for part in ("backward", "forward+backward")
    ]
    assert len(lines[-1]["competitors"][OURS]["rounds_seconds"]) == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_suite"], "no suite is called 'no_such_suite': atrous_conv"),
        (["deform_conv", "--threads", "none"], "--threads"),
        (["deform_conv", "--threads", "0"], "positive"),
        (["deform_conv", "--cases", "no such case"], "no case has 'no such case'"),
        (["nms", "--peers", "opencv,nobody"], "--peers: expected some of onnxruntime, opencv"),
        (["deform_conv", "--json", "no/such/folder/out.json"], "--json: no/such/folder is no"),
        (["deform_conv", "--plot", "out.docx"], "--plot: expected a name ending in .png"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as status:
        command.main(arguments)
    assert status.value.code == 2
    assert message in capsys.readouterr().err


def test_cases_and_peers_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["deform_conv", "--list", "--cases", "mask forward"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names
    assert all("mask forward" in name for name in names)
    suite = suites.load("deform_conv")
    (case,) = select(suite, "64->64", "openvino", quick=True)
    assert list(case.entries) == [OURS, "openvino"]
    assert len(select(suite, "", None, quick=True)) < len(suite.cases)


def test_threads_are_distinct_and_rising() -> None:
    assert parse_threads("2,1,2") == [1, 2]
    assert parse_threads("all")[0] >= 1


# What it looks like


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234, "1234"), (math.nan, "-")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_ratios() -> None:
    assert [times(value) for value in (0.956, 9.994, 12.34, 321.4, math.nan)] == [
        "0.96x",
        "9.99x",
        "12.3x",
        "321x",
        "-",
    ]


def a_result() -> CaseResult:
    lines = [
        Line(
            "a case",
            "forward",
            Place(threads),
            Work.flops(1e9),
            0.004,
            {
                OURS: Measurement((0.005, 0.0051), 1.26),
                "peer": Measurement((0.04, 0.05), 8.7),
                "plain": Measurement((0.0045, 0.0046), 0.9, landmark=True),
            },
            refused={"liar": "differs"},
            missing={"absent": "not installed"},
            others_share=0.5 if threads == 2 else 0.0,
        )
        for threads in (1, 2)
    ]
    return CaseResult("a case", lines, {OURS: 8_100_000, "peer": None})


def test_columns_are_aligned() -> None:
    stream = io.StringIO()
    table = Table(stream)
    table.block(a_result())
    table.summary([a_result()])
    rows = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    ours = next(row for row in rows if row.startswith("  ours"))
    peer = next(row for row in rows if row.startswith("  peer"))
    titles = next(row for row in rows if "median" in row)
    for title, cell in (("fastest", "5.00"), ("ratio", "1.26x"), ("adds MB", "8.1")):
        assert titles.index(title) + len(title) == ours.index(cell) + len(cell)
    assert ours.index("1.26x") == peer.index("8.70x")
    assert any("liar" in row and row.count("refused") == 2 for row in rows)
    assert any("disturbed: other processes used 50% of the machine (2 threads)" in r for r in rows)


def test_json_has_no_numbers_that_are_not_numbers() -> None:
    result = a_result()
    result.lines[0].floor_seconds = math.nan
    document = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(document)["lines"][0]["floor_seconds"] is None
