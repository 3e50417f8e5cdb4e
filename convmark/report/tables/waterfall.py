"""The overhead waterfall: what Keras and the input pipeline add to the compiled step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.table import FACETS, Heading, Table, heading, table_of
from convmark.report.tables.architectures import setting
from convmark.report.tables.points import latest, records_of
from convmark.results.record import shown_in
from convmark.session.waterfall import WAYS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["waterfall"]

_AXES = (
    "hardware",
    "model",
    "batch_size",
    "precision",
    "jit",
    "replicas",
    "cluster",
    "threads",
    "backend",
    "runtime",
)
_MORE = shown_in("waterfall")
"""Columns that are of no way: each row of a case has them."""
_MORE_NAMES = [column.name for column in _MORE]
_COLUMNS = (
    *(
        *_AXES,
        "task",
        "device",
        "machine",
        "framework",
        "case",
        "n",
        *WAYS.values(),
        "fit_call_s",
        "predict_call_s",
    ),
    *_MORE_NAMES,
)

_SHOWN: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "compiled_train": ("training", "compiled step", "the framework"),
        "fed_train": ("training", "compiled step, fed by tf.data", "the input pipeline"),
        "train_on_batch": ("training", "train_on_batch", "Keras, a batch from host memory"),
        "fit": ("training", "fit", "Keras and its input pipeline"),
        "compiled_infer": ("inference", "compiled step", "the framework"),
        "predict_on_batch": ("inference", "predict_on_batch", "Keras, a batch from host memory"),
        "predict": ("inference", "predict", "Keras and its input pipeline"),
    }
)
"""By way: its direction, its name, and what it adds to the compiled step."""


def waterfall(table: pd.DataFrame) -> Table:
    """Return a row for each way to call each case's model, of its newest run."""
    records = [
        record
        for row in records_of(latest(table), _COLUMNS)
        if "compiled_train_step_s" in row
        and row["compiled_train_step_s"] == row["compiled_train_step_s"]
        for record in _ways(row)
    ]
    records.sort(key=lambda row: row["group"])  # the ways of a group keep their order
    return table_of(
        "waterfall",
        "Overhead of a step",
        "Seconds per step of each way to call the same model, timed in turn in one process; the "
        "median over processes of each one's median over rounds. What a way adds to the compiled "
        "step is named beside it. fit and predict cost the seconds of a call "
        "besides, once, however many steps it has.",
        [
            heading("model", "model"),
            heading("group", "cases"),
            heading("direction", "direction"),
            heading("way", "called by"),
            heading("step_s", "per step", "seconds"),
            heading("compiled_s", "compiled step", "seconds"),
            heading("added_s", "added", "seconds"),
            heading("added_share", "added, share", "change"),
            heading("adds", "what it adds"),
            heading("call_s", "per call", "seconds"),
            *map(Heading.of, _MORE),
            heading("n", "n", "count"),
        ],
        records,
    )


def _ways(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    words = [row["model"], row["hardware"], f"batch {int(row['batch_size'])}", setting(row)]
    compiled_s: dict[str, float] = {}
    for way, (direction, name, adds) in _SHOWN.items():
        step_s = row[WAYS[way]]
        base_s = compiled_s.setdefault(direction, step_s)
        is_base = name == "compiled step"
        yield {
            **{name: row.get(name) for name in _MORE_NAMES},
            **{name: row.get(name) for name in FACETS},
            "group": ", ".join(filter(None, words)),
            "direction": direction,
            "way": name,
            "step_s": step_s,
            "compiled_s": base_s,
            "added_s": None if is_base else step_s - base_s,
            "added_share": None if is_base else step_s / base_s - 1,
            "adds": adds,
            "call_s": row.get(f"{way}_call_s"),
            "n": row["n"],
        }
