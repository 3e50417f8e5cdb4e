"""What a run's file says, in short: enough to list a case over time and to rule the run out."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, variance

from convmark.case import Case
from convmark.cells import from_cell
from convmark.errors import CaseError, StoreError
from convmark.judging.comparability import (
    AXES,
    Comparability,
    comparability,
    facts_of,
    inherited_state,
    of_the_run,
)
from convmark.ranges import range_broken
from convmark.reading import HEADER, read_cells, read_run
from convmark.record import COLUMNS, MEASURED, STATUSES, Record, from_cells
from convmark.statistics import spread

__all__ = ["CaseFigures", "Digest", "Head", "conditions_of", "digest_of", "head_of"]

_PLACES = {name: place for place, name in enumerate(HEADER)}
_AXES = operator.itemgetter(*(_PLACES[name] for name in AXES))
_CASE_FIELDS = tuple(Case.__dataclass_fields__)
_CASE = operator.itemgetter(*(_PLACES[name] for name in _CASE_FIELDS))
_MARKS = operator.itemgetter(*(_PLACES[name] for name in ("driver", "cuda", "cudnn")))
_STATUS, _STARTED, _STEP = (_PLACES[name] for name in ("status", "started", "step_time_p50_s"))
_CODE, _STATE = (_PLACES[name] for name in ("code", "state"))
_COMMIT, _DIRTY, _NOT_JUDGED = (_PLACES[name] for name in ("commit", "dirty", "not_judged"))
_LOG_RATIO, _LOAD = (_PLACES[name] for name in ("paired_log_ratio", "other_cpu_share"))
_FACTS = tuple(field.name for field in dataclasses.fields(Comparability))
_FACT_CELLS = operator.itemgetter(*(_PLACES[name] for name in _FACTS))
_MINUTE = 16
"""Characters of a time as far as the minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the first row of a run tells of all its rows."""

    commit: str | None
    dirty: bool | None
    coded: bool
    """Whether the code that ran is known by its hash."""
    facts: tuple[object, ...]
    """What decides comparability, as `of_the_run` gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    failed: str
    """The status of the first process that was not measured; empty where all were."""
    judged: int = 0
    """How many processes have a paired log ratio that counts."""
    log_ratio: float | None = None
    """Their mean of ln(case / reference)."""
    variance: float | None = None
    """Of it between them; None below two."""
    load: float | None = None
    """Their mean share of the CPUs' time that others took; None where one cannot tell."""
    commit: str = ""
    """The commit whose files they ran; empty where no commit has them."""
    conditions: str = ""
    """The first one's, for `conditions_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A run's file, in short."""

    head: Head | None
    """None where the file has no row yet."""
    axes: frozenset[tuple[str, ...]]
    """The cells of `AXES` of each case with a measured row."""
    marks: frozenset[str]
    """The drivers and versions of CUDA and cuDNN that measured rows name."""
    codes: frozenset[str]
    """The hashes of the codes that measured rows ran."""
    states: frozenset[str]
    """What the processes of measured rows were started with, as `inherited_state` gives it."""
    cases: tuple[CaseFigures, ...]
    torn: int | None
    """The line of a torn last line, which was left out."""


def head_of(record: Record) -> Head:
    """Return what a run's first row tells of all."""
    facts = of_the_run(comparability(record))
    return Head(commit=record.commit, dirty=record.dirty, coded=bool(record.code), facts=facts)


def digest_of(path: Path) -> Digest:
    """Return what a run's file says, read whole; a torn last line is left out without a word.

    Raises:
        StoreError: the file cannot be read, or does not fit; the message names file and line.
    """
    torn: list[int] = []
    rows: dict[str, list[list[str]]] = {}
    first = None
    for line, cells in read_cells(path, torn.append):
        first = first or cells
        if (rule := _broken(cells)) is not None:
            raise StoreError(_said_by_the_store(path) or f"{path}:{line}: {rule}")
        rows.setdefault(_case_name(*_CASE(cells)), []).append(cells)
    try:
        head = None if first is None else head_of(from_cells(first))
    except StoreError as error:
        raise StoreError(f"{path}:2: {error}") from None
    measured = [cells for group in rows.values() for cells in group if cells[_STATUS] in MEASURED]
    return Digest(
        head=head,
        axes=frozenset(_AXES(cells) for cells in measured),
        marks=frozenset(mark for cells in measured for mark in _MARKS(cells) if mark),
        codes=frozenset(cells[_CODE] for cells in measured if cells[_CODE]),
        states=frozenset(inherited_state(cells[_STATE]) or "" for cells in measured),
        cases=tuple(_figures(case, group) for case, group in rows.items()),
        torn=torn[0] if torn else None,
    )


