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
from typing import TYPE_CHECKING, Any

from convmark.core.cells import to_cell
from convmark.core.errors import OptionError
from convmark.core.option_values import choice_of
from convmark.core.table import Heading, Table, plain
from convmark.core.text import painted
from convmark.report.tables.text import CSV_HEADER, csv_text, markdown_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMS", "TABLES_SCHEMA", "check_form", "formatted", "print_tables", "tables_json"]

FORMS = ("text", "json", "csv", "parquet", "markdown")

TABLES_SCHEMA = 1
"""Version of the JSON; it grows where a key is renamed, removed or gets another meaning."""


def print_tables(tables: Sequence[Table], form: str, *, several: bool) -> None:
    """Print tables to standard output, Parquet as bytes.

    Args:
        form: one that `check_form` has let pass.
        several: whether the command may print more than one table.
    """
    if form != "parquet":
        text = formatted(tables, form, several=several)
        print(painted(text, sys.stdout, os.environ) if form == "text" else text)
        return
    data = _parquet(tables, several)
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def check_form(form: str) -> str:
    """Return the name of a format that standard output can have.

    Raises:
        OptionError: it is none of `FORMS`, or Parquet for a terminal or without its package.
    """
    choice_of(FORMS)("--format", form)
    if form == "parquet" and sys.stdout.isatty():
        raise OptionError("--format parquet: is not for a terminal; redirect it: > table.parquet")
    if form == "parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError:
            raise OptionError(
                "--format parquet: needs pyarrow, which is not installed: pip install pyarrow"
            ) from None
    return form


def formatted(tables: Sequence[Table], form: str, *, several: bool) -> str:
    """Return tables in one of `FORMS` that are text."""
    if form == "json":
        return tables_json(tables)
    if form == "csv":
        return csv_text(tables) if several else _wide_csv(tables[0])
    if form == "markdown":
        return markdown_text(tables).rstrip()
    return "\n\n".join(map(plain, tables))


def tables_json(tables: Sequence[Table]) -> str:
    """Return tables as one JSON object: values in the stored unit, null where nothing is known."""
    return json.dumps(
        {"schema_version": TABLES_SCHEMA, "tables": [_as_json(table) for table in tables]},
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
    return "text" if heading.kind in ("text", "figure") else "number"


def _wide_csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([heading.key for heading in table.headings])
    writer.writerows([to_cell(value) for value in row] for row in table.rows)
    return text.getvalue().removesuffix("\n")


def _parquet(tables: Sequence[Table], several: bool) -> bytes:
    """Return the table, or of several the cells as texts, with the columns of the CSV."""
    data = io.BytesIO()
    (_cells(tables) if several else _frame(tables[0])).to_parquet(
        data, engine="pyarrow", index=False
    )
    return data.getvalue()


def _frame(table: Table) -> pd.DataFrame:
    import pandas as pd

    kinds = {"text": "string", "number": "float64"}
    columns = {
        one.key: pd.Series(table.column(one.key), dtype=kinds[_type(one)]) for one in table.headings
    }
    return pd.DataFrame(columns)


def _cells(tables: Sequence[Table]) -> pd.DataFrame:
    import pandas as pd

    _, *rows = csv.reader(io.StringIO(csv_text(tables)))
    return pd.DataFrame(rows, columns=list(CSV_HEADER), dtype="string")
