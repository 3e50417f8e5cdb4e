"""Detects unsteady step times of one process: numbers in, findings out.

A step that grows, jumps or settles late has no one step time, so its row is `unsteady`. A busy
machine moves step times too, by factors, so a finding needs more than a difference of medians:

- a trend: the medians of eight parts in order all rise, or all fall. Noise comes in bursts and
  levels, and does not do that;
- a change of level: the middle halves of two sections lie apart by a factor, by wall time and by
  the CPU time of the process, which other programs hardly move. Without CPU times, and where a
  step waits and does not compute, wall time is enough if the machine was quiet and the factor is
  larger.

The factors were chosen on recorded steps of identical code, quiet and at load 6:
docs/decisions/when-a-step-is-unsteady.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from convmark.core.errors import MeasurementError
from convmark.core.text import counted

TREND_PARTS = 8
TREND_CHANGE = 0.10
"""A trend matters from this change between the first and the last third."""
LEAST_VALUES = 24
"""Three values in each of the eight parts."""
LEAST_SHARE = 5
"""A level lasts for at least a fifth of the values."""

FEW_VALUES = 75
"""Below so many values the factors between levels are squared."""
SHORT_LEVELS = 2.0
"""The factor between two tenths of the values: a level that comes and goes, such as a sawtooth's.
It is looked for in many values on a quiet machine alone."""

QUIET_SHARE = 0.05
"""Others took less of the CPUs' time than this: the machine was quiet."""
WINDOWS_SLOWER = 1.5
WINDOWS_CHANGE = 0.3
LEAST_WINDOWS = 5
WINDOWS_STALLED = 1.5
"""Times as long as most windows say, all of them together: the throughput is so much too low."""
STALLED = 20.0
"""Times the median window that one takes whose process was stopped, also on a busy machine."""