def _broken(cells: Sequence[str]) -> str | None:
    """Return which of the cells that a digest looks at breaks its rule; None where none does."""
    if cells[_STATUS] not in STATUSES:
        return f"column 'status' must be one of {', '.join(STATUSES)}"
    if not cells[_STARTED]:
        return "column 'started' must not be empty"
    try:
        _case_name(*_CASE(cells))
        _seconds(cells)
        _number(cells, _LOG_RATIO), _number(cells, _LOAD)
    except (CaseError, ValueError) as error:
        return str(error)
    return None


def _said_by_the_store(path: Path) -> str:
    """Return what reading the file row by row says of it; empty where it finds no fault."""
    try:
        read_run(path)
    except StoreError as error:
        return str(error)
    return ""


@functools.cache
def _case_name(*cells: str) -> str:
    """Return the name of the case that the cells of its axes tell.

    Raises:
        CaseError, ValueError: they tell none.
    """
    fields = {
        name: from_cell(COLUMNS[_PLACES[name]], cell)
        for name, cell in zip(_CASE_FIELDS, cells, strict=True)
    }
    return Case(**fields).name


def _seconds(cells: Sequence[str]) -> float | None:
    value: float | None = from_cell(COLUMNS[_STEP], cells[_STEP])
    if value is not None and (rule := range_broken(COLUMNS[_STEP], value)):
        raise ValueError(f"column 'step_time_p50_s' {rule}")
    return value


def _figures(case: str, rows: Sequence[Sequence[str]]) -> CaseFigures:
    measured = (_seconds(cells) for cells in rows if cells[_STATUS] in MEASURED)
    times_s = [value for value in measured if value is not None]
    failed = (cells[_STATUS] for cells in rows if cells[_STATUS] not in MEASURED)
    judged = _judged(rows)
    ratios = [value for cells in judged if (value := _number(cells, _LOG_RATIO)) is not None]
    loads = [value for cells in judged if (value := _number(cells, _LOAD)) is not None]
    first = judged[0] if judged else None
    return CaseFigures(
        case=case,
        started=rows[0][_STARTED][:_MINUTE].replace("T", " "),
        processes=len(times_s),
        step_time_p50_s=median(times_s) if times_s else None,
        spread=spread(times_s),
        failed=next(failed, ""),
        judged=len(ratios),
        log_ratio=mean(ratios) if ratios else None,
        variance=variance(ratios) if len(ratios) > 1 else None,
        load=mean(loads) if loads and len(loads) == len(judged) else None,
        commit=first[_COMMIT] if first and (first[_CODE] or first[_DIRTY] == "false") else "",
        conditions=_conditions(_FACT_CELLS(first)) if first else "",
    )


def _judged(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the rows whose paired ratio counts: the steady ones, or where none is the others."""
    paired = [
        cells
        for cells in rows
        if cells[_STATUS] in MEASURED and cells[_LOG_RATIO] and not cells[_NOT_JUDGED]
    ]
    return [cells for cells in paired if cells[_STATUS] == "ok"] or paired


def _number(cells: Sequence[str], place: int) -> float | None:
    value: float | None = from_cell(COLUMNS[place], cells[place])
    return value


@functools.lru_cache(maxsize=4096)
def _conditions(cells: Sequence[str]) -> str:
    """Return the facts that decide comparability as one text."""
    pairs = zip(_FACTS, cells, strict=True)
    facts = facts_of({name: from_cell(COLUMNS[_PLACES[name]], cell) for name, cell in pairs})
    return json.dumps(dataclasses.asdict(facts))


@functools.lru_cache(maxsize=4096)
def conditions_of(text: str) -> Comparability:
    """Return the facts that decide comparability from a digest's text."""
    return Comparability(**json.loads(text))
