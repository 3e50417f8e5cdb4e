"""Described models: reads what `convmark run --describe` saved with the results.

results/<machine>/models/<model>.json    its layers, as the worker traced them
results/<machine>/models/<model>.svg     their diagram
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmark.core.backends import BACKENDS
from convmark.core.errors import StoreError
from convmark.core.files import read_regular
from convmark.core.table import Table, headings, table_of
from convmark.core.text import count_text, counted, plain_text, seconds_text, share_text
from convmark.session.layers import LayerRow

if TYPE_CHECKING:
    from markupsafe import Markup

FOLDER = "models"
DESCRIPTION_SCHEMA = 1
_NEEDED = ("model", "input_shape", "layers", "keras", "its framework's version")


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedModel:
    """One model, layer by layer."""

    model: str
    input_shape: str
    """One sample's, such as 28x28x1."""
    table: Table
    layers: tuple[Layer, ...]

    @property
    def depth(self) -> int:
        """Layers that hold weights: the depth that Keras lists for its applications."""
        return sum(layer.parameters > 0 for layer in self.layers)

    @property
    def traffic_elements(self) -> int | None:
        """Elements that a forward pass of one sample reads and writes between layers.

        Every layer reads its inputs and writes its output once; where its inputs are not known
        they count as the layer before it. None where a shape is not known.
        """
        sizes = [_elements(layer.shape) for layer in self.layers]
        first = _elements(self.input_shape)
        if None in sizes or first is None:
            return None
        known = [size or 0 for size in sizes]
        before = [first, *known]
        read = [
            sum(known[source] for source in layer.inputs) if layer.inputs else before[place]
            for place, layer in enumerate(self.layers)
        ]
        return sum(known) + sum(read)

    @property
    def diagram(self) -> Markup:
        """The diagram as an SVG element, every text in it escaped."""
        from markupsafe import Markup

        return Markup(diagram(self.model, self.layers))


def description_path(machine_folder: Path, model: str) -> Path:
    """Return the file of a model's description; its diagram ends in .svg instead."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", model)[:100]
    return machine_folder / FOLDER / f"{stem}.json"


def described_models(runs: Sequence[Path]) -> list[DescribedModel]:
    """Return the models described beside the runs, by name, the newest description of each."""
    found: dict[str, tuple[float, DescribedModel]] = {}
    for folder in dict.fromkeys(path.resolve().parent / FOLDER for path in runs):
        for path in sorted(folder.glob("*.json")):
            model, written = read_description(path), path.stat().st_mtime
            if model.model not in found or written > found[model.model][0]:
                found[model.model] = written, model
    return [model for _, (_, model) in sorted(found.items())]


def read_description(path: Path) -> DescribedModel:
    try:
        value = json.loads(_text(path))
        if value["schema"] != DESCRIPTION_SCHEMA:
            raise StoreError(
                f"{path}:1: must be of schema {DESCRIPTION_SCHEMA}, got {value['schema']!r}; "
                "`convmark run --describe` writes it again"
            )
        return _model(value)
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}:{error.lineno}: must be JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    except _NO_DESCRIPTION as error:
        raise StoreError(
            f"{path}:1: must describe a model by {', '.join(_NEEDED)}: "
            f"{type(error).__name__} {error}; `convmark run --describe` writes it again"
        ) from None


MOST_COUNT, MOST_AXIS, MOST_AXES = 10**18, 10**9, 12
"""Parameters, FLOPs or bytes of a layer; size and number of the axes of a shape."""

MOST_BYTES = 1 << 25
"""Of a description; a model of 10,000 layers has 3 MB."""

_NO_DESCRIPTION = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a file that is JSON of something else makes its reader raise."""


def _text(path: Path) -> str:
    data = read_regular(path, MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise StoreError(f"{path}:1: must be at most {MOST_BYTES >> 20} MiB, it is larger")
    return data.decode("utf-8")


def layers_of(described: Sequence[Mapping[str, Any]]) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            name=plain_text(str(layer["name"])),
            kind=plain_text(str(layer["kind"])),
            shape=_shape(layer["output_shape"]),
            parameters=_count(layer["parameters"]),
            flops=None if layer["flops"] is None else _count(layer["flops"]),
            weight_bytes=_count(layer["weight_bytes"]),
            inputs=tuple(int(place) for place in layer["inputs"]),
        )
        for layer in described
    )


