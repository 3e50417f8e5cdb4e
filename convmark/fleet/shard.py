"""One part of a plan, such as 3/8: the same split wherever it is asked for, balanced by time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convmark.core.case import Case
from convmark.core.errors import OptionError

__all__ = ["MOST_SHARDS", "Shard", "read_shard", "split"]

MOST_SHARDS = 10_000

_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The `number`th, from 1, of `count` parts."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MOST_SHARDS:
            raise OptionError(
                f"--shard: must be K/N with K from 1 to N and N at most {MOST_SHARDS:,}, "
                f"got '{self}'"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def read_shard(text: str) -> Shard:
    """Return the shard that a text such as `3/8` names.

    Raises:
        OptionError: the text names none.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"--shard: must be K/N such as 3/8, got {text!r}")
    return Shard(number=int(match.group(1)), count=int(match.group(2)))


def split(
    cases: Sequence[Case], seconds: Callable[[Case], float], count: int
) -> list[tuple[Case, ...]]:
    """Return the cases of each of `count` shards; the last ones are empty where cases are few.

    All processes of a case stay together, so that its spread is of one machine. A shard takes at
    most 4/3 - 1/(3 count) times as long as the longest of the best split.

    Args:
        seconds: how long a case is expected to take.

    Source:
        Graham (1969), "Bounds on multiprocessing timing anomalies": the longest first, each to the
        shard that has least.
    """
    place = {case: number for number, case in enumerate(cases)}
    taken: list[list[Case]] = [[] for _ in range(count)]
    load = [0.0] * count
    for case in sorted(cases, key=lambda case: (-seconds(case), case.name)):
        least = min(range(count), key=lambda number: (load[number], number))
        taken[least].append(case)
        load[least] += seconds(case)
    return [tuple(sorted(its_own, key=lambda case: place[case])) for its_own in taken]
