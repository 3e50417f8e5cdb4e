"""The CSV schema with its version: the columns of a row's figures, after those of its facts.

Each field says its group, unit and meaning, its bounds, and how a report shows it: docs/columns.md,
the reader's checks and the tables of a report are made from them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from convmark.core.cells import column
from convmark.results.row_facts import RowFacts

SCHEMA_VERSION = 7
OLDEST_SCHEMA = 2
"""Of files that are read; no release has written an earlier one."""
MEASUREMENT_VERSION = 6
"""Rows of different ones are not compared.

Raise it by hand with a change after which the same code on the same machine gives other figures: a
loop that times otherwise, another estimator. tests/test_measuring_code.py asks at each change.
"""
COUNTING_VERSION = 3
"""FLOPs of different ones are not compared; their rows are.

Raise it by hand with a change after which the same model has other FLOPs, such as a new rule for an
operation that had another. Rows that do not tell it were counted by earlier ones.
"""


_column = functools.partial(column, default=None)
_size = functools.partial(_column, group="size", table="architectures", bounds="at least 0")
_time = functools.partial(_column, group="time", table="architectures", bounds="at least 0")
_memory = functools.partial(_column, group="memory", table="architectures", bounds="at least 0")
_state = functools.partial(_column, group="state", table="architectures", bounds="at least 0")
_power = functools.partial(_column, group="state", table="energy", since=5, bounds="at least 0")
_sustained = functools.partial(
    _column, group="sustained", table="sustained", since=5, bounds="at least 0"
)
_at_limit = functools.partial(
    _column, group="latency limit", table="latency_limit", since=6, bounds="at least 0"
)
_check = functools.partial(_column, group="check", table="architectures")
_learning = functools.partial(_column, group="learning", table="accuracy")
_export = functools.partial(_column, group="export", table="runtimes", since=4, bounds="at least 0")
_waterfall = functools.partial(_column, group="waterfall", table="waterfall")
_step_time = functools.partial(_time, unit="s", bounds="above 0")
_way = functools.partial(_waterfall, unit="s", bounds="above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema(RowFacts):
    """The columns of a row. None is an empty cell: not measured, or not to be had."""

    parameters: int | None = _size("elements of all weights", title="")
    trainable_parameters: int | None = _size("elements of the weights that training changes")
    model_bytes: int | None = _size(
        "all weights as they are stored", unit="bytes", title="model size"
    )
    flops_per_sample: int | None = _size(
        "2 x multiply-adds of convolutions and matrix products, forward, per sample",
        unit="FLOPs",
        title="FLOPs",
    )

    flops_note: str | None = _size(
        "why the FLOPs are empty, forward or training", title="why no FLOPs", since=3
    )
    training_flops_per_sample: int | None = _size(
        "the same for a training step with its backward pass, per sample; empty if "
        "it cannot be followed",
        unit="FLOPs",
        title="training FLOPs",
        since=3,
    )
    counting_version: str | None = _size(
        "version of the rules that FLOPs are counted by; raised where the same model would have "
        "others",
        since=7,
    )

    process_start_s: float | None = _time("from the request to a usable framework", unit="s")
    time_to_first_step_s: float | None = _time(
        "first call: tracing, compilation, kernel choice, execution", unit="s", title="first step"
    )
    trace_s: float | None = _time(
        "the part of it that makes the graph; empty if nothing is traced", unit="s"
    )
    first_execution_s: float | None = _time(
        "the part of it for compilation, kernel choice and execution", unit="s"
    )
    warm_up_steps: int | None = _time("steps after the first, run and dropped")
    unsteady: str | None = _time("why the row's status is unsteady", since=3)
    steps: int | None = _time("steps timed one by one, without the reference network")
    step_time_min_s: float | None = _step_time("shortest step time")
    step_time_p10_s: float | None = _step_time("step time, 10th percentile")
    step_time_p25_s: float | None = _step_time("step time, 25th percentile")
    step_time_p50_s: float | None = _step_time("step time, median", title="step p50")
    step_time_p75_s: float | None = _step_time("step time, 75th percentile")
    step_time_p90_s: float | None = _step_time("step time, 90th percentile")
    step_time_p95_s: float | None = _step_time("step time, 95th percentile, from 100 steps up")
    step_time_p99_s: float | None = _step_time(
        "step time, 99th percentile, from 1,000 steps up", title="step p99"
    )
    step_time_max_s: float | None = _step_time("longest step time")
    step_time_mean_s: float | None = _step_time("mean step time")
    step_time_std_s: float | None = _time("standard deviation of the step time", unit="s")
    cpus_in_use: float | None = _time(
        "CPU time of the process over the time of these steps: how many CPUs they kept busy",
        unit="CPUs",
        since=6,
    )
    windows: int | None = _time("windows measured")
    window_steps: int | None = _time("steps of a window")
    throughput_samples_per_s: float | None = _time(
        "samples of all windows over their wall seconds",
        unit="samples/s",
        title="samples/s",
        bounds="above 0",
    )
    input_bound_throughput_samples_per_s: float | None = _time(
        "throughput of windows whose batches come from host memory; in the first process of a case",
        unit="samples/s",
        title="fed samples/s",
        bounds="above 0",
    )
    peak_flops_per_s: float | None = _time(
        "ceiling of the device: a large matrix product in the same precision", unit="FLOP/s"
    )
    peak_bytes_per_s: float | None = _time("ceiling of the device: a large copy", unit="bytes/s")
    efficiency: float | None = _time(
        "achieved FLOP/s over peak_flops_per_s; in training with the backward pass",
        title="of peak FLOP/s",
        kind="share",
    )
    rounds: int | None = _time("rounds of one case step and one reference step")
    reference: str | None = _time("reference network in the rounds: small or large")
    reference_version: int | None = _time("version of the reference network")
    measurement_version: str | None = _time(
        "version of the measuring code; raised where the same step would give other figures"
    )
    paired_step_time_p50_s: float | None = _step_time("case step time in the rounds, median")
    reference_step_time_p50_s: float | None = _step_time("reference step time, median")
    paired_log_ratio: float | None = _time(
        "20 % trimmed mean of ln(case / reference) over rounds, wall time", bounds="logarithm"
    )
    paired_log_ratio_se: float | None = _time("its standard error", bounds="error of a logarithm")
    paired_log_ratio_cpu: float | None = _time(
        "the same in CPU time of the process", bounds="logarithm"
    )
    paired_log_ratio_cpu_se: float | None = _time(
        "its standard error", bounds="error of a logarithm"
    )

    host_memory_baseline_bytes: int | None = _memory("host memory before the model", unit="bytes")
    build_peak_host_memory_bytes: int | None = _memory(
        "peak host memory above the baseline until the model was built", unit="bytes", since=3
    )
    peak_host_memory_bytes: int | None = _memory(
        ("peak host memory above the baseline; since the build, if the kernel can reset it"),
        unit="bytes",
        title="host peak",
    )
    peak_device_memory_bytes: int | None = _memory(
        "peak held by the device allocator", unit="bytes", title="device peak"
    )

    load_average_1min: float | None = _state("load average at the end, one minute")
    other_cpu_share: float | None = _state(
        "share of the CPUs' time that other programs took during the measurement, "
        "stolen time included"
    )
    involuntary_context_switches: int | None = _state("how often the kernel took the CPU away")

    gpu_samples: int | None = _state(
        "samples of the card's state while steps, windows and rounds were timed"
    )
    sm_clock_mhz: float | None = _state(
        "median clock of the multiprocessors; the lowest of several cards", unit="MHz"
    )
    memory_clock_mhz: float | None = _state(
        "median clock of the card's memory; the lowest of several cards", unit="MHz"
    )
    temperature_c: float | None = _state(
        "highest temperature of the GPU, or of all cards", unit="degrees Celsius", bounds=""
    )
    power_w: float | None = _state(
        "mean power of the whole card; the sum of several cards", unit="W"
    )
    gpu_utilisation: float | None = _state(
        "mean share of the time in which a kernel ran", bounds="share"
    )
    throttle_reasons: str | None = _state("all reasons seen for a lower clock, or none")
    joules_per_sample: float | None = _state(
        "energy of the whole card in the windows, or the sum of several cards, "
        "divided by their samples",
        unit="J",
        title="card energy (J/sample)",
        kind="joules",
    )
    idle_power_w: float | None = _power(
        "power of the whole card before the run; the sum of several cards; empty if it was in use",
        unit="W",
    )
    cpu_power_scope: str | None = _power(
        "what the next three columns count: package, package+dram, 2 packages, ..., "
        "with all programs that run there",
        title="scope",
    )
    cpu_power_w: float | None = _power(
        "power of the CPU packages over the windows; empty where CPUs that the process may not use "
        "were busy, or the counters were not read at the windows' ends",
        unit="W",
    )
    cpu_idle_power_w: float | None = _power(
        "the same before the run; empty if programs ran", unit="W"
    )
    cpu_joules_per_sample: float | None = _state(
        "energy of the CPU packages per sample, idle power included: cpu_power_w "
        "times the seconds of the windows, divided by their samples",
        unit="J",
        title="package energy (J/sample)",
        kind="joules",
        since=5,
    )
    foreign_gpu_processes: int | None = _state("processes on the card that are not the run's own")
    foreign_graphics_processes: int | None = _state(
        "those of them that draw graphics, such as a desktop's"
    )
    card_peak_memory_bytes: int | None = _state(
        "highest memory in use on the card, by all processes, from the driver",
        unit="bytes",
        title="card peak",
    )
    not_judged: str | None = _state("why the row does not count in verdicts")

    sustained_s: float | None = _sustained(
        "seconds of steps after the measurement, of --sustain; <run>.sustained.csv has each "
        "interval",
        unit="s",
        title="for",
    )
    sustained_throughput_samples_per_s: float | None = _sustained(
        "throughput of the last quarter of them",
        unit="samples/s",
        title="sustained samples/s",
    )
    sustained_drop: float | None = _sustained(
        "1 - the later level of the intervals / the earlier one; 0 if no drop was found, empty of "
        "fewer than 6 intervals",
        title="drop",
        kind="share",
        bounds="share",
    )
    sustained_drop_began_s: float | None = _sustained(
        "from the first sustained step to the drop", unit="s", title="drop began"
    )
    sustained_other_cpu_share: float | None = _sustained(
        "median share of the CPUs' time that other programs took in the last quarter",
        title="other load",
        kind="load",
        bounds="share",
    )

    latency_limit_s: float | None = _at_limit(
        "limit of --latency-limit for the 99th percentile of a request's latency, from when it "
        "was due to its answer",
        unit="s",
        title="limit",
    )
    latency_limit_rate_per_s: float | None = _at_limit(
        "highest rate of arriving requests, of a sample each, that held it; found to 2 %; "
        "<run>.latency.csv has each try",
        unit="1/s",
        title="requests/s",
    )
    latency_limit_proved_per_s: float | None = _at_limit(
        "highest rate that is proved to hold it: if 1 % of the requests were late, "
        "so few late ones would be improbable",
        unit="1/s",
        title="proved",
    )
    latency_limit_p50_s: float | None = _at_limit(
        "median latency at the proved rate, else at the found one", unit="s", title="p50"
    )
    latency_limit_p99_s: float | None = _at_limit("99th percentile there", unit="s", title="p99")
    latency_limit_requests: int | None = _at_limit("requests of that try", title="requests")
    latency_limit_requests_per_step: float | None = _at_limit(
        "requests that a step answered there, at most the batch size", "requests", title="per step"
    )
    latency_limit_confidence: float | None = _at_limit(
        "of the proof, over all rates tried for it", title="confidence", kind="share",
        bounds="share",
    )  # fmt: skip
    latency_limit_search_s: float | None = _at_limit("seconds of the search", unit="s")
    latency_limit_other_cpu_share: float | None = _at_limit(
        "largest share of the CPUs' time that other programs took, of the tries that "
        "decide the rate",
        title="other load",
        kind="load",
        bounds="share",
    )
    latency_limit_note: str | None = _at_limit(
        "why there is no rate, or no proof", title="note", bounds=""
    )

    loss_first: float | None = _check("training loss at step 1")
    loss: float | None = _check("training loss at step 10; in the task accuracy the test loss")
    output_rms: float | None = _check("root mean square of inference's output", bounds="at least 0")
    accuracy: float | None = _check(
        "accuracy on the test samples, in the task accuracy", title="", kind="share", bounds="share"
    )

    export_s: float | None = _export(
        "seconds of the export, when the file was made", unit="s", title="export"
    )
    exported_bytes: int | None = _export(
        "size of the file or files that the runtime loads", unit="bytes", title="file"
    )
    load_s: float | None = _export(
        "time to load the file into a runtime that can be called", unit="s", title="load"
    )
    runtime_threads: int | None = _export(
        "threads of the runtime's own pool: as it reports them, else the main thread "
        "and those that the process started until the first step",
        title="threads",
    )
    largest_abs_error: float | None = _export(
        "largest difference of an output from the Keras model's in float32, on seeded inputs"
    )
    largest_rel_error: float | None = _export(
        "the same less what float32 may round (1.9e-6 of that output's largest magnitude; 0: "
        "no more than that), divided by the largest distance of its values from their mean",
        title="error",
    )
    top1_agreement: float | None = _export(
        "share of these inputs for which the largest entry of the first output is "
        "the same as the Keras model's",
        title="top-1 agreement",
        kind="share",
        bounds="share",
    )

    dataset: str | None = _learning("what was trained on, with a hash of its samples")
    fraction: float | None = _learning(
        "share of training and validation samples used", bounds="share"
    )
    training_samples: int | None = _learning(
        "samples of an epoch", unit="samples", bounds="at least 0"
    )
    epochs: int | None = _learning(
        "epochs asked for; each has a row in <run>.epochs.csv", bounds="at least 0"
    )
    epoch_time_s: float | None = _learning(
        "training steps of an epoch, the median of all but the first, which compiles",
        unit="s",
        bounds="above 0",
    )
    training_loss: float | None = _learning("mean training loss of the last epoch")
    training_accuracy: float | None = _learning(
        "training accuracy of the last epoch", bounds="share"
    )
    validation_loss: float | None = _learning("loss on the validation samples at the end")
    validation_accuracy: float | None = _learning("accuracy on them at the end", bounds="share")
    target_accuracy: float | None = _learning("target of the validation accuracy", bounds="share")
    time_to_target_s: float | None = _learning(
        ("training time up to the end of the first epoch that reached it; empty if none did"),
        unit="s",
        bounds="at least 0",
    )
    samples_to_target: int | None = _learning(
        "samples trained on up to there", unit="samples", bounds="at least 0"
    )

    waterfall_rounds: int | None = _waterfall("how often each way was timed, in turns")
    waterfall_steps: int | None = _waterfall("steps of a call of fit in a round")
    compiled_train_step_s: float | None = _way(
        "compiled training step on a batch that is on the device"
    )
    fed_train_step_s: float | None = _way("the same step fed by tf.data")
    train_on_batch_step_s: float | None = _way("train_on_batch on NumPy arrays")
    fit_step_s: float | None = _way("one more step of fit on NumPy arrays")
    fit_call_s: float | None = _waterfall("a call of fit without its steps", unit="s")
    compiled_infer_step_s: float | None = _way(
        "compiled inference step on a batch that is on the device"
    )
    predict_on_batch_step_s: float | None = _way("predict_on_batch on a NumPy array")
    predict_step_s: float | None = _way("one more step of predict on a NumPy array")
    predict_call_s: float | None = _waterfall("a call of predict without its steps", unit="s")
