"""Verdicts on step times: of cases, from live comparisons, and of the machine itself.

History convicts nobody. It is shown beside a verdict, and an `unchanged` that it contradicts by far
is taken back: then something has changed that neither side's code tells.

Of the machine the reference's own step time is held against its history, and fails no run: a
driver, governor, fan or throttled card slows case and reference alike, so that no paired ratio
shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from convmark.compare.comparability import load_of, loads_alike
from convmark.compare.history import Anchor
from convmark.compare.judgement import (
    BUDGET_SPENT,
    MACHINE,
    NOT_LIVE,
    SAME_CODE,
    SAME_COMMIT,
    SAME_GRAPH,
    TOO_FEW,
    Judgement,
    LiveComparison,
    joined,
)
from convmark.compare.rule.decision import Decision
from convmark.core.interval import Interval, share_of
from convmark.core.statistics import t_quantile
from convmark.core.text import counted, load_text, percent
from convmark.results.record import Record

Rows = Sequence[Record]

_DOUBTED_FROM = math.log(1.25)
"""By less the history is not believed: a machine's ratio of case to reference moves by some per
cent from day to day, on identical code too."""
_LIVE = "`pytest bench --benchmark-compare` compares live"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of a step time."""

    verdict: str
    note: str
    decision: Decision | None = None
    """Of the sessions; None where nothing was run beside, or the anchor ran the same code."""


def step_time(
    now: Rows,
    history: Sequence[Rows],
    comparison: LiveComparison | None,
    *,
    same_code: bool,
    anchor: Anchor | None,
    difference: str = "",
) -> Finding:
    """Return what is said of a case.

    Args:
        now: the case's rows that may be judged.
        history: those of earlier runs of the anchor's code, where they are comparable.
        comparison: what the live comparison gave; None where none was asked for.
        same_code: whether the anchor is known to have run the same code, by its hash.
        difference: why the anchor's figures are not comparable though its code is.
    """
    moved, reason = _surely_moved(now, history), comparison.reason if comparison else ""
    if comparison is not None and comparison.decision is not None:
        return _live(comparison, comparison.decision, moved, difference)
    if same_code or reason in (SAME_CODE, SAME_GRAPH, SAME_COMMIT):
        return _same_code(reason or SAME_CODE, moved)
    why = (anchor and anchor.lost) or _LIVE
    if comparison is not None:
        other = f" with {comparison.anchor}" if comparison.anchor else ""
        spent = reason.startswith(BUDGET_SPENT)
        why = f"{TOO_FEW if spent else NOT_LIVE}{other}: {reason}"
    change = _history_change(now, history)
    shown = difference if change is None else f"by its history {percent(change)}"
    return Finding("inconclusive", joined(why, shown))


def _history_change(now: Rows, history: Sequence[Rows]) -> float | None:
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
    return _history_change(now, history) if gap > _DOUBTED_FROM else None


def _live(
    comparison: LiveComparison, decision: Decision, moved: float | None, difference: str
) -> Finding:
    verdict = decision.plain_verdict
    estimate = decision.estimate or 0.0
    parts = [f"{counted(decision.sessions, 'session')} against {comparison.anchor}"]
    parts.append(decision.margin_text)
    if verdict == "regressed" and decision.bar < 0:
        parts.append(
            f"{percent(estimate - decision.bar)} against its recent level, which is "
            f"{percent(decision.bar)} of the anchor's"
        )
    parts += [comparison.some_steps, comparison.reason, difference]
    if comparison.some_steps:
        verdict = "inconclusive"
    if verdict == "unchanged" and moved is not None:
        verdict = "inconclusive"
        parts.append(
            f"no change in the live comparison, but {percent(moved)} by its history: both sides "
            "may have read the same changed file, or the machine has changed: run it again, and if "
            "the result is the same, `convmark accept` the new run"
        )
    return Finding(verdict, joined(*parts), decision)


def _same_code(why: str, moved: float | None) -> Finding:
    """Say unchanged of the code, unless the figures lie far away all the same."""
    if moved is None:
        return Finding("unchanged", why)
    unseen = "something that convmark cannot detect has changed (a file read by native code, a "
    if why == SAME_COMMIT:
        unseen = "something has changed that is in no commit (a file that git ignores, a "
    note = f"{why}, but {percent(moved)} by its history: {unseen}service, the machine)"
    return Finding("inconclusive", f"{note}: run it again")


