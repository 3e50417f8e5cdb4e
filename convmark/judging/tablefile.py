"""CSV files that grow beside the runs: rows appended under a lock, so that all writers' are whole.

The rules of a run's file hold: UTF-8, newline-ended, RFC 4180; a row is on the disk when
`append_rows` returns; a last line without its newline is what a killed writer leaves.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from convmark.csvlines import Start, csv_rows
from convmark.errors import StoreError

__all__ = ["append_rows", "read_rows"]


def append_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Append rows to the file, its header before the first; nothing for no rows.

    Raises:
        StoreError: the file cannot be written, or has another header.
    """
    body = _lines(rows)
    if not body:
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, flags, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
            first = _lines([header])
            whole = _without_torn_line(file)
            if whole and file.read(len(first)) != first:
                raise StoreError(_other_header(path, header))
            file.write(body if whole else first + body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None


def _without_torn_line(file: BinaryIO) -> int:
    """Cut off the torn last line that a reader would leave out; return the size, at the start."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            size = _end_of_lines(file, size)
            file.truncate(size)
    file.seek(0)
    return size


_BLOCK = 1 << 16


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """Return where the last whole line ends, looked for from the end."""
    while size > 0:
        begin = max(0, size - _BLOCK)
        file.seek(begin)
        place = file.read(size - begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        size = begin
    return 0


def read_rows(
    path: Path, header: Sequence[str], start: Start = (0, 0), stop: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row; none where there is no file yet.

    Args:
        start: where an earlier reading has ended; the header is then taken as read.
        stop: the offset of a line's end where this one ends; the file's own end by default.

    Raises:
        StoreError: the file cannot be read, or does not fit the header.
    """
    with contextlib.suppress(FileNotFoundError):
        for line, cells in csv_rows(path, start=start, stop=stop):
            if line == 1:
                if cells != list(header):
                    raise StoreError(_other_header(path, header))
                continue
            if len(cells) != len(header):
                raise StoreError(f"{path}:{line}: must have {len(header)} cells, has {len(cells)}")
            yield line, cells


def _other_header(path: Path, header: Sequence[str]) -> str:
    return f"{path}:1: must have the columns {', '.join(header)}; move it away to start anew"


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")
