"""The digest of a run's file: enough to list a case over time and to skip irrelevant runs."""

from __future__ import annotations

import functools
import json
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from convmark.compare.comparability import CONDITIONS, Conditions, conditions_of
from convmark.core.case import Case
from convmark.core.cells import from_cell
from convmark.core.errors import CaseError, StoreError
from convmark.core.statistics import median_of, spread
from convmark.results.columnar import case_name
from convmark.results.reading import HEADER, read_cells, read_run
from convmark.results.record import COLUMNS, MEASURED, STATUSES, doubts_text, from_cells

_PLACES = {name: place for place, name in enumerate(HEADER)}
_CASE = operator.itemgetter(*(_PLACES[name] for name in Case.__dataclass_fields__))
_CONDITIONS = operator.itemgetter(*(_PLACES[name] for name in CONDITIONS))
_STATUS, _STARTED, _STEP = (_PLACES[name] for name in ("status", "started", "step_time_p50_s"))
_CODE, _COMMIT, _DIRTY = (_PLACES[name] for name in ("code", "commit", "dirty"))
_NOT_JUDGED, _LOG_RATIO = (_PLACES[name] for name in ("not_judged", "paired_log_ratio"))
_LOAD, _COUNTING = _PLACES["other_cpu_share"], _PLACES["counting_version"]
_PARAMETERS, _FLOPS = _PLACES["parameters"], _PLACES["flops_per_sample"]
_CONCURRENT, _BUDGET = _PLACES["concurrent"], _PLACES["time_budget_s"]
_NODE = CONDITIONS.index("node")
_MINUTE = 16
"""Characters of a time as far as the minute."""

Held = tuple[tuple[str, Conditions], ...]
"""The cases of a run that can be judged, by name, each with its conditions."""


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """One case of one run, over its processes."""

    case: str
    started: str
    """When its first process was begun, to the minute."""
    processes: int
    """How many were measured."""
    step_time_p50_s: float | None
    """The median of their medians."""
    spread: float | None
    """Half their range over the median; None below two."""
    doubts: str
    """How many of the measured ones are unsteady, not judged or beside other runs."""
    failed: str
    """The status of the first process that was not measured; empty where all were."""
    judged: int
    """How many processes have a paired log ratio that counts."""
    log_ratio: float | None
    """Their mean of ln(case / reference)."""
    variance: float | None
    """Of it between them; None below two."""
    load: float | None
    """Their median share of the CPUs' time that others took; None where one cannot tell."""
    parameters: int | None
    """Of the first of them, and so the FLOPs and the time budget."""
    flops_per_sample: float | None
    time_budget_s: float | None
    counting_version: str
    """Of their rules; empty where the row does not tell it."""
    commit: str
    """The commit whose files they ran; empty where no commit has them."""
    conditions_text: str
    """Their first one's; empty where none is judged."""

    @property
    def conditions(self) -> Conditions:
        """The conditions that the text stands for."""
        return _conditions_in(self.conditions_text)


@dataclass(frozen=True, slots=True)
class Digest:
    """What a run's file says, in short."""

    error: str | None = None
    """Why it cannot be read, without its path."""
    torn: int | None = None
    """The line of a torn last line, which was left out."""
    commit: str | None = None
    dirty: int | None = None
    """As the commit, of the first row; 0 or 1, as SQLite has no other."""
    codes: str = ""
    """The hashes of the codes that measured rows ran, parted by spaces."""
    held: str = "[]"
    """Name and conditions of each case that can be judged, as JSON."""
    contents: str = "{}"
    """How many rows of figures or verdicts the file gives of each case, as JSON."""
    cases: tuple[CaseFigures, ...] = ()

    @property
    def judged(self) -> Held:
        """What `held` holds; the same object for like runs."""
        return _held_in(self.held)

    def rows_of(self, case: str) -> int:
        """Return how many rows of figures or verdicts the file gives of a case."""
        return _contents_in(self.contents).get(case, 0)


def contents_of(cases: Iterable[str]) -> str:
    """Return how often each case is there, as JSON."""
    return json.dumps(Counter(iter(cases)), sort_keys=True)


