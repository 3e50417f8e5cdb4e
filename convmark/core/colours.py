"""Colours of verdicts and of what is wrong, on a terminal that shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TextIO

__all__ = ["coloured", "painted", "wants_colour"]

_RED, _GREEN, _YELLOW = 31, 32, 33
_COLOURS: Mapping[str, int] = MappingProxyType(
    {
        "regressed": _RED,
        "failed": _RED,
        "error:": _RED,
        "crashed:": _RED,
        "out_of_memory:": _RED,
        "timeout:": _RED,
        "improved": _GREEN,
        "inconclusive": _YELLOW,
        "unsteady": _YELLOW,
        "not judged": _YELLOW,
    }
)
_WORDS = re.compile(rf"(?<![\w.:-])({'|'.join(map(re.escape, _COLOURS))})(?![\w.-])")
"""Alone between spaces or brackets: a case's name may have such a word in it."""


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether text for a stream is coloured: no by NO_COLOR, yes by FORCE_COLOR, else a terminal's.

    Source:
        no-color.org and force-color.org: each counts where it is set and not empty.
    """
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or stream.isatty()


def painted(text: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """Return a printed table with the words that matter in colour, where the stream shows it."""
    return coloured(text) if wants_colour(stream, environ) else text


def coloured(text: str) -> str:
    """Return a printed table with the words that matter in colour."""
    return _WORDS.sub(lambda found: f"\x1b[{_COLOURS[found[1]]}m{found[1]}\x1b[0m", text)
