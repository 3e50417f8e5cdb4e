"""Blame: which layers took longer in the new code, and how much of the change each of them is.

Sessions of the layers (`worker.layers`) of both codes alternate in fresh processes, and the layers
are matched in the order of execution (`layer_match`). Each pair of sessions gives a ratio, for what
disturbs a session does so in proportion; a layer has moved where the interval of the mean log
ratio, at its share of the error rate, does not hold 0 and the difference is more than `LEAST` of
the step.
"""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convmark.compare.files import LayerChange
from convmark.compare.judgement import BUDGET_SPENT, INTERRUPTED
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.layer_match import matched
from convmark.compare.live.session import NEW, OLD, LiveSide
from convmark.core.errors import MeasurementError
from convmark.core.interval import by_change
from convmark.core.options import Options
from convmark.core.statistics import interval_around, median_of, t_quantile
from convmark.core.text import Say, counted, duration_text, load_text, plain_text
from convmark.results.record import large_load
from convmark.session.layers import (
    REST,
    SESSION_SECONDS,
    layer_name,
    layer_request,
    why_cut_apart,
    why_no_layers,
)

SESSIONS = 4
"""Of the layers of each side."""
FEWEST_SESSIONS = 2
"""Fewer have no spread."""

LEAST = 0.01
"""Of the old step: a smaller difference is not blamed."""
MOST_NAMED = 8
"""Layers of a case that have a line; the file has all."""
MOST_OF = 0.5
"""Of a change, which the layers that moved must amount to where they are its cause."""
FEW, WIDE = 3, 0.8
"""More layers than so many, with more than this share of the step, are no cause by themselves."""
REST_IS = "; the rest is what no layer takes: dispatch, in training loss and update"
_OF_PROCESS = ("precision", "threads", "model", "environ", "inherited")
"""Settings that may slow all that a process runs."""
ERROR_RATE = 0.05
"""Of naming any layer of a case that has not moved."""


