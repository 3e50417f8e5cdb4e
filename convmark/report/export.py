"""Results in the formats of other tools: Bencher, Otava, Conbench, OpenMetrics and MLflow.

An export is files by their paths: one file, or several in a folder. A figure is the median over the
processes of a case in a run; cases without figures are left out. What to be wary of stands where a
format has a place for it: its other load, and processes that failed or were unsteady, not judged or
beside other runs.

Source:
    bencher.dev, "Bencher Metric Format"; otava.apache.org, "CSV"; the API of Conbench,
    `BenchmarkResultCreate`; openmetrics.io, specification 1.0; mlflow.store.tracking.file_store.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.statistics import is_known
from convmark.core.text import load_text
from convmark.report.rows import POINT, SERIES, Rows, case_of, latest, points, text_of
from convmark.results.names import OTHER_HOST
from convmark.results.record import utc_of
from convmark.results.table_file import csv_lines

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metric:
    """A column that is exported, and what others call it and its unit."""

    column: str
    open_name: str
    """Its name in OpenMetrics, which ends in the unit."""
    open_unit: str
    unit: str
    """Conbench's name of the unit."""
    direction: int
    """Otava's: 1 where more is better, -1 where less is."""


METRICS = tuple(
    _Metric(column=column, open_name=name, open_unit=open_unit, unit=unit, direction=direction)
    for column, name, open_unit, unit, direction in (
        ("step_time_p50_s", "step_time_p50_seconds", "seconds", "s", -1),
        ("throughput_samples_per_s", "throughput_samples_per_second", "", "i/s", 1),
        ("time_to_first_step_s", "time_to_first_step_seconds", "seconds", "s", -1),
        ("peak_host_memory_bytes", "peak_host_memory_bytes", "bytes", "B", -1),
        ("peak_device_memory_bytes", "peak_device_memory_bytes", "bytes", "B", -1),
    )
)

NAME_LENGTH = 150
"""Of a file's name; file systems take 255 bytes."""

Files = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is written, and what the user is told of it."""

    files: Files
    """Text by path below the folder; of a single file the path is empty."""
    points: int
    left_out: int
    """Cases of runs without figures."""
    doubtful: int
    """Cases of runs of which there is something to be wary of."""


def export_of(rows: Rows, target: str) -> Export:
    """Return the rows in the format of another tool.

    Raises:
        OptionError: the format is of one machine or of the newest run, and there are several
            machines, or the newest run has no figures; or a run is there twice.
    """
    table = points(rows.frame)
    known = table[table["n"] > 0]
    files = TARGETS[target](known, rows.frame)
    return Export(
        files=files,
        points=len(known),
        left_out=len(table) - len(known),
        doubtful=sum(bool(_doubts(row)) for row in _records(known)),
    )


def _doubts(row: Mapping[str, Any]) -> str:
    """Return what of a point to be wary of; empty where it is nothing."""
    load = f"{load_text(row['load'])} other load" if is_known(row["load"]) else ""
    return ", ".join(filter(None, [load, text_of(row["doubts"])]))


def _states(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the same as numbers: 1 where there is something, and the other load where known."""
    share = row["other_cpu_share"]
    load = {"other_cpu_share": float(share)} if is_known(share) else {}
    return {"doubtful": float(bool(_doubts(row))), **load}


def _figures(row: Mapping[str, Any]) -> dict[_Metric, float]:
    return {one: float(row[one.column]) for one in METRICS if row[one.column] == row[one.column]}


