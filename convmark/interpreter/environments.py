"""The interpreters that a user names: paths, and environments that are cached.

Each environment is made once, under a lock, completely or not at all.

<cache>/environments/<name>/                 a virtual environment
<cache>/environments/<name>/convmark.json    what it is; written last, so that without it a
                                             folder is half-made and will be made anew
<cache>/environments/<name>.lock             held while it is made or removed
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convmark.core.errors import InstallError, OptionError
from convmark.core.files import cache_folder
from convmark.core.text import Say
from convmark.interpreter.installer import Installer, Resolved, Wanted, wanted

MARK = "convmark.json"
_TUPLES = ("requirements", "packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An environment that is there."""

    name: str
    python: str
    """Path of its interpreter."""
    version: str
    """Of that Python."""
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    """All that is installed, as name==version."""
    made: str
    """UTC, ISO 8601."""
    locked: str = ""
    """What the requirements came to then; empty of an environment that an earlier version made."""


class Cache:
    """The environments that were made."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        by: Callable[[], Installer] = Installer,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.folder = (folder or cache_folder()) / "environments"
        self._by = by
        self._now = now

    def get(self, wanted: Wanted, say: Say = lambda line: None, *, refresh: bool = False) -> Made:
        """Return the environment, made now where it is not there yet, or is out of date.

        Requirements that name no fixed release (`==2.20.*`, a file, a branch) are looked up again.

        Args:
            refresh: make it anew in any case.
        """
        known, resolved = self._read(wanted.name), None
        if known is not None and not refresh:
            if wanted.is_fixed:
                say(f"the environment of {wanted}, made {known.made}, is used")
                return known
            try:
                resolved = self._by().resolve(wanted)
            except InstallError as error:
                say(f"the environment of {wanted} is used as it was at {known.made}: {error}")
                return known
            if resolved.locked == known.locked:
                say(f"the environment of {wanted}, made {known.made}, is up to date")
                return known
        with self._locked(wanted.name, say):
            now = self._read(wanted.name)
            if now is not None and now != known:
                return now  # another process has made it meanwhile
            say(f"making the environment of {wanted}{' again' if known else ''}")
            return self._make(wanted, resolved)

    def list(self) -> list[Made]:
        names = sorted(path.parent.name for path in self.folder.glob(f"*/{MARK}"))
        return [made for name in names if (made := self._read(name)) is not None]

    def remove(self, name: str, say: Say = lambda line: None) -> None:
        known = self.list()
        chosen = [one for one in known if name in (one.name, " ".join(one.requirements))]
        if not chosen:
            there = ", ".join(one.name for one in known) or "none"
            raise OptionError(f"NAME: no environment {name!r}; known: {there}")
        for one in chosen:
            with self._locked(one.name, say):
                self._clear(one.name)

    def _make(self, wanted: Wanted, resolved: Resolved | None) -> Made:
        folder = self.folder / wanted.name
        by = self._by()
        resolved = resolved or by.resolve(wanted)
        self._clear(wanted.name)
        try:
            by.install(wanted, resolved, folder)
            python = str(folder / "bin" / "python")
            made = Made(
                name=wanted.name,
                python=python,
                version=resolved.python.version,
                requirements=wanted.requirements,
                packages=tuple(by.frozen(python)),
                made=self._now().isoformat(timespec="seconds"),
                locked=resolved.locked,
            )
            mark = folder / f"{MARK}.new"
            mark.write_text(json.dumps(asdict(made), indent=1), encoding="utf-8")
            mark.replace(folder / MARK)
        except OSError as error:
            self._clear(wanted.name)
            raise InstallError(
                f"{self.folder}: the environment of {wanted} cannot be made there: "
                f"{error.strerror or error}; CONVMARK_CACHE names another folder"
            ) from None
        except BaseException:
            self._clear(wanted.name)
            raise
        return made

    def _clear(self, name: str) -> None:
        """Remove a folder, its mark first, so that what is left over is never taken for whole."""
        folder = self.folder / name
        (folder / MARK).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _read(self, name: str) -> Made | None:
        """Return what the mark says; None where there is none, or its interpreter is gone."""
        try:
            found: dict[str, Any] = json.loads((self.folder / name / MARK).read_text("utf-8"))
            found.pop("by", None)  # of an earlier version: the installer
            made = Made(**{**found, **{key: tuple(found[key]) for key in _TUPLES}})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return made if os.access(made.python, os.X_OK) else None

    @contextmanager
    def _locked(self, name: str, say: Say) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InstallError(
                f"{self.folder}: must be a folder that can be made and written: "
                f"{error.strerror or error}; CONVMARK_CACHE names another"
            ) from None
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that makes or removes {name}")
            lock.acquire()
        except OSError as error:
            raise InstallError(
                f"{self.folder}: must be writable: {error.strerror or error}; CONVMARK_CACHE "
                "names another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()


def interpreters(
    pythons: Sequence[str],
    requirements: Sequence[str],
    cache: Callable[[], Cache] = Cache,
    say: Say = lambda line: None,
) -> list[str]:
    """Return the paths of the interpreters asked for, those of environments made where needed.

    Args:
        pythons: texts of --python.
        requirements: texts of --env.

    Raises:
        OptionError: a path is no interpreter, or a text no requirement.
        InstallError: an environment cannot be made.
    """
    paths = [interpreter_path("--python", text) for text in pythons]
    asked = [wanted("--env", text) for text in requirements]  # all are checked before one is made
    made = [cache().get(one, say).python for one in asked]
    return list(dict.fromkeys([*paths, *made]))


def interpreter_path(flag: str, text: str) -> str:
    """Return the interpreter that a text means: its path, its name, or its environment's folder."""
    path = Path(text).expanduser()
    if path.is_dir():
        inside = path / "bin" / "python"
        if not os.access(inside, os.X_OK):
            raise OptionError(f"{flag}: {text} is a folder without bin/python")
        return str(inside.absolute())
    found = shutil.which(text) if os.sep not in text else None
    executable = found or str(path.absolute())
    if not os.path.isfile(executable):
        raise OptionError(f"{flag}: no interpreter {text!r}; give its path, or use --env")
    if not os.access(executable, os.X_OK):
        raise OptionError(f"{flag}: {text} must be an executable file, it is not")
    return executable
