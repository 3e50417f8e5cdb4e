"""Statistics of the rule: shrunk variances, the sign test, and the spending of the error rate.

A run's error rate is spent over its cases and over the looks at each. A case is looked at after
every session, but may be convicted at few of them. Each look spends a part of the case's rate, and
the parts sum to it whatever is decided in between.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import variance

import numpy as np
import numpy.typing as npt

from convmark.core.errors import MeasurementError
from convmark.core.statistics import TRIM, t_quantile

Array = npt.NDArray[np.float64]

_LEAST_SPREAD = 0.003
"""A session is not believed to scatter less: the means of duets on identical code lie up to
0.4 % from 0."""
MOST_FREEDOM = 20.0
"""The cases never weigh more than this many degrees of freedom: they differ in noise, and with few
sessions each that can hardly be seen."""
_ENOUGH_CASES = 4
"""From here on the cases tell their common noise."""
_WINSORISED = 0.1
"""Share of the log variances that is clipped at each end, so that one odd case does not make all
others look unknown."""
_EXACT_UP_TO = 100
"""Sessions from which the normal approximation of the signed-rank test does."""
RUN_ERROR_RATE = 0.01
"""Chance that a run of identical code has a `regressed` case, over all cases and looks; and as
much for `improved`."""
CASE_ERROR_RATE = 0.001
"""The most of it that one case has, where the run has fewer than ten."""
FEWEST_BEYOND_MODES = 5
"""Sessions from which a change beyond all modes convicts."""
_EARLY_SHARE = 0.2
"""Share of a case's rate for such changes; each look at the signs then spends half of the rest."""
_LOOK_GROWTH = 4 / 3
"""Each look at the signs has so many times the sessions of the one before."""
_MOST_SESSIONS = 2000


# -- how sessions of one case scatter: its variance, shrunk towards that of all cases --------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of a case's noise before its own sessions."""

    variance: float
    """Of a session's log ratio, dimensionless; above 0."""
    freedom: float
    """Degrees of freedom that the belief is worth."""


ASSUMED = Prior(variance=0.02**2, freedom=4.0)
"""Where fewer than four cases tell their noise. Sessions of half a second to two seconds scatter
by 0.4 to 2.3 % on a quiet machine with two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One case's sessions: their 20 % trimmed mean and what a session scatters by."""

    estimate: float
    variance: float
    """Of a session, by the case alone: the squared standard error of the estimate times `count`."""
    freedom: int
    count: int

    def shrunk(self, prior: Prior) -> tuple[float, float]:
        """Return the variance of a session and its degrees of freedom.

        Never below the case's own: a noisy case in a quiet suite is judged by its own noise.

        Source:
            Smyth (2004), moderated t; the maximum is ours.
        """
        freedom = prior.freedom + self.freedom
        both = (prior.freedom * prior.variance + self.freedom * self.variance) / freedom
        return max(both, self.variance, _LEAST_SPREAD**2), freedom

    def bound(self, prior: Prior, rate: float) -> float:
        """Return how far beyond the estimate a change is ruled out, one-sided at the rate."""
        variance, freedom = self.shrunk(prior)
        return t_quantile(1 - rate, freedom) * math.sqrt(variance / self.count)


def summary(sessions: Sequence[float]) -> Summary:
    """Return the summary of a case's sessions, at least two log ratios.

    Below five sessions nothing is trimmed.

    Raises:
        MeasurementError: fewer than two sessions, or one that is not finite.

    Source:
        Yuen (1974) for the error of a trimmed mean and its degrees of freedom.
    """
    count = len(sessions)
    if count < 2 or not all(map(math.isfinite, sessions)):
        raise MeasurementError(
            f"a case's noise needs at least two finite sessions, got {list(sessions)}"
        )
    ordered = np.sort(np.asarray(sessions, np.float64))
    cut = int(TRIM * count)
    kept = count - 2 * cut
    winsorised = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    squares = float(((winsorised - winsorised.mean()) ** 2).sum())
    return Summary(
        estimate=float(ordered[cut : count - cut].mean()),
        variance=squares / (kept * (kept - 1)) * count,
        freedom=kept - 1,
        count=count,
    )


def pooled_prior(cases: Sequence[Summary]) -> Prior:
    """Return what the cases together say of the noise of each.

    `ASSUMED` below four cases. The log variances are winsorised; the degrees of freedom are at
    most 20.

    Source:
        Smyth (2004), section 6.2: moments of the log variances. Phipson et al. (2016) for
        winsorising them.
    """
    if len(cases) < _ENOUGH_CASES:
        return ASSUMED
    from scipy.special import digamma, polygamma  # type: ignore[import-untyped]

    halves = np.array([case.freedom / 2 for case in cases])
    variances = np.array([max(case.variance, _LEAST_SPREAD**2) for case in cases])
    mean, scatter = _winsorised(np.log(variances) - digamma(halves) + np.log(halves))
    excess = scatter - float(polygamma(1, halves).mean())
    half = MOST_FREEDOM / 2
    if excess > float(polygamma(1, half)):
        from scipy.optimize import brentq  # type: ignore[import-untyped]

        half = float(brentq(lambda at: float(polygamma(1, at)) - excess, 1e-8, half))
    centre = mean + float(digamma(half)) - math.log(half)
    return Prior(variance=max(math.exp(centre), _LEAST_SPREAD**2), freedom=2 * half)


