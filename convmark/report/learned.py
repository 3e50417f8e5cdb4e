"""What a run learned, and its waterfalls, as text: the tables under the summary of step times."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median, stdev
from typing import Any

from tabulate import tabulate

from convmark.core.units import seconds_text
from convmark.results.record import Record
from convmark.session.waterfall import WAYS

__all__ = ["learned_table", "mean_and_sd", "waterfall_table"]


def learned_table(groups: Sequence[Sequence[Record]]) -> str:
    """Return a line per case: figures are means over seeds, times medians.

    `sd` is the standard deviation over seeds; the time to the target is of the seeds that reached
    it, and `reached` says how many did.

    Args:
        groups: the rows of each case.
    """
    rows = [_learned(group) for group in groups]
    fractions = {group[0].fraction for group in groups}
    goals = {group[0].target_accuracy for group in groups}
    goal = f"to {goals.pop():g}" if len(goals) == 1 and None not in goals else "to the target"
    headers = ("case", "accuracy", "sd", "loss", "sd", "epoch", goal, "reached", "seeds", "note")
    note = "" if fractions == {1.0} else _parts(fractions)
    return _text(headers, rows) + (f"\n\n{note}" if note else "")


def _parts(fractions: set[float | None]) -> str:
    shares = ", ".join(f"{share:g}" for share in sorted(filter(None, fractions)))
    return f"trained on a part of the data alone (--fraction {shares}): no figures to be quoted"


def _learned(rows: Sequence[Record]) -> list[str]:
    measured = [row for row in rows if row.measured]
    accuracies = [row.accuracy for row in measured if row.accuracy is not None]
    losses = [row.loss for row in measured if row.loss is not None]
    epochs_s = [row.epoch_time_s for row in measured if row.epoch_time_s is not None]
    reached_s = [row.time_to_target_s for row in measured if row.time_to_target_s is not None]
    return [
        rows[0].case.name,
        *mean_and_sd(accuracies),
        *mean_and_sd(losses),
        seconds_text(median(epochs_s)) if epochs_s else "",
        seconds_text(median(reached_s)) if reached_s else "",
        f"{len(reached_s)} of {len(measured)}" if measured else "",
        str(len(measured)),
        _note(rows),
    ]


def mean_and_sd(values: Sequence[float]) -> tuple[str, str]:
    """Return mean and standard deviation as printed, empty where there are too few values."""
    if not values:
        return "", ""
    return f"{mean(values):.4f}", f"{stdev(values):.4f}" if len(values) > 1 else ""


def waterfall_table(groups: Sequence[Sequence[Record]]) -> str:
    """Return a line per case: the median over processes of the seconds per step of each way.

    Args:
        groups: the rows of each case.
    """
    ways = [way.replace("_", " ") for way in WAYS]
    headers = ("case", *ways, "fit call", "predict call", "n", "note")
    columns = (*WAYS.values(), "fit_call_s", "predict_call_s")
    rows = []
    for group in groups:
        measured = [row for row in group if row.measured]
        cells = [seconds_text(_middle(measured, column)) for column in columns]
        rows.append([group[0].case.name, *cells, str(len(measured)), _note(group)])
    return _text(headers, rows)


def _middle(rows: Sequence[Record], column: str) -> float | None:
    values = [value for row in rows if (value := getattr(row, column)) is not None]
    return median(values) if values else None


def _note(rows: Sequence[Record]) -> str:
    failed = next((row for row in rows if not row.measured), None)
    return f"{failed.status}: {(failed.error or '')[:120]}" if failed else ""


def _text(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    kept = [i for i in range(len(headers)) if i == 0 or any(row[i] for row in rows)]
    return tabulate(
        [[row[i] for i in kept] for row in rows],
        headers=[headers[i] for i in kept],
        colalign=["left" if headers[i] in ("case", "note") else "right" for i in kept],
        disable_numparse=True,
    )
