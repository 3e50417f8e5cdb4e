"""The cases of all hardware: the rows that a figure is shown of, and those that ratios are made of.

The unit of every interval is the run where all cases of a machine have three runs that are alike,
and the process of the newest run where they have fewer: then nothing is known of how the machine
differs from run to run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark.compare.comparability import told_always
from convmark.core.errors import OptionError
from convmark.core.option import RANKS
from convmark.core.statistics import grouped, median_of
from convmark.core.text import listed
from convmark.report.comparison import Comparison, Price
from convmark.report.ratios import LEAST_PROCESSES, Ratio, Units, figure_text, ratio
from convmark.report.rows import group_of, judged_rows, records_of, setting, text_of
from convmark.results.record import large_load

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

SAME = (
    *("model", "task", "batch_size", "precision", "jit", "replicas", "cluster", "threads"),
    "cpus",
    *("backend", "runtime", "recipe", "asked_shape"),
)
SOFTWARE = (
    *("framework", "keras", "python", "packages", "driver", "measurement_version", "flags"),
)
MAY_BEND = (*SOFTWARE, "training", "isolation", "state", "time_budget_s", "code")
"""What is told of the two sides of a ratio where it is another one."""
_OF_A_LOSS = ("seed", "code", "framework", "keras", "training")
"""What rows share whose losses differ by the precision alone."""
_MOST_NAMES = 4
_MOST_TOLD = 3
_BENDING = MappingProxyType(
    {"measurement version": "release of convmark", "time budget": "time budget", "code": "code"}
)
"""What may bend a ratio most, and what of both sides has to be the same."""
_OF_RUNS = (
    *("state", "training", "isolation", "numpy", "cuda", "cudnn", "os", "gpu", "mig", "ecc"),
    "time_budget_s",
)
"""What else runs share that are taken together."""
STEP = "step_time_p50_s"
BURST, SUSTAINED = "throughput_samples_per_s", "sustained_throughput_samples_per_s"
_FIGURES = (
    *(STEP, BURST, SUSTAINED, "loss", "seed", "joules_per_sample", "cpu_power_scope"),
    *("cpu_joules_per_sample", "wall_joules_per_sample", "sustained_s", "other_cpu_share"),
    "sustained_other_cpu_share",
)
_LOADS = MappingProxyType({BURST: "other_cpu_share", SUSTAINED: "sustained_other_cpu_share"})
"""By throughput the other programs' share of the CPUs' time meanwhile."""
_QUOTIENT = "quotient"
"""Of the throughput and that of steps which are timed alone, times the samples of a step."""
_APART = 1.1
"""Times as large as by step time that a speed-up by throughput may be without a word."""
_ALIKE_TIMES = 1.1
"""Times as long as others that steps may have gone on, to be compared without a word."""
_MOST_ROWS = 10 * LEAST_PROCESSES
"""Of a case on a machine, the newest."""

Key = tuple[Any, ...]
Row = Mapping[str, Any]
Sides = Mapping[str, list[dict[str, Any]]]
"""By hardware the rows of a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
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
    def of(cls, frame: pd.DataFrame, comparison: Comparison) -> Self:
        """Return the cases of the rows.

        Raises:
            OptionError: the reference has no case with a figure.
        """
        near = _rows(_sustained_runs(frame) if comparison.rank == RANKS[1] else frame)
        newest = {
            key: {name: _newest_run(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        cases = {
            key: {name: _for_ratios(rows) for name, rows in sides.items()}
            for key, sides in near.items()
        }
        names = sorted({name for sides in cases.values() for name in sides})
        counts = Counter(
            name
            for sides in cases.values()
            for name, rows in sides.items()
            if comparison.rank == RANKS[0] or any(_known(row[SUSTAINED]) for row in rows)
        )
        base = comparison.reference or max(names, key=counts.__getitem__, default="")
        if names and base not in names:
            raise OptionError(f"--reference: no timed case is measured on {base!r}")
        by_run = frozenset(name for name in names if _has_runs(cases.values(), name, base))
        for sides in cases.values():
            for name in sides.keys() - by_run:
                sides[name] = _newest_run(sides[name])
        places = {
            name: {fact: rows[0][fact] for fact in ("machine", "device")}
            for sides in cases.values()
            for name, rows in sides.items()
        }
        return cls(cases=cases, newest=newest, names=names, base=base, by_run=by_run,
                   comparison=comparison, places=places)  # fmt: skip

    @property
    def others(self) -> list[str]:
        """All hardware but the base."""
        return [name for name in self.names if name != self.base]

    def units(self, rows: Sequence[Row], name: str, figure: str) -> Units:
        """Return a figure in seconds by unit; of a throughput the seconds of a sample."""
        units: dict[Any, list[float]] = {}
        for row in rows:
            if value := _value(row, figure):
                unit = row["source"] if name in self.by_run else (row["source"], row["process"])
                units.setdefault(unit, []).append(value)
        return units

    def speedup(self, sides: Sides, name: str, figure: str) -> Ratio | None:
        """Return how many times faster than the base; above 1 is faster, and the base is 1."""
        if self.base not in sides or name not in sides:
            return None
        over, under = (self.units(sides[one], one, figure) for one in (self.base, name))
        if self.base == name:
            return Ratio(value=1.0) if over else None
        return ratio(over, under)

    def by_rate(self, sides: Sides, name: str) -> Ratio | None:
        """Return the speed-up by throughput where it is not that by step time, by their error.

        A step is timed alone, a throughput over windows: load may move one of them, and on a GPU
        the steps of a window overlap.
        """
        if name == self.base or not {name, self.base} <= sides.keys():
            return None
        quotients = (self.units(sides[one], one, _QUOTIENT) for one in (name, self.base))
        return self.speedup(sides, name, BURST) if are_apart(ratio(*quotients)) else None

    def throughput(self, name: str, key: Key) -> float:
        """Return that of a case in its newest run, samples/s; 0 where it is not known."""
        return median_of(row.get(self.rate) for row in self.newest[key][name]) or 0.0

    def load(self, key: Key, name: str, rate: str) -> float | None:
        """Return the other programs' share while a throughput was measured, where it is large."""
        return large_load(row.get(_LOADS[rate]) for row in self.newest[key][name])

    def earlier_load(self, key: Key, name: str, rate: str) -> float | None:
        """Return the largest such share of the earlier runs that ratios are made of as well."""
        newest = self.newest[key][name][0]["source"]
        rows = self.cases[key][name]
        shares = grouped((row["source"], row.get(_LOADS[rate])) for row in rows)
        loads = (large_load(its_own) for source, its_own in shares.items() if source != newest)
        return max((load for load in loads if load is not None), default=None)

    @property
    def rate(self) -> str:
        """The column of the throughput that the comparison ranks by."""
        return SUSTAINED if self.comparison.rank == RANKS[1] else BURST

    def price(self, name: str) -> Price | None:
        """Return the price of the machine that some hardware is of."""
        return self.comparison.prices.get(str(self.places[name]["machine"]))


def _sustained_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out later runs in which a case was not sustained, where it was in another one."""
    rates = frame[SUSTAINED].where(frame["measured"])
    cases = [frame["hardware"], frame["case"]]
    in_run, ever = (
        rates.groupby(by, observed=True).transform("max").notna()
        for by in ([*cases, frame["source"]], cases)
    )
    return frame[in_run | ~ever]


def _rows(frame: pd.DataFrame) -> dict[Key, dict[str, list[dict[str, Any]]]]:
    """Return per case and hardware the newest rows, and all of the newest run, newest first."""
    measured = frame[frame["measured"] & (frame["step_time_p50_s"] > 0)]
    columns = (*SAME, *SOFTWARE, *_OF_RUNS, *_FIGURES, "hardware", "machine", "device", "source",
               "process", "status", "not_judged", "code", "commit")  # fmt: skip
    newest = measured.sort_values("source", kind="stable", ascending=False)
    groups = newest.groupby(["hardware", "case"], observed=True)
    last = newest["source"] == groups["source"].transform("max")
    near = newest[last | (groups.cumcount() < _MOST_ROWS)]
    found: dict[Key, dict[str, list[dict[str, Any]]]] = {}
    for row in records_of(near, columns):
        optional = ("cluster", "cpus", "recipe", "asked_shape")
        row |= {name: text_of(row.get(name)) for name in optional}
        row["state"] = told_always(text_of(row["state"]))
        key = tuple(row[name] for name in SAME)
        found.setdefault(key, {}).setdefault(str(row["hardware"]), []).append(row)
    return found


def _for_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of runs that are alike."""
    clean = judged_rows(rows)
    return [row for row in clean if _conditions(row) == _conditions(clean[0])]


def _known(value: float | None) -> float | None:
    """Return a figure above 0; None for any other."""
    return value if value is not None and value > 0 else None


def are_apart(quotients: Ratio | None) -> bool:
    """Whether step times and throughputs tell another ratio of two sides, by more than their error.

    Args:
        quotients: ratio of the two sides' throughputs times their step times.
    """
    if quotients is None or not quotients.interval.known or quotients.contains_1:
        return False
    return not 1 / _APART <= quotients.value <= _APART


def _value(row: Row, figure: str) -> float | None:
    """Return a figure of a row in seconds, a throughput as the seconds of a sample."""
    if figure == _QUOTIENT:
        rate, step_s = _known(row.get(BURST)), _known(row.get(STEP))
        return rate * step_s if rate and step_s else None
    value = _known(row.get(figure))
    return 1 / value if value and figure in (BURST, SUSTAINED) else value


def of_processes(frame: pd.DataFrame, points: Sequence[Row], figure: str) -> list[list[float]]:
    """Return of each point a figure of each process that counts in a ratio.

    Args:
        frame: rows.
        points: of one hardware.
    """
    near = frame["measured"] & (frame["hardware"] == points[0]["hardware"])
    near &= frame["source"].isin({row["source"] for row in points})
    names = ("source", "case", figure, "status", "not_judged")
    processes: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for one in records_of(frame.loc[near, list(names)], names):
        processes.setdefault((one["source"], one["case"]), []).append(one)
    its_own = (processes[row["source"], row["case"]] for row in points)
    return [[one[figure] for one in judged_rows(rows)] for rows in its_own]


def unlike_times(hardware: Iterable[tuple[str, Sequence[Row]]]) -> list[str]:
    """Say how long steps went on where sustained throughputs are of unlike times.

    Args:
        hardware: names and rows that are compared.
    """
    times: dict[str, list[float]] = {}
    for name, rows in hardware:
        known = [_known(row["sustained_s"]) for row in rows if _known(row[SUSTAINED])]
        times.setdefault(name, []).extend(filter(None, known))
    every = [one for its in times.values() for one in its]
    if not every or max(every) <= _ALIKE_TIMES * min(every):
        return []
    words = [
        f"{' to '.join(dict.fromkeys(f'{end:,.0f}' for end in (min(its), max(its))))} s on {name}"
        for name, its in sorted(times.items())
        if its
    ]
    return [
        f"The sustained times differ ({', '.join(words)}): a machine measured for "
        "longer has more time to become slower; measure all with the same --sustain."
    ]


def unlike_bases(found: Measured, names: Sequence[str]) -> list[str]:
    """Say of which cases step times and throughputs tell another ratio of two machines.

    Args:
        names: of the hardware that is held against the base.
    """
    told = [
        f"{group_of(named(key), 'model', 'task')}: {name} is {figure_text(step.value)} times "
        f"{found.base} by step time, {figure_text(rate.value)} times by samples/s"
        for key, sides in sorted(found.cases.items(), key=itemgetter(0))
        for name in names
        if (rate := found.by_rate(sides, name)) and (step := found.speedup(sides, name, STEP))
    ]
    if not told:
        return []
    more = f"; {len(told) - _MOST_TOLD} more" * (len(told) > _MOST_TOLD)
    return [
        "Steps that are timed alone and windows of steps disagree by more than their error in "
        f"{'; '.join(told[:_MOST_TOLD])}{more}. Speed-ups are by step time, costs by samples/s."
    ]


def other_software(row: Row, base: Row) -> Iterator[str]:
    """Yield what of the software is another one; a driver is, on hardware of another kind."""
    for column in MAY_BEND:
        own, its = text_of(row.get(column)), text_of(base.get(column))
        known = column != "code" or (own and its)
        if own != its and known and column != "driver":
            yield column.removesuffix("_s").replace("_", " ")


def trained_alike(row: Row, other: Row) -> bool:
    """Whether two rows began with the same weights and batches, as far as is known."""
    return all(text_of(row.get(name)) == text_of(other.get(name)) for name in _OF_A_LOSS)


def unlike_words(names: Iterable[str]) -> str:
    """Return what is another one on the two sides of a ratio; what to do where it may bend it."""
    found = list(dict.fromkeys(names))
    told = f"other {listed(found, _MOST_NAMES)}" if found else ""
    if same := [what for name, what in _BENDING.items() if name in found]:
        *first, last = same
        every = " and ".join(filter(None, [", ".join(first), last]))
        told += f", which may bend the ratio: measure both again with the same {every}"
    return told


def _conditions(row: Row) -> list[str]:
    """Return what runs share that are taken together; a row without a code has its commit's."""
    code = text_of(row.get("code")) or text_of(row.get("commit"))
    return [code, *(text_of(row.get(name)) for name in (*SOFTWARE, *_OF_RUNS))]


def _has_runs(cases: Iterable[Sides], name: str, base: str) -> bool:
    """Whether every case that both have has so many runs here that a run can be the unit."""
    shared = [sides[name] for sides in cases if name in sides and (base in sides)]
    counts = [len({row["source"] for row in rows}) for rows in shared]
    return min(counts, default=0) >= LEAST_PROCESSES


def _newest_run(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["source"] == rows[0]["source"]]


def named(key: Key) -> dict[str, Any]:
    """Return what a table shows of a case, by column."""
    facts = dict(zip(SAME, key, strict=True))
    return {**facts, "setting": setting(facts)}
