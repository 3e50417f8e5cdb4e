"""Figures along an axis: runs over time, batch sizes, replicas and threads, ways of calling."""

from __future__ import annotations

from convmark.core.table import Table
from convmark.report.figures.figure import (
    BY_PLACE,
    GREY,
    PERCENT,
    PLACES,
    UNKNOWN,
    Figure,
    Spec,
    coloured,
    described,
    has,
    log_axis,
    rings,
    seconds_axis,
    seconds_label,
    tooltip,
)

MARKS = {
    "regressed": "triangle-up",
    "improved": "triangle-down",
    "unchanged": "circle",
    "inconclusive": "square",
    "new": "diamond",
    "not judged": "cross",
}
"""The shape of each verdict."""


_SOFTWARE = (
    "datum.commit || datum.framework"
    " ? (datum.commit || 'unknown') + '|' + (datum.framework || '') : 'run ' + datum.run"
)
"""What has a step of the axis: a version and a commit, or a run of which neither is known."""

_LABEL = (
    "[slice(split(datum.label, '|')[0], 0, 8),"
    " split(split(datum.label, '|')[1] || '', ' ')[1] || '']"
)
"""The first digits of the commit, and the version in the line below."""

_EVEN = {"field": "software", "type": "ordinal", "sort": dict(BY_PLACE),
         "scale": {"type": "band", "padding": 0},
         "title": "commit and version, in the order of their first runs",
         "axis": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 6,
                  "labelExpr": _LABEL}}  # fmt: skip
"""Of a hardware the rows are the oldest first."""

_POINTS = (
    dict(PLACES),
    {"filter": "isValid(datum.step_time_p50_s)"},
    {"calculate": _SOFTWARE, "as": "software"},
)


def history_figure(table: Table) -> Figure | None:
    """Draw the step time of a case by version and commit, with intervals, verdicts and levels."""
    if not has(table, "step_time_p50_s"):
        return None
    ring, words = rings(table)
    y = seconds_axis("step_time_p50_s", f"step time, median over processes{words}")
    ring = [{**one, "encoding": {"y": y}} for one in ring]
    grey = {"color": {"value": GREY}}
    colour = {"color": {**coloured("framework", "version")["color"], "legend": {"columns": 3}}}
    shape = {
        "field": "judged",
        "type": "nominal",
        "title": "verdict",
        "scale": {"domain": list(MARKS), "range": list(MARKS.values())},
        "legend": {"columns": 3, "symbolFillColor": GREY, "symbolStrokeColor": GREY},
    }
    layers: list[Spec] = [
        *ring,
        {"mark": {"type": "line"}, "encoding": {"y": {**y, "aggregate": "median"}, **grey}},
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"y": y, **colour, "shape": shape, "tooltip": tooltip(table)},
        },
    ]
    if has(table, "low", "high"):
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**ends, **grey}})
    if has(table, "level", "level_s"):
        layers.insert(0, _levels(y, grey))
    if has(table, "moved"):
        layers += _change_points()
    verdict = "datum.verdict ? split(datum.verdict, ' ')[0] : 'not judged'"
    spec = {
        "height": 320,
        "transform": [
            *_POINTS,
            {"calculate": verdict, "as": "judged"},
            {"calculate": f"datum.framework || '{UNKNOWN}'", "as": "framework"},
        ],
        "encoding": {"x": _EVEN},
        "layer": layers,
    }
    return Figure(table=table, specs=described([spec], table), choose_by="case", panels="hardware")


def _levels(y: Spec, grey: Spec) -> Spec:
    """Draw each level as a bar over the steps of its runs."""
    by = ["software", "level"]
    ends = {"x": {**_EVEN, "bandPosition": 0}, "x2": {"field": "software", "bandPosition": 1}}
    least = [{"op": "min", "field": key, "as": key} for key in ("level_s", "place")]
    return {
        "transform": [
            {"filter": "isValid(datum.level_s)"},
            {"aggregate": least, "groupby": by},
        ],
        "mark": {"type": "rule", "strokeWidth": 7, "opacity": 0.3},
        "encoding": {**ends, "y": {**y, "field": "level_s"}, **grey},
    }


