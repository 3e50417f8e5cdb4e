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
from convmark.results.agreement import broken_rule, words_broken

__all__ = [
    "COLUMNS",
    "FRAMEWORK_COLUMNS",
    "MEASURED",
    "MEASUREMENT_VERSION",
    "OLDEST_SCHEMA",
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

SCHEMA_VERSION = 4
OLDEST_SCHEMA = 2
"""Of files that are read; no release has written an earlier one."""
MEASUREMENT_VERSION = 3
"""Rows of different ones are not compared.

Raise it by hand with a change after which the same code on the same machine gives other figures: a
loop that times otherwise, another estimator. tests/test_measuring_code.py asks at each change.
"""
STATUSES = ("ok", "error", "out_of_memory", "timeout", "crashed", "unsteady")
MEASURED = ("ok", "unsteady")
"""The statuses of rows that hold figures."""


_ASKED = re.compile(r"(?:precision=(?P<precision>\S+))?(?:(?:^|(?<=\S) )threads=(?P<threads>\S+))?")


def _column(group: str, title: str | None, unit: str, meaning: str, **more: Any) -> Any:
    """Declare a column.

    Args:
        title: in a report's table; empty for one made of the column's name; None where no report
            shows the column.
        more: fields of `Column`.
    """
    metadata = {"group": group, "unit": unit, "meaning": meaning, "title": title, **more}
    return dataclasses.field(default=None, metadata=metadata)


_figure = functools.partial(_column, table="architectures")
_run = functools.partial(_column, "run", None)
_case = functools.partial(_column, "case", None)
_environment = functools.partial(_column, "environment", table="machines", bounds="at least 0")
_size = functools.partial(_figure, "size", bounds="at least 0")
_time = functools.partial(_figure, "time", bounds="at least 0")
_memory = functools.partial(_figure, "memory", bounds="at least 0")
_state = functools.partial(_figure, "state", bounds="at least 0")
_check = functools.partial(_figure, "check")
_learning = functools.partial(_column, "learning", table="accuracy")
_export = functools.partial(_column, "export", table="runtimes", since=4, bounds="at least 0")
_waterfall = functools.partial(_column, "waterfall", table="waterfall")


def _step_time(title: str | None, meaning: str) -> Any:
    return _time(title, "s", meaning, bounds="above 0")


def _way(title: str | None, meaning: str) -> Any:
    return _waterfall(title, "s", meaning, bounds="above 0")


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
    order: int = _run("", "place in the run's plan, from 1", bounds="above 0")
    plan: str | None = _run(
        "",
        "hash of the cases, processes and seed asked for: --resume goes on with no other plan; "
        "of another node that took cases over, the first run's name too",
    )
    process: int = _run("", "number of the case's process, from 1", bounds="above 0")
    processes: int | None = _run("", "fresh processes asked for per case")
    seed: int | None = _run(
        "", "seed of the plan's order, the weights and the batches; of task accuracy the process's"
    )
    time_budget_s: float | None = _run("s", "seconds of timed steps asked for")
    concurrent: bool | None = _run(
        "", "whether other benchmark runs were allowed beside it (--allow-concurrent)"
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
    runtime: str | None = _case(
        "",
        "what runs the forward pass: keras, or what loads the file that Keras has exported; empty "
        "is keras",
        since=4,
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
        None, "", "fingerprint of the hardware, the results folder's name"
    )
    node: str | None = _environment(
        None, "", "host that measured it; nodes of one kind share the machine"
    )
    cpu: str | None = _environment("CPU", "", "CPU model")
    cores: int | None = _environment("logical CPUs", "", "logical CPUs that the process could use")
    ram_bytes: int | None = _environment("memory", "bytes", "memory of the machine")
    gpu: str | None = _environment("GPU", "", "name of the GPU that was measured")
    gpu_memory_bytes: int | None = _environment(None, "bytes", "memory of that GPU")
    driver: str | None = _environment(None, "", "version of the GPU driver")
    gpu_uuid: str | None = _environment(None, "", "the GPU's or MIG slice's own identity")
    compute_capability: str | None = _environment(None, "", "of the GPU, as CUDA counts it")
    driver_cuda: str | None = _environment(None, "", "newest CUDA version that the driver runs")
    pcie: str | None = _environment(
        None, "", "fastest generation of GPU and slot, lanes in use: gen4 x16"
    )
    ecc: str | None = _environment(None, "", "whether the GPU's memory corrects errors: on or off")
    mig: str | None = _environment(
        None, "", "off, or the MIG slice that was measured, such as 1g.20gb"
    )
    power_limit_w: float | None = _environment(None, "W", "power limit that the GPU enforces")
    max_sm_clock_mhz: int | None = _environment(None, "MHz", "highest clock of its multiprocessors")
    max_memory_clock_mhz: int | None = _environment(None, "MHz", "highest clock of its memory")
    cuda: str | None = _environment(None, "", "CUDA version that the framework was built for")
    cudnn: str | None = _environment(None, "", "cuDNN version that the framework was built for")
    os: str | None = _environment("system", "", "operating system")
    python: str | None = _environment(None, "", "version of the measured Python")
    tensorflow: str | None = _environment(None, "", "version of TensorFlow, where it runs the step")
    jax: str | None = _environment(None, "", "version of JAX, where it runs the step")
    torch: str | None = _environment(None, "", "version of PyTorch, where it runs the step")
    keras: str | None = _environment(None, "", "version of Keras")
    numpy: str | None = _environment(None, "", "version of the measured interpreter's NumPy")
    flags: str | None = _environment(None, "", "environment variables that change speed")
    packages: str | None = _environment(
        None,
        "",
        "distributions that the model's own files import: NAME==VERSION, in order",
        since=3,
    )
    state: str | None = _environment(
        None,
        "",
        "what of the process differs from the default: NAME=value, in order; what the model's own "
        "code has set begins with model:",
        since=3,
    )

    parameters: int | None = _size("", "", "elements of all weights")
    trainable_parameters: int | None = _size(
        None, "", "elements of the weights that training changes"
    )
    model_bytes: int | None = _size("model size", "bytes", "all weights as they are stored")
    flops_per_sample: int | None = _size(
        "FLOPs",
        "FLOPs",
        "2 x multiply-adds of convolutions and matrix products, forward, per sample",
    )

    flops_note: str | None = _size(
        "why no FLOPs", "", "why the FLOPs are empty, forward or training", since=3
    )
    training_flops_per_sample: int | None = _size(
        "training FLOPs",
        "FLOPs",
        "the same of a training step over its samples, the backward pass counted; empty where it "
        "cannot be followed",
        since=3,
    )

    process_start_s: float | None = _time(None, "s", "from the request to a usable framework")
    time_to_first_step_s: float | None = _time(
        "first step", "s", "first call: tracing, compilation, kernel choice, execution"
    )
    trace_s: float | None = _time(
        None, "s", "of it making the graph; empty where nothing is traced"
    )
    first_execution_s: float | None = _time(
        None, "s", "of it compilation, kernel choice and execution"
    )
    warm_up_steps: int | None = _time(None, "", "steps after the first, run and dropped")
    unsteady: str | None = _time(None, "", "why the row's status is unsteady", since=3)
    steps: int | None = _time(None, "", "steps timed one by one, the case alone")
    step_time_min_s: float | None = _step_time(None, "shortest step time")
    step_time_p10_s: float | None = _step_time(None, "step time, 10th percentile")
    step_time_p25_s: float | None = _step_time(None, "step time, 25th percentile")
    step_time_p50_s: float | None = _step_time("step p50", "step time, median")
    step_time_p75_s: float | None = _step_time(None, "step time, 75th percentile")
    step_time_p90_s: float | None = _step_time(None, "step time, 90th percentile")
    step_time_p95_s: float | None = _step_time(
        None, "step time, 95th percentile, from 100 steps up"
    )
    step_time_p99_s: float | None = _step_time(
        "step p99", "step time, 99th percentile, from 1,000 steps up"
    )
    step_time_max_s: float | None = _step_time(None, "longest step time")
    step_time_mean_s: float | None = _step_time(None, "mean step time")
    step_time_std_s: float | None = _time(None, "s", "standard deviation of the step time")
    windows: int | None = _time(None, "", "windows measured")
    window_steps: int | None = _time(None, "", "steps of a window")
    throughput_samples_per_s: float | None = _time(
        "samples/s", "samples/s", "samples of all windows over their wall seconds", bounds="above 0"
    )
    input_bound_throughput_samples_per_s: float | None = _time(
        "fed samples/s",
        "samples/s",
        "of windows fed from host memory, a batch each step; of a case's first process",
        bounds="above 0",
    )
    peak_flops_per_s: float | None = _time(
        None, "FLOP/s", "ceiling of the device: a large matrix product in the same precision"
    )
    peak_bytes_per_s: float | None = _time(None, "bytes/s", "ceiling of the device: a large copy")
    efficiency: float | None = _time(
        "of peak FLOP/s",
        "",
        "FLOP/s reached over peak_flops_per_s, in training those of the backward pass too",
        kind="share",
    )
    rounds: int | None = _time(None, "", "rounds of one case step and one reference step")
    reference: str | None = _time(None, "", "reference network in the rounds: small or large")
    reference_version: int | None = _time(None, "", "version of the reference network")
    measurement_version: str | None = _time(
        None,
        "",
        "version of the measuring code; raised where the same step would give other figures",
    )
    paired_step_time_p50_s: float | None = _step_time(None, "case step time in the rounds, median")
    reference_step_time_p50_s: float | None = _step_time(None, "reference step time, median")
    paired_log_ratio: float | None = _time(
        None,
        "",
        "20 % trimmed mean of ln(case / reference) over rounds, wall time",
        bounds="logarithm",
    )
    paired_log_ratio_se: float | None = _time(
        None, "", "its standard error", bounds="error of a logarithm"
    )
    paired_log_ratio_cpu: float | None = _time(
        None, "", "the same in CPU time of the process", bounds="logarithm"
    )
    paired_log_ratio_cpu_se: float | None = _time(
        None, "", "its standard error", bounds="error of a logarithm"
    )

    host_memory_baseline_bytes: int | None = _memory(None, "bytes", "host memory before the model")
    build_peak_host_memory_bytes: int | None = _memory(
        None, "bytes", "peak host memory above the baseline until the model was built", since=3
    )
    peak_host_memory_bytes: int | None = _memory(
        "host peak",
        "bytes",
        "peak host memory above the baseline; where the kernel can, since the build",
    )
    peak_device_memory_bytes: int | None = _memory(
        "device peak", "bytes", "peak held by the device allocator"
    )

    load_average_1min: float | None = _state(None, "", "load average at the end, one minute")
    other_cpu_share: float | None = _state(
        None, "", "share of the CPUs' time that others took while it measured, stolen time included"
    )
    involuntary_context_switches: int | None = _state(
        None, "", "times the kernel took the CPU away"
    )

    gpu_samples: int | None = _state(
        None, "", "looks at the card while steps, windows and rounds were timed"
    )
    sm_clock_mhz: float | None = _state(
        None,
        "MHz",
        "clock of the multiprocessors, median of the looks; of several cards the lowest",
    )
    memory_clock_mhz: float | None = _state(
        None, "MHz", "clock of the card's memory, median; of several cards the lowest"
    )
    temperature_c: float | None = _state(
        None, "degrees Celsius", "the GPU's temperature, highest; of all cards", bounds=""
    )
    power_w: float | None = _state(None, "W", "power of the whole card, mean; of several the sum")
    gpu_utilisation: float | None = _state(None, "", "share of time in which any kernel ran, mean")
    throttle_reasons: str | None = _state(None, "", "all reasons seen for a lower clock, or none")
    joules_per_sample: float | None = _state(
        "energy (J/sample)",
        "J",
        "energy of the whole card, of several the sum, over the windows / their samples",
        kind="joules",
    )
    foreign_gpu_processes: int | None = _state(None, "", "processes on the card not the run's own")
    foreign_graphics_processes: int | None = _state(
        None, "", "of those that draw, such as a desktop's"
    )
    card_peak_memory_bytes: int | None = _state(
        "card peak",
        "bytes",
        "highest memory in use on the card, by everybody, as the driver shows it",
    )
    not_judged: str | None = _state(None, "", "why the row's figures are no ground for a verdict")

    loss_first: float | None = _check(None, "", "training loss at step 1")
    loss: float | None = _check(
        None, "", "training loss at step 10; of task accuracy the test loss"
    )
    output_rms: float | None = _check(
        None, "", "root mean square of inference's output", bounds="at least 0"
    )
    accuracy: float | None = _check(
        "", "", "accuracy on the test samples, of task accuracy", kind="share", bounds="share"
    )

    export_s: float | None = _export("export", "s", "seconds of the export, when the file was made")
    exported_bytes: int | None = _export(
        "file", "bytes", "size of the exported file, of several the sum"
    )
    load_s: float | None = _export("load", "s", "from the file to a runtime that can be called")
    runtime_threads: int | None = _export(
        "threads",
        "",
        "threads of the runtime's own pool: as it tells, else the main one and those that the "
        "process has started until the first step",
    )
    largest_abs_error: float | None = _export(
        None,
        "",
        "largest difference of an output from the Keras model's in float32, on seeded inputs",
    )
    largest_rel_error: float | None = _export(
        "error", "", "the same over the largest magnitude of that output of the Keras model"
    )
    top1_agreement: float | None = _export(
        "top-1 agreement",
        "",
        "share of those inputs whose largest entry of the first output is the Keras model's",
        kind="share",
        bounds="share",
    )

    dataset: str | None = _learning(None, "", "what was trained on, with a hash of its samples")
    fraction: float | None = _learning(
        None, "", "share of training and validation samples used", bounds="share"
    )
    training_samples: int | None = _learning(
        None, "samples", "samples of an epoch", bounds="at least 0"
    )
    epochs: int | None = _learning(
        None, "", "epochs asked for; each has a row in <run>.epochs.csv", bounds="at least 0"
    )
    epoch_time_s: float | None = _learning(
        None,
        "s",
        "training steps of an epoch, the median of all but the first, which compiles",
        bounds="above 0",
    )
    training_loss: float | None = _learning(None, "", "training loss of the last epoch, its mean")
    training_accuracy: float | None = _learning(
        None, "", "training accuracy of the last epoch", bounds="share"
    )
    validation_loss: float | None = _learning(None, "", "loss on the validation samples at the end")
    validation_accuracy: float | None = _learning(
        None, "", "accuracy on them at the end", bounds="share"
    )
    target_accuracy: float | None = _learning(
        None, "", "validation accuracy aimed at", bounds="share"
    )
    time_to_target_s: float | None = _learning(
        None,
        "s",
        "training up to the end of the first epoch that reached it; empty where none did",
        bounds="at least 0",
    )
    samples_to_target: int | None = _learning(
        None, "samples", "samples trained on up to there", bounds="at least 0"
    )

    waterfall_rounds: int | None = _waterfall(
        None, "", "times that each way was timed, alternating"
    )
    waterfall_steps: int | None = _waterfall(None, "", "steps of a call of fit in a round")
    compiled_train_step_s: float | None = _way(
        None, "compiled training step on a batch that is on the device"
    )
    fed_train_step_s: float | None = _way(None, "the same step fed by tf.data")
    train_on_batch_step_s: float | None = _way(None, "train_on_batch on NumPy arrays")
    fit_step_s: float | None = _way(None, "one more step of fit on NumPy arrays")
    fit_call_s: float | None = _waterfall(None, "s", "a call of fit but for its steps")
    compiled_infer_step_s: float | None = _way(
        None, "compiled inference step on a batch that is on the device"
    )
    predict_on_batch_step_s: float | None = _way(None, "predict_on_batch on a NumPy array")
    predict_step_s: float | None = _way(None, "one more step of predict on a NumPy array")
    predict_call_s: float | None = _waterfall(None, "s", "a call of predict but for its steps")

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
        rule = words_broken(self.started, self.status, self.unsteady)
        if rule or (rule := broken_rule(self)):
            raise StoreError(rule)

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
            runtime=self.runtime or "",
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
