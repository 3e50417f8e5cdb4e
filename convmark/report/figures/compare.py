"""Figures that put cases side by side: models, hardware, Pareto front, roofline, distribution."""

from __future__ import annotations

from collections import Counter

from convmark.core.table import Table
from convmark.report.figures.figure import (
    BY_PLACE,
    GREY,
    PERCENT,
    PLACES,
    Figure,
    Spec,
    axis,
    by_model,
    coloured,
    described,
    has,
    log_axis,
    rings,
    seconds_axis,
    tooltip,
)

_ROW = 22
"""Height of one case, in pixels."""
_MODEL_ROW = 24
"""Height of one model, in pixels."""


def hardware_figure(table: Table) -> Figure | None:
    """Draw the speed-up, with its interval, of each case that several have measured."""
    lines = ["model", "task", "batch_size", "setting"]
    drawn = [row for row in table.records() if row.get("speedup")]
    counts = Counter(tuple(row.get(key) for key in lines) for row in drawn)
    if max(counts.values(), default=0) < 2:
        return None
    name = (
        "datum.model + (datum.task ? ' ' + datum.task + ' b' + datum.batch_size : '')"
        " + (datum.setting ? ', ' + datum.setting : '')"
    )
    _, words = rings(table)
    title = f"speed-up (above 1 is faster){words}"
    # cases may be many: what the axis says stands where the figure begins
    x = log_axis("speedup", title, digits=".4~r", orient="top")
    y = {"field": "name", "type": "nominal", "title": None, "sort": dict(BY_PLACE)}
    colours = coloured("hardware", "hardware")
    line = {"type": "rule", "strokeDash": [4, 3], "color": GREY}
    layers: list[Spec] = [
        {"mark": line, "encoding": {"x": {"datum": 1}}},
        *rings(table, {"y": y, "x": x})[0],
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {"y": y, "x": x, **colours, "tooltip": tooltip(table)},
        },
    ]
    if has(table, "low", "high"):
        ends = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
        # grey: coloured as the points are, colour and shape would have a legend each
        layers.insert(1, {"mark": {"type": "rule", "color": GREY}, "encoding": ends})
    spec = {
        "height": {"step": _ROW},
        "usermeta": {"lines": lines, "several": "speedup"},
        "transform": [
            dict(PLACES),
            {"calculate": name, "as": "name"},
            {"filter": "isValid(datum.speedup)"},
            {"joinaggregate": [{"op": "count", "as": "places"}], "groupby": ["name"]},
            {"filter": "datum.places > 1 || !datum.task"},  # the mean has no task
        ],
        "layer": layers,
    }
    return Figure(table=table, specs=described([spec], table))


def pareto_figure(table: Table) -> Figure | None:
    """Draw throughput against parameters, with the front."""
    if not has(table, "parameters", "throughput_samples_per_s"):
        return None
    x = log_axis("parameters", "parameters")
    y = log_axis("throughput_samples_per_s", "throughput (samples/s)")
    return _with_front(table, x, y)


def published_figure(table: Table) -> Figure | None:
    """Draw published accuracy against the measured step time, with the front."""
    if not has(table, "step_time_p50_s", "top_1"):
        return None
    x = seconds_axis("step_time_p50_s", "step time, measured (median over processes)")
    y = axis("top_1", "top-1 on ImageNet, published", axis={**PERCENT, "tickCount": 6})
    y["scale"]["padding"] = 16
    return _with_front(table, x, y)


def _with_front(table: Table, x: Spec, y: Spec) -> Figure:
    """Draw a point for each model; what is on the front is large, and joined by a line."""
    ring, words = rings(table)
    spec = {
        "height": 320,
        "encoding": {"x": {**x, "title": f"{x['title']}{words}"}, "y": y},
        "layer": [
            *ring,
            {
                "transform": [{"filter": "datum.front !== ''"}],
                "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [5, 3],
                         "color": GREY},
            },
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {
                    **by_model(),
                    "size": {
                        "condition": {"test": "datum.front !== ''", "value": 160},
                        "value": 60,
                    },
                    "tooltip": tooltip(table),
                },
            },
        ],
    }  # fmt: skip
    return Figure(table=table, specs=described([spec], table), panels="group")


