"""Figures along an axis: runs over time, batch sizes, replicas."""

from __future__ import annotations

from convmark.core.table import Table
from convmark.report.figures.figure import (
    GREY,
    Figure,
    Spec,
    coloured,
    described,
    has,
    log_axis,
    tooltip,
)

__all__ = ["batch_figure", "history_figure", "scaling_figure", "waterfall_figure"]

_SECONDS = {
    "format": "~s",
    "labelExpr": "datum.label ? datum.label + 's' : ''",
    "tickCount": 6,
    "labelOverlap": True,
}

MARKS = {
    "regressed": "triangle-up",
    "improved": "triangle-down",
    "unchanged": "circle",
    "inconclusive": "square",
    "new": "diamond",
    "not judged": "cross",
}
"""The shape of each verdict."""


_LEFT = {"minExtent": 120, "maxExtent": 120}
"""Room for the labels of an axis, so that drawings one below the other have the same time axis."""

_SOFTWARE = (
    "datum.commit || datum.framework"
    " ? (datum.commit || 'no commit') + '|' + (datum.framework || '') : 'run ' + datum.run"
)
"""What has a step of the axis: a version and a commit, or a run of which neither is known."""

_LABEL = (
    "[slice(split(datum.label, '|')[0], 0, 8),"
    " split(split(datum.label, '|')[1] || '', ' ')[1] || '']"
)
"""The first digits of the commit, and the version in the line below."""

_EVEN = {"field": "software", "type": "ordinal", "sort": None,
         "title": "commit and version, in the order of their first runs",
         "axis": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 6,
                  "labelExpr": _LABEL}}  # fmt: skip
"""The rows are the oldest first, so that the order in which values appear is that of the runs."""

_POINTS = (
    {"filter": "isValid(datum.step_time_p50_s)"},
    {"calculate": _SOFTWARE, "as": "software"},
)


def history_figure(table: Table) -> Figure | None:
    """Draw the step time of a case by version and commit, with levels; versions below it."""
    if not has(table, "step_time_p50_s"):
        return None
    y = log_axis("step_time_p50_s", "step time, median over processes", axis={**_SECONDS, **_LEFT})
    colour = {
        "color": {**coloured("hardware", "hardware")["color"], "legend": {"symbolOpacity": 1}}
    }
    shape = {
        "field": "judged",
        "type": "nominal",
        "title": "verdict",
        "scale": {"domain": list(MARKS), "range": list(MARKS.values())},
        "legend": {"columns": 3, "symbolFillColor": GREY, "symbolStrokeColor": GREY},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "line", "opacity": 0.6},
            "encoding": {"y": {**y, "aggregate": "median"}, **colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"y": y, **colour, "shape": shape, "tooltip": tooltip(table)},
        },
    ]
    if has(table, "low", "high"):
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**ends, **colour}})
    if has(table, "level", "level_s"):
        bar = {"type": "line", "strokeWidth": 7, "opacity": 0.3, "strokeCap": "round"}
        level = {"y": {**y, "field": "level_s"}, "detail": {"field": "level"}, **colour}
        known = [{"filter": "isValid(datum.level_s)"}]
        layers.insert(0, {"transform": known, "mark": bar, "encoding": level})
    if has(table, "moved"):
        at = {"transform": [{"filter": "isValid(datum.moved) && datum.moved !== ''"}]}
        dashed = {"type": "rule", "strokeDash": [4, 3], "color": GREY}
        words = {"type": "text", "align": "right", "dx": -6, "y": 8, "fontSize": 11}
        layers += [
            {**at, "mark": dashed},
            {**at, "mark": {**words, "color": GREY}, "encoding": {"text": {"field": "moved"}}},
        ]
    verdict = "datum.verdict ? split(datum.verdict, ' ')[0] : 'not judged'"
    spec = {
        "height": 320,
        "transform": [*_POINTS, {"calculate": verdict, "as": "judged"}],
        "encoding": {"x": _EVEN},
        "layer": layers,
    }
    specs = [spec, *([_versions(table)] if has(table, "framework") else [])]
    return Figure(table=table, specs=described(specs, table), choose_by="case")