def _winsorised(values: Array) -> tuple[float, float]:
    """Return mean and variance with the ends clipped; the variance is as large as that of all.

    Source:
        the variance of a winsorised normal, by which it is divided.
    """
    from scipy.special import ndtri

    ordered = np.sort(values)
    cut = int(_WINSORISED * len(values))
    clipped = np.clip(values, ordered[cut], ordered[len(values) - cut - 1])
    share = cut / len(values)
    left = 1.0
    if cut:
        at = -float(ndtri(share))
        density = math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
        left = 1 - 2 * share - 2 * at * density + 2 * at**2 * share
    return float(clipped.mean()), float(clipped.var(ddof=1)) / left


def pooled_variance(groups: Iterable[Collection[float]]) -> tuple[float, int]:
    """Return the variance within groups of values, in the square of their unit, and its freedom.

    Both are 0 where no group has two values.
    """
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum((len(group) - 1) * variance(group) for group in several)
    return (squares / freedom if freedom else 0.0), freedom


# -- the signed-rank test: how often chance alone makes so many sessions point one way -------------


def chance_of_slower(log_ratios: Sequence[float] | Array) -> float:
    """Return the chance that sessions of identical code are as surely above 0 as these.

    The order in which the two codes are built is drawn for each session, so on identical code
    each log ratio has either sign with equal chance, whatever its size: modes, outliers, drift
    and load change the sizes alone. Of n sessions that are all above 0 it is 2^-n. A zero counts
    as below, and of equal sizes the one below counts as the larger.

    Source:
        Wilcoxon (1945), one-sided, exact up to 100 sessions.
    """
    count, against = len(log_ratios), ranks_below(log_ratios)
    if count <= _EXACT_UP_TO:
        return float(_chances(count)[against])
    mean = count * (count + 1) / 4
    spread = math.sqrt(mean * (2 * count + 1) / 6)
    return math.erfc((mean - against - 0.5) / spread / math.sqrt(2)) / 2


def ranks_below(log_ratios: Sequence[float] | Array) -> int:
    """Return the sum of the ranks, by size, of the sessions that are not above 0."""
    values = np.asarray(log_ratios, np.float64)
    below = values <= 0
    order = np.lexsort((below, np.abs(values)))
    return int((np.flatnonzero(below[order]) + 1).sum())


@lru_cache(maxsize=1024)
def least_shift(count: int, rate: float) -> float:
    """Return how far above 0, in their standard deviations, normal sessions lie that just convict.

    The sum of the ranks of those below 0 is then, on average, the largest of which chance alone
    makes no more than the rate.
    """
    if count <= _EXACT_UP_TO:
        against = int(np.searchsorted(_chances(count), rate, side="right")) - 0.5
    else:
        mean = count * (count + 1) / 4
        against = mean - t_quantile(1 - rate, math.inf) * math.sqrt(mean * (2 * count + 1) / 6)
    return shift_of(count, against)


@lru_cache(maxsize=4096)
def shift_of(count: int, against: float) -> float:
    """Return how far above 0, in their standard deviations, normal sessions lie that have ranks so.

    Args:
        against: the sum, on average, of the ranks of those below 0.
    """
    from scipy.special import ndtr

    low, high = 0.0, 10.0
    while high - low > 1e-3:
        shift = (low + high) / 2
        pairs = count * (count - 1) / 2 * ndtr(-math.sqrt(2) * shift)
        low, high = (shift, high) if pairs + count * ndtr(-shift) > against else (low, shift)
    return high


@lru_cache(maxsize=128)
def _chances(count: int) -> Array:
    """Return the chance that the ranks of the negative ones sum to at most 0, 1, 2, ..."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return np.minimum(np.cumsum(chances), 1.0)


# -- how the error rate is spent -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a case may be convicted by at some number of sessions."""

    sessions: int
    """The sessions whose signs are looked at; 0 while they are too few to rule out chance."""
    rate: float
    """What this look spends."""


def case_error_rate(cases: int) -> float:
    """Return each case's share of `RUN_ERROR_RATE` (Bonferroni), at most `CASE_ERROR_RATE`.

    Raises:
        MeasurementError: no case.
    """
    if cases < 1:
        raise MeasurementError(f"a run's error rate is shared by at least one case, got {cases}")
    return min(CASE_ERROR_RATE, RUN_ERROR_RATE / cases)


@lru_cache(maxsize=64)
def sign_looks(case_rate: float) -> tuple[Look, ...]:
    """Return the looks at the signs: the first where all sessions on one side are rare enough."""
    rate = case_rate * (1 - _EARLY_SHARE) / 2
    sessions = math.ceil(-math.log2(rate))
    looks = []
    while sessions <= _MOST_SESSIONS:
        looks.append(Look(sessions=sessions, rate=rate))
        sessions, rate = math.ceil(sessions * _LOOK_GROWTH), rate / 2
    return tuple(looks)


@lru_cache(maxsize=4096)
def look_at(sessions: int, case_rate: float) -> Look:
    """Return the last look at the signs up to so many sessions, or the early one before it."""
    looks = sign_looks(case_rate)
    passed = [look for look in looks if look.sessions <= sessions]
    if passed:
        return passed[-1]
    early = looks[0].sessions - FEWEST_BEYOND_MODES
    return Look(sessions=0, rate=case_rate * _EARLY_SHARE / early)