def blame(
    old: LiveSide,
    new: LiveSide,
    options: Options,
    *,
    say: Say = lambda line: None,
    begins: Callable[[float], None] = lambda seconds: None,
    seconds_left: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> list[LayerChange]:
    """Measure the layers of both codes in turns; return what changed, the most moved first.

    Args:
        begins: is told about how long it takes, once it is known that they are measured.
        seconds_left: of a budget; it ends with fewer sessions where the next would not fit.

    Raises:
        MeasurementError: a side's layers cannot be measured; the message has the reason.
        ForeignCode: a side ran code that is not its own.
        WorkerError: no worker can be started at all.
    """
    for side, one in ((OLD, old), (NEW, new)):
        if why := why_no_layers(one.case):
            raise MeasurementError(f"{one.case.name}: no layers of the {side} code: {why}")
    name, took_s = new.case.name, 2 * SESSION_SECONDS * options.time_budget_s
    found: dict[str, list[Mapping[str, Any]]] = {OLD: [], NEW: []}
    for session in range(SESSIONS):
        fewest = max(1, FEWEST_SESSIONS - session)
        if seconds_left() < fewest * took_s:
            break
        if not session:
            begins(min(seconds_left(), SESSIONS * took_s))
        began = clock()
        for side in (OLD, NEW) if session % 2 == 0 else (NEW, OLD):
            say(f"{name}: layers of the {side} code, session {session + 1} of {SESSIONS}")
            one = {OLD: old, NEW: new}[side]
            request = {**layer_request(one.case, options, None, session), "checked": False}
            found[side].append(_measured(one, side, request))
        took_s = clock() - began
    if len(found[NEW]) < FEWEST_SESSIONS:
        raise MeasurementError(
            f"{name}: no layers: {BUDGET_SPENT}: {FEWEST_SESSIONS} sessions of each code "
            f"take about {duration_text(FEWEST_SESSIONS * took_s)}"
        )
    return blamed(name, found[OLD], found[NEW])


def then_layers(
    results: Sequence[CaseResult],
    layers: Iterable[Callable[[], None]],
    *,
    keep: Callable[[], None] = lambda: None,
) -> bool:
    """Measure layers once all verdicts are kept, which Ctrl-C leaves as they are.

    Args:
        results: of all cases; where the user has ended their comparison, no layers are measured.
        layers: what measures those of a case, and keeps them.
        keep: keeps the verdicts.

    Returns:
        whether Ctrl-C has ended it.
    """
    try:
        keep()
        if all(one.closed != INTERRUPTED for one in results):
            for measure in layers:
                measure()
    except KeyboardInterrupt:
        return True
    return False


def expected_s(options: Options) -> float:
    """Return the seconds that the sessions of both codes take where the budget has room for all."""
    return SESSIONS * 2 * SESSION_SECONDS * options.time_budget_s


def _measured(side: LiveSide, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the layers of one session of a side, which has run no code but its own."""
    answer = side.interpreter.answer(request)
    event = answer.event("layers")
    if answer.status != "ok" or event is None:
        why = answer.message or answer.status
        if side.code is not None:
            why = side.code.explained(why)
        raise MeasurementError(f"{side.case.name}: no layers of the {name} code: {why}")
    code = answer.event("code")
    if side.code is not None and code is not None:
        side.code.check(code)
    read = answer.event("read_back") or {}
    known = [answer.event("environment"), *(read.get(name) for name in _OF_PROCESS)]
    share = (answer.event("state") or {}).get("other_cpu_share")
    return {**event, "process": repr([side.case, known]), "other_cpu_share": share}


def blamed_lines(rows: Sequence[LayerChange]) -> list[str]:
    """Return what the layers of each case did: a line for each that moved, or why there is none."""
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        its_own = [row for row in rows if row.case == case]
        lines += [f"{case}: {words}" for words in _words(its_own)]
        if load := large_load([its_own[0].other_cpu_share]):
            lines.append(
                f"{case}: other programs took {load_text(load)} of the CPUs' time meanwhile"
            )
    return lines


def _words(rows: Sequence[LayerChange]) -> Iterator[str]:
    """Yield what the layers of one case did, the most moved first."""
    step_s = sum(row.old_s or 0.0 for row in rows)
    moved = [row for row in rows if row.moved]
    for row in moved[:MOST_NAMED]:
        yield row.words + REST_IS * (row.layer == REST)
    if left := moved[MOST_NAMED:]:
        yield f"{counted(len(left), 'layer')} more moved, each by less"
    if not moved:
        half_s = max((row.high_s - row.low_s) / 2 for row in rows)
        least = max(LEAST, half_s / step_s)
        yield (
            "no layer has certainly moved; of the noisiest layer a difference below "
            f"{100 * least:{'.0f' if least >= 0.1 else '.2g'}} % of the step would not be named"
        )
    change = sum(row.difference_s for row in rows) / step_s
    is_sure = any(row.part is not None for row in rows)
    is_wide = len(moved) > FEW and sum(row.old_s or 0.0 for row in moved) > WIDE * step_s
    if (
        is_sure
        and abs(change) > LEAST
        and (is_wide or sum(row.part or 0.0 for row in moved) < MOST_OF)
    ):
        yield (
            f"the step changed {by_change(change)}, which no few layers account for: a "
            "setting, the precision or a version may have changed, or each layer a little"
        )


@dataclass
class _Pair:
    name: str
    old_s: list[float] | None
    new_s: list[float] | None

    @property
    def differences_s(self) -> list[float]:
        old_s, new_s = self.old_s or [], self.new_s or []
        count = max(len(old_s), len(new_s))
        return [
            one - other
            for one, other in zip(new_s or [0.0] * count, old_s or [0.0] * count, strict=True)
        ]

    def weight_s(self, floor_s: float) -> float:
        """Return the seconds of the layer, and of a quick one the floor."""
        return max(floor_s, statistics.fmean([*(self.old_s or []), *(self.new_s or [])]))

    def log_ratios(self, floor_s: float) -> list[float]:
        """Return ln(new / old) of each pair of sessions, where less than a floor is the floor."""
        sides = self.old_s, self.new_s
        count = max(len(side or ()) for side in sides)
        old, new = ([max(one, floor_s) for one in side or [0.0] * count] for side in sides)
        return [math.log(one / other) for one, other in zip(new, old, strict=True)]


def blamed(
    case: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[LayerChange]:
    """Return the layers of both codes, the most moved first, by sessions that were taken in pairs.

    The variance of a layer's log ratio is shrunk halfway towards the mean over all layers, weighted
    by their times: two or three sessions tell little of one layer.

    Raises:
        MeasurementError: there are fewer than two sessions of each, or the sides were timed
            differently.
    """
    sessions = len(old)
    if sessions < 2 or len(new) != sessions:
        raise MeasurementError(f"blame needs two sessions of each code or more, got {sessions}")
    for side, events in ((OLD, old), (NEW, new)):
        if why := why_cut_apart(events):
            raise MeasurementError(f"{case}: no layers of the {side} code: {why}")
    if len({one.get("whole_groups") for one in (*old, *new)}) > 1:
        raise MeasurementError(
            f"{case}: no layers: only one side's compiler fuses layers into one row; "
            "compare sides with the same --jit and kind of framework"
        )
    if len({one.get("clocked") for one in (*old, *new)}) > 1:
        raise MeasurementError(
            f"{case}: no layers: one side's framework times them in its graph, the "
            "other's from Python, and these times cannot be compared"
        )
    share = median_of(one.get("other_cpu_share") for one in (*old, *new))
    old, new = _at_one_speed(old, new)
    floor_s = LEAST * statistics.fmean(one["step_s"] for one in old)
    pairs = list(_pairs(old, new))
    logs = [pair.log_ratios(floor_s) for pair in pairs]
    variances = list(map(statistics.variance, logs))
    # a quick layer varies more, and what no layer takes more than all of them
    weights_s = [pair.weight_s(floor_s) for pair in pairs[:-1]]
    common = sum(map(operator.mul, weights_s, variances)) / sum(weights_s)
    change_s = _sure_change_s(
        old, new, sum(statistics.variance(one.differences_s) for one in pairs)
    )
    rows = []
    for pair, ratios, variance in zip(pairs, logs, variances, strict=True):
        error = math.sqrt((variance + common) / 2 / sessions)
        row = _change(case, pair, ratios, error, floor_s, change_s, len(pairs))
        rows.append(replace(row, other_cpu_share=share))
    return sorted(rows, key=lambda row: (not row.moved, -abs(row.difference_s)))


def _at_one_speed(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return the sessions as on a machine that is equally fast in each, by the reference network.

    As they are where a side has other software or settings, which may slow the reference too.
    """
    both = [*old, *new]
    if len({one.get("process") for one in both}) > 1 or any(
        one.get("step_per_reference") is None for one in both
    ):
        return old, new
    mean_s = statistics.geometric_mean(one["step_s"] / one["step_per_reference"] for one in both)

    def at_mean(one: Mapping[str, Any]) -> Mapping[str, Any]:
        step_s = mean_s * one["step_per_reference"]
        scaled = {"step_s": step_s}
        for name in ("forward_s", "with_backward_s"):
            if name in one:
                scaled[name] = [seconds * step_s / one["step_s"] for seconds in one[name]]
        return {**one, **scaled}

    return [at_mean(one) for one in old], [at_mean(one) for one in new]


def _sure_change_s(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], of_layers: float
) -> float:
    """Return by how much the step became longer, 0 where that may be noise: it has no parts.

    Args:
        of_layers: the sum of the layers' variances; the step's is shrunk halfway towards it.
    """
    steps_s = [one["step_s"] - other["step_s"] for one, other in zip(new, old, strict=True)]
    error_s = math.sqrt((statistics.variance(steps_s) + of_layers) / 2 / len(steps_s))
    mean_s = statistics.fmean(steps_s)
    found = interval_around(mean_s, error_s, 2 * (len(steps_s) - 1))
    return 0.0 if found.low <= 0 <= found.high else mean_s


def _change(
    case: str,
    pair: _Pair,
    ratios: Sequence[float],
    error: float,
    floor_s: float,
    change_s: float,
    layers: int,
) -> LayerChange:
    """Return what became of one layer; its share of the error rate is that of all layers.

    Args:
        ratios: ln(new / old) of each pair of sessions.
        error: of their mean.
    """
    mean, degrees = statistics.fmean(ratios), 2 * (len(ratios) - 1)
    found = interval_around(mean, error, degrees)
    base_s = statistics.geometric_mean(max(one, floor_s) for one in pair.old_s or [floor_s])
    sure = t_quantile(1 - ERROR_RATE / 2 / layers, degrees) * error
    old_s, new_s = (
        None if side is None else _middle_s(side, floor_s) for side in (pair.old_s, pair.new_s)
    )
    difference_s = (new_s or 0.0) - (old_s or 0.0)
    low_s, high_s = (
        base_s * math.expm1(end - mean) * math.exp(mean) + difference_s
        for end in (found.low, found.high)
    )
    return LayerChange(
        case=case,
        layer=plain_text(pair.name),
        old_s=old_s,
        new_s=new_s,
        difference_s=difference_s,
        low_s=low_s,
        high_s=high_s,
        part=difference_s / change_s if change_s else None,
        moved=abs(mean) > sure and abs(difference_s) > floor_s,
    )


def _middle_s(side: Sequence[float], floor_s: float) -> float:
    """Return the mean that ratios are of; the plain one where a session has less than a floor."""
    return statistics.geometric_mean(side) if min(side) > floor_s else statistics.fmean(side)


def _pairs(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[_Pair]:
    """Yield the layers of both codes, those of one alone, and the rest."""
    ours, theirs = _times(old), _times(new)
    units = old[0]["units"], new[0]["units"]
    before, after = ([layer_name(unit["name"]) for unit in side] for side in units)
    for one, other in matched(*units):
        its_old = None if one is None else ours[one]
        if other is not None:
            kinds = [
                side[place]["kind"]
                for side, place in zip(units, (one, other), strict=True)
                if place is not None
            ]
            is_other = f" ({kinds[-1]}, was {kinds[0]})" * (len(set(kinds)) > 1)
            yield _Pair(after[other] + is_other, its_old, theirs[other])
        elif one is not None:
            yield _Pair(before[one], its_old, None)
    yield _Pair(REST, _rest(old, ours), _rest(new, theirs))


def _times(sessions: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return the seconds of each layer, session by session."""
    times = (one.get("with_backward_s", one["forward_s"]) for one in sessions)
    return [list(layer) for layer in zip(*times, strict=True)]


def _rest(sessions: Sequence[Mapping[str, Any]], times: Sequence[Sequence[float]]) -> list[float]:
    sums = map(sum, zip(*times, strict=True))
    return [one["step_s"] - total for one, total in zip(sessions, sums, strict=True)]