def roofline_figure(table: Table) -> Figure | None:
    """Draw what each case reaches under the ceilings of its hardware."""
    if not table.rows:
        return None
    peaks = [("max", "peak_flops_per_s", "flops"), ("max", "peak_bytes_per_s", "bytes"),
             ("min", "intensity", "least"), ("max", "intensity", "most")]  # fmt: skip
    ridge = "datum.flops / datum.bytes"
    corners = f"[min(datum.least, {ridge}) / 4, {ridge}, max(datum.most, {ridge}) * 4]"
    ceiling = [
        {"aggregate": [{"op": op, "field": field, "as": name} for op, field, name in peaks]},
        {"calculate": corners, "as": "intensity"},
        {"flatten": ["intensity"]},
        {"calculate": "min(datum.flops, datum.intensity * datum.bytes)", "as": "flops_per_s"},
    ]
    ring, words = rings(table)
    spec = {
        "height": 320,
        "encoding": {
            "x": log_axis("intensity", f"arithmetic intensity (FLOP per byte){words}"),
            "y": log_axis("flops_per_s", "reached (FLOP/s)"),
        },
        "layer": [
            {"transform": ceiling, "mark": {"type": "line", "color": GREY}},
            *ring,
            {
                "mark": {"type": "point", "filled": True, "size": 80},
                "encoding": {**by_model(), "tooltip": tooltip(table)},
            },
        ],
    }
    return Figure(table=table, specs=described([spec], table), panels="group")


def distribution_figure(table: Table) -> Figure | None:
    """Draw each case's quantiles: a line p10 to p90, a bar of the middle half, a tick p50."""
    if not has(table, "p10", "p25", "p50", "p75", "p90"):
        return None
    _, words = rings(table)
    x = seconds_axis("p50", f"step time, quantiles{words}")
    seen = {"tooltip": tooltip(table)}
    layers: list[Spec] = [
        _span("rule", "p10", "p90", x, seen),
        _span("bar", "p25", "p75", x, seen),
        {
            "mark": {"type": "tick", "color": "#d9730d", "thickness": 3, "size": 16},
            "encoding": {"x": x, **seen},
        },
    ]
    for name, shape in (("p95", "triangle-right"), ("p99", "diamond")):
        if has(table, name):
            mark = {"type": "point", "shape": shape, "color": "#a05ad0"}
            layers.append({"mark": mark, "encoding": {"x": {**x, "field": name}, **seen}})
    layers += rings(table, {"x": x})[0]
    spec = {
        "height": {"step": _ROW},
        "usermeta": {"lines": ["model"]},
        "transform": [dict(PLACES)],
        "encoding": {"y": {"field": "model", "type": "nominal", "title": None,
                           "sort": dict(BY_PLACE)}},
        "layer": layers,
    }  # fmt: skip
    return Figure(table=table, specs=described([spec], table), panels="group")


def _span(mark: str, low: str, high: str, x: Spec, seen: Spec) -> Spec:
    style = {"type": mark, "color": "#3b7dd8"} | ({"height": 10} if mark == "bar" else {})
    return {"mark": style, "encoding": {"x": {**x, "field": low}, "x2": {"field": high}, **seen}}


def models_figure(table: Table) -> Figure | None:
    """Draw the step time of each model and setting, the fastest on top, with its spread."""
    if not has(table, "step_time_p50_s"):
        return None
    name = "datum.model + (datum.setting ? ', ' + datum.setting : '')"
    _, ring = rings(table)
    title = f"step time, median; left is faster{ring}"
    x = seconds_axis("step_time_p50_s", title, orient="top")
    fastest_first = {"field": "step_time_p50_s", "op": "min", "order": "ascending"}
    y = {"field": "name", "type": "nominal", "title": None, "sort": fastest_first}
    colours = coloured("hardware", "hardware")
    layers: list[Spec] = [
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {"y": y, "x": x, **colours, "tooltip": tooltip(table)},
        },
    ]
    layers = rings(table, {"y": y, "x": x})[0] + layers
    if has(table, "spread"):
        ends = {"y": y, "x": {**x, "field": "least"}, "x2": {"field": "most"}}
        known = {"transform": [{"filter": "isValid(datum.spread)"}]}
        layers.insert(0, {**known, "mark": {"type": "rule", "color": GREY}, "encoding": ends})
    spec = {
        "height": {"step": _MODEL_ROW},
        "usermeta": {"lines": ["model", "setting"]},
        "transform": [
            {"calculate": name, "as": "name"},
            # never below 0, which the scale does not have: on it both sides are as long
            {"calculate": "datum.step_time_p50_s / (1 + datum.spread)", "as": "least"},
            {"calculate": "datum.step_time_p50_s * (1 + datum.spread)", "as": "most"},
        ],
        "layer": layers,
    }
    by = "{task}, batch {batch_size}"
    return Figure(table=table, specs=described([spec], table), choose_by=by)
