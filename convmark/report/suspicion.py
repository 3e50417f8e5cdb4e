"""What makes rows suspect: doubles, figures that cannot be, a state that was not clean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.report.rows import text_of
from convmark.results.agreement import utc_of
from convmark.results.columnar import case_name
from convmark.results.record import BUSY_SHARE, MEASURED
from convmark.results.run_file import steps_path
from convmark.results.store import each_step_times

__all__ = ["REMEDIES", "Known", "Published", "unclean"]

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "link": "put the file in place of the link",
        "special file": "remove it",
        "name": "rename it: printable characters alone",
        "no results file": "remove it: a submission has the files of convmark alone",
        "comparison": "leave the folder ab out: it has comparisons of convmark ab, no runs",
        "size": "submit fewer runs in a file: at most 64 MiB",
        "schema": "restore the file as convmark wrote it, or measure again",
        "torn": "remove the last line, which a killed writer left",
        "path": "restore the file as convmark wrote it: a kept file has the name of its hash",
        "script": "draw it anew: convmark run --describe, or convmark layers",
        "machine": "move the run to the folder of its machine",
        "changed": "restore the published file, and submit new rows as a new run",
        "gone": "restore the published file or folder",
        "duplicate": "remove the copy",
        "future": "set the clock and measure again",
        "ceiling": "measure again: no such device computes so fast",
        "contradicts": "measure again on an idle machine, or explain it in the pull request",
        "raw steps": "restore the rows and their raw step times as convmark wrote them",
        "loss": "measure again: the same code and seed must train alike",
        "dirty": "commit all changes and measure again",
        "no code": "measure again, so that the row says which code ran",
        "other load": "close other programs and measure again",
        "concurrent": "measure again without --allow-concurrent",
        "throttled": "cool the card or raise its power limit, and measure again",
        "not judged": "remove the cause and measure again",
        "unsteady": "measure again on an idle machine",
    }
)
"""What to do about a finding, by its rule."""

CLOCK = timedelta(hours=1)
"""By so much a clock may be fast."""

WINOGRAD = 2.25
"""By so much convolutions may be faster than matrix products, for they multiply less often.

Source:
    Lavin and Gray (2016), "Fast Algorithms for Convolutional Neural Networks": F(2x2, 3x3).
"""

HIGHEST: Mapping[tuple[str, bool], float] = MappingProxyType(
    {
        ("cpu", False): 0.5e12,  # per logical CPU: two FMA units of 512 bits at 4.5 GHz are 0.29e12
        ("cpu", True): 6e12,  # a matrix unit of 2,048 FLOPs a cycle at 2.5 GHz is 5e12
        ("gpu", False): 1.5e14,  # per card: the fastest of 2025 has 1.05e14
        ("gpu", True): 5e15,
    }
)
"""FLOP/s that no device exceeds, by its kind and whether it computes in less than float32."""

MOST_CORES = 1024
"""Of a row that does not say how many."""

TIMES_APART = 10
"""Step times of one case on machines of one kind: of 1,371 measured runs, on machines at rest and
under load, no two medians of a network of the zoo lay further apart than a factor of 9."""

RATES_APART = 3
"""Throughput times the median step time over the samples of a step. Windows do not wait after each
step, so their rate may be higher. In 3,240 rows measured on CPUs and an H100 while other programs
took less than 10 % of the CPUs' time it was 0.61 to 1.86."""

LOSSES_APART: Mapping[str, float] = MappingProxyType({"loss_first": 0.05, "loss": 0.25})
"""Relative. With the same code and seed, on CPUs and GPUs, 57 first losses lay at most 0.3 % apart,
and 65 losses of step 10 at most 2.5 %."""

ROUNDING = 1e-9

_DOUBLES = (
    ("step_time_mean_s", "step_time_p50_s"),
    ("step_time_mean_s", "throughput_samples_per_s"),
    ("time_to_first_step_s", "process_start_s"),
    ("epoch_time_s", "time_to_first_step_s"),
)
"""No two processes have both figures of a pair to the last digit."""

