"""Arriving requests: the highest rate whose 99th percentile of latency holds a limit.

Requests of one sample arrive as a Poisson process. Whenever the device is free, a step of the
case's batch size answers those that wait, at most as many as a batch has samples; other places of
the batch stay unused. A request's latency is from when it was due, by a schedule that is made
before the try begins, to the end of its step: a process that falls behind cannot hide it.

A try at a rate is judged as the server scenario of MLPerf is. Few requests prove little, so a rate
counts as proved only where so few late ones would be improbable if 1 % or more were late.

Source:
    MLPerf Inference Rules, github.com/mlcommons/inference_policies, on early stopping, and Reddi et
    al. (2019), arXiv:1911.02549: how many requests a percentile needs for a confidence.
    Korn and Graubard (1998), Survey Methodology 24: late requests come in clusters, so both counts
    are divided by the design effect, here of 20 blocks of a try.
"""

from __future__ import annotations

import gc
import math
import random
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.worker import host, timing

ONE_IN = 100
"""Requests one may be late: the limit is of the 99th percentile."""
CONFIDENCE = 0.99
LEAST_REQUESTS, MOST_REQUESTS = 1000, 20_000
"""Of a try that may prove a rate, where steps and limits do not ask for more: between them as many
as arrive in `WANTED_S`."""
WANTED_S = 10.0
MOST_LOAD = 0.95
"""Requests / what full batches could answer: nearer to 1 a queue grows for longer than a try."""
MOST_STEPS_WAITED = 200
"""At that load no request waits for so many steps, of exponential lengths even: of a limit beyond
them no longer try would tell more."""
OVERRUN = 10
"""Times the late requests that are allowed: a try ends there, its rate is too high."""
BLOCKS = 20
PROOF_SHARES = (0.98, 0.95, 0.92, 0.88, 0.8, 0.7, 0.55, 0.4)
"""Of the found rate: tried downwards, with arrivals of their own, until one is proved."""
RISK = (1 - CONFIDENCE) / len(PROOF_SHARES)
"""Of one proof: several are tried, and none may pass by luck (Bonferroni)."""
FEW_BLOCKS = 1.33
"""(Student's t of 19 degrees / the normal deviate)**2 at that risk, by which Korn and Graubard
enlarge a design effect that is itself estimated."""
MOST_SEARCHED = 9
STEP_APART = 0.02
"""Of the rate: neighbours of the search, in the end."""
BUSY_SHARE = 0.05
"""Of the CPUs' time, taken by other programs."""
MOST_REPEATS = 3
SPIN_S = 0.0005
"""Before a request is due: sleep ends later than asked for, so the rest is waited awake."""

At = Callable[[float, float], "Try"]
"""Makes a try at a rate, with this share of the requests that may prove it."""


@dataclass(frozen=True)
class Try:
    """What became of so many requests at one rate."""

    rate_per_s: float
    requests: int
    """That were answered: fewer than planned where too many were late."""
    seconds: float
    late: list[int]
    """Those beyond the limit, in each of consecutive blocks."""
    p50_s: float
    p99_s: float
    steps: int
    load: float
    overrun: bool
    other_cpu_share: float | None = None

    @property
    def holds(self) -> bool:
        """Whether at most 1 % were late, and some of the device was left over."""
        few = sum(self.late) * ONE_IN <= self.requests
        return few and not self.overrun and self.load <= MOST_LOAD

    @property
    def proved(self) -> bool:
        """Whether so few late ones are improbable where 1 % or more are late."""
        effect = self.design_effect
        late, requests = math.ceil(sum(self.late) / effect), math.floor(self.requests / effect)
        return self.holds and chance_of_at_most(late, requests) < RISK

    @property
    def design_effect(self) -> float:
        """How many times as far as single late requests those of the blocks vary, at least 1."""
        late = sum(self.late)
        if not late:
            return 1.0
        mean = late / BLOCKS
        variance = math.fsum((one - mean) ** 2 for one in self.late) / (BLOCKS - 1)
        alone = mean * max(1 - late / self.requests, 1 / self.requests)
        return max(1.0, FEW_BLOCKS * variance / alone)


