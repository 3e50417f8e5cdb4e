"""Time per layer on the harness side: sessions in fresh processes, and the rows they amount to.

Each session measures all layers of a case in one process (`worker.layers`), so that a session's
layers and its rest sum to its step time. A layer's share of the step is that of each session, which
a busy machine moves less than the seconds; its time is the mean share of the mean step. The rows
are saved in `layers.csv` of the machine's folder.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.cells import column
from convmark.core.errors import StoreError
from convmark.core.options import Options
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.text import Say, plain_text
from convmark.interpreter import Answer
from convmark.results.table_file import TableFile
from convmark.session.ceilings import Ceiling

__all__ = [
    "LAYERS_TABLE",
    "REST",
    "LayerRow",
    "combined",
    "layer_request",
    "layers_path",
    "measure_layers",
    "why_no_layers",
]

REST = "(rest)"
"""The row of what no layer takes: dispatch, fusion over layers, in training loss and update."""
SESSION_SECONDS = 10.0
"""Rounds of a session, for each second of --time-budget."""
FUSED = 0.003
"""Of the step: a layer that takes so much less than nothing makes the one before it faster."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer of a case, or its rest."""

    measured: str = column("when the last session ended", "UTC, ISO 8601")
    case: str = column("name of the case")
    model: str = column("as in a run")
    version: str = column("version of the framework")
    sessions: int = column("fresh processes, each with all layers")
    place: int = column("place in the order of execution, from 1")
    layer: str = column("name of the layer, or names of those that are fused")
    kind: str | None = column("its class")
    shape: str | None = column("of the output, with the batch axis")
    step_s: float = column("mean step time of the sessions", "s")
    time_s: float = column("the layer's part of it, mean of the sessions", "s")
    time_low_s: float | None = column("lower end of its 95 % interval", "s")
    time_high_s: float | None = column("upper end", "s")
    forward_s: float | None = column("forward alone; all of it in inference", "s")
    flops: int | None = column("of a forward pass, 2 x multiply-adds", "FLOPs")
    moved_bytes: int | None = column("inputs, weights and output, once each, forward", "bytes")
    of_peak: float | None = column("FLOP/s of the forward pass over the measured peak")
    bound: str | None = column("memory or compute: which ceiling is lower (roofline)")
    note: str | None = column("why layers are together, or what may help")

    def __post_init__(self) -> None:
        if not self.step_s > 0:
            raise StoreError(f"{self.case}: step_s must be above 0, got {self.step_s}")
        if self.place < 1:
            raise StoreError(f"{self.case}: place must be at least 1, got {self.place}")

    @property
    def share(self) -> float:
        """The layer's share of the step time."""
        return self.time_s / self.step_s


LAYERS_TABLE = TableFile(LayerRow)


def layers_path(machine_folder: Path) -> Path:
    """Return the file of a machine's layers."""
    return machine_folder / "layers.csv"


def why_no_layers(case: Case) -> str:
    """Return why the layers of a case cannot be measured; empty where nothing is in the way."""
    if case.runtime != DEFAULT_RUNTIME:
        return f"--runtime: layers are measured in {DEFAULT_RUNTIME} alone, got {case.runtime}"
    if case.backend == "torch" and case.jit == "on":
        return (
            "--jit on: is not for the layers of PyTorch, where each piece would be compiled for "
            "seconds; leave it out"
        )
    if case.replicas > 1:
        return f"--replicas: layers are measured of one replica, got {case.replicas}"
    return ""


def layer_request(case: Case, options: Options, depth: int | None, session: int) -> dict[str, Any]:
    """Return the request for one session."""
    shapes = {"input_shapes": dict(options.input_shape)} if options.input_shape else {}
    return {
        "kind": "layers",
        "case": case.as_fields(),
        "seed": options.seed + session,
        "seconds": SESSION_SECONDS * options.time_budget_s,
        "depth": depth,
        **shapes,
    }


