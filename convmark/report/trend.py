"""A case's levels as text that fits 80 columns, and the commands to compare each change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convmark.compare.rule.change_points import FEWEST_RUNS
from convmark.compare.trend import Commits, Point, Stretch, Trend, live_comparison
from convmark.core.statistics import share_of
from convmark.core.table import heading, printed
from convmark.core.text import interval_text, shown

__all__ = ["MOST_NAMED", "change_text", "trend_text"]

_COMMIT = 8
"""Characters of a commit in the table, so that it fits."""

MOST_NAMED = 5
"""Runs that are left out and named; more are counted."""


def trend_text(trend: Trend, commits: Commits) -> str:
    """Return the levels, what compares their changes live, and what is left out."""
    stretches = trend.stretches
    parts = [_table(stretches)] if len(stretches) > 1 else list(_one_level(stretches))
    for number, stretch in enumerate(stretches):
        parts += _notes(stretch, first=number == 0, commits=commits)
    if trend.left_out:
        parts.append(left_out_text(trend.left_out))
    return "\n\n".join(parts)


def _one_level(stretches: Sequence[Stretch]) -> Iterator[str]:
    for stretch in stretches:
        count = len(stretch.points)
        if count < 2 * FEWEST_RUNS:
            yield f"change points need {2 * FEWEST_RUNS} comparable runs, there are {count}"
        else:
            yield f"no change point: {count} runs on one level"


def _table(stretches: Sequence[Stretch]) -> str:
    records = [
        {
            "from": stretch.points[0].run,
            "to": stretch.points[-1].run,
            "commit": stretch.points[0].commit[:_COMMIT],
            "to_commit": stretch.points[-1].commit[:_COMMIT],
            "n": len(stretch.points),
            "p50": stretch.step_time_p50_s,
            "change": change_text(stretch),
        }
        for stretch in stretches
    ]
    headings = [
        heading("from", "from"),
        heading("to", "to"),
        heading("commit", "commit"),
        heading("to_commit", "to"),
        heading("n", "n", "count"),
        heading("p50", "p50", "seconds"),
        heading("change", "change"),
    ]
    return printed(headings, records, drop_empty=False)


def change_text(stretch: Stretch) -> str:
    """Return such as `+5.1 % [+4.2, +6.0]`; a creep says that it is one."""
    level = stretch.level
    if level.change is None:
        return "new series" if stretch.conditions else ""
    return "creep " * level.creep + interval_text(share_of(level.change), level.interval.shares())


def _notes(stretch: Stretch, *, first: bool, commits: Commits) -> Iterator[str]:
    run = stretch.points[0].run
    if stretch.conditions and not first:
        yield shown(f"from run {run}, a series of its own: {stretch.conditions}")
    if lines := live_comparison(stretch, commits):
        what = (
            f"{run} to {stretch.points[-1].run}, creep" if stretch.level.creep else f"{run}, step"
        )
        yield "\n  ".join([f"run {what}:", *map(shown, lines)])


def left_out_text(points: Sequence[Point]) -> str:
    """Say which runs are left out and why."""
    names = ", ".join(point.run for point in points[:MOST_NAMED])
    more = f" and {len(points) - MOST_NAMED} more" if len(points) > MOST_NAMED else ""
    loads = [point.load or 0.0 for point in points]
    told = f"{min(loads):.0%}" if len(points) == 1 else f"{min(loads):.0%} to {max(loads):.0%}"
    plural = "s" if len(points) > 1 else ""
    return f"left out, under another load ({told} of the CPU time): run{plural} {names}{more}"
