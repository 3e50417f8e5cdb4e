"""Tables in the formats that every command shares: text, JSON, CSV, Parquet and Markdown.

The JSON is described by docs/reference/tables.schema.json. A command that prints one table has one
line of CSV for each row; one that may print several has one line for each cell, as a report.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmark.core.cells import columns_of, to_cell
from convmark.core.errors import OptionError
from convmark.core.option_values import choice_of
from convmark.core.table import FACETS, Heading, Table, plain, table_of
from convmark.core.text import painted
from convmark.report.tables.text import CSV_HEADER, csv_text, markdown_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FORMS",
    "TABLES_SCHEMA",
    "Answer",
    "check_form",
    "formatted",
    "machines_of",
    "parquet_of",
    "print_tables",
    "rows_table",
]

FORMS = ("text", "json", "csv", "parquet", "markdown")

TABLES_SCHEMA = 2
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
    """Print tables to standard output, Parquet as bytes.

    Args:
        form: one that `check_form` has let pass.
    """
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
        return csv_text(answer.tables) if answer.several else _wide_csv(answer.tables[0])
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
        )
        for one in columns
    ]
    records = [{one.name: _flat(getattr(each, one.name)) for one in columns} for each in rows]
    return table_of(key, title, "", headings, records, keep=[one.key for one in headings])


def _flat(value: Any) -> Any:
    return " ".join(value) if isinstance(value, tuple) else value


def machines_of(tables: Sequence[Table]) -> list[str]:
    """Return the machines that the rows of tables are of."""
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
    return {"text": "text", "figure": "text", "flag": "boolean"}.get(heading.kind, "number")


def _wide_csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([heading.key for heading in table.headings])
    writer.writerows([to_cell(value) for value in row] for row in table.rows)
    return text.getvalue().removesuffix("\n")


def parquet_of(answer: Answer) -> bytes:
    """Return the table, or of several the cells as texts, with the columns of the CSV."""
    data = io.BytesIO()
    frame = _cells(answer.tables) if answer.several else _frame(answer.tables[0])
    frame.to_parquet(data, engine="pyarrow", index=False)
    return data.getvalue()


def _frame(table: Table) -> pd.DataFrame:
    import pandas as pd

    kinds = {"text": "string", "number": "float64", "boolean": "boolean"}
    columns = {
        one.key: pd.Series(table.column(one.key), dtype=kinds[_type(one)]) for one in table.headings
    }
    return pd.DataFrame(columns)


def _cells(tables: Sequence[Table]) -> pd.DataFrame:
    import pandas as pd

    _, *rows = csv.reader(io.StringIO(csv_text(tables)))
    return pd.DataFrame(rows, columns=list(CSV_HEADER), dtype="string")
