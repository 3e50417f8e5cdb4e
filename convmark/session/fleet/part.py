"""Parts of a plan, such as 3/8: the split is balanced by time and the same on every machine.

results/<machine>/0007.plan.json beside 0007.csv says which part a run is. It names every case of
the whole plan, so that whoever joins the parts knows what is missing. Rows never depend on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.errors import CaseError, OptionError, StoreError
from convmark.core.files import as_store_error, read_regular, write_whole
from convmark.core.runtimes import as_hashed

LAYOUT = 1
"""Version of the file."""

MOST_BYTES = 64 * 2**20


MOST_SHARDS = 10_000

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


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
    match = _SHARD.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"--shard: must be K/N such as 3/8, got {text!r}")
    return Shard(number=int(match.group(1)), count=int(match.group(2)))


def split(
    cases: Sequence[Case], seconds: Callable[[Case], float], count: int
) -> list[tuple[Case, ...]]:
    """Return the cases of each of `count` shards; the last ones are empty where cases are few.

    All processes of a case stay together, so that its spread is of one machine. A shard takes at
    most 4/3 - 1/(3 count) times as long as the longest of the best split.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The shards that a run holds, and the plan that they are of."""

    plan: str
    """The same for all parts of one plan."""
    count: int
    """Shards of the plan."""
    numbers: tuple[int, ...]
    """Those that the run holds, from 1; more than one after parts were joined."""
    processes: int
    """Of each case."""
    shards: tuple[tuple[Case, ...], ...]
    """The cases of every shard of the plan."""

    def __post_init__(self) -> None:
        if len(self.shards) != self.count or self.count < 1:
            raise StoreError(f"plan {self.plan}: must have {self.count} shards of at least 1")
        if not self.numbers or not all(1 <= number <= self.count for number in self.numbers):
            raise StoreError(
                f"plan {self.plan}: shards must be from 1 to {self.count}, got {self.numbers}"
            )
        if self.processes < 1:
            raise StoreError(
                f"plan {self.plan}: processes must be at least 1, got {self.processes}"
            )

    def joined(self, others: Sequence[Part]) -> Part:
        """Return the part that this one and others of the same plan amount to."""
        numbers = {number for part in (self, *others) for number in part.numbers}
        return replace(self, numbers=tuple(sorted(numbers)))


def plan_name(
    shards: Sequence[Sequence[Case]], *, processes: int, seed: int, time_budget_s: float, where: str
) -> str:
    """Return what tells one plan from another: 12 hex digits.

    Args:
        where: the interpreter or environment that measures it, as it was asked for.
    """
    facts = [
        [[as_hashed(case.as_fields()) for case in shard] for shard in shards],
        [processes, seed, time_budget_s, where],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def part_path(run: Path) -> Path:
    """Return the file that says what a run is a part of."""
    return run.with_name(f"{run.stem}.plan.json")


def write_part(run: Path, part: Part) -> None:
    """Write it beside the run's file."""
    content = {
        "layout": LAYOUT,
        "plan": part.plan,
        "count": part.count,
        "numbers": part.numbers,
        "processes": part.processes,
        "shards": [[case.as_fields() for case in shard] for shard in part.shards],
    }
    path = part_path(run)
    with as_store_error(path, "written"):
        write_whole(path, f"{json.dumps(content, indent=1)}\n".encode())


def read_part(run: Path) -> Part | None:
    """Return what a run is a part of; None where no file says it."""
    path = part_path(run)
    try:
        data = read_regular(path, MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"is larger than {MOST_BYTES} bytes")
        return _part(json.loads(data))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, CaseError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise StoreError(f"{path}: must say which part of a plan the run is: {reason}") from None


def _part(found: Any) -> Part:
    if found["layout"] != LAYOUT:
        raise ValueError(f"layout must be {LAYOUT}, got {str(found['layout'])[:20]!r}")
    numbers = [found["count"], found["processes"], *found["numbers"]]
    if not all(type(number) is int for number in numbers):
        raise ValueError("count, processes and numbers must be whole numbers")
    return Part(
        plan=str(found["plan"])[:40],
        count=found["count"],
        numbers=tuple(found["numbers"]),
        processes=found["processes"],
        shards=tuple(tuple(_case(fields) for fields in shard) for shard in found["shards"]),
    )


_OPTIONAL = ("cluster", "recipe", "cpus")
"""Axes of a case that may be empty."""


def _case(fields: Any) -> Case:
    """Return the case, its fields held to their types: what is a text here becomes a key there."""
    for name, value in fields.items():
        wanted = int if name in ("batch_size", "replicas") else str
        if type(value) is not wanted and not (value is None and name in _OPTIONAL):
            raise ValueError(f"{str(name)[:40]} must be of type {wanted.__name__}")
    return Case(**fields)