def chance_of_at_most(late: int, requests: int) -> float:
    """Return the probability of so few late ones among requests of which 1 % are late.

    The binomial distribution, as in early_stopping.cc of MLPerf's LoadGen with its tolerance of 0.
    """
    if late >= requests:
        return 1.0
    share, every = 1 / ONE_IN, math.lgamma(requests + 1)
    terms = (
        every - math.lgamma(count + 1) - math.lgamma(requests - count + 1)
        + count * math.log(share) + (requests - count) * math.log1p(-share)
        for count in range(late + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, terms)))


def wait_until(
    due_s: float,
    clock: timing.Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the clock has come to a time, and not before."""
    if (left_s := due_s - clock()) > SPIN_S:
        sleep(left_s - SPIN_S)
    while clock() < due_s:
        pass


def schedule(rate_per_s: float, requests: int, draw: random.Random) -> Sequence[float]:
    """Return when requests are due, s: of a Poisson process, given their number and the time."""
    due = array("d")
    now = 0.0
    for _ in range(requests):
        now += draw.expovariate(1.0)
        due.append(now)
    scale = requests / rate_per_s / now
    return array("d", (one * scale for one in due))


def serve(
    step: timing.Step,
    backend: Any,
    batch_size: int,
    limit_s: float,
    rate_per_s: float,
    due: Sequence[float],
    *,
    beat: Callable[[], None] = lambda: None,
    clock: timing.Clock = time.perf_counter,
    wait: Callable[[float], None] = wait_until,
    usage: Callable[[], host.Usage | None] = host.usage,
) -> Try:
    """Answer requests that are due at these times, s from now on, and tell how long each took."""
    planned, most_late = len(due), OVERRUN * len(due) / ONE_IN
    latencies, late = array("d"), [0] * BLOCKS
    served = steps = late_ones = 0
    busy_s = 0.0
    before, began = usage(), clock()
    while served < planned and late_ones <= most_late:
        if clock() < began + due[served]:
            wait(began + due[served])
        at = clock()
        most = min(planned, served + batch_size)
        end = max(served + 1, bisect_right(due, at - began, served, most))
        backend.synchronise(step())
        done = clock()
        busy_s += done - at
        steps += 1
        for place in range(served, end):
            latency = done - began - due[place]
            latencies.append(latency)
            if latency > limit_s:
                late[place * BLOCKS // planned] += 1
                late_ones += 1
        served = end
        beat()
    seconds = clock() - began
    ordered = sorted(latencies)
    return Try(
        rate_per_s=rate_per_s,
        requests=served,
        seconds=seconds,
        late=late,
        p50_s=ordered[served // 2],
        p99_s=ordered[served - served // ONE_IN - 1],
        steps=steps,
        load=rate_per_s * busy_s / steps / batch_size,
        overrun=served < planned,
        other_cpu_share=host.other_cpu_share(before, usage()),
    )


def requests_at(rate_per_s: float, batch_size: int, limit_s: float, step_s: float) -> int:
    """Return the requests of a try that may prove a rate.

    A queue that fits in the limit needs the square of its length until it has become steady; and
    one that grows by 1 % of the time has passed the limit after a hundred of them.
    """
    limit_s = min(limit_s, MOST_STEPS_WAITED * step_s)
    crowd = limit_s / step_s * batch_size
    wanted = max(60 * crowd**2, min(WANTED_S * rate_per_s, MOST_REQUESTS / 2), LEAST_REQUESTS)
    least = min(wanted, MOST_REQUESTS)
    return math.ceil(max(least, 500 * batch_size, 100 * limit_s * rate_per_s))


def find_rate(at: At, most_per_s: float) -> tuple[Try | None, Try | None]:
    """Return the highest rate that holds, found to 2 %, and the highest that is proved to hold.

    None where no rate holds, or none is proved.

    Args:
        most_per_s: what full batches could answer.
    """
    low, high = 0.0, 1.3 * most_per_s
    while high - low > 0.08 * high:
        if high < 0.04 * most_per_s:
            return None, None
        middle = (low + high) / 2
        holds = any(_fair(at, middle, 0.25).holds for _ in range(2))  # nor is a stall its fault
        low, high = (middle, high) if holds else (low, middle)
    tried = _searched(at, 0.95 * low, 1.03 * high)
    best = max((one for one in tried if one.holds), key=lambda one: one.rate_per_s, default=None)
    if best is None:
        return None, None
    proofs = (at(share * best.rate_per_s, 1.0) for share in PROOF_SHARES)
    return best, next((one for one in proofs if one.proved), None)


def _fair(at: At, rate_per_s: float, share: float) -> Try:
    """Return a try; one that failed beside other programs is repeated, for that shows nothing."""
    for _ in range(MOST_REPEATS):
        found = at(rate_per_s, share)
        if found.holds or (found.other_cpu_share or 0.0) < BUSY_SHARE:
            break
    return found


def _searched(at: At, low: float, high: float) -> list[Try]:
    """Return tries between two rates, or beyond where all end alike, until neighbours do not."""
    tried: list[Try] = []
    while len(tried) < MOST_SEARCHED:
        if high - low <= STEP_APART * high:
            held = {one.holds for one in tried}
            if held == {True, False}:
                break
            low, high = (high, 1.06 * high) if held == {True} else (0.85 * low, low)
        tried.append(_fair(at, (low + high) / 2, 1.0))
        middle = tried[-1].rate_per_s
        low, high = (middle, high) if tried[-1].holds else (low, middle)
    return tried


def at_limit(
    step: timing.Step,
    backend: Any,
    batch_size: int,
    step_time_s: float,
    limit_s: float,
    seed: int,
    emit: Callable[..., None],
    pulse: timing.Pulse,
    *,
    clock: timing.Clock = time.perf_counter,
    wait: Callable[[float], None] = wait_until,
    usage: Callable[[], host.Usage | None] = host.usage,
) -> None:
    """Search the rate, reporting an event for each try and one at the end.

    Args:
        batch_size: samples of a step, of all replicas.
        step_time_s: a step's seconds.
        seed: of the arrivals; each try has its own.
    """
    emit("phase", phase="latency limit")
    began, number = clock(), 0

    def at(rate_per_s: float, share: float) -> Try:
        nonlocal number
        number += 1
        planned = requests_at(rate_per_s, batch_size, limit_s, step_time_s)
        due = schedule(rate_per_s, math.ceil(share * planned), random.Random(f"{seed} {number}"))
        phase = f"latency limit, try {number} at {rate_per_s:,.0f} requests/s"
        gc.collect()  # what the schedule has left
        found = serve(
            *(step, backend, batch_size, limit_s, rate_per_s, due),
            beat=lambda: pulse.beat(phase),
            clock=clock,
            wait=wait,
            usage=usage,
        )
        told = {name: getattr(found, name) for name in _TOLD}
        emit("try", number=number, late=sum(found.late), **told)
        return found

    best, proved = None, None
    if step_time_s <= limit_s:
        best, proved = find_rate(at, batch_size / step_time_s)
    emit(
        "latency_limit",
        step_time_s=step_time_s,
        rate_per_s=best and best.rate_per_s,
        proved_per_s=proved and proved.rate_per_s,
        seconds=clock() - began,
    )


_TOLD = ("rate_per_s", "requests", "seconds", "p50_s", "p99_s", "steps", "load",
         "holds", "proved", "other_cpu_share")  # fmt: skip
