"""The sessions of an A/B comparison, drawn in the order in which they ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from convmark.core.errors import MeasurementError
from convmark.core.interval import NOT_KNOWN, Interval, share_of
from convmark.core.statistics import Estimate, interval_around
from convmark.core.text import counted
from convmark.report.figures.figure import Spec, drawn_svg, whole_spec

Change = tuple[float, Interval]
"""A change and its interval, as shares: 0.1 is 10 %."""

COMPARED, CONTROL = "B against A", "control: A against A"


def sessions_spec(
    sessions: Sequence[Change],
    *,
    interval: Interval = NOT_KNOWN,
    control: Sequence[Change] = (),
    title: str = "",
) -> Spec:
    """Return the sessions of an A/B comparison, in the order in which they ran.

    Args:
        sessions: of each session the change of the step time and its interval, shares.
        interval: the interval of the verdict, shares; drawn as a band.
        control: the same of the A/A control.

    Raises:
        MeasurementError: no session.
    """
    if not sessions:
        raise MeasurementError("a figure of sessions needs at least one session, got none")
    y = {"type": "quantitative", "title": "change of the step time (%)", "scale": {"zero": True}}
    kinds = [COMPARED, *([CONTROL] * bool(control))]
    by_kind = {"field": "kind", "type": "nominal", "title": None}
    colour = {**by_kind, "scale": {"domain": kinds, "range": ["#3b7dd8", "#d9730d"][: len(kinds)]}}
    shape = {**by_kind, "scale": {"domain": kinds, "range": ["circle", "diamond"][: len(kinds)]}}
    offset = {"xOffset": {"field": "kind", "sort": kinds}} if control else {}
    ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}
    point = {"y": {**y, "field": "change"}, "color": colour, "shape": shape}
    x = {"field": "session", "type": "ordinal", "title": "session", "axis": {"labelAngle": 0}}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "color": "#555555"}, "encoding": {"y": {"datum": 0}}},
        {"mark": {"type": "rule"}, "encoding": {"x": x, **offset, **ends}},
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {"x": x, **offset, **point},
        },
    ]
    if interval.known:
        layers.insert(0, _band(interval))
    rows = [*_rows(sessions, COMPARED), *_rows(control, CONTROL)]
    spec: Spec = {"height": 280, "description": _in_words(sessions, interval), "layer": layers}
    return whole_spec(spec, rows, title=title)


def _rows(changes: Sequence[Change], kind: str) -> list[dict[str, Any]]:
    return [
        {"session": number, "change": 100 * change, "low": 100 * interval.low,
         "high": 100 * interval.high, "kind": kind}
        for number, (change, interval) in enumerate(changes, 1)
    ]  # fmt: skip


def _band(interval: Interval) -> Spec:
    return {
        "data": {"values": [{"from": 100 * interval.low, "to": 100 * interval.high}]},
        "mark": {"type": "rect", "color": "#3b7dd8", "opacity": 0.15},
        "encoding": {
            "y": {"field": "from", "type": "quantitative"},
            "y2": {"field": "to"},
        },
    }


def _in_words(sessions: Sequence[Change], interval: Interval) -> str:
    times = counted(len(sessions), "session")
    text = f"Change of the step time in each of {times}, with its interval."
    if interval.known:
        text += f" The verdict's interval: {interval.words}."
    return text


@dataclass(slots=True)
class CaseSessions:
    """The sessions of a case that count, by wall time."""

    wall: list[Estimate] = field(default_factory=list)
    control: list[Estimate] = field(default_factory=list)

    def add(self, wall: Estimate | None, control: Estimate | None) -> None:
        self.wall += [wall] if wall else []
        self.control += [control] if control else []

    def svg(self, interval: Interval, title: str) -> str:
        """Return them drawn; the arguments are those of `sessions_spec`."""
        wall, control = ([_change(one) for one in each] for each in (self.wall, self.control))
        return drawn_svg(sessions_spec(wall, interval=interval, control=control, title=title))


def _change(session: Estimate) -> Change:
    interval = interval_around(session.value, session.error or 0.0, math.inf)
    return share_of(session.value), interval.shares()