def _change_points() -> list[Spec]:
    """Draw a line where the level changes, and the change beside it, away from the nearer end."""
    at = [
        {"window": [{"op": "row_number", "as": "number"}]},
        {"joinaggregate": [{"op": "count", "as": "all"}]},
        {"filter": "isValid(datum.moved) && datum.moved !== ''"},
        {"calculate": "split(datum.moved, ' [')[0]", "as": "change"},
    ]
    words = {"type": "text", "y": 8, "fontSize": 11, "color": GREY}
    text = {"encoding": {"text": {"field": "change"}}}
    late = [*at, {"filter": "datum.number * 2 > datum.all"}]
    early = [*at, {"filter": "datum.number * 2 <= datum.all"}]
    return [
        {"transform": at, "mark": {"type": "rule", "strokeDash": [4, 3], "color": GREY}},
        {"transform": late, "mark": {**words, "align": "right", "dx": -6}, **text},
        {"transform": early, "mark": {**words, "align": "left", "dx": 6}, **text},
    ]


def batch_figure(table: Table) -> Figure | None:
    """Draw throughput and step time over the batch size, of one model at a time."""
    if not has(table, "batch_size", "throughput_samples_per_s", "step_time_p50_s"):
        return None
    ring, words = rings(table)
    x = log_axis("batch_size", f"batch size{words}")
    x["axis"] = {"format": "d", "tickCount": 6}
    x["scale"] = {"type": "log", "base": 2, "nice": False, "padding": 24}
    panels = [
        log_axis("throughput_samples_per_s", "throughput (samples/s)"),
        seconds_axis("step_time_p50_s", "step time, median over processes"),
    ]
    specs = [
        {
            "height": 220,
            "encoding": {"x": x, "y": y},
            "layer": [
                *ring,
                {
                    "mark": {"type": "line", "point": {"filled": True, "size": 70}},
                    "encoding": {**coloured("series", "measured"), "tooltip": tooltip(table)},
                },
            ],
        }
        for y in panels
    ]
    return Figure(table=table, specs=described(specs, table), panels="model")


def scaling_figure(table: Table) -> Figure | None:
    """Draw the efficiency over the number of replicas, with its interval."""
    return _efficiency_figure(table, "replicas", with_interval=has(table, "low", "high"))


def cores_figure(table: Table) -> Figure | None:
    """Draw the efficiency over the number of threads."""
    return _efficiency_figure(table, "threads")


def _efficiency_figure(table: Table, number: str, *, with_interval: bool = False) -> Figure | None:
    """Draw the efficiency over a number of which each case has several.

    Args:
        with_interval: whether `low` and `high` are its interval.
    """
    if not has(table, "efficiency", number):
        return None
    ring, words = rings(table)
    y = {"field": "efficiency", "type": "quantitative", "title": "efficiency",
         "axis": dict(PERCENT), "scale": {"zero": True}}  # fmt: skip
    printed = f"datum.{number}_text"
    digits = f"toNumber(replace({printed}, regexp('[^0-9]', 'g'), ''))"
    size = f"({digits} || 1e9) + ({printed} > 'a' ? 0.5 : 0)"
    x = {"field": number, "type": "ordinal", "title": f"{number}{words}", "sort": dict(BY_PLACE),
         "axis": {"labelAngle": 0}}  # fmt: skip
    layers: list[Spec] = [
        *ring,
        {
            "mark": {"type": "line", "point": {"filled": True, "size": 70}},
            "encoding": {**coloured("series", "case"), "tooltip": tooltip(table)},
        },
    ]
    if with_interval:
        known = {"transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}]}
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {**known, "mark": {"type": "rule", "color": GREY}, "encoding": ends})
    spec = {
        "height": 260,
        "transform": [{"calculate": size, "as": "place"}],  # `default (4)` comes after 4
        "encoding": {"x": x, "y": y},
        "layer": layers,
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
        "axis": {"format": ".4~s", "labelExpr": seconds_label("datum.label"), "labelOverlap": True},
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
        "transform": [
            dict(PLACES),
            {"calculate": "datum.direction + ': ' + datum.way", "as": "name"},
        ],
        "encoding": {
            "y": {"field": "name", "type": "nominal", "title": None, "sort": dict(BY_PLACE)},
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
    return Figure(table=table, specs=described([spec], table), panels="group")
