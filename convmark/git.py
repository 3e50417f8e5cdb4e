"""How git is called: no lock taken, no hook's variables, a time limit, and None where it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Git"]

# A hook's other variables would point git at the hook's repository, index or settings.
_KEPT_GIT_VARIABLES = (
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
)
# Without locks the index is not refreshed on the disk; the monitor would start a process.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")


def _without_hook(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name in _KEPT_GIT_VARIABLES
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """How git is called."""

    folder: Path
    environ: Mapping[str, str]
    time_limit_s: float

    @classmethod
    def at(
        cls, folder: Path, *, environ: Mapping[str, str] | None = None, time_limit_s: float = 10.0
    ) -> Git:
        """Return git as it is called in a folder, whatever hook this process runs in."""
        clean = _without_hook(os.environ if environ is None else environ)
        return cls(folder=folder, environ=clean, time_limit_s=time_limit_s)

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
        except (OSError, ValueError, subprocess.TimeoutExpired):  # a NUL in an argument
            return None
        return os.fsdecode(done.stdout) if done.returncode == 0 else None
