"""One table of the same cases over the values of a column, such as TensorFlow's version."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby, product
from operator import itemgetter
from typing import Any

from convmark.compare.comparability import Conditions
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.fitting import wrapped
from convmark.core.interval import NOT_KNOWN
from convmark.core.option_values import parse_models
from convmark.core.statistics import median_of, spread
from convmark.core.table import SAMPLES_PER_S, Table, headings, printed, table_of
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import counted, markdown_cell, natural_order, shown
from convmark.report.changes import LEAST_PAIRS, Change, Pair, Value, changes
from convmark.report.summary import values_of
from convmark.results.record import Record

COLUMNS = ("tensorflow", "keras", "python", "backend", "commit", "machine", "gpu", "driver")
"""The columns that a table may run over."""

_AGELESS = ("backend", "machine", "gpu")
"""Columns none of whose values is older than another: all are set beside the first, and none is
judged against another."""

DIRTY = "+"
"""Ends the commit of a folder that had changes which are in no commit."""

PROGRAM = "convmark "
TO_BEFORE = "step time to the one before"
LIVE = "These commands {}, the last one all at once:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One case at one value, from its newest run and earlier ones that are alike.

    Changes are shares of the step time, above 0 slower; intervals are of 95 %, those of a verdict
    at its own error rate.
    """

    case: str
    value: str
    run: str
    """The newest run that has it."""
    runs: int
    processes: int
    throughput_samples_per_s: float | None
    """The median over processes; so of what follows but the step time."""
    step_time_p50_s: float | None
    """The geometric mean over runs of those over their processes."""
    step_time_spread: float | None
    """Half the range of the processes' medians over their median; None from one process."""
    time_to_first_step_s: float | None
    peak_host_memory_bytes: float | None
    parameters: int | None
    to_first: Change | None = None
    """Of the step time from the first value; None for the first value."""
    to_previous: Change | None = None
    """Of the step time from the value before; None where no value is older than another."""
    verdict: str = ""
    """On the change from the value before; empty where the runs allow none."""
    note: str = ""
    command: str = ""
    """What compares it live with the value before, or the first one; empty where nothing can."""
    live: LiveCases | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The cell as a row of a file, a change in four columns: its size, interval and basis."""
        found: dict[str, Any] = {}
        for name in (one.name for one in fields(self) if one.name != "live"):
            value = getattr(self, name)
            if name in ("to_first", "to_previous"):
                interval = value.interval if value else NOT_KNOWN
                found[name] = value.change if value else None
                found |= {f"{name}_{end}": cell for end, cell in interval.cells.items()}
                found[f"{name}_basis"] = value.basis if value else ""
            else:
                found[name] = value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCases:
    """Cases that one live comparison measures: every model with every task and batch size."""

    a: str
    """The old value's side, as `convmark ab` takes it."""
    b: str
    set_a: tuple[str, ...] = ()
    """Settings of the old value's side, each NAME=VALUE."""
    set_b: tuple[str, ...] = ()
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    others: tuple[tuple[str, str], ...]
    """Further options by name."""

    @property
    def options(self) -> dict[str, str]:
        """The options that name the cases."""
        return {
            "models": ",".join(self.models),
            "tasks": ",".join(self.tasks),
            "batch-sizes": ",".join(map(str, self.batch_sizes)),
            **dict(self.others),
        }

    @property
    def command(self) -> str:
        """What a user types to compare them."""
        flags = [("set-a", one) for one in self.set_a] + [("set-b", one) for one in self.set_b]
        flags += self.options.items()
        words = [word for name, text in flags for word in (f"--{name}", text)]
        return PROGRAM + shlex.join(["ab", self.a, self.b, *words])


# -- the cells -------------------------------------------------------------------------------------


