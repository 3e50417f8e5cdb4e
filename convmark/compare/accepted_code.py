"""Whether a case has changed more than the commit whose trailer accepts its change.

That commit's code is run beside today's, as an anchor's is. What a trailer lets pass is then the
change up to that commit, measured on this machine in these seconds, whatever earlier runs say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from convmark.compare.judgement import (
    INTERRUPTED,
    LARGER,
    METRICS,
    NOT_BY_TIME,
    NOT_ENDED,
    NOT_LIVE,
    PRECISION,
    SAME_CODE,
    SAME_COMMIT,
    SAME_GRAPH,
    SIZES,
    SOME_STEPS,
    UNLIMITED,
    Judgement,
    LiveComparison,
    joined,
)
from convmark.core.git import SHOWN
from convmark.core.text import counted

HELD_TO_CODE = ("step_time", SIZES, PRECISION)
"""The metrics that a comparison of codes tells of."""
AGAIN = "run the command again"
_OPEN = "whether it is more than what is "
_MORE = "which is more than what is "
_FOLLOWING = tuple(one.name for one in METRICS if one.rule == "paired" and not one.convicts)

Beyond = tuple[bool | None, str]
"""Whether a case has changed more, None where that is open, and what says so; empty for nothing."""


def not_ended(accepted: Mapping[str, tuple[str, str]]) -> dict[str, LiveComparison]:
    """Return by case that no comparison with the commit that accepts it has ended."""
    return {
        name: LiveComparison(decision=None, anchor=label or commit[:SHOWN], reason=INTERRUPTED)
        for name, (commit, label) in accepted.items()
    }


def held_to(
    found: LiveComparison | None, one: Judgement, now: Mapping[str, Judgement], reason: str
) -> Judgement | None:
    """Return what becomes of a failing judgement; None where the comparison does not tell.

    Args:
        found: of the accepting commit's code with today's; None without one.
        now: the judgements of the case by their metric.
        reason: by which commit it is accepted.
    """
    if f"{_MORE}{reason}" in one.note:  # as the run's own session has found
        return one
    more, told = _beyond(found, one.metric, now, reason) if found is not None else (None, "")
    if not told:
        return None
    if more:
        note = f"{told}, {_MORE}{reason}: this is another change"
        return replace(one, note=joined(one.note, note))
    if more is None:
        note = joined(one.note, f"{_OPEN}{reason} is not decided: {told}")
        return replace(one, verdict="inconclusive", fails=False, note=note)
    return replace(one, fails=False, note=joined(one.note, f"{reason}, {told}"), accepted=reason)


def slower_since(found: LiveComparison, one: Judgement, reason: str) -> Judgement:
    """Return a judgement that fails nothing; one without a verdict fails where the code is slower.

    Of a step time that is not known against the baseline, as where the precision has changed, the
    accepted code is all that tells.
    """
    decision = found.decision
    is_unknown = one.metric == "step_time" and one.verdict == "inconclusive" and not one.fails
    if not is_unknown or decision is None or decision.plain_verdict != "regressed":
        return one
    told = f"{decision.text} against {found.anchor}, {_MORE}{reason}: this is another change"
    return replace(one, verdict="regressed", fails=True, note=joined(one.note, told))


def _beyond(
    found: LiveComparison, metric: str, now: Mapping[str, Judgement], reason: str
) -> Beyond:
    against, decision = f"against {found.anchor}", found.decision
    if metric not in HELD_TO_CODE:
        return None, ""
    if found.reason in (SAME_CODE, SAME_COMMIT) and reason.endswith(f" {found.anchor}"):
        return False, "whose code this is"
    if found.reason in (SAME_CODE, SAME_COMMIT, SAME_GRAPH):
        return False, f"{found.reason} as {found.anchor}"
    if metric == SIZES:
        return _other_sizes(found, now)
    if metric == PRECISION:
        if found.precisions is not None:
            return True, f"{' -> '.join(found.precisions)} {against}"
        return (False, f"the same as {found.anchor}") if decision else (None, "")
    if decision is not None and decision.decided:
        return decision.plain_verdict == "regressed", f"{decision.text} {against}"
    if decision is None and not found.reason.startswith(NOT_ENDED):
        return None, ""  # its code cannot be run
    text = f"{decision.text} {against}" if decision else f"no two sessions {against}"
    return None, f"{text}, {_with_remedy(found.reason)}"


def _with_remedy(reason: str) -> str:
    """Return why a comparison has not ended, with what ends it."""
    why, *rest = reason.split("; ")
    if why.endswith(NOT_BY_TIME):
        why += ": close other programs and run it again"
    elif why == INTERRUPTED:
        why += f": run it again, or with {UNLIMITED}"
    return "; ".join([why.replace(LARGER, f"with {UNLIMITED}"), *rest])


def _other_sizes(found: LiveComparison, now: Mapping[str, Judgement]) -> Beyond:
    is_known = bool(found.sizes)
    for metric in METRICS:
        one, size = now.get(metric.name), found.sizes.get(metric.column)
        if metric.rule == "exact" and one and size is None:
            is_known = is_known and one.verdict != "changed"
        if metric.rule == "exact" and one and one.value is not None and size is not None:
            name = metric.name.replace("_", " ").replace("flops", "FLOPs")
            if size != one.value:
                return True, f"{name} {size:,} -> {one.value:,.0f} against {found.anchor}"
    return (False, f"the same as {found.anchor}") if is_known else (None, "")


def is_open(one: Judgement) -> bool:
    """Whether it is not decided that a case has changed more than what is accepted."""
    return one.verdict == "inconclusive" and _OPEN in one.note


def open_line(judgements: Iterable[Judgement]) -> str:
    """Say how many cases may have changed more than what is accepted; empty for none."""
    cases = {one.case: NOT_BY_TIME in one.note for one in judgements if is_open(one)}
    if not cases:
        return ""
    told = f"{counted(len(cases), 'case')} may have changed by more than was accepted"
    if all(cases.values()):
        return f"{told}, and {NOT_BY_TIME}: close other programs and run the command again"
    return f"{told}: run the command again, or with {UNLIMITED}"


def with_followers(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return judgements in which what follows an open step time is open as well."""
    cases = {one.case for one in judgements if is_open(one)}
    return [
        replace(one, verdict="inconclusive")
        if one.case in cases and one.metric in _FOLLOWING
        else one
        for one in judgements
    ]


def remedy(unclear: Sequence[Judgement]) -> str:
    """Return what decides step times that are inconclusive, as their notes have it."""
    if any(is_open(one) and NOT_BY_TIME not in one.note for one in unclear):
        return f"{AGAIN}, or with {UNLIMITED}"
    if any(one.metric != "step_time" for one in unclear) or all(
        SOME_STEPS in one.note for one in unclear
    ):
        return "the notes say why"
    if all(NOT_LIVE in one.note for one in unclear):
        return "none was compared live, and the notes say why"
    if all(NOT_BY_TIME in one.note for one in unclear):
        return f"close other programs and {AGAIN}: {NOT_BY_TIME}"
    return f"{AGAIN}, or with a larger --convmark-compare-budget"