Times = npt.NDArray[np.float64]
_SHARES = (0.1, 0.25, 0.75, 0.9)
_THIRDS = ("first", "second", "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Factors by which the middle halves of two sections must lie apart to be two levels."""

    both: float
    """By wall and by CPU time."""
    wall: float
    """By wall time alone, on a quiet machine."""

    def of(self, count: int) -> tuple[float, float]:
        """Return both factors for so many values."""
        power = 2 if count < FEW_VALUES else 1
        return self.both**power, self.wall**power


STEPS = Limits(both=1.3, wall=1.5)
ROUNDS = Limits(both=1.2, wall=1.5)
"""The reference's step moves with the machine, so a ratio to it may be asked for more."""


def unsteady(events: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Say what of a process's figures did not hold still, the first of its phases; None if all did.

    Args:
        events: the worker's, by name: `warm_up`, `steps`, `windows`, `rounds`, `state`, and
            `input_bound` where steps were fed.

    Raises:
        LookupError: one of them, or a figure in it, is missing.
    """
    if not events["warm_up"]["steady"]:
        return f"warm-up did not settle in {counted(events['warm_up']['steps'], 'step')}"
    share = events["state"]["other_cpu_share"]
    quiet = share is not None and share < QUIET_SHARE
    steps, windows, rounds = events["steps"], events["windows"], events["rounds"]
    reason = moved(steps["times_s"], steps.get("cpu_times_s", ()), quiet=quiet)
    if not reason and quiet:
        reason = _slower_windows(steps["times_s"], windows["times_s"], windows["steps"])
        for event, what in ((windows, "step time"), (events.get("input_bound"), "fed step time")):
            reason = reason or (_windows_moved(event["times_s"], what) if event else "")
    reason = reason or _stalled(windows["times_s"], quiet=quiet)
    return reason or _rounds_moved(rounds, quiet=quiet) or None


def moved(
    wall: Sequence[float],
    cpu: Sequence[float] = (),
    *,
    what: str = "step time",
    of: str = "step",
    limits: Limits = STEPS,
    quiet: bool = False,
) -> str:
    """Say how consecutive values moved; an empty text where they held still or cannot tell.

    Args:
        wall: seconds of steps by wall time, or ratios of them, in their order.
        cpu: the same by CPU time of the process; empty where it is not known.
        what, of: what a value is, and of what, for the text.
        quiet: whether other programs left the machine alone.

    Raises:
        MeasurementError: there are CPU times of some values alone.
    """
    if cpu and len(cpu) != len(wall):
        raise MeasurementError(f"CPU times must be of all {len(wall)} {of}s, are of {len(cpu)}")
    times = np.asarray(wall, np.float64)
    if times.size < LEAST_VALUES or not (times > 0).all():
        return ""
    count = f"{times.size} {of}s"
    if (change := _trend(times)) is not None:
        verb = "rose" if change > 0 else "fell"
        by = _by(change).lstrip("+-")
        return f"{what} {verb} by {by} from the first to the last third of {count}"
    seen = [times]
    computed = np.asarray(cpu, np.float64)
    if computed.size and (computed > 0).all():
        seen.append(computed)
    both, alone = limits.of(times.size)
    ways = ([(seen, both)] if len(seen) > 1 else []) + ([([times], alone)] if quiet else [])
    for series, factor in ways:
        split = _split(times)
        if _apart(series, slice(0, split), slice(split, None)) >= factor:
            change = _change(times, slice(0, split), slice(split, None))
            return f"{what} changed level by {_by(change)} after {of} {split} of {times.size}"
        thirds = zip(_THIRDS, _parts(times, 3), strict=True)
        for (one, first), (two, second) in combinations(thirds, 2):
            if _apart(series, first, second) >= factor:
                change = _change(times, first, second)
                by = f"by {_by(change)} from the {one} to the {two} third of {count}"
                return f"{what} changed {by}"
    tenths = _parts(times, 10) if quiet and times.size >= FEW_VALUES else ()
    for first, second in combinations(tenths, 2):
        if _apart(seen, first, second) >= SHORT_LEVELS:
            change = _change(times, first, second)
            by = f"by {_by(change)} from {of}s {_named(first)} to {_named(second)}"
            return f"{what} came and went: it changed {by}"
    return ""


def _by(change: float) -> str:
    """Return a change in words: per cent of more than double are hard to read."""
    return f"{100 * change:+.0f} %" if change < 0.995 else f"a factor of {1 + change:,.1f}"


def _slower_windows(
    step_times_s: Sequence[float], window_times_s: Sequence[float], window_steps: int
) -> str:
    """Say by how much the windows after the steps were slower; an empty text where they were not.

    On a quiet machine alone. Faster they may be: a window has one synchronisation.

    Args:
        window_steps: steps of each window.
    """
    if not step_times_s or not window_times_s:
        return ""
    last = np.asarray(step_times_s, np.float64)[-max(1, len(step_times_s) // 3) :]
    windows = np.asarray(window_times_s, np.float64) / window_steps
    if float(windows.min()) < WINDOWS_SLOWER * float(np.quantile(last, 0.75)):
        return ""
    change = float(np.median(windows) / np.median(last)) - 1
    return (
        f"steps of the windows were slower than the last third of the single ones by {_by(change)}"
    )


def _windows_moved(times_s: Sequence[float], what: str) -> str:
    """Say how consecutive windows moved; an empty text where they held still or are too few."""
    times = np.asarray(times_s, np.float64)
    if times.size < LEAST_WINDOWS or not (times > 0).all() or not _monotone(times):
        return ""
    change = float(times[-1] / times[0]) - 1
    if max(change, -change / (1 + change)) < WINDOWS_CHANGE:
        return ""
    return f"{what} changed by {_by(change)} from the first to the last of {times.size} windows"


def _stalled(times_s: Sequence[float], *, quiet: bool) -> str:
    """Say how long a window took in which the process stood still; an empty text where none did.

    A machine or a virtual one that was suspended, a stopped process, a disk that was waited for:
    the median step time does not show it, and the throughput is of all windows.
    """
    times = np.asarray(times_s, np.float64)
    if times.size < LEAST_WINDOWS or not (times > 0).all():
        return ""
    middle, longest = float(np.median(times)), float(times.max())
    together = float(times.sum()) / (middle * times.size)
    if longest < STALLED * middle and not (quiet and together >= WINDOWS_STALLED):
        return ""
    return (
        f"a window took far longer: {longest / middle:,.1f} times the median of {times.size}; "
        "was the process stopped, or the machine suspended?"
    )


def _rounds_moved(rounds: Mapping[str, Sequence[float]], *, quiet: bool) -> str:
    wall, cpu = (
        [case / reference if reference > 0 else 0.0 for case, reference in zip(*pairs, strict=True)]
        for pairs in (
            (rounds["case_wall_s"], rounds["reference_wall_s"]),
            (rounds["case_cpu_s"], rounds["reference_cpu_s"]),
        )
    )
    return moved(wall, cpu, what="ratio to the reference", of="round", limits=ROUNDS, quiet=quiet)


def _trend(times: Times) -> float | None:
    """Return the change between the first and last third where all parts follow one direction."""
    if not _monotone(np.array([np.median(times[part]) for part in _parts(times, TREND_PARTS)])):
        return None
    thirds = list(_parts(times, 3))
    change = _change(times, thirds[0], thirds[-1])
    return change if abs(np.log1p(change)) >= np.log1p(TREND_CHANGE) else None


def _monotone(values: Times) -> bool:
    differences = np.diff(values)
    return bool((differences > 0).all() or (differences < 0).all())


def _parts(times: Times, number: int) -> Iterator[slice]:
    edges = [len(times) * place // number for place in range(number + 1)]
    return (slice(first, last) for first, last in pairwise(edges))


def _split(times: Times) -> int:
    """Return before which value one level most plainly ends, by the least absolute deviation."""
    logs = np.log(times)
    least = max(LEAST_VALUES // 4, len(times) // LEAST_SHARE)

    def cost(split: int) -> float:
        sides = logs[:split], logs[split:]
        return float(sum(np.abs(side - np.median(side)).sum() for side in sides))

    return min(range(least, len(times) - least + 1), key=cost)


def _apart(series: Sequence[Times], first: slice, second: slice) -> float:
    """Return the factor between the middle halves of two sections, the least of all series.

    1 or less where they overlap, or where the series do not agree on the direction; 0 where more
    than a tenth of one reaches into the other, as of a step time that alternates between levels.
    """
    up, down = [], []
    for times in series:
        least, low, high, most = np.quantile(times[first], _SHARES)
        later_least, later_low, later_high, later_most = np.quantile(times[second], _SHARES)
        up.append(float(later_low / high) if later_least > most else 0.0)
        down.append(float(low / later_high) if least > later_most else 0.0)
    return max(min(up), min(down))


def _change(times: Times, first: slice, second: slice) -> float:
    return float(np.median(times[second]) / np.median(times[first])) - 1


def _named(part: slice) -> str:
    return f"{part.start + 1} to {part.stop}"
