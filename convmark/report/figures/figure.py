"""Figure: a Vega-Lite specification over the rows of a table; it has no other data.

The drawings of figures: their colours, and their files.

One value of a field has one colour and shape in every drawing of a report. Its slot tells both; two
values of one drawing have two slots.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from convmark.core.errors import DrawingError
from convmark.core.files import write_output, writing
from convmark.core.table import Table, cell_text
from convmark.core.text import Say, natural_order
from convmark.worker.protocol import one_line

Spec = dict[str, Any]

PALETTE = ("#3b7dd8", "#d9730d", "#2a9255", "#a05ad0", "#d6457f", "#0f8f9a", "#9a6a3a", "#777d86")
"""Each has a contrast of 3 and more on white and on the page's dark ground; shapes differ too."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
"""One fewer than colours, so that it takes 56 models until two look the same."""

GREY = "#777d86"
"""Seen on white and on the dark ground."""

UNKNOWN = "not known"
"""Stands for an absent value by which a drawing is coloured."""

PLACES: Mapping[str, Any] = {"window": [{"op": "row_number", "as": "place"}]}
"""The transform that numbers the rows; it comes before any that leaves some out."""

BY_PLACE: Mapping[str, Any] = {"field": "place", "op": "min", "order": "ascending"}
"""Sorts the values of an axis by their first rows. Unsorted they are in the order in which the
layers have them, and a layer that leaves rows out may come first."""

