"""Whether the phase `windows` reads slow or fast because of how it chooses its windows.

Run it from a checkout: `python tests/benchmarks/window_bias.py [--draws N]`. The steps are those of
a simulated machine whose speed changes at random moments; no real clock is read. Printed is the
mean throughput over that of as many steps as were aimed at, which chooses nothing, less 1, per
cent, with its standard error, and the seconds that the phase takes.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from typing import Any

from convmark.worker import timing

STEPS_S = (0.003, 0.017)
NOISES = (0.05, 0.1, 0.2, 0.3)
"""Standard deviation of the logarithm of the speed."""
LASTING_S = (0.02, 0.1, 0.5, 2.0)
"""How long a speed lasts in the mean."""
OF_A_STEP = 0.05
"""The same of each step by itself."""


class Machine:
    """Runs steps on a clock of its own; it is its own backend."""

    def __init__(self, step_s: float, noise: float, lasting_s: float, seed: int) -> None:
        self._draw = random.Random(seed)
        self._step_s, self._noise, self._lasting_s = step_s, noise, lasting_s
        self._level, self._until_s = 1.0, 0.0
        self.now_s = 0.0

    def step(self) -> None:
        if self.now_s >= self._until_s:
            self._level = math.exp(self._draw.gauss(0, self._noise))
            self._until_s = self.now_s + self._draw.expovariate(1 / self._lasting_s)
        self.now_s += self._step_s * self._level * math.exp(self._draw.gauss(0, OF_A_STEP))

    def clock(self) -> float:
        return self.now_s

    def synchronise(self, token: Any) -> None:
        """Nothing is left to wait for."""

    def agreed(self, seconds: float) -> float:
        return seconds


def phase(machine: Machine, *, fixed: bool) -> tuple[float, float]:
    """Return the throughput in steps/s, and the seconds that the phase took."""
    times_s = []
    for _ in range(timing.WANTED_STEPS):
        began_s = machine.now_s
        machine.step()
        times_s.append(machine.now_s - began_s)
    quick_s = sorted(times_s)[len(times_s) // 4]
    began_s = machine.now_s
    if fixed:
        count = math.ceil(timing.WINDOW_S / quick_s)
        for _ in range(count * timing.MIN_WINDOWS):
            machine.step()
        steps, seconds = count * timing.MIN_WINDOWS, machine.now_s - began_s
    else:
        pulse = timing.Pulse(lambda phase: None, machine.clock)
        found = timing.windows(machine.step, machine, quick_s, pulse, machine.clock)
        steps, seconds = found.steps * len(found.times_s), sum(found.times_s)
    return steps / seconds, machine.now_s - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000, help="phases of each kind")
    draws = parser.parse_args().draws
    print("step, noise that lasts     windows / fixed, less 1    the phase")
    for step_s in STEPS_S:
        for noise in NOISES:
            for lasting_s in LASTING_S:
                rates, took_s = {}, []
                for fixed in (False, True):
                    machines = [Machine(step_s, noise, lasting_s, seed) for seed in range(draws)]
                    found = [phase(machine, fixed=fixed) for machine in machines]
                    rates[fixed] = [rate for rate, _ in found]
                    took_s += [] if fixed else [seconds for _, seconds in found]
                logs = [math.log(one / other) for one, other in zip(*rates.values(), strict=True)]
                ratio = statistics.mean(rates[False]) / statistics.mean(rates[True])
                error = statistics.stdev(logs) / math.sqrt(draws)
                print(
                    f"{1e3 * step_s:2.0f} ms, {100 * noise:2.0f} % for {lasting_s:4} s       "
                    f"{100 * (ratio - 1):+6.2f} +- {100 * error:.2f} %        "
                    f"{statistics.mean(took_s):.2f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
