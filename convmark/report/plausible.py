"""Whether a row can have been measured: its hardware, its rates, and the rules of measurement.

Each function yields the rule that a row breaks, a key of `REMEDIES`, and the value. What a row
leaves empty breaks none of the rules of figures; `left_empty` says what it may not leave empty.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from convmark.core.runtimes import (
    DEFAULT_RUNTIME,
    ERROR_BOUNDS,
    RUNTIME_PRECISIONS,
    runtime_of_file,
)
from convmark.core.statistics import is_known
from convmark.core.tasks import TIMED_TASKS
from convmark.machine.hardware import has_other_cards, machine_name
from convmark.report.plausible_card import MOST_CARD_W, of_card
from convmark.results.record import BUSY_SHARE, COLUMNS, FRAMEWORK_COLUMNS, MEASURED
from convmark.results.schema import MEASUREMENT_VERSION
from convmark.worker.timing import (
    MAX_STEPS,
    MIN_ROUNDS,
    MIN_STEPS,
    MIN_WINDOW_S,
    MIN_WINDOWS,
    enough_steps,
)

WINOGRAD = 2.25
"""By so much convolutions may be faster than matrix products, for they multiply less often.

Source:
    Lavin and Gray (2016), "Fast Algorithms for Convolutional Neural Networks": F(2x2, 3x3).
"""

HIGHEST: Mapping[tuple[str, bool], float] = {
    ("cpu", False): 0.5e12,  # per logical CPU: two FMA units of 512 bits at 4.5 GHz are 0.29e12
    ("cpu", True): 6e12,  # a matrix unit of 2,048 FLOPs a cycle at 2.5 GHz is 5e12
    ("gpu", False): 1.5e14,  # per card: the fastest of 2025 has 1.05e14
    ("gpu", True): 5e15,
}
"""FLOP/s that no device exceeds, by its kind and whether it computes in less than float32."""

MOST_CORES = 1024
"""Of a row that does not say how many."""

RATES_APART = 3
"""Throughput times the median step time over the samples of a step. Windows do not wait after each
step, so their rate may be higher. In 3,240 rows measured on CPUs and an H100 while other programs
took less than 10 % of the CPUs' time it was 0.61 to 1.86."""

LEAST_RATE = 0.55
"""The same where it is least: a batch that is called twice as large has half of it."""

RATIOS_APART = 1.5
"""A mean ratio over rounds from that of the medians; in 78 rows it was 0.95 to 1.08."""

SAME = 1.01
"""Of figures that follow from each other."""

HIGHEST_BYTES: Mapping[str, float] = {"cpu": 5e12, "gpu": 2e13}
"""Bytes/s that no device copies, by its kind: the fastest card of 2025 has 8e12, and two sockets of
twelve channels each 1.2e12."""

NO_CARD = "a card without a name"

MOST_GPUS = 16
"""Cards of one kind in a machine."""

OLDEST_LOOPS = 2
"""The version of the measuring code from which steps and windows are counted as today."""

OLDER_WINDOW_S, SHORTER_WINDOWS = 0.06, 6
"""Of the versions before the second: what windows then lasted at least, in the mean."""

ROUNDING = 1e-6

Row = Mapping[str, Any]
Found = Iterator[tuple[str, str]]


def there(row: Row, *names: str) -> bool:
    """Whether a row has a value in each of the columns."""
    return all(is_known(row[name]) for name in names)


def implausible(row: Row) -> Found:
    """Yield what of a row cannot be."""
    yield from _hardware(row)
    for name, (kind, form) in _FORMS.items():
        if row[name] and not form.fullmatch(row[name]):
            yield "format", f"{name} is no {kind}, {row[name][:60]}"
    if row["status"] not in MEASURED:
        return
    yield from beyond_ceilings(row)
    yield from of_card(row)
    yield from _export(row)
    if row["task"] not in TIMED_TASKS:
        return
    yield from _rates(row)
    yield from _of_the_process(row)
    yield from _efficiency(row)
    yield from _energy(row)
    not_timed = _UNTIMED + (_EXPORTED if _runtime(row) == DEFAULT_RUNTIME else ())
    others = [name for name in not_timed if there(row, name)]
    if others:
        yield "contradicts", f"{others[0]} {row[others[0]]}, which the task {row['task']} has not"
    if row["measurement_version"] not in map(str, range(OLDEST_LOOPS, MEASUREMENT_VERSION + 1)):
        found = row["measurement_version"] or "empty"
        yield (
            "measuring code",
            f"measurement_version {found[:60]}, today's is {MEASUREMENT_VERSION}",
        )
    yield from _left_empty(row)
    yield from _not_measured_so(row)


# -- the hardware ----------------------------------------------------------------------------------


_CPUS = re.compile(r"-([0-9]{1,6})cpu-")
_FINGERPRINT = re.compile(r"(?P<words>.*)-[0-9a-f]{8}")


