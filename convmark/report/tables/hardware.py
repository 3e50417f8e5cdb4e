"""Hardware against hardware: the same cases side by side, by plain step times.

Paired ratios tell nothing here, for the reference network runs on the other machine as well.

The unit of every interval is the run where all cases of a machine have three runs that are alike,
and the process of the newest run where they have fewer: then nothing is known of how the machine
differs from run to run, and the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.option_values import nearest
from convmark.core.table import Heading, Table, heading, table_of
from convmark.report.prices import Price
from convmark.report.ratios import LEAST_PROCESSES, Ratio, Units, geometric_mean, ratio
from convmark.report.tables.architectures import setting
from convmark.report.tables.points import BUSY_SHARE, records_of, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEST_BATCHES", "GEOMETRIC_MEAN", "Comparison", "hardware_tables", "of_machines"]

GEOMETRIC_MEAN = "geometric mean"
BEST_BATCHES = "hardware_best"

_SAME = (
    *("model", "task", "batch_size", "precision", "jit", "replicas", "cluster", "threads"),
    *("backend", "runtime", "recipe", "asked_shape"),
)
_BATCH, _PRECISION = _SAME.index("batch_size"), _SAME.index("precision")
_SOFTWARE = ("framework", "keras", "python", "driver", "measurement_version", "flags")
_FIGURES = ("step_time_p50_s", "throughput_samples_per_s", "joules_per_sample", "loss")
_MOST_ROWS = 10 * LEAST_PROCESSES
"""Of a case on a machine, the newest."""

Key = tuple[Any, ...]
Row = Mapping[str, Any]
Sides = Mapping[str, list[dict[str, Any]]]
"""By hardware the rows of a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What machines are compared by."""

    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))
    """By machine, as tables name it; all in one currency and unit."""
    reference: str = ""
    """The machine, or machine and device, that others are held against; empty for the one with the
    most cases."""


def of_machines(
    comparison: Comparison, names: Mapping[str, str], frame: pd.DataFrame
) -> Comparison:
    """Return the comparison with machines as tables name them.

    Args:
        names: of machines that a user has named, by their fingerprints.

    Raises:
        OptionError: no row is of a machine, or two prices are of one.
    """
    machines = sorted(set(frame["machine"].astype(str)))
    prices: dict[str, Price] = {}
    for machine, price in comparison.prices.items():
        name = names.get(machine, machine)
        if name not in machines:
            raise OptionError(
                f"--prices: no row is of the machine {machine!r}; {nearest(machine, machines)}"
            )
        if name in prices:
            raise OptionError(f"--prices: must have one price of {name}, got two")
        prices[name] = replace(price, machine=name)
    reference = comparison.reference
    if reference:
        machine, _, device = reference.rpartition(" ")
        reference = names.get(reference) or f"{names.get(machine, machine)} {device}".strip()
        reference = _hardware_of(reference, machines, set(frame["hardware"].astype(str)))
    return Comparison(prices=prices, reference=reference)


def _hardware_of(text: str, machines: Sequence[str], hardware: Iterable[str]) -> str:
    """Return the hardware that a text names: machine and device, or a machine with one device."""
    devices = sorted(name for name in hardware if name == text or name.rpartition(" ")[0] == text)
    if text in devices:
        return text
    if not devices:
        hint = nearest(text, machines)
        raise OptionError(f"--reference: no row is of the machine {text!r}; {hint}")
    if len(devices) > 1:
        choice = " or ".join(map(repr, devices))
        raise OptionError(f"--reference: {text!r} has several devices; give {choice}")
    return devices[0]


def hardware_tables(frame: pd.DataFrame, comparison: Comparison) -> list[Table]:
    """Return the tables at equal batch sizes, and at the best one of each hardware.

    Args:
        frame: rows, not points: the interval comes from the processes.

    Raises:
        OptionError: the reference has no case with a figure.
    """
    found = _Measured.of(frame, comparison)
    return [_equal_batches(found), _best_batches(found)]


def _equal_batches(found: _Measured) -> Table:
    """Return one row per case and hardware; what only some have measured is a gap on the others."""
    records: list[dict[str, Any]] = []
    speedups: dict[str, list[Ratio]] = {name: [] for name in found.names}
    for key, sides in sorted(found.cases.items(), key=itemgetter(0)):
        for name in found.names:
            speedup = found.speedup(sides, name, "step_time_p50_s")
            if speedup is not None and name != found.base:
                speedups[name].append(speedup)
            record = {
                **_named(key),
                "hardware": name,
                **found.places[name],
                **found.figures(key, sides, name),
            }
            note = "; ".join(found.notes(key, sides, name))
            records.append({**record, **_interval(speedup), "note": note})
    return found.table(
        "hardware",
        "Hardware against hardware",
        "Speed-up is the step time of the reference over that of the hardware at the same batch "
        "size, from geometric means: above 1 is faster. The 95 % interval is Welch's on the "
        f"logarithms, from {LEAST_PROCESSES} runs or processes a side; that of the geometric mean "
        "is for these cases and allows for what all cases of a run share. Runs with the same "
        "software and code are taken together; step p50 and samples/s are those of the newest. "
        "Energy and loss appear where they are known, prices by --prices, another reference by "
        "--reference.",
        records,
        speedups,
        len(found.cases),
    )


def _best_batches(found: _Measured) -> Table:
    """Return one row per model and hardware, of the batch size with the highest throughput.

    Only of models with several batch sizes on some hardware.
    """
    groups: dict[Key, dict[str, list[Key]]] = {}
    for key, sides in sorted(found.cases.items(), key=itemgetter(0)):
        for name in sides:
            groups.setdefault((*key[:_BATCH], *key[_BATCH + 1 :]), {}).setdefault(name, []).append(
                key
            )
    several = [keys for keys in groups.values() if any(len(one) > 1 for one in keys.values())]
    records: list[dict[str, Any]] = []
    speedups: dict[str, list[Ratio]] = {name: [] for name in found.names}
    for keys in several:
        best = {name: max(its, key=partial(found.throughput, name)) for name, its in keys.items()}
        sides = {name: found.cases[key][name] for name, key in best.items()}
        for name in (one for one in found.names if one in best):
            speedup = found.speedup(sides, name, "throughput_samples_per_s")
            if speedup is not None and name != found.base:
                speedups[name].append(speedup)
            figures = found.figures(best[name], found.cases[best[name]], name)
            record = {**_named(best[name]), "hardware": name, **found.places[name], **figures}
            record |= _interval(speedup)
            tried = ", ".join(f"{key[_BATCH]:.0f}" for key in keys[name])
            note = "; ".join([f"best of {tried}", *found.notes(best[name], sides, name)])
            records.append({**record, "step_time_p50_s": None, "note": note})
    return found.table(
        BEST_BATCHES,
        "Hardware at its own best batch size",
        "Of each hardware the batch size with the highest throughput among those measured. "
        "Speed-up is the throughput over that of the reference at its own best; intervals as "
        "above. The best is chosen by the same figures, so sizes that lie close flatter a little.",
        records,
        speedups,
        len(several),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The cases of all hardware, and what it is held against."""

    cases: Mapping[Key, Sides]
    """The rows that ratios are made of."""
    newest: Mapping[Key, Sides]
    """Those of the newest run, whose figures are shown."""
    names: Sequence[str]
    base: str
    by_run: frozenset[str]
    """The hardware whose unit is the run."""
    comparison: Comparison
    places: Mapping[str, Mapping[str, Any]]
    """By hardware its machine and device, which a page chooses rows by."""

    @classmethod
    def of(cls, frame: pd.DataFrame, comparison: Comparison) -> _Measured:
        near = _rows(frame)
        newest = {
            key: {name: _newest_run(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        cases = {
            key: {name: _for_ratios(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        names = sorted({name for sides in cases.values() for name in sides})
        most = max(
            names, key=lambda name: sum(name in sides for sides in cases.values()), default=""
        )
        base = comparison.reference or most
        if names and base not in names:
            raise OptionError(f"--reference: no timed case is measured on {base!r}")
        by_run = frozenset(name for name in names if _has_runs(cases.values(), name, base))
        for sides in cases.values():
            for name in sides.keys() - by_run:
                sides[name][:] = _of_newest_run(sides[name])
        places = {
            name: {fact: rows[0][fact] for fact in ("machine", "device")}
            for sides in cases.values()
            for name, rows in sides.items()
        }
        return cls(cases=cases, newest=newest, names=names, base=base, by_run=by_run,
                   comparison=comparison, places=places)  # fmt: skip

    @property
    def others(self) -> list[str]:
        return [name for name in self.names if name != self.base]

    def units(self, rows: Sequence[Row], name: str, figure: str) -> Units:
        """Return a figure in seconds by unit; of a throughput the seconds of a sample."""
        units: dict[Any, list[float]] = {}
        for row in rows:
            value = row.get(figure)
            if value is not None and value > 0:
                unit = row["source"] if name in self.by_run else (row["source"], row["process"])
                units.setdefault(unit, []).append(
                    1 / value if figure == "throughput_samples_per_s" else value
                )
        return units

    def speedup(self, sides: Sides, name: str, figure: str) -> Ratio | None:
        """Return how many times faster than the base; above 1 is faster, and the base is 1."""
        if self.base not in sides or name not in sides:
            return None
        if self.base == name:
            return Ratio(value=1.0)
        over, under = (self.units(sides[one], one, figure) for one in (self.base, name))
        return ratio(over, under)

    def throughput(self, name: str, key: Key) -> float:
        """Return that of a case in its newest run, samples/s; 0 where it is not known."""
        rows = self.newest[key][name]
        return _median(row.get("throughput_samples_per_s") for row in rows) or 0.0

    def figures(self, key: Key, sides: Sides, name: str) -> dict[str, Any]:
        """Return what a table shows of a case on some hardware: figures of the newest run.

        No earlier run's: the step time of a case is the same in every table of a report.
        """
        rows = sides.get(name)
        if rows is None:
            return {}
        newest = self.newest[key][name]
        step_s, throughput, joules, loss = (
            _median(row.get(figure) for row in newest) for figure in _FIGURES
        )
        load = _median(row.get("other_cpu_share") for row in newest)
        price = self.price(rows)
        found = {
            "step_time_p50_s": step_s,
            "throughput_samples_per_s": throughput,
            "runs": len({row["source"] for row in rows}),
            "n": len(newest),
            "load": load if load is not None and load >= BUSY_SHARE else None,
            "samples_per_joule": 1 / joules if joules else None,
            "samples_per_price": throughput / price.amount if throughput and price else None,
            "framework": newest[0]["framework"],
        }
        if key[_PRECISION] != "float32" and loss is not None:
            plain = (*key[:_PRECISION], "float32", *key[_PRECISION + 1 :])
            there = self.newest.get(plain, {}).get(name, [])
            found |= {"loss": loss, "loss_float32": _median(row.get("loss") for row in there)}
        return found

    def notes(self, key: Key, sides: Sides, name: str) -> Iterator[str]:
        """Say what of the comparison to be wary of."""
        if name not in sides:
            yield "not measured"
            return
        rows = sides[name]
        if len(rows) < LEAST_PROCESSES:
            yield f"fewer than {LEAST_PROCESSES} processes"
        if left_out := _left_out(self.newest[key][name], rows):
            yield left_out
        if self.base in sides:
            others = list(_other_software(rows[0], sides[self.base][0]))
            if others:
                yield f"not as on {self.base}: {', '.join(others)}"

    def price(self, rows: Sequence[Row]) -> Price | None:
        return self.comparison.prices.get(str(rows[0]["machine"]))

    def table(
        self,
        key: str,
        title: str,
        caption: str,
        records: Sequence[Row],
        speedups: Mapping[str, Sequence[Ratio]],
        cases: int,
    ) -> Table:
        """Return a table whose first rows are the geometric means; empty for one hardware alone."""
        means = [
            {"model": GEOMETRIC_MEAN, "hardware": name, **self.places[name],
             **_interval(geometric_mean(_with_intervals(speedups[name]))),
             "note": _of_cases(speedups[name], cases, self.base)}
            for name in self.others
        ]  # fmt: skip
        several = bool(self.others and records)
        return table_of(
            key,
            title,
            caption,
            self._headings(),
            [*means, *records] if several else (),
            empty="Only one machine and device was measured.",
            lead=self._lead(speedups) if several else (),
        )

    def _lead(self, speedups: Mapping[str, Sequence[Ratio]]) -> list[str]:
        """Return a line for each hardware that is held against the base, and one for the prices."""
        lines = [self._against_base(name, speedups[name]) for name in self.others]
        single = [name for name in self.names if name not in self.by_run]
        if single:
            lines.append(
                f"Fewer than {LEAST_PROCESSES} runs are alike on {', '.join(single)}: how a "
                "machine differs from run to run is not in the intervals."
            )
        prices = [str(one) for _, one in sorted(self.comparison.prices.items())]
        return [*lines, *([f"Prices: {'; '.join(prices)}."] if prices else [])]

    def _against_base(self, name: str, speedups: Sequence[Ratio]) -> str:
        mean = geometric_mean(_with_intervals(speedups))
        if mean is None:
            return f"{name}: no case is measured here and on {self.base}."
        words = f"{name} is {_times(mean, 1.0)} times {self.base}{_ends(mean, 1.0)}"
        ours, theirs = (self._price_of(one) for one in (name, self.base))
        if ours is not None and theirs is not None:
            share = theirs.amount / ours.amount
            words += f", {_times(mean, share)} times per {ours.divisor}{_ends(mean, share)}"
        return f"{words}; {_of_intervals(speedups)}."

    def _headings(self) -> list[Heading]:
        """Return the headings of a table, with the price's unit."""
        price = next(iter(self.comparison.prices.values()), None)
        per = f"samples/s per {price.divisor}" if price else ""
        return [
            heading("model", "model"),
            heading("task", "task"),
            heading("batch_size", "batch", "count"),
            heading("setting", "setting"),
            heading("hardware", "hardware"),
            heading("step_time_p50_s", "step p50", "seconds"),
            heading("throughput_samples_per_s", "samples/s", "rate"),
            heading("runs", "runs", "count"),
            heading("load", "other load", "share"),
            heading("n", "n", "count"),
            heading("speedup", "speed-up", "ratio"),
            heading("low", "interval from", "ratio"),
            heading("high", "to", "ratio"),
            heading("loss", "loss", "score"),
            heading("loss_float32", "loss at float32", "score"),
            heading("samples_per_joule", "samples/s per W", "per_joule"),
            heading("samples_per_price", per, "number"),
            heading("framework", "framework"),
            heading("note", "note"),
        ]

    def _price_of(self, name: str) -> Price | None:
        return self.comparison.prices.get(name.rpartition(" ")[0])


def _rows(frame: pd.DataFrame) -> dict[Key, dict[str, list[dict[str, Any]]]]:
    """Return per case and hardware the newest rows, and all of the newest run, newest first."""
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    columns = (*_SAME, *_SOFTWARE, *_FIGURES, "hardware", "machine", "device", "source", "process",
               "state", "not_judged", "code", "commit", "other_cpu_share")  # fmt: skip
    newest = measured.sort_values("source", kind="stable", ascending=False)
    groups = newest.groupby(["hardware", "case"], observed=True)
    last = newest["source"] == groups["source"].transform("max")
    near = newest[last | (groups.cumcount() < _MOST_ROWS)]
    found: dict[Key, dict[str, list[dict[str, Any]]]] = {}
    for row in records_of(near, columns):
        row |= {name: text_of(row.get(name)) for name in ("cluster", "recipe", "asked_shape")}
        key = tuple(row[name] for name in _SAME)
        found.setdefault(key, {}).setdefault(str(row["hardware"]), []).append(row)
    return found


def _for_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of runs that are alike.

    Rows that say why they are no ground for a verdict are left out where there are others.
    """
    clean = [row for row in rows if not text_of(row.get("not_judged"))] or rows
    return [row for row in clean if _conditions(row) == _conditions(clean[0])]


def _conditions(row: Row) -> list[str]:
    """Return what runs share that are taken together; a row without a code has its commit's."""
    code = text_of(row.get("code")) or text_of(row.get("commit"))
    return [code, *(text_of(row.get(name)) for name in (*_SOFTWARE, "state"))]


def _has_runs(cases: Iterable[Sides], name: str, base: str) -> bool:
    """Whether every case that both have has so many runs here that a run can be the unit."""
    shared = [sides[name] for sides in cases if name in sides and (base in sides)]
    counts = [len({row["source"] for row in rows}) for rows in shared]
    return min(counts, default=0) >= LEAST_PROCESSES


def _newest_run(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["source"] == rows[0]["source"]]


def _of_newest_run(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest run's rows, with earlier ones where they are fewer than three."""
    newest = _newest_run(rows)
    return newest if len(newest) >= LEAST_PROCESSES else list(rows[:LEAST_PROCESSES])


def _named(key: Key) -> dict[str, Any]:
    facts = dict(zip(_SAME, key, strict=True))
    more = filter(None, [setting(facts), facts["recipe"], facts["asked_shape"]])
    return {**facts, "setting": ", ".join(more)}


def _left_out(newest: Sequence[Row], rows: Sequence[Row]) -> str:
    """Say what of the newest run is shown but not in the ratio; empty where it is all in it."""
    reasons = [text for row in newest if (text := text_of(row.get("not_judged")))]
    if rows[0]["source"] != newest[0]["source"]:
        return f"speed-up of earlier runs, as the newest is not judged: {reasons[0]}"
    if reasons and not text_of(rows[0].get("not_judged")):
        return f"speed-up without {len(reasons)} of {len(newest)}, not judged: {reasons[0]}"
    return f"not judged: {reasons[0]}" if reasons else ""


def _other_software(row: Row, base: Row) -> Iterator[str]:
    """Yield what of the software is another one; a driver is, on hardware of another kind."""
    for column in (*_SOFTWARE, "code"):
        own, its = text_of(row.get(column)), text_of(base.get(column))
        known = column != "code" or (own and its)
        if own != its and known and column != "driver":
            yield column.replace("_", " ")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and value == value]
    return median(known) if known else None


def _interval(speedup: Ratio | None) -> dict[str, Any]:
    if speedup is None:
        return {}
    return {"speedup": speedup.value, "low": speedup.low, "high": speedup.high}


def _with_intervals(speedups: Sequence[Ratio]) -> Sequence[Ratio]:
    """Return the ratios that have an interval, all where none has."""
    return [one for one in speedups if one.low is not None] or speedups


def _of_cases(speedups: Sequence[Ratio], cases: int, base: str) -> str:
    if not speedups:
        return f"no case is measured here and on {base}"
    count = len(_with_intervals(speedups))
    without = len(speedups) - count
    less = f" with {LEAST_PROCESSES} processes or runs" * bool(without)
    return f"over {count} of {cases} cases, those that {base} has too{less}"


# -- the first line --------------------------------------------------------------------------------


def _times(mean: Ratio, factor: float) -> str:
    return _digits(mean.value * factor, mean, factor)


def _ends(mean: Ratio, factor: float) -> str:
    """Return the interval in brackets; empty where none is known."""
    if mean.low is None or mean.high is None:
        return ""
    low, high = (_digits(end * factor, mean, factor) for end in (mean.low, mean.high))
    return f" ({low} to {high})"


def _digits(value: float, mean: Ratio, factor: float) -> str:
    """Return a ratio with as many digits as its interval lets be told, at least one decimal."""
    if mean.low is None or mean.high is None or mean.low == mean.high:
        return f"{value:,.3g}"
    places = math.ceil(-math.log10((mean.high - mean.low) * factor / 2))
    return f"{value:,.{min(max(places, 1), 6)}f}"


def _of_intervals(speedups: Sequence[Ratio]) -> str:
    """Say of how many cases the interval contains 1."""
    known = [one for one in speedups if one.low is not None]
    if not known:
        return f"no interval is known: fewer than {LEAST_PROCESSES} processes"
    count = sum(one.contains_1 for one in known)
    if len(known) == 1:
        return f"the interval of its one case {'contains' if count else 'does not contain'} 1"
    number = f"{count} of {len(known)}" if count else f"none of {len(known)}"
    untold = " (no difference is shown there)" * bool(count)
    return f"{number} intervals contain{'s' * (count <= 1)} 1{untold}"
