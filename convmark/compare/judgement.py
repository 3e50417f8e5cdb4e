"""Judgement: the verdict on one metric of one case; and the result of a live comparison.

The table of judged metrics, and the rules of metrics that are not paired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from statistics import mean, median, stdev
from typing import Literal

from convmark.compare.rule.decision import Decision
from convmark.compare.rule.statistics import pooled_variance
from convmark.core.cells import column
from convmark.core.errors import MeasurementError
from convmark.core.interval import Interval, share_of
from convmark.core.statistics import t_quantile
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import counted
from convmark.results.record import Record

VERDICTS = ("regressed", "improved", "changed", "unchanged", "inconclusive", "new", "missing")
"""`changed` is of what is neither better nor worse: another model. `SIZES` and `PRECISION` alone
fail for it."""
HEADLINES = ("step_time", "accuracy")
"""The metrics that tell of a case; a table shows them whatever their verdict."""
SIZES = "sizes"
"""Stands for the metric in the judgement that lists all sizes of a case that have changed."""
PRECISION = "precision"
"""Stands for the metric where the model's own code computes in another precision than before."""
MACHINE = "machine"
"""Stands for the model in the rows that tell of the reference's own step time."""
SAME_CODE = "same code"
"""Both sides ran files and packages of one hash, in the same state: there is nothing to compare."""
SAME_GRAPH = "same graph"
"""Other code, that in one process made the same step: the same operations, weights and batch."""
SAME_WITHIN = 0.05
"""ln(new / old) up to which times do not contradict that both steps are one."""
ONE_GRAPH = "both codes make the same graph, but their times differed"
"""In the note of a step time that was timed all the same."""
SAME_COMMIT = "same commit"
"""All that is known of rows without a hash of their code: git's word, which ignores files."""
BUDGET_SPENT = "budget spent"
"""How the reason begins where the time ended before a case was decided."""
NOT_BY_TIME = "more time would most likely not decide"
NOT_LIVE = "no live comparison"
"""In the note of a step time that was not measured beside its baseline, before the reason."""
TOO_FEW = "too few sessions"
"""The same where the live comparison was begun, and its time ended."""
INTERRUPTED = "interrupted"
NO_EARLIER = "no earlier run of this case"
"""How the note of a new case begins, where no earlier run has it under whatever conditions."""
SOME_STEPS = "most steps are "
"""How a note says that only some steps have become slower."""
_SHARED = "both codes ran with"
OTHER_PACKAGES = f"{_SHARED} the packages installed here"
"""In the note of a step time whose baseline's commit would have installed something else."""
TODAYS = f"{_SHARED} today's"
"""In the note of one whose baseline's commit has other settings of the two."""
NOT_JUDGED = "not judged"
"""How the reason begins where the card was slowed, or shared with others, in the comparison too."""
NOT_ENDED = (BUDGET_SPENT, INTERRUPTED, NOT_JUDGED)
"""How the reason begins where both codes can be run, and nothing was found."""
LARGER = "try a larger --convmark-compare-budget"
"""What the reason ends with where more time would most likely decide."""
UNLIMITED = "--convmark-compare-budget unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """One session of a live comparison; log ratios are ln(today / anchor)."""

    wall: float
    cpu: float | None
    """None where the clock is too coarse."""
    seconds: float
    """What it took, with the start of its process."""
    apart: bool = False
    """Whether it was of two processes."""
    run: str = ""
    """The earlier run that it was measured in; empty for this one."""
    all_steps: tuple[float, float] | None = None
    """As of `Session`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveComparison:
    """What the live comparison of one case gave, or why there was none."""

    decision: Decision | None
    """None where no live comparison was made, or none of two sessions."""
    anchor: str = ""
    """The commit, or the kept code, that ran beside today's, as a note names it."""
    reason: str = ""
    """Why there was none, or why it did not decide: `SAME_CODE`, `SAME_GRAPH`, `SAME_COMMIT`,
    `INTERRUPTED`, or a line that says what is in the way; those that begin with `BUDGET_SPENT` say
    what time would decide, those with `NOT_JUDGED` what disturbed it."""
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    """Parameters, bytes and FLOPs of the anchor's model, by column, where they are known."""
    precisions: tuple[str, str] | None = None
    """The anchor's and today's, read back, where they differ though the case asks both for one."""
    kept: tuple[LiveSession, ...] = ()
    """The sessions that it rests on, those of an earlier run first."""
    codes: tuple[str, str] | None = None
    """Hashes of the anchor's and of today's code; None where they are not known."""
    some_steps: str = ""
    """That some steps alone have become slower, where the sessions' medians do not show it."""

    def __post_init__(self) -> None:
        if self.decision is None and not self.reason:
            raise MeasurementError("a live comparison must have a decision or the reason for none")

    @property
    def interrupted(self) -> bool:
        """Whether the user has ended it before it was decided."""
        return self.reason.split("; ")[0] == INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric of one case against its baseline. Shares are of the baseline: 0.1 is 10 %."""

    run: str = column("number of the run")
    case: str = column("name of the case; of the machine its device")
    model: str = column("as in a run; `machine` in a row that tells of the reference network")
    task: str = column(
        "as in a run; empty, as batch size, precision and jit, of the machine", default=""
    )
    device: str = column("as in a run")
    batch_size: int | None = column("samples per replica per step", "samples")
    precision: str = column("as in a run", default="")
    jit: str = column("as in a run", default="")
    threads: str = column("as in a run")
    metric: str = column("what is judged, such as step_time")
    unit: str = column("of baseline and value; empty for a number without one", default="")
    baseline: float | None = column(
        "before; of a live comparison at today's speed of the machine: value / (1 + change)",
        "as `unit`",
        default=None,
    )
    value: float | None = column("now", "as `unit`", default=None)
    change: float | None = column("value / baseline - 1: 0.1 is 10 % more", default=None)
    low: float | None = column("lower end of the change's interval", default=None)
    high: float | None = column("upper end", default=None)
    verdict: str = column(f"one of {', '.join(VERDICTS)}")
    smallest_visible: float | None = column(
        "the smallest change that this run could have detected: 0.1 is 10 %", default=None
    )
    baseline_runs: tuple[str, ...] = column("runs of the baseline", default=())
    note: str = column("why, and what to try", default="")
    fails: bool = column("whether this fails the run", default=False)
    against: str = column(
        "the commit, or the run with its commit, that is the baseline", default=""
    )
    accepted: str = column(
        "by what the change is meant, so that it does not fail the run", default=""
    )

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise MeasurementError(
                f"{self.case}: verdict must be one of {', '.join(VERDICTS)}, got {self.verdict!r}"
            )
        if self.fails and self.verdict == "unchanged":
            raise MeasurementError(f"{self.case}: what is unchanged must not fail a run")
        if self.fails and self.accepted:
            raise MeasurementError(f"{self.case}: what is accepted must not fail a run")

    @property
    def interval(self) -> Interval:
        return Interval.of_cells(self.low, self.high)


def joined(*notes: str) -> str:
    """Return the parts of a note that are not empty as one."""
    return "; ".join(filter(None, notes))


def decided(judgements: Iterable[Judgement]) -> str:
    """Return what a gate has decided of its cases by their main metric, whatever has failed.

    `all` of those that have a baseline, the same code among them; `some`, where the rest is
    inconclusive; `none`, where whatever was compared is; or `nothing`, where nothing could be
    compared.
    """
    here = [
        one
        for one in judgements
        if one.metric in HEADLINES
        and one.model != MACHINE
        and one.verdict not in ("missing", "new")
    ]
    if all(one.verdict != "inconclusive" for one in here):
        return "all" if here else "nothing"
    same = [one.note.startswith((SAME_CODE, SAME_COMMIT)) for one in here]
    found = [one.verdict != "inconclusive" for one in here]
    is_some = any(is_found and not is_same for is_found, is_same in zip(found, same, strict=True))
    return "some" if is_some else "none"


def is_interrupted(judgements: Iterable[Judgement]) -> bool:
    """Whether the user has ended the comparison of a case before it was decided and checked."""
    return any(INTERRUPTED in re.split("[;:,] ", one.note) for one in judgements)


def shared_lines(judgements: Iterable[Judgement]) -> list[str]:
    """Return what notes say of packages and settings that a baseline's commit has otherwise."""
    parts = (part for one in judgements for part in one.note.split("; "))
    return list(dict.fromkeys(part for part in parts if _SHARED in part))


