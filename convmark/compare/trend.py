"""A case over all runs of a machine: series under one set of conditions, and the levels in them.

A run's value is the mean over its processes of ln(case / reference): what moved the whole machine
moved the reference too. Runs under other software, another state or another machine make a series
of their own, and so do those of a model of other sizes, or of another time budget; the difference
is named. Runs under another load are left out: a load moves the ratio of identical code.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any

from convmark.compare.comparability import ALIKE_LOAD, Comparability, comparable, difference
from convmark.compare.rule.change_points import Level, Run, levels
from convmark.compare.rule.ratio_levels import Ratio, ratio_levels
from convmark.compare.sessions_file import LiveLevel
from convmark.core.git import SHOWN, Git
from convmark.core.statistics import median_of
from convmark.core.text import counted

SIZES = ("parameters", "flops_per_sample")
SHARED = (*SIZES, "time_budget_s")
"""What runs of a series share besides their conditions, where it is known."""
EARLIER = "earlier commits"
"""Stands for the anchors of gates that had several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a case: its judged processes."""

    run: str
    commit: str
    """In full, where the run's files were the commit's; empty where they were not."""
    log_ratio: float
    """Mean of ln(case / reference)."""
    variance: float | None
    """Of it between processes; None below two."""
    processes: int
    load: float | None
    """Share of the CPUs' time that others took."""
    step_time_p50_s: float | None
    conditions: Comparability
    source: int = 0
    """Which file it is of, where several are read together."""
    live: LiveLevel | None = None
    """What its live sessions have seen; None without."""
    parameters: int | None = None
    flops_per_sample: float | None = None
    time_budget_s: float | None = None
    counting_version: str = ""
    """Of the rules of these FLOPs; empty where the rows do not tell it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The runs of a level, or of a creep."""

    points: Sequence[Point]
    level: Level
    before: Point | None = None
    """The last run before it; None for the first of a series."""
    conditions: str = ""
    """Of the first of a series: what its runs differ in from those of the series before."""
    beside: str = ""
    """The anchor beside which gates have seen the change, or `EARLIER`; empty where the runs' own
    figures show it."""

    @property
    def step_time_p50_s(self) -> float | None:
        """The median over the runs."""
        return median_of(one.step_time_p50_s for one in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What all runs of a case say."""

    stretches: Sequence[Stretch] = ()
    """Series by series, the one with the oldest run first."""
    left_out: Sequence[Point] = field(default=())
    """Runs under another load than that of their series."""


def trend(points: Sequence[Point]) -> Trend:
    """Return the levels of a case from its runs, oldest first.

    A change that the sessions of gates have seen stands for the one that the runs' own figures
    show at that time, if they show one: the sessions are sharper, and no load moves them. They know
    nothing of the runs after the last gate.
    """
    found: list[Stretch] = []
    left_out: list[Point] = []
    before: Point | None = None
    for series in _series(points):
        loads = [point.load for point in series if point.load is not None]
        usual = median_low(loads) if loads else 0.0  # that of a run, which is kept
        kept: list[Point] = []
        busy: list[Point] = []
        for point in series:
            is_busy = point.load is not None and abs(point.load - usual) > ALIKE_LOAD
            (busy if is_busy else kept).append(point)
        text = _difference(points, kept[0], before) if before else ""
        own, live = _stretches(kept, text), _seen_live(series)
        between, late = _by_gates(own, series) if live else (0, ())
        if live and between < 2:
            first, *others, last = live
            end = series.index(late[0].points[0]) if late else len(series)
            last = replace(last, points=last.points[: end - series.index(last.points[0])])
            apart = set(map(id, busy))
            head = [point for point in first.points if id(point) not in apart]
            told = [*(first.points if head else ()), *series[end:]]
            busy = [point for point in told if id(point) in apart]
            own = [*_stretches(head or first.points, text), *others, last, *late]
        found += own
        left_out += busy
        before = kept[-1]
    return Trend(stretches=found, left_out=left_out)


def _difference(points: Sequence[Point], first: Point, before: Point) -> str:
    """Return what the first run of a series differs in from one of the series before.

    In sizes and budget from the last run that was made before it under the same conditions.
    """
    place = next(place for place, point in enumerate(points) if point is first)
    earlier = (
        _unlike(one, first)
        for one in reversed(points[:place])
        if comparable(first.conditions, one.conditions)
    )
    unlike = next(filter(None, earlier), "")
    return "; ".join(filter(None, [unlike, difference(first.conditions, before.conditions)]))


def _unlike(then: Point, now: Point) -> str:
    """Return what besides the conditions two runs differ in; empty where in nothing known."""
    sizes, budget = [], ""
    for name in SHARED:
        if name == "flops_per_sample" and then.counting_version != now.counting_version:
            continue
        was, is_now = getattr(then, name), getattr(now, name)
        if None in (was, is_now) or was == is_now:
            continue
        if name in SIZES:
            label = name.replace("flops_per_sample", "FLOPs per sample")
            sizes.append(f"{label} {was:,.0f} -> {is_now:,.0f}")
        else:
            budget = f"time budget was {was:g} s, is {is_now:g} s"
    model = f"another model than run {then.run}: {', '.join(sizes)}" * bool(sizes)
    return "; ".join(filter(None, [model, budget]))


def _by_gates(
    stretches: Sequence[Stretch], series: Sequence[Point]
) -> tuple[int, Sequence[Stretch]]:
    """Return how many changes begin from the first gate to the last, and the levels from then on.

    The levels begin with the first change after the last gate; there are none without one.
    """
    first, last = _gates(series)[0], _gates(series)[-1]
    changes = [
        (series.index(one.points[0]), number)
        for number, one in enumerate(stretches)
        if one.level.change is not None
    ]
    later = [number for place, number in changes if place > last]
    between = sum(first <= place <= last for place, _ in changes)
    return between, stretches[later[0] :] if later else ()


def _series(points: Sequence[Point]) -> list[list[Point]]:
    """Return the runs of each set of conditions and sizes, wherever they stand in time.

    FLOPs that other rules have counted tell nothing of the model.
    """
    found: list[tuple[list[Point], dict[Any, Any]]] = []
    known: dict[tuple[Any, ...], tuple[list[Point], dict[Any, Any]]] = {}
    for point in points:
        own = {
            (name, point.counting_version if name == "flops_per_sample" else ""): value
            for name in SHARED
            if (value := getattr(point, name)) is not None
        }
        key = (point.conditions, *own.items())
        if key not in known:
            same = (one for one in reversed(found) if _joins(point, own, *one))
            known[key] = next(same, ([], {}))
            if not known[key][0]:
                found.append(known[key])
        series, shared = known[key]
        series.append(point)
        shared |= own
    return [series for series, _ in found]


def _joins(
    point: Point, own: Mapping[Any, Any], series: Sequence[Point], shared: Mapping[Any, Any]
) -> bool:
    alike = all(shared.get(name, value) == value for name, value in own.items())
    return alike and comparable(point.conditions, series[-1].conditions)


def _stretches(series: Sequence[Point], conditions: str) -> list[Stretch]:
    runs = [Run(value=point.log_ratio, processes=point.processes) for point in series]
    freedom = sum(one.processes - 1 for one in series if one.variance is not None)
    squares = sum((one.processes - 1) * (one.variance or 0.0) for one in series)
    found = levels(runs, squares / freedom if freedom else 0.0)
    return [
        Stretch(
            points=series[level.first : level.last + 1],
            level=level,
            before=series[level.first - 1] if level.first else None,
            conditions="" if level.first else conditions,
        )
        for level in found
    ]


def _seen_live(series: Sequence[Point]) -> list[Stretch]:
    """Return the levels by the sessions of the runs that were gates; none where they do not move.

    The place of a code that a gate ran beside its own is that of the run that had it. What else the
    series has belongs to the level that its place is in.
    """
    gates = _gates(series)
    old = {gate: _place_of_old(series, gate) for gate in gates}
    places = sorted({*gates, *(place for place in old.values() if place is not None)})
    number = {place: n for n, place in enumerate(places)}
    ratios = [
        Ratio(
            sessions=live.sessions,
            new=number[gate],
            old=number[place] if (place := old[gate]) is not None else None,
            beside=live.old_code,
        )
        for gate in gates
        if (live := series[gate].live)
    ]
    levels = ratio_levels(ratios, len(places))
    begins = [0, *(places[level.first] for level in levels[1:]), len(series)]
    anchors = {live.anchor for gate in gates if (live := series[gate].live)}
    beside = anchors.pop() if len(anchors) == 1 else EARLIER
    return [
        Stretch(
            points=series[first:end],
            level=level,
            before=series[places[level.first - 1]] if first else None,
            beside=beside if level.change is not None else "",
        )
        for level, (first, end) in zip(levels, itertools.pairwise(begins), strict=False)
    ]


def _gates(series: Sequence[Point]) -> list[int]:
    """Return the places of the runs that were gates, of the kind that most are."""
    kinds = Counter(point.live.kind for point in series if point.live)
    newest = next((point.live.kind for point in reversed(series) if point.live), None)
    alike = [kind for kind in kinds if newest and kind[0] == newest[0]]
    kind = max(alike, key=lambda one: (kinds[one], one == newest), default=None)
    return [n for n, point in enumerate(series) if point.live and point.live.kind == kind]


def _place_of_old(series: Sequence[Point], gate: int) -> int | None:
    """Return the place of an earlier run that had the code which a gate ran beside its own."""
    live = series[gate].live
    assert live is not None
    for place in range(gate - 1, -1, -1):
        earlier = series[place].live
        if earlier and earlier.new_code == live.old_code:
            return place
    commits = (point.commit for point in series[:gate])
    of_commit = (n for n, one in enumerate(commits) if live.anchor and one.startswith(live.anchor))
    return next(of_commit, None)


class Commits:
    """What a repository says of commits; each question is asked once."""

    def __init__(self, folder: Path) -> None:
        self._answer = functools.cache(Git.at(folder).answer)

    def parent(self, commit: str) -> str:
        """Return a commit's first parent; empty where it has none, or is not known."""
        return (self._answer("rev-parse", "--verify", "--quiet", f"{commit}^") or "").strip()

    def knows(self, commit: str) -> bool:
        return self._answer("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def steps(self, old: str, new: str) -> int | None:
        """Return how many first parents lead from a commit to an older one; None where none do."""
        if self._answer("merge-base", "--is-ancestor", old, new) is None:
            return None
        counted = self._answer("rev-list", "--count", "--first-parent", f"{old}..{new}")
        return int(counted) if counted else None


def live_comparison(stretch: Stretch, commits: Commits) -> list[str]:
    """Return the commands that compare a change's commits live, or a line that says why none does.

    A creep is compared as a whole, a step's commit with its parent.
    """
    level, facts = stretch.level, stretch.points[-1].conditions
    if level.change is None or stretch.before is None:
        return []
    if facts.replicas > 1:
        return ["several replicas are not compared live: convmark ab takes one"]
    ends = stretch.before, stretch.points[-1 if level.creep else 0]
    for point in ends:
        if not point.commit:
            return [f"run {point.run} ran files that no commit has: measure again from a commit"]
    old, new = (point.commit for point in ends)
    first, last = old[:SHOWN], new[:SHOWN]
    if old == new:
        moved = "the machine caused it, or a file that git does not track"
        return [f"both sides ran commit {first}: {moved}"]
    case = shlex.join(word for name, text in facts.options.items() for word in (f"--{name}", text))
    both = f"convmark ab git:{first} git:{last} {case}"
    if unknown := [commit[:SHOWN] for commit in (old, new) if not commits.knows(commit)]:
        here = f"git knows no commit {' and '.join(unknown)} here; in the models' repository:"
        return [here, both]
    steps = commits.steps(old, new)
    if level.creep or steps is None or steps <= 1:
        return [both]
    return [
        f"{counted(steps - 1, 'commit')} before it not measured{' live' * bool(stretch.beside)}; "
        "the second command finds which it was:",
        f"convmark ab git:{commits.parent(new)[:SHOWN]} git:{last} {case}",
        f"convmark bisect --good git:{first} --bad git:{last} {case}",
    ]
