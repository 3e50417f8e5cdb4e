"""Tables and paragraphs that are wider than the terminal: in parts and lines, no word broken."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

GAP = 2
"""Spaces between two columns."""
LEAST_WIDTH = 20
LABEL_MARGIN = 2
"""Characters by which tabulate makes a column wider than its heading."""
MOST_SHARED = 60
"""Characters of a heading and a value that may be said once for all rows."""
_HARD_SPACE = "\u00a0"
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[mu]?s|min|h|[KMG]iB|B)(?!\w))")
"""Between a number and its unit, which stay in one line."""
INTERVAL_FROM = "interval from"
"""The label of an interval's lower end; that of the upper one beside it is `to`."""
LEAST_FIGURES = 3
"""Rows from which on an equal figure in all of them is no chance."""
MOST_NAMES_SHARE = 0.6
"""Of the width, which the columns that name a row may take in each part."""
LEAST_BESIDE_NAMES = 16
"""Characters that are left of the width where a column more tells all rows apart."""


@dataclass(frozen=True)
class Grid:
    """The texts of a table, by row and column."""

    labels: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    figures: Sequence[bool]
    """Of each column whether it says nothing of what a row is of, as most numbers do."""

    def only(self, places: Sequence[int]) -> Grid:
        """Return the columns at these places."""
        return Grid(
            [self.labels[place] for place in places],
            [self.numeric[place] for place in places],
            [[row[place] for place in places] for row in self.rows],
            [self.figures[place] for place in places],
        )

    def width(self, places: Sequence[int]) -> int:
        """Return the characters of a line of these columns."""
        labels = [len(self.labels[place]) + LABEL_MARGIN for place in places]
        cells = [max(len(row[place]) for row in self.rows) for place in places]
        return sum(map(max, labels, cells)) + GAP * (len(places) - 1)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the characters of a line: COLUMNS, or of the terminal that a stream leads to.

    So a text is the same in a pipe or a file as on the screen beside it. None is no limit: where
    there is no terminal, or its width is given as 0.

    Args:
        stream: is asked first; standard output by default.
    """
    asked = os.environ.get("COLUMNS", "")
    if re.fullmatch("[0-9]{1,6}", asked):
        return _usable(int(asked))
    streams = (stream or sys.__stdout__, sys.__stderr__, sys.__stdin__)
    return next(filter(None, map(_width_of, streams)), None)


def _width_of(stream: TextIO | None) -> int | None:
    try:
        size = os.get_terminal_size(stream.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return None
    return _usable(size.columns)


def _usable(columns: int) -> int | None:
    return max(LEAST_WIDTH, columns) if columns else None


def wrapped(
    text: str, *, before: str = "", indent: str | None = None, width: int | None = 0
) -> str:
    """Return a paragraph in lines of the terminal's width, as it is where there is none.

    A line that fits stays as it is, so that what is wrapped already is not changed.

    Args:
        before: what stands before the first line.
        indent: what stands before the lines that follow: two spaces below a `before`, else nothing.
        width: characters of a line; None is no limit, 0 is the terminal's.
    """
    width = terminal_width() if width == 0 else width
    if width is None:
        return text.replace(_HARD_SPACE, " ")
    indent = ("  " if before else "") if indent is None else indent
    lines = text.split("\n")
    befores = [before, *[""] * (len(lines) - 1)]
    return "\n".join(
        line.replace(_HARD_SPACE, " ")
        if len(start + line) <= width
        else _wrapped(line, width, indent, start).removeprefix(start)
        for start, line in zip(befores, lines, strict=True)
    )


def unbroken(text: str) -> str:
    """Return a text that `wrapped` leaves in one line, as what a user pastes must be."""
    return text.replace(" ", _HARD_SPACE)


def tell(text: str, *, before: str = "", stream: TextIO | None = None) -> None:
    """Print prose in lines of the terminal's width, those after the first indented.

    Args:
        before: what stands before it, such as `convmark run: `.
        stream: standard output by default.
    """
    lines = wrapped(text, before=before, indent="  ", width=terminal_width(stream))
    print(f"{before}{lines}", file=stream)


def fitted(grid: Grid, width: int, drawn: Callable[[Grid], str]) -> str:
    """Return a table whose lines have at most so many characters, where its words allow it.

    What all rows share is said once above. The other columns follow in parts that begin with the
    columns that name the row. Texts that fit beside no name stand below, row by row. A single row
    becomes a list, and so do rows whose names leave no room for a column; where names that tell
    the rows apart do not, each row is a block.

    Args:
        drawn: draws a part.
    """
    places: Sequence[int] = range(len(grid.labels))
    if not grid.rows or grid.width(places) <= width:
        return drawn(grid)
    if len(grid.rows) == 1:
        return _listed(grid, width)
    shared = _shared(grid)
    places = [place for place in places if place not in shared]
    names = _names(grid, places, width)
    telling = [] if _tells(grid, names) else _telling(grid, places)
    if telling:
        of_rows = _blocks(grid, telling, [one for one in places if one not in telling], width)
        return "\n\n".join(filter(None, [_sentence(grid, shared, width), of_rows]))
    others = [place for place in places if place not in names]
    texts = [place for place in others if grid.width([*names, place]) > width]
    parts = _parts(grid, names, [place for place in others if place not in texts], width)
    only_below = parts == [names] and all(any(row[text] for text in texts) for row in grid.rows)
    blocks = [
        _sentence(grid, shared, width),
        "" if only_below else drawn(grid.only(parts[0])),
        *(drawn(_without_empty_rows(grid.only(part), len(names))) for part in parts[1:]),
        _below(grid, names, texts, width),
    ]
    return "\n\n".join(block for block in blocks if block)


def _listed(grid: Grid, width: int) -> str:
    """Return the only row as a list of its columns."""
    longest = max(map(len, grid.labels))
    pairs = zip(grid.labels, grid.rows[0], strict=True)
    lines = [f"{label:<{longest}}  {text}" for label, text in pairs if text]
    return "\n".join(_wrapped(line, width, " " * (longest + GAP)) for line in lines)


def _shared(grid: Grid) -> list[int]:
    """Return the columns that have one short text in all rows; one column at least is left."""
    first = grid.rows[0]
    found = [
        place
        for place, label in enumerate(grid.labels)
        if first[place]
        and len(grid.rows) >= (LEAST_FIGURES if grid.numeric[place] else 2)
        and all(row[place] == first[place] for row in grid.rows)
        and len(label) + len(first[place]) < MOST_SHARED
    ]
    return found if len(found) < len(grid.labels) else found[1:]


def _names(grid: Grid, places: Sequence[int], width: int) -> list[int]:
    """Return the first columns of text, as many as tell the rows apart and leave room."""
    names = [places[0]]
    for place in places[1:]:
        more = [*names, place]
        most = width - LEAST_BESIDE_NAMES if _tells(grid, more) else MOST_NAMES_SHARE * width
        if _tells(grid, names) or grid.figures[place] or grid.width(more) > most:
            break
        names = more
    return names


def _telling(grid: Grid, places: Sequence[int]) -> list[int]:
    """Return the first columns that tell the rows apart; none where figures alone do."""
    naming = [place for place in places if not grid.figures[place]]
    counts = range(1, len(naming) + 1)
    return next((naming[:one] for one in counts if _tells(grid, naming[:one])), [])


def _blocks(grid: Grid, names: Sequence[int], others: Sequence[int], width: int) -> str:
    """Return each row as its names, and its other cells in lines below them."""
    lines = []
    for row in grid.rows:
        head = (f"{grid.labels[name]} {row[name]}" if grid.numeric[name] else row[name]
                for name in names if row[name])  # fmt: skip
        lines.append(_wrapped("  ".join(head), width, "    "))
        cells = [(grid.labels[place], row[place]) for place in others if row[place]]
        short = [cell for cell in cells if len("".join(cell)) < MOST_SHARED]
        if short:
            lines.append(_together(short, width, "  "))
        lines += [
            _wrapped(f"  {label}: {text}", width, "    ")
            for label, text in cells
            if len(label + text) >= MOST_SHARED
        ]
    return "\n".join(lines)


def _tells(grid: Grid, names: Sequence[int]) -> bool:
    """Whether no two rows have the same texts in these columns."""
    return len({tuple(row[name] for name in names) for row in grid.rows}) == len(grid.rows)


def _parts(grid: Grid, names: Sequence[int], others: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each part, in their order; of names alone where there is no other."""
    parts = [[*names]]
    for place in others:
        if grid.width([*parts[-1], place]) > width:
            parts.append([*names])
        parts[-1].append(place)
    return parts


