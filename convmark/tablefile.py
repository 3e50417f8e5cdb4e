"""CSV files that grow beside the runs: rows appended under a lock, so that all writers' are whole.

The rules of a run's file hold: UTF-8, newline-ended, RFC 4180; a row is on the disk when
`append_rows` returns; a last line without its newline is what a killed writer leaves.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

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
            found = file.read()
            whole = found.rfind(b"\n") + 1
            if whole < len(found):  # the torn line that a reader would leave out
                file.truncate(whole)
            first = _lines([header])
            if whole and not found.startswith(first):
                raise StoreError(_other_header(path, header))
            file.write(body if whole else first + body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_rows(path: Path, header: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return line number and cells of each row; none where there is no file yet.

    Raises:
        StoreError: the file cannot be read, or does not fit the header.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = data[: data.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        raise StoreError(f"{path}: must be UTF-8 text") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        if (first := next(reader, None)) is not None and first != list(header):
            raise StoreError(_other_header(path, header))
        for cells in reader:
            if len(cells) != len(header):
                raise StoreError(
                    f"{path}:{reader.line_num}: must have {len(header)} cells, has {len(cells)}"
                )
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise StoreError(f"{path}:{reader.line_num}: must be CSV: {error}") from None
    return rows


def _other_header(path: Path, header: Sequence[str]) -> str:
    return f"{path}:1: must have the columns {', '.join(header)}; move it away to start anew"


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")