def across(
    runs: Iterable[Sequence[Record]],
    column: str,
    names: Mapping[str, str] | None = None,
    files_of: Callable[[str], str] = lambda code: "",
) -> list[Cell]:
    """Return a cell per case and value.

    Versions are in their order, commits in that of their first runs, backends in that of
    `BACKENDS`, machines and GPUs in that of their names.

    Args:
        runs: the rows of each run, in the order of the runs; runs of two results folders may have
            the same number.
        column: one of `COLUMNS`.
        names: of machines that a user has named, by their fingerprints.
        files_of: the hash of a code's files without its packages; empty where it is not known.
    """
    found, first_seen = _values(runs, column, names or {})
    in_order: Callable[[str], Any] = _ORDERS.get(column, natural_order)
    if column == "commit":
        in_order = first_seen.__getitem__
    cases = [
        sorted(
            ((value, found[name, value]) for _, value in of_case), key=lambda one: in_order(one[0])
        )
        for name, of_case in groupby(
            sorted(found, key=lambda key: natural_order(key[0])), key=itemgetter(0)
        )
    ]
    oldest = _changes_to(cases, column, lambda place: 0, files_of, judged=False)
    previous: dict[int, Change | None] = {}
    if column not in _AGELESS:
        previous = _changes_to(cases, column, lambda place: place - 1, files_of, judged=True)
    cells = []
    for values in cases:
        before: Value | None = None
        for text, value in values:
            changed = oldest.get(id(value)), previous.get(id(value))
            cells.append(_cell(_name(value.rows[0], column), text, value, before, column, *changed))
            before = values[0][1] if column in _AGELESS else value
    return cells


def _values(
    runs: Iterable[Sequence[Record]], column: str, names: Mapping[str, str]
) -> tuple[dict[tuple[str, str], Value], dict[str, int]]:
    """Return the runs by case and value, and the values in the order of their first runs."""
    found: dict[tuple[str, str], dict[int, list[Record]]] = {}
    first_seen: dict[str, int] = {}
    for place, rows in enumerate(runs):
        for record in rows:
            value = _value(record, column)
            if not record.measured or not value or record.task not in TIMED_TASKS:
                continue
            value = names.get(value, value) if column == "machine" else value
            first_seen.setdefault(value, len(first_seen))
            key = (_name(record, column), value)
            found.setdefault(key, {}).setdefault(place, []).append(record)
    return {key: Value.of(of_key) for key, of_key in found.items()}, first_seen


def _value(record: Record, column: str) -> str:
    """Return a row's value of the column; a commit with changes in its files ends in `+`."""
    value = str(getattr(record, column) or "")
    return f"{value}{DIRTY}" if value and column == "commit" and record.dirty else value


def _changes_to(
    cases: Sequence[Sequence[tuple[str, Value]]],
    column: str,
    before: Callable[[int], int],
    files_of: Callable[[str], str],
    *,
    judged: bool,
) -> dict[int, Change | None]:
    """Return the change of each value but the first ones, by the value's identity.

    Args:
        before: the place of the value that one at a place is compared with.
    """
    pairs = [
        Pair(old=values[before(place)][1], new=values[place][1], others=[one for _, one in values])
        for values in cases
        for place in range(1, len(values))
    ]
    found = changes(pairs, column, files_of, judged=judged)
    return {id(pair.new): change for pair, change in zip(pairs, found, strict=True)}


def _name(record: Record, column: str) -> str:
    """Return the case's name, without what the table runs over."""
    if column == "backend":
        return Case(**{**record.case.as_fields(), "backend": DEFAULT_BACKEND}).name
    return record.case.name


_ORDERS: Mapping[str, Callable[[str], Any]] = {
    "backend": lambda value: [*BACKENDS, value].index(value),
    **dict.fromkeys(("machine", "gpu"), str),
}


