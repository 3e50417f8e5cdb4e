"""What change this machine lets be seen, case by case, as `convmark noise` has found it.

results/<machine>/noise.csv    one row per case and number of threads, for each time it was asked
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.results.table_file import TableFile

__all__ = ["FILE", "TABLE", "NoiseRow", "read_noise"]

FILE = "noise.csv"


def _column(unit: str, meaning: str) -> Any:
    return field(metadata={"group": "noise", "unit": unit, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRow:
    """An A/A of one case; changes are shares, 0.05 is 5 % slower."""

    measured: str = _column("UTC, ISO 8601", "when it ended")
    convmark: str = _column("", "version")
    case: str = _column("", "name of the case, its threads among it")
    cases: int = _column("", "cases of the suite, which share time and error rate")
    sessions: int = _column("", "sessions of two copies of one code")
    session_s: float | None = _column("s", "median of a session, with start and builds")
    scatter: float | None = _column("", "root mean square of the sessions' log ratios")
    mean: float | None = _column("", "mean of the sessions' log ratios; the truth is 0")
    budget_s: float = _column("s", "time for all cases that the next two columns are for")
    found_from: float | None = _column("", "smallest slowdown that is called one in 95 of 100")
    rules_out: float | None = _column("", "change that unchanged rules out in 95 of 100")
    seconds_for_3_percent: float | None = _column("s", "until 3 % is called slower, 8 of 10 times")
    seconds_for_5_percent: float | None = _column("s", "the same of 5 %")
    seconds_for_10_percent: float | None = _column("s", "the same of 10 %")
    note: str | None = _column("", "why sessions are few, or took two processes; what disturbed")


TABLE = TableFile(NoiseRow)


def read_noise(path: Path) -> dict[str, NoiseRow]:
    """Return the newest row of each case by its name; none where there is no file.

    Raises:
        StoreError: it does not fit; the message names file and line.
    """
    return {row.case: row for row in TABLE.read(path)}
