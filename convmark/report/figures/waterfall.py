"""The overhead waterfall drawn: the compiled step, and what each way to call the model adds."""

from __future__ import annotations

from convmark.core.table import Table
from convmark.report.figures.figure import Figure, Spec, described, has, tooltip

__all__ = ["waterfall_figure"]

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
