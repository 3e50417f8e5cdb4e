"""A run screened against its history, before anything is concluded or run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convmark.judging.history import CaseHistory, History, by_name, same_code, steady
from convmark.judging.paired import Pairs, StepTime, pairs, screened
from convmark.record import Record

__all__ = ["CaseReview", "Review", "flagged", "review"]


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
    step: StepTime | None
    """None where there is no paired step time on both sides."""

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
    def only_live(self) -> bool:
        """Whether no history can judge it: the model's own code has set what slows all alike."""
        return self.history.anchor is not None and bool(self.history.difference)

    @property
    def failed(self) -> Record | None:
        """The first process that failed."""
        return next((row for row in self.every_row if not row.measured), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A run screened against its history, by the cases' names."""

    cases: Mapping[str, CaseReview]
    absent: tuple[Record, ...]
    """Rows of the cases that the history has and the run has not."""


def review(records: Sequence[Record], history: History) -> Review:
    """Screen a run; call it again with all records once a case was given more processes."""
    every = by_name(records)
    rows = {name: steady(group) for name, group in every.items()}
    wall: dict[str, Pairs] = {}
    cpu: dict[str, Pairs] = {}
    for name, now in rows.items():
        earlier = history.cases[name].runs
        if (found := pairs(now, earlier)) is not None:
            wall[name] = found
            by_cpu = pairs(now, [earlier[place] for place in found.chosen], cpu=True)
            if now[0].threads == "1" and now[0].device == "cpu" and by_cpu is not None:
                cpu[name] = by_cpu
    steps = screened(wall, cpu, every)
    cases = {}
    for name, group in every.items():
        earlier = history.cases[name].runs
        chosen = [earlier[place] for place in wall[name].chosen] if name in wall else earlier
        cases[name] = CaseReview(
            rows=rows[name],
            every_row=tuple(group),
            history=history.cases[name],
            baseline=tuple(chosen),
            step=steps.get(name),
        )
    return Review(cases=cases, absent=history.absent)


def flagged(review: Review) -> list[str]:
    """Return the names of the cases that their history does not let pass, largest change first.

    Those come first whose history cannot judge; one whose code is the anchor's is never among them.
    Without a live comparison they get more processes.
    """
    found = {
        name: case.step
        for name, case in review.cases.items()
        if case.failed is None and not case.same_code
    }
    only_live = [name for name in found if review.cases[name].only_live and review.cases[name].rows]
    sizes = {name: _size(step) for name, step in found.items() if step and step.flagged}
    return only_live + sorted(sizes, key=lambda name: -sizes[name])


def _size(step: StepTime) -> float:
    return max(abs(step.wall.estimate), abs(step.cpu.estimate) if step.cpu else 0.0)
