"""Hardware against hardware: the same cases side by side, by plain step times.

Paired ratios tell nothing here, for the reference network runs on the other machine as well.

The unit of every interval is the run where all cases of a machine have three runs that are alike,
and the process of the newest run where they have fewer: then nothing is known of how the machine
differs from run to run, and the table says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.statistics import median_of
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.text import counted
from convmark.report.comparison import Comparison, Price
from convmark.report.ratios import (
    LEAST_PROCESSES,
    Ratio,
    Units,
    ends_text,
    geometric_mean,
    intervals_with_1,
    ratio,
    times_text,
)
from convmark.report.rows import (
    judged_rows,
    left_out_text,
    records_of,
    setting,
    text_of,
)
from convmark.results.record import BUSY_SHARE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEST_BATCHES", "GEOMETRIC_MEAN", "hardware_tables"]

GEOMETRIC_MEAN = "geometric mean"
BEST_BATCHES = "hardware_best"

_SAME = (
    *("model", "task", "batch_size", "precision", "jit", "replicas", "cluster", "threads"),
    *("backend", "runtime", "recipe", "asked_shape"),
)
_BATCH, _PRECISION = _SAME.index("batch_size"), _SAME.index("precision")
_SOFTWARE = (
    *("framework", "keras", "python", "packages", "driver", "measurement_version", "flags"),
)
_OF_RUNS = ("state", "training", "isolation", "numpy", "cuda", "cudnn", "os", "gpu", "mig", "ecc")
"""What else runs share that are taken together."""
_FIGURES = (
    *("step_time_p50_s", "throughput_samples_per_s", "joules_per_sample", "loss"),
    "sustained_throughput_samples_per_s",
)
_MOST_ROWS = 10 * LEAST_PROCESSES
"""Of a case on a machine, the newest."""

Key = tuple[Any, ...]
Row = Mapping[str, Any]
Sides = Mapping[str, list[dict[str, Any]]]
"""By hardware the rows of a case."""


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
    cases = sorted(found.cases.items(), key=itemgetter(0))
    records = [
        found.record(key, sides, name, "step_time_p50_s")
        for key, sides in cases
        for name in found.names
    ]
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
        [sides for _, sides in cases],
        "step_time_p50_s",
    )


def _best_batches(found: _Measured) -> Table:
    """Return one row per model and hardware, of the batch size with the highest throughput.

    Only of models with several batch sizes on some hardware.
    """
    groups: dict[Key, dict[str, list[Key]]] = {}
    for key, sides in sorted(found.cases.items(), key=itemgetter(0)):
        for name in sides:
            its_own = groups.setdefault((*key[:_BATCH], *key[_BATCH + 1 :]), {})
            its_own.setdefault(name, []).append(key)
    several = [keys for keys in groups.values() if any(len(one) > 1 for one in keys.values())]
    records, compared = [], []
    for keys in several:
        best = {name: max(its, key=partial(found.throughput, name)) for name, its in keys.items()}
        sides = {name: found.cases[key][name] for name, key in best.items()}
        compared.append(sides)
        for name in sorted(best):
            tried = f"best of {', '.join(f'{key[_BATCH]:.0f}' for key in keys[name])}"
            record = found.record(best[name], sides, name, "throughput_samples_per_s", tried)
            records.append({**record, "step_time_p50_s": None})
    return found.table(
        BEST_BATCHES,
        "Hardware at its own best batch size",
        "Of each hardware the batch size with the highest throughput among those measured. "
        "Speed-up is the throughput over that of the reference at its own best; intervals as "
        "above. The best is chosen by the same figures, so sizes that lie close flatter a little.",
        records,
        compared,
        "throughput_samples_per_s",
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
        """Return the cases of the rows.

        Raises:
            OptionError: the reference has no case with a figure.
        """
        near = _rows(frame)
        newest = {
            key: {name: _newest_run(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        cases = {
            key: {name: _for_ratios(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        counts = Counter(name for sides in cases.values() for name in sides)
        names = sorted(counts)
        base = comparison.reference or max(names, key=counts.__getitem__, default="")
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
        return median_of(row.get("throughput_samples_per_s") for row in rows) or 0.0

    def record(self, key: Key, sides: Sides, name: str, figure: str, *notes: str) -> dict[str, Any]:
        """Return a row: a case on some hardware.

        Args:
            sides: what is held against each other; of the batch sizes of several cases, perhaps.
            figure: whose ratio the speed-up is.
            notes: what is noted besides.
        """
        return {
            **_named(key),
            "hardware": name,
            **self.places[name],
            **self.figures(key, name),
            **_interval(self.speedup(sides, name, figure)),
            "note": "; ".join([*notes, *self.notes(key, sides, name)]),
        }

    def figures(self, key: Key, name: str) -> dict[str, Any]:
        """Return what a table shows of a case on some hardware: figures of the newest run.

        No earlier run's: the step time of a case is the same in every table of a report.
        """
        rows = self.cases[key].get(name)
        if rows is None:
            return {}
        newest = self.newest[key][name]
        step_s, throughput, joules, loss, sustained = (
            median_of(row.get(figure) for row in newest) for figure in _FIGURES
        )
        load = median_of(row.get("other_cpu_share") for row in newest)
        price = self.price(rows)
        found = {
            "step_time_p50_s": step_s,
            "throughput_samples_per_s": throughput,
            "runs": len({row["source"] for row in rows}),
            "n": len(newest),
            "load": load if load is not None and load >= BUSY_SHARE else None,
            "sustained_throughput_samples_per_s": sustained,
            "samples_per_joule": 1 / joules if joules else None,
            "samples_per_price": throughput / price.amount if throughput and price else None,
            "framework": newest[0]["framework"],
        }
        if key[_PRECISION] != "float32" and loss is not None:
            plain = (*key[:_PRECISION], "float32", *key[_PRECISION + 1 :])
            there = self.newest.get(plain, {}).get(name, [])
            found |= {"loss": loss, "loss_float32": median_of(row.get("loss") for row in there)}
        return found

    def notes(self, key: Key, sides: Sides, name: str) -> Iterator[str]:
        """Say what of the comparison to be wary of."""
        if name not in sides:
            yield "not measured"
            return
        rows = sides[name]
        if len(rows) < LEAST_PROCESSES:
            yield f"fewer than {LEAST_PROCESSES} processes"
        if left_out := left_out_text(self.newest[key][name], rows):
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
        compared: Sequence[Sides],
        figure: str,
    ) -> Table:
        """Return a table whose first rows are the geometric means; empty for one hardware alone.

        Args:
            compared: the rows of each case that speed-ups are of.
            figure: whose ratio they are.
        """
        speedups = {
            name: [one for sides in compared if (one := self.speedup(sides, name, figure))]
            for name in self.others
        }
        means = [
            {"model": GEOMETRIC_MEAN, "hardware": name, **self.places[name],
             **_interval(geometric_mean(_with_intervals(speedups[name]))),
             "note": _of_cases(speedups[name], len(compared), self.base)}
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
        unsure = ", not distinguishable" * mean.contains_1
        words = f"{name} is {times_text(mean)} times {self.base}{ends_text(mean)}{unsure}"
        prices = self.comparison.prices
        ours, theirs = (prices.get(one.rpartition(" ")[0]) for one in (name, self.base))
        if ours is not None and theirs is not None:
            share = theirs.amount / ours.amount
            words += f", {times_text(mean, share)} times per {ours.divisor}{ends_text(mean, share)}"
        return f"{words}; {intervals_with_1(speedups)}."

    def _headings(self) -> list[Heading]:
        """Return the headings of a table, with the price's unit."""
        price = next(iter(self.comparison.prices.values()), None)
        per = f"samples/s per {price.divisor}" if price else ""
        return headings(
            "model task batch_size setting hardware step_time_p50_s throughput_samples_per_s "
            "sustained_throughput_samples_per_s runs load n speedup low high loss loss_float32 "
            "samples_per_joule samples_per_price framework note",
            sustained_throughput_samples_per_s=("sustained samples/s", "rate"),
            speedup=("speed-up", "ratio"),
            low=("interval from", "ratio"),
            high=("to", "ratio"),
            loss_float32=("loss at float32", "score"),
            samples_per_joule=("samples/s per W of card", "per_joule"),
            samples_per_price=(per, "number"),
        )