def measure_layers(
    case: Case,
    ask: Callable[[Mapping[str, Any]], Answer],
    options: Options,
    *,
    depth: int | None,
    ceiling: Ceiling | None,
    say: Say,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> list[LayerRow]:
    """Return the rows of a case, none where a session fails: the reason is said.

    Raises:
        WorkerError: no worker can be started at all.
    """
    found, version = [], ""
    for session in range(options.processes):
        say(f"{case.name}: layers, session {session + 1} of {options.processes}")
        answer = ask(layer_request(case, options, depth, session))
        event, environment = answer.event("layers"), answer.event("environment")
        if answer.status != "ok" or event is None or environment is None:
            say(f"{case.name}: no layers: {answer.message or answer.status}")
            return []
        found.append(event)
        version = plain_text(str(environment[case.backend]))
    stamp = now().isoformat(timespec="seconds")
    return combined(case, found, measured=stamp, version=version, ceiling=ceiling)


@dataclass
class _Row:
    """One row while rows are put together: shares of the step, one for each session."""

    facts: dict[str, Any]
    shares: list[float]
    forward: list[float]

    def is_fused_to(self, before: _Row) -> bool:
        """Whether the layer makes the one before it faster, by more than sessions differ."""
        if self.facts["group"] != before.facts["group"]:
            return False  # pieces of their own
        _, high = _interval(self.shares)
        return statistics.fmean(self.shares) < -FUSED and (high is None or high < 0)


def combined(
    case: Case,
    sessions: Sequence[Mapping[str, Any]],
    *,
    measured: str,
    version: str,
    ceiling: Ceiling | None,
) -> list[LayerRow]:
    """Return one row per layer, in order, then the rest; their times sum to the step time.

    Args:
        sessions: the worker's events, of the same units.
    """
    rows = _fused(_rows(sessions))
    rest = [1 - sum(shares) for shares in zip(*(row.shares for row in rows), strict=True)]
    rows.append(_Row({"name": REST, "kind": "", "shape": (), "note": ""}, rest, []))
    step_s = statistics.fmean(one["step_s"] for one in sessions)
    shared: dict[str, Any] = {
        "measured": measured,
        "case": case.name,
        "model": case.model,
        "version": version,
        "sessions": len(sessions),
        "step_s": step_s,
    }
    return [
        LayerRow(**shared, place=place, **_columns(row, step_s, ceiling))
        for place, row in enumerate(rows, 1)
    ]


def _rows(sessions: Sequence[Mapping[str, Any]]) -> list[_Row]:
    rows = [_Row(dict(facts), [], []) for facts in sessions[0]["units"]]
    for one in sessions:
        both = one.get("with_backward_s", one["forward_s"])
        for row, time_s, forward_s in zip(rows, both, one["forward_s"], strict=True):
            row.shares.append(time_s / one["step_s"])
            row.forward.append(forward_s / one["step_s"])
    return rows


def _fused(rows: Sequence[_Row]) -> list[_Row]:
    """Put rows of a group together where one takes less than nothing: it is fused to the other."""
    kept: list[_Row] = []
    for row in rows:
        kept.append(row)
        while len(kept) > 1 and kept[-1].is_fused_to(kept[-2]):
            last = kept.pop()
            kept[-1] = _joined(kept[-1], last)
    return kept


def _joined(one: _Row, other: _Row) -> _Row:
    """Return both as one row; its bytes are not known: what passes between the two is not moved."""
    notes = dict.fromkeys(["run as one", one.facts["note"], other.facts["note"]])
    flops = [row.facts["flops"] for row in (one, other)]
    facts = {
        **one.facts,
        "name": f"{one.facts['name']} + {other.facts['name']}",
        "kind": f"{one.facts['kind']} + {other.facts['kind']}",
        "shape": other.facts["shape"],
        "flops": None if None in flops else sum(flops),
        "moved_bytes": None,
        "note": "; ".join(filter(None, notes)),
    }
    return _Row(facts, _sums(one.shares, other.shares), _sums(one.forward, other.forward))


def _sums(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [first + second for first, second in zip(one, other, strict=True)]


def _columns(row: _Row, step_s: float, ceiling: Ceiling | None) -> dict[str, Any]:
    """Return the columns of one row that are its own."""
    facts = row.facts
    low, high = _interval(row.shares)
    forward_s = step_s * statistics.fmean(row.forward) if row.forward else None
    flops, moved = facts.get("flops"), facts.get("moved_bytes")
    of_peak, bound = _roofline(flops, moved, forward_s, ceiling)
    return {
        "layer": plain_text(facts["name"]),
        "kind": plain_text(facts["kind"]) or None,
        "shape": "x".join("?" if axis is None else str(axis) for axis in facts["shape"]) or None,
        "time_s": step_s * statistics.fmean(row.shares),
        "time_low_s": None if low is None else step_s * low,
        "time_high_s": None if high is None else step_s * high,
        "forward_s": forward_s,
        "flops": flops,
        "moved_bytes": moved,
        "of_peak": of_peak,
        "bound": bound,
        "note": plain_text(facts["note"]) or None,
    }


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a mean by Student's t; None of fewer than two values."""
    from scipy.special import stdtrit  # type: ignore[import-untyped] # SciPy ships no types

    if len(values) < 2:
        return None, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _roofline(
    flops: int | None, moved: int | None, forward_s: float | None, ceiling: Ceiling | None
) -> tuple[float | None, str | None]:
    """Return the share of the peak that a layer reaches, and the ceiling that is lower for it."""
    if ceiling is None or forward_s is None or forward_s <= 0:
        return None, None
    of_peak = flops / forward_s / ceiling.peak_flops_per_s if flops else None
    if flops is None or not moved:
        return of_peak, None
    compute_s, memory_s = flops / ceiling.peak_flops_per_s, moved / ceiling.peak_bytes_per_s
    return of_peak, "compute" if compute_s > memory_s else "memory"