# What fails no more by a margin that was raised since the baseline, or is above the default.
_PASSED, _UNDECIDED = "passed by a margin of ", "undecided by a margin of "
_RULED_OUT = 5 / 3
"""What `unchanged` rules out, of the margin (`Limits.around`)."""


def passing_words(
    margin: float, before: float, where: str, one: Judgement, *, is_sharp: bool
) -> str:
    """Say that a case fails no more, which the margin before would not have let pass; else nothing.

    It passes, or is inconclusive though it is surely slower and by more than the margin before.

    Args:
        margin: of this run, a share.
        before: of the baseline, or the default.
        where: where that one stands, with a place for it.
        is_sharp: whether `unchanged` rules the margin itself out.
    """
    if one.change is None or margin <= before:
        return ""
    ruled_out = before if is_sharp else before * _RULED_OUT
    if one.verdict == "unchanged":
        told = _PASSED if one.change > before or (one.high or 0.0) > ruled_out else ""
    else:
        is_slower = before < one.change <= margin and (one.low or 0.0) > 0
        told = _UNDECIDED if is_slower and one.verdict == "inconclusive" else ""
    return told and f"{told}{_per_cent(margin)}, {where.format(_per_cent(before))}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g} %"


def margin_lines(judgements: Iterable[Judgement]) -> list[str]:
    """Return how many cases a raised margin keeps from failing, as their notes have it."""
    parts = [part for one in judgements for part in one.note.split("; ")]
    found = [part for part in parts if part.startswith((_PASSED, _UNDECIDED))]
    return [f"{counted(found.count(part), 'case')} {part}" for part in dict.fromkeys(found)]


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