def _rows(frame: pd.DataFrame) -> dict[Key, dict[str, list[dict[str, Any]]]]:
    """Return per case and hardware the newest rows, and all of the newest run, newest first."""
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    columns = (*_SAME, *_SOFTWARE, *_OF_RUNS, *_FIGURES, "hardware", "machine", "device", "source",
               "process", "not_judged", "code", "commit", "other_cpu_share")  # fmt: skip
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
    """Return the rows of runs that are alike."""
    clean = judged_rows(rows)
    return [row for row in clean if _conditions(row) == _conditions(clean[0])]


def _conditions(row: Row) -> list[str]:
    """Return what runs share that are taken together; a row without a code has its commit's."""
    code = text_of(row.get("code")) or text_of(row.get("commit"))
    return [code, *(text_of(row.get(name)) for name in (*_SOFTWARE, *_OF_RUNS))]


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


def _other_software(row: Row, base: Row) -> Iterator[str]:
    """Yield what of the software is another one; a driver is, on hardware of another kind."""
    for column in (*_SOFTWARE, "code"):
        own, its = text_of(row.get(column)), text_of(base.get(column))
        known = column != "code" or (own and its)
        if own != its and known and column != "driver":
            yield column.replace("_", " ")


def _interval(speedup: Ratio | None) -> dict[str, Any]:
    if speedup is None:
        return {}
    return {"speedup": speedup.value, **speedup.interval.cells}


def _with_intervals(speedups: Sequence[Ratio]) -> Sequence[Ratio]:
    """Return the ratios that have an interval, all where none has."""
    return [one for one in speedups if one.interval.known] or speedups


def _of_cases(speedups: Sequence[Ratio], cases: int, base: str) -> str:
    if not speedups:
        return f"no case is measured here and on {base}"
    count = len(_with_intervals(speedups))
    without = len(speedups) - count
    less = f" with {LEAST_PROCESSES} processes or runs" * bool(without)
    return f"over {count} of {counted(cases, 'case')}, those that {base} has too{less}"
