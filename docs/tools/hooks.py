"""What MkDocs calls: lines `{{ ... }}` of pages become what they ask for.

{{ figure NAME }}           a drawing of `docs.tools.figures`
{{ help COMMAND }}          what `deformops COMMAND --help` prints; without COMMAND the program's
{{ helps }}                 the same of every command, under headings
{{ api MODULE NAME ... }}   descriptions, from docstrings; without names of all that is public
{{ code FILE }}             a file of the repository as a block of code
{{ page FILE }}             a Markdown file of the repository, but for its title
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from deformops.__main__ import COMMANDS, main
from docs.tools.figures import FIGURES
from docs.tools.links import with_links
from docs.tools.names import place, public

ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"^\{\{ (\w+)((?: [\w./-]+)*) \}\}$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".cpp": "cpp"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its lines `{{ ... }}` replaced, and with names as links.

    Args:
        markdown: the page.
        **_: what else MkDocs says.

    Returns:
        Markdown.

    Raises:
        KeyError: a line asks for what there is not.
    """
    return with_links(filled(markdown)).replace("<!-- run -->\n", "")


def filled(markdown: str) -> str:
    """A page with its lines `{{ ... }}` replaced; the names in what comes in are no links yet."""
    return _LINE.sub(lambda match: _MAKERS[match[1]](*match[2].split()), markdown)


def figure(name: str) -> str:
    """A drawing, in place."""
    return f'<figure class="drawing">{FIGURES[name]()}</figure>'


def help_of(command: str = "") -> str:
    """What `--help` prints, 100 columns wide."""
    words = [*([command] if command else []), "--help"]
    text = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
    ):
        main(words)
    return f"```text\n{text.getvalue()}```"


def help_of_all() -> str:
    """The help of each command, under its name."""
    return "\n\n".join(f"## {name}\n\n{help_of(name)}" for name in COMMANDS)


def api(module: str, *names: str) -> str:
    """Descriptions of functions and classes, from their docstrings."""
    places = (place(module, name) for name in names or public(module))
    return "\n\n".join(f"::: {found}" for found in places)


def code(file: str) -> str:
    """A file as a block of code."""
    path = ROOT / file
    return f'```{_LANGUAGES[path.suffix]} title="{file}"\n{path.read_text("utf-8")}```'


def page(file: str) -> str:
    """A Markdown file without its title; headings one level deeper, links to files as code."""
    text = (ROOT / file).read_text("utf-8").partition("\n")[2]
    return re.sub(r"\[([^]\n]+)\]\((?!https?:|#)[^)\n]+\)", r"`\1`", text)


_MAKERS: dict[str, Callable[..., str]] = {
    "figure": figure,
    "help": help_of,
    "helps": help_of_all,
    "api": api,
    "code": code,
    "page": page,
}
