"""The page's first figure: the models side by side, of one task and batch size at a time."""

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

__all__ = ["models_figure"]

_SECONDS = {
    "format": "~s",
    "labelExpr": "datum.label ? datum.label + 's' : ''",
    "tickCount": 6,
    "labelOverlap": True,
    "orient": "top",
}
_ROW = 24
"""Height of one model, in pixels."""


def models_figure(table: Table) -> Figure | None:
    """Draw the step time of each model and setting, the fastest on top, with its spread."""
    if not has(table, "step_time_p50_s"):
        return None
    name = "datum.model + (datum.setting ? ', ' + datum.setting : '')"
    ring = "; in a ring: under other load" if has(table, "load") else ""
    title = f"step time, median; left is faster{ring}"
    x = log_axis("step_time_p50_s", title, axis=_SECONDS)
    fastest_first = {"field": "step_time_p50_s", "op": "min", "order": "ascending"}
    y = {"field": "name", "type": "nominal", "title": None, "sort": fastest_first}
    colours = coloured("hardware", "hardware")
    layers: list[Spec] = [
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {"y": y, "x": x, **colours, "tooltip": tooltip(table)},
        },
    ]
    if has(table, "load"):
        mark = {"type": "point", "shape": "circle", "size": 260, "color": GREY}
        loaded = {"transform": [{"filter": "datum.load > 0"}], "mark": mark}
        layers.insert(0, {**loaded, "encoding": {"y": y, "x": x}})
    if has(table, "spread"):
        ends = {"y": y, "x": {**x, "field": "least"}, "x2": {"field": "most"}}
        known = {"transform": [{"filter": "isValid(datum.spread)"}]}
        layers.insert(0, {**known, "mark": {"type": "rule", "color": GREY}, "encoding": ends})
    spec = {
        "height": {"step": _ROW},
        "usermeta": {"lines": ["model", "setting"]},
        "transform": [
            {"calculate": name, "as": "name"},
            {"calculate": "datum.step_time_p50_s * (1 - datum.spread)", "as": "least"},
            {"calculate": "datum.step_time_p50_s * (1 + datum.spread)", "as": "most"},
        ],
        "layer": layers,
    }
    by = "{task}, batch {batch_size}"
    return Figure(table=table, specs=described([spec], table), choose_by=by)
