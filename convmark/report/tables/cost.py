"""Cost and energy: what a million samples cost on each machine, and training to an accuracy; power
and joules per sample, each with what was counted: a card, CPU packages, the wall.

The interval of a cost is that of the rate; a price is exact, and so is taken what a sample draws.

Figures of different scopes of energy stand in different rows and are not compared: the package's
counter holds no card, the card's no host, and neither the power supply; a wall meter counts them
all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import is_known, median_of
from convmark.core.table import Heading, Table, headings, table_of
from convmark.core.tasks import TIMED_TASKS
from convmark.core.text import counted, load_text
from convmark.report.comparison import Comparison, Price
from convmark.report.measured import (
    BURST,
    SUSTAINED,
    Key,
    Measured,
    Row,
    named,
    unlike_bases,
    unlike_times,
)
from convmark.report.ratios import LEAST_PROCESSES, Units, level
from convmark.report.rows import left_out_text, newest_rows, setting, text_of
from convmark.report.tables.accuracy import load_of, trainings
from convmark.results.record import large_load

if TYPE_CHECKING:
    import pandas as pd

COST, TRAINING_COST = "cost", "training_cost"
NOT_MEASURED = "not measured"
RENT, WALL = "in the rent", "wall"
WHOLE = {RENT, WALL}
"""Scopes that hold all that a machine draws."""


def cost_tables(frame: pd.DataFrame, comparison: Comparison) -> list[Table]:
    """Return what samples and what trainings cost; none without prices."""
    if not comparison.prices:
        return []
    timed = frame[frame["task"].isin(TIMED_TASKS)]
    return [_of_samples(Measured.of(timed, comparison)), _of_training(frame, comparison)]


def _of_samples(found: Measured) -> Table:
    """Return one row per case and hardware that has a price, the cheapest first."""
    records: list[dict[str, Any]] = []
    compared: list[tuple[str, Sequence[Row]]] = []
    bursts: set[str] = set()
    for key, sides in sorted(found.cases.items(), key=itemgetter(0)):
        costs = [
            {**named(key), **found.places[name], "hardware": name, **figures}
            for name, rows in sides.items()
            if (figures := _figures(found, key, name, rows))
        ]
        records += sorted(costs, key=itemgetter("cost"))
        if len(costs) > 1:
            compared += [(name, rows) for name, rows in sides.items() if found.price(name)]
            without = {str(cost["hardware"]) for cost in costs if not cost["was_sustained"]}
            if len(without) < len(costs):
                bursts |= without
    priced = [one for one in found.others if found.price(one)]
    currency = _currency(found.comparison)
    unit = f"{currency} per million samples"
    scopes = {str(record["energy"]) for record in records}
    scope = f", energy: {scopes.pop()}" if len(scopes) == 1 else ""
    return table_of(
        COST,
        f"Cost of a million samples in {currency}{scope}",
        "Price of the whole machine divided by its throughput, whichever of its devices is busy; "
        "for a bought machine also the energy of a sample, idle power included. By is the "
        "throughput that is used: sustained if it was measured and is the lower one, otherwise "
        "burst. Energy is what was counted: wall is all that the machine draws, card and package "
        "are parts of it. The throughput is the geometric mean over runs or processes, with its "
        f"95 % interval from {LEAST_PROCESSES} of them on; the price is taken as exact.",
        headings(
            "model task batch_size setting hardware cost low high by energy joules load n "
            "earlier_load framework note",
            cost=(f"{currency} per million", "number", unit),
            low=("interval from", "number", unit),
            high=("to", "number", unit),
            joules=("J/sample", "joules"),
        ),
        records,
        lead=[
            *_prices(found.comparison),
            *_unpriced((str(one["machine"]) for one in found.places.values()), found.comparison),
            *_unlike(records),
            *_of_bursts(bursts),
            *unlike_times(compared),
            *(unlike_bases(found, priced) if found.rate == BURST else []),
        ],
    )


def _figures(found: Measured, key: Key, name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the samples of a case cost; none without a price or a throughput."""
    price = found.price(name)
    burst, sustained = (found.units(rows, name, figure) for figure in (BURST, SUSTAINED))
    times = [one for one in (level(burst), level(sustained)) if one is not None]
    if price is None or not times:
        return {}
    slowest = max(times, key=lambda one: one.value)
    by = "sustained" if sustained and slowest is times[-1] else "burst"
    machines = _machines(rows[0])
    scope, joules = _energy(rows) if price.per_kwh else (RENT, None)
    units, rate = (sustained, SUSTAINED) if by == "sustained" else (burst, BURST)
    left_out = left_out_text(found.newest[key][name], rows).replace("speed-up", "cost")

    def cost(seconds_per_sample: float) -> float:
        return price.per_million(seconds_per_sample * machines, joules or 0.0)

    return {
        "cost": cost(slowest.value),
        **slowest.interval.mapped(cost).cells,
        "by": by,
        "energy": scope,
        "joules": joules,
        "load": found.load(key, name, rate),
        "earlier_load": found.earlier_load(key, name, rate),
        "n": len(units),
        "framework": rows[0]["framework"],
        "note": "; ".join([*_notes(units, machines, scope, by), *filter(None, [left_out])]),
        "was_sustained": bool(sustained),
    }


