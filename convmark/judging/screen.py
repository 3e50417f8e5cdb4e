"""The screen: a run's processes against accepted history. It picks what a live comparison judges.

History alone convicts nobody but where nothing can be run beside (`unconfirmed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convmark.errors import MeasurementError
from convmark.judging.confirm import (
    DETECTION,
    ERROR_RATE,
    UNCHANGED_WITHIN,
    Decision,
    Verdict,
    t_quantile,
)
from convmark.judging.processes import Run, load_of, loads_alike
from convmark.judging.spread import Spread, mean_of, stricter, variance_of_mean

__all__ = [
    "CONVICTED_BEYOND",
    "EXTRA_PROCESSES",
    "FLAGGED_BEYOND",
    "Screening",
    "screen",
    "unconfirmed",
]

FLAGGED_BEYOND = 1.5
"""Standard errors beyond which a case goes to the live comparison."""

CONVICTED_BEYOND = math.log(1.10)
"""History alone may convict beyond this change, and no nearer."""

EXTRA_PROCESSES = 2
"""Fresh processes that a flagged case gets before history alone may convict it."""

_CONFIDENCE = 0.975
"""Two-sided 95 %: what `unchanged` needs."""

_HISTORY_SHARE = 0.5
"""Share of the error rate that history alone may spend: its noise is known less well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """A case against its history: changes are ln(now / before), so above 0 is slower."""

    estimate: float
    error: float
    freedom: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    own_error: float | None
    """The error by the scatter of the case's own runs; None below two of them."""
    runs: int
    """Runs of the baseline."""
    loads_alike: bool
    smallest_visible: float
    """The change, as a log ratio, that would be flagged 97.5 times in 100."""

    @property
    def flagged(self) -> bool:
        """Whether a live comparison must speak."""
        return abs(self.estimate) > FLAGGED_BEYOND * self.error

    @property
    def unchanged(self) -> bool:
        """Whether history alone may say so."""
        sure = _rules_out_change(self.low, self.high)
        return sure and self.loads_alike and not self.flagged

    @property
    def verdict(self) -> Verdict | None:
        """None where flagged: the live comparison, or `unconfirmed`, gives it."""
        if self.flagged:
            return None
        return "unchanged" if self.unchanged else "inconclusive"


def screen(processes: Run, baseline: Sequence[Run], spread: Spread) -> Screening:
    """Judge a case's processes against its baseline.

    The variance of the difference adds sigma^2 (1 + 1/m) for the runs, tau^2 over each mean's
    number for their processes, and the processes' own errors. Where the case's own history is
    noisier than the pool, it counts: pooled alone, a quiet suite would convict its noisy case.

    Args:
        spread: of all cases of the suite, from `pooled_spread`.

    Raises:
        MeasurementError: no process, or no baseline run with one.

    Source:
        Satterthwaite (1946) for the degrees of freedom of a sum of variances.
    """
    if not processes or not baseline or not all(baseline):
        raise MeasurementError("a screen needs a process of this run and of each baseline run")
    spread = stricter(spread, processes, baseline)
    count = len(baseline)
    shares = 1 / len(processes) + sum(1 / len(run) for run in baseline) / count**2
    by_processes = spread.between_processes**2 * shares
    by_runs = spread.between_runs**2 * (1 + 1 / count)
    errors = variance_of_mean(processes, 0) + sum(
        variance_of_mean(run, 0) / count**2 for run in baseline
    )
    error = (by_processes + by_runs + errors) ** 0.5
    freedom = error**4 / (
        by_processes**2 / max(1, spread.process_freedom) + by_runs**2 / max(1, spread.run_freedom)
    )
    estimate = mean_of(processes) - sum(mean_of(run) for run in baseline) / count
    half = t_quantile(_CONFIDENCE, freedom) * error
    return Screening(
        estimate=estimate,
        error=error,
        freedom=freedom,
        low=estimate - half,
        high=estimate + half,
        own_error=_own_error(baseline),
        runs=count,
        loads_alike=all(loads_alike(load_of(run), load_of(processes)) for run in baseline),
        smallest_visible=(FLAGGED_BEYOND + t_quantile(DETECTION, freedom)) * error,
    )


def _own_error(baseline: Sequence[Run]) -> float | None:
    """Return the standard error of one more run's mean less the baseline's, by the case alone."""
    count = len(baseline)
    if count < 2:
        return None
    means = [mean_of(run) for run in baseline]
    centre = sum(means) / count
    variance = sum((mean - centre) ** 2 for mean in means) / (count - 1)
    return float((variance * (1 + 1 / count)) ** 0.5)


def unconfirmed(screening: Screening, error_rate: float = ERROR_RATE) -> Decision:
    """Judge by history alone, after `EXTRA_PROCESSES` more processes of a flagged case.

    A conviction needs loads alike, a change beyond `CONVICTED_BEYOND`, and an interval clear of 0
    twice: by the pooled spread, and by the scatter of the case's own runs, which assumes nothing
    of other cases; so one baseline run convicts nobody (smallest visible change infinite).
    Whatever this says is to be shown as unconfirmed.

    Args:
        error_rate: chance of calling identical code changed; split it over the flagged cases.

    Source:
        the t prediction interval for one more observation.
    """
    level = 1 - error_rate * _HISTORY_SHARE / 2
    half = t_quantile(level, screening.freedom) * screening.error
    least = math.inf
    if screening.own_error is not None:
        half = max(half, t_quantile(level, screening.runs - 1) * screening.own_error)
        least = max(half, CONVICTED_BEYOND)
    verdict: Verdict = "inconclusive"
    if screening.loads_alike and abs(screening.estimate) > least:
        verdict = "regressed" if screening.estimate > 0 else "improved"
    elif screening.loads_alike and _rules_out_change(screening.low, screening.high):
        verdict = "unchanged"
    reach = t_quantile(DETECTION, screening.freedom) * screening.error
    return Decision(
        verdict=verdict,
        estimate=screening.estimate,
        low=screening.estimate - half,
        high=screening.estimate + half,
        smallest_visible=least + reach,
    )


def _rules_out_change(low: float, high: float) -> bool:
    return low >= -UNCHANGED_WITHIN and high <= UNCHANGED_WITHIN
