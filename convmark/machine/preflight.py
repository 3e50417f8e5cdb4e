"""Checks of the machine before a run: background load, CPU clock, power."""

from __future__ import annotations

from dataclasses import replace

from convmark.machine.cautions import cautions
from convmark.machine.environment import Machine, read_cpu_ticks, read_state, stolen_fraction

__all__ = ["Preflight"]


class Preflight:
    """The machine's state, read before the run's own workers start and load it."""

    def __init__(self) -> None:
        self._state = read_state()
        self._ticks = read_cpu_ticks()

    def lines(self, machine: Machine) -> list[str]:
        """Return a line for each thing that will make figures unreliable, with what to do.

        CPU time is only stolen from who wants it: it is counted from the reading of the state on,
        while the workers started.
        """
        stolen = stolen_fraction(read_cpu_ticks(), self._ticks)
        state = self._state if stolen is None else replace(self._state, steal_fraction=stolen)
        found = cautions(machine, state, {})
        return [f"{one.subject}: {one.finding}; {one.remedy}" for one in found]
