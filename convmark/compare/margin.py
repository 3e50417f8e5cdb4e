"""What fails no more by a margin that was raised since the baseline, or is above the default."""

from __future__ import annotations

from collections.abc import Iterable

from convmark.compare.judgement import Judgement
from convmark.core.text import counted

_PASSED, _UNDECIDED = "passed by a margin of ", "undecided by a margin of "
_RULED_OUT = 5 / 3
"""What `unchanged` rules out, of the margin (`Limits.around`)."""


def passing_words(
    margin: float, before: float, where: str, one: Judgement, *, is_sharp: bool
) -> str:
    """Say that a case fails no more, which the margin before would not have let pass; else nothing.

    It passes, or is inconclusive though it is surely slower and by more than the margin before.

    Args:
        margin: of this run, a share.
        before: of the baseline, or the default.
        where: where that one stands, with a place for it.
        is_sharp: whether `unchanged` rules the margin itself out.
    """
    if one.change is None or margin <= before:
        return ""
    ruled_out = before if is_sharp else before * _RULED_OUT
    if one.verdict == "unchanged":
        told = _PASSED if one.change > before or (one.high or 0.0) > ruled_out else ""
    else:
        is_slower = before < one.change <= margin and (one.low or 0.0) > 0
        told = _UNDECIDED if is_slower and one.verdict == "inconclusive" else ""
    return told and f"{told}{_per_cent(margin)}, {where.format(_per_cent(before))}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g} %"


def margin_lines(judgements: Iterable[Judgement]) -> list[str]:
    """Return how many cases a raised margin keeps from failing, as their notes have it."""
    parts = [part for one in judgements for part in one.note.split("; ")]
    found = [part for part in parts if part.startswith((_PASSED, _UNDECIDED))]
    return [f"{counted(found.count(part), 'case')} {part}" for part in dict.fromkeys(found)]