def _hardware(row: Row) -> Found:
    """Yield a machine that has not the CPU, cores, memory and card that the row names."""
    if not there(row, "machine", "cpu", "cores", "ram_bytes"):
        yield "machine", "machine, cpu, cores or ram_bytes is empty"
        return
    cores, of_name = int(row["cores"]), _CPUS.search(row["machine"])
    if row["cpus"] and of_name:  # the process was bound to some of them
        cores = max(cores, int(of_name[1]))
    gpu = row["gpu"] or (NO_CARD if row["device"].startswith("gpu") else None)
    facts = (row["machine"], row["cpu"], cores, int(row["ram_bytes"]), gpu)
    if named := _other_machine(*facts):
        yield "machine", f"{facts[0]}, its CPU, logical CPUs, memory and card are of {named}"


@functools.lru_cache(maxsize=4096)
def _other_machine(found: str, cpu: str, cores: int, ram_bytes: int, gpu: str | None) -> str:
    """Return the machine that the facts are of; empty where it may be the named one."""
    alone, *others = (
        machine_name(cpu=cpu, cores=cores, ram_bytes=ram_bytes, gpu_names=[gpu or ""] * number)
        for number in range(MOST_GPUS + 1 if gpu else 1)
    )
    if found in others or (found == alone and (not gpu or cpu.startswith("Apple"))):
        return ""  # Apple's GPU is part of the chip that the CPU is named after
    fingerprint, own = _FINGERPRINT.fullmatch(found), _FINGERPRINT.fullmatch(alone)
    words = fingerprint["words"] if fingerprint else ""
    if own and gpu in (None, "", NO_CARD) and words.startswith(f"{own['words']}-"):
        return ""  # it has a card that is not the row's device
    if gpu and has_other_cards(found, alone, gpu):
        return ""
    return others[0] if others else alone


_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*[0-9A-Za-z.+_-]{0,40}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{16}")
_FORMS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "device": ("device", re.compile(r"cpu|gpu:[0-9]{1,3}")),
    **dict.fromkeys(
        ("convmark", "python", *FRAMEWORK_COLUMNS, "keras", "numpy"), ("version", _VERSION)
    ),
    "commit": ("commit", _COMMIT),
    "code": ("hash of a code", _HASH),
}
"""By column what it is, and how such a one is written: the newest version stands first in tables,
and a commit and a code say what ran."""


# -- the rates -------------------------------------------------------------------------------------


def _flops(row: Row) -> float:
    """Return the FLOPs of a sample, 0 where they are not known."""
    names = ("training_flops_per_sample", "flops_per_sample")
    return next((row[name] for name in names[row["task"] != "train" :] if there(row, name)), 0)


def highest_flops(device: str, precision: str, cores: float = MOST_CORES) -> float:
    """Return FLOP/s that no device of the kind exceeds; of a CPU with so many logical CPUs."""
    kind, low = device.partition(":")[0], precision not in ("float32", "float64")
    return HIGHEST.get((kind, low), HIGHEST["gpu", True]) * (cores if kind == "cpu" else 1)


def beyond_ceilings(row: Row) -> Found:
    """Yield a rate beyond the device's measured ceiling, or beyond what any device reaches."""
    flops = _flops(row)
    kind = row["device"].partition(":")[0]
    devices = row["replicas"] if kind == "gpu" or row["cluster"] else 1  # of a CPU they share it
    cores = row["cores"] if there(row, "cores") else MOST_CORES
    highest = highest_flops(row["device"], row["precision"], cores)
    peak = row["peak_flops_per_s"]
    if peak > highest:
        yield "ceiling", f"peak_flops_per_s {peak:.3g}, the highest plausible is {highest:.3g}"
    most = WINOGRAD * devices * (min(peak, highest) if peak == peak else highest)
    copied = HIGHEST_BYTES.get(kind, HIGHEST_BYTES["gpu"])
    if row["peak_bytes_per_s"] > copied:
        words = f"peak_bytes_per_s {row['peak_bytes_per_s']:.3g}"
        yield "ceiling", f"{words}, the highest plausible is {copied:.3g}"
    for name, rate in _rates_of(row).items():
        if flops * rate > most:
            yield "ceiling", f"{name}: {flops * rate:.3g} FLOP/s, at most {most:.3g} are plausible"
            return


_UNTIMED = tuple(
    column.name
    for column in COLUMNS
    if column.group in ("learning", "waterfall") or column.name == "accuracy"
)
_EXPORTED = tuple(column.name for column in COLUMNS if column.group == "export")