def _shape(axes: Sequence[Any] | Mapping[str, Any] | None) -> str:
    if axes is None:
        return ""
    if isinstance(axes, Mapping):  # of several inputs
        return ", ".join(f"{plain_text(str(name))} {_shape(axes[name])}" for name in axes)
    if len(axes) > MOST_AXES:
        raise ValueError(f"a shape must have at most {MOST_AXES} axes")
    return "x".join("?" if axis is None else str(_count(axis, MOST_AXIS)) for axis in axes)


def _count(value: Any, most: int = MOST_COUNT) -> int:
    number = int(value)
    if not 0 <= number <= most:
        raise ValueError(f"a number must be from 0 to {most:,}")
    return number


def _model(value: Mapping[str, Any]) -> DescribedModel:
    name, layers = plain_text(str(value["model"])), layers_of(value["layers"])
    if any(not 0 <= source < len(layers) for layer in layers for source in layer.inputs):
        raise ValueError("inputs must be places of layers")
    frameworks = [f"{one.label} {value[name]}" for name, one in BACKENDS.items() if value.get(name)]
    if not frameworks:
        raise LookupError(f"none of {', '.join(BACKENDS)}")
    versions = plain_text(f"{', '.join(frameworks)}, Keras {value['keras']}")
    caption = (
        f"Input {_shape(value['input_shape'])}, per sample; {versions}. One row per call of a "
        "layer that does work itself. FLOPs are 2 x multiply-adds, forward; bytes are those of "
        "the weights that the layer holds; a shared layer's count at its first call."
    )
    columns = headings(
        "number name kind shape parameters flops weight_bytes",
        number=("number", "count"),
        name="layer",
        shape="output shape",
        flops=("FLOPs", "flops"),
        weight_bytes=("weights", "bytes"),
    )
    records = [
        {"number": number, "name": layer.name, "kind": layer.kind, "shape": layer.shape,
         "parameters": layer.parameters, "flops": layer.flops,
         "weight_bytes": layer.weight_bytes}
        for number, layer in enumerate(layers, 1)
    ]  # fmt: skip
    table = table_of(f"model-{name}", f"Layers of {name}", caption, columns, records)
    return DescribedModel(
        model=name,
        input_shape=_shape(value["input_shape"]),
        table=table,
        layers=layers,
    )


def _elements(shape: str) -> int | None:
    axes = shape.split("x")
    return math.prod(map(int, axes)) if all(axis.isdecimal() for axis in axes) else None


# -- the diagram: layers from top to bottom, connections as lines ----------------------------------


ROW, BOX, WIDTH, LEFT, LANE = 30, 22, 420, 8, 9
"""Pixels: a layer's share of the height, its box's height and width, the margin, an arc's width."""
MOST_LANES = 12
TIMES = 120
"""Pixels of a time and its share, beside the lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One call of one layer on one sample."""

    name: str
    kind: str
    shape: str
    """Of the output, without the batch axis, such as 28x28x6."""
    parameters: int
    flops: int | None
    weight_bytes: int
    inputs: tuple[int, ...]
    """Places of the layers whose outputs it takes."""


