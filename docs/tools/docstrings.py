"""Docstrings as mkdocstrings should read them."""

from __future__ import annotations

import re
from typing import Any

import griffe

from docs.tools.links import with_links

_RETURNS = re.compile(r"^(?P<head>Returns:\n)(?P<body>(?:[ ]+.*\n?|\n(?=[ ]))+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Names become links, an example is shown as code, a result is one paragraph."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of whatever griffe has found."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = _RETURNS.sub(_one_result, text)
            obj.docstring.value = with_links(text, without=obj.name)


def _one_result(match: re.Match[str]) -> str:
    """Indents the lines that go on: griffe takes each for another result unless it has a name."""
    first, *others = match["body"].split("\n")
    lines = [
        line if re.match(r"\s*\w+: ", line) or not line.strip() else f"    {line}"
        for line in others
    ]
    return match["head"] + "\n".join([first, *lines])