_AXES = tuple(Case.__dataclass_fields__)
_TRAINING = (
    *("code", "seed", "model", "task", "batch_size", "precision", "replicas", "backend"),
    *("recipe", "training", "input_shape"),
)
_BUILT = ("code", "model", "backend", "input_shape")

Row = Mapping[str, Any]


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


class Known:
    """The rows that a submission is held against."""

    def __init__(self) -> None:
        self._doubles: dict[tuple[Any, ...], list[tuple[Path, int]]] = defaultdict(list)
        self._step_times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        self._losses: dict[tuple[Any, ...], tuple[float, str]] = {}
        self._parameters: dict[tuple[Any, ...], tuple[float, str]] = {}

    def add(self, run: Published) -> None:
        """Hold later rows against these."""
        for line, row in enumerate(run.rows, 2):
            self._add(row, run.path, line)

    def _add(self, row: Row, path: Path, line: int) -> None:
        for key in _doubles(row):
            self._doubles[key].append((path, line))
        if row["status"] != "ok":
            return
        if row["step_time_p50_s"] == row["step_time_p50_s"]:
            self._step_times[_on_a_machine(row)].append(row["step_time_p50_s"])
        for key, value in _losses(row):
            self._losses.setdefault(key, (value, f"{path}:{line}"))
        if key := _built(row):
            self._parameters.setdefault(key, (row["parameters"], f"{path}:{line}"))

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
            for path, there in (one for one in doubles if one[0] != before):
                found["duplicate"].append((line, f"{_named(row)} is in {path}:{there} too"))
                break
            self._add(row, run.path, line)
        found["raw steps"] = list(_raw_steps(run))
        return {rule: lines for rule, lines in found.items() if lines}

    def _of(self, row: Row, path: Path, now: datetime) -> Iterator[tuple[str, str]]:
        if row["machine"] and row["machine"] != path.resolve().parent.name:
            yield "machine", row["machine"]
        if utc_of(row["started"]) > now + CLOCK:
            yield "future", row["started"]
        yield from unclean(row)
        if row["status"] in MEASURED:
            yield from _ceilings(row)
            yield from _rates(row)
            yield from self._elsewhere(row)

    def _elsewhere(self, row: Row) -> Iterator[tuple[str, str]]:
        """Yield what contradicts the same case, code or build in other rows."""
        times, own = self._step_times.get(_on_a_machine(row)), row["step_time_p50_s"]
        if times and own == own and not 1 / TIMES_APART <= own / median(times) <= TIMES_APART:
            yield "contradicts", f"{_named(row)}: {own:.3g} s, elsewhere {median(times):.3g} s"
        if (key := _built(row)) in self._parameters:
            known, at = self._parameters[key]
            if known != row["parameters"]:
                words = f"{row['parameters']:,.0f} parameters, {at} has {known:,.0f}"
                yield "contradicts", f"{_named(row)}: {words}"
        for key, value in _losses(row):
            other, at = self._losses.get(key, (value, ""))
            if abs(value - other) > LOSSES_APART[key[0]] * max(abs(value), abs(other)):
                yield "loss", f"{_named(row)}: {key[0]} {value:.4g}, {at} has {other:.4g}"


def _named(row: Row) -> str:
    return f"{case_name(*(row[name] for name in _AXES))} #{row['process']:.0f}"


def _there(row: Row, *names: str) -> bool:
    return all(row[name] is not None and row[name] == row[name] for name in names)


def _doubles(row: Row) -> list[tuple[Any, ...]]:
    return [(*pair, *(row[name] for name in pair)) for pair in _DOUBLES if _there(row, *pair)]


def _on_a_machine(row: Row) -> tuple[Any, ...]:
    return (row["machine"], *(row[name] for name in _AXES))


def _losses(row: Row) -> list[tuple[tuple[Any, ...], float]]:
    if row["task"] != "train" or not _there(row, "code", "seed"):
        return []
    key = tuple(row[name] for name in _TRAINING)
    return [((name, *key), row[name]) for name in LOSSES_APART if _there(row, name)]


