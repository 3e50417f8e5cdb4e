"""How long a process of a case takes where no earlier row tells it, and what lies around it.

Every machine that takes a part of a plan must come to the same figures, so nothing of the machine
goes into `expected_s` but what the caller hands in: other load, and earlier rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

import psutil

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.results.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Seconds with one backend on one kind of device, on a machine without other load."""

    run_start_s: float
    """Until an interpreter has imported its framework and found its devices, once in a run."""
    process_s: float
    """Of a process of a small model what is around its steps: building, compiling, proofs, on a GPU
    the windows, too."""
    layer_s: float
    """Of a larger model for each of its layers more, in inference."""
    step: float
    """Step time / that of TensorFlow on a CPU, of a model of keras.applications or the user's."""
    small_step: float = 1.0
    """How much larger it is for a small model: what its operations take to be called."""
    training: float = 1.5
    """What is around the steps in training / in inference."""


COSTS: Mapping[tuple[str, str], _Cost] = MappingProxyType(
    {
        ("tensorflow", "cpu"): _Cost(run_start_s=5.0, process_s=1.0, layer_s=0.02, step=1.0),
        ("jax", "cpu"): _Cost(run_start_s=4.0, process_s=4.0, layer_s=0.09, step=1.5),
        ("torch", "cpu"): _Cost(
            run_start_s=6.0, process_s=3.5, layer_s=0.02, step=1.2, small_step=3.3
        ),
        # on one NVIDIA H100; TensorFlow's are those of PyTorch, for it has not run on a GPU
        ("tensorflow", "gpu"): _Cost(
            run_start_s=9.0, process_s=10.5, layer_s=0.05, step=0.02, training=1.3
        ),
        ("jax", "gpu"): _Cost(
            run_start_s=7.0, process_s=17.0, layer_s=0.1, step=0.02, training=1.2
        ),
        ("torch", "gpu"): _Cost(
            run_start_s=9.0, process_s=10.5, layer_s=0.05, step=0.2, training=1.3
        ),
    }
)

LOOKED_AT, LOOK_S, FULL = 0.25, 0.1, 0.95
"""A load for each CPU from which on it is seen how busy they are now, s; and when all are."""

EXPORT_S = 0.5
"""Of a process of another runtime than Keras: it exports the model, unless that has been done."""

CEILING_S = 8.5
"""Of the ceilings of a device in one precision, which are measured once for a machine."""

FEWEST_STEPS = 60
"""Warm-up, steps, windows and rounds that even a slow step is not spared."""

BUSY_SEARCH_S, BUSY = 100.0, 1.25
"""Of that search where other load slows work so much: most tries end early and are repeated."""
TRIES = 9.0
"""Of rates at a latency limit, counted in tries of as many requests as may prove a rate."""
MOST_REQUESTS, MOST_STEPS, MOST_LIMITS = 20_000, 500, 100
"""Of such a try: `convmark.worker.arrivals.requests_at`."""

LEAST_STEP_S, LEAST_GPU_STEP_S = 0.0006, 0.00015
"""Of any model: what its operations take to be called."""

SCALE, GPU_SCALE = 20.0, 10.0
"""Step time on a machine of two cores / that in the table, whose server has 92 of them, of a model
of small operations; and of what the factor of a GPU's step is."""
S_PER_GFLOP = 1 / 165
"""On two cores, of a model of large operations: ResNet50 and VGG16 reach 161 to 215 GFLOP/s."""

