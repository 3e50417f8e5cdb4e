"""The commit whose code is measured, as git tells it; nothing is ever written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.errors import ConvmarkError
from convmark.git import Git

__all__ = ["Commit", "read_commit"]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The code that was measured."""

    sha: str | None
    """None where git does not name one."""
    dirty: bool | None
    """Whether the code differs from the commit; None where git does not tell."""

    def __post_init__(self) -> None:
        if self.sha is not None and not _SHA.fullmatch(self.sha):
            raise ConvmarkError(f"commit: must be 40 or 64 hex digits, got {self.sha!r}")


def read_commit(
    folder: Path,
    *,
    besides: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    time_limit_s: float = 10.0,
) -> Commit:
    """Return the commit of the repository that holds `folder`.

    Without git, a repository, a commit, or git's trust in the folder's owner, both fields are None.

    Args:
        folder: any folder of the repository; the whole repository counts.
        besides: files and folders whose changes do not make it dirty, such as the results.
        environ: the variables git runs with; this process's own by default.
        time_limit_s: the most seconds that each call of git may take.
    """
    call = Git.at(folder, environ=environ, time_limit_s=time_limit_s)
    sha = call.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if sha is None:
        return Commit(sha=None, dirty=None)
    top = call.answer("rev-parse", "--show-toplevel")
    raw = call.without_filters()  # a filter is a program, and contents are compared through it
    status = raw.answer("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    if top is None or status is None:
        return Commit(sha=sha.strip(), dirty=None)
    ignored = [path.resolve() for path in besides]
    return Commit(sha=sha.strip(), dirty=_is_dirty(status, Path(top.rstrip("\n")), ignored))


def _is_dirty(status: str, top: Path, ignored: Sequence[Path]) -> bool:
    """Judge the text of `git status --porcelain -z --no-renames`."""
    for entry in filter(None, status.split("\0")):
        kind, path = entry[:2], top / entry[3:]
        counts = kind != "??" or path.suffix == ".py"
        if counts and not any(path.is_relative_to(folder) for folder in ignored):
            return True
    return False
