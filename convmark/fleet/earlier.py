"""What an interrupted run on a fleet has left: the runs that one plan has had so far.

Where every node has the plan to measure, a node goes on with its own run, and one that stood in for
a lost node is no plan's. Where one of each kind has it, the plan's runs belong together: the first
has the plan's hash in its column `plan`, and each run of another node that took cases over has the
hash and the name of that first run, `4f1c09ab77e2 of xeon-2/0007`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from convmark.fleet.files import Key
from convmark.results.record import Record
from convmark.results.store import Store, read_head, read_run
from convmark.session.facts import Facts

__all__ = ["Found", "Marks", "gpus_measured", "newest_first", "newest_of_host", "newest_of_kind"]

Found = tuple[Path, str | None]
"""A run, and its mark."""


class Marks:
    """What the rows of each run of a fleet have in their column `plan`."""

    def __init__(self, *, every: bool) -> None:
        """Begin.

        Args:
            every: whether every node has the plan to measure, or one of each kind.
        """
        self._every = every
        self._marks: dict[Key, str | None] = {}
        self._first: dict[str, Path] = {}

    def goes_on(self, key: Key, mark: str | None) -> None:
        """Take note of a run that goes on, and keeps its mark."""
        self._marks[key] = mark

    def belongs(self, target: str, first: Path) -> None:
        """Take note of the first run of a node's plan."""
        self._first.setdefault(target, first)

    def of(self, key: Key, plan: str | None) -> str | None:
        """Return the mark of a run that has rows of a node's plan.

        Args:
            plan: the plan's hash.
        """
        if key not in self._marks:
            self._marks[key] = self._fresh(key, plan)
        return self._marks[key]

    def _fresh(self, key: Key, plan: str | None) -> str | None:
        target, node = key
        if self._every:
            return plan if target == node else None
        first = self._first.get(target)
        return plan if first is None or plan is None else _of(plan, first)


def newest_of_host(store: Store, facts: Facts, *, besides: Collection[Path]) -> list[Found]:
    """Return the newest run of a plan that a host has measured; an empty list for none.

    Args:
        facts: the host's, with the plan.
        besides: runs that are not meant.
    """
    for path, head in newest_first(store, [facts.machine.name]):
        if path not in besides and (head.plan, head.node) == (facts.plan, facts.node):
            return [(path, head.plan)]
    return []


def newest_of_kind(store: Store, machines: Collection[str], plan: str | None) -> list[Found]:
    """Return the runs that the newest measurement of the plan by one kind has, the first first."""
    others: dict[str | None, list[Found]] = {}
    for path, head in newest_first(store, machines):
        if head.plan is not None and head.plan == plan:
            return [(path, head.plan), *reversed(others.get(_of(head.plan, path), []))]
        others.setdefault(head.plan, []).append((path, head.plan))
    return []


def gpus_measured(store: Store, machine: str) -> set[str]:
    """Return the names of the GPUs in the machine's newest run; none where it has no run."""
    path = next((path for path, _ in newest_first(store, [machine])), None)
    return {row.gpu for row in read_run(path) if row.gpu} if path else set()


def newest_first(store: Store, machines: Collection[str]) -> Iterator[tuple[Path, Record]]:
    """Yield each run of the machines that has rows, and its first one."""
    names = list(dict.fromkeys(machines))
    if len(names) == 1:  # read as far as the caller asks
        yield from _heads(store.runs(names[0]))
        return
    found = [one for name in names for one in _heads(store.runs(name))]
    found.sort(key=lambda one: (one[1].started, str(one[0])), reverse=True)
    yield from found


def _heads(paths: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    for path in reversed(paths):
        head = read_head(path)
        if head is not None:
            yield path, head


def _of(plan: str, first: Path) -> str:
    return f"{plan} of {first.parent.name}/{first.stem}"
