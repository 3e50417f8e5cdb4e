"""What helps a case as a whole: its step under other settings, in turns with its own.

Each round has one fresh process of the case and one with each setting. A setting's change is the
mean of ln(its step time / the case's) over the rounds, with Student's interval. On a CPU each step
time is held to that of the reference network in the same process, which no setting changes: a
machine that is slower in one process than in the next is no change.
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
    found: dict[str, list[_Steps]] = {name: [] for name in tried}
    for number in range(options.processes):
        say(f"{case.name}: settings, round {number + 1} of {options.processes}")
        names = [name for name in tried if name in found]
        for name in names if number % 2 == 0 else reversed(names):
            answer = ask(request_of(tried[name], options, fed=False))
            if not (why := _why_not(tried[name], answer)):
                found[name].append(_Steps.of(answer, case))
                continue
            say(f"{case.name}: {name or 'no setting'}: {why}")
            del found[name]
            if not name:
                return []
    own = found.pop("")
    return [_remedy(name, own, steps) for name, steps in found.items()]


def _why_not(case: Case, answer: Answer) -> str:
    """Return why a process tells nothing of a setting; empty where it does."""
    if answer.status != "ok" or answer.event("steps") is None:
        return answer.message or answer.status
    ran = (answer.event("read_back") or {}).get("precision", case.precision)
    if ran != case.precision:
        return f"cannot be tried: the model's own code sets {ran}"
    return ""


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of one process."""

    step_s: float
    speed: float
    """Logarithm of the step time, on a CPU of its ratio to the reference network's."""

    @classmethod
    def of(cls, answer: Answer, case: Case) -> _Steps:
        step_s = statistics.median((answer.event("steps") or {})["times_s"])
        rounds = answer.event("rounds")
        if case.device != "cpu" or rounds is None:
            return cls(step_s, math.log(step_s))
        pairs = zip(rounds["case_wall_s"], rounds["reference_wall_s"], strict=True)
        return cls(step_s, statistics.median(math.log(one / other) for one, other in pairs))


def _remedy(option: str, own: list[_Steps], steps: list[_Steps]) -> Remedy:
    changes = [one.speed - other.speed for one, other in zip(steps, own, strict=True)]
    return Remedy(
        option=option,
        step_s=statistics.fmean(one.step_s for one in steps),
        change=statistics.fmean(changes),
        interval=interval_of_mean(changes),
    )
