"""What changed between two values of a column: a change of the step time, its interval, a verdict.

The runs of a value were not made beside those of another, so what is assumed is said in `basis`:

- `pairs`: runs of the two values that follow each other are pairs, of which there are three or
  more. Each pair is a session of the rule that decides live comparisons, and the interval is the
  rule's. The two must share the code's files, the conditions and the load of the machine.
- `runs`: a value of the case has several runs. Runs are assumed to be independent, and to differ as
  much at every value; a machine that changes between the runs of one value and those of another is
  not seen, so there is no verdict.
- `processes`: each value has one run. Its processes are assumed to be independent. How runs differ
  is not in the interval, so it says something of these runs alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import fmean

from convmark.compare.comparability import (
    Comparability,
    Conditions,
    comparable,
    differing,
    loads_alike,
)
from convmark.compare.history import BASELINE_RUNS, same_code
from convmark.compare.judgement import SAME_CODE
from convmark.compare.rule.decision import CaseSessions, Decision, decide
from convmark.compare.rule.statistics import pooled_variance
from convmark.core.interval import NOT_KNOWN, Interval, by_change, interval_text, share_of
from convmark.core.statistics import interval_around
from convmark.core.text import load_text
from convmark.report.measured import MAY_BEND, are_apart, unlike_words
from convmark.report.ratios import ratio
from convmark.results.record import (
    FRAMEWORK_COLUMNS,
    Record,
    doubt_words,
    large_load,
    that_count,
)

LEAST_PAIRS = 3
"""Of runs, for a verdict: a change is never convicted by two sessions, nor ruled out by few runs
that agree by luck."""

SOFTWARE = frozenset(
    ("tensorflow", "jax", "torch", "keras", "numpy", "python", "packages", "cuda", "cudnn")
)
"""Facts that come along where one of them is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Between two values of a column, in one case. Shares of the step time; above 0 is slower."""

    change: float
    interval: Interval = NOT_KNOWN
    basis: str = ""
    """What the interval comes from: pairs, runs or processes; empty where none is known."""
    verdict: str = ""
    """Empty where the runs allow none."""
    note: str = ""
    """Why there is no verdict, and what else differs."""

    @property
    def words(self) -> str:
        """Whether it is slower or faster, with the figures."""
        figures = interval_text(self.change, self.interval)
        if not self.interval.known:
            return f"{figures}, no interval"
        if 0 in self.interval:
            return f"not distinguishable: {figures}"
        here = {"processes": " in these runs", "pairs": " over pairs of runs"}.get(self.basis, "")
        return f"{'slower' if self.change > 0 else 'faster'}{here}: {figures}"


@dataclass(frozen=True, slots=True)
class Value:
    """The runs of one case at one value that are alike, oldest first."""

    runs: tuple[tuple[int, tuple[Record, ...]], ...]
    """Of each run its place among all runs, and its rows that count."""
    without: str = ""
    """Which processes are in no figure, and what is doubtful of those that are; or empty."""

    @classmethod
    def of(cls, runs: Mapping[int, Sequence[Record]]) -> Value:
        """Return the newest run and those before it with the same code, conditions and budget.

        Args:
            runs: the measured rows of each run, by its place; at least one.
        """
        places = sorted(runs, reverse=True)
        kept: list[tuple[int, tuple[Record, ...]]] = []
        for place, rows in zip(places, that_count([runs[one] for one in places]), strict=True):
            more = rows and len(kept) < BASELINE_RUNS
            if more and (not kept or _alike(kept[0][1], rows)):
                kept.append((place, tuple(rows)))
        newest = runs[places[0]]
        if kept[0][0] != places[0]:
            without = f"of an earlier run, as the newest is not judged: {newest[0].not_judged}"
        else:
            every = [row for place, _ in kept for row in runs[place]]
            without = doubt_words(every, [row for _, rows in kept for row in rows])
        return cls(tuple(reversed(kept)), without)

    @property
    def rows(self) -> list[Record]:
        return [row for _, rows in self.runs for row in rows]

    @property
    def loaded(self) -> str:
        """Say under how much other load a run of these was measured; empty where it was little."""
        loads = (large_load(row.other_cpu_share for row in rows) for _, rows in self.runs)
        load = max((one for one in loads if one is not None), default=None)
        several = " in one run or more" * (len(self.runs) > 1)
        return f"under {load_text(load)} other load{several}" if load else ""

    @property
    def logs(self) -> dict[int, float]:
        """Of each run that has one its mean ln(step time), by its place."""
        times = {
            place: [row.step_time_p50_s for row in rows if row.step_time_p50_s]
            for place, rows in self.runs
        }
        return {place: fmean(map(math.log, known)) for place, known in times.items() if known}

    @property
    def step_time_s(self) -> float | None:
        """The geometric mean over runs of those over processes."""
        logs = self.logs
        return math.exp(fmean(logs.values())) if logs else None

    @property
    def facts(self) -> Comparability:
        """What the newest run must share with another to be compared."""
        return Conditions.of(self.runs[-1][1][0]).facts


def _alike(newest: Sequence[Record], rows: Sequence[Record]) -> bool:
    one, other = (Conditions.of(group[0]).facts for group in (newest, rows))
    same_budget = newest[0].time_budget_s == rows[0].time_budget_s
    return same_budget and comparable(one, other) and same_code(newest, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two values of a case that are compared."""

    old: Value
    new: Value
    others: Sequence[Value]
    """All values of the case, whose runs tell how runs differ."""


