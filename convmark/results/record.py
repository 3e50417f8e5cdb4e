"""Record: one row, one process of one case of one run; and its cells."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.cells import Column, columns_of, fit_text, from_cell, to_cell
from convmark.core.errors import StoreError
from convmark.core.statistics import median_of
from convmark.core.text import counted
from convmark.results.agreement import broken_rule, words_broken
from convmark.results.schema import (
    Schema,
)

STATUSES = ("ok", "error", "out_of_memory", "timeout", "crashed", "unsteady")
MEASURED = ("ok", "unsteady")
"""The statuses of rows that hold figures."""

BUSY_SHARE = 0.1
"""Others took this share of the CPUs' time or more: step times are longer than on an idle machine,
their ratio to the reference moves too (see `ALIKE_LOAD`), and a CPU's ceiling would be theirs."""


def large_load(shares: Iterable[float | None]) -> float | None:
    """Return the load that some processes were measured under; None where it was little.

    Args:
        shares: of the CPUs' time that others took, of each process; None where it is not known.
    """
    share = median_of(shares)
    return share if share is not None and share >= BUSY_SHARE else None


def doubts_text(n: float, failed: int, unsteady: int, unjudged: int, concurrent: int) -> str:
    """Return what of some processes to be wary of, beside their load and spread.

    Args:
        n: how many were measured; those that failed are none of them.
    """
    told = (
        (failed, n + failed, "failed"),
        (unsteady, n, "unsteady"),
        (unjudged, n, "not judged"),
        (concurrent, n + failed, "beside other runs"),
    )
    return ", ".join(f"{count} of {whole:.0f} {word}" for count, whole, word in told if count)


_Measured = TypeVar("_Measured")
"""A measured row, of whatever type."""
Fact = Callable[[Any, str], Any]
"""Returns a row's value of a column."""


def steady_rows(rows: Sequence[_Measured], fact: Fact = getattr) -> list[_Measured]:
    """Return of measured rows those that may be judged: the steady ones, or without any the others.

    Rows that say why they are no ground for a verdict are left out.
    """
    judged = [row for row in rows if not fact(row, "not_judged")]
    return [row for row in judged if fact(row, "status") != "unsteady"] or judged


def that_count(runs: Sequence[Sequence[_Measured]], fact: Fact = getattr) -> list[list[_Measured]]:
    """Return of each run of a case the measured rows that ratios of step times are of.

    As in `steady_rows`; none of a run that is no ground for a verdict. Where all runs are none, all
    rows count.
    """
    kept = [steady_rows(rows, fact) for rows in runs]
    return kept if any(kept) else [list(rows) for rows in runs]


def doubt_words(rows: Sequence[_Measured], used: Sequence[_Measured], fact: Fact = getattr) -> str:
    """Say how many rows are in no ratio and why, and what is doubtful of those that are in it.

    Args:
        rows: measured ones, of one case or several.
        used: those of them that ratios are of, as `that_count` chooses them.
    """
    kept = set(map(id, used))
    every, left = counted(len(rows), "process"), [row for row in rows if id(row) not in kept]
    parts = [f"without {len(left)} of {every}, {_causes(left, fact)}"] if left else []
    if unsteady := sum(fact(row, "status") == "unsteady" for row in used):
        parts.append(f"{unsteady} of {every} unsteady")
    parts += [f"not judged: {reason}" for reason in _reasons(used, fact)[:1]]
    return "; ".join(parts)


def _causes(left: Sequence[Any], fact: Fact) -> str:
    judged = [row for row in left if not fact(row, "not_judged")]
    unsteady = any(fact(row, "status") == "unsteady" for row in judged)
    reasons = [f"not judged: {reason}" for reason in _reasons(left, fact)[:1]]
    return " or ".join(["unsteady"] * unsteady + reasons) or "measured otherwise"


def _reasons(rows: Sequence[Any], fact: Fact) -> list[str]:
    return list(dict.fromkeys(str(why) for row in rows if (why := fact(row, "not_judged"))))


OF_MANY_STEPS = ("step_time_p95_s", "step_time_p99_s")
"""What a process has that has taken many steps: the quicker ones of a case, where not all have. A
median over these is not to stand beside one over all, and is left out."""


