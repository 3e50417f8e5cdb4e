"""What helps a case as a whole: its step under other settings, in turns with its own.

A setting is one of the case, or a change of its model (`worker.variants`).

Each round has one fresh process of the case and one with each setting. A setting's change is the
mean of ln(its step time / the case's) over the rounds, with Student's interval. On a CPU each step
time is held to that of the reference network in the same process, which no setting changes: a
machine that is slower in one process than in the next is no change. The more settings are tried,
the likelier one of them is the fastest by chance: which are faster is decided for all at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import PRECISIONS, Case
from convmark.core.interval import NOT_KNOWN, Interval
from convmark.core.options import Options
from convmark.core.statistics import interval_of_mean, median_of, t_probability
from convmark.core.text import Say
from convmark.interpreter import Answer
from convmark.session.advice import FOLDS, MULTIPLE
from convmark.session.layers import LayerRow
from convmark.session.run import request_of

ERROR_RATE = 0.05
"""Of calling any setting faster that is not."""
FEWEST_ROUNDS = 3
"""For an interval: two tell a spread by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One setting that was tried."""

    option: str
    """As on the command line, or what is changed."""
    step_s: float
    """The step time of the case times the change."""
    change: float
    """Of the step time, as a log ratio."""
    interval: Interval
    """Of the change at 95 %; not known of fewer than `FEWEST_ROUNDS`."""
    chance: float
    """Of so low a mean where the setting changes nothing; 1 where no interval is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The settings that were tried of one case."""

    case: str
    step_s: float
    """Of the case's own settings: the mean over the processes of each one's median."""
    remedies: Sequence[Remedy]
    other_cpu_share: float | None = None
    """Of the CPUs' time that other programs took: the median over all processes."""


def faster(tried: Iterable[Tried]) -> list[Remedy]:
    """Return the settings that make the step faster, of those of all cases.

    At `ERROR_RATE` any of them does not.

    Source:
        Holm (1979), of one-sided tests.
    """
    ordered = sorted((one for case in tried for one in case.remedies), key=lambda one: one.chance)
    left = range(len(ordered), 0, -1)
    sure = itertools.takewhile(
        lambda pair: pair[0].chance <= ERROR_RATE / pair[1], zip(ordered, left, strict=True)
    )
    return [one for one, _ in sure if one.interval.high < 0]


CHANNELS, FOLDED = "channels", "folded"
VARIANTS: Mapping[str, str] = {
    CHANNELS: f"channels in multiples of {MULTIPLE}",
    FOLDED: "batch normalisation folded",
}
"""What is changed in a model, by the name of the worker's."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried: a case, and what is changed in its model."""

    case: Case
    variant: str | None = None

    def request(self, options: Options) -> dict[str, Any]:
        """Return what a worker is asked."""
        found = request_of(self.case, options, fed=False)
        return {**found, "variant": self.variant} if self.variant else found


def settings_to_try(case: Case, variants: Iterable[str] = ()) -> dict[str, Setting]:
    """Return what is known to help some models, by the option or by what is changed."""
    found = {}
    if case.jit == "off" and BACKENDS[case.backend].optional_compiler:
        found["--jit on"] = Setting(dataclasses.replace(case, jit="on"))
    if case.precision == PRECISIONS[0]:
        names = ("mixed_bfloat16",) if case.device == "cpu" else ("tf32", "mixed_float16")
        for name in names:
            found[f"--precisions {name}"] = Setting(dataclasses.replace(case, precision=name))
    return found | {VARIANTS[name]: Setting(case, name) for name in variants}


def variants_of(rows: Sequence[LayerRow], options: Options) -> list[str]:
    """Return which changes of a model are worth a try, by its layers.

    None where all cases share a process: a model that its module has made would stay changed.
    """
    if options.isolation == "none":
        return []
    multiply = [row for row in rows if re.search("Conv|Dense", row.kind or "")]
    last_axes = [(row.shape or "").rpartition("x")[2] for row in multiply[:-1]]
    odd = any(axis.isdecimal() and int(axis) % MULTIPLE for axis in last_axes)
    folds = any(FOLDS in (row.note or "") for row in rows)
    return [CHANNELS] * odd + [FOLDED] * folds


def remedies(
    case: Case,
    ask: Callable[[Mapping[str, Any]], Answer],
    options: Options,
    say: Say,
    variants: Iterable[str] = (),
) -> Tried | None:
    """Return what each setting does to the step time; one that cannot be measured is said.

    None where the case itself cannot be, or its files are edited meanwhile.

    Args:
        variants: changes of the model, which are tried too.
    """
    tried = {"": Setting(case), **settings_to_try(case, variants)}
    found: dict[str, list[_Steps]] = {name: [] for name in tried}
    ran: dict[str, str] = {}
    loads: list[float | None] = []
    for number in range(options.processes):
        say(f"{case.name}: settings, round {number + 1} of {options.processes}")
        names = [name for name in tried if name in found]
        for name in names if number % 2 == 0 else reversed(names):
            answer = ask(tried[name].request(options))
            if edited := _edited(ran, answer):
                say(f"{case.name}: no settings: {edited} was edited; measure again")
                return None
            loads.append((answer.event("state") or {}).get("other_cpu_share"))
            if not (why := _why_not(tried[name].case, answer)):
                found[name].append(_Steps.of(answer, case))
                continue
            say(f"{case.name}: {name or 'no setting'}: {why}")
            del found[name]
            if not name:
                return None
    own = found.pop("")
    step_s = statistics.fmean(one.step_s for one in own)
    kept = [_remedy(name, step_s, own, steps) for name, steps in found.items()]
    share = median_of(loads)
    return Tried(case=case.name, step_s=step_s, remedies=kept, other_cpu_share=share)


def _edited(ran: dict[str, str], answer: Answer) -> str:
    """Return a file that an earlier process has read with other contents; empty if none.

    Args:
        ran: the contents by path, to which those of this process are added.
    """
    files = (answer.event("code") or {}).get("files", ())
    pairs = [(str(one["path"]), str(one["sha256"])) for one in files]
    other = (path for path, sha256 in pairs if ran.setdefault(path, sha256) != sha256)
    return next(other, "")


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


def _remedy(option: str, own_s: float, own: list[_Steps], steps: list[_Steps]) -> Remedy:
    changes = [one.speed - other.speed for one, other in zip(steps, own, strict=True)]
    change = statistics.fmean(changes)
    return Remedy(
        option=option,
        step_s=own_s * math.exp(change),
        change=change,
        interval=interval_of_mean(changes) if len(changes) >= FEWEST_ROUNDS else NOT_KNOWN,
        chance=_chance(changes),
    )


def _chance(changes: Sequence[float]) -> float:
    """Return the chance of so low a mean of changes that are none; 1 where it is not known."""
    if len(changes) < FEWEST_ROUNDS:
        return 1.0
    mean, error = statistics.fmean(changes), statistics.stdev(changes) / math.sqrt(len(changes))
    return t_probability(mean / error, len(changes) - 1) if error else float(mean >= 0)
