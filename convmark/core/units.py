"""Stored units scaled for reading: seconds to ms, bytes to MiB, counts to thousands."""

from __future__ import annotations

import math

from convmark.core.interval import Interval

__all__ = [
    "bytes_text",
    "change_text",
    "count_text",
    "duration_text",
    "interval_text",
    "rate_text",
    "seconds_text",
    "share_text",
]


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    for size, unit in steps:
        if abs(value) >= size * 0.9995:  # so that 999.96 us reads 1.00 ms, not 1000 us
            return f"{_digits(value / size)} {unit}"
    size, unit = steps[-1]
    return f"{_digits(value / size)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    size = abs(value)
    places = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    if 0 < size < 0.9995:  # so that 0.004 samples/s does not read 0.00
        places = 2 - math.floor(math.log10(size))
    return f"{value:.{places}f}"


def seconds_text(value_s: float | None) -> str:
    """Return seconds as s, ms or us."""
    if value_s is None:
        return ""
    return _scaled(value_s, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")))


def bytes_text(value_bytes: float | None) -> str:
    """Return bytes as GiB, MiB, KiB or B."""
    if value_bytes is None:
        return ""
    return _scaled(value_bytes, ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")))


def count_text(value: float | None) -> str:
    """Return a count as T, G, M, k or itself."""
    if value is None:
        return ""
    if abs(value) < 1000:
        return f"{value:g}"
    return _scaled(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")))


def rate_text(value_per_s: float | None) -> str:
    """Return samples/s to three digits or whole."""
    return "" if value_per_s is None else f"{_digits(value_per_s)}"


def share_text(share: float | None) -> str:
    """Return a share as per cent."""
    return "" if share is None else f"{100 * share:.1f} %"


def change_text(share: float | None) -> str:
    """Return a change, a share, with its sign."""
    return "" if share is None else f"{'+' if share >= 0 else '-'}{share_text(abs(share))}"


def interval_text(change: float, interval: Interval) -> str:
    """Return a change and its interval, shares, such as `+12.1 % [+9.8, +14.4]`."""
    return f"{100 * change:+.1f} % {interval.text}".rstrip()


def duration_text(value_s: float) -> str:
    """Return seconds as a person says them: 45 s, 3 min, 1 h 20 min."""
    whole = max(0, round(value_s))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
