"""What is said of a case's step time: by a live comparison, or why there is none.

History convicts nobody. It is shown beside a verdict, and an `unchanged` that it contradicts by far
is taken back: then something has changed that neither side's code tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from convmark.compare.comparability import loads_alike
from convmark.compare.history import Anchor
from convmark.compare.judgement import SAME_CODE, SAME_COMMIT, Confirmation
from convmark.compare.rule.decision import Decision
from convmark.core.text import percent
from convmark.results.record import Record

__all__ = ["Finding", "history_change", "step_time"]

Rows = Sequence[Record]

_DOUBTED_FROM = math.log(1.25)
"""By less the history is not believed: a machine's ratio of case to reference moves by some per
cent from day to day, on identical code too."""

_LIVE = "`pytest bench --benchmark-compare` compares live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is said of a step time; changes are ln(now / before), None where nothing was run beside.

    Or where the anchor ran the same code.
    """

    verdict: str
    estimate: float | None = None
    low: float = -math.inf
    high: float = math.inf
    smallest_visible: float = math.inf
    note: str = ""


def step_time(
    now: Rows,
    history: Sequence[Rows],
    confirmation: Confirmation | None,
    *,
    same_code: bool,
    anchor: Anchor | None,
    difference: str = "",
) -> Finding:
    """Return what is said of a case.

    Args:
        now: the case's rows that may be judged.
        history: those of earlier runs of the anchor's code, where they are comparable.
        confirmation: what the live comparison gave; None where none was asked for.
        same_code: whether the anchor is known to have run the same code, by its hash.
        difference: why the anchor's figures are not comparable though its code is.
    """
    moved = history_change(now, history)
    reason = confirmation.reason if confirmation else ""
    if confirmation is not None and confirmation.decision is not None:
        moved = _surely_moved(now, history)
        return _live(confirmation, confirmation.decision, moved, difference)
    if same_code or reason in (SAME_CODE, SAME_COMMIT):
        return _same_code(reason or SAME_CODE, _surely_moved(now, history))
    why = (anchor and anchor.lost) or _LIVE
    if confirmation is not None:
        other = f" with {confirmation.anchor}" if confirmation.anchor else ""
        why = f"no live comparison{other}: {reason}"
    shown = f"by its history {percent(moved)}" if moved is not None else difference
    return Finding(verdict="inconclusive", note="; ".join(filter(None, (why, shown))))


def history_change(now: Rows, history: Sequence[Rows]) -> float | None:
    """Return ln(now / before) of the medians, each paired with the reference; None without both."""
    logs, runs = _logs(now), [logs for rows in history if (logs := _logs(rows))]
    return median(logs) - median(map(median, runs)) if logs and runs else None


def _logs(rows: Rows) -> list[float]:
    return [row.paired_log_ratio for row in rows if row.paired_log_ratio is not None]


def _surely_moved(now: Rows, history: Sequence[Rows]) -> float | None:
    """Return the change by the history where every process of now lies beyond all earlier ones.

    By more than `_DOUBTED_FROM`; else None, as where one process speaks for a side, or others took
    another share of the CPUs' time.
    """
    earlier = [row for rows in history for row in rows]
    logs, before = _logs(now), _logs(earlier)
    if min(len(logs), len(before)) < 2 or not loads_alike(now, earlier):
        return None
    gap = max(min(logs) - max(before), min(before) - max(logs))
    return history_change(now, history) if gap > _DOUBTED_FROM else None


def _live(
    confirmation: Confirmation, decision: Decision, moved: float | None, difference: str
) -> Finding:
    verdict: str = decision.plain_verdict
    parts = [f"{confirmation.sessions} sessions beside {confirmation.anchor}"]
    if decision.within_margin:
        estimate = decision.estimate or 0.0
        way = "slower" if estimate > 0 else "faster"
        parts.append(f"{way} by {percent(abs(estimate), '')}, within the margin")
    if verdict == "regressed" and decision.bar < 0:
        parts.append(
            f"{percent((decision.estimate or 0.0) - decision.bar)} against its recent level, which "
            f"is {percent(decision.bar)} of the anchor's"
        )
    parts += filter(None, [confirmation.reason, difference])
    if verdict == "unchanged" and moved is not None:
        verdict = "inconclusive"
        parts.append(
            f"no change beside it, yet {percent(moved)} by its history: both sides may have read "
            "the same changed file, or the machine has changed: run it again, and where that stays "
            "`convmark accept` the new run"
        )
    return Finding(
        verdict=verdict,
        estimate=decision.estimate,
        low=decision.low,
        high=decision.high,
        smallest_visible=decision.smallest_visible,
        note="; ".join(parts),
    )


def _same_code(why: str, moved: float | None) -> Finding:
    """Say unchanged of the code, unless the figures lie far away all the same."""
    if moved is None:
        return Finding(verdict="unchanged", note=why)
    unseen = "something that convmark does not see has changed (a file read by native code, a "
    if why == SAME_COMMIT:
        unseen = "something has changed that is in no commit (a file that git ignores, a "
    note = f"{why}, yet {percent(moved)} by its history: {unseen}service, the machine)"
    return Finding(verdict="inconclusive", note=f"{note}: run it again")
