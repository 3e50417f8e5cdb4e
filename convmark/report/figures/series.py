"""Figures along an axis: runs over time, batch sizes, replicas."""

from __future__ import annotations

from convmark.report.figures.figure import (
    Figure,
    Spec,
    coloured,
    described,
    has,
    log_axis,
    tooltip,
)
from convmark.report.tables.table import Table

__all__ = ["batch_figure", "history_figure", "scaling_figure"]

_SECONDS = {
    "format": "~s",
    "labelExpr": "datum.label ? datum.label + 's' : ''",
    "tickCount": 6,
    "labelOverlap": True,
}

CLOCK = {"hours": "%H:%M", "minutes": "%H:%M", "seconds": "%H:%M:%S"}
"""Of 24 hours, as in the tables; a drawing library's own is of 12."""

MARKS = {
    "regressed": "triangle-up",
    "improved": "triangle-down",
    "unchanged": "circle",
    "inconclusive": "square",
    "new": "diamond",
    "not judged": "cross",
}
"""The shape of each verdict."""


def history_figure(table: Table) -> Figure | None:
    """Draw the step time of a case run by run, with intervals, verdicts and versions."""
    if not has(table, "step_time_p50_s"):
        return None
    y = log_axis("step_time_p50_s", "step time, median", axis=_SECONDS)
    colour = {"color": coloured("hardware", "hardware")["color"]}
    shape = {
        "field": "judged",
        "type": "nominal",
        "title": "verdict",
        "scale": {"domain": list(MARKS), "range": list(MARKS.values())},
        "legend": {"columns": 3},
    }
    layers: list[Spec] = [
        {"mark": {"type": "line", "opacity": 0.6}, "encoding": {"y": y, **colour}},
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"y": y, **colour, "shape": shape, "tooltip": tooltip(table)},
        },
    ]
    if has(table, "low", "high"):
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**ends, **colour}})
    if has(table, "framework"):
        layers.append(_versions(y))
    verdict = "datum.verdict ? split(datum.verdict, ' ')[0] : 'not judged'"
    spec = {
        "height": 320,
        "transform": [
            {"filter": "isValid(datum.step_time_p50_s)"},
            {"calculate": "utcParse(datum.started, '%Y-%m-%d %H:%M:%S')", "as": "time"},
            {"calculate": verdict, "as": "judged"},
        ],
        "encoding": {
            "x": {"field": "time", "type": "temporal", "title": "started (UTC)",
                  "scale": {"type": "utc"}, "axis": {"labelOverlap": True, "format": CLOCK}},
        },
        "layer": layers,
    }  # fmt: skip
    return Figure(table=table, specs=described([spec], table), choose_by="case")


def _versions(y: Spec) -> Spec:
    """Write the framework's version at the first run that has it."""
    before = {"op": "lag", "field": "framework", "as": "before"}
    return {
        "transform": [
            {
                "window": [before],
                "sort": [{"field": "time"}],
                "groupby": ["hardware"],
                "frame": [None, None],
            },
            {"filter": "datum.framework !== datum.before"},
        ],
        "mark": {"type": "text", "align": "left", "dx": 6, "dy": -12, "fontSize": 11},
        "encoding": {"y": y, "text": {"field": "framework"}},
    }


def batch_figure(table: Table) -> Figure | None:
    """Draw throughput and step time over the batch size, of one model at a time."""
    if not has(table, "batch_size", "throughput_samples_per_s", "step_time_p50_s"):
        return None
    x = log_axis("batch_size", "batch size", axis={"format": "d", "tickCount": 6})
    x["scale"] = {"type": "log", "base": 2, "nice": False, "padding": 24}
    panels = [
        log_axis("throughput_samples_per_s", "samples/s"),
        log_axis("step_time_p50_s", "step time, median", axis=_SECONDS),
    ]
    specs = [
        {
            "height": 220,
            "mark": {"type": "line", "point": {"filled": True, "size": 70}},
            "encoding": {
                "x": x,
                "y": y,
                "color": coloured("series", "measured")["color"],
                "tooltip": tooltip(table),
            },
        }
        for y in panels
    ]
    return Figure(table=table, specs=described(specs, table), choose_by="model")


def scaling_figure(table: Table) -> Figure | None:
    """Draw the efficiency over the number of replicas."""
    if not has(table, "efficiency", "replicas"):
        return None
    y = {"field": "efficiency", "type": "quantitative", "title": "efficiency",
         "axis": {"format": "%"}, "scale": {"zero": True}}  # fmt: skip
    spec = {
        "height": 260,
        "mark": {"type": "line", "point": {"filled": True, "size": 70}},
        "encoding": {
            "x": {"field": "replicas", "type": "ordinal", "title": "replicas"},
            "y": y,
            "color": coloured("series", "case")["color"],
            "tooltip": tooltip(table),
        },
    }
    return Figure(table=table, specs=described([spec], table))
