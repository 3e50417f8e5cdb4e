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
    beyond_margin,
    error_rate_per_case,
)
from convmark.judging.history import Anchor, load
from convmark.judging.judgement import (
    MACHINE_MOVED,
    SAME_CODE,
    SAME_COMMIT,
    Confirmation,
)
from convmark.judging.processes import Process, baseline_runs
from convmark.judging.screen import Screening, screen, unconfirmed
from convmark.judging.spread import pooled_spread
from convmark.record import Record

__all__ = [
    "Finding",
    "Ground",
    "Pairs",
    "StepTime",
    "confirmed",
    "from_history",
    "pairs",
    "screened",
]

SHOWN = 12
"""Characters of a commit that a note names."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is known of the code beside the figures."""

    same_code: bool = False
    """Whether the anchor is known to have run the same code."""
    anchor: Anchor | None = None

    @property
    def lost(self) -> str:
        """Why the anchor's code cannot be run, and what helps; empty where it can."""
        return self.anchor.lost if self.anchor else ""

    @property
    def commit(self) -> str:
        """The anchor's commit as a user names it; empty where it has none that is clean."""
        return self.anchor.clean_commit[:SHOWN] if self.anchor else ""


def from_history(
    step: StepTime,
    flagged_cases: int,
    confirmation: Confirmation | None = None,
    ground: Ground = Ground(),
) -> Finding:
    """Judge by history, where there was no live comparison; a flagged case stays unconfirmed.

    Args:
        flagged_cases: how many cases share the error rate.
        confirmation: the reason why there was no live comparison, where one was looked for.
    """
    reason = confirmation.reason if confirmation else ""
    if ground.same_code or reason in (SAME_CODE, SAME_COMMIT):
        return _of_same_code(step, known=ground.same_code or reason == SAME_CODE)
    if confirmation and confirmation.cut_short:
        return _screen_finding(step, "inconclusive", confirmation.described_reason)
    if not step.flagged:
        return _unflagged(step, confirmation, ground)
    decision, clock = _history_decision(step, error_rate_per_case(flagged_cases))
    if decision.verdict == "unchanged" and _beyond(step) is not None:
        decision = _with_verdict(decision, "inconclusive")
    note = _history_note(step, decision, clock, confirmation, ground)
    return _finding(decision, note, unconfirmed=True)


def _of_same_code(step: StepTime, *, known: bool) -> Finding:
    """Say unchanged of the code, unless the figures lie beyond the margin all the same.

    Args:
        known: whether the code is known to be equal by its hash; else git alone says so.
    """
    why = SAME_CODE if known else SAME_COMMIT
    beyond = _beyond(step)
    if beyond is None:
        moved = known and step.flagged
        return _screen_finding(step, "unchanged", f"{MACHINE_MOVED}: {why}" if moved else why)
    if known:
        unseen = (
            "something that convmark does not see has changed (a file read by native code, a "
            "service, the machine)"
        )
        note = f"{why}, same state, yet {_moved(beyond)}: {unseen}: run it again"
    else:
        unseen = "a file that git does not watch, or the machine, has changed"
        note = f"{why}, yet {_moved(beyond)}: {unseen}: run it again"
    return _screen_finding(step, "inconclusive", note, beyond)


def _beyond(step: StepTime) -> Screening | None:
    """Return the clock whose interval leaves out every change within the margin; None for none."""
    clocks = (step.wall, step.cpu)
    return next((one for one in clocks if one and beyond_margin(one.low, one.high)), None)


def _moved(screening: Screening) -> str:
    way = "slower" if screening.estimate > 0 else "faster"
    return f"{way} by {100 * abs(math.expm1(screening.estimate)):.1f} %"


def _unflagged(step: StepTime, confirmation: Confirmation | None, ground: Ground) -> Finding:
    """Say unchanged where the history does, unless other code was there that could not be run."""
    first, other = (step.cpu, step.wall) if step.cpu is not None else (step.wall, None)
    agreed = other is None or abs(other.estimate) <= LEAST_CHANGE
    failed = confirmation is not None and bool(confirmation.anchor)
    if first.unchanged and agreed and not failed:
        return _screen_finding(step, "unchanged", "")
    parts = [confirmation.described_reason if confirmation else ground.lost]
    if first.unchanged and not agreed:
        parts.append("CPU time agrees with history, wall time does not")
    if not first.unchanged:
        live = confirmation is None and not ground.lost
        parts.append(_advice(step, first.smallest_visible, live=live))
    return _screen_finding(step, "inconclusive", "; ".join(filter(None, parts)))