def _rates_of(row: Row) -> dict[str, float]:
    """Return the samples/s that a row claims, by what claims them."""
    samples = row["batch_size"] * row["replicas"]
    found = {
        "throughput_samples_per_s": row["throughput_samples_per_s"],
        "step_time_p50_s": samples / row["step_time_p50_s"],
        "input_bound_throughput_samples_per_s": row["input_bound_throughput_samples_per_s"],
        "sustained_throughput_samples_per_s": row["sustained_throughput_samples_per_s"],
        "latency_limit_rate_per_s": row["latency_limit_rate_per_s"],
    }
    return {name: rate for name, rate in found.items() if rate == rate}


def _rates(row: Row) -> Found:
    """Yield figures that contradict each other; a busy machine may part them."""
    if row["other_cpu_share"] >= BUSY_SHARE or not there(row, "step_time_p50_s"):
        return
    samples = row["batch_size"] * row["replicas"]
    rates = _rates_of(row)
    expected = rates.pop("step_time_p50_s")
    for name, rate in rates.items():
        least = LEAST_RATE if name == "throughput_samples_per_s" else 0
        if not least <= rate / expected <= RATES_APART:
            words = f"{rate:.4g} samples/s, of {samples:.0f} in {row['step_time_p50_s']:.3g} s"
            yield "contradicts", f"{name}: {words} {expected:.4g} follow"
    paired, reference = row["paired_step_time_p50_s"], row["reference_step_time_p50_s"]
    if not 1 / RATES_APART <= paired / row["step_time_p50_s"] <= RATES_APART and paired == paired:
        words = f"step_time_p50_s {row['step_time_p50_s']:.3g}, in the rounds {paired:.3g}"
        yield "contradicts", words
    ratio = row["paired_log_ratio"] - math.log(paired / reference)
    if abs(ratio) > math.log(RATIOS_APART):
        words = f"paired_log_ratio {row['paired_log_ratio']:.3g}, of medians"
        yield "contradicts", f"{words} {math.log(paired / reference):.3g}"
    first, least_s = row["time_to_first_step_s"], row["step_time_min_s"]
    if first < least_s / 2:
        yield (
            "contradicts",
            f"time_to_first_step_s {first:.3g}, the shortest step took {least_s:.3g}",
        )


_MOMENTS = ("windows_from_s", "windows_until_s", "sustained_from_s", "sustained_until_s", "took_s")
"""In their order, on one clock."""
IN_USE, TICKS_S = 1.1, 0.02
"""CPUs that a process keeps busy over those that it may use, and beyond them CPU time of all steps:
two clocks are read, and that of a process may count in hundredths of a second."""


def _of_the_process(row: Row) -> Found:
    """Yield what one process and its steps cannot be."""
    told = [(name, row[name]) for name in _MOMENTS if there(row, name)]
    for (one, earlier), (other, later) in itertools.pairwise(told):
        if later < earlier:
            yield "contradicts", f"{other} {later:.6g} is before {one} {earlier:.6g}"
            return
    cores = row["cores"]
    in_use = IN_USE * cores + 1 + TICKS_S / (max(row["steps"], 1) * row["step_time_mean_s"])
    for name, most in (("physical_cores", cores), ("cpus_in_use", in_use)):
        if row[name] > most or row[name] < 0:
            yield "contradicts", f"{name} {row[name]:.4g}, of {cores:.0f} logical CPUs"
            return
    if row["pool_threads"] < 1:
        yield "contradicts", f"pool_threads {row['pool_threads']:.0f}"
    apart_s = row["step_time_max_s"] - row["step_time_min_s"]
    least_s = apart_s / math.sqrt(2 * max(row["steps"] - 1, 1)) * (1 - ROUNDING)
    if row["step_time_std_s"] < least_s:
        words = f"step_time_std_s {row['step_time_std_s']:.3g}"
        yield "contradicts", f"{words}, of the shortest and the longest {least_s:.3g} follow"


def _efficiency(row: Row) -> Found:
    """Yield a share of the ceiling that the FLOP/s do not give."""
    if not there(row, "efficiency"):
        return
    hosts = (row["cluster"] or "").removeprefix("hosts")
    shared = int(hosts) if hosts.isdecimal() else 1  # replicas on a CPU share it
    devices = shared if row["device"] == "cpu" else row["replicas"]
    reached = _flops(row) * row["throughput_samples_per_s"] / row["peak_flops_per_s"] / devices
    if not 1 / SAME <= row["efficiency"] / (reached or math.nan) <= SAME:
        yield "contradicts", f"efficiency {row['efficiency']:.3g}, of the rates {reached:.3g}"


SMALLER = 10
"""A file is at most so many times as small as the weights; int8 is a quarter of float32."""


