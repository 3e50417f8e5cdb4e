"""Time per layer on the harness side: sessions in fresh processes, and the rows they amount to.

Each session measures all layers of a case in one process (`worker.layers`), so that a session's
layers and its rest sum to its step time. A layer's share of the step is that of each session, which
a busy machine moves less than the seconds; its time is the mean share of the mean step. The rows
are saved in `layers.csv` of the machine's folder. Each has the hash of what its processes ran, so
that it is shown with the rows of a run of the same code, software and settings, and with no other.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from operator import add
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.cells import column
from convmark.core.errors import StoreError
from convmark.core.options import Options
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.statistics import interval_of_mean, median_of
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import Say, plain_text
from convmark.interpreter import Answer
from convmark.results.code.manifest import Code
from convmark.results.code.of_run import files_apart
from convmark.results.record import FRAMEWORK_COLUMNS, Record
from convmark.results.table_file import TableFile
from convmark.session.advice import Roof, advice, of_small_rows
from convmark.session.ceilings import Ceiling, key_of
from convmark.session.facts import Facts
from convmark.session.result import code_of_answer, what_ran
from convmark.session.run import asked_axes

REST = "(rest)"
"""The row of what no layer takes: dispatch, fusion over layers, in training loss and update."""
SESSION_SECONDS = 10.0
"""Rounds of a session, for each second of --time-budget."""
FUSED = 0.003
"""Of the step: a layer that takes so much less than nothing makes the one before it faster."""
SUM_ERROR = 1e-6
"""Of the step: by which the times of a file may differ from their sum."""
_RAN = (
    *("machine", "gpu", "mig", "ecc", "driver", "cuda", "cudnn", "os", "isolation", "asked_shape"),
    *("code", "flags", "state", *FRAMEWORK_COLUMNS, "keras", "numpy", "python", "packages"),
)
"""Columns of a row in which the processes of its layers must be alike, besides the case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer of a case, or its rest."""

    measured: str = column("when the last session ended", "UTC, ISO 8601")
    case: str = column("name of the case")
    model: str = column("as in a run")
    machine: str = column("as in a run")
    version: str = column("version of the framework")
    ran: str | None = column("hash of code, software and settings, by which its run is found")
    sessions: int = column("fresh processes, each with all layers", bounds="above 0")
    other_cpu_share: float | None = column(
        "median share of the CPUs' time that other programs took in them", bounds="share"
    )
    place: int = column("place in the order of execution, from 1", bounds="above 0")
    layer: str = column("name of the layer, or names of those that are fused")
    kind: str | None = column("its class")
    shape: str | None = column("of the output, with the batch axis")
    step_s: float = column("mean step time of the sessions", "s", bounds="above 0")
    time_s: float = column("the layer's part of it, mean of the sessions", "s")
    time_low_s: float | None = column("lower end of its 95 % interval", "s")
    time_high_s: float | None = column("upper end", "s")
    forward_s: float | None = column("forward alone; all of it in inference", "s")
    flops: int | None = column("of a forward pass, 2 x multiply-adds", "FLOPs", bounds="at least 0")
    moved_bytes: int | None = column(
        "inputs, weights and output, once each, forward", "bytes", bounds="at least 0"
    )
    of_peak: float | None = column(
        "FLOP/s of the forward pass over the measured peak", bounds="at least 0"
    )
    bound: str | None = column("memory or compute: which ceiling is lower (roofline)")
    note: str | None = column("why layers are together, or what may help")
    profiled_share: float | None = column(
        "of the forward pass of all layers, without the rest, by the framework's profiler",
        bounds="share",
        default=None,
    )
    """With that of the rows after it that have none: a profiler names one of fused operations."""

    def __post_init__(self) -> None:
        for one in LAYERS_TABLE.columns:
            value = getattr(self, one.name)
            rule = one.range_broken(value) if isinstance(value, (int, float)) else ""
            if rule:
                raise StoreError(f"{self.case}: column {one.name!r} {rule}, got {value}")

    @property
    def group(self) -> tuple[object, ...]:
        """What all rows of one measurement of a case share."""
        return self.measured, self.case, self.machine, self.ran, self.sessions, self.step_s

    @property
    def share(self) -> float:
        return self.time_s / self.step_s


_EARLIER = [name for name in LayerRow.__dataclass_fields__ if name != "profiled_share"]
_FIRST = [name for name in _EARLIER if name != "other_cpu_share"]
LAYERS_TABLE = TableFile(LayerRow, _EARLIER, _FIRST)


def layers_path(machine_folder: Path) -> Path:
    return machine_folder / "layers.csv"


def layer_name(text: str) -> str:
    """Return a layer's name as it is printed and kept: never empty, and never that of the rest."""
    name = plain_text(text) or "(no name)"
    return f"{name}#1" if name == REST else name


