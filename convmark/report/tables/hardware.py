"""Hardware against hardware: the same cases side by side, by plain step times.

Paired ratios tell nothing here, for the reference network runs on the other machine as well.

The unit of every interval is the run where all cases of a machine have three runs that are alike,
and the process of the newest run where they have fewer: then nothing is known of how the machine
differs from run to run, and the table says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from convmark.core.errors import OptionError
from convmark.core.statistics import median_of
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.text import counted, load_text
from convmark.report.comparison import Comparison
from convmark.report.measured import (
    BURST,
    SAME,
    STEP,
    SUSTAINED,
    Key,
    Measured,
    Row,
    Sides,
    named,
    other_software,
    trained_alike,
    unlike_bases,
    unlike_times,
    unlike_words,
)
from convmark.report.ratios import (
    LEAST_PROCESSES,
    Ratio,
    ends_text,
    figure_text,
    geometric_mean,
    intervals_with_1,
    level,
    times_text,
)
from convmark.report.rows import fact_of, left_out_text
from convmark.results.record import doubt_words

if TYPE_CHECKING:
    import pandas as pd

GEOMETRIC_MEAN = "geometric mean"
EQUAL_BATCHES, BEST_BATCHES = "hardware", "hardware_best"
BY_RATE = "by samples/s"
"""How a note begins that has the other ratio which throughputs tell."""
UNLIKE = "not as on"
"""How a note begins that has what of the software is another one."""

_Speedups = Mapping[str, Sequence[Ratio]]
"""By hardware, but for the base, those of the cases that both have."""

_BATCH, _PRECISION = SAME.index("batch_size"), SAME.index("precision")


def hardware_tables(frame: pd.DataFrame, comparison: Comparison) -> list[Table]:
    """Return the tables at equal batch sizes, and at the best one of each hardware.

    Args:
        frame: rows, not points: the interval comes from the processes.

    Raises:
        OptionError: the reference has no case with a figure, or what ranks them was not measured.
    """
    found = _Shown.of(frame, comparison)
    if found.sustained and not found.has_sustained:
        raise OptionError(
            "--rank sustained: no row has a sustained throughput; measure with convmark run "
            "--sustain 20m"
        )
    if found.sustained and not found.is_sustained(found.base):
        raise OptionError(
            f"--rank sustained: the reference {found.base} has no sustained throughput; measure it "
            "with convmark run --sustain 20m, or give another --reference"
        )
    return [_equal_batches(found), _best_batches(found)]


_BY_BURST = (
    "Speed-up is the step time of the reference divided by that of the hardware "
    "at the same batch size, from geometric means: above 1 is faster."
)
_BY_SUSTAINED = (
    "Speed-up is the sustained throughput of the hardware divided by that of the "
    "reference at the same batch size, from geometric means: above 1 is faster. "
    "One process of a run has sustained steps (--sustain)."
)


def _equal_batches(found: _Shown) -> Table:
    """Return one row per hardware and case, of those that several have measured or whose loss is
    shown.
    """
    cases = sorted(found.cases.items(), key=itemgetter(0))
    figure = SUSTAINED if found.sustained else STEP
    compared = [sides for _, sides in cases]
    speedups = found.speedups(compared, figure)
    records = [
        record
        for key, sides in cases
        for name in found.ranked(speedups)
        if name in sides
        and ("loss" in (record := found.record(key, sides, name, figure)) or len(sides) > 1)
    ]
    return found.table(
        EQUAL_BATCHES,
        f"Hardware against hardware{', sustained' * found.sustained}",
        f"{_BY_SUSTAINED if found.sustained else _BY_BURST} The fastest comes first. The 95 % "
        f"interval is Welch's on the logarithms, from {LEAST_PROCESSES} runs or processes a side; "
        "that of the geometric mean is for these cases and allows for what all cases of a run "
        "share. Runs with the same software and code are taken together, and the column mean is "
        "of them: speed-up is the quotient of two means. Step p50 and samples/s are medians of "
        "the newest run alone; other load of earlier runs that the mean is of has a column of its "
        "own. Energy and loss appear where they are known, that of float32 of the same seed, "
        "version and code; another reference by --reference, the order of sustained throughput by "
        "--rank sustained.",
        records,
        compared,
        speedups,
    )


def _best_batches(found: _Shown) -> Table:
    """Return one row per model and hardware, of the batch size with the highest throughput.

    Only of models with several batch sizes on some hardware.
    """
    groups: dict[Key, dict[str, list[Key]]] = {}
    for key, sides in sorted(found.cases.items(), key=itemgetter(0)):
        for name in sides:
            its_own = groups.setdefault((*key[:_BATCH], *key[_BATCH + 1 :]), {})
            its_own.setdefault(name, []).append(key)
    several = [keys for keys in groups.values() if any(len(one) > 1 for one in keys.values())]
    records: list[dict[str, Any]] = []
    compared = []
    for keys in several:
        known = {  # the best is known of several, where each was sustained, if that ranks
            name: its
            for name, its in keys.items()
            if len(its) > 1
            and (not found.sustained or all(map(partial(found.throughput, name), its)))
        }
        best = {name: max(its, key=partial(found.throughput, name)) for name, its in known.items()}
        sides = {name: found.cases[key][name] for name, key in best.items()}
        compared.append(sides)
        for name in sorted(keys):
            sizes = ", ".join(f"{key[_BATCH]:.0f}" for key in keys[name])
            if name in best:
                tried = [
                    f"best of batch sizes {sizes}",
                    *found.unlike_sizes(name, best[name], keys[name]),
                ]
                record = found.record(best[name], sides, name, found.rate, *tried)
                records.append({**record, STEP: None})
            else:
                why = f"not known: not each of {sizes} was sustained in the newest run"
                if len(keys[name]) == 1:
                    why = f"not known: measured at batch {sizes} alone"
                own = {**named(keys[name][0]), "batch_size": None, **found.places[name]}
                records.append({**own, "hardware": name, "note": why})
    return found.table(
        BEST_BATCHES,
        f"Hardware at its own best batch size{', sustained' * found.sustained}",
        "Of each hardware the batch size with the highest throughput among those measured. "
        "Speed-up is the mean throughput over that of the reference at its own best; means and "
        "intervals as above. The best is chosen by the same figures, so sizes that lie close "
        "flatter a little.",
        records,
        compared,
        found.speedups(compared, found.rate),
    )


class _Shown(Measured):
    """What the tables show of it."""

    @property
    def sustained(self) -> bool:
        """Whether the sustained throughput ranks the hardware."""
        return self.rate == SUSTAINED

    @property
    def has_sustained(self) -> bool:
        return any(map(self.is_sustained, self.names))

    def is_sustained(self, hardware: str) -> bool:
        every = (sides.get(hardware, ()) for sides in self.cases.values())
        return any(self.units(rows, hardware, SUSTAINED) for rows in every)

    def unlike_sizes(self, name: str, best: Key, keys: Sequence[Key]) -> list[str]:
        """Say what of the software was another one at other batch sizes than the best."""
        chosen, *_ = self.cases[best][name]
        rows = [self.cases[key][name][0] for key in keys]
        others = dict.fromkeys(one for row in rows for one in other_software(row, chosen))
        return [f"the other sizes differ in {', '.join(others)}"] if others else []

    def speedups(self, compared: Sequence[Sides], figure: str) -> _Speedups:
        """Return by hardware, but for the base, the speed-ups of the cases that both have."""
        return {
            name: [one for sides in compared if (one := self.speedup(sides, name, figure))]
            for name in self.others
        }

    def ranked(self, speedups: _Speedups) -> list[str]:
        """Return the hardware, the fastest first; what cannot be compared comes last."""
        values = {self.base: 1.0}
        for name, its_own in speedups.items():
            mean = geometric_mean(_with_intervals(its_own))
            values[name] = mean.value if mean else 0.0
        return sorted(self.names, key=lambda name: (-values[name], name))

    def record(self, key: Key, sides: Sides, name: str, figure: str, *notes: str) -> dict[str, Any]:
        """Return a row: a case on some hardware.

        Args:
            sides: what is held against each other; of the batch sizes of several cases, perhaps.
            figure: whose ratio the speed-up is.
            notes: what is noted besides.
        """
        return {
            **named(key),
            "hardware": name,
            **self.places[name],
            **self.figures(key, name),
            **self.mean(sides, name, figure),
            **_interval(self.speedup(sides, name, figure)),
            "note": "; ".join([*notes, *self.notes(key, sides, name, figure)]),
        }

    def figures(self, key: Key, name: str) -> dict[str, Any]:
        """Return what a table shows of a case on some hardware: figures of the newest run.

        No earlier run's: the step time of a case is the same in every table of a report.
        """
        rows = self.cases[key][name]
        newest = self.newest[key][name]
        step_s, throughput, sustained, joules, loss = (
            median_of(row.get(figure) for row in newest)
            for figure in (STEP, BURST, SUSTAINED, "joules_per_sample", "loss")
        )
        found = {
            "step_time_p50_s": step_s,
            "throughput_samples_per_s": throughput,
            "runs": len({row["source"] for row in rows}),
            "n": len(newest),
            "load": self.load(key, name, self.rate),
            "earlier_load": self.earlier_load(key, name, self.rate),
            "sustained_throughput_samples_per_s": sustained,
            "samples_per_joule": 1 / joules if joules else None,
            "framework": newest[0]["framework"],
        }
        if key[_PRECISION] != "float32" and loss is not None:
            plain = (*key[:_PRECISION], "float32", *key[_PRECISION + 1 :])
            there = [row for row in self.newest.get(plain, {}).get(name, ())
                     if trained_alike(row, newest[0])]  # fmt: skip
            found |= {"loss": loss, "loss_float32": median_of(row.get("loss") for row in there)}
        return found

    def mean(self, sides: Sides, name: str, figure: str) -> dict[str, float]:
        """Return what speed-ups of a case are the quotients of; nothing where it is not known."""
        found = level(self.units(sides[name], name, figure))
        if found is None:
            return {}
        return {"mean_s": found.value} if figure == STEP else {"mean_rate": 1 / found.value}

    def notes(self, key: Key, sides: Sides, name: str, figure: str) -> Iterator[str]:
        """Say what of the comparison to be wary of."""
        rows = sides[name]
        units = self.units(rows, name, figure)
        if figure == SUSTAINED and len(units) < LEAST_PROCESSES:
            yield f"sustained in {counted(len(units), 'process')}" if units else "not sustained"
        elif len(rows) < LEAST_PROCESSES:
            yield f"fewer than {LEAST_PROCESSES} processes"
        if left_out := left_out_text(self.newest[key][name], rows):
            yield left_out
        if figure == STEP and (by_rate := self.by_rate(sides, name)):
            yield f"{BY_RATE} {figure_text(by_rate.value)} times"
        if self.base in sides:
            others = list(other_software(rows[0], sides[self.base][0]))
            if others:
                yield f"{UNLIKE} {self.base}: {', '.join(others)}"

    def table(
        self,
        key: str,
        title: str,
        caption: str,
        records: Sequence[Row],
        compared: Sequence[Sides],
        speedups: _Speedups,
    ) -> Table:
        """Return a table whose first rows are the geometric means; empty for one hardware alone.

        Args:
            compared: the rows of each case that speed-ups are of.
        """
        means = [
            {"model": GEOMETRIC_MEAN, "hardware": name, **self.places[name],
             **_interval(geometric_mean(_with_intervals(speedups[name]))),
             "note": _of_cases(speedups[name], len(compared), self.base)}
            for name in self.ranked(speedups) if name != self.base
        ]  # fmt: skip
        several = bool(self.others and records)
        by_step = key == EQUAL_BATCHES and not self.sustained
        bases = unlike_bases(self, self.others) if by_step else []
        gaps = self._gaps() if key == EQUAL_BATCHES else []
        return table_of(
            key,
            title,
            caption,
            self._headings(),
            [*means, *records] if several else (),
            empty="No case was measured on two machines or devices.",
            lead=[*self._lead(compared, speedups), *bases, *gaps] if several else (),
        )

    def _gaps(self) -> list[str]:
        """Return a line that counts the cases that some hardware lacks, where there are any."""
        total = len(self.cases)
        counts = {name: total - sum(name in sides for sides in self.cases.values())
                  for name in self.names}  # fmt: skip
        lacks = [f"{count:,} on {name}" for name, count in counts.items() if count]
        words = f"Not measured, of {counted(total, 'case')}: {', '.join(lacks)}. Cases that only "
        return [f"{words}one of them has have no row, unless a loss is shown."] if lacks else []

    def _lead(self, compared: Sequence[Sides], speedups: _Speedups) -> list[str]:
        """Return a line for each hardware that is held against the base, and what else to know."""
        ranked = self.ranked(speedups)
        lines = [
            self._against_base(name, speedups[name], self.rate)
            for name in ranked
            if name != self.base
        ]
        single = [name for name in self.names if name not in self.by_run]
        if single:
            lines.append(
                f"Fewer than {LEAST_PROCESSES} runs are alike on {', '.join(single)}: how a "
                "machine differs from run to run is not in the intervals."
            )
        return [*lines, *self._other_rank(compared, speedups)]

    def _other_rank(self, compared: Sequence[Sides], speedups: _Speedups) -> Iterator[str]:
        """Say what the other throughput shows, where both were measured."""
        if not self.has_sustained:
            return
        words = "Burst" if self.sustained else "Sustained"
        rate = BURST if self.sustained else SUSTAINED
        other = self.speedups(compared, rate)
        known = [name for name in self.ranked(other) if other.get(name, True)]
        for name in known:
            if name != self.base:
                yield f"{words}: {self._against_base(name, other[name], rate)}"
        if known != [name for name in self.ranked(speedups) if name in known]:
            yield f"By {words.lower()} throughput the order is another: {', '.join(known)}."
        yield from unlike_times(side for sides in compared for side in sides.items())

    def _loads(self, name: str, rate: str) -> Iterator[str]:
        """Yield each machine with the most other load under which a case was measured that both
        have.
        """
        both = [key for key, sides in self.cases.items() if {name, self.base} <= sides.keys()]
        for one in (name, self.base):
            shares = (of(key, one, rate) for of in (self.load, self.earlier_load) for key in both)
            known = [share for share in shares if share]
            if known:
                yield f"{one} {load_text(max(known))}"

    def _other(self, name: str) -> str:
        """Say what of the software was another one in cases that both machines have."""
        both = [sides for sides in self.cases.values() if {name, self.base} <= sides.keys()]
        pairs = ((sides[name][0], sides[self.base][0]) for sides in both)
        return unlike_words(one for pair in pairs for one in other_software(*pair))

    def _doubt(self, name: str) -> str:
        """Say what of the newest runs of cases that both machines have is not in their ratios."""
        both = [(key, one) for key, sides in self.cases.items()
                if {name, self.base} <= sides.keys() for one in (self.base, name)]  # fmt: skip
        newest = [row for key, one in both for row in self.newest[key][one]]
        used = {id(row) for key, one in both for row in self.cases[key][one]}
        return doubt_words(newest, [row for row in newest if id(row) in used], fact_of)

    def _against_base(self, name: str, speedups: Sequence[Ratio], rate: str) -> str:
        mean = geometric_mean(_with_intervals(speedups))
        if mean is None:
            return f"{name}: no case to compare with {self.base}."
        unsure = ", not distinguishable" * mean.contains_1
        words = f"{name} is {times_text(mean)} times {self.base}{ends_text(mean)}{unsure}"
        ours, theirs = (self.price(one) for one in (name, self.base))
        if ours is not None and theirs is not None:
            share = theirs.per_hour / ours.per_hour
            without = " without energy" * any(one.per_kwh for one in (ours, theirs))
            words += f", {times_text(mean, share)} times per {ours.currency}/h{without}"
            words += ends_text(mean, share)
        words += f"; {intervals_with_1(speedups)}."
        if loads := list(self._loads(name, rate)):
            words += f" Other load: {', '.join(loads)}."
        if other := self._other(name):
            words += f" They differ in {other.removeprefix('other ')}."
        doubt = self._doubt(name)
        return f"{words}{f' Newest runs: {doubt}.' * bool(doubt)}"

    def _headings(self) -> list[Heading]:
        return headings(
            "model task batch_size setting hardware step_time_p50_s throughput_samples_per_s "
            "sustained_throughput_samples_per_s runs load n earlier_load mean_s mean_rate speedup "
            "low high loss loss_float32 samples_per_joule framework note",
            mean_s=("mean step", "seconds"),
            mean_rate=("mean samples/s", "rate"),
            sustained_throughput_samples_per_s=("sustained samples/s", "rate"),
            speedup=("speed-up", "ratio"),
            low=("interval from", "ratio"),
            high=("to", "ratio"),
            loss_float32=("loss at float32", "score"),
            samples_per_joule=("samples/s per W of card", "per_joule"),
        )


def _interval(speedup: Ratio | None) -> dict[str, Any]:
    if speedup is None:
        return {}
    return {"speedup": speedup.value, **speedup.interval.cells}


def _with_intervals(speedups: Sequence[Ratio]) -> Sequence[Ratio]:
    """Return the ratios that have an interval, all where none has."""
    return [one for one in speedups if one.interval.known] or speedups


def _of_cases(speedups: Sequence[Ratio], cases: int, base: str) -> str:
    if not speedups:
        return f"no case to compare with {base}"
    count = len(_with_intervals(speedups))
    without = len(speedups) - count
    less = f" with {LEAST_PROCESSES} processes or runs" * bool(without)
    return f"over {count} of {counted(cases, 'case')}, those that {base} has too{less}"
