"""A wall meter's log, joined by time with the rows that were measured meanwhile.

    time,watts
    2026-01-31T12:00:00+01:00,84.2

A time has its offset from UTC, or is in epoch seconds, so that no log is taken for one of another
hour. A row gets the mean power over its own stretch: the last quarter of its sustained steps, or
its windows. What a log does not cover, or covers with a gap, is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from convmark.core.errors import OptionError
from convmark.core.files import read_regular
from convmark.core.text import listed, plain_text

_TIMES = ("time", "timestamp", "ts", "datetime", "date/time", "unixtime", "epoch", "last_changed")
_UNITS = {"w": 1.0, "watt": 1.0, "watts": 1.0, "mw": 1e-3, "milliwatts": 1e-3, "kw": 1e3,
 "kilowatts": 1e3}  # fmt: skip
_MEGAWATT = re.compile(r"(?<![A-Za-z])MW(?![A-Za-z])")
_IN_WATTS = ("apower", "act_power", "total_act_power")
"""Source: Shelly's API, components Switch, EM1 and EM: active power, W."""
_TASMOTA = ("power", "total", "today")
"""Source: Tasmota's documentation, Power monitoring: `Power` of its ENERGY is in W."""

_METERS = (
    *("entity_id", "entity", "device", "device_id", "meter", "sensor", "name", "friendly_name"),
    *("topic", "host", "channel", "phase", "plug", "outlet", "source", "mac", "serial", "id"),
)
"""Columns that tell of which meter a line is."""

EARLIEST, LATEST = 946_684_800.0, 4_102_444_800.0
"""Epoch seconds of the years 2000 and 2100."""
LEAST_LINES = 3
MOST_GAP = 3.0
"""Times the usual distance of two values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLog:
    """Power by time; values are taken to change evenly from one to the next."""

    name: str
    """The file's, as messages have it."""
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Epoch seconds, in order."""
    watts: np.ndarray[tuple[int], np.dtype[np.float64]]
    lines: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Of the file."""

    @property
    def step_s(self) -> float:
        """The usual distance of two values."""
        return float(np.median(np.diff(self.times_s)))

    @property
    def first_s(self) -> float:
        return float(self.times_s[0])

    @property
    def last_s(self) -> float:
        return float(self.times_s[-1])

    def within(self, from_s: float, until_s: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return self.watts[(self.times_s >= from_s) & (self.times_s <= until_s)]

    def mean_w(self, from_s: float, until_s: float) -> float:
        """Return the mean power over a time that the log covers."""
        inner = (self.times_s > from_s) & (self.times_s < until_s)
        times = np.concatenate([[from_s], self.times_s[inner], [until_s]])
        watts = np.interp(times, self.times_s, self.watts)
        return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(times)) / (until_s - from_s))

    def gap(self, from_s: float, until_s: float) -> str:
        """Say where two values lie too far apart within a time; empty where none do."""
        before, after = self.times_s[:-1], self.times_s[1:]
        most_s = MOST_GAP * self.step_s
        apart = (after - before > most_s) & (after > from_s) & (before < until_s)
        if not apart.any():
            return ""
        place = int(np.argmax(apart))
        return (
            f"{self.name}:{self.lines[place + 1]}: no value for {after[place] - before[place]:.0f} "
            f"s from {utc_text(before[place])}, where at most {most_s:.3g} s are allowed"
        )


def utc_text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def read_power_log(path: Path) -> PowerLog:
    """Return the log in a CSV file, whose cells are parted by commas, semicolons or tabs.

    Raises:
        OptionError: it cannot be read, has no column of times or of power with its unit, or a line
            breaks a rule; the message names file and line.
    """
    name = plain_text(str(path))
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise OptionError(f"--power-log: {name} must be a CSV file: {reason}") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    found: list[tuple[float, float, int]] = []
    try:
        header = [cell.strip() for cell in next(rows, [])]
        time_at, power_at, factor = _columns(name, header)
        utc = "utc" in header[time_at].casefold()
        told = {place: one for place, one in enumerate(header) if one.casefold() in _METERS}
        meters: dict[int, set[str]] = {place: set() for place in told}
        for cells in rows:
            line = rows.line_num
            if not any(cells):
                continue
            if len(cells) <= max(time_at, power_at) or any(cells[len(header) :]):
                raise OptionError(
                    f"--power-log: {name}:{line}: must have {len(header)} cells, it has "
                    f"{len(cells)}; write numbers with a decimal point and no other sign"
                )
            watts = _watts(name, line, cells[power_at].strip())
            if watts is not None:
                time_s = _time(name, line, cells[time_at].strip(), utc=utc)
                found.append((time_s, factor * watts, line))
                for place in told:
                    meters[place].add(cells[place])
    except csv.Error as error:
        raise OptionError(f"--power-log: {name}:{rows.line_num}: must be CSV: {error}") from None
    for place, its in meters.items():
        if 1 < len(its) <= len(found) / 2:  # not a number of each line
            raise OptionError(
                f"--power-log: {name}:1: must be of one meter, its column "
                f"{plain_text(told[place])} has {len(its)} "
                f"({plain_text(listed(sorted(its), 3))}); keep the lines of one"
            )
    if found and not text.endswith("\n"):  # what a meter that is still writing leaves
        found.pop()
    return _in_order(name, found)


