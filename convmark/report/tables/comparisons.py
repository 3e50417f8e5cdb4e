"""The verdicts of live comparisons by `convmark ab`, which lie beside the runs of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark.compare.ab_rows import VerdictRow, read_verdicts
from convmark.core.interval import interval_text
from convmark.core.table import Table, headings, table_of
from convmark.core.text import counted, natural_order
from convmark.results.store import compared_in

_MOVED = ("regressed", "improved")
"""Verdicts of a case whose step time is another one in B; the worse first."""


def comparisons_of(places: Iterable[Path]) -> list[VerdictRow]:
    """Return the verdicts that lie in results folders, the newest comparison first."""
    files = {path.resolve(): path for path in compared_in(places)}
    rows = [row for path in files.values() for row in read_verdicts(path)]
    rows.sort(key=lambda row: natural_order(row.case))
    newest: dict[tuple[str | None, str], str] = {}
    for row in rows:
        newest[_key(row)] = max(row.started, newest.get(_key(row), ""))
    return sorted(rows, key=lambda row: (newest[_key(row)], _key(row)[1]), reverse=True)


def _key(row: VerdictRow) -> tuple[str | None, str]:
    return row.machine, row.ab


def comparisons(rows: Sequence[VerdictRow], names: Mapping[str, str]) -> Table:
    """Return a line for each case of each comparison."""
    return table_of(
        "comparisons",
        "A/B comparisons",
        "Live comparisons of two sides by convmark ab, the newest first. B against A is the step "
        "time of B over that of A, less 1: above 0 is slower. The verdict and its interval are of "
        "n sessions in which the steps of both alternate, at an error rate of 1 % over all cases "
        "of a comparison. Control is the same of a second copy of A against A, which is noise.",
        headings(
            "case comparison a b change low high verdict control_change n started hardware note",
            a="A",
            b="B",
            change=("B against A", "change"),
            control_change=("control", "change"),
            started="started (UTC)",
        ),
        [_record(row, names) for row in rows],
    )


def _record(row: VerdictRow, names: Mapping[str, str]) -> dict[str, Any]:
    columns = ("case", "change", "low", "high", "verdict", "control_change", "note")
    machine = names.get(row.machine or "", row.machine)
    return {
        **{name: getattr(row, name) for name in (*columns, "model", "task", "batch_size")},
        "comparison": row.ab,
        "a": _side(row.a),
        "b": _side(row.b),
        "n": row.sessions,
        "started": row.started[:16].replace("T", " "),
        "device": row.device,
        "machine": machine,
        "hardware": " ".join(filter(None, [machine, row.device])),
    }


def _side(label: str) -> str:
    """Return a side as it was asked for, in words where it is the interpreter of the command."""
    first, *settings = label.split(" ")
    return " ".join(["this interpreter" if first == "." else first, *settings])


def newest_comparison(rows: Sequence[VerdictRow]) -> tuple[str, str, str] | None:
    """Return of the newest comparison its name, what it has found, and the case that moved most."""
    own = [row for row in rows if _key(row) == _key(rows[0])]
    if not own:
        return None
    counts = Counter(row.verdict for row in own)
    words = [f"{counts[verdict]} {verdict}" for verdict in sorted(counts, key=_rank)]
    moved = sorted((row for row in own if row.verdict in _MOVED), key=_moved)
    largest = [
        f"{row.case}: B against A {interval_text(row.change, row.interval)}"
        for row in moved[:1]
        if row.change is not None
    ]
    open_ = counts["inconclusive"] == len(own)
    what = "decided" if open_ else "slower in B"
    found = f"{counts['regressed'] or 'none'} of {counted(len(own), 'case')} {what}"
    detail = ", ".join([*words, *largest, f"B: {_side(own[0].b)}, A: {_side(own[0].a)}"])
    return f"comparison {own[0].ab}", found, detail


def _rank(verdict: str) -> tuple[int, str]:
    return (_MOVED.index(verdict) if verdict in _MOVED else len(_MOVED)), verdict


def _moved(row: VerdictRow) -> tuple[int, float]:
    return _rank(row.verdict)[0], -abs(row.change or 0.0)