def _export(row: Row) -> Found:
    """Yield an exported model that does not compute what its Keras model does."""
    if _runtime(row) == DEFAULT_RUNTIME or runtime_of_file(row["model"]) != DEFAULT_RUNTIME:
        return  # of a file that was there already no Keras model is known
    if not there(row, "largest_rel_error", "exported_bytes", "export_s"):
        yield "incomplete", "has no largest_rel_error, exported_bytes or export_s"
        return
    bound = ERROR_BOUNDS.get(row["precision"], max(ERROR_BOUNDS.values()))
    of_all_digits = row["task"] not in TIMED_TASKS and row["precision"] in RUNTIME_PRECISIONS
    if row["largest_rel_error"] > bound and not of_all_digits:
        yield "contradicts", f"largest_rel_error {row['largest_rel_error']:.3g}, at most {bound:g}"
    if row["exported_bytes"] * SMALLER < row["model_bytes"]:
        sizes = f"{row['exported_bytes']:.0f}, of weights of {row['model_bytes']:.0f}"
        yield "contradicts", f"exported_bytes {sizes}"


def _runtime(row: Row) -> str:
    return row["runtime"] or DEFAULT_RUNTIME


ENERGY = (
    ("joules_per_sample", "power_w", 10, MOST_CARD_W),
    ("cpu_joules_per_sample", "cpu_power_w", SAME, 10_000),
)
"""Energy, its power, how far apart they may be, and the highest power of a card or of a machine's
packages, W. A card's power is of all timed phases and its energy of the windows alone."""


def _energy(row: Row) -> Found:
    """Yield energy without the power that it follows from."""
    for energy, power, apart, most_w in ENERGY:
        watts = row[energy] * row["throughput_samples_per_s"]
        power_w = row[power] or math.nan
        if watts == watts and not 1 / apart <= watts / power_w <= apart:
            words = f"{energy} {row[energy]:.3g} is of {watts:.3g} W"
            yield "contradicts", f"{words}, {power} is {row[power]:.3g}"
        if power == "cpu_power_w" and row["cpu_idle_power_w"] > most_w:
            yield "contradicts", f"cpu_idle_power_w {row['cpu_idle_power_w']:.4g}"
        if row[power] > most_w * row["replicas"]:
            yield "ceiling", f"{power} {row[power]:.3g}, at most {most_w} W are plausible"


# -- the rules of measurement ----------------------------------------------------------------------


_ALWAYS = (
    *("time_budget_s", "steps", "step_time_min_s", "step_time_p50_s", "step_time_max_s"),
    *("step_time_mean_s", "windows", "window_steps", "throughput_samples_per_s"),
    *("time_to_first_step_s", "rounds", "reference_step_time_p50_s", "paired_step_time_p50_s"),
)
"""What every timed process has, whatever it runs."""


def _left_empty(row: Row) -> Found:
    """Yield what the harness always writes and the row lacks."""
    names = [name for name in _ALWAYS if not there(row, name)]
    if _runtime(row) == DEFAULT_RUNTIME and not there(row, "parameters"):
        names.append("parameters")
    if not there(row, "flops_per_sample") and not row["flops_note"]:
        names.append("flops_per_sample")
    if names:
        yield "incomplete", f"has no {', '.join(names[:3])}"


def _not_measured_so(row: Row) -> Found:
    """Yield where the harness would have gone on, or ended before.

    Steps are 30 at least, 100 where half the time budget allows, 1,000 where it allows all of them;
    windows are at least 30 ms long in the mean, and in rows of earlier versions 60 ms. So step
    times that are all divided by a factor stand out.
    """
    if not there(row, *_ALWAYS):
        return
    budget_s, count, mean_s = row["time_budget_s"], row["steps"], row["step_time_mean_s"]
    spent_s = count * mean_s
    before_s = spent_s - row["step_time_max_s"]  # up to the step before the last one, at least
    ended = enough_steps(count, spent_s * (1 + ROUNDING), budget_s)
    before = count > MIN_STEPS and enough_steps(count - 1, before_s * (1 - ROUNDING), budget_s)
    if count > MAX_STEPS or not ended or before:
        words = f"{count:.0f} steps of {mean_s:.3g} s"
        yield "contradicts", f"{words} are not those of a time budget of {budget_s:g} s"
    samples = row["window_steps"] * row["batch_size"] * row["replicas"]
    window_s = samples / row["throughput_samples_per_s"]
    is_older = row["measurement_version"] in map(str, range(OLDEST_LOOPS, SHORTER_WINDOWS))
    least_s = OLDER_WINDOW_S if is_older else MIN_WINDOW_S
    if row["windows"] < MIN_WINDOWS or window_s < least_s * (1 - ROUNDING):
        words = f"{row['windows']:.0f} windows of {window_s:.3g} s"
        yield "contradicts", f"{words}, measured are {MIN_WINDOWS} of {least_s:g} s or more"
    if row["rounds"] < MIN_ROUNDS:
        yield "contradicts", f"{row['rounds']:.0f} rounds, measured are {MIN_ROUNDS} or more"
