"""The protocol of harness and worker: requests over a socket, events over a pipe.

A request is one JSON datagram on the zygote's control socket, with the child's descriptors beside
it; an event is one JSON object on a line of its own. Both sides load this module, so it needs the
standard library alone.

    request {"kind": "measure", "id": 7, "case": {...}, "seed": 0, ...}
    event   {"event": "steps", "times_s": [...]}
    reply   {"id": 7, "pid": 4242}            from the zygote when it forked the child
    reply   {"id": 7, "status": -9, "left": ["sleep"]}   when the child ended: its exit status, and
                                              the processes that it left running, ended by now
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from convmark.core.errors import WorkerError

PROTOCOL_VERSION = 1
ABSENT = "absent"
"""What is told of a path that was looked for and is not there."""

_SECRET = re.compile(
    r"(://[^\s/:@]*:)[^\s/@]+(?=@)"
    r"|((?<![a-z])(?:token|secret|passw(?:or)?d|pwd|(?:api|access|secret|private)[_-]?key)"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)]{4,}"
    r"|([?&]key=)[^\s\"'&,;)]{8,}"
    r"|(authorization[\"']?\s*[=:]\s*[\"']?(?:basic|bearer|digest|token) )[^\s\"',;)]{3,}"
    r"|(authorization[\"']?\s*[=:]\s*[\"'])[^\s\"']{8,}(?=[\"'])"
    r"|(authorization\s*[=:]\s*)(?=\S*[0-9])[^\s\"',;)]{8,}"
    r"|\b(?-i:(gh[pousr]_)[A-Za-z0-9]{16,}|(github_pat_|glpat-|xox[abp]-)[\w-]{16,}"
    r"|(hf_)[A-Za-z0-9]{30,}|(sk-(?:proj|svcacct|ant-api[0-9]+)-)[\w-]{40,}"
    r"|(sk-(?:or-v1-)?)[A-Za-z0-9]{20,}|(AKIA|ASIA)[A-Z0-9]{16})\b",
    re.IGNORECASE,
)
"""A password in an address, what follows token= and the like, and tokens by their beginning.

Names of models, files and regions are no secrets: beginnings that words have too count in their own
case, and before letters and digits alone, as many as the token has.
"""

UNSAFE_FORK = 97
"""Status of a request that the zygote refused because the framework had already run something."""

DATAGRAM_BYTES = 1 << 17
"""The largest request or reply, bytes."""

LINE_BYTES = 1 << 25
"""The largest event, bytes: a million step times are 20 MB of text."""

WHOLE_BYTES = 1 << 23
"""A larger file is known by its size, the time of its last change, its head and its tail."""
END_BYTES = 1 << 16


def _own_encoder() -> Any:
    """Return an encoder of a copy of the standard library's module.

    A model's code may have the module round every number, as a well-known recipe does.
    """
    spec = importlib.util.find_spec("json.encoder")
    assert spec is not None
    assert spec.loader is not None
    copied: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied.JSONEncoder(separators=(",", ":"))


_ENCODER = _own_encoder()


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the message as one line of JSON, newline included."""
    return str(_ENCODER.encode(message)).encode() + b"\n"


def may_not_change(path: str) -> str:
    """Return why it is not known what ran where code was refused to change a file."""
    return f"it may not change {path}"


def missed_late(event: Mapping[str, Any]) -> str:
    """Return why it is not known what ran, or nothing.

    Args:
        event: may have a file that was first read `late`, or that code was `refused` to change.
    """
    if not event.get("late") and (refused := event.get("refused")):
        return may_not_change(str(refused))
    late = str(event.get("late") or "")
    how = "imported" if late.endswith((".py", ".so")) else "opened"
    return f"{os.path.basename(late)} was {how} after the first step" if late else ""


def decode_event(line: bytes) -> dict[str, Any]:
    """Return the event on one line.

    Raises:
        WorkerError: the line is not a JSON object with the key `event`.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise WorkerError(f"the worker wrote an invalid event: {line[:80]!r}")
    return event


def one_line(text: object, limit: int = 300) -> str:
    """Return text fit for one line: control characters folded to spaces, secrets masked, cut."""
    folded = "".join(char if char.isprintable() else " " for char in str(text))
    words = masked(" ".join(folded.split()))
    return words if len(words) <= limit else words[: limit - 3] + "..."


def masked(text: str) -> str:
    """Return text with the secrets that are known by their form replaced: `user:***@host`.

    It makes texts alike that were not: a column that rows are compared by has a hash instead.
    """
    return _SECRET.sub(lambda found: f"{found[found.lastindex or 0]}***", text)


def file_digest(path: str | os.PathLike[str]) -> tuple[int, str] | None:
    """Return a file's size in bytes and its SHA-256; None where it is no file that can be read.

    Of a file above `WHOLE_BYTES` it is that of its size, time, head and tail.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            hashed = hashlib.sha256()
            if found.st_size <= WHOLE_BYTES:
                hashed.update(file.read())
            else:
                hashed.update(f"{found.st_size} {found.st_mtime_ns} ".encode())
                hashed.update(file.read(END_BYTES))
                file.seek(-END_BYTES, os.SEEK_END)
                hashed.update(file.read())
    except OSError:
        return None
    return found.st_size, hashed.hexdigest()


def names_digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of a folder's names in order, without those that tools leave there."""
    own = sorted(name for name in names if not name.startswith(".") and name != "__pycache__")
    return hashlib.sha256("\n".join(own).encode(errors="surrogateescape")).hexdigest()