def _built(row: Row) -> tuple[Any, ...]:
    there = _there(row, "code", "parameters")
    return tuple(row[name] for name in _BUILT) if there else ()


def unclean(row: Row) -> Iterator[tuple[str, str]]:
    """Yield what was not clean while the row was measured."""
    if row["dirty"]:
        yield "dirty", f"commit {text_of(row['commit'])[:12] or 'unknown'} with changes"
    if row["status"] in MEASURED and not row["code"]:
        yield "no code", "column 'code' is empty"
    if row["other_cpu_share"] >= BUSY_SHARE:
        yield "other load", f"other programs took {row['other_cpu_share']:.0%} of the CPUs' time"
    if row["concurrent"]:
        yield "concurrent", "other benchmark runs were allowed"
    if text_of(row["throttle_reasons"]) not in ("", "none"):
        yield "throttled", row["throttle_reasons"]
    if row["not_judged"]:
        yield "not judged", row["not_judged"]
    if row["status"] == "unsteady":
        yield "unsteady", text_of(row["unsteady"]) or "no reason given"


def _ceilings(row: Row) -> Iterator[tuple[str, str]]:
    """Yield a rate beyond the device's measured ceiling, or beyond what any device reaches."""
    names = ("training_flops_per_sample", "flops_per_sample")
    flops = next((row[name] for name in names[row["task"] != "train" :] if _there(row, name)), 0)
    kind = row["device"].partition(":")[0]
    low = row["precision"] not in ("float32", "float64")
    cores = row["cores"] if _there(row, "cores") else MOST_CORES
    devices = row["replicas"] if kind == "gpu" or row["cluster"] else 1  # of a CPU they share it
    highest = HIGHEST.get((kind, low), HIGHEST["gpu", True]) * (cores if kind == "cpu" else 1)
    peak = row["peak_flops_per_s"]
    if peak > highest:
        yield "ceiling", f"peak_flops_per_s {peak:.3g}, the highest plausible is {highest:.3g}"
    reached = flops * row["throughput_samples_per_s"]
    most = WINOGRAD * devices * (min(peak, highest) if peak == peak else highest)
    if reached > most:
        yield "ceiling", f"{_named(row)}: {reached:.3g} FLOP/s, at most {most:.3g} are plausible"


def _rates(row: Row) -> Iterator[tuple[str, str]]:
    """Yield a throughput that is not that of the step time; a busy machine may part them."""
    if row["other_cpu_share"] >= BUSY_SHARE or not _there(
        row, "throughput_samples_per_s", "step_time_p50_s"
    ):
        return
    rate, samples = row["throughput_samples_per_s"], row["batch_size"] * row["replicas"]
    expected = samples / row["step_time_p50_s"]
    if not 1 / RATES_APART <= rate / expected <= RATES_APART:
        words = f"{rate:.4g} samples/s, of {samples:.0f} in {row['step_time_p50_s']:.3g} s"
        yield "contradicts", f"{_named(row)}: {words} {expected:.4g} follow"


def _raw_steps(run: Published) -> Iterator[tuple[int, str]]:
    """Yield each row whose median is not that of its raw step times, where their file is there."""
    if not steps_path(run.path).exists():
        return
    timed = [
        (line, row, row["step_time_p50_s"])
        for line, row in enumerate(run.rows, 2)
        if row["status"] in MEASURED and _there(row, "step_time_p50_s")
    ]
    raw = each_step_times(run.path, [int(row["order"]) for _, row, _ in timed])
    for (line, row, own), times_s in zip(timed, raw, strict=True):
        if times_s is None or not len(times_s):
            yield line, f"{_named(row)}: {steps_path(run.path).name} has no step times of it"
        elif abs((found := float(np.median(times_s))) - own) > ROUNDING * own:
            yield line, f"{_named(row)}: median {own:.6g} s, of the raw ones {found:.6g} s"