def _notes(units: Units, machines: int, scope: str, by: str) -> Iterator[str]:
    if len(units) < LEAST_PROCESSES:
        yield f"no interval: {by} throughput of {counted(len(units), 'process')}"
    if machines > 1:
        yield f"price of {machines} machines"
    if scope == NOT_MEASURED:
        yield "energy is not in it"
    elif by == "sustained" and scope not in WHOLE:
        yield "energy is that of the burst"


def _machines(row: Row) -> int:
    cluster = text_of(row.get("cluster"))
    return int(cluster.removeprefix("hosts")) if cluster.startswith("hosts") else 1


def _energy(rows: Sequence[Row]) -> tuple[str, float | None]:
    """Return what was counted, and the joules of a sample: the wall's, or all parts' together."""
    wall = median_of(row.get("wall_joules_per_sample") for row in rows)
    if wall is not None:
        return WALL, wall
    package = next(filter(None, (text_of(row.get("cpu_power_scope")) for row in rows)), "")
    parts = {
        "card": median_of(row.get("joules_per_sample") for row in rows),
        package: median_of(
            row.get("cpu_joules_per_sample")
            for row in rows
            if text_of(row.get("cpu_power_scope")) == package
        ),
    }
    known = {scope: joules for scope, joules in parts.items() if joules is not None}
    return " and ".join(known) or NOT_MEASURED, sum(known.values()) if known else None


def _currency(comparison: Comparison) -> str:
    return next(iter(comparison.prices.values())).currency


def _prices(comparison: Comparison) -> list[str]:
    prices = [str(one) for _, one in sorted(comparison.prices.items())]
    return [f"Prices: {'; '.join(prices)}."]


def _unpriced(machines: Iterable[str], comparison: Comparison) -> list[str]:
    """Say which machines are left out, for they have no price."""
    left = sorted(set(machines) - set(comparison.prices))
    if not left:
        return []
    return [f"No price, so left out: {', '.join(left)}. Give each a table in the file of --prices."]


def _unlike(records: Sequence[Row]) -> list[str]:
    """Say where costs are not of the same parts of a machine."""
    scopes = {str(record["energy"]) for record in records}
    if len(scopes) < 2 or scopes <= WHOLE:
        return []
    return [
        f"Not all costs contain the same energy ({', '.join(sorted(scopes))}): compare costs of "
        "one scope only, or measure bought machines with a wall meter (--power-log)."
    ]


def _of_bursts(hardware: Collection[str]) -> list[str]:
    """Say which costs are of the burst alone beside others of sustained throughput."""
    if not hardware:
        return []
    return [
        f"Not sustained on {', '.join(sorted(hardware))}, while others were in the "
        "same case: a machine that becomes slower after minutes looks cheaper there; "
        "measure all with the same --sustain."
    ]


def _of_training(frame: pd.DataFrame, comparison: Comparison) -> Table:
    """Return one row per training on data: the cost of an epoch, and to the target accuracy."""
    currency = _currency(comparison)
    records = [
        record
        for first, rows in trainings(frame)
        if (record := _training_record(first, rows, comparison.prices))
    ]
    records.sort(key=lambda record: (record["model"], record["cost_epoch"]))
    return table_of(
        TRAINING_COST,
        f"Cost of training in {currency}, without energy",
        "Price of the whole machine for the training time of an epoch, and of all epochs up to "
        "the end of the first whose validation accuracy reached the target, without starting, "
        "validation and energy. The 95 % interval is that of the time over the seeds, from "
        f"{LEAST_PROCESSES} of them on; the price is taken as exact.",
        headings(
            "model hardware setting framework cost_epoch epoch_low epoch_high target cost_target "
            "target_low target_high load reached seeds note",
            cost_epoch=(f"{currency} per epoch", "number", currency),
            epoch_low=("interval from", "number", currency),
            epoch_high=("to", "number", currency),
            target=("target", "number"),
            cost_target=(f"{currency} to the target", "number", currency),
            target_low=("interval from", "number", currency),
            target_high=("to", "number", currency),
            reached="reached it",
            seeds=("seeds", "count"),
        ),
        records,
        lead=[
            *_prices(comparison),
            *_unpriced((str(first["machine"]) for first, _ in trainings(frame)), comparison),
        ],
    )


