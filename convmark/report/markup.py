"""Text from outside as it may stand in Markdown: text and nothing else."""

from __future__ import annotations

import html
import re

from convmark.core.text import shown

__all__ = ["markdown_cell", "markdown_prose"]

_MARKS = re.compile(r"([\\`*_\[\]|~#])")
_MARKS_BESIDE_CODE = re.compile(r"([\\*_\[\]|~#])")


def markdown_cell(cell: str, *, code: bool = False) -> str:
    """Keep a cell one cell of plain text: no markup, no HTML.

    Args:
        code: whether back quotes stay: a note of ours names commands in them.
    """
    marks = _MARKS_BESIDE_CODE if code else _MARKS
    return marks.sub(r"\\\1", html.escape(shown(cell), quote=False))


def markdown_prose(text: str) -> str:
    """Return a title or a caption as one line without HTML."""
    return html.escape(shown(text), quote=False)
