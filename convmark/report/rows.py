"""The rows of results folders as one data frame, and the points that tables are made of.

Every cell is checked against the schema. A point is the processes of one case in one run.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import NUMA, Case
from convmark.core.errors import StoreError
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.statistics import CONFIDENCE, t_quantile
from convmark.core.text import listed, reasons_text
from convmark.results.columnar import case_name, read_columns, whole_file, without_earlier_copies
from convmark.results.names import hardware_names, host_endings, names_of
from convmark.results.reading import StoreWarning
from convmark.results.record import (
    BUSY_SHARE,
    COLUMNS,
    FRAMEWORK_COLUMNS,
    MEASURED,
    OF_MANY_STEPS,
    doubt_words,
    doubts_text,
    that_count,
)
from convmark.results.store import RunSource, labelled, oldest_first, run_files

if TYPE_CHECKING:
    import pandas as pd

_AXES = tuple(Case.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows, and the files that they came from."""

    frame: pd.DataFrame
    """The schema's columns, numbers as float64 with NaN for an empty cell, texts as objects with
    None for one; and `source`, `case`, `hardware` (machine and device, and the card where that
    device was several), `framework` (name and version of what ran the step) and `measured`."""
    runs: tuple[RunSource, ...]
    """Oldest first, so that the highest `source` is the newest run."""
    names: Mapping[str, str]
    """Of the machines that a user has named, by their fingerprints; the frame has the names."""


def read_rows(
    places: Sequence[Path], kept: Sequence[str] = (), *, named: bool = True, apart: bool = True
) -> Rows:
    """Return the rows of all runs in the places; a copy of a file counts once.

    What may be left out is: a file without rows, a torn last line, a copy; a `StoreWarning` names
    it. Everything else that does not fit the schema is refused.

    Args:
        kept: the columns to keep, beside those that the added ones are made of; none for all.
        named: whether machines have the names that users have given them.
        apart: whether machines with those names end differently where their host is not named.

    Raises:
        StoreError: nothing is there, no file has a row, or a file does not fit; the message names
            file and line; or the names of machines contradict each other.
    """
    import pandas as pd

    parts: list[dict[str, Any]] = []
    paths: list[Path] = []
    seen: dict[bytes, Path] = {}
    empty: list[Path] = []
    for path in run_files(places):
        data = whole_file(path)
        first = seen.setdefault(hashlib.sha256(data).digest(), path) if data else path
        if first is not path and first.name == path.name:
            _warn(f"{path}: is a copy of {first}, left out")
            continue
        part = read_columns(path, data)
        if not len(part["status"]):
            empty.append(path)
            continue
        if not all(part["machine"]):
            folder = path.resolve().parent.name
            part["machine"] = [name or folder for name in part["machine"]]
        paths.append(path)
        parts.append({name: part[name] for name in part if not kept or name in (*kept, *_MADE_OF)})
    paths, parts = without_earlier_copies(paths, parts, _warn)
    if not parts:
        raise StoreError(f"{empty[0]}:1: must have the rows of a run after its header, it has none")
    for path in empty:
        _warn(f"{path}:1: has no rows, skipped")
    if len(parts) == 1 and len(parts[0]["status"]) == 1 and parts[0]["status"][0] in MEASURED:
        _warn(f"{paths[0]}:2: is the only row, so the spread is unknown; try --processes 3")
    folders = [(part["machine"][0], path.parent) for path, part in zip(paths, parts, strict=True)]
    names = names_of(folders if named else [])
    hosts = [(part["machine"][0], any(part["node"])) for part in parts]
    endings = host_endings(hosts) if named and apart else [""] * len(parts)
    for part, end in zip(parts, endings, strict=True):
        part["machine"] = [f"{names.get(machine, machine)}{end}" for machine in part["machine"]]
    started = [part["started"][0] for part in parts]
    order = oldest_first(list(zip(paths, started, strict=True)))
    paths, parts = [paths[place] for place in order], [parts[place] for place in order]
    for place, part in enumerate(parts):
        part["source"] = np.full(len(part["status"]), place)
    machines = [part["machine"][0] for part in parts]
    columns: dict[str, Any] = {name: _joined(parts, name) for name in list(parts[0])}
    frame = pd.DataFrame({**columns, **_names(columns)}, copy=False)
    return Rows(frame=frame, runs=labelled(paths, machines), names=names)


def _warn(text: str) -> None:
    warnings.warn(text, StoreWarning, stacklevel=3)


