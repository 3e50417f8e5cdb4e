"""Joins the logs of wall meters with rows: their power, idle power and energy per sample.

A row has no power from the wall where its time is not sure, is too short for the meter, or was
another row's too; the table says how many rows that befell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark.core.errors import OptionError
from convmark.core.option_values import nearest, parse_file
from convmark.core.text import counted
from convmark.report.power_log import PowerLog, read_power_log, utc_text
from convmark.report.rows import Rows, records_of, text_of

if TYPE_CHECKING:
    import pandas as pd

WALL_COLUMNS = (
    *("wall_power_w", "wall_idle_power_w", "wall_joules_per_sample"),
    "wall_above_idle_joules_per_sample",
)
LEAST_VALUES = 5
"""Of the meter within a row's stretch."""
IDLE_S = 30.0
IDLE_APART_S = 2.0
"""From its end to the command: whoever types it, and the clocks, are not exact."""
LEAST_IDLE_S = 10.0
STEADY = 0.2
"""Idle power varies by no more of its mean; what varies more is no idle machine."""
MOST_CHANGE = 0.1
"""Of the mean power, from the first third of a row's stretch to its last."""

_NEEDED = (
    *("source", "machine", "node", "cluster", "measured", "started", "command_started", "took_s"),
    *("windows_from_s", "windows_until_s", "sustained_from_s", "sustained_until_s", "case"),
    *("throughput_samples_per_s", "sustained_throughput_samples_per_s"),
)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """A row, and when it was measured, epoch seconds."""

    row: Row
    began_s: float
    ended_s: float | None
    """None where the row does not tell."""
    stretch: tuple[float, float, float] | None
    """Begin and end of what power is wanted of, and its throughput in samples/s."""
    goes_on: bool
    """Whether that is of sustained steps."""

    @classmethod
    def of(cls, row: Row) -> _Timed:
        began_s = datetime.fromisoformat(str(row["started"])).timestamp()
        stretch, of_part = None, ""
        for part, rate in (
            ("sustained", row["sustained_throughput_samples_per_s"]),
            ("windows", row["throughput_samples_per_s"]),
        ):
            from_s, until_s = row[f"{part}_from_s"], row[f"{part}_until_s"]
            if stretch is None and until_s > from_s and rate > 0:  # none of these is NaN
                stretch, of_part = (began_s + from_s, began_s + until_s, float(rate)), part
        took_s = row["took_s"]
        return cls(
            row=row,
            began_s=began_s,
            ended_s=began_s + took_s if took_s == took_s else None,
            stretch=stretch,
            goes_on=of_part == "sustained",
        )

    @property
    def point(self) -> tuple[Any, ...]:
        """What processes share whose figures are taken together."""
        return (self.row["source"], self.row["case"])

    @property
    def command(self) -> tuple[Any, ...]:
        """The command that had it measured."""
        return (self.row["source"], text_of(self.row["command_started"]))

    def overlaps(self, from_s: float, until_s: float) -> bool:
        """Whether any of its time is of another time; one whose end is not known is short."""
        return self.began_s < until_s and (self.ended_s or self.began_s) > from_s


