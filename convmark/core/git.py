"""Calls git safely: runs no code of the repository, takes no lock, fetches nothing.

A repository may name programs: hooks, filters, a file system monitor, helpers that fetch. None of
them is started. Each call has a time limit, which ends with git itself: what a child of it holds
open is not waited for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convmark.core.errors import ConvmarkError

SHOWN = 12
"""Characters of a commit that are shown, and that a printed command names it by."""

# A hook's other variables would point git at the hook's repository, index or settings.
_KEPT_GIT_VARIABLES = (
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
)
_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
)
# A partial clone would fetch what it lacks. The second variable is for a git that does not know the
# first: an empty list of protocols allows none, whatever the settings say.
_NO_FETCH = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0"}

_FILTER_PROGRAMS = ("clean", "smudge", "process")


class GitError(ConvmarkError):
    """Git has failed; the text is its last line."""

    status: int | None = None
    """How it ended; None where it did not end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """How git is called."""

    folder: Path
    environ: Mapping[str, str]
    time_limit_s: float
    settings: tuple[str, ...] = _SETTINGS
    """Texts of -c, each NAME=VALUE."""

    @classmethod
    def at(
        cls, folder: Path, *, environ: Mapping[str, str] | None = None, time_limit_s: float = 10.0
    ) -> Git:
        """Return git as it is called in a folder, whatever hook this process runs in."""
        clean = {
            name: value
            for name, value in (os.environ if environ is None else environ).items()
            if not name.startswith("GIT_") or name in _KEPT_GIT_VARIABLES
        }
        return cls(folder=folder, environ={**clean, **_NO_FETCH}, time_limit_s=time_limit_s)

    def without_filters(self) -> Git:
        """Return git with every filter off, for what compares or writes the files' contents.

        A file is then compared and written as git stores it; line ends and encodings still change.
        """
        listed = self.answer("config", "--name-only", "-z", "--get-regexp", r"^filter\.") or ""
        drivers = {name.rpartition(".")[0] for name in listed.split("\0") if name}
        off = [f"{driver}.{use}=" for driver in sorted(drivers) for use in _FILTER_PROGRAMS]
        off += [f"{driver}.required=false" for driver in sorted(drivers)]
        return dataclasses.replace(self, settings=(*self.settings, *off))

    def answer(self, *arguments: str) -> str | None:
        """Return what git prints, None where it fails, is absent or takes too long."""
        try:
            return self.output(*arguments)
        except GitError:
            return None

    def output(self, *arguments: str, given: bytes = b"") -> str:
        """Return what git prints.

        Raises:
            GitError: it fails, is absent or takes too long.
        """
        options = [word for setting in self.settings for word in ("-c", setting)]
        command = ["git", "--no-optional-locks", *options, "-C", os.fspath(self.folder), *arguments]
        with contextlib.ExitStack() as stack:
            # files and no pipes: the end of a pipe comes when the last child has closed it
            source, printed, said = (stack.enter_context(tempfile.TemporaryFile()) for _ in "123")
            source.write(given)
            source.seek(0)
            try:
                status = self._run(command, source.fileno(), printed.fileno(), said.fileno())
            except (OSError, ValueError) as error:  # git is absent; a NUL in an argument
                raise GitError(f"git cannot be started: {error}") from None
            printed.seek(0)
            said.seek(0)
            if status:
                lines = os.fsdecode(said.read()).split("\n")
                last = next((line.strip() for line in reversed(lines) if line.strip()), "")
                shown = "".join(letter if letter.isprintable() else "?" for letter in last)
                failed = GitError(shown or f"git failed with status {status}")
                failed.status = status
                raise failed
            return os.fsdecode(printed.read())

    def _run(self, command: list[str], source: int, printed: int, said: int) -> int:
        process = subprocess.Popen(
            command,
            env=dict(self.environ),
            stdin=source,
            stdout=printed,
            stderr=said,
            start_new_session=True,
        )
        try:
            return _await(process, self.time_limit_s)
        except subprocess.TimeoutExpired:
            raise GitError(f"git took longer than {self.time_limit_s:g} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await(process: subprocess.Popen[bytes], limit_s: float) -> int:
    """Return how a process has ended, as soon as it has; `Popen.wait` only looks now and then.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # an old kernel; an old C library
            ended = os.pidfd_open(process.pid)
            try:
                looking = select.poll()
                looking.register(ended, select.POLLIN)
                looking.poll(1000 * limit_s)
            finally:
                os.close(ended)
            limit_s = 0.0
    return process.wait(limit_s)
