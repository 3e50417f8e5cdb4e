"""What makes rows suspect: doubles, figures that cannot be, a state that was not clean."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import counted, load_text
from convmark.report.beside import KINDS
from convmark.report.plausible import implausible, there
from convmark.report.rows import text_of
from convmark.report.unlikely import untimed
from convmark.results.columnar import case_name
from convmark.results.record import BUSY_SHARE, FRAMEWORK_COLUMNS, MEASURED, utc_of
from convmark.results.run_file import steps_path
from convmark.results.store import each_step_times
from convmark.session.fleet.part import part_path
from convmark.session.learning import WAYS

REMEDIES: Mapping[str, str] = {
    "link": "replace the link by the file",
    "special file": "remove it",
    "name": "rename it: use printable characters only",
    "no results file": "remove it: a submission has only files of convmark",
    "comparison": "leave the folder ab out: it has comparisons of convmark ab, no runs",
    "size": "make the file smaller: at most 64 MiB, with fewer runs in a file",
    "schema": "restore the file as convmark wrote it, or measure again",
    "torn": "remove the last line, which is incomplete",
    "path": "restore the file as convmark wrote it: a kept file has the name of its hash",
    "script": "draw it again: convmark run --describe, or convmark layers",
    "machine": "restore the row, and move the run to the folder of its machine",
    "changed": "restore the published file, and submit new rows as a new run",
    "gone": "restore the published file or folder",
    "duplicate": "remove the copy",
    "future": "set the clock and measure again",
    "past": "set the clock and measure again",
    "measuring code": "measure again with the version of convmark that checks",
    "format": "restore the row as convmark wrote it",
    "incomplete": "restore the row as convmark wrote it, or measure again",
    "ceiling": "measure again: no such device computes so fast",
    "contradicts": "measure again on an idle machine, or explain it in the pull request",
    "raw steps": "restore the rows and their raw step times as convmark wrote them",
    "epochs": "restore the rows and their epochs as convmark wrote them",
    "intervals": "restore the rows and their sustained intervals as convmark wrote them",
    "tries": "restore the rows and their tries at the latency limit as convmark wrote them",
    "loss": "measure again: the same code and seed must give the same loss",
    "dirty": "commit all changes and measure again",
    "no code": "measure again, so that the row has the code that ran",
    "other load": "close other programs and measure again",
    "concurrent": "measure again without --allow-concurrent",
    "throttled": "cool the card or raise its power limit, and measure again",
    "not judged": "remove the cause and measure again",
    "unsteady": "measure again on an idle machine",
}
"""What to do about a finding, by its rule."""

CLOCK = timedelta(hours=1)
"""By so much a clock may be fast."""

EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc)
"""No release of convmark is as old."""

TIMES_APART = 10
"""Step times of one case on machines of one kind: of 1,371 measured runs, on machines at rest and
under load, no two medians of a network of the zoo lay further apart than a factor of 9."""

RATIOS_APART = 1.8
"""Of a case to the reference network in the same process, which other load moves less than the step
time itself: processes of identical code lay at most 1.15 apart in the rows of this repository, and
1.32 under load."""

REFERENCES_APART = 3
"""Step times of the reference network, which is the same in all cases of a machine."""

ROUNDING = 1e-9

_DOUBLES = (
    ("step_time_mean_s", "step_time_p50_s"),
    ("step_time_mean_s", "throughput_samples_per_s"),
    ("time_to_first_step_s", "process_start_s"),
    ("epoch_time_s", "process_start_s"),
    ("fit_call_s", "process_start_s"),
)
"""No two processes have both figures of a pair to the last digit."""

_AXES = tuple(Case.__dataclass_fields__)
_BUILT = ("code", "model", "backend", "input_shape")
_COUNTED = (*_BUILT, "counting_version")
_SEEDED = (
    *("code", "seed", "model", "task", "batch_size", "precision", "replicas", "backend"),
    *("recipe", "training", "input_shape", "runtime"),
)


@dataclass(frozen=True, slots=True)
class Alike:
    """A figure that is the same in all rows that share what makes it."""

    figure: str
    rule: str
    shared: tuple[str, ...]
    apart: float
    """Relative difference that passes."""


ALIKE = (
    Alike("parameters", "contradicts", _BUILT, 0),
    Alike("flops_per_sample", "contradicts", _COUNTED, 0.1),
    Alike("training_flops_per_sample", "contradicts", _COUNTED, 0.1),
    Alike("loss_first", "loss", _SEEDED, 0.05),
    Alike("loss", "loss", _SEEDED, 0.25),
    Alike("output_rms", "loss", _SEEDED, 0.25),
)
"""With the same code and seed, on CPUs and GPUs, 57 first losses lay at most 0.3 % apart, and 65
losses of step 10 at most 2.5 %. Versions of Keras may count FLOPs a little differently."""


@dataclass(frozen=True, slots=True)
class Near:
    """A figure whose median over rows of one kind of machine others must be near."""

    figure: str
    shared: tuple[str, ...]
    apart: float
    """Factor that passes."""
    idle: bool
    """Whether rows that were measured beside other programs are left out."""


NEAR = (
    *(
        Near(figure, ("machine", *_AXES), TIMES_APART, idle=False)
        for figure in ("step_time_p50_s", *WAYS.values())
    ),
    Near("epoch_time_s", ("machine", *_AXES, "fraction"), TIMES_APART, idle=False),
    Near(
        "case_to_reference",
        ("machine", *_AXES, "reference", "reference_version", "code", *FRAMEWORK_COLUMNS),
        RATIOS_APART,
        idle=True,
    ),
    Near(
        "reference_step_time_p50_s",
        ("machine", "device", "reference", "reference_version", "backend", "threads", "cpus"),
        REFERENCES_APART,
        idle=True,
    ),
)

Row = Mapping[str, Any]
Found = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Published:
    """The rows of a run's file."""

    path: Path
    columns: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.columns["status"])

    @cached_property
    def rows(self) -> list[Row]:
        """By column; NaN and None are absent."""
        names = list(self.columns)
        lists = [np.asarray(self.columns[name]).tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


class Level:
    """The median of figures that are added one by one, exact up to the last tenth of them."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._seen = 0
        self._median = math.nan

    def add(self, value: float) -> None:
        self._values.append(value)

    @property
    def median(self) -> float:
        """Of the figures; NaN for none."""
        if len(self._values) > 1.1 * self._seen:
            self._median, self._seen = median(self._values), len(self._values)
        return self._median


class Known:
    """The rows that a submission is held against."""

    def __init__(self) -> None:
        self._doubles: dict[tuple[Any, ...], list[tuple[Path, int]]] = defaultdict(list)
        self._levels: dict[tuple[Any, ...], Level] = defaultdict(Level)
        self._facts: dict[tuple[Any, ...], tuple[float, str]] = {}

    def add(self, run: Published) -> None:
        for line, row in enumerate(run.rows, 2):
            self._add(row, run.path, line)

    def _add(self, row: Row, path: Path, line: int) -> None:
        for key in _doubles(row):
            self._doubles[key].append((path, line))
        if row["status"] != "ok":
            return
        for one, key, value in _near(row):
            self._levels[(one.figure, *key)].add(value)
        for fact, key, value in _alike(row):
            self._facts.setdefault((fact.figure, *key), (value, f"{path}:{line}"))

    def suspicions(
        self, run: Published, now: datetime, before: Path | None
    ) -> dict[str, list[tuple[int, str]]]:
        """Return what is suspect of a run, by rule: of each row its line and the value.

        Each row is held against those before it too, and later runs against all of them.

        Args:
            before: the published file that the run is in place of.
        """
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for line, row in enumerate(run.rows, 2):
            for rule, value in self._of(row, run.path, now):
                found[rule].append((line, value))
            doubles = (one for key in _doubles(row) for one in self._doubles.get(key, ()))
            for path, at in (one for one in doubles if one[0] != before):
                found["duplicate"].append((line, f"{_named(row)} is in {path}:{at} too"))
                break
            self._add(row, run.path, line)
        found["incomplete"] += _gaps(run)
        found["raw steps"] = list(_raw_steps(run))
        for kind in KINDS:
            apart = kind.apart(run.path, run.rows)
            found[kind.rule] = [(line, f"{_named(row)}: {why}") for line, row, why in apart]
        return {rule: lines for rule, lines in found.items() if lines}

    def _of(self, row: Row, path: Path, now: datetime) -> Found:
        if row["machine"] and row["machine"] != path.resolve().parent.name:
            yield "machine", row["machine"]
        if utc_of(row["started"]) > now + CLOCK:
            yield "future", row["started"]
        yield from unclean(row)
        shares = ("sustained_other_cpu_share", "latency_limit_other_cpu_share")
        busy = next((name for name in shares if row[name] >= BUSY_SHARE), "")
        if busy and not row["other_cpu_share"] >= BUSY_SHARE:  # while steps went on afterwards
            yield "other load", f"{busy} is {load_text(row[busy])}"
        if utc_of(row["started"]) < EARLIEST:
            yield "past", row["started"]
        found = list(implausible(row))
        if row["status"] in MEASURED:
            found += [*self._elsewhere(row), *(() if row["task"] in TIMED_TASKS else untimed(row))]
        yield from ((rule, f"{_named(row)}: {value}") for rule, value in found)

    def _elsewhere(self, row: Row) -> Found:
        """Yield what contradicts the same case, code or build in other rows."""
        for one, near_key, value in _near(row):
            level = self._levels.get((one.figure, *near_key), Level()).median
            if not (level != level or 1 / one.apart <= value / level <= one.apart):
                yield "contradicts", f"{one.figure} {value:.3g}, elsewhere {level:.3g}"
        for fact, key, value in _alike(row):
            other, at = self._facts.get((fact.figure, *key), (value, ""))
            if abs(value - other) > fact.apart * max(abs(value), abs(other)):
                yield fact.rule, f"{fact.figure} {value:.10g}, {at} has {other:.10g}"


def _named(row: Row) -> str:
    return f"{case_name(*(row[name] for name in _AXES))} #{row['process']:.0f}"


def _doubles(row: Row) -> list[tuple[Any, ...]]:
    return [(*pair, *(row[name] for name in pair)) for pair in _DOUBLES if there(row, *pair)]


def _near(row: Row) -> Iterator[tuple[Near, tuple[Any, ...], float]]:
    """Yield each figure of `NEAR` that a row has, and what rows it is held against share."""
    ratio = row["paired_log_ratio"]
    figures = {**row, "case_to_reference": math.exp(ratio) if abs(ratio) < 100 else math.nan}
    busy = row["other_cpu_share"] >= BUSY_SHARE or row["status"] != "ok"
    for one in NEAR:
        value = figures[one.figure]
        if value == value and value > 0 and not (one.idle and busy):
            yield one, tuple(row[name] for name in one.shared), value


def _alike(row: Row) -> Iterator[tuple[Alike, tuple[Any, ...], float]]:
    """Yield each figure of `ALIKE` that a row has, and what rows it is held against share."""
    if row["task"] not in TIMED_TASKS or not row["code"]:
        return
    for one in ALIKE:
        if there(row, one.figure) and ("seed" not in one.shared or there(row, "seed")):
            yield one, tuple(row[name] for name in one.shared), row[one.figure]


def unclean(row: Row) -> Found:
    """Yield what was not clean while the row was measured."""
    if row["dirty"]:
        yield "dirty", f"commit {text_of(row['commit'])[:12] or 'unknown'} with changes"
    if row["status"] in MEASURED and not row["code"]:
        yield "no code", "column 'code' is empty"
    if row["other_cpu_share"] >= BUSY_SHARE:
        load = load_text(row["other_cpu_share"])
        yield "other load", f"other programs took {load} of the CPUs' time"
    if row["concurrent"]:
        yield "concurrent", "other benchmark runs were allowed"
    if text_of(row["throttle_reasons"]) not in ("", "none"):
        yield "throttled", row["throttle_reasons"]
    if row["not_judged"]:
        yield "not judged", row["not_judged"]
    if row["status"] == "unsteady":
        yield "unsteady", text_of(row["unsteady"]) or "no reason given"


def _gaps(run: Published) -> Iterator[tuple[int, str]]:
    """Yield a place of the plan that has no row, though later ones have, but of a part of a plan.

    The cases that another node of a cluster took over are in a run of their own, whose plan says
    so or is empty.
    """
    plans = {text_of(row["plan"]) for row in run.rows}
    orders = sorted({int(row["order"]) for row in run.rows})
    missing = next((place for place, order in enumerate(orders, 1) if place != order), None)
    part = part_path(run.path).exists() or any(not one or " of " in one for one in plans)
    if missing and not part:
        gone = f"{orders[-1] - len(orders)} of {counted(orders[-1], 'row')}"
        words = f"{gone} not there, the first of order"
        yield 2, f"{words} {missing}"


_OF_STEPS: Mapping[str, Callable[[Any], Any]] = {
    "steps": len,
    "step_time_min_s": np.min,
    "step_time_p50_s": np.median,
    "step_time_mean_s": np.mean,
    "step_time_max_s": np.max,
}
"""By column what it is of the raw step times."""


def _raw_steps(run: Published) -> Iterator[tuple[int, str]]:
    """Yield each row whose figures are not those of its raw step times, where the file is there."""
    name = steps_path(run.path).name
    if not steps_path(run.path).exists():
        return
    timed = [
        (line, row)
        for line, row in enumerate(run.rows, 2)
        if row["status"] in MEASURED and there(row, "step_time_p50_s")
    ]
    raw = each_step_times(run.path, [int(row["order"]) for _, row in timed])
    for (line, row), times_s in zip(timed, raw, strict=True):
        if times_s is None or not len(times_s):
            yield line, f"{_named(row)}: {name} has no step times of it"
            continue
        for column, of in _OF_STEPS.items():
            found, own = float(of(times_s)), row[column]
            if not abs(found - own) <= ROUNDING * own and own == own:
                yield line, f"{_named(row)}: {column} {own:.6g}, of the raw ones {found:.6g}"
                break
