"""Runs the code of a page as a reader would: block after block, in one folder."""

from __future__ import annotations

import doctest
import io
from pathlib import Path
from typing import Any

from deformops.__main__ import main
from docs.tools.blocks import blocks

# An example may be wrapped otherwise than what it prints, and leave out the frames of an error.
_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def run(page: str, where: str) -> None:
    """Runs the blocks of Python of a page, and the commands that are marked as quick.

    A block with the name of a file is written to it.

    Args:
        page: Markdown.
        where: its name, for messages.

    Raises:
        AssertionError: something printed something else, or a command failed.
        Exception: whatever the code raises.
    """
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            lines = "\n" * (block.line - 1)
            exec(compile(lines + block.text, where, "exec"), names)
        elif block.language == "pycon":
            run_examples(block.text, names, f"{where}:{block.line}")
        elif block.run:
            for words in block.commands:
                assert words[0] == "deformops", words
                assert main(words[1:]) == 0, words


def run_examples(text: str, names: dict[str, Any], where: str) -> None:
    """Runs what follows `>>>` and compares what it prints; names go in and come out.

    Raises:
        AssertionError: with all that was not as it says.
    """
    test = doctest.DocTestParser().get_doctest(text, names, where, where, 0)
    problems = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    runner.run(test, out=problems.write, clear_globs=False)
    names.update(test.globs)
    assert not problems.getvalue(), problems.getvalue()
