"""What MkDocs calls: lines `{{ ... }}` of pages become what they ask for.

- `{{ figure NAME }}`: a drawing of `docs.tools.figures`
- `{{ pictures FILE ... }}`: what the code of the page writes, small
- `{{ help COMMAND }}`: what `deformops COMMAND --help` prints; without COMMAND the program's
- `{{ helps }}`: the same of every command, under headings
- `{{ api MODULE NAME ... }}`: descriptions, from docstrings; without names of all that is public
- `{{ code FILE }}`: a file of the repository as a block of code
- `{{ page FILE }}`: a Markdown file of the repository without its title, with its pictures
- `{{ written FILE COMMAND }}`: the same if the file is there, else by which command it is made
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from deformops.__main__ import COMMANDS, main
from docs.tools.figures import FIGURES
from docs.tools.links import with_links
from docs.tools.names import place, public
from docs.tools.running import run

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
    made = PageFolder(markdown)
    with contextlib.closing(made):
        return with_links(filled(markdown, made)).replace("<!-- run -->\n", "")


def filled(markdown: str, made: PageFolder | None = None) -> str:
    """A page with its lines `{{ ... }}` replaced, those for pictures if there is a folder of them.

    The names in what comes in are no links yet.
    """

    def replaced(match: re.Match[str]) -> str:
        name, words = match[1], match[2].split()
        if name == "pictures":
            return pictures(made, *words) if made is not None else ""
        return _MAKERS[name](*words)

    return _LINE.sub(replaced, markdown)


class PageFolder:
    """The folder in which the code of a page runs, once, when a picture of it is asked for."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def path(self, name: str) -> Path:
        """A file that the code has written."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory()
            before = Path.cwd()
            os.chdir(self.folder.name)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    run(self.page, "page")
            finally:
                os.chdir(before)
        return Path(self.folder.name) / name

    def close(self) -> None:
        """Removes the folder."""
        if self.folder is not None:
            self.folder.cleanup()


def pictures(made: PageFolder, *names: str) -> str:
    """Pictures side by side, each a part of the page itself."""
    images = []
    size = (400, 300) if len(names) > 1 else (800, 1000)
    for name in names:
        picture = Image.open(made.path(name)).convert("RGB")
        picture.thumbnail(size)
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=85)
        images.append(_image(name, data.getvalue(), "jpeg"))
    return f'<figure class="pictures">{"".join(images)}</figure>'


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
    """A Markdown file without its title; pictures become part of it, links to files code."""
    path = ROOT / file

    def link(match: re.Match[str]) -> str:
        if match[1]:
            return _image(match[2], path.parent.joinpath(match[3]).read_bytes(), "png")
        return f"`{match[2]}`"

    text = path.read_text("utf-8").partition("\n")[2]
    return re.sub(r"(!?)\[([^]\n]+)\]\((?!https?:|#)([^)\n]+)\)", link, text)


def written(file: str, *command: str) -> str:
    """A page that a command writes, if it has."""
    return page(file) if (ROOT / file).exists() else f"`{' '.join(command)}` writes this page."


def _image(title: str, data: bytes, kind: str) -> str:
    """A picture as a part of the page."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{title}" title="{title}" src="{source}">'


_MAKERS: dict[str, Callable[..., str]] = {
    "figure": figure,
    "help": help_of,
    "helps": help_of_all,
    "api": api,
    "code": code,
    "page": page,
    "written": written,
}