def with_wall_power(rows: Rows, given: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with the columns of the wall, and a line on each log.

    Args:
        given: files, or `MACHINE=FILE`; one a machine.

    Raises:
        OptionError: a log is none, is of an unknown machine, has a gap, ends in the middle of a
            row or a run, or joins no row.
    """
    import pandas as pd

    frame = rows.frame
    if not given:
        return frame, []
    columns = {name: np.full(len(frame), np.nan) for name in WALL_COLUMNS}
    records = records_of(frame, _NEEDED)
    lines, known = [], set()
    for text in given:
        machine, path = _machine_and_file(rows, text)
        if machine in known:
            raise OptionError(f"--power-log: must have one log of {machine}, got two")
        known.add(machine)
        log = read_power_log(path)
        timed = {n: _Timed.of(row) for n, row in enumerate(records) if row["machine"] == machine}
        _refuse_partial(log, list(timed.values()))
        found, why = _joined(log, timed)
        if not found:
            raise OptionError(f"--power-log: {log.name}: {_no_row(log, why)}")
        for place, figures in found.items():
            for name, value in figures.items():
                columns[name][place] = value
        lines.append(_line(machine, log, found, why))
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1), lines


def _machine_and_file(rows: Rows, text: str) -> tuple[str, Path]:
    machines = sorted(set(rows.frame["machine"].astype(str)))
    name, parted, file = text.partition("=")
    if parted and not parse_file("--power-log", text).exists():
        machine = rows.names.get(name, name)
        if machine not in machines:
            hint = nearest(name, machines)
            raise OptionError(f"--power-log: no row is from the machine {name!r}; {hint}")
        return machine, parse_file("--power-log", file)
    if len(machines) > 1:
        raise OptionError(
            f"--power-log: {text}: rows are from {counted(len(machines), 'machine')}; "
            f"give the machine of the log, as --power-log {machines[0]}={text}"
        )
    return machines[0], parse_file("--power-log", text)


def _refuse_partial(log: PowerLog, timed: Sequence[_Timed]) -> None:
    """Refuse a log that holds some rows of a command and not the others, or part of a row."""
    inside = [one for one in timed if one.overlaps(log.first_s, log.last_s)]
    nodes = sorted({text_of(one.row["node"]) for one in inside})
    if len(nodes) > 1:
        raise OptionError(
            f"--power-log: {log.name}: rows of {counted(len(nodes), 'node')} were measured in its "
            f"time ({', '.join(nodes[:3])}); give only the run files of the machine on the meter"
        )
    commands = {one.command for one in inside}
    for one in timed:
        if one.command not in commands or not one.row["measured"]:
            continue
        from_s, until_s = one.stretch[:2] if one.stretch else (one.began_s, one.began_s)
        subject = f"--power-log: {log.name}"
        when = f"while {one.row['case']} was measured"
        if from_s < log.first_s or until_s > log.last_s:
            raise OptionError(
                f"{subject}: covers {_span(log)}, but {one.row['case']} was measured from "
                f"{utc_text(from_s)} to {utc_text(until_s)}; export a longer log, or leave "
                "the run out"
            )
        if gap := log.gap(from_s, until_s):
            raise OptionError(f"--power-log: {gap} {when}; leave the run out, or measure again")


def _joined(
    log: PowerLog, timed: Mapping[int, _Timed]
) -> tuple[dict[int, dict[str, float]], Counter[str]]:
    """Return the figures of rows by place, and why others have none, each with its count."""
    found: dict[int, dict[str, float]] = {}
    inside = [one for one in timed.values() if one.overlaps(log.first_s, log.last_s)]
    why: Counter[str] = Counter()
    for place, one in timed.items():
        figures = _figures(log, one, [other for other in inside if other is not one])
        if isinstance(figures, str):
            why[figures] += 1
        else:
            found[place] = figures
    sustained = {timed[place].point for place in found if timed[place].goes_on}
    for place in [one for one in found if not timed[one].goes_on]:
        if timed[place].point in sustained:  # a median of both would be of neither
            del found[place]
            why["of windows, beside sustained steps of the same case"] += 1
    return found, why


def _figures(log: PowerLog, one: _Timed, others: Sequence[_Timed]) -> dict[str, float] | str:
    """Return the figures of a row, or why it has none."""
    if not one.row["measured"]:
        return "failed"
    if not one.overlaps(log.first_s, log.last_s):
        return "measured at another time"
    if one.ended_s is None or one.stretch is None:
        return "without times: from an earlier convmark, or the clock was set meanwhile"
    if text_of(one.row["cluster"]).startswith("hosts"):
        return "of several machines"
    if any(other.overlaps(one.began_s, one.ended_s) for other in others):
        return "measured at the same time as another"
    from_s, until_s, rate = one.stretch
    if len(log.within(from_s, until_s)) < LEAST_VALUES:
        return (
            f"too short for one value every {log.step_s:.3g} s (--sustain makes the first "
            "process of a case longer)"
        )
    power_w, (idle_w, most_idle_w) = log.mean_w(from_s, until_s), _idle_w(log, one, others)
    third_s = (until_s - from_s) / 3
    ends = [log.mean_w(from_s, from_s + third_s), log.mean_w(until_s - third_s, until_s)]
    if abs(ends[1] - ends[0]) > MOST_CHANGE * power_w:
        return "with power that changed: compare the clocks of meter and machine"
    if power_w <= most_idle_w:
        return "with no more power than before the run: compare the clocks of meter and machine"
    above = {} if idle_w is None else {
        "wall_idle_power_w": idle_w,
        "wall_above_idle_joules_per_sample": (power_w - idle_w) / rate,
    }  # fmt: skip
    return {"wall_power_w": power_w, "wall_joules_per_sample": power_w / rate, **above}


def _idle_w(log: PowerLog, one: _Timed, others: Sequence[_Timed]) -> tuple[float | None, float]:
    """Return mean and highest power just before the command.

    None and 0 where the machine may not have been idle.
    """
    unknown = (None, 0.0)
    if not (text := text_of(one.row["command_started"])):
        return unknown
    until_s = datetime.fromisoformat(text).timestamp() - max(IDLE_APART_S, log.step_s)
    from_s = max(until_s - IDLE_S, log.first_s)
    if until_s - from_s < LEAST_IDLE_S or until_s > log.last_s or log.gap(from_s, until_s):
        return unknown
    if any(other.overlaps(from_s, until_s) for other in others):
        return unknown
    values, mean_w = log.within(from_s, until_s), log.mean_w(from_s, until_s)
    steady = len(values) > 1 and float(values.max() - values.min()) <= STEADY * mean_w
    return (mean_w, float(values.max())) if steady else unknown


def _span(log: PowerLog) -> str:
    return f"{utc_text(log.first_s)} to {utc_text(log.last_s)}"


def _because(why: Mapping[str, int]) -> str:
    return "; ".join(f"{counted(count, 'row')} {reason}" for reason, count in why.items())


def _no_row(log: PowerLog, why: Mapping[str, int]) -> str:
    told = _because(why) or "there is no row"
    hint = "; is the offset of its times right?" if "measured at another time" in why else ""
    return f"is of {_span(log)} and joins no row: {told}{hint}"


def _line(
    machine: str, log: PowerLog, found: Mapping[int, Mapping[str, float]], why: Mapping[str, int]
) -> str:
    without = sum("wall_idle_power_w" not in one for one in found.values())
    idle = f", {without} without idle power" * bool(without)
    others = f"; without power from the wall: {_because(why)}" * bool(why)
    return (
        f"Wall: {machine} by {log.name}, a value each {log.step_s:.3g} s, {_span(log)}, joined "
        f"with {counted(len(found), 'row')}{idle}{others}."
    )
