"""What verdicts.csv says of the step times, kept by case: the file itself grows for ever.

    <cache>/index/<machine>-<hash>.verdicts    one file per folder of runs

The file is only appended to, so what was read of it holds while the bytes that were read are the
same; they are compared by checksum. Only what stands behind them is read.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from convmark.csvlines import MOST_LINE_BYTES
from convmark.errors import StoreError
from convmark.judging.judgement import VERDICTS
from convmark.judging.keeping import keep, kept
from convmark.judging.tablefile import read_rows
from convmark.judging.verdicts_file import FILE, HEADER
from convmark.record import to_cell

__all__ = ["verdict_words"]

KIND = "verdicts"
LONG_BYTES = 1 << 26
"""From so many unread bytes on the user is told that it takes long."""
_BLOCK = 1 << 22

ROWS = np.dtype([("case", "<i4"), ("run", "<i4"), ("words", "<i4")])
"""Places among the texts."""

_RUN, _CASE, _METRIC, _VERDICT, _UNCONFIRMED = (
    HEADER.index(name) for name in ("run", "case", "metric", "verdict", "unconfirmed")
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Read:
    """How far the file was read."""

    size: int = 0
    lines: int = 0
    checksum: int = 0


def verdict_words(folder: Path, case: str, say: Say = lambda line: None) -> dict[str, str]:
    """Return by run what was said last of the case's step time, in words.

    Args:
        folder: of the machine, beside whose runs the verdicts are.
        say: is told where reading takes long.

    Raises:
        StoreError: the file cannot be read, or does not fit; the message names file and line.
    """
    path = folder / FILE
    read, texts, rows = _kept(folder)
    try:
        with path.open("rb") as file:
            end, checksum = _whole_lines(file, read)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    if end < 0:  # not the file that was read
        read, texts, rows = _Read(), [], np.empty(0, ROWS)
        with path.open("rb") as file:
            end, checksum = _whole_lines(file, read)
    if end > read.size:
        if end - read.size > LONG_BYTES:
            say(f"reading {path}; what it says is kept for the next time")
        texts, rows, lines = _read(path, read, end, texts, rows)
        parts = {"texts": texts, **asdict(_Read(end, lines, checksum))}
        keep(folder, KIND, {KIND: json.dumps(parts).encode(), "rows": rows.tobytes()})
    cell = to_cell(case)
    if cell not in texts:
        return {}
    found = rows[rows["case"] == texts.index(cell)]
    return {texts[run]: texts[words] for _, run, words in found.tolist()}


def _kept(folder: Path) -> tuple[_Read, list[str], npt.NDArray[Any]]:
    found = kept(folder, KIND)
    if KIND not in found:
        return _Read(), [], np.empty(0, ROWS)
    said = json.loads(found[KIND])
    texts = said.pop("texts")
    return _Read(**said), texts, np.frombuffer(found["rows"], ROWS)


def _whole_lines(file: BinaryIO, read: _Read) -> tuple[int, int]:
    """Return where the file's whole lines end, and the checksum so far; -1 for another file.

    Args:
        read: how far it was read, and the checksum of that.
    """
    size = os.fstat(file.fileno()).st_size
    if size < read.size:
        return -1, 0
    checksum = place = 0
    end, checksum_at_end = read.size, read.checksum
    while block := file.read(min(_BLOCK, (read.size if place < read.size else size) - place)):
        line_end = block.rfind(b"\n") + 1
        if place >= read.size and line_end:
            end = place + line_end
            checksum_at_end = zlib.crc32(block[:line_end], checksum)
        checksum = zlib.crc32(block, checksum)
        place += len(block)
        if place - end > MOST_LINE_BYTES:  # a line without end, which reading refuses
            return size, 0
        if place == read.size and checksum != read.checksum:
            return -1, 0
    return end, checksum_at_end


def _read(
    path: Path, read: _Read, end: int, texts: list[str], rows: npt.NDArray[Any]
) -> tuple[list[str], npt.NDArray[Any], int]:
    """Return texts, rows and the count of lines with what stands behind the part that was read."""
    places = {text: place for place, text in enumerate(texts)}
    found: list[tuple[int, int, int]] = []
    lines = max(read.lines, 1)
    for line, cells in read_rows(path, HEADER, (read.size, read.lines), end):
        lines = line
        if cells[_METRIC] != "step_time":
            continue
        verdict, unconfirmed = cells[_VERDICT], cells[_UNCONFIRMED]
        if verdict not in VERDICTS or unconfirmed not in ("true", "false"):
            raise StoreError(
                f"{path}:{line}: verdict must be one of {', '.join(VERDICTS)} and unconfirmed true "
                f"or false, got {verdict[:40]!r} and {unconfirmed[:40]!r}"
            )
        words = verdict + " (unconfirmed)" * (unconfirmed == "true")
        case, run, said = (
            places.setdefault(text, len(places)) for text in (cells[_CASE], cells[_RUN], words)
        )
        found.append((case, run, said))
    return list(places), np.concatenate([rows, np.array(found, ROWS)]), lines
