"""Time per layer of a case: the table, and the bars in the order of execution as an SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

from convmark.core.table import Table, heading, table_of
from convmark.core.text import counted, seconds_text, share_text
from convmark.session.layers import REST, LayerRow

__all__ = ["TOP", "bars", "layers_table"]

TOP = 20
"""Layers of the printed table."""

ROW, LEFT, WIDTH, RIGHT = 18, 260, 420, 130
"""Pixels: a bar's height with its gap, the names' width, the longest bar, the figures' width."""


_OF_TRAINING = (
    heading("forward_s", "forward", "seconds"),
    heading("backward_s", "backward", "seconds"),
)
_ENDS = (
    heading("time_low_s", "interval from", "seconds"),
    heading("time_high_s", "to", "seconds"),
)


def layers_table(rows: Sequence[LayerRow], top: int | None = None) -> Table:
    """Return the slowest layers of one case, the slowest first, and the rest.

    Args:
        top: how many layers of a printed table, whose interval is a text; None for all, in the
            order of execution, with the interval's ends as numbers.
    """
    layers = [row for row in rows if row.layer != REST]
    shown = layers if top is None else sorted(layers, key=lambda row: -row.time_s)[:top]
    step_s, first = rows[0].step_s, rows[0]
    trains = any(row.forward_s not in (None, row.time_s) for row in layers)
    records = [_record(row) for row in [*shown, *(row for row in rows if row.layer == REST)]]
    left_out = len(layers) - len(shown)
    beside = f"; the other {left_out} take {_share_of(layers, shown)}" if left_out else ""
    caption = (
        f"Step time {seconds_text(step_s)}, {counted(first.sessions, 'session')}; all layers and "
        f"the rest sum to it{beside}. Numbers are the order of execution. The interval is at "
        "95 %. FLOP/s and "
        f"the share of the peak are of the forward pass. The rest: dispatch, fusion "
        f"over layers{', loss, update' if trains else ''}."
    )
    ends = (heading("interval", "interval"),) if top is not None else _ENDS
    headings = [
        heading("place", "number", "count"),
        heading("layer", "layer"),
        heading("kind", "kind"),
        heading("shape", "output shape"),
        heading("time_s", "time", "seconds"),
        *ends,
        heading("share", "share", "share"),
        *(_OF_TRAINING if trains else ()),
        heading("flops_per_s", "FLOP/s", "flops_rate"),
        heading("of_peak", "of peak", "share"),
        heading("moved_bytes", "bytes", "bytes"),
        heading("bound", "bound by"),
        heading("note", "note"),
    ]
    return table_of(
        f"layers-{first.case}", f"Time per layer of {first.case}", caption, headings, records
    )


def _share_of(layers: Sequence[LayerRow], shown: Sequence[LayerRow]) -> str:
    others = sum(row.time_s for row in layers) - sum(row.time_s for row in shown)
    return share_text(others / layers[0].step_s)


def _record(row: LayerRow) -> dict[str, object]:
    forward_s = row.time_s if row.forward_s is None else row.forward_s
    known = row.flops and forward_s > 0
    ends = (row.time_low_s, row.time_high_s)
    interval = "" if None in ends else " to ".join(seconds_text(end or 0.0) for end in ends)
    return {
        "place": row.place,
        "layer": row.layer,
        "kind": row.kind,
        "shape": row.shape,
        "time_s": row.time_s,
        "interval": interval,
        "time_low_s": row.time_low_s,
        "time_high_s": row.time_high_s,
        "share": row.share,
        "forward_s": row.forward_s,
        "backward_s": None if row.forward_s is None else row.time_s - row.forward_s,
        "flops_per_s": row.flops / forward_s if known and row.flops else None,
        "of_peak": row.of_peak,
        "moved_bytes": row.moved_bytes,
        "bound": row.bound,
        "note": row.note,
    }


def bars(rows: Sequence[LayerRow]) -> str:
    """Return an SVG: one bar per layer in the order of execution, and one of the rest.

    A bar begins where the one before it ends, so that all of them together are the step.
    """
    step_s = rows[0].step_s
    height, width = ROW * len(rows) + 10, LEFT + WIDTH + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{html.escape(f'Time per layer of {rows[0].case}')}</title>",
    ]
    begin_s = 0.0
    for place, row in enumerate(rows):
        parts.append(_bar(place, row, begin_s, step_s))
        begin_s += row.time_s
    return "\n".join([*parts, "</svg>"])


def _bar(place: int, row: LayerRow, begin_s: float, step_s: float) -> str:
    top, scale = 5 + ROW * place, WIDTH / step_s
    left = LEFT + max(0.0, scale * min(begin_s, begin_s + row.time_s))
    width = max(1.0, scale * abs(row.time_s))
    name = row.layer if len(row.layer) <= 40 else f"{row.layer[:39]}…"
    figures = f"{seconds_text(row.time_s)}, {share_text(row.share)}"
    return (
        f'<text x="{LEFT - 6}" y="{top + 11}" text-anchor="end" fill="currentColor">'
        f"{html.escape(name)}<title>{html.escape(row.layer)}</title></text>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 4}" '
        f'fill="currentColor" opacity="{0.35 if row.layer == REST else 0.75}"/>'
        f'<text x="{LEFT + WIDTH + 6}" y="{top + 11}" fill="currentColor">{figures}</text>'
    )
