"""How often the interval of a geometric mean over a machine's cases holds the true ratio.

Run it from the checkout: `python tests/benchmarks/machine_ratios.py [--draws N]`. Two machines with
the same cases are simulated. A machine's step times share what slows it for a whole run and for a
round of a run; the rest is of each process. Nominal is 95 %. The last column is what the interval
would hold if the cases were taken for independent. The last row is what no interval can tell: from
one run of each machine nothing is known of how its runs differ.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tabulate import tabulate

from convmark.report.ratios import Ratio, Units, geometric_mean, ratio

TRUTH = math.log(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """How two machines were measured, and what moves them; standard deviations of logarithms."""

    cases: int = 8
    runs: int = 1
    processes: int = 3
    of_run: float = 0.0
    of_round: float = 0.0
    of_process: float = 0.05
    noisier: float = 1.0
    """So many times the first machine's noise has the second."""
    partly: bool = False
    """Whether every second case was measured in the first three runs alone."""

    @property
    def name(self) -> str:
        """What is simulated, in words."""
        return (
            f"{self.cases} cases, {self.runs} x {self.processes} processes; runs "
            f"{self.of_run:.0%}, rounds {self.of_round:.0%}, processes {self.of_process:.0%}"
            f", second x{self.noisier:g}{', half the cases in 3 runs' * self.partly}"
        )


SIMULATED = (
    Machines(),
    Machines(of_round=0.05),
    Machines(of_round=0.05, noisier=3.0),
    Machines(of_round=0.05, processes=5),
    Machines(runs=3, of_run=0.05),
    Machines(runs=5, of_run=0.05, of_round=0.02),
    Machines(runs=10, of_run=0.05, noisier=3.0),
    Machines(cases=1, of_round=0.05),
    Machines(cases=40, of_run=0.05, runs=4),
    Machines(runs=6, of_run=0.05, partly=True),
)
UNKNOWN = Machines(of_run=0.05)
"""From which nothing can be known of what the interval would have to hold."""


def step_times(machine: Machines, noise: float, rng: np.random.Generator) -> list[Units]:
    """Return each case's step times by unit: by run where there are several, else by round."""
    shape = (machine.runs, machine.processes)
    run = machine.of_run * rng.standard_normal((machine.runs, 1))
    of_round = machine.of_round * rng.standard_normal(shape)
    found: list[Units] = []
    for case in range(machine.cases):
        own = machine.of_process * rng.standard_normal(shape)
        times = np.exp(noise * (run + of_round + own)).tolist()
        kept = times[:3] if machine.partly and case % 2 else times
        several = dict(enumerate(kept))
        found.append(several if machine.runs > 1 else {n: [t] for n, t in enumerate(times[0])})
    return found


def draws(machine: Machines, count: int, seed: int = 0) -> Iterator[list[Ratio]]:
    """Yield the ratios of the cases, whose true value is 2."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        slow, fast = (step_times(machine, noise, rng) for noise in (1.0, machine.noisier))
        slow = [{unit: [2 * t for t in times] for unit, times in case.items()} for case in slow]
        pairs = [ratio(over, under) for over, under in zip(slow, fast, strict=True)]
        yield [one for one in pairs if one is not None]


def holds(found: Ratio | None) -> bool:
    """Whether the interval holds the true ratio."""
    assert found is not None
    return math.exp(TRUTH) in found.interval


def taken_for_independent(ratios: Sequence[Ratio]) -> Ratio | None:
    """Return the geometric mean with the units of each case taken for its own."""
    return geometric_mean([_apart(one, place) for place, one in enumerate(ratios)])


def _apart(one: Ratio, place: int) -> Ratio:
    assert one.sides is not None
    own = [
        replace(side, errors={(place, unit): error for unit, error in side.errors.items()})
        for side in one.sides
    ]
    return replace(one, sides=(own[0], own[1]))


def coverage(machine: Machines, count: int) -> tuple[float, float]:
    """Return the shares of draws whose interval holds the truth: ours, and of independent cases."""
    found = [
        (holds(geometric_mean(ratios)), holds(taken_for_independent(ratios)))
        for ratios in draws(machine, count)
    ]
    ours, independent = np.mean(found, axis=0)
    return float(ours), float(independent)


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    count = parser.parse_args().draws
    rows = [(machine.name, *coverage(machine, count)) for machine in (*SIMULATED, UNKNOWN)]
    print(tabulate(rows, ["simulated", "holds 2", "independent"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
