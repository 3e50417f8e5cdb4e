"""The commit whose code is measured, as git tells it; nothing is ever written."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.errors import ConvmarkError

__all__ = ["Commit", "read_commit"]

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# A hook's other variables would point git at the hook's repository, index or settings.
_KEPT_GIT_VARIABLES = (
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
)
# Without locks the index is not refreshed on the disk; the monitor would start a process.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")


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
    call = _Git(
        folder=folder,
        environ=_without_hook(os.environ if environ is None else environ),
        time_limit_s=time_limit_s,
    )
    sha = call.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if sha is None:
        return Commit(sha=None, dirty=None)
    top = call.answer("rev-parse", "--show-toplevel")
    status = call.answer("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
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


def _without_hook(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name in _KEPT_GIT_VARIABLES
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Git:
    """How git is called."""

    folder: Path
    environ: Mapping[str, str]
    time_limit_s: float

    def answer(self, *arguments: str) -> str | None:
        """Return what git prints, None where it fails, is absent or takes too long."""
        try:
            done = subprocess.run(
                [*_GIT, "-C", os.fspath(self.folder), *arguments],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.time_limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return os.fsdecode(done.stdout) if done.returncode == 0 else None