TABLE_BATCH = 32
# Source: keras.io/api/applications, "Time (ms) per inference step (CPU)", batch 32, and "Depth";
# EfficientNet's depth is of its layers with weights too. GFLOPs of a sample are those that convmark
# counts: docs/results/models.md.
_PUBLISHED: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "densenet121": (77.1, 242, 5.67),
        "densenet169": (96.4, 338, 6.72),
        "densenet201": (127.2, 402, 8.58),
        "efficientnetb0": (46.0, 132, 0.772),
        "efficientnetb1": (60.2, 186, 1.37),
        "efficientnetb2": (80.8, 186, 1.99),
        "efficientnetb3": (140.0, 210, 3.65),
        "efficientnetb4": (308.3, 258, 8.79),
        "efficientnetb5": (579.2, 312, 20.5),
        "efficientnetb6": (958.1, 360, 38.1),
        "efficientnetb7": (1578.9, 438, 75.5),
        "inceptionresnetv2": (130.2, 449, 26.3),
        "inceptionv3": (42.2, 189, 11.4),
        "mobilenet": (22.6, 55, 1.14),
        "mobilenetv2": (25.9, 105, 0.602),
        "nasnetlarge": (344.5, 533, 47.6),
        "nasnetmobile": (27.0, 389, 1.13),
        "resnet101": (89.6, 209, 15.1),
        "resnet101v2": (72.7, 205, 14.4),
        "resnet152": (127.4, 311, 22.6),
        "resnet152v2": (107.5, 307, 21.8),
        "resnet50": (58.2, 107, 7.72),
        "resnet50v2": (45.6, 103, 6.96),
        "vgg16": (69.5, 16, 30.9),
        "vgg19": (84.8, 19, 39.3),
        "xception": (109.4, 81, 16.7),
    }
)
_USUAL = tuple(median(column) for column in zip(*_PUBLISHED.values(), strict=True))
"""Of another model of keras.applications."""
_OWN = (5.0, 50, 0.0)
"""Of a model of the user's own, of which nothing is known: between one of the zoo and those."""
SMALL, LARGE = "lenet5", "resnet50"
"""As what such a model is taken where a user is told the time: as small, and as large."""

_SMALL_MS: Mapping[str, float] = MappingProxyType(
    {
        "lenet5": 1.6,
        "mini_inception": 7.0,
        "mini_resnet": 6.6,
        "mini_resnet_norm": 10.0,
        "conv_layer": 0.5,
        "separable_layer": 0.5,
    }
)
"""The zoo's steps of as many samples on two cores; their layers are in `process_s`."""
SMALL_MS = 20.0
"""Such a step of a small model takes less."""


def _cost(case: Case) -> _Cost:
    """Return the cost of the case's backend; that of PyTorch for one that was not measured yet."""
    kind = "cpu" if case.device == "cpu" else "gpu"
    return COSTS.get((case.backend, kind), COSTS["torch", kind])


def _is_own(model: str) -> bool:
    return not model.isidentifier()  # package.module:builder, or a file


def _published(model: str) -> tuple[float, float, float]:
    """Return milliseconds, layers and GFLOPs of a model, as the table has them."""
    return _OWN if _is_own(model) else _PUBLISHED.get(model, _USUAL)


def is_guess(case: Case, known: Mapping[str, float], sizes: Mapping[str, float]) -> bool:
    """Return whether nothing tells how large the case's model is.

    Args:
        known, sizes: as of `expected_s`.
    """
    return _is_own(case.model) and not (case.name in known or case.model in sizes)


def as_large_as(
    model: str, case: Case, known: Mapping[str, float], sizes: Mapping[str, float]
) -> Mapping[str, float]:
    """Return the sizes, with that of another model for the case's where nothing tells its own."""
    is_known = not is_guess(case, known, sizes)
    return sizes if is_known else {**sizes, case.model: _table_step_ms(model, case)}


def run_start_s(cases: Iterable[Case]) -> float:
    """Return the seconds until the interpreters of the cases are ready, one for each backend."""
    costs = {case.backend: _cost(case).run_start_s for case in cases}
    return sum(costs.values())


