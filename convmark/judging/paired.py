"""The step time of a case against its history, by wall time and, with one thread, by CPU time.

Both clocks are read as the live comparison reads them: wall time convicts alone, CPU time only
where wall time points the same way, and `unchanged` needs the interval of the primary clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convmark.judging.confirm import (
    CHANGED,
    LEAST_CHANGE,
    PRIMARY_SHARE,
    Clock,
    Decision,
    Verdict,
    error_rate_per_case,
)
from convmark.judging.history import load
from convmark.judging.judgement import BUDGET_SPENT, MACHINE_MOVED, SAME_COMMIT, Confirmation
from convmark.judging.processes import Process, baseline_runs
from convmark.judging.screen import Screening, screen, unconfirmed
from convmark.judging.spread import pooled_spread
from convmark.record import Record

__all__ = ["Finding", "Pairs", "StepTime", "confirmed", "from_history", "pairs", "screened"]

Rows = Sequence[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A case's paired log ratios by one clock: this run's processes and its baseline's runs."""

    now: list[Process]
    baseline: list[list[Process]]
    chosen: tuple[int, ...]
    """Places in the history of the runs that make the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The screenings of one case."""

    wall: Screening
    cpu: Screening | None
    """None where more than one thread may have run."""
    load_now: float | None
    load_before: float | None
    own_error: float
    """What the processes' own errors add to this run's mean."""
    processes: int
    """The case's, judged or not: what `--processes` was."""
    threads_free: bool
    """Whether the threads were the framework's own choice, on a CPU."""

    @property
    def flagged(self) -> bool:
        return self.wall.flagged or (self.cpu is not None and self.cpu.flagged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is said of a step time; changes are ln(now / before)."""

    verdict: Verdict
    estimate: float
    low: float
    high: float
    smallest_visible: float
    unconfirmed: bool = False
    note: str = ""


def pairs(now: Rows, history: Sequence[Rows], *, cpu: bool = False) -> Pairs | None:
    """Return the paired log ratios of a case; None where either side has none."""
    processes = _processes(now, cpu)
    runs = {place: run for place, rows in enumerate(history) if (run := _processes(rows, cpu))}
    if not processes or not runs:
        return None
    baseline = baseline_runs(list(runs.values()), load(now))
    chosen = [place for place, run in runs.items() if any(run is one for one in baseline)]
    return Pairs(now=processes, baseline=[runs[place] for place in chosen], chosen=tuple(chosen))


def _processes(rows: Rows, cpu: bool) -> list[Process]:
    found = []
    for row in rows:
        value = row.paired_log_ratio_cpu if cpu else row.paired_log_ratio
        error = row.paired_log_ratio_cpu_se if cpu else row.paired_log_ratio_se
        if value is not None and error is not None:
            found.append(Process(log_ratio=value, error=error, load=load([row])))
    return found


def screened(
    wall: Mapping[str, Pairs], cpu: Mapping[str, Pairs], rows: Mapping[str, Rows]
) -> dict[str, StepTime]:
    """Screen every case by its pairs, with the spread pooled over all of them, clock by clock.

    Args:
        cpu: pairs by CPU time, of cases with one thread.
        rows: the rows of this run by case, those too that are not judged.
    """
    by_wall, by_cpu = _screenings(wall), _screenings(cpu)
    found = {}
    for name, screening in by_wall.items():
        now, first = wall[name].now, rows[name][0]
        before = [process for run in wall[name].baseline for process in run]
        found[name] = StepTime(
            wall=screening,
            cpu=by_cpu.get(name),
            load_now=_mean_load(now),
            load_before=_mean_load(before),
            own_error=sum(process.error**2 for process in now) ** 0.5 / len(now),
            processes=len(rows[name]),
            threads_free=first.threads == "default" and first.device == "cpu",
        )
    return found


def _screenings(cases: Mapping[str, Pairs]) -> dict[str, Screening]:
    found = cases.values()
    spread = pooled_spread([pair.baseline for pair in found], [pair.now for pair in found])
    return {name: screen(pair.now, pair.baseline, spread) for name, pair in cases.items()}


def _mean_load(processes: Sequence[Process]) -> float | None:
    loads = [process.load for process in processes if process.load is not None]
    return sum(loads) / len(loads) if loads else None


def from_history(
    step: StepTime, flagged_cases: int, confirmation: Confirmation | None = None
) -> Finding:
    """Judge by history, where there was no live comparison; a flagged case stays unconfirmed.

    Args:
        flagged_cases: how many cases share the error rate.
        confirmation: the reason why there was no live comparison, where one was looked for.
    """
    reason = confirmation.reason if confirmation else ""
    if reason == SAME_COMMIT:
        note = f"{MACHINE_MOVED}: {SAME_COMMIT}" if step.flagged else SAME_COMMIT
        return _screen_finding(step, "unchanged", note)
    if not step.flagged:
        return _unflagged(step)
    if reason == BUDGET_SPENT:
        note = f"{BUDGET_SPENT} before a live comparison: try a larger --confirm-budget"
        return _screen_finding(step, "inconclusive", note)
    decision, clock = _history_decision(step, error_rate_per_case(flagged_cases))
    return _finding(decision, _history_note(step, decision, clock, reason), unconfirmed=True)


def _unflagged(step: StepTime) -> Finding:
    first, other = (step.cpu, step.wall) if step.cpu is not None else (step.wall, None)
    agreed = other is None or abs(other.estimate) <= LEAST_CHANGE
    if first.unchanged and agreed:
        return _screen_finding(step, "unchanged", "")
    note = _advice(step, first.smallest_visible)
    if first.unchanged:
        note = f"CPU time agrees with history, wall time does not; {note}"
    return _screen_finding(step, "inconclusive", note)


def _screen_finding(step: StepTime, verdict: Verdict, note: str) -> Finding:
    """Give the figures of the clock that was flagged, else of the primary one."""
    shown = step.wall if step.cpu is None or step.wall.flagged else step.cpu
    return Finding(
        verdict=verdict,
        estimate=shown.estimate,
        low=shown.low,
        high=shown.high,
        smallest_visible=shown.smallest_visible,
        note=note,
    )


def _history_decision(step: StepTime, error_rate: float) -> tuple[Decision, Clock]:
    if step.cpu is None:
        return unconfirmed(step.wall, error_rate), "wall"
    wall = unconfirmed(step.wall, error_rate * (1 - PRIMARY_SHARE))
    cpu = unconfirmed(step.cpu, error_rate * PRIMARY_SHARE)
    if wall.verdict in CHANGED:
        return wall, "wall"
    sure = cpu.verdict in CHANGED and wall.estimate * cpu.estimate > 0
    if sure or (cpu.verdict == "unchanged" and abs(wall.estimate) <= LEAST_CHANGE):
        return cpu, "cpu"
    shown: Clock = "wall" if step.wall.flagged else "cpu"
    chosen = wall if shown == "wall" else cpu
    return _with_verdict(chosen, "inconclusive"), shown


def _with_verdict(decision: Decision, verdict: Verdict) -> Decision:
    return Decision(
        verdict=verdict,
        estimate=decision.estimate,
        low=decision.low,
        high=decision.high,
        smallest_visible=decision.smallest_visible,
    )


def confirmed(step: StepTime | None, confirmation: Confirmation) -> Finding | None:
    """Return what the live comparison decided; None where there was none."""
    decision = confirmation.decision
    if decision is None:
        return None
    if decision.verdict == "unchanged" and step is not None and step.flagged:
        return _finding(decision, MACHINE_MOVED)
    parts = [f"{confirmation.sessions} sessions beside {confirmation.anchor[:12]}"]
    if confirmation.decided_by == "cpu":
        parts.append("by CPU time")
    if confirmation.reason == BUDGET_SPENT:
        parts.append(f"{BUDGET_SPENT}: try a larger --confirm-budget")
    elif confirmation.reason:
        parts.append(confirmation.reason)
    if decision.verdict == "inconclusive":
        free = step is not None and step.threads_free
        seen = _percent(decision.smallest_visible)
        parts.append(f"sees changes from {seen}: try {'--threads 1 or ' * free}an idle machine")
    return _finding(decision, "; ".join(parts))


def _finding(decision: Decision, note: str, *, unconfirmed: bool = False) -> Finding:
    return Finding(
        verdict=decision.verdict or "inconclusive",
        estimate=decision.estimate,
        low=decision.low,
        high=decision.high,
        smallest_visible=decision.smallest_visible,
        unconfirmed=unconfirmed,
        note=note,
    )


def _history_note(step: StepTime, decision: Decision, clock: Clock, reason: str) -> str:
    parts = ["by CPU time"] if clock == "cpu" else []
    if reason:
        parts.append(f"no live comparison: {reason}")
    else:
        parts.append("`pytest bench --benchmark-compare` confirms")
    if decision.verdict == "inconclusive":
        parts.append(_advice(step, decision.smallest_visible))
    return "; ".join(parts)


def _advice(step: StepTime, smallest_visible: float) -> str:
    """Say why history cannot tell, and what to try."""
    if not step.wall.loads_alike:
        if step.load_now is None or step.load_before is None:
            return "the load is not known: `--confirm all` compares live"
        return (
            f"loads are unlike: others took {step.load_before:.0%} of the CPU time then and "
            f"{step.load_now:.0%} now; try it on an idle machine, or `--confirm all`"
        )
    if math.isinf(smallest_visible):
        return "one baseline run convicts nobody: `--confirm all` compares live"
    more = f"--processes {2 * step.processes}"
    if step.own_error > step.wall.error / 2:
        more = "a longer --time-budget"
    threads = ", --threads 1" if step.threads_free else ""
    return f"sees changes from {_percent(smallest_visible)}: try {more}{threads} or `convmark ab`"


def _percent(log_ratio: float) -> str:
    """Return a change as per cent, from its logarithm."""
    return f"{100 * math.expm1(log_ratio):.1f} %" if log_ratio < 50 else "no size"
