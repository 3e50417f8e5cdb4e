"""What may become of a CSV file: seeded mutations of its bytes, lines, columns and cells."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Sequence

__all__ = ["mutated"]

TOKENS = (
    *(b'"', b'""', b",", b",,", b"\n", b"\r\n", b"\r", b"\0", b"\t", b" ", b"'", b";"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", codecs.BOM_UTF8, b"\xe2\x80\xa8", b"\xe2\x80\xae"),
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"1e999",
        b"-1",
        b"0",
        b"0.0",
        b"1e-320",
        b"1e300",
        b"true",
        b"None",
    ),
    *(b"1_0", b"+5", b" 7", b"0x10", b"9" * 40, b"9" * 5000, "\u0663".encode()),
    *(b"=cmd()", b"'=1+1", b"-1+1", b"@x", b"\x1b[31m", b"<script>", b"../..", b"x" * 12_000),
    *(b"train", b"gpu:0", b"tf32", b"ok", b"error", b"2", b"9"),
)


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(max(1, len(data)))
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.choice(TOKENS) + data[place:]


def _two_quotes(data: bytes, rng: random.Random) -> bytes:
    """Put quotes at the ends of two cells, so that what is between them reads as one cell."""
    for _ in range(2):
        places = [place for place, byte in enumerate(data) if byte in b",\n"]
        if not places:
            return data
        place = rng.choice(places) + rng.randrange(2)
        data = data[:place] + b'"' + data[place:]
    return data


def _delete(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.choice((1, 1, 2, 5, 30, 500)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    piece = data[place : place + rng.choice((1, 3, 20, 300))]
    return data[:place] + piece + data[place:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _newlines(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\n\r", b"", b"\x0b")))


def _mark(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"\n", b" ", b"#")) + data


def _recode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="replace")
    return text.encode(rng.choice(("utf-16", "utf-8-sig", "latin-1")), errors="replace")


def _lines(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, swap or empty a line."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(other, lines[place])
    elif kind == 2:
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines.insert(place, b"\n")
    return b"".join(lines)


def _columns(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, swap or rename a column in every line, as parted by its commas."""
    rows = [line.split(b",") for line in data.splitlines()]
    if not rows:
        return data
    place, other = (rng.randrange(len(rows[0])) for _ in range(2))
    kind, name = rng.randrange(4), rng.choice(TOKENS)
    for number, row in enumerate(rows):
        if max(place, other) >= len(row):
            continue
        if kind == 0:
            del row[place]
        elif kind == 1:
            row.insert(other, row[place])
        elif kind == 2:
            row[place], row[other] = row[other], row[place]
        elif number == 0:
            row[place] = name
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def _cell(data: bytes, rng: random.Random) -> bytes:
    """Put a token in the place of a cell."""
    lines = data.splitlines()
    if not lines:
        return data
    number = rng.randrange(len(lines))
    row = lines[number].split(b",")
    row[rng.randrange(len(row))] = rng.choice(TOKENS)
    lines[number] = b",".join(row)
    return b"\n".join(lines) + b"\n"


KINDS: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_flip, _insert, _two_quotes, _delete, _repeat, _truncate),
    *(_newlines, _mark, _recode, _lines, _columns, _cell, _cell, _cell),
)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Return the file after one to three mutations."""
    data = whole
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(KINDS)(data, rng)
    return data
