"""The code blocks of a page of Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<run><!-- run -->\n)?(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: what the fence says.
        text: the lines between the fences.
        line: the number of the first of them on its page, from 1 on.
        run: whether the line `<!-- run -->` stands before it: its commands are quick.
    """

    language: str
    text: str
    line: int
    run: bool

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: str) -> Iterator[Block]:
    """The code blocks of a page.

    Args:
        page: Markdown, whose blocks have fences of backticks at the beginning of lines.

    Yields:
        Each block.
    """
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        yield Block(match["language"], match["text"], line, match["run"] is not None)