def expected_s(
    case: Case,
    time_budget_s: float,
    known: Mapping[str, float],
    sizes: Mapping[str, float] = MappingProxyType({}),
    *,
    slowdown: float = 1.0,
    spawned: bool = False,
) -> float:
    """Return the seconds that one process of the case is expected to take.

    Args:
        known: seconds by case, where rows tell them.
        sizes: of the user's own models, where rows of other cases tell them: `sizes_of`.
        slowdown: how many times as long work takes because of other load. Steps end with the time
            budget, but for the fewest that are measured, so that they take at most twice as long.
        spawned: whether the process imports the framework itself, with `--isolation spawn`.
    """
    if case.name in known:
        return known[case.name]
    cost = _cost(case)
    ms = sizes.get(case.model)
    is_small = case.model in _SMALL_MS if ms is None else ms < SMALL_MS
    layers = 0 if is_small else _published(case.model)[1]
    around_s = cost.process_s + cost.layer_s * layers
    around_s *= cost.training if TASKS[case.task].trains else 1.0
    around_s += EXPORT_S * (case.runtime != DEFAULT_RUNTIME) + cost.run_start_s * spawned
    budget_s = 2 * time_budget_s * min(slowdown, 2.0)
    return around_s * slowdown + max(budget_s, FEWEST_STEPS * step_s(case, ms) * slowdown)


def step_s(case: Case, ms: float | None = None) -> float:
    """Return what a step of the case may take, s, by what is published of its model.

    Args:
        ms: of the size of its model, where it is known: `sizes_of`.
    """
    least_s, factor = _steps(case)
    ms = _table_step_ms(case.model, case) if ms is None else ms
    return max(least_s, factor * ms / 1000)


def _table_step_ms(model: str, case: Case) -> float:
    """Return how large a model is on the case's device and backend, as `sizes_of`."""
    if small := _SMALL_MS.get(model):
        return small * _cost(case).small_step
    table_ms, _, gflops = _published(model)
    on_cpu_ms = max(SCALE * table_ms, 1000 * S_PER_GFLOP * gflops * TABLE_BATCH)
    return on_cpu_ms if case.device == "cpu" else GPU_SCALE * table_ms


def _steps(case: Case) -> tuple[float, float]:
    """Return the least that a step takes, s, and how often it holds an inference of a table's batch
    of a large model by TensorFlow on a CPU.
    """
    cost = _cost(case)
    least_s = (LEAST_STEP_S if case.device == "cpu" else LEAST_GPU_STEP_S) * cost.small_step
    samples = case.batch_size * case.replicas / TABLE_BATCH
    return least_s, cost.step * TASKS[case.task].passes * samples


def sizes_of(records: Iterable[Record]) -> dict[str, float]:
    """Return how large the user's own models are: the milliseconds of an inference step of a
    table's batch of each by TensorFlow on two cores, as its rows tell it, best those of the largest
    batch.
    """
    found: dict[str, float] = {}
    own = (row for row in records if row.task in TIMED_TASKS and _is_own(row.model))
    for row in sorted(own, key=lambda row: row.batch_size):
        if row.measured and row.step_time_p50_s is not None:
            least_s, factor = _steps(row.case)
            alone_s = row.step_time_p50_s * (1 - (row.other_cpu_share or 0.0))
            found[row.model] = 1000 * max(0.0, alone_s - least_s) / factor
    return found


def after_s(case: Case, options: Options, slowdown: float = 1.0) -> float:
    """Return the seconds that the first process of a case goes on after its measurement."""
    limit_s, goes_on_s = options.latency_limit_s, options.sustain_s or 0.0
    if limit_s is None or case.task != "infer":
        return goes_on_s
    one_s, samples = step_s(case), case.batch_size * case.replicas
    try_s = max(MOST_REQUESTS * one_s / samples, MOST_STEPS * one_s, MOST_LIMITS * limit_s)
    least_s = BUSY_SEARCH_S if slowdown >= BUSY else 0.0
    return goes_on_s + max(TRIES * try_s, least_s) * (one_s <= limit_s)


def load_slowdown(cores: int, busy_percent: Callable[[float], float] = psutil.cpu_percent) -> float:
    """Return how many times as long work takes beside what runs on this machine now.

    The load of a minute may be over: where CPUs are idle now, no more than the others count.

    Args:
        busy_percent: waits so many seconds and returns how busy all CPUs were.
    """
    load = os.getloadavg()[0] / cores if hasattr(os, "getloadavg") else 0.0
    if load < LOOKED_AT:
        return 1 + load
    busy = busy_percent(LOOK_S) / 100
    return 1 + (load if busy > FULL else min(load, busy))
