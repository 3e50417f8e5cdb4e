"""Changes that may be meant: the sizes of a model, which are another model's where they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from convmark.judging.judgement import SIZES, Judgement

__all__ = ["changed_sizes"]


def changed_sizes(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Return the one judgement by which a case fails whose sizes have changed, listing them."""
    changed = [one for one in judgements if one.verdict == "changed"]
    if not changed:
        return []
    note = ", ".join(
        f"{one.metric.replace('_', ' ')} {one.baseline:,.0f} -> {one.value:,.0f}" for one in changed
    )
    return [
        replace(
            changed[0],
            metric=SIZES,
            unit="",
            baseline=None,
            value=None,
            change=None,
            note=note,
            fails=True,
        )
    ]