def digest_of(path: Path) -> Digest:
    """Return what a run's file says, read whole; a torn last line is left out without a word."""
    torn: list[int] = []
    rows: dict[str, list[list[str]]] = {}
    held: dict[str, None] = {}
    codes: dict[str, None] = {}
    first = None
    for line, cells in read_cells(path, torn.append):
        first = first or cells
        if (rule := _broken(cells)) is not None:
            read_run(path)  # the store names the fault that comes first, where it finds one
            raise StoreError(f"{path}:{line}: {rule}")
        case = case_name(*_CASE(cells))
        rows.setdefault(case, []).append(cells)
        if cells[_STATUS] in MEASURED:
            codes.setdefault(cells[_CODE])
            if not cells[_NOT_JUDGED]:
                held.setdefault(f"[{json.dumps(case)}, {_conditions_text(_CONDITIONS(cells))}]")
    try:
        head = from_cells(first) if first else None
    except StoreError as error:
        raise StoreError(f"{path}:2: {error}") from None
    return Digest(
        commit=head.commit if head else None,
        dirty=int(head.dirty) if head and head.dirty is not None else None,
        codes=" ".join(filter(None, codes)),
        held=f"[{', '.join(held)}]",
        contents=contents_of(rows),
        torn=torn[0] if torn else None,
        cases=tuple(_figures(case, group) for case, group in rows.items()),
    )


def _broken(cells: Sequence[str]) -> str | None:
    """Return which of the cells that a digest looks at breaks its rule; None where none does."""
    if cells[_STATUS] not in STATUSES:
        return f"column 'status' must be one of {', '.join(STATUSES)}"
    if not cells[_STARTED]:
        return "column 'started' must not be empty"
    try:
        case_name(*_CASE(cells))
        _conditions_text(_CONDITIONS(cells))
        seconds = _number(cells, _STEP)
        for place in (_LOG_RATIO, _LOAD, _PARAMETERS, _FLOPS, _BUDGET):
            _number(cells, place)
    except (CaseError, StoreError, ValueError) as error:
        return str(error)
    rule = seconds is not None and COLUMNS[_STEP].range_broken(seconds)
    return f"column 'step_time_p50_s' {rule}" if rule else None


@functools.lru_cache(maxsize=4096)
def _conditions_text(cells: Sequence[str]) -> str:
    """Return the conditions that the cells of a row tell, as JSON."""
    pairs = zip(CONDITIONS, cells, strict=True)
    values = [from_cell(COLUMNS[_PLACES[name]], cell) for name, cell in pairs]
    values[_NODE] = "named" if values[_NODE] else None  # each container's name is another one
    conditions_of(tuple(values))
    return json.dumps(values)


@functools.lru_cache(maxsize=4096)
def _conditions_in(text: str) -> Conditions:
    return conditions_of(tuple(json.loads(text)))


@functools.lru_cache(maxsize=1024)
def _held_in(text: str) -> Held:
    return tuple((case, conditions_of(tuple(values))) for case, values in json.loads(text))


@functools.lru_cache(maxsize=1024)
def _contents_in(text: str) -> dict[str, int]:
    return {str(case): int(rows) for case, rows in json.loads(text).items()}


def _figures(case: str, rows: Sequence[Sequence[str]]) -> CaseFigures:
    measured = [cells for cells in rows if cells[_STATUS] in MEASURED]
    times_s = _numbers(measured, _STEP)
    failed = (cells[_STATUS] for cells in rows if cells[_STATUS] not in MEASURED)
    paired = [cells for cells in measured if cells[_LOG_RATIO] and not cells[_NOT_JUDGED]]
    judged = [cells for cells in paired if cells[_STATUS] == "ok"] or paired
    ratios, loads = _numbers(judged, _LOG_RATIO), _numbers(judged, _LOAD)
    first = judged[0] if judged else None
    return CaseFigures(
        case=case,
        started=rows[0][_STARTED][:_MINUTE].replace("T", " "),
        processes=len(times_s),
        step_time_p50_s=median_of(times_s),
        spread=spread(times_s),
        doubts=doubts_text(
            len(measured),
            failed=0,  # the status says it
            unsteady=sum(cells[_STATUS] == "unsteady" for cells in measured),
            unjudged=sum(bool(cells[_NOT_JUDGED]) for cells in measured),
            concurrent=sum(cells[_CONCURRENT] == "true" for cells in measured),
        ),
        failed=next(failed, ""),
        judged=len(ratios),
        log_ratio=fmean(ratios) if ratios else None,
        variance=variance(ratios) if len(ratios) > 1 else None,
        load=median_of(loads) if len(loads) == len(judged) else None,
        parameters=_number(first, _PARAMETERS) if first else None,
        flops_per_sample=_number(first, _FLOPS) if first else None,
        time_budget_s=_number(first, _BUDGET) if first else None,
        counting_version=first[_COUNTING] if first else "",
        commit=first[_COMMIT] if first and (first[_CODE] or first[_DIRTY] == "false") else "",
        conditions_text=_conditions_text(_CONDITIONS(first)) if first else "",
    )


def _numbers(rows: Sequence[Sequence[str]], place: int) -> list[float]:
    return [value for cells in rows if (value := _number(cells, place)) is not None]


def _number(cells: Sequence[str], place: int) -> Any:
    return from_cell(COLUMNS[place], cells[place])
