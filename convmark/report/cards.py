"""The table of a run on GPUs: what the cards did meanwhile, and how near the cases came to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from tabulate import tabulate

from convmark.core.text import shown
from convmark.core.units import bytes_text, rate_text, share_text
from convmark.report.summary import by_case
from convmark.results.record import Record

__all__ = ["cards_table"]

Of = Callable[[str], float | None]
"""Returns the median over processes of a column's figures, None where no process has one."""


def cards_table(records: Sequence[Record]) -> str:
    """Return one line per case that was measured on a GPU; empty where none was.

    Figures are medians over processes. `fed` is the throughput of steps fed from host memory,
    `allocator` and `card` are the peaks of the memory in use as the framework's allocator and the
    driver see it; `clock lowered by` names every reason that any process has seen.
    """
    rows = [_row(name, group) for name, group in by_case(records).items() if _on_cards(group)]
    if not rows:
        return ""
    names = [name for name in rows[0] if name == "case" or any(row[name] for row in rows)]
    return tabulate(
        [[row[name] for name in names] for row in rows],
        headers=names,
        colalign=["left" if name in ("case", "clock lowered by") else "right" for name in names],
        disable_numparse=True,
    )


def _on_cards(records: Sequence[Record]) -> bool:
    return any(row.measured and row.gpu_samples for row in records)


def _row(name: str, records: Sequence[Record]) -> Mapping[str, str]:
    measured = [row for row in records if row.measured]

    def of(column: str) -> float | None:
        values = [value for row in measured if (value := getattr(row, column)) is not None]
        return float(median(values)) if values else None

    energy_j = of("joules_per_sample")
    return {
        "case": shown(name),
        "SM MHz": _of_most(of("sm_clock_mhz"), of("max_sm_clock_mhz")),
        "memory MHz": _of_most(of("memory_clock_mhz"), of("max_memory_clock_mhz")),
        "degrees C": _number(of("temperature_c")),
        "W": _of_most(of("power_w"), of("power_limit_w")),
        "busy": _whole_share(of("gpu_utilisation")),
        "of ceiling": share_text(of("efficiency")),
        "fed samples/s": rate_text(of("input_bound_throughput_samples_per_s")),
        "mJ/sample": "" if energy_j is None else f"{1000 * energy_j:.3g}",
        "allocator": bytes_text(of("peak_device_memory_bytes")),
        "card": bytes_text(of("card_peak_memory_bytes")),
        "clock lowered by": shown(_reasons(measured)),
    }


def _of_most(value: float | None, most: float | None) -> str:
    """Return what was reached, and beside it the most that the card can, where that is known."""
    return _number(value) + (f" of {most:.0f}" if value is not None and most is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _whole_share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _reasons(records: Sequence[Record]) -> str:
    """Return every reason that any process has seen, `none` where all have seen none."""
    told = [row.throttle_reasons for row in records if row.throttle_reasons]
    reasons = dict.fromkeys(reason for text in told for reason in text.split() if reason != "none")
    return " ".join(reasons) or ("none" if told else "")
