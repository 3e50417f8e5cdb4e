"""A process's place in a cluster: given by the harness, or by the worker that forked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """One process of the several that share a case."""

    addresses: tuple[str, ...]
    """HOST:PORT of all of them, in the same order everywhere."""
    index: int
    """Which of them this is."""
    one_machine: bool = False
    """Whether all are on this machine, forked by the first, and share its GPUs, one each."""
    companions: tuple[int, ...] = ()
    """Process ids of the others, where they are on this machine and this is the first."""

    @classmethod
    def told(cls, cluster: Mapping[str, Any] | None) -> Place | None:
        """Return the place that a request tells; None for a case of one process."""
        if not cluster:
            return None
        return cls(
            addresses=tuple(cluster["addresses"]),
            index=int(cluster["index"]),
            one_machine=bool(cluster.get("one_machine")),
            companions=tuple(cluster.get("companions", ())),
        )

    @property
    def others(self) -> list[str]:
        """The addresses but this one's."""
        return [name for number, name in enumerate(self.addresses) if number != self.index]
