"""Runtimes: what an exported model costs, and whether it computes the same, beside Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIMES
from convmark.core.statistics import grouped
from convmark.core.table import Table, headings, table_of
from convmark.core.text import natural_order
from convmark.report.ratios import fastest_marks
from convmark.report.rows import POINT, judged_rows, latest, records_of, setting, text_of

if TYPE_CHECKING:
    import pandas as pd

_SAME = (
    *("hardware", "model", "batch_size", "threads", "cpus", "asked_shape"),
    *("framework", "keras", "code", "packages"),
)
"""What cases must share to be ranked; of the packages all but the runtime's own."""
_COLUMNS = (
    *_SAME,
    *("commit", "task", "backend", "jit", "replicas", "runtime", "precision", "n"),
    *("machine", "device"),
    *("step_time_p50_s", "time_to_first_step_s", "export_s", "load_s", "exported_bytes"),
    *("peak_host_memory_bytes", "runtime_threads", "largest_rel_error", "top1_agreement"),
    *("spread", "load", "doubts", "source", "case"),
)

_CAPTION = (
    "Models as they are deployed, the fastest first among rows of the same model, batch size, "
    "machine, setting of threads, and version of framework, code and packages. The fastest is "
    "marked yes if it is faster than all others at 95 % confidence. Otherwise it and those that it "
    "was not shown to be faster than are marked perhaps (the interval of the ratio of their step "
    "times contains 1) or not comparable (they are from different runs, or one has fewer than "
    "three processes: measure them in one run with --processes 3 or more). A row with an error has "
    "passed the comparison with the Keras model in float32: the error is the largest difference of "
    "an output, less what float32 may round (1.9e-6 of its largest magnitude), divided by the "
    "largest distance of that output from its mean. A row without an error is of a file that was "
    "compared with nothing. If the runtimes ran with "
    'different numbers of threads, the fastest has "threads differ". A step of '
    "an exported model takes its batch from host memory and returns its outputs "
    "there. The step of Keras, in float32 only, has its batch on the device and "
    "returns one number, so it is not ranked: savedmodel is the same graph, "
    "measured like the others. The file of a runtime has one batch size."
)


def runtimes(frame: pd.DataFrame, table: pd.DataFrame) -> Table:
    """Return the newest figures of models that were exported, beside those of Keras.

    Rows are of runs without error: a file that computes something else than the model has none.

    Args:
        frame: rows, whose step times tell which runtimes can be told apart.
        table: points.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in records_of(latest(table), _COLUMNS):
        plain = (row["task"], row["jit"], row["replicas"]) == ("infer", "off", 1)
        is_other = row["runtime"] == DEFAULT_RUNTIME and row["precision"] != "float32"
        if plain and not is_other:
            row["code"] = text_of(row.get("code")) or f"commit {text_of(row.get('commit'))}"
            own = RUNTIMES[row["runtime"]].distributions
            packages = text_of(row.get("packages")).split()
            others = (one for one in packages if one.partition("==")[0] not in own)
            row["packages"] = " ".join(sorted(others))
            of_columns = {"precision": "float32", "backend": DEFAULT_BACKEND}
            row["setting"] = setting({**row, **of_columns, "runtime": DEFAULT_RUNTIME})
            groups.setdefault(tuple(text_of(row.get(name)) for name in _SAME), []).append(row)
    times = _step_times(frame[frame["runtime"] != DEFAULT_RUNTIME])
    records = []
    for _, rows in sorted(groups.items(), key=lambda group: [*map(natural_order, group[0])]):
        ranked = [row for row in rows if row["runtime"] != DEFAULT_RUNTIME]
        if ranked:
            ranked.sort(key=lambda row: row["step_time_p50_s"])
            marks = _fastest(ranked, [times.get(_point(row), []) for row in ranked])
            records += [{**row, "fastest": mark} for row, mark in zip(ranked, marks, strict=True)]
            keras = [row for row in rows if row["runtime"] == DEFAULT_RUNTIME]
            records += [{**row, "fastest": "not ranked"} for row in keras]
    return table_of(
        "runtimes",
        "Runtimes",
        _CAPTION,
        headings(
            "model hardware batch_size setting runtime precision framework step_time_p50_s spread "
            "load doubts fastest time_to_first_step_s load_s export_s exported_bytes "
            "peak_host_memory_bytes largest_rel_error top1_agreement runtime_threads n",
            hardware="measured on",
            framework="version",
            load_s=("load", "seconds"),
            export_s=("export", "seconds"),
            exported_bytes=("file", "bytes"),
            largest_rel_error=("error", "error"),
            top1_agreement=("top-1 agreement", "share"),
            runtime_threads=("threads", "count"),
        ),
        records,
    )


def _point(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in POINT)


def _step_times(frame: pd.DataFrame) -> dict[tuple[str, ...], list[float]]:
    """Return the median step times of the processes of each point that ratios are of, seconds."""
    columns = (*POINT, "step_time_p50_s", "status", "not_judged")
    measured = records_of(frame[frame["measured"]], columns)
    points = grouped((_point(row), row) for row in measured)
    return {
        point: [row["step_time_p50_s"] for row in judged_rows(rows)]
        for point, rows in points.items()
    }


def _fastest(ranked: Sequence[Mapping[str, Any]], times_s: Sequence[Sequence[float]]) -> list[str]:
    """Return for each row whether it is the fastest; a single row is not the fastest of any."""
    if len(ranked) == 1:
        return [""]
    threads = {text_of(row["runtime_threads"]) for row in ranked}
    more = "" if len(threads) == 1 else ", threads differ"
    run = ranked[0]["source"]
    marks = fastest_marks(times_s, 0, lambda place: bool(ranked[place]["source"] == run))
    return [mark and f"{mark}{more}" for mark in marks]
