"""What share of the CPUs' time other programs took, and whether two such shares are alike."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from convmark.record import Record

__all__ = ["load_of", "loads_alike"]

_ALIKE = 0.1
"""Loads are alike where they differ by no more than this share of the CPUs' time.

From a quiet machine to one with three rivals per CPU, which take three quarters of its time, the
ratio of case to reference of identical code moved by up to 21 %.
"""


def load_of(rows: Sequence[Record]) -> float | None:
    """Return the mean share of the CPUs' time that others took; None unless every row tells."""
    loads = [row.other_cpu_share for row in rows if row.other_cpu_share is not None]
    return fmean(loads) if len(loads) == len(rows) > 0 else None


def loads_alike(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Return whether the loads of two groups differ too little to matter; unknown ones never do."""
    loads = load_of(one), load_of(other)
    return None not in loads and abs(loads[0] - loads[1]) <= _ALIKE  # type: ignore[operator]