def _columns(name: str, header: Sequence[str]) -> tuple[int, int, float]:
    """Return the places of times and power, and by what the power is multiplied to be in W."""
    names = [re.sub(r"(?:[\s_]+|[\s_]*\()(?:utc|s)\)?$", "", one.casefold()) for one in header]
    times = [place for place, one in enumerate(names) if one in _TIMES]
    if not times:
        raise OptionError(
            f"--power-log: {name}:1: must have a column time or timestamp, it has "
            f"{plain_text(', '.join(header)[:80]) or 'none'}"
        )
    powers = [(place, factor) for place, one in enumerate(header) if (factor := _unit_of(one))]
    lower = [one.casefold() for one in header]
    if not powers and all(one in lower for one in _TASMOTA):
        powers = [(lower.index("power"), 1.0)]
    if len(powers) != 1:
        what = "it has none" if not powers else f"it has {len(powers)}; keep one"
        raise OptionError(
            f"--power-log: {name}:1: must have one column of power with its unit, such as watts, "
            f"power_w or Power (kW): {what}"
        )
    return times[0], *powers[0]


def _unit_of(label: str) -> float | None:
    """Return how many watts a column's unit has; None where it is no power."""
    if label.casefold() in _IN_WATTS:
        return 1.0
    if _MEGAWATT.search(label):
        return None
    last = re.split(r"[^a-z]+", label.casefold().rstrip(")] "))[-1]
    return _UNITS.get(last)


def _watts(name: str, line: int, text: str) -> float | None:
    """Return the number of a cell; None for one in which the meter tells nothing."""
    if text.casefold() in ("", "unavailable", "unknown", "null", "none"):
        return None
    if not re.fullmatch(r"\+?\d+(\.\d*)?([eE][+-]?\d{1,2})?", text):
        raise OptionError(
            f"--power-log: {name}:{line}: power must be a number from 0 with a decimal point, got "
            f"{plain_text(text[:40])!r}"
        )
    return float(text)


def _time(name: str, line: int, text: str, *, utc: bool) -> float:
    """Return epoch seconds."""
    told = re.sub(r"\s*(?:Z|UTC)$", "+00:00", text)
    if re.fullmatch(r"\d+(\.\d+)?", told):
        if EARLIEST <= float(told) <= LATEST:
            return float(told)
        raise OptionError(
            f"--power-log: {name}:{line}: a time in numbers must be in epoch seconds, of the years "
            f"2000 to 2100, got {plain_text(text[:40])}"
        )
    told = re.sub(r"(\.\d{6})\d+", r"\1", told)
    told = re.sub(r"\.(\d{1,5})(?=[+-]|$)", lambda part: f".{part[1]:0<6}", told)
    try:
        found = datetime.fromisoformat(told)
    except ValueError:
        raise OptionError(
            f"--power-log: {name}:{line}: time must be as 2026-01-31T12:00:00+01:00 or in epoch "
            f"seconds, got {plain_text(text[:40])!r}"
        ) from None
    if found.tzinfo is None:
        if not utc:
            raise OptionError(
                f"--power-log: {name}:{line}: time must have a zone, as "
                f"{plain_text(text[:40])}+01:00 or with Z for UTC; without it the hour is ambiguous"
            )
        found = found.replace(tzinfo=timezone.utc)
    return found.timestamp()


def _in_order(name: str, found: Sequence[tuple[float, float, int]]) -> PowerLog:
    """Return the log, oldest first; one that is newest first throughout is turned round."""
    if len(found) < LEAST_LINES:
        raise OptionError(
            f"--power-log: {name}: must have at least {LEAST_LINES} values, it has {len(found)}"
        )
    times_s, watts, lines = (np.array(column) for column in zip(*found, strict=True))
    if times_s[0] > times_s[-1]:
        times_s, watts, lines = times_s[::-1], watts[::-1], lines[::-1]
    back = np.diff(times_s) <= 0
    if back.any():
        line = max(lines[int(np.argmax(back)) : int(np.argmax(back)) + 2])
        raise OptionError(
            f"--power-log: {name}:{line}: times must increase from line to line, but this "
            "one does not: the meter's clock was set, or a value is there twice"
        )
    return PowerLog(name=name, times_s=times_s, watts=watts, lines=lines)
