"""The code blocks of a page of Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<run><!-- run -->\n)?"
    r"(?P<fence>```+)(?P<language>\w*)(?P<more>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: what the fence says.
        text: the lines between the fences.
        line: the number of the first of them on its page, from 1 on.
        file: the name that the fence gives it, as in title="net.py"; empty without one.
        run: whether the line `<!-- run -->` stands before it: its commands are quick.
    """

    language: str
    text: str
    line: int
    file: str
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
        title = re.search(r'title="([^"]+)"', match["more"])
        file = title[1] if title else ""
        yield Block(match["language"], match["text"], line, file, match["run"] is not None)