def _versions(table: Table) -> Spec:
    """Draw which commit had which version of the framework, a line for each, the newest on top.

    As words beside the points they would cover each other where versions follow closely.
    """
    version = {
        "field": "version",
        "type": "nominal",
        "title": "version",
        "sort": {"field": "rank", "op": "max", "order": "descending"},
        # a case is of one framework, so that a long version can stand without its name
        "axis": {
            **_LEFT,
            "labelExpr": "length(datum.label) > 18 ? split(datum.label, ' ')[1] : datum.label",
        },
    }
    colour = {"color": {**coloured("hardware", "hardware")["color"], "legend": None}}
    return {
        "height": {"step": 20},
        "usermeta": {"lines": ["framework"]},
        "transform": [
            *_POINTS,
            {"calculate": "datum.framework || 'not known'", "as": "version"},
            {"calculate": "split(split(datum.version, ' ')[1], '.')", "as": "parts"},
            {
                "calculate": "1e6 * parseInt(datum.parts[0]) + 1e3 * parseInt(datum.parts[1])"
                " + parseInt(datum.parts[2] || '0') || 0",
                "as": "rank",
            },
        ],
        "encoding": {"x": _EVEN, "y": version, **colour},
        "layer": [
            {"mark": {"type": "line", "opacity": 0.6}, "encoding": {"detail": version}},
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"tooltip": tooltip(table)},
            },
        ],
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
            "x": {
                "field": "replicas",
                "type": "ordinal",
                "title": "replicas",
                "axis": {"labelAngle": 0},
            },
            "y": y,
            "color": coloured("series", "case")["color"],
            "tooltip": tooltip(table),
        },
    }
    return Figure(table=table, specs=described([spec], table))


_COMPILED, _ADDED, _SAVED = "compiled step", "added by the way of calling", "less than compiled"


def waterfall_figure(table: Table) -> Figure | None:
    """Draw seconds per step as bars, training above inference; what is added in another colour."""
    if not has(table, "step_s", "compiled_s"):
        return None
    x: Spec = {
        "type": "quantitative",
        "title": "time per step",
        "scale": {"zero": True},
        "axis": {"format": "~s", "labelExpr": "datum.label + 's'", "labelOverlap": True},
    }
    colour = {
        "field": "part",
        "type": "nominal",
        "title": None,
        "scale": {
            "domain": [_COMPILED, _ADDED, _SAVED],
            "range": ["#3b7dd8", "#d9730d", "#2a9255"],
        },
    }
    added = f"datum.step_s < datum.compiled_s ? '{_SAVED}' : '{_ADDED}'"
    spec = {
        "height": {"step": 26},
        "usermeta": {"lines": ["direction", "way"]},
        "transform": [{"calculate": "datum.direction + ': ' + datum.way", "as": "name"}],
        "encoding": {
            "y": {"field": "name", "type": "nominal", "title": None, "sort": None},
            "tooltip": tooltip(table),
        },
        "layer": [
            {
                "transform": [
                    {"calculate": "min(datum.step_s, datum.compiled_s)", "as": "until"},
                    {"calculate": f"'{_COMPILED}'", "as": "part"},
                ],
                "mark": {"type": "bar", "height": 18},
                "encoding": {"x": {**x, "field": "until"}, "color": colour},
            },
            {
                "transform": [
                    {"filter": "isValid(datum.added_s)"},
                    {"calculate": added, "as": "part"},
                ],
                "mark": {"type": "bar", "height": 18},
                "encoding": {
                    "x": {**x, "field": "compiled_s"},
                    "x2": {"field": "step_s"},
                    "color": colour,
                },
            },
        ],
    }
    return Figure(table=table, specs=described([spec], table), choose_by="group")
