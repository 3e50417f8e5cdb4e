"""CSV files: their lines, which nobody vouches for, and small tables whose rows are a dataclass.

A row of ours is one line, for no text of ours holds a line break. So a quote that is not closed can
swallow no other row, and what is read is as many rows as the file has whole lines.

The rules of a run's file hold for tables: UTF-8, newline-ended, RFC 4180; a row is on the disk when
`append` or `replace` returns; a last line without its newline is what a killed writer leaves. Rows
are appended under a lock, so that all writers' are whole.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import functools
import io
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from convmark.core.cells import columns_of, from_cell, to_cell
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.files import (
    as_store_error,
    close_locked,
    is_at,
    lock,
    open_kept,
    open_regular,
    write_through,
    write_whole,
)

MOST_LINE_BYTES = 1 << 22
"""A row of ours has about 2,000 bytes; 4 MiB are more than any has."""


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def csv_bytes(rows: Iterable[Sequence[str]]) -> bytes:
    return csv_lines(rows).encode(errors="replace")


def csv_rows(
    path: Path, *, torn: Callable[[int], None] = lambda line: None
) -> Generator[tuple[int, list[str]], None, None]:
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
    """Refuse what only looks like a torn line."""
    if len(data) == MOST_LINE_BYTES:
        raise StoreError(
            f"{path}:{number}: a line must be at most {MOST_LINE_BYTES >> 20} MiB, it is longer"
        )
    if number == 1 and b"\r" in data:
        raise StoreError(f"{path}:1: lines must end with a line feed, they end with CR only")


Row = TypeVar("Row")
Cells = Mapping[str, str]


class TableFile(Generic[Row]):
    """How rows of one kind stand in a file, a column for each field of the row's dataclass."""

    def __init__(
        self,
        row: type[Row],
        *earlier: Sequence[str],
        lifted: Callable[[Cells], Cells] = lambda cells: cells,
        replaced: bool = False,
    ) -> None:
        """Describe it.

        Args:
            earlier: the columns that such files once had; a file that has them keeps them.
            lifted: makes cells by today's columns of those by earlier ones; an absent cell is
                an empty one, and others are left out.
            replaced: whether all rows are written at once; then a torn line is no writer's.
        """
        self._row = row
        self._replaced = replaced
        self.columns = columns_of(row)
        self._fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(row)  # type: ignore[arg-type]
        self.header = [column.name for column in self.columns]
        self._layouts = [self.header, *map(list, earlier)]
        self._lifted = lifted

    def read(self, path: Path) -> list[Row]:
        """Return the rows of a file; none where there is no file."""
        return [self._row_of(path, line, cells) for line, cells in self.read_cells(path)]

    def read_cells(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of each row, by today's columns; no cell is looked at."""
        header: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            for line, cells in csv_rows(path, torn=functools.partial(self._note_torn, path)):
                if line == 1:
                    header = self._known(path, cells)
                    continue
                if len(cells) != len(header):
                    raise StoreError(
                        f"{path}:{line}: must have {len(header)} cells, has {len(cells)}"
                    )
                if header != self.header:
                    found = self._lifted(dict(zip(header, cells, strict=True)))
                    cells = [found.get(name, "") for name in self.header]
                yield line, cells

    def _note_torn(self, path: Path, line: int) -> None:
        if self._replaced:
            raise StoreError(
                f"{path}:{line}: must be a whole line, but the file is cut off here; take it from "
                "where it was copied, or remove it"
            )

    def append(self, path: Path, rows: Iterable[Row]) -> None:
        """Append rows to a file, all or none, its header before the first; nothing for no rows.

        Raises:
            StoreError: the file cannot be written, or has other columns; it has the rows it had.
        """
        wanted = list(rows)
        if not wanted:
            return
        with as_store_error(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _held(path) as descriptor:
                with os.fdopen(descriptor, "r+b", closefd=False) as file:
                    there = self._without_torn_line(path, file)
                columns = there or self.header
                body = csv_bytes(self._cells_of(path, row, columns) for row in wanted)
                _write_whole_rows(descriptor, body if there else csv_bytes([self.header]) + body)

    def replace(self, path: Path, rows: Iterable[Row]) -> None:
        """Make these the rows of the file, in one step or not at all."""
        cells = (self._cells_of(path, row, self.header) for row in rows)
        with as_store_error(path, "written"):
            write_whole(path, csv_bytes([self.header, *cells]))

    def lift(self, path: Path) -> None:
        """Rewrite a file of earlier columns with today's; other files stay as they are."""
        if self._has_earlier_columns(path):
            with as_store_error(path, "written"), _held(path):  # no other process appends meanwhile
                if self._has_earlier_columns(path):
                    self.replace(path, self.read(path))

    def _has_earlier_columns(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            _, header = next(csv_rows(path), (0, self.header))
            return header != self.header
        return False

    def _without_torn_line(self, path: Path, file: BinaryIO) -> list[str]:
        """Cut off the torn last line that a reader would leave out; return the columns, if any."""
        end = _end_of_lines(file)
        file.seek(0)
        first = file.readline(MOST_LINE_BYTES)
        begun = not end and any(csv_bytes([one]).startswith(first) for one in self._layouts)
        there = [] if begun else self._known(path, _cells(first))
        file.truncate(end)
        return there

    def _known(self, path: Path, header: list[str]) -> list[str]:
        if header in self._layouts:
            return header
        columns = ", ".join(self.header)
        raise StoreError(
            f"{path}:1: must have the columns {columns}; move it away to start a new file"
        )

    def _cells_of(self, path: Path, row: Row, header: Sequence[str]) -> list[str]:
        found = {name: to_cell(getattr(row, name)) for name in self.header}
        for name in found.keys() - set(header):
            if found[name]:
                raise StoreError(
                    f"{path}: has no column {name!r}, as it is from an earlier version; move it "
                    "away to start a new file"
                )
        return [found.get(name, "") for name in header]

    def _row_of(self, path: Path, line: int, cells: Sequence[str]) -> Row:
        values: dict[str, Any] = {}
        for column, field, cell in zip(self.columns, self._fields, cells, strict=True):
            try:
                value = from_cell(column, cell)
                if isinstance(value, (int, float)) and (rule := column.range_broken(value)):
                    raise ValueError(f"{rule}, got {value}")
            except ValueError as error:
                raise StoreError(f"{path}:{line}: column {column.name!r} {error}") from None
            if value is None and field.default is not dataclasses.MISSING:
                value = field.default
            is_list = isinstance(field.default, tuple) and isinstance(value, str)
            values[column.name] = tuple(value.split()) if is_list else value
        try:
            return self._row(**values)
        except (ConvmarkError, ValueError) as error:
            raise StoreError(f"{path}:{line}: {error}") from None


class TableBeside(TableFile[Row]):
    """The rows of one kind that a run has beside its file, such as `0007.epochs.csv`."""

    def __init__(
        self, ending: str, row: type[Row], *earlier: Sequence[str], replaced: bool = False
    ) -> None:
        """Describe it; `ending` is what the file's name has in place of the run's `.csv`."""
        super().__init__(row, *earlier, replaced=replaced)
        self._ending = ending

    def path(self, run: Path) -> Path:
        """Return where the rows of a run's file are."""
        return run.with_suffix(self._ending)

    def of(self, run: Path) -> list[Row]:
        """Return the rows of a run; as `read`."""
        return self.read(self.path(run))

    def keep(self, run: Path, rows: Iterable[Row]) -> None:
        """Append rows of a run; as `append`."""
        self.append(self.path(run), rows)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """Yield the descriptor of a file to append to, locked; the file is made where there is none.

    A file that is empty in the end is removed.
    """
    while True:
        descriptor = open_kept(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        lock(descriptor, within_s=math.inf)  # let go when the file is closed
        if is_at(descriptor, path):
            break
        close_locked(descriptor)  # another process has removed or replaced it meanwhile
    try:
        yield descriptor
    finally:
        if not os.fstat(descriptor).st_size:
            path.unlink(missing_ok=True)
        close_locked(descriptor)


def _write_whole_rows(descriptor: int, data: bytes) -> None:
    """Write rows at the end of an open file; where the disk takes no more, none of them stays."""
    size = os.fstat(descriptor).st_size
    try:
        write_through(descriptor, data)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode(errors="replace").rstrip("\r\n")]), [])


_BLOCK = 1 << 16


def _end_of_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends, looked for from the end."""
    size = file.seek(0, os.SEEK_END)
    while size > 0:
        begin = max(0, size - _BLOCK)
        file.seek(begin)
        place = file.read(size - begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        size = begin
    return 0
