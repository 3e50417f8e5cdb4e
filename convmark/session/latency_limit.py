"""The rate at a latency limit on the harness side: the tries of a process, and what they found.

    results/<machine>/0007.latency.csv     each rate that was tried, and how long its requests took

A try is on the disk when it ends. The row has the highest rate whose 99th percentile held the
limit, and the highest that is proved to hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.cells import column
from convmark.core.text import load_text, seconds_text
from convmark.results.record import BUSY_SHARE
from convmark.results.table_file import TableBeside
from convmark.session.facts import Facts, Job

CONFIDENCE = 0.99
RISK = 0.00125
"""Of one proof, of which eight are tried."""
MOST_LOAD = 0.95
"""Of the proof and of a try that holds: `convmark.worker.arrivals` has their rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One row of the tries' file."""

    run: str = column("name of the run")
    order: int = column("place in the run's plan, as in the run's file")
    case: str = column("name of the case")
    process: int = column("number of the case's process, from 1")
    number: int = column("of the try in its process, from 1", bounds="above 0")
    rate_per_s: float = column("requests that arrive per second", "1/s", bounds="above 0")
    requests: int = column(
        "that were answered; fewer than planned where too many were late", bounds="at least 0"
    )
    late: int = column("requests whose latency was beyond the limit", bounds="at least 0")
    seconds: float = column(
        "from the first request's schedule to the last answer", "s", bounds="at least 0"
    )
    p50_s: float = column(
        "latency, from when a request was due to its answer", "s", bounds="at least 0"
    )
    p99_s: float = column("the same", "s", bounds="at least 0")
    steps: int = column("that answered them", bounds="at least 0")
    load: float = column("rate / what full batches could answer", bounds="at least 0")
    holds: bool = column("whether at most 1 % were late and the load at most 0.95")
    proved: bool = column("whether so few late ones are improbable where 1 % or more are late")
    other_cpu_share: float | None = column(
        "share of the CPUs' time that others took", bounds="share"
    )


TABLE = TableBeside(".latency.csv", Tried)


def figures(best: Tried | None, proved: Tried | None) -> dict[str, Any]:
    """Return the columns of the highest rates that hold the limit; none where none does."""
    if best is None:
        return {}
    shown = proved or best
    return {
        "latency_limit_rate_per_s": best.rate_per_s,
        "latency_limit_proved_per_s": proved and proved.rate_per_s,
        "latency_limit_p50_s": shown.p50_s,
        "latency_limit_p99_s": shown.p99_s,
        "latency_limit_requests": shown.requests,
        "latency_limit_requests_per_step": shown.requests / shown.steps,
        "latency_limit_confidence": CONFIDENCE if proved else None,
    }


def deciding(tries: Sequence[Tried], best: Tried | None, proved: Tried | None) -> list[Tried]:
    """Return the tries that the figures rest on: from the proved rate to the lowest too high.

    All of them where no rate holds: other load in one of these makes the rates too low.
    """
    told = [one for one in tries if one.other_cpu_share is not None]
    if best is None:
        return told
    least = (proved or best).rate_per_s
    too_high = [one.rate_per_s for one in told if one.rate_per_s > best.rate_per_s]
    most = min(too_high, default=best.rate_per_s)
    return [one for one in told if least <= one.rate_per_s <= most]


class LatencyWatch:
    """Makes the tries of a process from its events, and keeps each as it comes."""

    def __init__(
        self, job: Job, facts: Facts, limit_s: float | None, run: Path | None = None
    ) -> None:
        """Watch.

        Args:
            limit_s: that was asked for.
            run: the file beside which each try is kept as it ends; None to keep none.
        """
        self._job, self._facts, self._limit_s, self._run = job, facts, limit_s, run
        self._begun = False
        self._found: Mapping[str, Any] | None = None
        self.tries: list[Tried] = []

    def see(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "phase" and event.get("phase") == "latency limit":
            self._begun = True
        elif event["event"] == "latency_limit":
            self._found = event
        elif event["event"] == "try":
            told = {name: value for name, value in event.items() if name != "event"}
            case = self._job.case.name
            self.tries.append(Tried(run=self._facts.run, order=self._job.order, case=case,
                                    process=self._job.process, **told))  # fmt: skip
            if self._run:
                TABLE.keep(self._run, self.tries[-1:])

    def columns(self, samples_per_step: int) -> dict[str, Any]:
        """Return the row's columns, none where no rate was searched."""
        if not self._begun:
            return {}
        found = self._found or {}
        best, proved = (self._tried(found.get(name)) for name in ("rate_per_s", "proved_per_s"))
        others = [one.other_cpu_share or 0.0 for one in deciding(self.tries, best, proved)]
        columns = {
            "latency_limit_s": self._limit_s,
            "latency_limit_note": self._note(best, proved),
            "latency_limit_search_s": found.get("seconds"),
            "latency_limit_other_cpu_share": max(others, default=None),
        }
        return {**columns, **figures(best, proved)}

    def _tried(self, rate_per_s: float | None) -> Tried | None:
        return next((one for one in reversed(self.tries) if one.rate_per_s == rate_per_s), None)

    def _note(self, best: Tried | None, proved: Tried | None) -> str | None:
        """Return what the figures lack, in one line."""
        if self._found is None:
            return f"not found: the search ended early; rates tried: {len(self.tries)}"
        step = f"a single step takes {seconds_text(self._found['step_time_s'])}"
        if best is None and self.tries:
            low = min(self.tries, key=lambda one: one.rate_per_s)
            busy = max((one.other_cpu_share or 0.0) for one in self.tries)
            if busy >= BUSY_SHARE:
                return (
                    f"not found: other programs took up to {load_text(busy)} of the CPUs' time; "
                    "close them and measure again"
                )
            return (
                f"not reachable: {step}, and at {low.rate_per_s:.3g} requests/s the 99th "
                f"percentile is {seconds_text(low.p99_s)}"
            )
        if best is None:
            return f"not reachable: {step}"
        return None if proved else "not proved: too few requests, or too many late ones"
