"""Figures as SVG and PNG files, drawn by vl-convert without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convmark.core.errors import StoreError
from convmark.report.figures.figure import CONFIG, Figure, Spec, figure_rows

__all__ = ["drawn_svg", "export_figures", "whole_spec"]

WIDTH = 680
PNG_SCALE = 2.0
MOST_CHOICES = 24
"""Drawings that one figure gives at most: one for each choice."""


def whole_spec(spec: Spec, rows: Sequence[dict[str, Any]], *, title: str = "") -> Spec:
    """Return a specification with its data, its width and the house style."""
    named = {"title": title} if title else {}
    data = {"data": {"values": list(rows)}, "width": WIDTH, "config": dict(CONFIG)}
    return {**spec, **data, **named, "background": "white"}


def drawn_svg(spec: Spec) -> str:
    """Return a whole specification drawn as SVG."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec))


def export_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG, one for each choice, and return the files.

    Raises:
        StoreError: the folder cannot be written.
    """
    import vl_convert

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in _drawings(figures):
            svg, png = folder / f"{name}.svg", folder / f"{name}.png"
            svg.write_text(drawn_svg(spec), encoding="utf-8")
            png.write_bytes(vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
            written += [svg, png]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"--figures: {folder} must be writable: {reason}") from None
    return written


def _drawings(figures: Sequence[Figure]) -> Iterator[tuple[str, Spec]]:
    for figure in figures:
        rows = figure_rows(figure.table)
        for choice in figure.choices[:MOST_CHOICES] or [""]:
            chosen = [row for row in rows if not choice or row[figure.choose_by] == choice]
            for number, spec in enumerate(figure.specs, 1):
                parts = [figure.key, _slug(choice), str(number) * (len(figure.specs) > 1)]
                name = "-".join(filter(None, parts))
                yield name, whole_spec(spec, chosen, title=choice or figure.table.title)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:100]
