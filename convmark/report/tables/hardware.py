"""Hardware against hardware: the same cases side by side, by plain step times.

Paired ratios tell nothing here, for the reference network runs on the other machine as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.table import Table, heading, table_of
from convmark.report.ratios import LEAST_PROCESSES, Ratio, geometric_mean, ratio
from convmark.report.tables.architectures import setting
from convmark.report.tables.points import BUSY_SHARE, records_of, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GEOMETRIC_MEAN", "check_prices", "hardware"]

GEOMETRIC_MEAN = "geometric mean"

_SAME = (
    *("model", "task", "batch_size", "precision", "jit", "replicas", "cluster", "threads"),
    "backend",
)
_SOFTWARE = ("framework", "keras", "python", "driver", "measurement_version")

Key = tuple[Any, ...]


def check_prices(prices: Mapping[str, float], table: pd.DataFrame) -> None:
    """Refuse a price of a machine that no row is of.

    Raises:
        OptionError: there is no such machine.
    """
    machines = sorted(set(table["machine"].astype(str)))
    for name in prices:
        if name not in machines:
            raise OptionError(
                f"--price: no row is of the machine {name!r}; expected one of {', '.join(machines)}"
            )


def hardware(frame: pd.DataFrame, prices: Mapping[str, float]) -> Table:
    """Return one row per case and hardware; what only some have measured is a gap on the others.

    Args:
        frame: rows, not points: the interval comes from the processes.
        prices: per machine, in any one unit, such as money per hour.
    """
    processes = _processes(frame)
    names = sorted({name for sides in processes.values() for name in sides})
    base = max(
        names, key=lambda name: sum(name in sides for sides in processes.values()), default=""
    )
    places = {
        name: {fact: rows[0][fact] for fact in ("machine", "device")}
        for sides in processes.values()
        for name, rows in sides.items()
    }
    records: list[dict[str, Any]] = []
    shared: dict[str, list[Ratio]] = {name: [] for name in names}
    for key, sides in sorted(processes.items()):
        for name in names:
            speedup = _speedup(sides, base, name)
            if speedup is not None and name != base:
                shared[name].append(speedup)
            record = _record(key, name, sides.get(name), speedup, prices)
            note = "; ".join(_notes(sides, base, name))
            records.append({**places[name], **record, "note": note})
    means = [
        {**places[name], **_mean(name, base, shared[name], len(processes))}
        for name in names
        if name != base
    ]
    return _table([*means, *records] if len(names) > 1 else (), base)


def _processes(frame: pd.DataFrame) -> dict[Key, dict[str, list[dict[str, Any]]]]:
    """Return per case and hardware the processes of the newest run that measured it.

    No earlier run's are taken in: the step time of a case is the same in every table of a report.
    """
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    columns = (
        *_SAME, *_SOFTWARE, "hardware", "machine", "device", "source", "step_time_p50_s",
        "throughput_samples_per_s", "joules_per_sample", "other_cpu_share",
    )  # fmt: skip
    groups = measured.groupby(["hardware", "case"], observed=True)
    newest = measured[measured["source"] == groups["source"].transform("max")]
    found: dict[Key, dict[str, list[dict[str, Any]]]] = {}
    for row in records_of(newest, columns):
        row["cluster"] = text_of(row["cluster"])  # keys are sorted
        key = tuple(row[name] for name in _SAME)
        found.setdefault(key, {}).setdefault(str(row["hardware"]), []).append(row)
    return found


def _software(row: Mapping[str, Any]) -> list[str]:
    return [str(row[name]) for name in _SOFTWARE]


def _speedup(sides: Mapping[str, list[dict[str, Any]]], base: str, name: str) -> Ratio | None:
    """Return how many times faster than the base; above 1 is faster, and the base is 1."""
    if base not in sides or name not in sides:
        return None
    if base == name:
        return Ratio(value=1.0)
    return ratio(_times(sides[base]), _times(sides[name]))


def _times(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["step_time_p50_s"] for row in rows]


def _record(
    key: Key,
    name: str,
    rows: Sequence[Mapping[str, Any]] | None,
    speedup: Ratio | None,
    prices: Mapping[str, float],
) -> dict[str, Any]:
    facts = dict(zip(_SAME, key, strict=True))
    record: dict[str, Any] = {**facts, "setting": setting(facts), "hardware": name}
    if rows is None:
        return record
    throughput = _median(row["throughput_samples_per_s"] for row in rows)
    load = _median(row["other_cpu_share"] for row in rows)
    joules = _median(row.get("joules_per_sample") for row in rows)
    price = prices.get(str(rows[0]["machine"]))
    return {
        **record,
        "step_time_p50_s": _median(_times(rows)),
        "throughput_samples_per_s": throughput,
        "n": len(rows),
        "load": load if load is not None and load >= BUSY_SHARE else None,
        **_interval(speedup),
        "samples_per_joule": 1 / joules if joules else None,
        "samples_per_price": throughput / price if throughput and price else None,
        "framework": rows[0]["framework"],
    }


def _notes(sides: Mapping[str, list[dict[str, Any]]], base: str, name: str) -> Iterator[str]:
    """Say what of the comparison to be wary of."""
    if name not in sides:
        yield "not measured"
    elif len(sides[name]) < LEAST_PROCESSES:
        yield f"fewer than {LEAST_PROCESSES} processes"
    if name in sides and base in sides:
        pairs = zip(_SOFTWARE, _software(sides[name][0]), _software(sides[base][0]), strict=True)
        others = [column.replace("_", " ") for column, own, its in pairs if own != its]
        others = [words for words in others if words != "driver"]  # hardware of another kind
        if others:
            yield f"not as on {base}: {', '.join(others)}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and value == value]
    return median(known) if known else None


def _interval(speedup: Ratio | None) -> dict[str, Any]:
    if speedup is None:
        return {}
    return {"speedup": speedup.value, "low": speedup.low, "high": speedup.high}


def _mean(name: str, base: str, speedups: Sequence[Ratio], cases: int) -> dict[str, Any]:
    note = f"over {len(speedups)} of {cases} cases, those that {base} has too"
    return {
        "model": GEOMETRIC_MEAN,
        "hardware": name,
        **_interval(geometric_mean(speedups)),
        "note": note if speedups else f"no case is measured here and on {base}",
    }


def _table(records: Sequence[Mapping[str, Any]], base: str) -> Table:
    return table_of(
        "hardware",
        "Hardware against hardware",
        f"Speed-up is the step time of {base} over that of the hardware, from geometric means "
        f"over processes: above 1 is faster. The 95 % interval is Welch's on the logarithms, the "
        f"process being the unit, from {LEAST_PROCESSES} processes a side; of the geometric mean "
        f"it is for these cases. Processes are those of the newest run that measured the case. "
        f"Energy and price appear where they are known (--price MACHINE=PRICE).",
        [
            heading("model", "model"),
            heading("task", "task"),
            heading("batch_size", "batch", "count"),
            heading("setting", "setting"),
            heading("hardware", "hardware"),
            heading("step_time_p50_s", "step p50", "seconds"),
            heading("throughput_samples_per_s", "samples/s", "rate"),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
            heading("speedup", "speed-up", "ratio"),
            heading("low", "interval from", "ratio"),
            heading("high", "to", "ratio"),
            heading("samples_per_joule", "samples/s per W", "per_joule"),
            heading("samples_per_price", "samples/s per price", "number"),
            heading("framework", "framework"),
            heading("note", "note"),
        ],
        records,
        empty="Only one machine and device was measured.",
    )