def _training_record(
    first: Mapping[str, Any], rows: pd.DataFrame, prices: Mapping[str, Price]
) -> dict[str, Any]:
    """Return what a training costs; none without a price or a time."""
    price = prices.get(str(first["machine"]))
    epoch = level(_by_seed(rows, "epoch_time_s"))
    if price is None or epoch is None:
        return {}
    target = level(reached := _by_seed(rows, "time_to_target_s"))
    part = "" if first["fraction"] == 1 else f"{load_text(first['fraction'])} of the data"
    batch = f"batch {int(first['batch_size'])}"
    found = {
        **first,
        "setting": ", ".join(filter(None, [batch, part, setting(first)])),
        "cost_epoch": price.of_seconds(epoch.value),
        "target": first["target_accuracy"],
        "cost_target": price.of_seconds(target.value) if target else None,
        "load": load_of(rows),
        "reached": f"{len(reached)} of {len(rows)}",
        "seeds": len(rows),
        "note": "the target's cost is of the seeds that reached it alone"
        if 0 < len(reached) < len(rows)
        else "",
    }
    for name, time in (("epoch", epoch), ("target", target)):
        ends = time.interval.mapped(price.of_seconds).cells if time else {}
        found |= {f"{name}_{end}": value for end, value in ends.items()}
    return found


def _by_seed(rows: pd.DataFrame, column: str) -> Units:
    known = rows[rows[column] > 0]
    return {seed: [time] for seed, time in zip(known["seed"], known[column], strict=True)}


# -- energy ----------------------------------------------------------------------------------------


ENERGY_HEADINGS: tuple[Heading, ...] = tuple(
    headings(
        "scope power_w idle_w gross_j above_idle_j samples_per_joule",
        power_w=("W", "number", "W"),
        idle_w=("idle W", "number", "W"),
        gross_j=("J/sample", "joules"),
        above_idle_j=("above idle", "joules"),
        samples_per_joule=("samples/s per W", "per_joule"),
    )
)
_CARD = ("power_w", "idle_power_w", "joules_per_sample")
_PACKAGE = ("cpu_power_w", "cpu_idle_power_w", "cpu_joules_per_sample")
_COUNTED = (_CARD[-1], _PACKAGE[-1])
_WALL = "wall_joules_per_sample"
ENERGY_COLUMNS = (*_CARD, "cpu_power_scope", *_PACKAGE)


def of_scopes(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the energy of each scope that a case was measured in.

    Above idle is the energy less what the idle power takes in the sample's share of the time.
    """
    machines = _machines(row)
    rate = _known(row.get("throughput_samples_per_s"))
    for scope, names in (("card", _CARD), (text_of(row.get("cpu_power_scope")), _PACKAGE)):
        power_w, idle_w, gross_j = (_known(row.get(name)) for name in names)
        if gross_j is None:
            continue
        above_j = gross_j - idle_w * machines / rate if idle_w is not None and rate else None
        yield {
            "scope": scope,
            "power_w": power_w,
            "idle_w": idle_w,
            "gross_j": gross_j,
            "above_idle_j": above_j if above_j is not None and above_j > 0 else None,
            "samples_per_joule": 1 / gross_j if gross_j else None,
        }
    wall_j = _known(row.get(_WALL))
    if wall_j is not None:
        yield {
            "scope": "wall",
            "n": None,  # not all processes of the case may be joined
            **_load_meanwhile(row),
            "power_w": _known(row.get("wall_power_w")),
            "idle_w": _known(row.get("wall_idle_power_w")),
            "gross_j": wall_j,
            "above_idle_j": _known(row.get("wall_above_idle_joules_per_sample")),
            "samples_per_joule": 1 / wall_j if wall_j else None,
        }


def _load_meanwhile(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other programs' share of the sustained steps, whose power the wall's is."""
    share = _known(row.get("sustained_other_cpu_share"))
    if _known(row.get("sustained_throughput_samples_per_s")) is None:
        return {}
    return {"load": large_load([share])}


def _newest(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the newest figures of each case; those of the wall of the newest run that has some."""
    wall = table[table[_WALL].notna()] if _WALL in table else table.iloc[:0]
    joined = {(row["hardware"], row["case"]): row for row in newest_rows(wall)}
    for row in newest_rows(table):
        earlier = joined.pop((row["hardware"], row["case"]), row)
        yield row
        if earlier["source"] != row["source"]:
            yield {name: value for name, value in earlier.items() if name not in _COUNTED}


def _known(value: Any) -> float | None:
    return float(value) if is_known(value) else None


def energy(table: pd.DataFrame, lead: Sequence[str] = ()) -> Table:
    """Return the newest energy of each case, a row for each scope."""
    return table_of(
        "energy",
        "Energy",
        "Medians over n processes, in the windows in which throughput is measured. Scope is what "
        "was counted: card is the whole GPU card, package is the CPU package with all programs "
        "that run on it, dram is its memory; fans, disks and losses of the power supply are not "
        "included. wall is what the machine draws from the mains, in the last quarter of the "
        "sustained steps if there are any. Rows of different scopes are not comparable. Idle is "
        "the power before the run; above idle is the energy without it.",
        [
            *headings("model task batch_size setting hardware"),
            *ENERGY_HEADINGS,
            *headings("load doubts n run framework"),
        ],
        [{**row, **one} for row in _newest(table) for one in of_scopes(row)],
        lead=lead,
    )
