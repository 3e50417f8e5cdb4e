"""Ceilings of each device, measured once per machine and saved: results/<machine>/ceilings.csv.

A ceiling is of a device and its card, a backend, a precision, a number of threads, the CPUs that
the process is bound to, and the variables that may change speed. A row is compared with it, never
judged by it. One that rows exceed is measured once more, for it may be of a slow moment; the higher
one counts. To measure anew, remove the file.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.cells import column
from convmark.core.errors import StoreError
from convmark.core.runtimes import RUNTIME_PRECISIONS
from convmark.core.text import Say, load_text
from convmark.interpreter import Answer
from convmark.machine.cautions import speed_flags
from convmark.machine.gpu.cards import CardsWatch, card_of, watching
from convmark.machine.hardware import Machine
from convmark.results.record import BUSY_SHARE, Record
from convmark.results.table_file import TableFile

Key = tuple[str, str, str, str, str | None]
"""Device, backend, precision, threads and the CPUs that the process is bound to."""

Under = Callable[[str], tuple[str | None, str | None]]
"""Tells of a device the card that it is now, and the variables that may change speed."""

WatchOf = Callable[[Case], AbstractContextManager[CardsWatch]]
"""Looks at the cards of a case until its block ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One row of the file."""

    measured: str = column("when it was measured", "UTC, ISO 8601")
    device: str = column("cpu or gpu:N")
    backend: str = column("framework that ran it")
    precision: str = column("as in a case")
    threads: str = column("threads asked for, or default")
    version: str = column("version of the framework")
    matrix_size: int = column("rows and columns of the matrices", bounds="above 0")
    peak_flops_per_s: float = column(
        "of the product of two square matrices", "FLOP/s", bounds="above 0"
    )
    copy_bytes: int = column("size of what was copied", "bytes", bounds="above 0")
    peak_bytes_per_s: float = column("read and written by the copy", "bytes/s", bounds="above 0")
    cpus: str | None = column("as in a case", default=None)
    card: str | None = column("name and power limit of a GPU's card", default=None, since=6)
    flags: str | None = column(
        "variables that may change speed, as in a row", default=None, since=6
    )

    def __post_init__(self) -> None:
        for name in ("peak_flops_per_s", "peak_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise StoreError(
                    f"{self.device}: {name} must be above 0, got {getattr(self, name)}"
                )

    @property
    def key(self) -> Key:
        """What the ceiling was measured for."""
        return self.device, self.backend, self.precision, self.threads, self.cpus


_COLUMNS = [one.name for one in dataclasses.fields(Ceiling)]
TABLE = TableFile(Ceiling, _COLUMNS[:-2], _COLUMNS[:-3])
"""Earlier files do not tell cards and variables, and of the first no process was bound."""


def conditions(machine: Machine, environ: Mapping[str, str]) -> Under:
    """Return what tells the card of each device, and the variables, under which it is measured."""
    flags = speed_flags(environ) or None

    def told(device: str) -> tuple[str | None, str | None]:
        card = card_of(device, machine.gpus, environ)
        if card is None:
            return None, flags
        limit_w = card.gpu.power_limit_w
        return f"{card.name}, {limit_w:g} W" if limit_w else card.name, flags

    return told


def unknown(device: str) -> tuple[None, None]:
    """Tell nothing, as files of earlier versions do."""
    return None, None


def key_of(case: Case) -> Key:
    """Return whose ceiling a case is under."""
    return case.device, case.backend, case.precision, case.threads, case.cpus


def ceilings_path(results: Path, machine: str) -> Path:
    return results / machine / "ceilings.csv"


def all_ceilings(path: Path) -> list[Ceiling]:
    """Return all ceilings of a file; none where there is no file.

    Of precisions that runtimes alone have there is none: an earlier version measured a framework's
    float32 for them.
    """
    return [one for one in TABLE.read(path) if one.precision not in RUNTIME_PRECISIONS]


def read_ceilings(
    path: Path, under: Under = unknown, quota: float | None = None
) -> dict[Key, Ceiling]:
    """Return those measured on such cards and under such variables, each key's highest.

    Args:
        quota: CPUs' worth of time that this process may use, where that is less than all: what a
            CPU reaches then is no ceiling of the machine, so none of it is taken from the file.
    """
    found = sorted(_measured_under(path, under), key=lambda one: one.peak_flops_per_s)
    return {one.key: one for one in found if quota is None or one.device != "cpu"}


def _measured_under(path: Path, under: Under) -> list[Ceiling]:
    return [
        one
        for one in all_ceilings(path)
        for card, flags in [under(one.device)]
        if one.flags == flags and _is_same_card(one.card, card)
    ]


_LIMIT = re.compile(r"(.*), ([0-9.]+) W")
ALIKE_LIMITS = 0.02
"""Power limits that differ by no more are the same: an enforced one moves by a watt by itself."""


def _is_same_card(one: str | None, other: str | None) -> bool:
    ours, theirs = (_LIMIT.fullmatch(card or "") for card in (one, other))
    if one == other or not ours or not theirs or ours[1] != theirs[1]:
        return one == other
    return alike_limits(float(ours[2]), float(theirs[2]))


def alike_limits(one_w: float, other_w: float) -> bool:
    """Whether two power limits are the same one."""
    return abs(one_w - other_w) <= ALIKE_LIMITS * max(one_w, other_w)


def exceeded(records: Iterable[Record], path: Path, under: Under = unknown) -> list[Case]:
    """Return a case of each ceiling that rows exceed, and that was measured only once so far.

    It may have been measured on a hot or shared card. Or the rows are of convolutions that multiply
    less often than is counted (Winograd): then to measure it once more tells. Not beside rows of a
    busy CPU: its ceiling would be that of what others left.
    """
    known = read_ceilings(path, under)
    times = Counter(one.key for one in _measured_under(path, under))
    cases = {
        key_of(one.case): one.case
        for one in records
        if (ceiling := known.get(key_of(one.case)))
        and ceiling.peak_flops_per_s == one.peak_flops_per_s  # under a quota it has another
        and (one.efficiency or 0.0) > 1
        and (one.device != "cpu" or (one.other_cpu_share or 0.0) <= BUSY_SHARE)
    }
    return [case for key, case in cases.items() if times[key] == 1]


def efficiency(case: Case, work: int, throughput: float, ceiling: Ceiling) -> float:
    """Return FLOP/s reached / the peak of all devices that the case runs on, dimensionless.

    Replicas on a GPU have one each; those on a CPU share it.

    Args:
        work: FLOPs of a step per sample, in training those of the backward pass too.
        throughput: samples/s.
    """
    devices = case.machines if case.device == "cpu" else case.replicas
    return work * throughput / (devices * ceiling.peak_flops_per_s)


def gather(
    cases: Sequence[Case],
    ask: Callable[..., Answer],
    path: Path,
    *,
    which: str,
    say: Say,
    quota: float | None = None,
    under: Under = unknown,
    watch: WatchOf = lambda case: watching(()),
    again: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> dict[Key, Ceiling]:
    """Return the ceilings of the cases' devices; those that are missing are measured and kept.

    Not where other programs took the CPUs or the card, or heat or a brake slowed the card: but one
    that is measured once more, which counts only where it is higher.

    Args:
        ask: has a request served by a worker, and hands its events on.
        which: `on` measures all that are missing, `auto` those of GPUs, `off` none.
        say: is told of each that is measured or cannot be.
        quota: as of `read_ceilings`; none of a CPU is kept either.
        under: the cards of today, and the variables of the process.
        watch: looks at the cards meanwhile.
        again: measures those of the file once more too.
    """
    known = read_ceilings(path, under, quota)
    before = known if again else {}
    if again:
        known, which = {}, which if which == "off" else "on"
    tried = missing(cases, known, which)
    for case in tried:
        device, backend, precision, *_ = key_of(case)
        times = "once more: rows exceed them" if again else "once"
        say(f"measuring the ceilings of {device} in {precision} by {backend}, {times}")
        with watch(case) as cards:
            answer = ask(ceiling_request(case), cards.see)
        ceiling = ceiling_of(case, answer, now(), under)
        if ceiling is None:
            say(f"no ceilings of {device} in {precision}: {answer.status}: {answer.message}")
            continue
        earlier = before.get(ceiling.key)
        if (why := _disturbed(case, answer, cards)) and earlier is None:
            say(f"ceilings of {device} are not saved: {why}")
            continue
        if case.device == "cpu" and quota is not None:
            say(f"ceilings of {device} are not saved: they are of a CPU quota of {quota:g} CPUs")
        else:
            keep_ceilings(path, [ceiling])
        if earlier is not None:
            rates = f"{ceiling.peak_flops_per_s:.3g} FLOP/s, before {earlier.peak_flops_per_s:.3g}"
            say(f"ceilings of {device} in {precision}: now {rates}; later runs have the higher")
        known[ceiling.key] = ceiling
    if line := _no_efficiency(cases, {*known, *before, *map(key_of, tried)}, path):
        say(line)
    return known


def _no_efficiency(cases: Iterable[Case], counted: Collection[Key], path: Path) -> str:
    """Return which devices have ceilings in the file, but none that counts; empty for none."""
    others = {one.key for one in all_ceilings(path)}.difference(counted)
    left = [one for one in cases if key_of(one) in others]
    names = ", ".join(dict.fromkeys(f"{one.device} in {one.precision}" for one in left))
    line = (
        f"no efficiency of {names}: the ceilings in {path} are of another card, CPU quota or "
        "variables that may change speed; --ceilings on measures today's"
    )
    return line if left else ""


def _disturbed(case: Case, answer: Answer, cards: CardsWatch) -> str:
    """Return what kept a device from its ceiling meanwhile; empty for nothing that is known."""
    if case.device != "cpu":
        return str(cards.columns(1).get("not_judged") or "")
    share = (answer.event("state") or {}).get("other_cpu_share") or 0.0
    return f"other programs took {load_text(share)} of the CPUs' time" if share > BUSY_SHARE else ""


def keep_ceilings(path: Path, ceilings: Iterable[Ceiling]) -> None:
    """Append ceilings to the file."""
    wanted = list(ceilings)
    if any(one.cpus or one.card or one.flags for one in wanted):
        TABLE.lift(path)  # earlier columns have no place for them
    TABLE.append(path, wanted)


def ceiling_request(case: Case, *, sizes: int | None = None) -> dict[str, Any]:
    """Return the request for the ceilings of a case's device.

    Args:
        sizes: how many of the sizes are tried at most: for a look that is not kept.
    """
    return {"kind": "ceiling", "case": case.as_fields(), "seed": 0, "sizes": sizes}


def missing(cases: Iterable[Case], known: Mapping[Key, Ceiling], which: str) -> Sequence[Case]:
    """Return one case of each key that is to be measured, of precisions that a framework has."""
    if which == "off":
        return []
    wanted = {
        key_of(case): dataclasses.replace(case, replicas=1, cluster=None)
        for case in cases
        if (which == "on" or case.device != "cpu") and case.precision not in RUNTIME_PRECISIONS
    }
    return [case for key, case in wanted.items() if key not in known]


def ceiling_of(case: Case, answer: Answer, now: datetime, under: Under = unknown) -> Ceiling | None:
    """Return what a worker measured, None where it did not."""
    product, copy = answer.event("product"), answer.event("copy")
    versions = answer.event("environment")
    if answer.status != "ok" or product is None or copy is None or versions is None:
        return None
    card, flags = under(case.device)
    return Ceiling(
        measured=now.isoformat(timespec="seconds"),
        device=case.device,
        backend=case.backend,
        precision=case.precision,
        threads=case.threads,
        cpus=case.cpus,
        version=str(versions[case.backend]),
        matrix_size=product["matrix_size"],
        peak_flops_per_s=product["flops_per_s"],
        copy_bytes=copy["copy_bytes"],
        peak_bytes_per_s=copy["bytes_per_s"],
        card=card,
        flags=flags,
    )
