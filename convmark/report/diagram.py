"""A model's diagram: layers from top to bottom, with connections as lines."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convmark.core.text import count_text

__all__ = ["Layer", "diagram"]

ROW, BOX, WIDTH, LEFT, LANE = 30, 22, 420, 8, 9
"""Pixels: a layer's share of the height, its box's height and width, the margin, an arc's width."""
MOST_LANES = 12


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


def diagram(model: str, layers: Sequence[Layer]) -> str:
    """Return the diagram as an SVG element; its colour is the text's where it stands.

    A line runs from a layer to the next that takes its output; one that skips layers runs beside
    them. Where a layer's inputs are not known, a dotted line comes from the layer before it.
    """
    height = ROW * len(layers) + 10
    width = LEFT + WIDTH + LANE * (MOST_LANES + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{html.escape(f'{model}: {len(layers)} layers in the order they run')}</title>",
    ]
    for place, layer in enumerate(layers):
        parts += [*_lines(place, layer), *_box(place, layer)]
    return "\n".join([*parts, "</svg>"])


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
