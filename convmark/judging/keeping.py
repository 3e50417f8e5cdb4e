"""Files of the cache that can be made again at any time: believed only where all of it is right.

A first line says what made the file, of which folder, and size and checksum of each part behind it;
it has a checksum of its own. The file is written beside itself and renamed: of two writers at once
the last one wins, and a reader sees one whole file or the other.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from convmark.environments.cache import cache_folder

__all__ = ["keep", "kept", "kept_path"]

UNUSED_S = 90 * 86400
"""After so long without use a file is removed when another one is written."""

_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a damaged or foreign file makes its reader raise."""

_MAKERS = ("case", "cells", "csvlines", "ranges", "reading", "record")
_MAKERS_HERE = (
    *("comparability", "digest", "index", "keeping"),
    *("judgement", "tablefile", "verdict_index", "verdicts_file"),
)


def kept_path(folder: Path, kind: str) -> Path:
    """Return where what is kept of a folder of runs lies."""
    whole = folder.resolve()
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:16]
    name = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in whole.name)
    return cache_folder() / "index" / f"{name[:80]}-{digest}.{kind}"


@functools.cache
def _code() -> str:
    """Return a hash of the code that makes these files: what other code made is not believed."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in (
        *(here / f"{name}.py" for name in _MAKERS_HERE),
        *(here.parent / f"{name}.py" for name in _MAKERS),
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def kept(folder: Path, kind: str, *, most: int | None = None) -> dict[str, bytes]:
    """Return the parts of what is kept; none where there is nothing that can be believed.

    Args:
        most: how many parts are read, the first ones; all of them by default.
    """
    path = kept_path(folder, kind)
    found = {}
    try:
        with path.open("rb") as file:
            checksum, _, said = file.readline(1 << 16).partition(b" ")
            if int(checksum) != zlib.crc32(said):
                return {}
            header = json.loads(said)
            if (header["code"], header["folder"]) != (_code(), str(folder.resolve())):
                return {}
            for name, size, checksum in header["parts"][:most]:
                data = file.read(int(size))
                if (len(data), zlib.crc32(data)) != (size, checksum):
                    return {}
                found[str(name)] = data
    except _DAMAGED:
        return {}
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use
    return found


def keep(folder: Path, kind: str, parts: Mapping[str, bytes]) -> None:
    """Keep the parts; where they cannot be kept, the next reading is as long as this one was."""
    path = kept_path(folder, kind)
    header = {
        "code": _code(),
        "folder": str(folder.resolve()),
        "parts": [[name, len(data), zlib.crc32(data)] for name, data in parts.items()],
    }
    said = json.dumps(header).encode() + b"\n"
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(path.parent)
        with part.open("wb") as file:
            file.write(b"%d " % zlib.crc32(said) + said)
            file.writelines(parts.values())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()


def _remove_unused(folder: Path) -> None:
    """Remove what nobody has asked for in a long time, parts of killed writers among it."""
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > UNUSED_S:
                path.unlink()
