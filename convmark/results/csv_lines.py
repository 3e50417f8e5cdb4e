"""Reads the lines of an untrusted CSV file: one row per line, of limited length.

A row of ours is one line, for no text of ours holds a line break. So a quote that is not closed can
swallow no other row, and what is read is as many rows as the file has whole lines.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from convmark.core.errors import StoreError
from convmark.core.files import open_regular

__all__ = ["MOST_LINE_BYTES", "csv_bytes", "csv_rows"]

MOST_LINE_BYTES = 1 << 22
"""A row of ours has about 2,000 bytes; 4 MiB are more than any has."""


def csv_bytes(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows as the lines of a file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")


def csv_rows(
    path: Path, *, torn: Callable[[int], None] = lambda line: None
) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is whole; a byte-order mark is passed over.

    Args:
        torn: is told the number of a last line without its newline, which is left out: it is what
            a killed writer leaves.

    Raises:
        StoreError: the file cannot be read, or a line is no row; the message names file and line.
    """
    try:
        with open(path, "rb", opener=open_regular) as file:
            yield from _rows(path, _lines(path, file, torn))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None


def _rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True)
    line = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise StoreError(f"{path}:{line + 1}: must be CSV: {error}") from None
        if cells is None:
            return
        line += 1
        if reader.line_num != line:
            raise StoreError(f"{path}:{line}: must be CSV: a cell has a line break")
        yield line, cells


def _lines(path: Path, file: BinaryIO, torn: Callable[[int], None]) -> Iterator[str]:
    """Yield the lines as text; the last one is left out where its newline is missing."""
    number = 0
    while data := file.readline(MOST_LINE_BYTES):
        number += 1
        if not data.endswith(b"\n"):
            _check_torn(path, number, data)
            torn(number)
            return
        if number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if b"\0" in data:
            raise StoreError(f"{path}:{number}: must be text, it has a NUL")
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError:
            raise StoreError(f"{path}:{number}: must be UTF-8 text") from None


def _check_torn(path: Path, number: int, data: bytes) -> None:
    """Refuse what only looks like a torn line.

    Raises:
        StoreError: the line is endless, or the file's lines end as on an old Macintosh.
    """
    if len(data) == MOST_LINE_BYTES:
        raise StoreError(
            f"{path}:{number}: a line must be at most {MOST_LINE_BYTES >> 20} MiB, it is longer"
        )
    if number == 1 and b"\r" in data:
        raise StoreError(f"{path}:1: lines must end with a line feed, they end with CR only")
