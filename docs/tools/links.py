"""Names of functions and classes in texts become links to where they are described."""

from __future__ import annotations

import re

from docs.tools.names import places

_SPAN = re.compile(r"(?<![`\[])`([A-Za-z_][\w.]*)`(?![`\]])")
_CODE = re.compile(r"^```.*?^```$|^#+ [^\n]*$", re.MULTILINE | re.DOTALL)
_PLACES = places()


def with_links(text: str, without: str = "") -> str:
    """Links the names in `backticks` that the manual describes; headings and blocks of code stay.

    Args:
        text: Markdown.
        without: a name that is not linked: that of what the text describes.

    Returns:
        Markdown with references of mkdocs-autorefs.
    """

    def link(match: re.Match[str]) -> str:
        name = match[1]
        linked = name in _PLACES and name.rpartition(".")[2] != without
        return f"[`{name}`][{_PLACES[name]}]" if linked else match[0]

    pieces, end = [], 0
    for code in _CODE.finditer(text):
        pieces += [_SPAN.sub(link, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _SPAN.sub(link, text[end:])])