def _texts(row: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Return the texts of a point that are there, by name."""
    return {name: text for name in names if (text := text_of(row[name]))}


def _machine(row: Mapping[str, Any]) -> str:
    """Return the machine, whatever other rows are there: a run is the same in each export."""
    return str(row["machine"]).removesuffix(OTHER_HOST)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the points by column name; the batch size is a whole number again."""
    rows = table.astype({"batch_size": int}).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _bmf(table: pd.DataFrame, frame: pd.DataFrame) -> Files:
    """The newest run as Bencher's JSON; the step time with half its range either way."""
    machines = sorted({_machine({"machine": one}) for one in frame["machine"].unique()})
    if len(machines) > 1:
        raise OptionError(
            f"--to bmf: is for one machine, got {', '.join(machines)}; give the folder of one"
        )
    newest = frame[frame["source"] == frame["source"].max()].iloc[0]
    of_newest = table[table["source"] == newest["source"]]
    if of_newest.empty:
        raise OptionError(
            f"--to bmf: exports the newest run, but {newest['run']} has no figures; give "
            "the file of an earlier run, or measure again"
        )
    found: dict[str, Any] = {}
    for row in _records(of_newest):
        values: dict[str, dict[str, float]] = {
            one.column: {"value": value} for one, value in _figures(row).items()
        }
        step, spread = values.get("step_time_p50_s"), row["spread"]
        if step and spread == spread:
            half = step["value"] * spread
            step |= {"lower_value": step["value"] - half, "upper_value": step["value"] + half}
        states = {name: {"value": value} for name, value in _states(row).items()}
        found[case_of(row)] = values | states
    return {"": json.dumps(found, indent=1, allow_nan=False)}


def _otava(table: pd.DataFrame, frame: pd.DataFrame) -> Files:
    """A CSV for each case and hardware, a line for each run, and the configuration that has them.

    Otava takes no empty cell: a metric is left out where a run has none.
    """
    files, tests = {}, {}
    for (hardware, *_), group in table.groupby(SERIES, observed=True):
        series = _records(group)
        case = case_of(series[0])
        metrics = [one for one in METRICS if all(one in _figures(row) for row in series)]
        attributes = ["run", "commit", "doubts"]
        lines = [["time", *attributes, *(one.column for one in metrics)]]
        for row in series:
            told = _doubts(row) or "none"
            head = [row["started"], row["run"], text_of(row["commit"]), told]
            lines.append([*head, *(repr(_figures(row)[one]) for one in metrics)])
        whole = f"{hardware.replace(' ', '-')}-{case}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", whole)[:NAME_LENGTH]
        if name != whole:  # the hash tells cases apart of whose names a part is lost
            name = f"{name}-{_hash(hardware, case)[:8]}"
        files[f"{name}.csv"] = csv_lines(lines)
        tests[name] = {
            "type": "csv",
            "file": f"{name}.csv",
            "time_column": "time",
            "attributes": attributes,
            "metrics": {
                one.column: {"column": one.column, "direction": one.direction} for one in metrics
            },
        }
    # JSON is YAML too
    return {**files, "otava.yaml": json.dumps({"tests": tests}, indent=1) + "\n"}


def _conbench(table: pd.DataFrame, frame: pd.DataFrame) -> Files:
    """Conbench's results, one for each run, case and metric, with the value of every process."""
    groups = frame[frame["measured"]].groupby(POINT, observed=True, sort=False)
    ids = _run_ids(table, frame)
    found = []
    for row in _records(table):
        group = groups.get_group(tuple(row[name] for name in POINT))
        for one in _figures(row):
            data = [float(value) for value in group[one.column] if value == value]
            run = f"{_machine(row)}-{row['run']}-{ids[row['source']][:8]}"
            found.append(_conbench_result(run, row, one, data))
    return {"": json.dumps(found, indent=1, allow_nan=False)}


def _conbench_result(
    run: str, row: Mapping[str, Any], metric: _Metric, data: list[float]
) -> dict[str, Any]:
    tags = _texts(row, "model", "task", "device", "batch_size", "precision")
    info = _texts({**row, "doubts": _doubts(row)}, "framework", "keras", "commit", "doubts")
    return {
        "run_id": run,
        "batch_id": run,
        "timestamp": row["started"],
        "tags": {"name": metric.column, "case": case_of(row), **tags},
        "info": info,
        "context": {"benchmark_language": "Python"},
        "cluster_info": {"name": str(row["machine"]), "info": {}, "optional_info": {}},
        "stats": {
            "data": data,
            "unit": metric.unit,
            "times": [],
            "time_unit": "s",
            "iterations": len(data),
        },
    }


_SHARE = "convmark_other_cpu_ratio"
"""The other programs' share of the CPUs' time, in OpenMetrics."""


