"""Record: one row, one process of one case of one run; and the CSV schema with its version.

Each field says its group, unit and meaning, its bounds, and how a report shows it: docs/columns.md,
the reader's checks and the tables of a report are made from them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.core.cells import Column, columns_of, fit_text, from_cell, to_cell
from convmark.core.errors import StoreError

__all__ = [
    "COLUMNS",
    "FRAMEWORK_COLUMNS",
    "MEASURED",
    "MEASUREMENT_VERSION",
    "SCHEMA_VERSION",
    "STATUSES",
    "Column",
    "Record",
    "asked_axes",
    "columns_of",
    "from_cell",
    "from_cells",
    "shown_in",
    "to_cell",
    "to_cells",
]

SCHEMA_VERSION = 3
MEASUREMENT_VERSION = 2
"""Rows of different ones are not compared.

Raise it by hand with a change after which the same code on the same machine gives other figures: a
loop that times otherwise, another estimator. tests/test_measuring_code.py asks at each change.
"""
STATUSES = ("ok", "error", "out_of_memory", "timeout", "crashed", "unsteady")
MEASURED = ("ok", "unsteady")
"""The statuses of rows that hold figures."""


_ASKED = re.compile(r"(?:precision=(?P<precision>\S+))?(?:(?:^|(?<=\S) )threads=(?P<threads>\S+))?")


def _column(group: str, unit: str, meaning: str, **more: Any) -> Any:
    """Declare a column; `more` are fields of `Column`.

    A report shows it in the table of its group, by a title made of its name, unless it says
    otherwise: `title=None` keeps it out.
    """
    metadata = {"group": group, "unit": unit, "meaning": meaning, "title": "", **more}
    return dataclasses.field(default=None, metadata=metadata)


_figure = functools.partial(_column, table="architectures")
_run = functools.partial(_column, "run", title=None)
_case = functools.partial(_column, "case", title=None)
_environment = functools.partial(_column, "environment", table="machines")
_size = functools.partial(_figure, "size")
_time = functools.partial(_figure, "time")
_memory = functools.partial(_figure, "memory")
_state = functools.partial(_figure, "state")
_check = functools.partial(_figure, "check")
_learning = functools.partial(_column, "learning", since=2, table="accuracy")
_waterfall = functools.partial(_column, "waterfall", since=2, table="waterfall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row. None is an empty cell: not measured, or not to be had."""

    schema: int = _run("", "version of these columns")
    run: str = _run("", "name of the run, its file's name without .csv")
    started: str = _run("UTC, ISO 8601", "when this process was asked for")
    convmark: str | None = _run("", "version of the harness")
    commit: str | None = _run(
        "", "git commit of the folder the run was started in; empty where other code than its ran"
    )
    dirty: bool | None = _run("", "whether that folder had changes not in the commit")
    code: str | None = _run(
        "",
        "hash of the files that the model opened and imported until its first step, and of the "
        "packages it imports; <run>.code.json lists them",
        since=3,
    )
    order: int = _run("", "place in the run's plan, from 1")
    plan: str | None = _run(
        "",
        "hash of the cases, processes and seed asked for: --resume goes on with no other plan; "
        "of another node that took cases over, the first run's name too",
        since=2,
    )
    process: int = _run("", "number of the case's process, from 1", bounds="above 0")
    processes: int | None = _run("", "fresh processes asked for per case")
    seed: int | None = _run(
        "", "seed of the plan's order, the weights and the batches; of task accuracy the process's"
    )
    time_budget_s: float | None = _run("s", "seconds of timed steps asked for")
    concurrent: bool | None = _run(
        "", "whether other benchmark runs were allowed beside it (--allow-concurrent)", since=2
    )
    status: str = _run(
        "", "ok, unsteady (measured, but the step time did not hold still), error, ..."
    )
    error: str | None = _run("", "one line that says what went wrong")

    model: str = _case("", "model by name, or package.module:builder")
    task: str = _case(
        "", "train or infer; accuracy trains on MNIST, waterfall takes the calls of Keras apart"
    )
    device: str = _case("", "cpu or gpu:N")
    batch_size: int = _case(
        "samples", "samples per replica per step, as asked for", bounds="above 0"
    )
    effective_batch_size: int | None = _case("samples", "samples per step over all replicas")
    precision: str = _case(
        "",
        "what the layers compute in: float32 (TF32 off), tf32, a mixed Keras dtype policy, "
        "another dtype, or a mixture such as float32+mixed_bfloat16",
    )
    jit: str = _case(
        "", "whether the framework's optional compiler is asked for: on or off; JAX always compiles"
    )
    replicas: int = _case(
        "", "copies of the model, one per device, GPUs from `device` on", bounds="above 0"
    )
    cluster: str | None = _case(
        "",
        "empty: replicas in one process; local: one each on the machine; hostsN: N machines",
        since=2,
    )
    threads: str = _case("", "intra-op and inter-op threads in force, or default")
    asked: str | None = _case(
        "", "what was asked for where the model made it another, such as precision=float32", since=3
    )
    input_shape: str | None = _case(
        "", "one sample's shape, such as 28x28x1; of several inputs name=28x28x1,other=4"
    )
    asked_shape: str | None = _case("", "what --input-shape asked for", since=3)
    call_path: str | None = _case("", "how the step is called: tf.function, jax.jit, ...")
    backend: str = _case("", "framework that runs the step")
    recipe: str | None = _case(
        "",
        "what --optimizer, --learning-rate and --loss asked for, such as optimizer=adam",
        since=3,
    )
    training: str | None = _case(
        "",
        "who says how the model is trained: model (its compile or its own methods; step and loss "
        "are fit's, the loss a mean since the first step) or harness",
        since=3,
    )
    optimizer: str | None = _case("", "optimizer's class, of several joined by +", since=3)
    loss_name: str | None = _case(
        "", "loss by Keras's name; or the method of the model's own that it comes from", since=3
    )
    isolation: str | None = _case("", "how the process was made: fork, spawn or none")

    machine: str | None = _environment(
        "", "fingerprint of the hardware, the results folder's name", title=None
    )
    node: str | None = _environment(
        "", "host that measured it; nodes of one kind share the machine", since=2, title=None
    )
    cpu: str | None = _environment("", "CPU model", title="CPU")
    cores: int | None = _environment(
        "", "logical CPUs that the process could use", title="logical CPUs"
    )
    ram_bytes: int | None = _environment("bytes", "memory of the machine", title="memory")
    gpu: str | None = _environment("", "name of the GPU that was measured", title="GPU")
    gpu_memory_bytes: int | None = _environment("bytes", "memory of that GPU", title=None)
    driver: str | None = _environment("", "version of the GPU driver", title=None)
    gpu_uuid: str | None = _environment("", "the GPU's or MIG slice's own identity", title=None)
    compute_capability: str | None = _environment("", "of the GPU, as CUDA counts it", title=None)
    driver_cuda: str | None = _environment(
        "", "newest CUDA version that the driver runs", title=None
    )
    pcie: str | None = _environment(
        "", "fastest generation of GPU and slot, lanes in use: gen4 x16", title=None
    )
    ecc: str | None = _environment(
        "", "whether the GPU's memory corrects errors: on or off", title=None
    )
    mig: str | None = _environment(
        "", "off, or the MIG slice that was measured, such as 1g.20gb", title=None
    )
    power_limit_w: float | None = _environment("W", "power limit that the GPU enforces", title=None)
    max_sm_clock_mhz: int | None = _environment(
        "MHz", "highest clock of its multiprocessors", title=None
    )
    max_memory_clock_mhz: int | None = _environment(
        "MHz", "highest clock of its memory", title=None
    )
    cuda: str | None = _environment("", "CUDA version that the framework was built for", title=None)
    cudnn: str | None = _environment(
        "", "cuDNN version that the framework was built for", title=None
    )
    os: str | None = _environment("", "operating system", title="system")
    python: str | None = _environment("", "version of the measured Python", title=None)
    tensorflow: str | None = _environment(
        "", "version of TensorFlow, where it runs the step", title=None
    )
    jax: str | None = _environment("", "version of JAX, where it runs the step", title=None)
    torch: str | None = _environment("", "version of PyTorch, where it runs the step", title=None)
    keras: str | None = _environment("", "version of Keras", title=None)
    numpy: str | None = _environment("", "version of the measured interpreter's NumPy", title=None)
    flags: str | None = _environment("", "environment variables that change speed", title=None)
    packages: str | None = _environment(
        "",
        "distributions that the model's own files import: NAME==VERSION, in order",
        since=3,
        title=None,
    )
    state: str | None = _environment(
        "",
        "what of the process differs from the default: NAME=value, in order; what the model's own "
        "code has set begins with model:",
        since=3,
        title=None,
    )

    parameters: int | None = _size("", "elements of all weights")
    trainable_parameters: int | None = _size(
        "", "elements of the weights that training changes", title=None
    )
    model_bytes: int | None = _size("bytes", "all weights as they are stored", title="model size")
    flops_per_sample: int | None = _size(
        "FLOPs",
        "2 x multiply-adds of convolutions and matrix products, forward, per sample",
        title="FLOPs",
    )

    flops_note: str | None = _size(
        "", "why the FLOPs are empty, forward or training", since=3, title="why no FLOPs"
    )
    training_flops_per_sample: int | None = _size(
        "FLOPs",
        "the same of a training step over its samples, the backward pass counted; empty where it "
        "cannot be followed",
        since=3,
        title="training FLOPs",
    )

    process_start_s: float | None = _time("s", "from the request to a usable framework", title=None)
    time_to_first_step_s: float | None = _time(
        "s", "first call: tracing, compilation, kernel choice, execution", title="first step"
    )
    trace_s: float | None = _time(
        "s", "of it making the graph; empty where nothing is traced", title=None
    )
    first_execution_s: float | None = _time(
        "s", "of it compilation, kernel choice and execution", title=None
    )
    warm_up_steps: int | None = _time("", "steps after the first, run and dropped", title=None)
    unsteady: str | None = _time("", "why the row's status is unsteady", since=3, title=None)
    steps: int | None = _time("", "steps timed one by one, the case alone", title=None)
    step_time_min_s: float | None = _time("s", "shortest step time", bounds="above 0", title=None)
    step_time_p10_s: float | None = _time(
        "s", "step time, 10th percentile", bounds="above 0", title=None
    )
    step_time_p25_s: float | None = _time(
        "s", "step time, 25th percentile", bounds="above 0", title=None
    )
    step_time_p50_s: float | None = _time(
        "s", "step time, median", bounds="above 0", title="step p50"
    )
    step_time_p75_s: float | None = _time(
        "s", "step time, 75th percentile", bounds="above 0", title=None
    )
    step_time_p90_s: float | None = _time(
        "s", "step time, 90th percentile", bounds="above 0", title=None
    )
    step_time_p95_s: float | None = _time(
        "s", "step time, 95th percentile, from 100 steps up", bounds="above 0", title=None
    )
    step_time_p99_s: float | None = _time(
        "s", "step time, 99th percentile, from 1,000 steps up", bounds="above 0", title="step p99"
    )
    step_time_max_s: float | None = _time("s", "longest step time", bounds="above 0", title=None)
    step_time_mean_s: float | None = _time("s", "mean step time", bounds="above 0", title=None)
    step_time_std_s: float | None = _time("s", "standard deviation of the step time", title=None)
    windows: int | None = _time("", "windows measured", title=None)
    window_steps: int | None = _time("", "steps of a window", title=None)
    throughput_samples_per_s: float | None = _time(
        "samples/s",
        "samples of all windows over their wall seconds",
        bounds="above 0",
        title="samples/s",
    )
    input_bound_throughput_samples_per_s: float | None = _time(
        "samples/s",
        "of windows fed from host memory, a batch each step; of a case's first process",
        bounds="above 0",
        title="fed samples/s",
    )
    peak_flops_per_s: float | None = _time(
        "FLOP/s", "ceiling of the device: a large matrix product in the same precision", title=None
    )
    peak_bytes_per_s: float | None = _time(
        "bytes/s", "ceiling of the device: a large copy", title=None
    )
    efficiency: float | None = _time(
        "",
        "FLOP/s reached over peak_flops_per_s, in training those of the backward pass too",
        title="of peak FLOP/s",
        kind="share",
    )
    rounds: int | None = _time("", "rounds of one case step and one reference step", title=None)
    reference: str | None = _time("", "reference network in the rounds: small or large", title=None)
    reference_version: int | None = _time("", "version of the reference network", title=None)
    measurement_version: str | None = _time(
        "",
        "version of the measuring code; raised where the same step would give other figures",
        title=None,
    )
    paired_step_time_p50_s: float | None = _time(
        "s", "case step time in the rounds, median", bounds="above 0", title=None
    )
    reference_step_time_p50_s: float | None = _time(
        "s", "reference step time, median", bounds="above 0", title=None
    )
    paired_log_ratio: float | None = _time(
        "",
        "20 % trimmed mean of ln(case / reference) over rounds, wall time",
        bounds="logarithm",
        title=None,
    )
    paired_log_ratio_se: float | None = _time(
        "", "its standard error", bounds="error of a logarithm", title=None
    )
    paired_log_ratio_cpu: float | None = _time(
        "", "the same in CPU time of the process", bounds="logarithm", title=None
    )
    paired_log_ratio_cpu_se: float | None = _time(
        "", "its standard error", bounds="error of a logarithm", title=None
    )

    host_memory_baseline_bytes: int | None = _memory(
        "bytes", "host memory before the model", title=None
    )
    build_peak_host_memory_bytes: int | None = _memory(
        "bytes",
        "peak host memory above the baseline until the model was built",
        since=3,
        title=None,
    )
    peak_host_memory_bytes: int | None = _memory(
        "bytes",
        "peak host memory above the baseline; where the kernel can, since the build",
        title="host peak",
    )
    peak_device_memory_bytes: int | None = _memory(
        "bytes", "peak held by the device allocator", title="device peak"
    )

    load_average_1min: float | None = _state("", "load average at the end, one minute", title=None)
    other_cpu_share: float | None = _state(
        "",
        "share of the CPUs' time that others took while it measured, stolen time included",
        title=None,
    )
    involuntary_context_switches: int | None = _state(
        "", "times the kernel took the CPU away", title=None
    )

    gpu_samples: int | None = _state(
        "", "looks at the card while steps, windows and rounds were timed", title=None
    )
    sm_clock_mhz: float | None = _state(
        "MHz",
        "clock of the multiprocessors, median of the looks; of several cards the lowest",
        title=None,
    )
    memory_clock_mhz: float | None = _state(
        "MHz", "clock of the card's memory, median; of several cards the lowest", title=None
    )
    temperature_c: float | None = _state(
        "degrees Celsius", "the GPU's temperature, highest; of all cards", title=None
    )
    power_w: float | None = _state(
        "W", "power of the whole card, mean; of several the sum", title=None
    )
    gpu_utilisation: float | None = _state(
        "", "share of time in which any kernel ran, mean", title=None
    )
    throttle_reasons: str | None = _state(
        "", "all reasons seen for a lower clock, or none", title=None
    )
    joules_per_sample: float | None = _state(
        "J",
        "energy of the whole card, of several the sum, over the windows / their samples",
        title="energy (J/sample)",
        kind="joules",
    )
    foreign_gpu_processes: int | None = _state(
        "", "processes on the card not the run's own", title=None
    )
    foreign_graphics_processes: int | None = _state(
        "", "of those that draw, such as a desktop's", title=None
    )
    card_peak_memory_bytes: int | None = _state(
        "bytes",
        "highest memory in use on the card, by everybody, as the driver shows it",
        title="card peak",
    )
    not_judged: str | None = _state(
        "", "why the row's figures are no ground for a verdict", title=None
    )

    loss_first: float | None = _check("", "training loss at step 1", title=None)
    loss: float | None = _check(
        "", "training loss at step 10; of task accuracy the test loss", title=None
    )
    output_rms: float | None = _check("", "root mean square of inference's output", title=None)
    accuracy: float | None = _check(
        "", "accuracy on the test samples, of task accuracy", kind="share"
    )

    dataset: str | None = _learning(
        "", "what was trained on, with a hash of its samples", title=None
    )
    fraction: float | None = _learning(
        "", "share of training and validation samples used", title=None
    )
    training_samples: int | None = _learning("samples", "samples of an epoch", title=None)
    epochs: int | None = _learning(
        "", "epochs asked for; each has a row in <run>.epochs.csv", title=None
    )
    epoch_time_s: float | None = _learning(
        "s",
        "training steps of an epoch, the median of all but the first, which compiles",
        bounds="above 0",
        title=None,
    )
    training_loss: float | None = _learning(
        "", "training loss of the last epoch, its mean", title=None
    )
    training_accuracy: float | None = _learning(
        "", "training accuracy of the last epoch", title=None
    )
    validation_loss: float | None = _learning(
        "", "loss on the validation samples at the end", title=None
    )
    validation_accuracy: float | None = _learning("", "accuracy on them at the end", title=None)
    target_accuracy: float | None = _learning("", "validation accuracy aimed at", title=None)
    time_to_target_s: float | None = _learning(
        "s",
        "training up to the end of the first epoch that reached it; empty where none did",
        title=None,
    )
    samples_to_target: int | None = _learning(
        "samples", "samples trained on up to there", title=None
    )

    waterfall_rounds: int | None = _waterfall(
        "", "times that each way was timed, alternating", title=None
    )
    waterfall_steps: int | None = _waterfall("", "steps of a call of fit in a round", title=None)
    compiled_train_step_s: float | None = _waterfall(
        "s", "compiled training step on a batch that is on the device", bounds="above 0", title=None
    )
    fed_train_step_s: float | None = _waterfall(
        "s", "the same step fed by tf.data", bounds="above 0", title=None
    )
    train_on_batch_step_s: float | None = _waterfall(
        "s", "train_on_batch on NumPy arrays", bounds="above 0", title=None
    )
    fit_step_s: float | None = _waterfall(
        "s", "one more step of fit on NumPy arrays", bounds="above 0", title=None
    )
    fit_call_s: float | None = _waterfall("s", "a call of fit but for its steps", title=None)
    compiled_infer_step_s: float | None = _waterfall(
        "s",
        "compiled inference step on a batch that is on the device",
        bounds="above 0",
        title=None,
    )
    predict_on_batch_step_s: float | None = _waterfall(
        "s", "predict_on_batch on a NumPy array", bounds="above 0", title=None
    )
    predict_step_s: float | None = _waterfall(
        "s", "one more step of predict on a NumPy array", bounds="above 0", title=None
    )
    predict_call_s: float | None = _waterfall(
        "s", "a call of predict but for its steps", title=None
    )

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise StoreError(
                f"{self.model}: status must be one of {', '.join(STATUSES)}, got {self.status!r}"
            )
        for column in COLUMNS:
            value = getattr(self, column.name)
            if isinstance(value, str) and fit_text(value) != value:
                value = fit_text(value) or None
                object.__setattr__(self, column.name, value)  # as the file will hold it
            _check_value(column, value)

    @property
    def measured(self) -> bool:
        """Whether the row holds figures."""
        return self.status in MEASURED

    @property
    def asked_case(self) -> Case:
        """The case of the plan: where the model's own code made it another, as it was asked for.

        Raises:
            StoreError: the column does not tell it.
        """
        return dataclasses.replace(self.case, **asked_axes(self.asked))

    @property
    def case(self) -> Case:
        """The case that the row is of, as it ran."""
        return Case(
            model=self.model,
            task=self.task,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
            jit=self.jit,
            replicas=self.replicas,
            cluster=self.cluster,
            threads=self.threads,
            backend=self.backend,
            recipe=self.recipe,
        )