# -- the machine -----------------------------------------------------------------------------------

MOVED = math.log(1.10)
"""A plain step time moves by 5 to 10 % between fresh processes of identical code, measured on a
quiet machine of two cores, so less says nothing."""
_LEAST_RUNS = 3
"""From two runs a 95 % interval spans 13 spreads either way: no figure to print."""
_LEAST_BETWEEN_RUNS = 0.02
"""Runs of the same machine that agree better than this do so by luck."""

Compared = tuple[Rows, Sequence[Rows]]
"""A case's rows of this run, and of the runs of its baseline."""


def machine_judgements(compared: Iterable[Compared]) -> list[Judgement]:
    """Judge the reference's median step time, per reference, device and threads."""
    groups: dict[tuple[str, str, str], tuple[list[Record], dict[str, list[Record]]]] = {}
    for now, baseline in compared:
        if rows := _with_reference(now):
            key = (rows[0].reference or "", rows[0].device, rows[0].threads)
            ours, before = groups.setdefault(key, ([], {}))
            ours += rows
            for run in filter(None, map(_with_reference, baseline)):
                before.setdefault(run[0].run, []).extend(run)
    return [_machine(key, now, before) for key, (now, before) in groups.items() if before]


def _with_reference(rows: Rows) -> list[Record]:
    return [row for row in rows if row.reference and row.reference_step_time_p50_s]


def _reference_s(rows: Rows) -> float:
    return float(median(row.reference_step_time_p50_s or math.nan for row in rows))


def _machine(
    key: tuple[str, str, str], now: Sequence[Record], before: Mapping[str, Sequence[Record]]
) -> Judgement:
    reference, device, threads = key
    value = _reference_s(now)
    logs = [math.log(_reference_s(rows)) for rows in before.values()]
    estimate, half, verdict = math.log(value) - fmean(logs), math.inf, "inconclusive"
    if len(logs) >= _LEAST_RUNS:  # half the 95 % interval of one more run
        error = max(stdev(logs), _LEAST_BETWEEN_RUNS) * math.sqrt(1 + 1 / len(logs))
        half = t_quantile(0.975, len(logs) - 1) * error
    if abs(estimate) > max(half, MOVED):
        verdict = "regressed" if estimate > 0 else "improved"
    elif abs(estimate) + half <= MOVED:
        verdict = "unchanged"
    return Judgement(
        run=now[0].run,
        case="-".join([MACHINE, device, reference, *([f"t{threads}"] * (threads != "default"))]),
        model=MACHINE,
        device=device,
        batch_size=None,
        threads=threads,
        metric="reference_step_time",
        unit="s",
        baseline=value / math.exp(estimate),
        value=value,
        change=share_of(estimate),
        **Interval.around(estimate, half).shares().cells,
        verdict=verdict,
        smallest_visible=None if math.isinf(half) else share_of(max(half, MOVED)),
        baseline_runs=tuple(before),
        note=_machine_note(verdict, estimate, now, before),
    )


def _machine_note(
    verdict: str, estimate: float, now: Rows, before: Mapping[str, Sequence[Record]]
) -> str:
    parts, runs = [], len(before)
    if verdict in ("regressed", "improved"):
        size = 100 * abs(share_of(estimate))
        way = "slower" if estimate > 0 else "faster"
        parts.append(f"the machine is {size:.1f} % {way} for case and reference alike")
    earlier = [row for rows in before.values() for row in rows]
    then, today = load_of(earlier), load_of(now)
    if then is not None and today is not None and not loads_alike(earlier, now):
        parts.append(
            f"the loads differ: others took {load_text(then)} of the CPUs' time then, "
            f"{load_text(today)} now"
        )
    if verdict == "inconclusive" and runs < _LEAST_RUNS:
        few = "run is" if runs == 1 else "runs are"
        parts.append(f"{runs} earlier {few} too few to know the spread")
    return "; ".join(parts)