def why_no_layers(case: Case) -> str:
    """Return why the layers of a case cannot be measured; empty where nothing is in the way."""
    if case.task not in TIMED_TASKS:
        return f"--tasks: layers are measured in {', '.join(TIMED_TASKS)}, got {case.task}"
    if case.runtime != DEFAULT_RUNTIME:
        return f"--runtime: layers are measured in {DEFAULT_RUNTIME} only, got {case.runtime}"
    if case.backend == "torch" and case.jit == "on":
        return (
            "--jit on: is not possible for layers of PyTorch, because each piece would "
            "take seconds to compile; leave it out"
        )
    if case.replicas > 1:
        return f"--replicas: layers are measured with one replica, got {case.replicas}"
    return ""


def layer_request(case: Case, options: Options, depth: int | None, session: int) -> dict[str, Any]:
    shapes = {"input_shapes": dict(options.input_shape)} if options.input_shape else {}
    return {
        "kind": "layers",
        "case": case.as_fields(),
        "seed": options.seed + session,
        "seconds": SESSION_SECONDS * options.time_budget_s,
        "depth": depth,
        "left_out": [str(options.results.absolute())],
        "asked": asked_axes(options),
        **shapes,
    }


def ran_by(record: Record) -> str | None:
    """Return the hash of what a row's process ran; None where its code is not known."""
    if record.code is None:
        return None
    facts = [(name, getattr(record, name)) for name in _RAN]
    told = repr([record.asked_case.name, *facts])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def measure_layers(
    case: Case,
    ask: Callable[[Mapping[str, Any]], Answer],
    options: Options,
    facts: Facts,
    *,
    depth: int | None = None,
    say: Say = lambda line: None,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> list[LayerRow]:
    """Return the rows of a case, the rest last; none where it cannot be measured, which is said."""
    found, ran, codes, loads = [], [], [], []
    started = now()
    for session in range(options.processes):
        say(f"{case.name}: layers, session {session + 1} of {options.processes}")
        answer = ask(layer_request(case, options, depth, session))
        event, environment = answer.event("layers"), answer.event("environment")
        if answer.status != "ok" or event is None or environment is None:
            say(f"{case.name}: no layers: {answer.message or answer.status}")
            return []
        found.append(event)
        version = plain_text(str(environment[case.backend]))
        ran.append(what_ran(case, answer, options, facts, started))
        codes.append(code_of_answer(answer, facts))
        loads.append((answer.event("state") or {}).get("other_cpu_share"))
    if why := _apart(ran, codes) or why_cut_apart(found):
        say(f"{case.name}: no layers: {why}")
        return []
    if why := next(filter(None, (one.get("unprofiled") for one in found)), ""):
        say(f"{case.name}: the layers are not checked by the framework's profiler: {why}")
    if (precision := ran[0].precision) != case.precision:
        say(f"{case.name}: the layers compute in {precision}, set by the model's own code")
    return combined(
        case,
        found,
        measured=now().isoformat(timespec="milliseconds"),
        version=version,
        machine=facts.machine.name,
        ran=ran_by(ran[0]),
        ceiling=facts.ceilings.get(key_of(ran[0].case)),
        as_ran=ran[0].case,
        other_cpu_share=median_of(loads),
    )


def why_cut_apart(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Return what to do where sessions, by their events, are of other layers; empty if not."""
    cuts = ([(unit["name"], unit["shape"]) for unit in one["units"]] for one in sessions)
    if len(set(map(repr, cuts))) == 1:
        return ""
    return "the sessions have different layers; do not choose layers at random in the model's code"


def _apart(ran: Sequence[Record], codes: Sequence[Code | None]) -> str:
    """Return what the sessions differ in, and what to do; empty where they ran the same."""
    columns = [name for name in _RAN if len({getattr(one, name) for one in ran}) > 1]
    if not columns:
        return ""
    other = next((one for one in codes if one and codes[0] and one.hash != codes[0].hash), None)
    if other is None or codes[0] is None:
        return f"the sessions differ in {', '.join(columns)}; measure again"
    return (
        f"the sessions ran different code ({files_apart(codes[0], other)}); close programs that "
        "open or change files of the model's folder, and measure again"
    )


def read_layers(path: Path) -> list[list[LayerRow]]:
    """Return the rows of a file, those of each measurement of a case together, oldest first."""
    found = []
    for _, rows in itertools.groupby(LAYERS_TABLE.read(path), key=lambda row: row.group):
        one = list(rows)
        if why := _why_not_whole(one):
            raise StoreError(f"{path}: {one[0].case} of {one[0].measured}: {why}")
        found.append(one)
    return found


def _why_not_whole(rows: Sequence[LayerRow]) -> str:
    """Return why rows are not those of one measurement, as `combined` makes them."""
    if [row.place for row in rows] != list(range(1, len(rows) + 1)):
        return f"places must be 1 to {len(rows)} in order"
    if [row.layer == REST for row in rows] != [False] * (len(rows) - 1) + [True]:
        return f"the last row, and no other, must be {REST}"
    step_s, total_s = rows[0].step_s, math.fsum(row.time_s for row in rows)
    if abs(total_s - step_s) > SUM_ERROR * step_s * len(rows):
        return f"times must sum to step_s {step_s:g}, they sum to {total_s:g}"
    return ""


def layers_of(
    records: Iterable[Record], found: Path | Iterable[list[LayerRow]]
) -> list[list[LayerRow]]:
    """Return the newest layers of each case of a run, of those that ran what its rows ran.

    Args:
        found: layers, or the file of the machine's, as `read_layers` reads it.
    """
    ran: dict[str, set[str | None]] = {}
    for record in records:
        if record.measured:
            ran.setdefault(record.asked_case.name, set()).add(ran_by(record))
    known = {name: hashes.pop() for name, hashes in ran.items() if len(hashes) == 1}
    if isinstance(found, Path):
        found = read_layers(found) if known else []
    newest = {
        rows[0].case: rows
        for rows in found
        if rows[0].ran is not None and rows[0].ran == known.get(rows[0].case)
    }
    return [newest[name] for name in known if name in newest]


def keep_other_layers(found: Iterable[Sequence[LayerRow]], path: Path) -> None:
    """Append the layers of other files that the file does not have yet."""
    there = {one[0].group for one in read_layers(path)}
    for rows in found:
        if rows[0].group not in there:
            there.add(rows[0].group)
            LAYERS_TABLE.append(path, rows)


@dataclass
class _Row:
    """One row while rows are put together: shares of the step, one for each session."""

    facts: dict[str, Any]
    shares: list[float]
    forward: list[float]
    profiled: list[float] = field(default_factory=list)
    """Shares of the forward pass by a profiler, of its group; of others than its first row none."""

    def forward_s(self, step_s: float) -> float | None:
        """Return the mean seconds of the forward pass; None of the rest."""
        return step_s * statistics.fmean(self.forward) if self.forward else None

    def computes(self, case: Case) -> str:
        """Return in what it multiplies, where that is not what the case asks for."""
        wanted = case.precision.removeprefix("mixed_").replace("tf32", "float32")
        return "" if (found := self.facts.get("computes")) == wanted else found or ""

    def roof(self, step_s: float, ceiling: Ceiling | None, case: Case) -> Roof:
        """Return how it stands to the ceilings, which are none of a layer of another precision."""
        flops = self.facts.get("flops")
        known = None if flops and self.computes(case) else ceiling
        return Roof.over(flops, self.facts.get("moved_bytes"), self.forward_s(step_s), known)

    def is_fused_to(self, before: _Row) -> bool:
        """Whether the layer makes the one before it faster, by more than sessions differ."""
        if self.facts["span"] != before.facts["span"]:
            return False  # pieces of their own
        interval = interval_of_mean(self.shares)
        return statistics.fmean(self.shares) < -FUSED and not (
            interval.known and interval.high >= 0
        )


def combined(
    case: Case,
    sessions: Sequence[Mapping[str, Any]],
    *,
    measured: str,
    version: str,
    machine: str,
    ran: str | None,
    ceiling: Ceiling | None,
    as_ran: Case | None = None,
    other_cpu_share: float | None = None,
) -> list[LayerRow]:
    """Return one row per layer, in order, then the rest; their times sum to the step time.

    Args:
        sessions: the worker's events, of the same units.
        ceiling: of the case as it ran.
        as_ran: the case, where the model's own code may have made it another.
    """
    rows = _fused(_rows(sessions))
    rest = [1 - sum(shares) for shares in zip(*(row.shares for row in rows), strict=True)]
    rows.append(_Row({"name": REST, "kind": "", "shape": (), "note": ""}, rest, []))
    step_s = statistics.fmean(one["step_s"] for one in sessions)
    as_ran = as_ran or case
    small = [
        (row.roof(step_s, ceiling, as_ran), row.forward_s(step_s), statistics.fmean(row.shares))
        for row in rows[:-1]
    ]
    rows[-1].facts["note"] = of_small_rows(small, as_ran)
    shared: dict[str, Any] = {"measured": measured, "case": case.name, "model": case.model}
    shared |= {"machine": machine, "version": version, "ran": ran}
    shared |= {"sessions": len(sessions), "step_s": step_s, "other_cpu_share": other_cpu_share}
    return [
        LayerRow(**shared, place=place, **_columns(row, step_s, ceiling, as_ran))
        for place, row in enumerate(rows, 1)
    ]


def _rows(sessions: Sequence[Mapping[str, Any]]) -> list[_Row]:
    units = sessions[0]["units"]
    rows = [_Row({**facts, "name": layer_name(facts["name"])}, [], []) for facts in units]
    for one in sessions:
        both = one.get("with_backward_s", one["forward_s"])
        for row, time_s, forward_s in zip(rows, both, one["forward_s"], strict=True):
            row.shares.append(time_s / one["step_s"])
            row.forward.append(forward_s / one["step_s"])
    if all("profiled" in one for one in sessions):
        begins = [_where_groups_begin(one["units"]) for one in sessions]
        heads = sorted(set.intersection(*map(set, begins)))  # a compiler may fuse others next time
        for one, own in zip(sessions, begins, strict=True):
            for head, end in itertools.pairwise([*heads, len(rows)]):
                parts = zip(own, one["profiled"], strict=True)
                inside = sum(part for place, part in parts if head <= place < end)
                rows[head].profiled.append(inside / sum(one["profiled"]))
    return rows


def _where_groups_begin(units: Sequence[Mapping[str, Any]]) -> list[int]:
    groups = itertools.groupby(enumerate(units), lambda pair: pair[1]["group"])
    return [next(pairs)[0] for _, pairs in groups]


def _fused(rows: Sequence[_Row]) -> list[_Row]:
    """Put rows of a group together where one takes less than nothing: it is fused to the other."""
    kept: list[_Row] = []
    for row in rows:
        kept.append(row)
        while len(kept) > 1 and kept[-1].is_fused_to(kept[-2]):
            last = kept.pop()
            if last.profiled:  # the first of a group: it is of that of the other now
                head = next(one for one in reversed(kept) if one.profiled)
                head.profiled = [*map(add, head.profiled, last.profiled)]
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
        "folds_into": one.facts.get("folds_into") or other.facts.get("folds_into"),
        "operations": sum(row.facts.get("operations") or 1 for row in (one, other)),
        "note": "; ".join(filter(None, notes)),
    }
    shares, forward = map(add, one.shares, other.shares), map(add, one.forward, other.forward)
    return _Row(facts, [*shares], [*forward], one.profiled)


def _columns(row: _Row, step_s: float, ceiling: Ceiling | None, case: Case) -> dict[str, Any]:
    facts, forward_s, share = row.facts, row.forward_s(step_s), statistics.fmean(row.shares)
    ends_s = interval_of_mean(row.shares).mapped(lambda share: step_s * share).cells
    low_s = interval_of_mean(row.forward).mapped(lambda share: step_s * share).cells["low"]
    roof = row.roof(step_s, ceiling, case)
    computes = f"computes in {other}" if (other := row.computes(case)) else ""
    helps = advice(facts, roof, case, forward_s=forward_s if low_s is None else low_s, share=share)
    return {
        "layer": plain_text(facts["name"]),
        "kind": plain_text(facts["kind"]) or None,
        "shape": "x".join("?" if axis is None else str(axis) for axis in facts["shape"]) or None,
        "time_s": step_s * share,
        "time_low_s": ends_s["low"],
        "time_high_s": ends_s["high"],
        "forward_s": forward_s,
        "flops": facts.get("flops"),
        "moved_bytes": facts.get("moved_bytes"),
        "of_peak": roof.of_peak,
        "bound": roof.bound,
        "profiled_share": min(1.0, statistics.fmean(row.profiled)) if row.profiled else None,
        "note": plain_text("; ".join(filter(None, [facts["note"], computes, helps]))) or None,
    }