CONFIG: Mapping[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": "transparent"},
    "range": {"category": list(PALETTE)},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
             "labelLimit": 260, "gridColor": "#dddddd"},
    "axisX": {"labelBound": 4},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 320,
               "orient": "bottom", "columns": 1, "titleFontWeight": "normal",
               "layout": {"bottom": {"direction": "vertical", "anchor": "start"}}},
    "point": {"opacity": 1},
    "tick": {"opacity": 1},
    "title": {"fontSize": 13, "anchor": "start"},
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One section's drawing; several specifications are drawn one below the other."""

    table: Table
    specs: tuple[Spec, ...]
    """Without data, which are the rows of `figure_rows`."""
    choose_by: str = ""
    """What picks the rows that are drawn: the key of a column, or keys in braces within words, such
    as `{task}, batch {batch_size}`; empty where all are drawn."""
    panels: str = ""
    """Key of the column each value of which has a drawing of its own; empty where one shows all."""

    @property
    def key(self) -> str:
        return self.table.key

    def choice_of(self, row: Mapping[str, Any]) -> str:
        """Return the choice that a row of the table belongs to."""
        if not self.choose_by:
            return ""
        words = self.choose_by if "{" in self.choose_by else f"{{{self.choose_by}}}"
        return words.format(**row)

    @property
    def choices(self) -> list[str]:
        """What can be chosen, in the order of the rows."""
        return list(dict.fromkeys(self._of_rows()))

    def _of_rows(self) -> list[str]:
        return [self.choice_of(row) for row in self.table.records()] if self.choose_by else []

    def drawings(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return the rows of each drawing, by its choice and its panel."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in figure_rows(self.table):
            place = self.choice_of(row), str(row.get(self.panels) or "")
            found.setdefault(place, []).append(row)
        return found

    @property
    def first_choice(self) -> str:
        """What a page draws first: that of the most rows, for one point says little."""
        counts = Counter(self._of_rows())
        return max(counts, key=counts.__getitem__, default="")


def figure_rows(table: Table) -> list[dict[str, Any]]:
    """Return the rows by key, each number also as it is printed, under `<key>_text`."""
    rows = []
    for row in table.rows:
        found: dict[str, Any] = {}
        for heading, value in zip(table.headings, row, strict=True):
            found[heading.key] = value
            if heading.numeric:
                found[f"{heading.key}_text"] = cell_text(heading, value)
            elif value is None:
                found[heading.key] = ""
        rows.append(found)
    return rows


def tooltip(table: Table) -> list[Spec]:
    """Return what shows on hover: the row, as the table prints it."""
    return [
        {
            "field": f"{heading.key}_text" if heading.numeric else heading.key,
            "type": "nominal",
            "title": heading.label,
        }
        for heading in table.headings
    ]


def axis(field: str, title: str, **more: Any) -> Spec:
    """Return a linear axis that does not start at 0, and says so."""
    return {
        "field": field,
        "type": "quantitative",
        "title": f"{title} (the axis does not begin at 0)",
        "scale": {"zero": False},
        **more,
    }


def seconds_label(number: str) -> str:
    """Return the expression of a number of seconds, with a prefix of SI, as tables print it."""
    apart = f"replace({number}, regexp('([0-9])([^0-9]*)$'), '$1 $2')"
    return f"replace({apart}, 'µ', 'u') + 's'"


PERCENT: Mapping[str, Any] = {"format": "%", "labelExpr": "replace(datum.label, '%', ' %')"}
"""Of an axis of shares: as many digits as tell its ticks apart, and per cent as tables print it."""


def log_axis(
    field: str, title: str, *, digits: str = ".4~s", seconds: bool = False, **more: Any
) -> Spec:
    """Return a logarithmic axis, which says so.

    Its labels are those of d3, of which wide axes have few, and all at 1, 2 and 5.
    """
    number = f"format(datum.value, '{digits}')"
    first = "slice(format(datum.value, '.0e'), 0, 1)"
    label = f"datum.label || indexof('125', {first}) >= 0 ? "
    label += f"{seconds_label(number) if seconds else number} : ''"
    return {
        "field": field,
        "type": "quantitative",
        "title": f"{title}, log scale",
        "scale": {"type": "log", "nice": False, "padding": 24},
        "axis": {"labelExpr": label, "tickCount": 6, "labelOverlap": True, **more},
    }


def seconds_axis(field: str, title: str, **more: Any) -> Spec:
    """Return a logarithmic axis of seconds, as `log_axis`."""
    return log_axis(field, title, seconds=True, **more)


def coloured(field: str, title: str) -> Spec:
    """Return colour and shape by a text column, with one legend for both."""
    channel = {"field": field, "type": "nominal", "title": title}
    return {"color": channel, "shape": channel}


def by_model() -> Spec:
    """Return colour and shape by model, named below: names beside points would cover each other."""
    channel = {"field": "model", "type": "nominal", "title": "model", "legend": {"columns": 3}}
    return {"color": channel, "shape": channel}


def has(table: Table, *keys: str) -> bool:
    there = {heading.key for heading in table.headings}
    return bool(table.rows) and there.issuperset(keys)


def rings(table: Table, encoding: Spec | None = None) -> tuple[list[Spec], str]:
    """Return a ring around each point under other load, and what the axis says of it; or nothing.

    Args:
        encoding: the place of a point, where the layers have none in common.
    """
    loads = [f"datum.{key} > 0" for key in ("load", "earlier_load") if has(table, key)]
    if not loads:
        return [], ""
    mark = {"type": "point", "shape": "circle", "size": 260, "color": GREY}
    loaded = {"transform": [{"filter": " || ".join(loads)}], "mark": mark}
    return [{**loaded, "encoding": encoding or {}}], "; in a ring: under other load"


def described(specs: Sequence[Spec], table: Table) -> tuple[Spec, ...]:
    """Return the specifications with the text that a screen reader reads out."""
    words = (f"{table.title}.", table.caption, table.drawing)
    text = " ".join([*filter(None, words), "The table below the figure has its numbers."])
    return tuple({**spec, "description": text} for spec in specs)


WIDTH = 680


MOST_OF_TITLE = 88
"""Letters of a line of a title that fit into the width."""


def whole_spec(spec: Spec, rows: Sequence[dict[str, Any]], *, title: str = "") -> Spec:
    """Return a specification with its data, its width and the house style."""
    lines = textwrap.wrap(title, MOST_OF_TITLE)
    named = {"title": lines if len(lines) > 1 else title} if title else {}
    data = {"data": {"values": list(rows)}, "width": WIDTH, "config": dict(CONFIG)}
    return {**spec, **data, **named, "background": "white"}


def drawing_package() -> Any:
    """Return vl_convert."""
    try:
        import vl_convert
    except ImportError as error:
        raise DrawingError(
            f"vl_convert cannot be imported: {error}; pip install vl-convert-python"
        ) from None
    return vl_convert


def drawn_svg(spec: Spec) -> str:
    """Return a whole specification drawn as SVG."""
    package = drawing_package()
    with naming_package():
        return str(package.vegalite_to_svg(spec))


@contextlib.contextmanager
def naming_package() -> Iterator[None]:
    """Name the package in what it raises."""
    try:
        yield
    except ValueError as error:
        raise DrawingError(f"vl_convert cannot draw it: {one_line(str(error))}") from None


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
