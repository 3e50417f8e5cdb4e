"""Energy: power and joules per sample, each with what was counted: a card, CPU packages, the wall.

Figures of different scopes stand in different rows and are not compared: the package's counter
holds no card, the card's no host, and neither the power supply; a wall meter counts them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import is_known
from convmark.core.table import Heading, Table, headings, table_of
from convmark.report.rows import newest_rows, text_of
from convmark.results.record import large_load

if TYPE_CHECKING:
    import pandas as pd

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
    cluster = text_of(row.get("cluster"))
    machines = int(cluster.removeprefix("hosts")) if cluster.startswith("hosts") else 1
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
    """Return the newest energy of each case, a row for each scope.

    Args:
        lead: what is to be said of the wall meters' logs.
    """
    return table_of(
        "energy",
        "Energy",
        "Medians over n processes, in the windows in which throughput is measured. "
        "Scope is what was counted: card is the whole GPU card, package is the CPU "
        "package with all programs that run on it, dram is its memory; fans, disks "
        "and losses of the power supply are not included. wall is what the machine "
        "draws from the mains, in the last quarter of the sustained steps if there "
        "are any. Rows of different scopes are not comparable. Idle is the power "
        "before the run; above idle is the energy without it.",
        [
            *headings("model task batch_size setting hardware"),
            *ENERGY_HEADINGS,
            *headings("load n run framework"),
        ],
        [{**row, **one} for row in _newest(table) for one in of_scopes(row)],
        lead=lead,
    )