COLUMNS = columns_of(Record)


FRAMEWORK_COLUMNS = tuple(column.name for column in COLUMNS if column.name in BACKENDS)
"""Versions of backends; that of a backend without a column stands in `packages`."""


def shown_in(table: str, first: Sequence[str] = ()) -> list[Column]:
    """Return the columns that a report's table shows by their declaration.

    Args:
        first: those that come first, in their order; the others keep the schema's.
    """
    found = [column for column in COLUMNS if column.table == table and column.title is not None]
    places = {name: place for place, name in enumerate(first)}
    return sorted(found, key=lambda column: places.get(column.name, len(places)))


def _check_value(column: Column, value: Any) -> None:
    """Refuse what could be written but not read again."""
    if value is None or value == "":
        if column.required:
            raise StoreError(f"column {column.name!r} must not be empty")
        return
    kinds = (int, float) if column.type is float else column.type
    if not isinstance(value, kinds) or isinstance(value, bool) != (column.type is bool):
        raise StoreError(
            f"column {column.name!r} must be of type {column.type.__name__}, "
            f"got {str(value)[:40]!r}"
        )
    if isinstance(value, (int, float)) and (rule := column.range_broken(value)):
        raise StoreError(f"column {column.name!r} {rule}, got {str(value)[:40]!r}")


