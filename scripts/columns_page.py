"""docs/columns.md, made from the schema: `python scripts/columns_page.py >docs/columns.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from convmark.compare.ab_rows import SessionRow, VerdictRow
from convmark.compare.files import ACCEPTED_TABLE, CHANGES_TABLE, NOISE_TABLE, VERDICT_TABLE
from convmark.compare.sessions_file import TABLE as SESSIONS_TABLE
from convmark.core.cells import Column, columns_of
from convmark.core.table import headings, printed
from convmark.results.record import COLUMNS, STATUSES
from convmark.results.schema import OLDEST_SCHEMA, SCHEMA_VERSION
from convmark.session import ceilings, latency_limit, layers, learning, sustained

NOTES = f"""\
# The columns of a results file

Written from the code by `python scripts/columns_page.py >docs/columns.md`; do not edit it by
hand.

`results/<machine>/<run>.csv` has one run: a header, and one row per process of a case. The columns
are in groups: {{groups}}.

This is schema {SCHEMA_VERSION}. Files from schema {OLDEST_SCHEMA} on are read too; columns that
they lack are empty. Files of a later schema are refused. `since` is the first schema with the
column. Files are never rewritten.

- A file is UTF-8, its lines end in `\\n`, and cells are quoted as in
  [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180). It is written without a byte order mark; files
  with one, and lines that end in `\\r\\n`, are read too. A last line without its end comes from a
  killed writer; it is left out, with a warning. Any other error is refused by file and line: no
  file is read in part.
- A row is one line, and a text is one printable line of at most 10,000 characters: line breaks,
  terminal escapes and invisible characters are removed before it is written, and refused in a file.
- An empty cell means absent: not measured, or not available on that machine. It is never 0, and
  NaN and infinity are written as empty cells too. A column marked *never* is never empty.
- A text that a spreadsheet would take for a formula, because it starts with `=`, `+`, `-`, `@`
  or the full-width form of one, is written with an apostrophe before it, and so is a text that
  has such a start behind apostrophes of its own. Readers remove one apostrophe there. Numbers, also
  negative ones, have none.
- `int` is a whole number, `float` has the fewest digits that give the same number again, `bool` is
  `true` or `false`, and `str` is text. Some texts look like numbers (`0007`, `12.5`): tell the
  reader, as in `pandas.read_csv(path, dtype={{"run": str}})`.
- `status` is one of {", ".join(f"`{status}`" for status in STATUSES)}.
- A number without a unit is a count, a share (0.1 is 10 %), a logarithm, a loss or a version.

[Other files](#other-files), beside the runs, follow the same rules.
"""

BESIDE: Mapping[str, Sequence[Column]] = MappingProxyType(
    {
        "<run>.verdicts.csv": VERDICT_TABLE.columns,
        "<run>.sessions.csv": SESSIONS_TABLE.columns,
        "<run>.layers.csv": CHANGES_TABLE.columns,
        "<run>.epochs.csv": learning.TABLE.columns,
        "<run>.sustained.csv": sustained.TABLE.columns,
        "<run>.latency.csv": latency_limit.TABLE.columns,
        "accepted.csv": ACCEPTED_TABLE.columns,
        "noise.csv": NOISE_TABLE.columns,
        "layers.csv": layers.LAYERS_TABLE.columns,
        "ceilings.csv": ceilings.TABLE.columns,
        "ab/<number>.csv": columns_of(SessionRow),
        "ab/verdicts.csv": columns_of(VerdictRow),
    }
)
"""The columns of the files beside the runs, by their names."""


def columns_page() -> str:
    """Return the page as Markdown: the rules, then a table for each group of columns."""
    groups = {
        name: _table(columns) for name, columns in groupby(COLUMNS, key=lambda one: one.group)
    }
    files = [f"### `{name}`\n\n{_table(columns)}\n" for name, columns in BESIDE.items()]
    links = ", ".join(f"[{name}](#{name.replace(' ', '-')})" for name in groups)
    sections = [f"## {name}\n\n{table}\n" for name, table in groups.items()]
    notes = NOTES.replace("{groups}", links)
    return "\n".join([notes, *sections, "## Other files\n", *files])


def _table(group: Iterable[Column]) -> str:
    records = [
        {
            "column": f"`{column.name}`",
            "type": column.type.__name__,
            "unit": column.unit,
            "empty": "never" if column.required else "",
            "since": str(column.since),
            "meaning": column.meaning.replace("<", r"\<"),
        }
        for column in group
    ]
    columns = headings("column meaning type unit empty since")
    return printed(columns, records, "pipe", clean=str, drop_empty=False)


if __name__ == "__main__":
    sys.stdout.write(columns_page())
