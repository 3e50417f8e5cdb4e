"""Cells: how a value is written to a CSV file, and which cells are valid.

A text is one printable line: what would move a terminal, start a formula or break a row is taken
out as it is written, and refused where a file holds it all the same.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from convmark.core.text import is_plain, plain_text

FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A spreadsheet takes a text that starts so for a formula; the last four are the full-width forms.

Source:
    OWASP, "CSV injection", owasp.org/www-community/attacks/CSV_Injection.
"""

MOST_TEXT = 10_000
"""Characters of a text; Python's reader refuses a cell of more than 131,072."""

MOST_DIGITS = 30
"""Of a whole number."""

_MOST_LOGARITHM = 15
"""A step a million times as long as the reference's, or as short."""

_LEAST_FIGURE, _MOST_FIGURE = 1e-30, 1e30
"""Ratios of them, their squares and their powers are still numbers."""

_NO_FIGURES = ("run", "case", "environment", "check")
"""Groups whose numbers are in no ratio; a loss may be of any size."""

_TYPES: dict[str, type] = {
    **{"int": int, "float": float, "str": str, "bool": bool},
    "tuple[str, ...]": str,  # its texts parted by spaces
}
_KINDS = {
    "s": "seconds",
    "bytes": "bytes",
    "samples/s": "rate",
    "FLOPs": "flops",
    "FLOP/s": "flops_rate",
    "bytes/s": "bytes",
}
"""How a table formats numbers of a unit: keys of `convmark.core.table.KINDS`."""

_WHOLE = re.compile(rf"-?(?:0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}})")
_DECIMAL = re.compile(r"[+-]?[0-9.][0-9.eE+-]{0,400}|[+-]?(?:nan|inf)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the schema, as docs/columns.md and the reader know it."""

    name: str
    type: type
    required: bool
    group: str
    unit: str
    meaning: str
    since: int = 2
    """The schema that brought it in."""
    bounds: Literal["", "above 0", "at least 0", "share", "logarithm", "error of a logarithm"] = ""
    """What its numbers must be; figures are divided, squared and taken to a power."""
    title: str | None = None
    """Of a report's table: empty for its name in words, None where no report shows it."""
    table: str = ""
    """The report's table that shows it, by its key."""
    kind: str = "text"
    """How a table formats it: a key of `convmark.core.table.KINDS`."""

    def range_broken(self, value: float) -> str:
        """Return the rule of its range that a number breaks; empty where it breaks none.

        What is not finite is written as absent.
        """
        if not math.isfinite(value):
            return ""
        if self.bounds == "above 0" and value <= 0:
            return "must be above 0"
        if self.bounds == "above 0" and value < _LEAST_FIGURE:
            return f"must be at least {_LEAST_FIGURE:g}"
        if self.bounds in ("at least 0", "share", "error of a logarithm") and value < 0:
            return "must be at least 0"
        if self.bounds == "share" and value > 1:
            return "must be at most 1"
        if self.bounds.endswith("logarithm") and abs(value) > _MOST_LOGARITHM:
            return f"must be a logarithm of at most {_MOST_LOGARITHM}"
        if self.type is int and abs(value) >= 10**MOST_DIGITS:
            return f"must have at most {MOST_DIGITS} digits"
        if self.group not in _NO_FIGURES and abs(value) > _MOST_FIGURE:
            return f"must be at most {_MOST_FIGURE:g}"
        return ""


def column(meaning: str, unit: str = "", **more: Any) -> Any:
    """Declare a field of a row's dataclass as a column.

    Args:
        unit: of its numbers; empty for what has none.
        more: other fields of `Column`; a `default` is the field's own.
    """
    own = {"default": more.pop("default")} if "default" in more else {}
    return dataclasses.field(metadata={"unit": unit, "meaning": meaning, **more}, **own)


def columns_of(row_type: Any) -> tuple[Column, ...]:
    """Return the columns of a dataclass, whose fields may tell group, unit and meaning.

    A cell may be empty where the field is optional, or is an empty text or list by default.
    """
    columns = []
    for field in dataclasses.fields(row_type):
        kind, _, optional = str(field.type).partition(" | ")
        required = not optional and field.default not in ("", ())
        told = {"group": "", "unit": "", "meaning": "", **field.metadata}
        if told.get("title") == "":
            told["title"] = re.sub(r"_(?:s|bytes)$", "", field.name).replace("_", " ")
        told.setdefault("kind", _kind(kind, told["unit"]))
        columns.append(Column(name=field.name, type=_TYPES[kind], required=required, **told))
    return tuple(columns)


def _kind(kind: str, unit: str) -> str:
    """Return how a table formats values of a type and unit, unless the column says otherwise."""
    if _TYPES[kind] not in (int, float):
        return "texts" if kind.startswith("tuple") else "text"
    return _KINDS.get(unit) or ("count" if _TYPES[kind] is int else "number")


def fit_text(text: str) -> str:
    """Return a text as a cell may hold it: one printable line, cut where it is endless."""
    line = text if text.isprintable() else plain_text(text.encode(errors="replace").decode())
    return line if len(line) <= MOST_TEXT else line[: MOST_TEXT - 3] + "..."


def to_cell(value: Any) -> str:
    """Return a value as its cell; absent, and what is not finite, as an empty one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if not math.isfinite(value) else float.__repr__(value)
    if isinstance(value, int):
        return str(value)
    text = fit_text(" ".join(value) if isinstance(value, tuple) else str(value))
    return f"'{text}" if _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Whether the text starts as a formula does, or as one that has its apostrophe already."""
    return text.lstrip("'").startswith(FORMULA_STARTS)


def from_cell(column: Column, cell: str) -> Any:
    """Return the value of a cell.

    Raises:
        ValueError: the cell breaks its column's rule.
    """
    if cell == "":
        if column.required:
            raise ValueError("must not be empty")
        return None
    if column.type is bool:
        if cell not in ("true", "false"):
            raise ValueError("must be true or false")
        return cell == "true"
    if column.type is not str:
        return number(column.type, cell)
    if not is_plain(cell):
        raise ValueError("must be one line without control characters")
    if len(cell) > MOST_TEXT + 1:  # an apostrophe before it
        raise ValueError(f"must be at most {MOST_TEXT:,} characters")
    return cell[1:] if cell[0] == "'" and _is_formula(cell) else cell


def number(kind: type, cell: str) -> Any:
    """Return a cell's number: plain digits, as they are written here.

    Raises:
        ValueError: it is none, or not finite.
    """
    try:
        plain = (_WHOLE if kind is int else _DECIMAL).fullmatch(cell)
        value = kind(cell if plain else "")
    except ValueError:
        raise ValueError(f"must be of type {kind.__name__}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError("must be finite")
    return value
