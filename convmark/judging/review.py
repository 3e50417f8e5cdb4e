"""A run beside its history, before anything is run beside it or concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convmark.judging.history import (
    BASELINE_RUNS,
    CaseHistory,
    History,
    by_name,
    same_code,
    steady,
)
from convmark.record import Record

__all__ = ["CaseReview", "Review", "review"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReview:
    """One case of the run beside its baseline."""

    rows: tuple[Record, ...]
    """The rows of this run that count: the steady ones where there are any; none where each says
    why it is not judged."""
    every_row: tuple[Record, ...]
    history: CaseHistory
    baseline: tuple[tuple[Record, ...], ...]
    """The runs of the history that it is judged against."""

    @property
    def anchor_rows(self) -> tuple[tuple[Record, ...], ...]:
        """The anchor's run alone; where the history has no such run, the newest of the baseline."""
        anchor = self.history.anchor
        found = [rows for rows in self.history.runs if anchor and rows[0].run == anchor.run]
        return tuple(found or self.baseline[-1:])

    @property
    def same_code(self) -> bool:
        """Whether it is known that the anchor ran the same code, by its hash."""
        now = [row for row in self.every_row if row.measured]
        return any(
            all(row.code for row in (*now, *rows)) and same_code(now, rows)
            for rows in self.anchor_rows
        )

    @property
    def failed(self) -> Record | None:
        """The first process that failed."""
        return next((row for row in self.every_row if not row.measured), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A run beside its history, by the cases' names."""

    cases: Mapping[str, CaseReview]
    absent: tuple[Record, ...]
    """Rows of the cases that the history has and the run has not."""


def review(records: Sequence[Record], history: History) -> Review:
    """Return each case of a run beside its history."""
    cases = {
        name: CaseReview(
            rows=steady(group),
            every_row=tuple(group),
            history=history.cases[name],
            baseline=history.cases[name].runs[-BASELINE_RUNS:],
        )
        for name, group in by_name(records).items()
    }
    return Review(cases=cases, absent=history.absent)