def _openmetrics(table: pd.DataFrame, frame: pd.DataFrame) -> Files:
    """The newest figures of each case on each hardware, as gauges."""
    newest = _records(latest(table))
    lines = []
    for one in METRICS:
        values = [(row, _figures(row)[one]) for row in newest if one in _figures(row)]
        if not values:
            continue
        name = f"convmark_{one.open_name}"
        lines.append(f"# TYPE {name} gauge")
        lines += [f"# UNIT {name} {one.open_unit}"] if one.open_unit else []
        lines += [f"{name}{_labels(row)} {value!r}" for row, value in values]
    for state, name in (("doubtful", "convmark_doubtful"), ("other_cpu_share", _SHARE)):
        known = [(row, _states(row)[state]) for row in newest if state in _states(row)]
        if known:
            lines.append(f"# TYPE {name} gauge")
            lines += [f"# UNIT {name} ratio"] if name == _SHARE else []
            lines += [f"{name}{_labels(row)} {value!r}" for row, value in known]
    return {"": "\n".join([*lines, "# EOF", ""])}


def _labels(row: Mapping[str, Any]) -> str:
    named = _texts({**row, "case": case_of(row)}, "machine", "case", "device", "run", "commit")
    pairs = [f'{name}="{_escaped(value)}"' for name, value in named.items()]
    return f"{{{','.join(pairs)}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _mlflow(table: pd.DataFrame, frame: pd.DataFrame) -> Files:
    """A folder for MLflow's file store: an experiment for each machine, a run for each case."""
    files: dict[str, str] = {}
    ids = _run_ids(table, frame)
    for row in _records(table):
        machine = str(row["machine"])
        experiment = str(int(hashlib.sha256(machine.encode()).hexdigest()[:15], 16))
        run = _hash(ids[row["source"]], str(row["case"]))[:32]
        at_ms = int(utc_of(row["started"]).timestamp() * 1000)
        files[f"{experiment}/meta.yaml"] = _yaml(
            **{"artifact_location": experiment, "experiment_id": experiment, "name": machine},
            lifecycle_stage="active",
        )
        files[f"{experiment}/{run}/meta.yaml"] = _yaml(
            **{"artifact_uri": f"{experiment}/{run}/artifacts", "experiment_id": experiment},
            **{"run_id": run, "run_uuid": run, "run_name": f"{row['run']} {row['case']}"},
            **{"start_time": at_ms, "end_time": at_ms, "status": 3, "source_type": 4},
            **{"entry_point_name": "", "source_name": "convmark", "source_version": ""},
            **{"lifecycle_stage": "active", "tags": [], "user_id": ""},
        )
        for one, value in _figures(row).items():
            files[f"{experiment}/{run}/metrics/{one.column}"] = f"{at_ms} {value!r} 0\n"
        params = ("case", "model", "task", "device", "batch_size", "precision", "framework")
        for name, text in _texts({**row, "case": case_of(row)}, *params).items():
            files[f"{experiment}/{run}/params/{name}"] = text
        tags = {"mlflow.source.git.commit": text_of(row["commit"]), "doubts": _doubts(row)}
        for name, text in tags.items():
            if text:
                files[f"{experiment}/{run}/tags/{name}"] = text
    return files


def _yaml(**values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


def _run_ids(table: pd.DataFrame, frame: pd.DataFrame) -> dict[int, str]:
    """Return by source what no other run has: its hash, of the machine, the number and the start.

    Runs of two results folders have the same numbers.
    """
    starts = frame.groupby("source")["started"].min()
    found: dict[int, str] = {}
    for source, row in table.groupby("source").first().iterrows():
        start = starts[source]
        one = _hash(_machine(row), row["run"], start)
        if one in found.values():
            raise OptionError(
                f"--to: needs each run once, but run {row['run']} of {_machine(row)}, started "
                f"{start}, is in two files; give one of them"
            )
        found[int(source)] = one
    return found


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


TARGETS: Mapping[str, Callable[[Any, Any], Files]] = {
    "bmf": _bmf,
    "otava": _otava,
    "conbench": _conbench,
    "openmetrics": _openmetrics,
    "mlflow": _mlflow,
}
