"""The expected time of one process of a case, from earlier rows or published figures.

Parts of a plan are balanced by it. Every machine that takes a part must come to the same figures,
so nothing of the machine goes into them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from types import MappingProxyType

from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.tasks import TASKS
from convmark.results.one_run import RUN_NAME
from convmark.results.record import Record
from convmark.results.runs import run_files
from convmark.results.store import read_run

__all__ = ["RUN_START_S", "expected_s", "known_seconds", "recent_seconds", "seconds_of"]

RUN_START_S = 4.0
"""Until an interpreter has imported its framework."""

START_S, LARGE_START_S = 0.8, 2.8
"""What is around the steps of a process of a small model, and of one of keras.applications:
mostly building and compiling."""

MOST_PAUSE_S = 10.0
"""Between two processes of a run; in more a run was interrupted."""

FEWEST_STEPS = 60
"""Warm-up, steps, windows and rounds that even a slow step is not spared."""

SCALE = 10.0
"""Step time on a machine of a few cores / that in the table, whose server has 92 of them."""

TABLE_BATCH = 32
# Source: keras.io/api/applications, "Time (ms) per inference step (CPU)", batch 32.
_INFERENCE_MS: Mapping[str, float] = MappingProxyType(
    {
        "densenet121": 77.1,
        "densenet169": 96.4,
        "densenet201": 127.2,
        "efficientnetb0": 46.0,
        "efficientnetb1": 60.2,
        "efficientnetb2": 80.8,
        "efficientnetb3": 140.0,
        "efficientnetb4": 308.3,
        "efficientnetb5": 579.2,
        "efficientnetb6": 958.1,
        "efficientnetb7": 1578.9,
        "inceptionresnetv2": 130.2,
        "inceptionv3": 42.2,
        "mobilenet": 22.6,
        "mobilenetv2": 25.9,
        "nasnetlarge": 344.5,
        "nasnetmobile": 27.0,
        "resnet101": 89.6,
        "resnet101v2": 72.7,
        "resnet152": 127.4,
        "resnet152v2": 107.5,
        "resnet50": 58.2,
        "resnet50v2": 45.6,
        "vgg16": 69.5,
        "vgg19": 84.8,
        "xception": 109.4,
    }
)
_USUAL_MS = median(_INFERENCE_MS.values())

_SMALL = frozenset(
    ("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm", "conv_layer", "separable_layer")
)
"""Models whose steps are so short that the time budget alone tells how long a process takes."""


def expected_s(case: Case, time_budget_s: float, known: Mapping[str, float]) -> float:
    """Return the seconds that one process of the case is expected to take.

    Args:
        known: seconds by case, where rows tell them.
    """
    if case.name in known:
        return known[case.name]
    start_s = START_S if case.model in _SMALL else LARGE_START_S
    return start_s + max(2 * time_budget_s, FEWEST_STEPS * _step_s(case))


def _step_s(case: Case) -> float:
    if case.model in _SMALL:
        return 0.0
    passes = TASKS[case.task].passes
    samples = case.batch_size * case.replicas / TABLE_BATCH
    return SCALE * passes * samples * _INFERENCE_MS.get(case.model, _USUAL_MS) / 1000


def known_seconds(places: Sequence[Path]) -> dict[str, float]:
    """Return the seconds of one process by case, the median over the measured rows in the places.

    Raises:
        StoreError: a place has no runs, or a file does not fit.
    """
    found: dict[str, list[float]] = {}
    for path in run_files(places):
        for record, seconds in _with_seconds(read_run(path)):
            found.setdefault(record.asked_case.name, []).append(seconds)
    return {name: float(median(values)) for name, values in found.items()}


def _with_seconds(records: Sequence[Record]) -> Iterator[tuple[Record, float]]:
    """Yield the measured rows of a run, each with the time until the next process began.

    That of the last one, and of one after which the run was interrupted, is that of its figures.
    """
    ordered = sorted(records, key=lambda record: record.started)
    for record, after in itertools.zip_longest(ordered, ordered[1:]):
        own_s = seconds_of(record)
        if own_s is None:
            continue
        whole_s = own_s
        if after is not None:
            begins = (datetime.fromisoformat(one.started) for one in (record, after))
            whole_s = -(next(begins) - next(begins)).total_seconds()
        yield record, whole_s if own_s <= whole_s <= own_s + MOST_PAUSE_S else own_s


_RECENT = 5
"""Runs: all those of years take longer to read than the estimate is worth."""


def recent_seconds(folder: Path) -> dict[str, float]:
    """Return the seconds of one process by case, from the newest runs of a machine's folder.

    The newest run tells most. A file that cannot be read tells nothing.
    """
    runs = sorted(path for path in folder.glob("*.csv") if RUN_NAME.fullmatch(path.stem))
    found: dict[str, float] = {}
    for path in runs[-_RECENT:]:
        with contextlib.suppress(StoreError):
            found |= known_seconds([path])
    return found


def seconds_of(record: Record) -> float | None:
    """Return how long the row's process took, from its own figures; None where it has none."""
    if not record.measured or record.step_time_mean_s is None:
        return None
    windows = (record.windows or 0) * (record.window_steps or 0)
    steps = (record.warm_up_steps or 0) + (record.steps or 0) + windows
    round_s = (record.paired_step_time_p50_s or 0.0) + (record.reference_step_time_p50_s or 0.0)
    return (
        (record.process_start_s or 0.0)
        + (record.time_to_first_step_s or 0.0)
        + steps * record.step_time_mean_s
        + (record.rounds or 0) * round_s
    )