def _without_empty_rows(part: Grid, names: int) -> Grid:
    """Return the rows that say something beside their names."""
    rows = [row for row in part.rows if any(row[names:])]
    return Grid(part.labels, part.numeric, rows, part.figures)


def _sentence(grid: Grid, shared: Sequence[int], width: int) -> str:
    said = [(grid.labels[place], grid.rows[0][place]) for place in shared]
    return _together(said, width, "  ", "in every row: ") if said else ""


def _together(cells: Sequence[tuple[str, str]], width: int, indent: str, before: str = "") -> str:
    """Return short cells with their labels in lines, none of them broken that has room in a line.

    The two ends of an interval are one.
    """
    room = width - len(indent) - 1
    said: list[str] = []
    for label, text in cells:
        is_end = label == "to" and said and said[-1].startswith(INTERVAL_FROM)
        said.append(f"{said.pop()} to {text}" if is_end else f"{label} {text}")
    whole = (one.replace(" ", _HARD_SPACE) if len(one) <= room else one for one in said)
    return _wrapped(", ".join(whole), width, indent, before or indent)


def _below(grid: Grid, names: Sequence[int], texts: Sequence[int], width: int) -> str:
    lines = []
    for row in grid.rows:
        said = [f"  {grid.labels[place]}: {row[place]}" for place in texts if row[place]]
        if said:
            lines.append(_wrapped("  ".join(row[name] for name in names), width, "    "))
            lines += [_wrapped(one, width, "    ") for one in said]
    return "\n".join(lines)


def _wrapped(text: str, width: int, indent: str, before: str = "") -> str:
    """Return the text in lines, none of which is a command in the log of a CI (`text.shown`).

    No word is broken, and no number from its unit.
    """
    filled = textwrap.fill(
        _BEFORE_UNIT.sub(_HARD_SPACE, text),
        width,
        initial_indent=before,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return re.sub(r"(?m)^(\s*)::", r"\1: :", filled).replace(_HARD_SPACE, " ")
