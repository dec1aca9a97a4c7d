"""The manual: its code runs, its commands exist, its drawings and links are right."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("skimage", reason="extra [viz] is not installed")

import deformops
from deformops.__main__ import COMMANDS, main
from docs.tools import figures, hooks
from docs.tools.blocks import Block, blocks
from docs.tools.links import with_links
from docs.tools.names import MODULES, place, public
from docs.tools.running import run, run_examples

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
TEXTS["README.md"] = (ROOT / "README.md").read_text("utf-8")
# That page's code needs what its shell commands build: test_example runs both.
RUN = [name for name in TEXTS if name != "docs/add-an-op.md"]
OTHER_PROGRAMS = {"pip", "g++", "torchrun", "export", "cd", "learn()", "}", "learn"}


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to write to; threads and seeds stay as they are elsewhere."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RUN)
def test_code_runs(name: str) -> None:
    """The blocks of a page one after the other, as a reader would copy them."""
    run(TEXTS[name], name)


@pytest.mark.parametrize("file", ["README.md", "csrc/README.md", "csrc/simulation/README.md"])
def test_links_to_files(file: str) -> None:
    """Of pages outside the site; MkDocs checks the others."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / file).read_text("utf-8"))
    assert [link for link in links if not (ROOT / file).parent.joinpath(link).exists()] == []


def check_command(words: list[str]) -> None:
    """Raises for a command that would not be understood."""
    program, *arguments = words
    if program == "python" and arguments[:2] == ["-m", "deformops"]:
        program, arguments = "deformops", arguments[2:]
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1].removeprefix("-"))
    elif program == "deformops":
        with pytest.MonkeyPatch.context() as patch:
            command = importlib.import_module(COMMANDS[arguments[0]][0])
            patch.setattr(command, "run", lambda _: 0)
            # An option that is misspelt is no abbreviation.
            patch.setattr(argparse.ArgumentParser, "_get_option_tuples", lambda *_: [])
            assert main(arguments) == 0
    else:
        assert program in OTHER_PROGRAMS or program.startswith(("python", "torch=")), words


@pytest.mark.parametrize("name", TEXTS)
def test_commands_are_understood(name: str) -> None:
    for block in blocks(TEXTS[name]):
        if block.language == "sh":
            for words in block.commands:
                check_command(words)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_help_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has examples, and knows their options."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    _, _, examples = text.partition("\nexamples:\n")
    assert examples, f"{command}: no examples"
    lines = examples.replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("deformops ")]
    assert commands
    for line in commands:
        block = Block("sh", line.partition(" | ")[0], 0, "", False)
        for words in block.commands:
            check_command(words)


# What docstrings take for granted.
KNOWN = {
    "deformops": deformops,
    "torch": torch,
    "image": torch.zeros(1, 3, 8, 8),
    "labels": torch.zeros(1, 8, 8, dtype=torch.int64),
    "network": torch.nn.Conv2d(3, 21, 1),
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in MODULES for name in public(module)]
)
def test_examples_of_docstrings(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    text = inspect.getdoc(value) or ""
    assert text, f"{module}.{name} has no docstring"
    own, around = sys.modules[value.__module__], sys.modules[module]
    names = {**KNOWN, **vars(own), **vars(around), "deformops": deformops}
    run_examples(text.partition("Example:")[2], names, f"{module}.{name}")


def test_every_name_is_described_once() -> None:
    """By one `{{ api ... }}` of one page, if its module is one of `MODULES`, and in no other."""
    filled = "\n".join(hooks.filled(text) for name, text in TEXTS.items() if name != "README.md")
    described = re.findall(r"^::: (?!deformops.simulation)(\S+)$", filled, re.MULTILINE)
    names = {place(module, name) for module in MODULES for name in public(module)}
    assert not names - set(described), "public, but not described"
    assert not set(described) - names, "described, but not public in one of MODULES"
    assert not [name for name in described if described.count(name) > 1], "described twice"


def test_names_become_links() -> None:
    text = "`nms` and `deformops.nn.RoIPool`, `unknown`\n\n```\n`nms`\n```\n"
    assert with_links(text) == (
        "[`nms`][deformops.ops.nms.nms] and [`deformops.nn.RoIPool`]"
        "[deformops.nn.roi_pooling.RoIPool], `unknown`\n\n```\n`nms`\n```\n"
    )


@pytest.mark.parametrize("name", figures.FIGURES)
def test_drawings_are_drawn(name: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        drawing = hooks.figure(name)
    assert drawing.count("<svg") == drawing.count("</svg>") == 1


def test_offset_channels_are_as_drawn() -> None:
    """Each channel, set alone, moves the tap that the drawing says, along the axis that it says."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    ramp = (100 * y + x).expand(1, 4, 8, 8)
    still = deformops.gather_columns(ramp, (3, 2))
    for channel, group, row, column, axis in figures.tap_channels(3, 2, 2):
        offset = torch.zeros(1, 24, 6, 7)
        offset[:, channel] = 0.25
        moved = deformops.gather_columns(ramp, (3, 2), offset=offset) - still
        want = torch.zeros_like(moved)
        want[:, 2 * group : 2 * group + 2, 2 * row + column] = 25 if axis == "y" else 0.25
        inside = (..., slice(0, -1), slice(0, -1))  # not where the last row or column is left
        torch.testing.assert_close(moved[inside], want[inside], rtol=0, atol=1e-4)


def test_bin_channels_are_as_drawn() -> None:
    ramp = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 9, 9)
    pooled = deformops.ps_roi_pool(ramp, torch.tensor([[0.0, 1, 1, 7, 7]]), (2, 3))
    for channel, output, row, column in figures.bin_channels(2, 3, 2):
        assert pooled[0, output, row, column] == channel


def test_bin_offsets_are_as_drawn() -> None:
    """x before y: the first channel of a class moves to the right, the second down."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    ramp = (100 * y + x).expand(1, 2, 12, 12)
    box = torch.tensor([[0.0, 2, 2, 5, 5]])
    still = deformops.deform_roi_pool(ramp, box, None, 2)
    for channel, (output, step) in enumerate([(0, 1.0), (0, 100.0), (1, 1.0), (1, 100.0)]):
        offset = torch.zeros(1, 4, 2, 2)
        offset[:, channel] = 2.5  # times 0.1, times 4 pixels
        moved = deformops.deform_roi_pool(ramp, box, offset, 2) - still
        want = torch.zeros_like(moved)
        want[:, output] = step
        torch.testing.assert_close(moved, want, rtol=0, atol=1e-3)