_ASKED = re.compile(r"(?:precision=(?P<precision>\S+))?(?:(?:^|(?<=\S) )threads=(?P<threads>\S+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Schema):
    """One row, whose values fit their columns and agree with each other."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise StoreError(
                f"{self.model}: status must be one of {', '.join(STATUSES)}, got {self.status!r}"
            )
        for column in COLUMNS:
            value = getattr(self, column.name)
            if isinstance(value, str) and fit_text(value) != value:
                value = fit_text(value) or None
                object.__setattr__(self, column.name, value)  # as the file will hold it
            _check_value(column, value)
        rule = words_broken(self.started, self.status, self.unsteady)
        if rule or (rule := broken_rule(self)):
            raise StoreError(rule)

    @property
    def measured(self) -> bool:
        """Whether the row holds figures."""
        return self.status in MEASURED

    @property
    def asked_case(self) -> Case:
        """The case of the plan: where the model's own code made it another, as it was asked for.

        Raises:
            StoreError: the column does not tell it.
        """
        return dataclasses.replace(self.case, **asked_axes(self.asked))

    @property
    def case(self) -> Case:
        """The case that the row is of, as it ran."""
        return Case(
            model=self.model,
            task=self.task,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
            jit=self.jit,
            replicas=self.replicas,
            cluster=self.cluster,
            threads=self.threads,
            backend=self.backend,
            recipe=self.recipe,
            runtime=self.runtime or "",
            cpus=self.cpus,
        )


COLUMNS = columns_of(Record)

FRAMEWORK_COLUMNS = tuple(column.name for column in COLUMNS if column.name in BACKENDS)
"""Versions of backends; that of a backend without a column stands in `packages`."""


def shown_in(table: str, first: Sequence[str] = ()) -> list[Column]:
    """Return the columns that a report's table shows by their declaration.

    Args:
        first: those that come first, in their order; the others keep the schema's.
    """
    found = [column for column in COLUMNS if column.table == table and column.title is not None]
    places = {name: place for place, name in enumerate(first)}
    return sorted(found, key=lambda column: places.get(column.name, len(places)))


def _check_value(column: Column, value: Any) -> None:
    """Refuse what could be written but not read again."""
    if value is None or value == "":
        if column.required:
            raise StoreError(f"column {column.name!r} must not be empty")
        return
    kinds = (int, float) if column.type is float else column.type
    if not isinstance(value, kinds) or isinstance(value, bool) != (column.type is bool):
        raise StoreError(
            f"column {column.name!r} must be of type {column.type.__name__}, "
            f"got {str(value)[:40]!r}"
        )
    if isinstance(value, (int, float)) and (rule := column.range_broken(value)):
        raise StoreError(f"column {column.name!r} {rule}, got {str(value)[:40]!r}")


def to_cells(record: Record) -> list[str]:
    """Return the record's cells in the order of `COLUMNS`."""
    return [to_cell(getattr(record, column.name)) for column in COLUMNS]


def asked_axes(asked: str | None) -> dict[str, Any]:
    """Return the axes that the column `asked` tells, by name.

    Raises:
        StoreError: the column does not tell them.
    """
    found = _ASKED.fullmatch(asked or "")
    if found is None:
        raise StoreError(
            "column 'asked' must be precision=VALUE, threads=VALUE or both, "
            f"got {str(asked)[:40]!r}"
        )
    return {name: value for name, value in found.groupdict().items() if value}


def from_cells(cells: Sequence[str] | Mapping[str, str]) -> Record:
    """Return the record that the cells hold, in the order of `COLUMNS`.

    Raises:
        StoreError: a cell breaks its column's rule; the message names the column and the value.
    """
    values = list(cells.values()) if isinstance(cells, Mapping) else list(cells)
    if len(values) != len(COLUMNS):
        raise StoreError(f"must have {len(COLUMNS)} cells, has {len(values)}")
    fields: dict[str, Any] = {}
    for column, cell in zip(COLUMNS, values, strict=True):
        try:
            fields[column.name] = from_cell(column, cell)
        except ValueError as error:
            rule = str(error) if "must" in str(error) else f"must be of type {column.type.__name__}"
            raise StoreError(f"column {column.name!r} {rule}, got {cell[:40]!r}") from None
    return Record(**fields)
