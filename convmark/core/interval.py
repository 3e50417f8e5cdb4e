"""An interval: the two ends between which a value lies; and the change that a log ratio is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_LARGEST_LOG_RATIO = 700.0
"""No float holds the ratio of a larger one."""


def share_of(log_ratio: float) -> float:
    """Return the change that a log ratio is, as a share: 0.0953 is 10 %."""
    return math.expm1(min(log_ratio, _LARGEST_LOG_RATIO))


_MOST_PRINTED = math.expm1(50)
"""A larger change is of a figure that tells nothing."""
_MANY_TIMES = 10
"""As large a change, a share, is told as a factor."""
_TIMES, _PER_CENT = " times", " %"
_NO_SIZE = "no size"


def signed_percent(share: float) -> str:
    """Return a change as per cent with its sign, a large one as a factor, such as `12.8 times`.

    One of dozens of digits has no size.
    """
    (text,), unit = in_one_unit([share])
    return text if text == _NO_SIZE else f"{text}{unit}"


def in_one_unit(shares: Sequence[float | None]) -> tuple[list[str], str]:
    """Return changes as figures of one unit, and that unit: per cent, or times if one is large.

    One that is not known is an empty text.
    """
    known = [one for one in shares if one is not None]
    is_large = any(_MANY_TIMES <= one < _MOST_PRINTED for one in known)
    figure = _factor if is_large else _per_cent
    texts = [
        "" if one is None else _NO_SIZE if one >= _MOST_PRINTED else figure(one) for one in shares
    ]
    return texts, _TIMES if is_large else _PER_CENT


def _per_cent(share: float) -> str:
    return f"{'+' if share >= 0 else '-'}{percent_digits(share)}"


def _factor(share: float) -> str:
    """Return by what something was multiplied; a factor below 10 has three digits."""
    factor = max(0.0, 1 + share)
    if factor >= _MANY_TIMES:
        return f"{factor:,.1f}"
    places = 2 - math.floor(math.log10(factor)) if 0 < factor < 1 else 2
    return f"{factor:.{min(places, _MOST_PLACES)}f}"


def by_change(share: float, interval: Interval | None = None) -> str:
    """Return by how much something changed, such as `by +12.1 %`, or `to 12.8 times`.

    Args:
        interval: of the change, which stands behind it in brackets.
    """
    words = interval_text(share, interval or NOT_KNOWN)
    return f"{'to' if _TIMES in words else 'by'} {words}"


def interval_text(change: float, interval: Interval) -> str:
    """Return a change and its interval, shares, such as `+12.1 % [+9.8, +14.4]`.

    The unit behind the change is that of the ends too.
    """
    (text, *ends), unit = in_one_unit([change, *interval.cells.values()])
    bracket = f" [{', '.join(ends)}]" if any(ends) else ""
    return f"{text}{unit * (text != _NO_SIZE)}{bracket}"


_MOST_PLACES = 5
"""Of what is near 0 or 100 %; what is nearer is the error of its arithmetic."""


def percent_digits(share: float) -> str:
    """Return per cent without the sign; nothing reads as 0 or 100 % that is more or less."""
    for places in range(1, _MOST_PLACES + 1):
        text = f"{100 * abs(share):.{places}f}"
        if float(text) != 0 and not (float(text) == 100 and abs(share) < 1):
            return text
    return f"{100 * abs(share):.1f}"


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends between which a value lies: log ratios, changes as shares, or of a metric's unit.

    An end that is not known is infinite; by default neither is known.
    """

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def around(cls, value: float, half_width: float) -> Interval:
        """Return the interval that reaches as far below a value as above it."""
        return cls(value - half_width, value + half_width)

    @classmethod
    def of_cells(cls, low: float | None, high: float | None) -> Interval:
        """Return the interval of two cells of a table; an empty one is an end that is not known."""
        return cls(-math.inf if low is None else low, math.inf if high is None else high)

    @property
    def cells(self) -> dict[str, Any]:
        """The ends as a table has them, in its columns `low` and `high`."""
        ends = {"low": self.low, "high": self.high}
        return {name: end if math.isfinite(end) else None for name, end in ends.items()}

    @property
    def known(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the distance of the ends; infinite where one is not known."""
        return (self.high - self.low) / 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def mapped(self, function: Callable[[float], float]) -> Interval:
        """Return the interval of an increasing function of the value."""
        low, high = (function(end) if math.isfinite(end) else end for end in (self.low, self.high))
        return Interval(low, high)

    def shares(self) -> Interval:
        """Return the interval of the change whose log ratio this is the interval of."""
        return self.mapped(share_of)

    @property
    def text(self) -> str:
        """The ends of a change, such as `[+9.8, +14.4]` per cent or `[0.347, 12.8] times`.

        An end that is not known is left open; the text is empty where neither is known.
        """
        ends, unit = in_one_unit(list(self.cells.values()))
        return f"[{', '.join(ends)}]{unit * (unit == _TIMES)}" if any(ends) else ""

    @property
    def words(self) -> str:
        """The known ends of a change, such as `+9.8 % to +14.4 %` or `0.347 to 12.8 times`."""
        ends, unit = in_one_unit(list(self.cells.values()))
        known = [one for one in ends if one]
        if unit == _TIMES:
            return f"{' to '.join(known)}{_TIMES}"
        return " to ".join(one + unit * (one != _NO_SIZE) for one in known)


NOT_KNOWN = Interval()
