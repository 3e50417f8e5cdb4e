"""The tables of a report, each made from rows only; and their formats, which every command shares.

The JSON is described by docs/reference/tables.schema.json. A command that prints one table has one
line of CSV for each row; one that may print several has one line for each cell, as a report.
"""

from __future__ import annotations

import csv
import html
import importlib
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmark.core.cells import columns_of, to_cell
from convmark.core.errors import OptionError
from convmark.core.fitting import wrapped
from convmark.core.option_values import choice_of
from convmark.core.table import FACETS, Heading, Table, grid, plain, table_of
from convmark.core.text import counted, markdown_cell, painted, shown
from convmark.results.table_file import csv_lines

if TYPE_CHECKING:
    import pandas as pd

CSV_HEADER = ("table", "row", "column", "unit", "value")

WHOLE = "`convmark report -o report.html`"
"""What shows every row."""


def terminal_text(tables: Sequence[Table]) -> str:
    """Return the tables one below the other, each under its title, its caption below it."""
    return "\n\n".join(
        f"{title}\n{'=' * max(map(len, title.splitlines()), default=0)}\n\n"
        + "".join(f"{wrapped(shown(line))}\n\n" for line in table.lead)
        + _grid(table, "simple")
        + (f"\n\n{wrapped(shown(table.caption))}" if table.rows else "")
        for table, title in ((one, wrapped(shown(one.title))) for one in tables)
    )


def markdown_text(
    tables: Sequence[Table], *, folded: Sequence[Table] = (), most_bytes: int | None = None
) -> str:
    """Return the tables as Markdown, `folded` ones below in a `<details>` each.

    Args:
        most_bytes: of the whole text; a folded table that would exceed it says so in its place.
    """
    parts = [f"## {_prose(table.title)}\n\n{_body(table)}" for table in tables]
    left = None if most_bytes is None else most_bytes - sum(map(_bytes_of, parts))
    for table in folded:
        part = _folded(table, _body(table))
        if left is not None and _bytes_of(part) > left:
            part = _folded(table, f"Too long for here. {WHOLE} has it.")
        if left is not None:
            left -= _bytes_of(part)
        parts.append(part)
    return "\n\n".join(parts)


def _body(table: Table) -> str:
    lead = "".join(f"{markdown_cell(line)}\n\n" for line in table.lead)
    return f"{lead}{_grid(table, 'pipe')}\n\n{_prose(table.caption)}"


def _folded(table: Table, text: str) -> str:
    rows = counted(len(table.rows), "row") if table.rows else "none"  # that a reader would unfold
    summary = f"{_prose(table.title)}: {rows}"
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _bytes_of(part: str) -> int:
    return len(part.encode()) + 2  # and the empty line behind it


def csv_text(tables: Sequence[Table]) -> str:
    """Return all cells of all tables as one CSV: table, row from 1, column, unit, value.

    Values are unrounded in the stored unit; absent cells have no line. A text that a spreadsheet
    would take for a formula has an apostrophe before it.
    """
    cells = (
        (table.key, number, heading.key, heading.unit, value)
        for table in tables
        for number, row in enumerate(table.rows, 1)
        for heading, value in zip(table.headings, row, strict=True)
        if value is not None
    )
    return as_csv(CSV_HEADER, cells)


