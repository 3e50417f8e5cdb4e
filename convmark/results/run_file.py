"""Writes a run's file: valid from the start, each row flushed to the disk when appended.

    results/<machine>/0007.csv         one run, one row per process of a case
    results/<machine>/0007.steps.npz   its raw step times; rows never depend on it

A file is held by the process that writes it, so that no other one goes on with it meanwhile; the
system lets go of it however that process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convmark.core.errors import StoreError
from convmark.core.files import (
    PASSING_S,
    as_store_error,
    close_locked,
    is_at,
    lock,
    new_part,
    open_kept,
    open_regular,
    read_regular,
    write_through,
)
from convmark.core.text import counted
from convmark.results.code.manifest import code_path
from convmark.results.code.of_run import KeptCodes
from convmark.results.reading import HEADER, StoreWarning
from convmark.results.record import Record, to_cells
from convmark.results.table_file import csv_bytes

_FLAGS = os.O_RDWR | os.O_APPEND

BESIDE = (
    *(".code.json", ".epochs.csv", ".latency.csv", ".layers.csv", ".log", ".plan.json"),
    *(".sessions.csv", ".steps.npz", ".sustained.csv", ".verdicts.csv"),
)
"""What may stand beside a run's file, by its ending in place of `.csv`."""


class RunFile:
    """One run's CSV file, open for appending rows."""

    def __init__(self, path: Path, descriptor: int, *, created: bool) -> None:
        """Take over an open file; `create` and `reopened` open one."""
        self.path = path
        self.codes = KeptCodes(path)
        """What its rows' processes ran."""
        self.rows = 0
        self._descriptor = descriptor
        self._created = created
        self._size = os.fstat(descriptor).st_size
        """Bytes up to the end of the last whole row."""
        self._content = hashlib.sha256(os.pread(descriptor, self._size, 0))
        """Of these bytes."""
        self._times = _times(descriptor)
        self._steps = -1
        """The open archive of raw step times; -1 before the first."""

    @classmethod
    def create(cls, path: Path) -> RunFile:
        """Create the file, its header in it.

        Raises:
            FileExistsError: the file is there already.
            OSError: it cannot be made.
        """
        made = cls(path, _created(path), created=True)
        for ending in BESIDE:  # of a run whose CSV file was removed by hand
            path.with_suffix(ending).unlink(missing_ok=True)
        return made

    @classmethod
    def reopened(cls, path: Path) -> RunFile:
        """Open a run's file to go on with it; nothing in it is changed before `keep`."""
        with as_store_error(path, "written"):
            descriptor = open_kept(path, _FLAGS)
        # a file that another process has replaced meanwhile has a lock of its own
        if not _held(descriptor, within_s=PASSING_S) or not is_at(descriptor, path):
            close_locked(descriptor)
            raise StoreError(f"{path}: another process is writing it; wait until it ends")
        return cls(path, descriptor, created=False)

    @property
    def run(self) -> str:
        """The run's number, as the file's name has it."""
        return self.path.stem

    def keep(self, records: Sequence[Record]) -> None:
        """Make these the only rows of the file, in one step or not at all."""
        wanted = csv_bytes([HEADER, *map(to_cells, records)])
        with as_store_error(self.path, "written"):
            if read_regular(self.path).startswith(wanted):
                os.ftruncate(self._descriptor, len(wanted))
            else:
                self._replace(wanted)
        self.rows, self._size = len(records), len(wanted)
        self._content, self._times = hashlib.sha256(wanted), _times(self._descriptor)
        self._drop_damaged_steps({_member(record) for record in records})

    def _replace(self, data: bytes) -> None:
        fresh, descriptor = _fresh(self.path, data)
        try:
            os.replace(fresh, self.path)
        except BaseException:
            close_locked(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        close_locked(self._descriptor)
        self._descriptor = descriptor

    def append(self, record: Record, step_times_s: Sequence[float] = ()) -> None:
        """Write one row through to the disk, and the raw step times beside it.

        Raises:
            StoreError: the disk takes no more, and the file still reads; or another program has
                changed the file.
        """
        line = csv_bytes([to_cells(record)])
        self.hold_own()
        try:
            write_through(self._descriptor, line)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)  # no torn row stays
            raise StoreError(
                f"{self.path}: a row cannot be written: {error.strerror or error}; rows before it: "
                f"{self.rows}; continue with --resume"
            ) from None
        except KeyboardInterrupt:  # while the disk was waited for: the row may be there, whole
            if os.fstat(self._descriptor).st_size == self._size + len(line):
                self._written(line, record, step_times_s)
            raise
        self._written(line, record, step_times_s)

    def hold_own(self) -> None:
        """Put the file back where another program, such as a model's code, has removed it."""
        with as_store_error(self.path, "written"):
            own = self._has_own_rows()
            if own:
                self._put_back()
            own = own and is_at(self._descriptor, self.path)
        if not own:
            raise StoreError(
                f"{self.path}: only this run may change the file, but another program did; "
                f"rows before it: {self.rows}; remove what that program wrote, and continue "
                "with --resume"
            )

    def _has_own_rows(self) -> bool:
        """Whether the open file is as it was written; it is read where it has changed since."""
        if self._times == _times(self._descriptor):
            return True
        size = os.fstat(self._descriptor).st_size
        content = hashlib.sha256(os.pread(self._descriptor, size, 0))
        return content.digest() == self._content.digest()

    def _put_back(self) -> None:
        if os.path.lexists(self.path):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._replace(os.pread(self._descriptor, self._size, 0))
        self._times = _times(self._descriptor)
        kept = counted(self.rows, "row")
        _warn(
            f"{self.path}: was removed during the run; it has been put back with {kept}, their raw "
            "step times and code; what else was beside it (log, epochs, intervals, tries) is lost"
        )
        for what, put_back in (
            (code_path(self.path), self.codes.put_back),
            (steps_path(self.path), lambda: self._steps < 0 or self._open_steps()),
        ):
            try:
                put_back()
            except (OSError, StoreError) as error:  # the rows never depend on it
                reason = getattr(error, "strerror", None) or error
                _warn(f"{what}: cannot be put back for the rows before: {reason}")

    def _written(self, line: bytes, record: Record, step_times_s: Sequence[float]) -> None:
        self.rows += 1
        self._size += len(line)
        self._content.update(line)
        self._times = _times(self._descriptor)
        self.keep_step_times(record, step_times_s)

    def close(self) -> None:
        """Close the file, and remove it when it was made here and no row was ever written to it.

        Where it was removed after its last row it is put back, or a warning says that it cannot be.
        """
        if self._descriptor < 0:
            return
        if self.rows:
            try:
                self._put_back()
            except (OSError, StoreError) as error:
                reason = getattr(error, "strerror", None) or error
                _warn(f"{self.path}: was removed, its rows are lost: {reason}")
        # the size too, for an interrupt may have come between a row's writing and its counting
        empty = self.rows == 0 and os.fstat(self._descriptor).st_size <= self._size
        own = False
        with contextlib.suppress(OSError):
            own = is_at(self._descriptor, self.path)  # another run may have the name by now
        close_locked(self._descriptor)
        self._descriptor = -1
        if self._steps >= 0:
            os.close(self._steps)
        if self._created and empty and own:
            self.path.unlink(missing_ok=True)
            code_path(self.path).unlink(missing_ok=True)

    def keep_step_times(self, record: Record, step_times_s: Sequence[float]) -> None:
        """Write a row's raw step times beside the file; a disk that takes no more is a warning."""
        if not len(step_times_s):
            return
        array = io.BytesIO()
        np.save(array, np.asarray(step_times_s, np.float64), allow_pickle=False)
        try:
            with (
                os.fdopen(os.dup(self._open_steps()), "r+b") as file,
                zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive,
            ):
                archive.writestr(_member(record), array.getvalue())
        except (OSError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or error
            _warn(f"{steps_path(self.path)}: raw step times are not saved: {reason}")

    def _open_steps(self) -> int:
        """Return the archive of raw step times, open; one that was removed is put back."""
        path = steps_path(self.path)
        if self._steps >= 0 and is_at(self._steps, path):
            return self._steps
        fresh = open_kept(path, os.O_RDWR | os.O_CREAT)
        if self._steps >= 0:
            if not os.fstat(fresh).st_size:
                write_through(fresh, os.pread(self._steps, os.fstat(self._steps).st_size, 0))
            os.close(self._steps)
        self._steps = fresh
        return fresh

    def _drop_damaged_steps(self, kept: set[str]) -> None:
        """Remove an archive that a killed writer has left open, or that has what no row has."""
        steps = steps_path(self.path)
        try:
            with (
                open(steps, "rb", opener=open_regular) as file,
                zipfile.ZipFile(file) as archive,
            ):
                sound = kept.issuperset(archive.namelist())
        except FileNotFoundError:
            return
        except (OSError, zipfile.BadZipFile):
            sound = False
        if not sound:
            with contextlib.suppress(OSError):
                steps.unlink()
            _warn(f"{steps}: was damaged when the run ended; raw step times before are lost")


def steps_path(path: Path) -> Path:
    """Return where a run's raw step times are."""
    return path.with_name(f"{path.stem}.steps.npz")


def _created(path: Path) -> int:
    """Create a file that is found with its header or not at all; return its descriptor."""
    header = csv_bytes([HEADER])
    fresh, descriptor = _fresh(path, header)
    try:
        os.link(fresh, path)
    except FileExistsError:
        close_locked(descriptor)
        raise
    except OSError:  # a file system without links
        close_locked(descriptor)
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
        _held(descriptor)
        try:
            write_through(descriptor, header)
        except BaseException:
            close_locked(descriptor)
            path.unlink(missing_ok=True)
            raise
    finally:
        fresh.unlink(missing_ok=True)
    return descriptor


def _fresh(path: Path, data: bytes) -> tuple[Path, int]:
    """Write data to a new file beside `path`; return it and its descriptor, held."""
    fresh, descriptor = new_part(path, 0o644)
    try:
        write_through(descriptor, data)
    except BaseException:
        close_locked(descriptor)
        fresh.unlink(missing_ok=True)
        raise
    return fresh, descriptor


def _held(descriptor: int, within_s: float = 0.0) -> bool:
    """Take hold of an open file; False where another process has it."""
    try:
        return lock(descriptor, within_s=within_s)
    except OSError:  # a file system without locks
        return True


def _times(descriptor: int) -> tuple[int, int]:
    """When an open file, and what is known of it, was changed: a program can set one of them."""
    found = os.fstat(descriptor)
    return found.st_mtime_ns, found.st_ctime_ns


def _member(record: Record) -> str:
    """Name of a row's array in the archive: its place in the plan, which is unique in a run."""
    return f"{record.order:05d}.npy"


def _warn(text: str) -> None:
    warnings.warn(text, StoreWarning, stacklevel=4)
