"""docs/columns.md, made from the schema: `python -m convmark.report.columns >docs/columns.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby

from convmark.core.cells import Column
from convmark.core.table import headings, printed
from convmark.results.record import COLUMNS, STATUSES
from convmark.results.schema import OLDEST_SCHEMA, SCHEMA_VERSION

NOTES = f"""\
# The columns of a results file

Written from the code by `python -m convmark.report.columns >docs/columns.md`; do not edit it by
hand.

`results/<machine>/<run>.csv` holds one run: a header, and one row per process of a case. This is
schema {SCHEMA_VERSION}. A file of schema {OLDEST_SCHEMA} is read too, and what it lacks is absent;
one of a later schema is refused. `since` is the schema that brought a column in. No file is ever
rewritten.

- A file is UTF-8, its lines end in `\\n`, and cells are quoted as in
  [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180). It is written without a byte order mark and
  read with one too, and with lines that end in `\\r\\n`. A last line without its end is what a
  killed writer leaves; it is left out, with a warning. Whatever else does not fit is refused by
  file and line; nothing is read in part.
- A row is one line, and a text one printable line of at most 10,000 characters: line breaks,
  terminal escapes and invisible characters are taken out as it is written, and refused where a file
  holds them.
- An empty cell means absent: not measured, or not to be had on that machine. It is never 0, and
  NaN and infinity are written as empty cells too. A column marked *never* is never empty.
- A text that a spreadsheet would take for a formula, because it starts with `=`, `+`, `-`, `@`
  or the full-width form of one, is written with an apostrophe before it, and so is one that starts
  so behind apostrophes of its own. Whoever reads the file drops one apostrophe there. Numbers have
  none, negative ones included.
- `int` is a whole number, `float` has the fewest digits that give the same number again, `bool` is
  `true` or `false`, and `str` is text. Some texts look like numbers (`0007`, `12.5`): tell the
  reader, as in `pandas.read_csv(path, dtype={{"run": str}})`.
- `status` is one of {", ".join(f"`{status}`" for status in STATUSES)}.
"""


def columns_page() -> str:
    """Return the page as Markdown: the rules, then a table for each group of columns."""
    groups = [
        f"## {group}\n\n{_table(columns)}\n"
        for group, columns in groupby(COLUMNS, key=lambda column: column.group)
    ]
    return "\n".join([NOTES, *groups])


def _table(group: Iterable[Column]) -> str:
    records = [
        {
            "column": f"`{column.name}`",
            "type": column.type.__name__,
            "unit": column.unit,
            "empty": "never" if column.required else "",
            "since": str(column.since),
            "meaning": column.meaning,
        }
        for column in group
    ]
    columns = headings("column type unit empty since meaning")
    return printed(columns, records, "pipe", clean=str, drop_empty=False)


if __name__ == "__main__":
    sys.stdout.write(columns_page())
