"""The library that draws the figures in the page: Vega, Vega-Lite and Vega-Embed, as one script."""

from __future__ import annotations

import contextlib
import os
from importlib.metadata import version

from convmark.interpreter.environments.cache import cache_folder

__all__ = ["drawing_library"]

_EXPOSED = "window.vegaEmbed = vegaEmbed;"


def drawing_library() -> str:
    """Return the script that vl-convert bundles, from the user's cache after the first time.

    The cached file's name holds the version that made it.
    """
    path = cache_folder() / f"vega-embed-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    import vl_convert

    text = str(vl_convert.javascript_bundle(_EXPOSED))
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return text