def as_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV, without the end of the last line."""
    return csv_lines([names, *(list(map(to_cell, row)) for row in rows)]).removesuffix("\n")


def _grid(table: Table, style: str) -> str:
    if not table.rows:
        words = table.empty or "nothing to show"
        return words if style == "pipe" else wrapped(words)
    return grid(table, style, markdown_cell if style == "pipe" else shown)


def _prose(text: str) -> str:
    """Return a title or a caption as one line without HTML."""
    return html.escape(shown(text), quote=False)


# -- what every command prints ---------------------------------------------------------------------


FORMS = ("text", "json", "csv", "parquet", "markdown")

TABLES_SCHEMA = 4
"""Version of the JSON; it grows where a key is renamed, removed or gets another meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command prints: tables, and what they are of."""

    command: str
    """Its words after `convmark`, such as `fleet doctor`."""
    machines: Sequence[str] = ()
    """The machines whose figures the tables have, by fingerprint; none of environments."""
    tables: Sequence[Table]
    several: bool = False
    """Whether the command may print more than one table."""


def print_tables(answer: Answer, form: str) -> None:
    """Print tables to standard output, Parquet as bytes."""
    if form != "parquet":
        text = formatted(answer, form)
        print(painted(text, sys.stdout, os.environ) if form == "text" else text)
        return
    data = parquet_of(answer)
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def check_form(form: str, more: Sequence[str] = (), *, printed: bool = True) -> str:
    """Return the name of a format.

    Args:
        more: formats of the command beside `FORMS`.
        printed: whether it goes to standard output, not to a file.

    Raises:
        OptionError: it is none of them, or Parquet for a terminal or without its package.
    """
    choice_of((*FORMS, *more))("--format", form)
    if form == "parquet" and printed and sys.stdout.isatty():
        raise OptionError("--format parquet: is not for a terminal; redirect it: > table.parquet")
    if form == "parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError:
            raise OptionError(
                "--format parquet: needs pyarrow, which is not installed: pip install pyarrow"
            ) from None
    return form


def formatted(answer: Answer, form: str) -> str:
    """Return tables in one of `FORMS` that are text."""
    if form == "json":
        return _json(answer)
    if form == "csv":
        if answer.several:
            return csv_text(answer.tables)
        table = answer.tables[0]
        return as_csv([heading.key for heading in table.headings], table.rows)
    if form == "markdown":
        return markdown_text(answer.tables).rstrip()
    return "\n\n".join(map(plain, answer.tables))


def rows_table(key: str, title: str, row: type, rows: Sequence[Any]) -> Table:
    """Return the rows of a file, which are dataclasses, as a table with all columns of the file."""
    columns = columns_of(row)
    headings = [
        Heading(
            key=one.name,
            label=one.name,
            kind="flag" if one.type is bool else one.kind,
            about=one.meaning,
            measured_in=one.unit,
        )
        for one in columns
    ]
    records = [{one.name: getattr(each, one.name) for one in columns} for each in rows]
    return table_of(key, title, "", headings, records, keep=[one.key for one in headings])


def machines_of(tables: Sequence[Table]) -> list[str]:
    place = list(FACETS).index("machine")
    return sorted({row[place] for table in tables for row in table.facets if row[place]})


def _json(answer: Answer) -> str:
    """Return an answer as one JSON object: stored units, null where nothing is known."""
    return json.dumps(
        {
            "schema_version": TABLES_SCHEMA,
            "command": answer.command,
            "machines": list(answer.machines),
            "tables": [_as_json(table) for table in answer.tables],
        },
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )


def _as_json(table: Table) -> dict[str, Any]:
    columns = [
        {"key": one.key, "label": one.label, "type": _type(one), "unit": one.unit}
        for one in table.headings
    ]
    head = {"key": table.key, "title": table.title, "caption": table.caption}
    return {**head, "columns": columns, "rows": table.records()}


def _type(heading: Heading) -> str:
    types = {"text": "text", "figure": "text", "texts": "list", "flag": "boolean"}
    return types.get(heading.kind, "number")


def parquet_of(answer: Answer) -> bytes:
    """Return the table, or of several the cells as texts, with the columns of the CSV."""
    data = io.BytesIO()
    frame = _cells(answer.tables) if answer.several else _frame(answer.tables[0])
    frame.to_parquet(data, engine="pyarrow", index=False)
    return data.getvalue()


def _frame(table: Table) -> pd.DataFrame:
    import pandas as pd

    kinds = {"text": "string", "number": "float64", "boolean": "boolean", "list": "object"}
    columns = {
        one.key: pd.Series(table.column(one.key), dtype=kinds[_type(one)]) for one in table.headings
    }
    return pd.DataFrame(columns)


def _cells(tables: Sequence[Table]) -> pd.DataFrame:
    import pandas as pd

    _, *rows = csv.reader(io.StringIO(csv_text(tables)))
    return pd.DataFrame(rows, columns=list(CSV_HEADER), dtype="string")