def _cell(
    name: str,
    text: str,
    value: Value,
    before: Value | None,
    column: str,
    oldest: Change | None,
    previous: Change | None,
) -> Cell:
    rows = value.rows
    judged = previous or oldest
    notes = [judged.note if judged else "", value.without, value.loaded]
    live = _live(before.rows[-1], rows[-1], column) if before is not None else None
    return Cell(
        case=name,
        value=text,
        run=rows[-1].run,
        runs=len(value.runs),
        processes=len(rows),
        throughput_samples_per_s=median_of(values_of(rows, "throughput_samples_per_s")),
        step_time_p50_s=value.step_time_s,
        step_time_spread=spread(values_of(rows, "step_time_p50_s")),
        time_to_first_step_s=median_of(values_of(rows, "time_to_first_step_s")),
        peak_host_memory_bytes=median_of(values_of(rows, "peak_host_memory_bytes")),
        parameters=rows[-1].parameters,
        to_first=oldest,
        to_previous=previous,
        verdict=previous.verdict if previous else "",
        note="; ".join(dict.fromkeys(filter(None, notes))),
        command=live.command if live else "",
        live=live,
    )


# -- what compares two values live -----------------------------------------------------------------

_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}((a|b|rc)[0-9]{1,4})?")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_LONG_COMMIT = re.compile(r"^([0-9a-f]{12})[0-9a-f]{28,52}(\+?)$")


def _side(row: Record, column: str) -> str:
    """Return a row's value of the column as a side of `convmark ab`; empty where it can be none."""
    value = _value(row, column)
    if column == "backend":
        return "."
    if column == "commit":
        return f"git:{value[:12]}" if _COMMIT.fullmatch(value) else ""
    if not _VERSION.fullmatch(value):
        return ""
    if column == "python":
        return f"python{'.'.join(value.split('.')[:2])}"
    framework = getattr(row, row.backend)
    if column == "keras" and _VERSION.fullmatch(str(framework)):
        return f"{row.backend}=={framework} keras=={value}"
    return f"tensorflow=={value}" if (column, row.backend) == ("tensorflow",) * 2 else ""


def _live(old: Record, new: Record, column: str) -> LiveCases | None:
    """Return what compares the case of two rows live; None where nothing can."""
    a, b, case = _side(old, column), _side(new, column), new.case
    over_backends = column == "backend"
    same = a == b and not over_backends
    if not a or not b or same or case.replicas != 1 or not _may_be_typed(case.model):
        return None
    others = Conditions.of(new).facts.options
    for name in ("models", "tasks", "batch-sizes"):
        del others[name]
    if over_backends:
        others["backend"] = DEFAULT_BACKEND
    return LiveCases(
        a=a,
        b=b,
        set_a=(f"backend={old.backend}",) if over_backends else (),
        set_b=(f"backend={new.backend}",) if over_backends else (),
        models=(case.model,),
        tasks=(case.task,),
        batch_sizes=(case.batch_size,),
        others=tuple(others.items()),
    )


def _may_be_typed(model: str) -> bool:
    try:
        return tuple(parse_models("--models", model)) == (model,)
    except OptionError:
        return False


def live_cases(cells: Iterable[Cell]) -> list[LiveCases]:
    """Return the live comparisons of the cells with the values before, as few as hold them all."""
    found = list(dict.fromkeys(cell.live for cell in cells if cell.live is not None))
    for name in ("models", "batch_sizes", "tasks"):
        found = _joined(found, name)
    return found


def _joined(found: Sequence[LiveCases], name: str) -> list[LiveCases]:
    """Return the comparisons, those that differ in one field alone made one."""
    groups: dict[tuple[Any, ...], list[LiveCases]] = {}
    for one in found:
        key = tuple(getattr(one, other.name) for other in fields(one) if other.name != name)
        groups.setdefault(key, []).append(one)
    joined = []
    for group in groups.values():
        values = dict.fromkeys(value for one in group for value in getattr(one, name))
        changed: dict[str, Any] = {name: tuple(values)}
        joined.append(replace(group[0], **changed))
    return joined


# -- as text ---------------------------------------------------------------------------------------


def cells_table(cells: Sequence[Cell]) -> Table:
    """Return the cells with all their figures, for other programs."""
    names = list(cells[0].record)
    ends = product(("to_first", "to_previous"), ("", "_low", "_high"))
    kinds = {"step_time_spread": "spread", **dict.fromkeys(map("".join, ends), "change")}
    columns = [
        replace(one, label=one.key, kind=kinds.get(one.key, one.kind))
        for one in headings(" ".join(names))
    ]
    records = [cell.record for cell in cells]
    return table_of("across", "Step times over values", "", columns, records, keep=names)