def _joined(parts: Sequence[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    """Take a column out of all parts, so that it is in memory once."""
    taken = [part.pop(name) for part in parts]
    return np.concatenate(
        [one if isinstance(one, np.ndarray) else np.array(one, dtype=object) for one in taken]
    )


_OTHERS = ("gpu", "machine", "node", "packages", "started", "status")
_MADE_OF = {*_AXES, *FRAMEWORK_COLUMNS, *_OTHERS}
"""What the added columns are made of."""


def _names(columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return what the tables group by: the case's name, the hardware, whether there are figures."""
    import pandas as pd

    empty = {"cluster": "", "cpus": "", "runtime": DEFAULT_RUNTIME}
    filled = {
        name: [text if one is None else one for one in columns[name].tolist()]
        for name, text in empty.items()
    }
    known = {name: columns[name].tolist() for name in _AXES} | filled
    axes = zip(*known.values(), strict=True)
    places = (columns[name].tolist() for name in ("machine", "device", "gpu"))
    statuses = columns["status"].tolist()
    named = {
        "case": np.array([case_name(*values) for values in axes], dtype=object),
        "runtime": np.array(filled["runtime"], dtype=object),
        "hardware": np.array(hardware_names(list(zip(*places, strict=True))), dtype=object),
        **{name: columns[name] for name in ("machine", "model", "task", "status")},
    }
    return {
        "measured": np.array([status in MEASURED for status in statuses], dtype=bool),
        "framework": _frameworks(columns),
        **{name: pd.Categorical(values) for name, values in named.items()},
    }


def _frameworks(columns: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return name and version of what runs each row's step."""
    names = ("backend", "packages", *FRAMEWORK_COLUMNS)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return np.array([_framework(*values) for values in rows], dtype=object)


@functools.cache
def _framework(backend: str, packages: str | None, *versions: str | None) -> str | None:
    known = dict(zip(FRAMEWORK_COLUMNS, versions, strict=True))
    version = known.get(backend) or dict(
        part.split("==", 1) for part in (packages or "").split() if "==" in part
    ).get(backend)
    return f"{BACKENDS[backend].label} {version}" if version else None


# -- points: the processes of a case in a run as one row -------------------------------------------


POINT = ["source", "hardware", "case"]
SERIES = ["hardware", "case", "asked_shape"]
"""What points share that are of one network in one setting: a case has the shape of none."""
_NOT_OF_POINTS = ("", "accuracy", "machines")
"""Tables that are made of rows."""

_MEDIANS = (
    *(
        column.name
        for column in COLUMNS
        if column.table not in _NOT_OF_POINTS
        and column.group != "size"
        and (column.type is float or (column.type is int and column.title is not None))
    ),
    *("bytes_per_sample", "wall_power_w", "wall_idle_power_w", "wall_joules_per_sample"),
    "wall_above_idle_joules_per_sample",
)
_FIRST = (
    *("run", "started", "commit", "dirty", "framework", "keras", "machine", "node", "not_judged"),
    *("plan", "asked_shape", "input_shape", "code", "packages"),
    *Case.__dataclass_fields__,
    *(
        column.name
        for column in COLUMNS
        if column.title is not None
        and column.table not in _NOT_OF_POINTS
        and column.name not in _MEDIANS
    ),
)
"""Facts that the processes of a point share: of the first that has one."""


_REASONS: Mapping[str, str] = MappingProxyType(
    {"throttle_reasons": "throttled", "unsteady": "why_unsteady", "not_judged": "not_judged"}
)
"""What the processes of a point may say each, by column, and its name in a point."""


def points(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, hardware and case, newest last.

    Figures are medians over the measured processes, NaN where there are none. Added: `n` measured
    processes, `failed`, `unsteady`, `concurrent`, `trouble` (status and error of those
    that failed), `why_unsteady`, `throttled` and `not_judged` (of all that say so), `doubts`
    (counts of what to be wary of), and of the step time `spread` (half the range over the
    median), `log_mean`, `log_var` over processes; `load` is the other programs' share of the
    CPUs' time, where it is large; and `setting`, as the function returns it.
    """
    import pandas as pd

    groups = frame.groupby(POINT, observed=True, sort=False)
    first = groups[[name for name in _FIRST if name in frame]].first()
    for name in ("cluster", "cpus", "recipe", "asked_shape"):
        first[name] = first[name].where(first[name].notna(), "")  # to group by
    first["setting"] = [_setting(*one) for one in zip(*(first[it] for it in _SETTING), strict=True)]
    measured = frame[frame["measured"]]
    figures = measured.groupby(POINT, observed=True, sort=False)
    names = [name for name in dict.fromkeys(_MEDIANS) if name in frame and name not in first]
    # joined columns are copied together: pandas warns of more than a hundred parts
    medians = figures[names].median()
    for name in filter(names.__contains__, OF_MANY_STEPS):
        medians[name] = medians[name].where(figures[name].count() == figures.size())
    table = first.join(medians).join(_step_time(measured)).copy()
    table["n"] = figures.size().reindex(table.index).fillna(0)
    flags = pd.DataFrame(
        {
            "failed": ~frame["measured"],
            "unsteady": frame["status"] == "unsteady",
            "concurrent": frame["concurrent"].eq(True) if "concurrent" in frame else False,
            "unjudged": frame["measured"] & frame["not_judged"].notna(),
            **{name: frame[name] for name in POINT},
        }
    )
    table = table.join(flags.groupby(POINT, observed=True, sort=False).sum()).join(_trouble(frame))
    table = table.copy()
    for column, name in _REASONS.items():
        table[name] = _reasons(measured, column).reindex(table.index)
    counts = (table[name] for name in ("n", "failed", "unsteady", "unjudged", "concurrent"))
    table["doubts"] = list(map(doubts_text, *counts))
    table["load"] = table["other_cpu_share"].where(table["other_cpu_share"] >= BUSY_SHARE)
    return table.reset_index().sort_values("source", kind="stable", ignore_index=True)


def _step_time(measured: pd.DataFrame) -> pd.DataFrame:
    """Return spread, mean and variance of the step time between the processes of each point."""
    times = measured[[*POINT, "step_time_p50_s"]].copy()
    times["log"] = np.log(times["step_time_p50_s"].where(times["step_time_p50_s"] > 0))
    groups = times.groupby(POINT, observed=True, sort=False)
    plain, logs = groups["step_time_p50_s"], groups["log"]
    found = plain.agg(["min", "max", "median", "count"])
    half_range = (found["max"] - found["min"]) / 2
    found["spread"] = (half_range / found["median"]).where(found["count"] > 1)
    found["log_mean"], found["log_var"] = logs.mean(), logs.var(ddof=1)
    return found[["spread", "log_mean", "log_var"]]


def _trouble(frame: pd.DataFrame) -> pd.Series:
    failed = frame[~frame["measured"]]
    pairs = zip(failed["status"], failed["error"], strict=True)
    told = [f"{status}: {text_of(error) or 'no reason given'}" for status, error in pairs]
    rows = failed[POINT].assign(trouble=told)
    groups = rows.groupby(POINT, observed=True, sort=False)["trouble"]
    return groups.agg(lambda every: listed(list(dict.fromkeys(every)), 3))


def _reasons(measured: pd.DataFrame, column: str) -> pd.Series:
    """Return what the processes of each point say in a column of texts."""
    if column not in measured:
        return measured.iloc[:0].set_index(POINT)["status"]
    said = measured[measured[column].notna() & (measured[column] != "none")]
    groups = said.groupby(POINT, observed=True, sort=False)[column]
    return groups.agg(lambda reasons: reasons_text(list(reasons)))


def latest(table: pd.DataFrame, *, measured: bool = True) -> pd.DataFrame:
    """Return the newest point of each case on each hardware, of those with figures by default.

    Of each input shape that was asked for there is one.
    """
    chosen = table[table["n"] > 0] if measured else table
    return chosen.groupby(SERIES, observed=True, sort=False).tail(1)


def pooled_half_widths(table: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return half of each point's interval on ln(step time); NaN where no spread is known.

    The spread between processes is pooled over the runs of the case on the hardware, so that a
    point of few processes has an interval too; what differs between runs is not in it.
    """
    freedom = (table["n"] - 1).clip(lower=0).where(table["log_var"].notna(), 0)
    sums = table[SERIES].assign(total=table["log_var"].fillna(0) * freedom, freedom=freedom)
    groups = sums.groupby(SERIES, observed=True, dropna=False)
    pooled, total = groups["freedom"].transform("sum"), groups["total"].transform("sum")
    known = {int(df): t_quantile((1 + CONFIDENCE) / 2, df) for df in set(pooled[pooled > 0])}
    factor = pooled.map(lambda df: known.get(int(df), math.nan))
    variance = total / pooled.where(pooled > 0)
    return np.asarray(factor * np.sqrt(variance / table["n"].where(table["n"] > 0)))


def alike(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return a number for each row, the same for rows with the same values in all these columns."""
    import pandas as pd

    found = np.zeros(len(table), dtype=np.int64)
    for name in names:
        places, values = pd.factorize(table[name])  # absent is -1
        found, _ = pd.factorize(found * (len(values) + 1) + places + 1)
    return found


def text_of(value: Any) -> str:
    """Return a text cell; empty where it is absent."""
    return "" if value is None or value != value else str(value)


def newest_rows(table: pd.DataFrame, *, measured: bool = True) -> list[dict[str, Any]]:
    """Return the rows of `latest` by column."""
    return records_of(latest(table, measured=measured), table.columns)


def judged_rows(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the rows of a case that ratios are of, by the rule of `that_count`, in their order.

    Args:
        rows: measured ones, those of a run together.
    """
    runs: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        runs.setdefault(row["source"], []).append(row)
    return [row for its_own in that_count(list(runs.values()), fact_of) for row in its_own]


def fact_of(row: Mapping[str, Any], name: str) -> str:
    return text_of(row.get(name))


def left_out_text(newest: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what of the newest run is not in a ratio, and what of the rest is doubtful; or empty.

    Args:
        rows: those of the ratio, the newest first.
    """
    used = [row for row in rows if row["source"] == newest[0]["source"]]
    if not used:
        reason = text_of(newest[0].get("not_judged"))
        return f"speed-up of earlier runs, as the newest is not judged: {reason}"
    words = doubt_words(newest, used, fact_of)
    return f"speed-up {words}" if words.startswith("without") else words


def case_of(row: Mapping[str, Any]) -> str:
    """Return the case of a point and the input shape that was asked for, of which it has none."""
    shape = text_of(row["asked_shape"])
    return f"{row['case']}, input {shape}" if shape else str(row["case"])


def group_of(row: Mapping[str, Any], *facts: str) -> str:
    """Return what a row is grouped by, in words: these facts, the batch size and the setting."""
    words = [*(row[name] for name in facts), f"batch {int(row['batch_size'])}", setting(row)]
    return ", ".join(filter(None, words))


def with_versions(
    rows: Sequence[Mapping[str, Any]], name: str, words: Callable[[Mapping[str, Any]], str]
) -> list[dict[str, Any]]:
    """Return the rows with their words under a name; rows of one name are of one version.

    The version is added to the words where the rows that share them are of several.
    """
    texts = [words(row) for row in rows]
    versions: dict[str, set[str]] = {}
    for text, row in zip(texts, rows, strict=True):
        versions.setdefault(text, set()).add(text_of(row["framework"]))
    told = [f", {text_of(row['framework']) or 'version not known'}" for row in rows]
    return [
        {**row, name: text + version * (len(versions[text]) > 1)}
        for text, row, version in zip(texts, rows, told, strict=True)
    ]


_SETTING = (
    *("precision", "jit", "threads", "cpus", "replicas", "cluster", "backend", "runtime", "recipe"),
    "asked_shape",
)


def setting(row: Mapping[str, Any]) -> str:
    """Return what of a case is beyond model, task, device, batch size; empty at the defaults."""
    return _setting(*(row.get(name) for name in _SETTING))


@functools.lru_cache(maxsize=4096)
def _setting(*values: Any) -> str:
    row = dict(zip(_SETTING, values, strict=True))
    parts = [] if row["precision"] == "float32" else [row["precision"]]
    if row["jit"] == "on":
        parts.append("jit")
    if row["threads"] != "default":
        parts.append(f"{row['threads']} thread" + "s" * (row["threads"] != "1"))
    if cpus := text_of(row["cpus"]):
        node = cpus.removeprefix(NUMA)
        parts.append(f"CPUs {cpus}" if node == cpus else f"NUMA node {node}")
    if row["replicas"] > 1:
        parts.append(f"{int(row['replicas'])} replicas{_spread_over(text_of(row['cluster']))}")
    if row["backend"] != DEFAULT_BACKEND:
        parts.append(row["backend"])
    if row["runtime"] != DEFAULT_RUNTIME:
        parts.append(row["runtime"])
    if recipe := text_of(row["recipe"]):
        parts.append(recipe)
    if shape := text_of(row["asked_shape"]):
        parts.append(f"input {shape}")
    return ", ".join(parts)


def _spread_over(cluster: str) -> str:
    if not cluster:
        return ""
    return f" over {cluster.removeprefix('hosts')} machines" if cluster != "local" else " (local)"


def records_of(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows by name, of the columns that are there."""
    there = [name for name in names if name in table]
    columns = [table[name].tolist() for name in there]
    return [dict(zip(there, values, strict=True)) for values in zip(*columns, strict=True)]
