"""What helps a case as a whole: its step under other settings, in turns with its own.

Each round has one fresh process of the case and one with each setting. A setting's change is the
mean of ln(its step time / the case's) over the rounds, with Student's interval.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import PRECISIONS, Case
from convmark.core.interval import Interval
from convmark.core.options import Options
from convmark.core.statistics import interval_of_mean
from convmark.core.text import Say
from convmark.interpreter import Answer
from convmark.session.run import request_of

__all__ = ["Remedy", "remedies", "settings_to_try"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One setting that was tried."""

    option: str
    """As on the command line."""
    step_s: float
    """Mean over the processes of each one's median."""
    change: float
    """Of the step time, as a log ratio."""
    interval: Interval
    """Of the change at 95 %."""

    @property
    def helps(self) -> bool:
        """Whether the step is faster for sure."""
        return self.interval.high < 0


def settings_to_try(case: Case) -> dict[str, Case]:
    """Return the case under each setting that is known to help some models, by the option."""
    found = {}
    if case.jit == "off" and BACKENDS[case.backend].optional_compiler:
        found["--jit on"] = dataclasses.replace(case, jit="on")
    if case.precision == PRECISIONS[0]:
        names = ("mixed_bfloat16",) if case.device == "cpu" else ("tf32", "mixed_float16")
        for name in names:
            found[f"--precisions {name}"] = dataclasses.replace(case, precision=name)
    return found


def remedies(
    case: Case,
    ask: Callable[[Mapping[str, Any]], Answer],
    options: Options,
    say: Say,
) -> list[Remedy]:
    """Return what each setting does to the step time; one that cannot be measured is said.

    Raises:
        WorkerError: no worker can be started at all.
    """
    tried = {"": case, **settings_to_try(case)}
    found: dict[str, list[float]] = {name: [] for name in tried}
    for number in range(options.processes):
        say(f"{case.name}: settings, round {number + 1} of {options.processes}")
        names = [name for name in tried if name in found]
        for name in names if number % 2 == 0 else reversed(names):
            answer = ask(request_of(tried[name], options, fed=False))
            steps = answer.event("steps")
            if answer.status == "ok" and steps is not None:
                found[name].append(statistics.median(steps["times_s"]))
                continue
            say(f"{case.name}: {name or 'no setting'}: {answer.message or answer.status}")
            del found[name]
            if not name:
                return []
    own_s = found.pop("")
    return [_remedy(name, own_s, steps_s) for name, steps_s in found.items()]


def _remedy(option: str, own_s: list[float], steps_s: list[float]) -> Remedy:
    changes = [math.log(one / own) for one, own in zip(steps_s, own_s, strict=True)]
    return Remedy(
        option=option,
        step_s=statistics.fmean(steps_s),
        change=statistics.fmean(changes),
        interval=interval_of_mean(changes),
    )