def across_report(
    cells: Sequence[Cell],
    column: str,
    form: str = "text",
    *,
    live: str = "",
    typed: Callable[[str], str] = PROGRAM.__add__,
) -> str:
    """Return the cells as text or Markdown.

    Args:
        live: the command that compares all values live, without the program's name.
        typed: makes of such a command what a user pastes.
    """
    markdown = form == "markdown"
    table = _table(cells, column, markdown=markdown)
    clean = markdown_cell if markdown else lambda line: wrapped(shown(line))
    lines = [clean(line) for line in _below(cells)]
    commands = [one.command.removeprefix(PROGRAM) for one in live_cases(_undecided(cells))]
    if commands:
        block = "\n".join(shown(typed(one)) for one in [*commands, live])
        lines.append(f"```sh\n{block}\n```" if markdown else block)
    return "\n\n".join([table, *lines])


def _table(cells: Sequence[Cell], column: str, *, markdown: bool) -> str:
    longest = max((sum(cell.case == one.case for one in cells) for cell in cells), default=0)
    several = column not in _AGELESS and longest > 2
    columns = [
        *headings(
            "case value throughput_samples_per_s step_time_p50_s step_time_spread",
            value=column,
            step_time_p50_s=("step time", "seconds"),
            step_time_spread=("spread", "spread"),
        ),
        *([] if column in _AGELESS else headings("before verdict", before=TO_BEFORE)),
        *(headings("first", first="step time to the oldest") if several else []),
        *(headings("first", first="step time to the first row") if column in _AGELESS else []),
        *headings(
            "time_to_first_step_s peak_host_memory_bytes parameters runs processes note",
            processes=("n", "count"),
        ),
    ]
    before = ["", *(cell.case for cell in cells)]
    records = [
        {
            **cell.record,
            "case": cell.case if cell.case != last or not markdown else "",
            "value": _LONG_COMMIT.sub(r"\1\2", cell.value),
            "before": cell.to_previous.words if cell.to_previous else "",
            "first": cell.to_first.words if cell.to_first else "",
        }
        for cell, last in zip(cells, before, strict=False)
    ]
    style, clean = ("pipe", markdown_cell) if markdown else ("simple", shown)
    return printed(columns, records, style, clean=clean)


def _below(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield what the figures are, and how many changes have no verdict."""
    metric = f"Metric: step time, geometric means of the processes' medians. {SAMPLES_PER_S}"
    left, changed = _undecided(cells), sum(cell.to_previous is not None for cell in cells)
    if not any(cell.to_first for cell in cells):
        yield metric
        values = {cell.value for cell in cells}
        none = "No case was measured at two values: there is nothing to compare."
        alone = f"All rows are of {min(values)}: there is nothing to compare it with."
        yield alone if len(values) == 1 else none
        return
    yield (
        f"{metric} Intervals of 95 % come from the runs of a case where a value has several, and "
        "else from the processes of one run, which do not tell how runs differ (in these runs). A "
        "change is the quotient of two step times; where runs alternate, the mean over their pairs."
    )
    if not changed:
        if any(cell.live for cell in left):
            yield LIVE.format("compare live")
        return
    rule = f"a verdict needs {LEAST_PAIRS} pairs of runs that alternate"
    if not left:
        yield f"Decided: {counted(changed, 'change')} from one value to the next."
        return
    commands = f" {LIVE.format('decide')}" if any(cell.live for cell in left) else ""
    yield f"Not decided: {len(left)} of {counted(changed, 'change')}; {rule}.{commands}"


def _undecided(cells: Iterable[Cell]) -> list[Cell]:
    open_ = ("", "inconclusive")
    return [one for one in cells if (one.to_previous or one.to_first) and one.verdict in open_]
