"""What can be set side by side: the runs of like cases, with all facts that tell them apart.

The page pairs them: two sides differ in one axis, and are alike in every other fact. What comes
with an axis (another machine has another driver) is not held alike, but named.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from convmark.compare.comparability import Comparability, facts_of, told_always
from convmark.core.statistics import CONFIDENCE, grouped, is_known, t_quantile
from convmark.core.text import DIRTY, commit_text, load_text
from convmark.report.ratios import LEAST_PROCESSES, Units, geometric_mean, ratio
from convmark.report.rows import POINT, judged_rows, left_out_text, records_of, text_of
from convmark.report.tables.answers import Versions
from convmark.results.code.manifest import files_hash_of
from convmark.results.record import large_load
from convmark.results.store import RunSource

if TYPE_CHECKING:
    import pandas as pd

MOST_SIDES = 4000
"""Beyond them each case keeps its newest on each hardware and version, so that a page is small."""

_FEWEST = 2
"""That a case keeps on each hardware and version."""

_MOST_RUNS = 10
"""Of a side, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What two sides differ in."""

    key: str
    title: str
    along: tuple[str, ...] = ()
    """Facts that come with it."""


_SOFTWARE = ("keras", "numpy", "cuda", "cudnn", "packages")
AXES = (
    Axis(
        key="hardware",
        title="machine and device",
        along=("gpu", "mig", "ecc", "driver", "cuda", "cudnn", "os"),
    ),
    Axis(key="framework", title="version of the framework", along=_SOFTWARE),
    Axis(key="keras", title="version of Keras", along=("packages",)),
    Axis(
        key="backend",
        title="backend",
        along=("framework", *_SOFTWARE, "training", "flags", "state"),
    ),
    Axis(key="precision", title="precision", along=("state",)),
    Axis(key="jit", title="compiler (jit)"),
    Axis(key="replicas", title="replicas", along=("cluster",)),
    Axis(key="threads", title="threads"),
    Axis(key="cpus", title="CPUs that the process is bound to"),
    Axis(key="python", title="version of Python", along=("packages",)),
    Axis(key="driver", title="GPU driver"),
    Axis(key="commit", title="commit", along=("packages",)),
    Axis(key="batch_size", title="batch size"),
)
"""In the order in which a page looks for the one that it opens on."""

_CASE = (
    *("model", "task", "batch_size", "precision", "jit", "replicas", "cluster", "threads"),
    "cpus",
    *("backend", "runtime", "recipe", "asked_shape", "training"),
)
"""Facts that make a case, wherever it is measured."""

_LEFT_OUT = (
    *("machine", "device", "tensorflow", "jax", "torch", "dataset", "fraction", "epochs"),
    *("reference", "reference_version"),
)
"""Of what makes rows comparable: what `hardware` and `framework` say, and what no step time is
of."""

_OTHERS = tuple(
    field.name
    for field in fields(Comparability)
    if field.name not in (*_CASE, *_LEFT_OUT, "python", "keras")
)
FACTS = (*_CASE, "hardware", "framework", "keras", "python", *_OTHERS)
"""In the order in which a difference is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The newest processes and runs of a case under the same facts, of the same code and commit."""

    facts: tuple[str, ...]
    """By `FACTS`; empty where one is not known."""
    code: str
    """Of the files and packages; empty where it is not known."""
    files: str
    """Of the files alone; empty where it is not known."""
    commit: str
    day: str
    run: str
    place: int
    """The run's place among all, the oldest first."""
    times_s: tuple[float, ...]
    """The median step time of each process."""
    processes: tuple[int, ...]
    """Their numbers in the run."""
    runs: tuple[tuple[int, float], ...]
    """Each run's place, and the geometric mean of the step times of its processes, the newest
    last."""
    loads: tuple[tuple[int, float], ...]
    """By the place of each run the other programs' share of the CPUs' time; 0 where not large."""
    doubt: str
    """What to be wary of."""

    def fact(self, name: str) -> str:
        return self.facts[FACTS.index(name)]

    @property
    def is_known(self) -> bool:
        """Whether it is known which code ran."""
        return bool(self.code or (self.commit and not self.commit.endswith(DIRTY)))

    def identity(self, axis: Axis) -> str:
        """Return which code ran; where other versions of packages come with the axis, which files.

        Where the files are not known the packages count too, and where no code is, the commit does.
        """
        files = self.files if "packages" in axis.along else ""
        return files or self.code or f"commit {self.commit}"

    def units(self, *, by_run: bool) -> Units:
        """Return the times of its runs, or of its processes by the run and the process."""
        if by_run:
            return {run: [time_s] for run, time_s in self.runs}
        pairs = zip(self.processes, self.times_s, strict=True)
        return {(self.place, number): [time_s] for number, time_s in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """All that a page can set side by side."""

    sides: tuple[Side, ...]
    """The oldest first."""
    kept: int
    """The most runs of a case on one hardware and version that are in it."""
    left_out: int
    """Older ones, for which a page has no room."""

    def as_data(self) -> dict[str, Any]:
        """Return it as the script reads it: each distinct text once, the oldest run first."""
        kinds = _numbered(side.facts for side in self.sides)
        values = [_numbered(column) for column in zip(*kinds, strict=True)]
        runs = _numbered(side.place for side in self.sides)
        labels = {side.place: side.run for side in self.sides}
        days = {
            place: min(side.day for side in its_own)
            for place, its_own in itertools.groupby(self.sides, key=lambda side: side.place)
        }
        processes = _numbered(side.processes for side in self.sides)
        codes = _numbered((side.code, side.files) for side in self.sides)
        commits = _numbered(side.commit for side in self.sides)
        doubts = _numbered(side.doubt for side in self.sides)
        return {
            "axes": [{"key": a.key, "title": a.title, "along": a.along} for a in AXES],
            "facts": [{"key": name, "title": name.replace("_", " ")} for name in FACTS],
            "case": _CASE,
            "values": [list(value) for value in values],
            "kinds": [
                [value[text] for value, text in zip(values, kind, strict=True)] for kind in kinds
            ],
            "runs": [(labels[place], days[place]) for place in runs],
            "places": list(runs),
            "processes": list(processes),
            "codes": list(codes),
            "commits": list(commits),
            "doubts": list(doubts),
            "sides": {
                "kind": [kinds[side.facts] for side in self.sides],
                "run": [runs[side.place] for side in self.sides],
                "code": [codes[side.code, side.files] for side in self.sides],
                "commit": [commits[side.commit] for side in self.sides],
                "doubt": [doubts[side.doubt] for side in self.sides],
                "processes": [processes[side.processes] for side in self.sides],
                "times": [[float(f"{t:.7g}") for t in side.times_s] for side in self.sides],
                "earlier": [
                    [(place, float(f"{t:.7g}")) for place, t in side.runs[:-1]]
                    for side in self.sides
                ],
            },
            "kept": self.kept,
            "left_out": self.left_out,
            "fewest": LEAST_PROCESSES,
            "quantiles": _quantiles(),
        }


_STEPS = 250
"""Of the inverse of the degrees of freedom, from 0 to 1/2: fewer than two on a side are none."""


@functools.cache
def _quantiles() -> list[float]:
    """Return Student's quantiles by the inverse degrees of freedom, in even steps up to 1/2."""
    inverses = [step / (2 * _STEPS) for step in range(_STEPS + 1)]
    freedoms = [1 / inverse if inverse else float("inf") for inverse in inverses]
    return [round(t_quantile((1 + CONFIDENCE) / 2, freedom), 6) for freedom in freedoms]


def _numbered(values: Iterable[Any]) -> dict[Any, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


_COLUMNS = (
    *("commit", "dirty", "code", "started", "status", "not_judged", "step_time_p50_s"),
    *("hardware", "framework", "source", "process", "other_cpu_share"),
)


def sides_of(frame: pd.DataFrame, runs: Sequence[RunSource]) -> Sides:
    """Return what can be set side by side.

    Args:
        frame: rows of timed tasks.
        runs: the files by `source`.
    """
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    points = measured[[*POINT, "framework"]].drop_duplicates(POINT, keep="last")
    series = points.groupby(["hardware", "case", "framework"], observed=True, dropna=False)
    kept = max(_FEWEST, MOST_SIDES // max(1, series.ngroups))
    newest = points[series.cumcount(ascending=False) < kept][POINT]
    rows = measured.merge(newest, on=POINT)
    found = grouped(_by_side(rows))
    files_of = functools.cache(lambda code, source: files_hash_of(code, runs[source].path))
    sides = [_side(key, its_own, runs, files_of) for key, its_own in found.items()]
    known = {side.code: side.files for side in sides if side.files}  # where any run kept them
    sides = [replace(side, files=known.get(side.code, "")) for side in sides]
    sides.sort(key=lambda side: side.place)
    sides = list(_with_earlier_loads(sides))
    return Sides(sides=tuple(sides), kept=kept, left_out=len(points) - len(newest))


def _with_earlier_loads(sides: Iterable[Side]) -> Iterator[Side]:
    """Yield the sides, each with the loads of all runs that a ratio of it may be made of.

    Args:
        sides: the oldest first.
    """
    known: dict[tuple[tuple[str, ...], str], dict[int, float]] = {}
    for side in sides:
        same = (side.facts, side.code or side.commit)
        loads = dict(sorted({**known.get(same, {}), **dict(side.loads)}.items())[-_MOST_RUNS:])
        known[same] = loads
        if len(loads) < LEAST_PROCESSES:  # a process is the unit, and earlier runs are in no ratio
            yield replace(side, loads=((side.place, loads[side.place]),))
            continue
        earlier = max(load for run, load in loads.items() if run != side.place)
        words = f"{load_text(earlier)} other load in an earlier run" * bool(earlier)
        doubt = "; ".join(filter(None, [side.doubt, words]))
        yield replace(side, loads=tuple(loads.items()), doubt=doubt)


def newest_versions(sides: Sequence[Side]) -> Versions | None:
    """Return the two versions that ran last, of the hardware that has most like cases.

    Args:
        sides: the oldest first.
    """
    groups: dict[tuple[str, str], list[Side]] = {}
    for side in sides:
        if side.fact("framework"):
            groups.setdefault((side.fact("hardware"), side.fact("backend")), []).append(side)
    pairs: list[tuple[Side, Side]] = []
    for its_own in groups.values():
        last = {side.fact("framework"): side.place for side in its_own}
        if len(last) > 1:
            names = sorted(last, key=last.__getitem__)[-2:]
            pairs = max(pairs, _pairs(its_own, "framework", *names), key=len)
    by_run = [_has_runs(column) for column in zip(*pairs, strict=True)]
    ratios = [
        one
        for pair in pairs
        if (one := ratio(*(side.units(by_run=by) for side, by in zip(pair, by_run, strict=True))))
    ]
    mean = geometric_mean(ratios)
    if mean is None:
        return None
    old, new = pairs[0]
    return Versions(
        hardware=old.fact("hardware"),
        before=old.fact("framework"),
        after=new.fact("framework"),
        cases=len(ratios),
        mean=mean,
        load=max(load for pair in pairs for side in pair for _, load in side.loads),
        other=tuple(
            name for name in _SOFTWARE if any(a.fact(name) != b.fact(name) for a, b in pairs)
        ),
    )


def _pairs(sides: Sequence[Side], key: str, a: str, b: str) -> list[tuple[Side, Side]]:
    """Return of each case the pair that was measured last, where it is known which code ran.

    The two are alike by the rule of the page's script: in every fact but the axis and what comes
    with it, and in the code.

    Args:
        sides: of one machine where its axis is another one, the oldest first.
        key: the axis.
        a, b: its two values.
    """
    (axis,) = (one for one in AXES if one.key == key)
    rest = [name for name in FACTS if name not in (key, *axis.along)]
    newest: dict[str, dict[tuple[str, ...], Side]] = {a: {}, b: {}}
    joined: dict[tuple[tuple[str, ...], str], Side] = {}
    for side in sides:
        if side.is_known and side.fact(key) in newest:
            alike = (*(side.fact(name) for name in rest), side.identity(axis))
            same = (side.facts, side.code or side.commit)
            joined[same] = replace(side, runs=_joined(joined.get(same), side))
            newest[side.fact(key)][alike] = joined[same]
    found: dict[tuple[str, ...], tuple[Side, Side]] = {}
    for alike, one in newest[a].items():
        other = newest[b].get(alike)
        case = tuple(one.fact(name) for name in rest if name in _CASE)
        if other and (case not in found or _when(found[case]) <= _when((one, other))):
            found[case] = (one, other)
    return list(found.values())


def _joined(older: Side | None, side: Side) -> tuple[tuple[int, float], ...]:
    """Return the newest runs of two sides of the same facts and code; their commits may differ."""
    runs = {**dict(older.runs if older else ()), **dict(side.runs)}
    return tuple(sorted(runs.items())[-_MOST_RUNS:])


def _has_runs(sides: Sequence[Side]) -> bool:
    """Whether each case has so many runs that a run can be the unit, as in `hardware_tables`."""
    return min((len(side.runs) for side in sides), default=0) >= LEAST_PROCESSES


def _when(pair: tuple[Side, Side]) -> int:
    return min(side.place for side in pair)


def _by_side(rows: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return each row with what its side is known by, the oldest run's first."""
    names = [field.name for field in fields(Comparability)]
    cells = zip(*(rows[name].tolist() for name in names), strict=True)
    for values, row in zip(cells, records_of(rows, _COLUMNS), strict=True):
        facts = _facts(values, str(row["hardware"]), text_of(row["framework"]))
        commit = commit_text(text_of(row["commit"]), row["dirty"])
        yield (facts, text_of(row["code"]), commit), row


@functools.lru_cache(maxsize=65536)
def _facts(values: tuple[Any, ...], hardware: str, framework: str) -> tuple[str, ...]:
    names = [field.name for field in fields(Comparability)]
    known = [value if is_known(value) else None for value in values]
    told = facts_of(dict(zip(names, known, strict=True)))
    told = replace(told, state=told_always(told.state))  # what is told later is the code's anyway
    own = {"hardware": hardware, "framework": framework}
    return tuple(own[name] if name in own else _text(getattr(told, name)) for name in FACTS)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else text_of(value)


def _side(
    key: tuple[Any, ...], rows: Sequence[dict[str, Any]], runs: Sequence[RunSource], files_of: Any
) -> Side:
    facts, code, commit = key
    source = max(row["source"] for row in rows)
    newest = [row for row in rows if row["source"] == source]
    rows = judged_rows(rows)
    logs = grouped((int(row["source"]), math.log(row["step_time_p50_s"])) for row in rows)
    shares = grouped((int(row["source"]), row["other_cpu_share"]) for row in rows)
    source = max(logs)
    rows = [row for row in rows if row["source"] == source]
    load = large_load(shares[source])
    doubts = [f"{load_text(load)} other load"] if load else []
    doubts += filter(None, [left_out_text(newest, rows)])
    return Side(
        facts=facts,
        code=code,
        files=files_of(code, source) if code else "",
        commit=commit,
        day=min(row["started"] for row in rows)[:10],
        run=runs[source].label,
        place=source,
        times_s=tuple(row["step_time_p50_s"] for row in rows),
        processes=tuple(int(row["process"]) for row in rows),
        runs=tuple(
            (run, math.exp(fmean(its_own))) for run, its_own in sorted(logs.items())[-_MOST_RUNS:]
        ),
        loads=tuple((run, large_load(its_own) or 0.0) for run, its_own in shares.items()),
        doubt="; ".join(doubts),
    )