def to_cells(record: Record) -> list[str]:
    """Return the record's cells in the order of `COLUMNS`."""
    return [to_cell(getattr(record, column.name)) for column in COLUMNS]


def asked_axes(asked: str | None) -> dict[str, Any]:
    """Return the axes that the column `asked` tells, by name.

    Raises:
        StoreError: the column does not tell them.
    """
    found = _ASKED.fullmatch(asked or "")
    if found is None:
        raise StoreError(
            "column 'asked' must be precision=VALUE, threads=VALUE or both, "
            f"got {str(asked)[:40]!r}"
        )
    return {name: value for name, value in found.groupdict().items() if value}


def from_cells(cells: Sequence[str] | Mapping[str, str]) -> Record:
    """Return the record that the cells hold, in the order of `COLUMNS`.

    Raises:
        StoreError: a cell breaks its column's rule; the message names the column and the value.
    """
    values = list(cells.values()) if isinstance(cells, Mapping) else list(cells)
    if len(values) != len(COLUMNS):
        raise StoreError(f"must have {len(COLUMNS)} cells, has {len(values)}")
    fields: dict[str, Any] = {}
    for column, cell in zip(COLUMNS, values, strict=True):
        try:
            fields[column.name] = from_cell(column, cell)
        except ValueError as error:
            rule = str(error) if "must" in str(error) else f"must be of type {column.type.__name__}"
            raise StoreError(f"column {column.name!r} {rule}, got {cell[:40]!r}") from None
    return Record(**fields)
