"""The results of `convmark noise`: as text, and as a table of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from convmark.compare.files import NOISE, NoiseRow, read_noise
from convmark.core.fitting import wrapped
from convmark.core.table import Table, headings, printed, table_of
from convmark.core.text import (
    counted,
    duration_text,
    listed,
    markdown_cell,
    seconds_text,
    share_text,
    shown,
)
from convmark.report.tables.history import MOST_NAMED
from convmark.results.names import read_name

_USUAL = ("-cpu", "-float32")
"""Parts of a case's name that are left out where all cases have them: the table is wide."""


def noise_text(rows: Sequence[NoiseRow], *, markdown: bool = False) -> str:
    """Return a table of the cases, and what its columns mean."""
    names = [row.case for row in rows]
    for part in _USUAL:
        if all(part in name for name in names):
            names = [name.replace(part, "", 1) for name in names]
    columns = headings(
        "case scatter takes sees excludes times",
        scatter=("scatter", "figure"),
        takes=("takes", "seconds"),
        sees=("sees", "figure"),
        excludes=("excl.", "figure"),
        times=("3/5/10 %", "figure"),
    )
    records = [
        {
            "case": name,
            "scatter": f"{_share(row.scatter)} ({row.sessions})",
            "takes": row.session_s,
            "sees": _share(row.found_from),
            "excludes": _share(row.rules_out),
            "times": _times(row),
        }
        for name, row in zip(names, rows, strict=True)
    ]
    style, clean = ("pipe", markdown_cell) if markdown else ("simple", shown)
    table = printed(columns, records, style, clean=clean, drop_empty=False)
    budgets = " and ".join(dict.fromkeys(duration_text(row.budget_s) for row in rows))
    about = (
        "scatter: noise of a session with identical code (number of sessions); takes: seconds of "
        f"a session. sees: the smallest slowdown that is found in 95 of 100 runs of {budgets}; "
        "excl.: the change that `unchanged` rules out as often. Last column: the time until a "
        "slowdown of that size is found in 8 of 10 runs. Slowdowns below 3 % never fail a test."
    )
    fit = str if markdown else wrapped
    notes = (fit(clean(note)) for note in _notes(names, rows))
    return "\n\n".join([table, fit(about), *notes])


def _notes(names: Sequence[str], rows: Sequence[NoiseRow]) -> Iterator[str]:
    """Yield each note once, with the cases that it is of."""
    notes: dict[str, list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        for note in filter(None, (row.note or "").split("; ")):
            notes.setdefault(note, []).append(name)
    for note, named in notes.items():
        whose = listed(named, MOST_NAMED)
        yield f"{'all cases' if len(named) == len(rows) > 1 else whose}: {note}"


def noise_line(row: NoiseRow) -> str:
    """Return what is seen of one case in a line."""
    return (
        f"noise, {row.measured[:10]}: {_share(row.scatter)} per session "
        f"({counted(row.sessions, 'session')} of {seconds_text(row.session_s)}); "
        f"detects {_share(row.found_from)}, `unchanged` excludes {_share(row.rules_out)}; "
        f"3 / 5 / 10 % in {_times(row)}"
    )


def _share(value: float | None) -> str:
    return share_text(value) or "-"


def _times(row: NoiseRow) -> str:
    times_s = (row.seconds_for_3_percent, row.seconds_for_5_percent, row.seconds_for_10_percent)
    texts = ["-" if one is None else f"{one:.0f}" for one in times_s]
    return "/".join(texts) + " s" * any(text != "-" for text in texts)


def noise(folders: Iterable[Path]) -> Table:
    """Return what `convmark noise` has found of the machines whose folders these are."""
    rows = [
        {"machine": read_name(folder) or folder.name, **asdict(row)}
        for folder in folders
        for row in read_noise(folder / NOISE).values()
    ]
    return table_of(
        "noise",
        "Changes that this machine can detect",
        "From sessions of one code against a copy of it (`convmark noise`). `sees` is the "
        "smallest slowdown that is found in 95 of 100 comparisons within the budget of all cases, "
        "`excludes` the change that `unchanged` rules out just as often; the last columns are the "
        "time until a slowdown of that size is found in 8 of 10 comparisons.",
        headings(
            "machine case measured sessions session_s scatter budget_s found_from rules_out "
            "seconds_for_3_percent seconds_for_5_percent seconds_for_10_percent note",
            sessions=("sessions", "count"),
            session_s=("a session", "seconds"),
            scatter=("scatter", "share"),
            budget_s=("budget", "seconds"),
            found_from=("sees", "share"),
            rules_out=("excludes", "share"),
            seconds_for_3_percent=("3 % in", "seconds"),
            seconds_for_5_percent=("5 % in", "seconds"),
            seconds_for_10_percent=("10 % in", "seconds"),
        ),
        rows,
    )
