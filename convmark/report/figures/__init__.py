"""The figures of a report: Vega-Lite specifications over the tables' rows, and their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from convmark.core.table import Table
from convmark.report.figures.compare import (
    distribution_figure,
    hardware_figure,
    models_figure,
    pareto_figure,
    published_figure,
    roofline_figure,
)
from convmark.report.figures.figure import Figure, drawn
from convmark.report.figures.series import (
    batch_figure,
    cores_figure,
    history_figure,
    scaling_figure,
    waterfall_figure,
)

__all__ = ["Figure", "drawn", "figures_of"]

DRAWN: Mapping[str, Callable[[Table], Figure | None]] = {
    "architectures": models_figure,
    "hardware": hardware_figure,
    "history": history_figure,
    "batch": batch_figure,
    "distribution": distribution_figure,
    "pareto": pareto_figure,
    "published": published_figure,
    "roofline": roofline_figure,
    "cores": cores_figure,
    "scaling": scaling_figure,
    "waterfall": waterfall_figure,
}
"""The figure of each table that has one, by the table's key."""


def figures_of(tables: Sequence[Table]) -> list[Figure]:
    """Return the figures of the tables, where the rows have what they need."""
    found = [DRAWN[table.key](table) for table in tables if table.key in DRAWN]
    return [figure for figure in found if figure is not None]