def diagram(model: str, layers: Sequence[Layer], rows: Sequence[LayerRow] = ()) -> str:
    """Return the diagram as an SVG element; its colour is the text's where it stands.

    A line runs from a layer to the next that takes its output; one that skips layers runs beside
    them. Where a layer's inputs are not known, a dotted line comes from the layer before it.

    Args:
        rows: the layers' times. A box is filled as far as its layer takes of the time of the
            slowest; below all boxes stands what has none.
    """
    times = timed(layers, rows)
    slowest_s = max((row.time_s for row in times.values()), default=0.0)
    height = ROW * len(layers) + 10 + (ROW if rows else 0)
    width = LEFT + WIDTH + LANE * (MOST_LANES + 2) + (TIMES if rows else 0)
    of_case = f"Time per layer of {rows[0].case}" if rows else model
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{html.escape(of_case)}: {counted(len(layers), 'layer')} in the order they run"
        "</title>",
    ]
    for place, layer in enumerate(layers):
        if row := times.get(place):
            parts += _time(place, row, slowest_s)
        parts += [*_lines(place, layer), *_box(place, layer)]
    if rows:
        left = 1 - sum(row.share for row in times.values())
        parts.append(_right_of(len(layers), f"the rest, and what has no box: {share_text(left)}"))
    return "\n".join([*parts, "</svg>"])


def timed(layers: Sequence[Layer], rows: Sequence[LayerRow]) -> dict[int, LayerRow]:
    """Return the row of each layer that has one, by its place; of a row of several the first's.

    They are matched in order by their names, where both are of the same class.
    """
    parts = [
        (name.rpartition("/")[2].partition("#")[0], kind, row)
        for row in rows
        for name, kind in zip(row.layer.split(" + "), (row.kind or "").split(" + "), strict=False)
    ]
    ours = [(layer.name, layer.kind) for layer in layers]
    matcher = SequenceMatcher(None, ours, [part[:2] for part in parts], autojunk=False)
    found: dict[int, int] = {}
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            found.setdefault(parts[block.b + step][2].place, block.a + step)
    return {found[row.place]: row for row in rows if row.place in found}


def _time(place: int, row: LayerRow, slowest_s: float) -> Iterator[str]:
    width = WIDTH * max(0.0, row.time_s) / (slowest_s or 1.0)
    yield (
        f'<rect x="{LEFT}" y="{_top(place)}" width="{width:.1f}" height="{BOX}" rx="4" '
        'fill="currentColor" opacity="0.25"/>'
    )
    yield _right_of(place, f"{seconds_text(row.time_s)}, {share_text(row.share)}")


def _right_of(place: int, words: str) -> str:
    """Return a text beside all lines; below the boxes, where it is longer, it ends there."""
    right = LEFT + WIDTH + LANE * (MOST_LANES + 2) + TIMES
    return (
        f'<text x="{right - 8}" y="{_top(place) + 15}" text-anchor="end" fill="currentColor">'
        f"{html.escape(words)}</text>"
    )


def _top(place: int) -> int:
    return 5 + ROW * place


def _box(place: int, layer: Layer) -> Iterator[str]:
    top, weight = _top(place), 2 if layer.parameters else 1
    words = [layer.kind, layer.shape]
    if layer.parameters:
        words.append(f"{layer.parameters:,} parameters")
    if layer.flops:
        words.append(f"{count_text(layer.flops)} FLOPs")
    yield (
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{BOX}" rx="4" fill="none" '
        f'stroke="currentColor" stroke-width="{weight}"/>'
    )
    yield (
        f'<text x="{LEFT + 8}" y="{top + 15}" fill="currentColor">'
        f"{html.escape('  '.join(filter(None, words)))}"
        f"<title>{html.escape(layer.name)}</title></text>"
    )


def _lines(place: int, layer: Layer) -> Iterator[str]:
    top = _top(place)
    middle = LEFT + WIDTH // 2
    for source in layer.inputs:
        if source == place - 1:
            yield _line(f"M{middle} {top - ROW + BOX}V{top}")
        else:
            side = LEFT + WIDTH
            reach = side + LANE * (1 + min(MOST_LANES, place - source - 1))
            start = _top(source) + BOX // 2
            yield _line(f"M{side} {start}H{reach}V{top + BOX // 2}H{side}")
    if not layer.inputs and place:
        yield _line(f"M{middle} {top - ROW + BOX}V{top}", dotted=True)


def _line(path: str, *, dotted: bool = False) -> str:
    dots = ' stroke-dasharray="2 3"' if dotted else ""
    return f'<path d="{path}" fill="none" stroke="currentColor" opacity="0.7"{dots}/>'
