"""The drawings of figures: their colours, and their files.

One value of a field has one colour and shape in every drawing of a report. Its slot tells both; two
values of one drawing have two slots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from convmark.core.errors import DrawingError
from convmark.core.files import write_output, writing
from convmark.core.text import Say, natural_order
from convmark.report.figures.figure import (
    PALETTE,
    SHAPES,
    UNKNOWN,
    Figure,
    Spec,
    drawing_package,
    drawn_svg,
    naming_package,
    whole_spec,
)

PNG_SCALE = 2.0
MOST_CHOICES = 24
"""Drawings that one figure gives at most: one for each choice."""

_CHANNELS: Mapping[str, Sequence[str]] = {"color": PALETTE, "shape": SHAPES}

Slots = Mapping[str, Mapping[str, int]]
"""By field and value."""


def slots_of(figures: Sequence[Figure]) -> Slots:
    """Return a slot for each value by which a drawing of the figures is coloured.

    It is the first that no value has which stands in a drawing with it.
    """
    drawings: dict[str, dict[str, list[set[int]]]] = {}
    for figure in figures:
        fields = dict.fromkeys(one for spec in figure.specs for one in _fields(spec))
        for rows in figure.drawings().values() if fields else ():
            for field in fields:
                taken: set[int] = set()
                for value in _values(rows, field):
                    drawings.setdefault(field, {}).setdefault(value, []).append(taken)
    found: dict[str, dict[str, int]] = {}
    for field, by_value in drawings.items():
        for value in sorted(by_value, key=natural_order):
            taken = set[int]().union(*by_value[value])
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            for one in by_value[value]:
                one.add(slot)
            found.setdefault(field, {})[value] = slot
    return found


def _values(rows: Sequence[Mapping[str, Any]], field: str) -> set[str]:
    return {str(row.get(field) or UNKNOWN) for row in rows}


def _fields(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields by which a specification is coloured, but for those with own colours."""
    for key, value in spec.items():
        parts = value if isinstance(value, list) else [value]
        if key in _CHANNELS and "field" in value and "scale" not in value:
            yield value["field"]
        for part in parts:
            if isinstance(part, Mapping):
                yield from _fields(part)


def painted(spec: Spec, rows: Sequence[Mapping[str, Any]], slots: Slots) -> Spec:
    """Return a specification whose colours and shapes are those of its rows' values.

    As `report.js` does it for the rows that a reader has chosen.
    """

    def scale(channel: str, field: str) -> dict[str, Any]:
        there = _values(rows, field)
        values = [value for value in slots[field] if value in there]
        range_ = _CHANNELS[channel]
        return {"domain": values, "range": [range_[slots[field][one] % len(range_)]
                                            for one in values]}  # fmt: skip

    def part(value: Any, key: str = "") -> Any:
        if isinstance(value, list):
            return [part(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        found = {name: part(one, name) for name, one in value.items()}
        if key in _CHANNELS and value.get("field") in slots and "scale" not in value:
            found["scale"] = scale(key, value["field"])
        return found

    return dict(part(spec))


# -- as files --------------------------------------------------------------------------------------


def drawn(figures: Sequence[Figure], *, most: int) -> list[str]:
    """Return the figures as SVG, one for each choice, at most so many."""
    return [drawn_svg(spec) for _, spec in islice(_drawings(figures), most)]


def export_figures(figures: Sequence[Figure], folder: Path, say: Say) -> list[Path]:
    """Write every figure as SVG and PNG, one for each choice, and return the files.

    Args:
        say: is told of a figure that cannot be drawn; the others are written.

    Raises:
        DrawingError: none can be drawn.
        StoreError: the folder cannot be written.
    """
    package = drawing_package()
    written = []
    with writing(f"--figures: {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in _drawings(figures):
            svg, png = folder / f"{name}.svg", folder / f"{name}.png"
            try:
                with naming_package():
                    forms = drawn_svg(spec), package.vegalite_to_png(spec, scale=PNG_SCALE)
            except DrawingError as error:
                say(f"--figures: {name} is left out: {error}")
                continue
            write_output(svg, forms[0].encode())
            write_output(png, forms[1])
            written += [svg, png]
    return written


def _drawings(figures: Sequence[Figure]) -> Iterator[tuple[str, Spec]]:
    slots = slots_of(figures)
    for figure in figures:
        for values, chosen in islice(figure.drawings().items(), MOST_CHOICES):
            choice = ", ".join(filter(None, values))
            for number, spec in enumerate(figure.specs, 1):
                word = re.sub(r"[^A-Za-z0-9._]+", "-", choice).strip("-.")[:100]
                parts = [figure.key, word, str(number) * (len(figure.specs) > 1)]
                name = "-".join(filter(None, parts))
                title = choice or figure.table.title
                yield name, whole_spec(painted(spec, chosen, slots), chosen, title=title)