def _screen_finding(
    step: StepTime, verdict: Verdict, note: str, shown: Screening | None = None
) -> Finding:
    """Give the figures of a clock: that which was flagged, else the primary one."""
    if shown is None:
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


def confirmed(
    step: StepTime | None,
    confirmation: Confirmation,
    ground: Ground = Ground(),
) -> Finding | None:
    """Return what the live comparison decided; None where there was none.

    `unchanged` is taken back where the history lies beyond the margin: one of the two is wrong.
    """
    decision = confirmation.decision
    if decision is None:
        return None
    parts = [f"{confirmation.sessions} sessions beside {confirmation.anchor}"]
    if confirmation.decided_by == "cpu":
        parts.append("by CPU time")
    if confirmation.reason:
        parts.append(confirmation.reason)
    if decision.verdict == "inconclusive":
        seen = _percent(decision.smallest_visible)
        parts.append(f"sees changes from {seen}: try {_live_advice(step, ground)}")
    if decision.verdict == "unchanged":
        decision, doubt = _doubted(decision, step)
        parts += [doubt] if doubt else []
    return _finding(decision, "; ".join(parts))


_DOUBTED_FROM = math.log(1.25)


def _doubted(decision: Decision, step: StepTime | None) -> tuple[Decision, str]:
    """Take `unchanged` back where its interval, or the history by far, is beyond the margin.

    By less than `_DOUBTED_FROM` the history is not believed: a machine's ratio of case to reference
    moves by some per cent from day to day, on identical code too.
    """
    beyond = _beyond(step) if step is not None else None
    if beyond is not None and abs(beyond.estimate) > _DOUBTED_FROM:
        doubt = (
            f"no change beside it, yet {_moved(beyond)} than its history: both sides may have read "
            "the same changed file, or the machine has changed: run it again, and where that stays "
            "`convmark accept` the new run"
        )
        return _with_verdict(decision, "inconclusive"), doubt
    if beyond_margin(decision.low, decision.high):
        return _with_verdict(decision, "inconclusive"), ""
    return decision, ""


def _live_advice(step: StepTime | None, ground: Ground) -> str:
    """Say what sees a smaller change live; one thread is another case, which needs both sides."""
    if step is not None and step.threads_free and ground.commit:
        return f"`convmark ab git:{ground.commit} . --threads 1` or an idle machine"
    return "an idle machine"


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


def _history_note(
    step: StepTime,
    decision: Decision,
    clock: Clock,
    confirmation: Confirmation | None,
    ground: Ground,
) -> str:
    parts = [confirmation.described_reason if confirmation else ground.lost]
    if clock == "cpu":
        parts.append("by CPU time")
    if not parts[0]:
        parts.append(f"{_LIVE} confirms")
    if decision.verdict == "inconclusive":
        parts.append(_advice(step, decision.smallest_visible, live=False))
    return "; ".join(filter(None, parts))


def _advice(step: StepTime, smallest_visible: float, *, live: bool) -> str:
    """Say why history cannot tell, and what to try.

    Args:
        live: whether a live comparison was not made and can be.
    """
    if not step.wall.loads_alike:
        if step.load_now is None or step.load_before is None:
            return "the load is not known" + f": {_LIVE} compares live" * live
        return (
            f"loads are unlike: others took {step.load_before:.0%} of the CPU time then and "
            f"{step.load_now:.0%} now; measure it under the load of then" + f", or {_LIVE}" * live
        )
    if math.isinf(smallest_visible):
        return "one baseline run convicts nobody"
    more = f"--processes {2 * step.processes}"
    if step.own_error > step.wall.error / 2:
        more = "a longer --time-budget"
    seen = _percent(smallest_visible)
    return f"sees changes from {seen}: try {more}" + f" or {_LIVE}" * live


_LIVE = "`pytest bench --benchmark-compare`"


def _percent(log_ratio: float) -> str:
    """Return a change as per cent, from its logarithm."""
    return f"{100 * math.expm1(log_ratio):.1f} %" if log_ratio < 50 else "no size"
