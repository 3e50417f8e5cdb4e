"""Verdicts as a table: those that fail first, what says nothing left out."""

from __future__ import annotations

from collections.abc import Sequence

from convmark.compare.judgement import Judgement
from convmark.core.table import Table, heading, table_of
from convmark.report.verdicts import headline, verdict_words, worth_reading

__all__ = ["judged"]

_RANK = ("regressed", "changed", "inconclusive", "missing", "improved", "new", "unchanged")


def judged(judgements: Sequence[Judgement], against: str, *, between: str) -> Table:
    """Return the verdicts that are worth reading, and say how many are not shown.

    Args:
        against: what the run was judged against, in words.
        between: the baseline and the run with their commits, for the title.
    """
    shown = [judgement for judgement in judgements if worth_reading(judgement)]
    shown.sort(key=lambda one: (not one.fails, _RANK.index(one.verdict), one.case))
    records = [
        {
            "case": one.case,
            "metric": one.metric,
            "verdict": verdict_words(one),
            "change": one.change,
            "low": one.low,
            "high": one.high,
            "smallest_visible": one.smallest_visible,
            "note": one.note,
        }
        for one in shown
    ]
    run = judgements[0].run if judgements else "none"
    left = len(judgements) - len(shown)
    return table_of(
        "verdicts",
        f"Verdicts: {headline(judgements)}, {between}",
        f"Run {run} against {against}. A change is a share of the baseline, above 0 is more; its "
        f"interval is at an error rate of 1 % over all cases. {left} more with nothing to add.",
        [
            heading("case", "case"),
            heading("metric", "metric"),
            heading("verdict", "verdict"),
            heading("change", "change", "change"),
            heading("low", "interval from", "change"),
            heading("high", "to", "change"),
            heading("smallest_visible", "smallest visible", "share"),
            heading("note", "note"),
        ],
        records,
        empty="Nothing was judged.",
    )