def changes(
    pairs: Sequence[Pair], column: str, files_of: Callable[[str], str], *, judged: bool = True
) -> list[Change | None]:
    """Return the change of each pair; None where a side has no step time.

    Args:
        pairs: all of one table, which share the error rate of its verdicts.
        files_of: the hash of a code's files without its packages; empty where it is not known.
        judged: whether the values may have a verdict: one is older than the other.
    """
    refused = [
        _why_not_judged(pair, column, files_of) if judged else "never judged" for pair in pairs
    ]
    sessions = [
        CaseSessions(wall=[] if why else _sessions(pair))
        for pair, why in zip(pairs, refused, strict=True)
    ]
    decisions = decide(sessions) if any(one.wall for one in sessions) else [None] * len(pairs)
    return [
        _change(pair, decision, why if judged else "", _along(pair, column, files_of, judged))
        for pair, decision, why in zip(pairs, decisions, refused, strict=True)
    ]


def _sessions(pair: Pair) -> list[float]:
    """Return ln(new / old) of runs that follow each other, each run in one pair at most."""
    sides = ((1, pair.new.logs), (-1, pair.old.logs))
    ordered = sorted((place, sign, log) for sign, logs in sides for place, log in logs.items())
    found: list[float] = []
    at = 0
    while at + 1 < len(ordered):
        (_, sign, log), (_, other, next_log) = ordered[at], ordered[at + 1]
        if sign != other:
            found.append(sign * (log - next_log))
        at += 2 if sign != other else 1
    return found


def _why_not_judged(pair: Pair, column: str, files_of: Callable[[str], str]) -> str:
    """Return why the runs of a pair allow no verdict; empty where they do."""
    along = SOFTWARE if column in SOFTWARE else frozenset()
    others = [
        name for name in differing(pair.new.facts, pair.old.facts) if name not in (*along, column)
    ]
    is_same = column == "commit" or _are_same_files(pair, files_of)
    if is_same is False:
        others.append("code")
    if others:
        return f"differs too: {', '.join(name.replace('_', ' ') for name in others)}"
    if is_same is None:
        return "code not known"
    if column == "commit" and same_code(pair.old.rows, pair.new.rows):
        return SAME_CODE
    return _why_not_paired(pair)


def _are_same_files(pair: Pair, files_of: Callable[[str], str]) -> bool | None:
    """Return whether both values ran the same files; None where that is not known."""
    if same_code(pair.old.rows, pair.new.rows):
        return True
    files = {files_of(row.code or "") for row in pair.old.rows + pair.new.rows}
    return None if "" in files else len(files) == 1


def _why_not_paired(pair: Pair) -> str:
    """Return why the runs of a pair make no sessions; empty where they do."""
    if reason := next(
        (row.not_judged for row in pair.old.rows + pair.new.rows if row.not_judged), ""
    ):
        return f"not judged: {reason}"
    count = len(_sessions(pair))
    if count < LEAST_PAIRS:
        return f"{count} of {LEAST_PAIRS} pairs of runs that alternate"
    return "" if loads_alike(pair.old.rows, pair.new.rows) else "the load differed or is not known"


def _along(pair: Pair, column: str, files_of: Callable[[str], str], judged: bool) -> str:
    """Say what is not the same at both values, besides the column's own and what bars a verdict."""
    own = {column, *(FRAMEWORK_COLUMNS if column == "backend" else ())}
    told = SOFTWARE if judged else SOFTWARE.union(MAY_BEND) - {"driver"}  # each card has its own
    names = [name for name in differing(pair.new.facts, pair.old.facts) if name in told - own]
    if judged and column not in SOFTWARE:
        names = []  # that is why there is no verdict
    old, new = (value.rows[-1] for value in (pair.old, pair.new))
    if old.time_budget_s != new.time_budget_s:
        names.append("time budget")
    if judged:
        return f"not the same: {', '.join(names)}" if names else ""
    if _are_same_files(pair, files_of) is False:
        names.append("code")
    return unlike_words(name.replace("_", " ") for name in names)


def _change(pair: Pair, decision: Decision | None, why: str, software: str) -> Change | None:
    old, new = pair.old.logs, pair.new.logs
    if not old or not new:
        return None
    note = "; ".join(filter(None, [why, software, _rate_words(pair)]))
    verdict = "unchanged" if why == SAME_CODE else ""
    if decision is not None and decision.estimate is not None:
        return Change(
            change=share_of(decision.estimate),
            interval=decision.interval.shares(),
            basis="pairs",
            verdict=decision.plain_verdict,
            note=note,
        )
    estimate = fmean(new.values()) - fmean(old.values())
    within, freedom = pooled_variance(value.logs.values() for value in pair.others)
    if freedom:
        error = math.sqrt(within * (1 / len(old) + 1 / len(new)))
        return Change(
            change=share_of(estimate),
            interval=interval_around(estimate, error, freedom).shares(),
            basis="runs",
            verdict=verdict,
            note=note,
        )
    found = ratio(_times(pair.new), _times(pair.old))
    if found is None or not found.interval.known:
        return Change(change=share_of(estimate), verdict=verdict, note=note)
    return Change(
        change=share_of(estimate),
        interval=found.interval.mapped(lambda ratio: ratio - 1),
        basis="processes",
        verdict=verdict,
        note=note,
    )


def _rate_words(pair: Pair) -> str:
    """Say how the throughput changed where that contradicts the step time; or empty."""
    sides = [value.rows for value in (pair.new, pair.old)]
    rates = [[row.throughput_samples_per_s or 0.0 for row in rows] for rows in sides]
    times_s = [[row.step_time_p50_s or 0.0 for row in rows] for rows in sides]
    quotients = (list(map(mul, *both)) for both in zip(rates, times_s, strict=True))
    change = ratio(*rates) if are_apart(ratio(*quotients)) else None
    return f"samples/s changed {by_change(change.value - 1)}" if change else ""


def _times(value: Value) -> list[float]:
    return [row.step_time_p50_s for row in value.rows if row.step_time_p50_s]
