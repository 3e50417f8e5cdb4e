"""The machine itself: the reference's own step time against its history; it fails no run.

A driver, governor, fan or throttled card slows case and reference alike, so that no paired ratio
shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, stdev

from convmark.compare.comparability import load_of, loads_alike
from convmark.compare.judgement import MACHINE, Judgement
from convmark.compare.rule.statistics import t_quantile
from convmark.core.statistics import share_of
from convmark.results.record import Record

__all__ = ["MOVED", "machine_judgements"]

MOVED = math.log(1.10)
"""A plain step time moves by 5 to 10 % between fresh processes of identical code, measured on a
quiet machine of two cores, so less says nothing."""

_LEAST_RUNS = 3
"""From two runs a 95 % interval spans 13 spreads either way: no figure to print."""

_CONFIDENCE = 0.975
_LEAST_BETWEEN_RUNS = 0.02
"""Runs of the same machine that agree better than this do so by luck."""


@dataclass(slots=True, kw_only=True)
class _Group:
    """The rows whose rounds had the same reference on the same device with the same threads."""

    now: list[Record] = field(default_factory=list)
    before: dict[str, list[Record]] = field(default_factory=dict)


def machine_judgements(
    compared: Iterable[tuple[Sequence[Record], Sequence[Sequence[Record]]]],
) -> list[Judgement]:
    """Judge the reference's median step time, per reference, device and threads.

    Args:
        compared: per case, this run's rows and those of its baseline's runs.
    """
    groups: dict[tuple[str, str, str], _Group] = {}
    for now, baseline in compared:
        rows = _with_reference(now)
        if rows:
            key = (rows[0].reference or "", rows[0].device, rows[0].threads)
            group = groups.setdefault(key, _Group())
            group.now += rows
            for run in map(_with_reference, baseline):
                if run:
                    group.before.setdefault(run[0].run, []).extend(run)
    return [_judged(key, group) for key, group in groups.items() if group.before]


def _with_reference(rows: Sequence[Record]) -> list[Record]:
    return [row for row in rows if row.reference and row.reference_step_time_p50_s]


def _judged(key: tuple[str, str, str], group: _Group) -> Judgement:
    reference, device, threads = key
    now, runs = group.now, group.before
    value = _reference_s(now)
    logs = [math.log(_reference_s(rows)) for rows in runs.values()]
    estimate = math.log(value) - mean(logs)
    half = _half_width(logs)
    verdict = _verdict(estimate, half)
    return Judgement(
        run=now[0].run,
        case="-".join([MACHINE, device, reference, *([f"t{threads}"] * (threads != "default"))]),
        model=MACHINE,
        task="",
        device=device,
        batch_size=None,
        precision="",
        jit="",
        threads=threads,
        metric="reference_step_time",
        unit="s",
        baseline=value / math.exp(estimate),
        value=value,
        change=share_of(estimate),
        low=None if half is None else share_of(estimate - half),
        high=None if half is None else share_of(estimate + half),
        verdict=verdict,
        smallest_visible=None if half is None else share_of(max(half, MOVED)),
        baseline_runs=tuple(runs),
        note=_note(verdict, estimate, now, [row for rows in runs.values() for row in rows]),
    )


def _reference_s(rows: Sequence[Record]) -> float:
    return float(median(row.reference_step_time_p50_s or math.nan for row in rows))


def _half_width(logs: Sequence[float]) -> float | None:
    """Half the 95 % interval of one more run; None where so few runs tell no spread."""
    if len(logs) < _LEAST_RUNS:
        return None
    spread = max(stdev(logs), _LEAST_BETWEEN_RUNS)
    error = spread * math.sqrt(1 + 1 / len(logs))
    return t_quantile(_CONFIDENCE, len(logs) - 1) * error


def _verdict(estimate: float, half: float | None) -> str:
    if half is None:
        return "inconclusive"
    if abs(estimate) > max(half, MOVED):
        return "regressed" if estimate > 0 else "improved"
    return "unchanged" if abs(estimate) + half <= MOVED else "inconclusive"


def _note(verdict: str, estimate: float, now: Sequence[Record], before: Sequence[Record]) -> str:
    parts = []
    if verdict in ("regressed", "improved"):
        size = 100 * abs(share_of(estimate))
        way = "slower" if estimate > 0 else "faster"
        parts.append(f"the machine is {size:.1f} % {way} for case and reference alike")
    then, today = load_of(before), load_of(now)
    if then is not None and today is not None and not loads_alike(before, now):
        parts.append(
            f"the loads are unlike: others took {then:.0%} of the CPU time then, {today:.0%} now"
        )
    runs = len({row.run for row in before})
    if verdict == "inconclusive" and runs < _LEAST_RUNS:
        parts.append(f"{runs} earlier {'run tells' if runs == 1 else 'runs tell'} no spread")
    return "; ".join(parts)
