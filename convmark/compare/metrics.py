"""The table of judged metrics, and the rules of metrics that are not paired."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from statistics import mean, median, stdev
from typing import Literal

from convmark.compare.rule.statistics import pooled_variance
from convmark.core.interval import share_of
from convmark.core.statistics import t_quantile
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import counted
from convmark.results.record import Record

MIB = 2**20

_ENOUGH_FREEDOM = 20
_CONFIDENCE = 0.9995
"""Two-sided 99.9 %, as every case of a suite is judged so."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How one metric is judged."""

    name: str
    column: str
    unit: str
    rule: Literal["paired", "exact", "tolerance", "spread"]
    """paired: as the paired step time; exact: any difference is a change; tolerance: a difference
    beyond both tolerances; spread: beyond the absolute one and twice the spread over seeds."""
    relative: float = 0.0
    absolute: float = 0.0
    _: KW_ONLY
    higher_is_better: bool = False
    tasks: tuple[str, ...] = TIMED_TASKS
    devices: tuple[str, ...] = ("cpu", "gpu")
    """Kinds of device that the rule is for."""
    between_processes: float = 0.0
    """Above 0 a change must also be clear of the spread between processes, which is taken to be
    so much at least, as a log ratio, until `_ENOUGH_FREEDOM` processes tell it."""
    has_outliers: bool = False
    """Whether rare values lie far above the others: no number of processes then tells a smaller
    spread than `between_processes`."""
    convicts: bool = True
    """Whether it fails a run; without, a change beyond the tolerances is inconclusive."""


_INFER, _ACCURACY = ("infer",), ("accuracy",)
_BUILT = tuple(name for name, one in TASKS.items() if one.judged)
_SAMPLES, _DEVICE = "throughput_samples_per_s", "peak_device_memory_bytes"

METRICS = (
    Metric("step_time", "step_time_p50_s", "s", "paired"),
    # what follows the step time fails nothing, for the step time does
    Metric("throughput", _SAMPLES, "samples/s", "paired", higher_is_better=True, convicts=False),
    Metric("latency_p50", "step_time_p50_s", "s", "paired", tasks=_INFER, convicts=False),
    Metric("latency_p99", "step_time_p99_s", "s", "tolerance", 0.25, tasks=_INFER, convicts=False),
    Metric(
        "time_to_first_step", "time_to_first_step_s", "s", "tolerance", 0.5, 0.5, convicts=False
    ),
    Metric("peak_device_memory", _DEVICE, "bytes", "tolerance", 0.03, MIB, devices=("gpu",)),
    Metric(
        "peak_device_memory",
        _DEVICE,
        "bytes",
        "tolerance",
        relative=0.03,
        absolute=4 * MIB,  # 2 and 4 MiB were seen of one small model
        devices=("cpu",),
        # nine processes of identical code between 35.4 and 36.0 MiB, the tenth 45.8: it hangs on
        # which operations run side by side
        between_processes=0.1,
        has_outliers=True,
    ),
    Metric(
        "peak_host_memory",
        "peak_host_memory_bytes",
        "bytes",
        "tolerance",
        relative=0.15,
        absolute=16 * MIB,
        between_processes=0.2,  # 0.15 to 0.2 were seen on identical code: the C library's arenas
    ),
    Metric("parameters", "parameters", "", "exact", tasks=_BUILT),
    Metric("trainable_parameters", "trainable_parameters", "", "exact", tasks=_BUILT),
    Metric("flops_per_sample", "flops_per_sample", "FLOPs", "exact"),
    Metric("model_bytes", "model_bytes", "bytes", "exact", tasks=_BUILT),
    Metric(
        "accuracy", "accuracy", "", "spread", 0.0, 0.005, higher_is_better=True, tasks=_ACCURACY
    ),
    # nothing is measured beside an epoch: the step time of training is the judge
    Metric("epoch_time", "epoch_time_s", "s", "tolerance", 0.25, tasks=_ACCURACY, convicts=False),
)
"""Every metric that is judged, in the order in which it is shown."""


def applies(metric: Metric, row: Record) -> bool:
    """Whether the metric, by this rule, is for a row of such a task and device."""
    return row.task in metric.tasks and row.device.partition(":")[0] in metric.devices


def plain_verdict(
    metric: Metric, baseline: float, value: float, groups: Sequence[Sequence[Record]]
) -> tuple[str, float, str]:
    """Return verdict, the largest difference allowed, in the metric's unit, and a note.

    Args:
        groups: the rows of this run, and of each baseline run, for the metric's own spread.
    """
    if metric.rule == "spread":
        return _over_seeds(metric, baseline, value, groups)
    allowed = max(metric.absolute, metric.relative * baseline)
    if abs(value - baseline) <= allowed:
        return "unchanged", allowed, ""
    if not metric.convicts:
        return "inconclusive", allowed, "shown, never convicts"
    if metric.between_processes and value > 0 and baseline > 0:
        reach = _reach(metric, groups)
        allowed = max(allowed, baseline * share_of(reach))
        if abs(math.log(value / baseline)) <= reach:
            return "inconclusive", allowed, "no more than its processes differ by: try --processes"
    if metric.rule == "exact":
        return "changed", allowed, ""
    worse = (value < baseline) == metric.higher_is_better
    return "regressed" if worse else "improved", allowed, ""


def _reach(metric: Metric, groups: Sequence[Sequence[Record]]) -> float:
    """Return the log ratio of this run to its baseline that identical code does not exceed.

    Source:
        Student's t for the difference of two means, with the standard deviation within runs.
    """
    logs = [[math.log(value) for value in _values(rows, metric) if value > 0] for rows in groups]
    now, *before = (group for group in logs if group)
    within, freedom = pooled_variance((now, *before))
    own = within**0.5
    told = freedom >= _ENOUGH_FREEDOM and not metric.has_outliers
    spread = own if told else max(own, metric.between_processes)
    shares = 1 / len(now) + 1 / sum(map(len, before))
    return float(t_quantile(_CONFIDENCE, max(freedom, _ENOUGH_FREEDOM)) * spread * shares**0.5)


def _over_seeds(
    metric: Metric, baseline: float, value: float, groups: Iterable[Sequence[Record]]
) -> tuple[str, float, str]:
    """Judge means over seeds by the largest standard deviation over the seeds of one run.

    Where no run has two seeds, no change can be told from the seeds' own.
    """
    values = [_values(rows, metric) for rows in groups]
    spreads = [stdev(group) for group in values if len(group) > 1]
    allowed = metric.absolute + 2 * max(spreads, default=0.0)
    if not spreads and value != baseline:
        return "inconclusive", allowed, "one seed has no spread: try --seeds 0,1,2"
    if abs(value - baseline) <= allowed:
        return "unchanged", allowed, ""
    seeds = counted(len(values[0]), "seed")
    change = f"{abs(value - baseline):.4f}, beyond {allowed:.4f} by the spread over {seeds}"
    if (value < baseline) == metric.higher_is_better:
        return "regressed", allowed, f"it learns less: by {change}"
    return "improved", allowed, f"it learns more: by {change}"


def _values(rows: Sequence[Record], metric: Metric) -> list[float]:
    return [value for row in rows if (value := getattr(row, metric.column)) is not None]


def middle(rows: Sequence[Record], metric: Metric) -> float | None:
    """Return the median over processes, of accuracy the mean; None where no row has a value."""
    values = _values(rows, metric)
    if not values:
        return None
    return float(mean(values) if metric.rule == "spread" else median(values))
