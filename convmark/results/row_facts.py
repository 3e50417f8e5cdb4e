"""The first columns of a row: its run, its case and the environment that it was measured in."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from convmark.core.cells import column

_column = functools.partial(column, default=None)
_run = functools.partial(_column, group="run")
_case = functools.partial(_column, group="case")
_environment = functools.partial(
    _column, group="environment", table="machines", bounds="at least 0"
)


def _moment(what: str) -> Any:
    """Declare a moment of a process, which a wall meter's log is joined by."""
    return _run(f"from `started` to {what}", unit="s", since=6, bounds="at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """What a row has whatever was measured. None is an empty cell: not known, or there is none."""

    schema: int = _run("version of these columns")
    run: str = _run("name of the run, its file's name without .csv")
    started: str = _run("when this process was asked for", unit="UTC, ISO 8601")
    convmark: str | None = _run("version of the harness")
    commit: str | None = _run(
        "git commit of the folder in which the run was started; empty if other code "
        "than the commit's ran"
    )
    dirty: bool | None = _run("whether that folder had uncommitted changes")
    code: str | None = _run(
        "hash of the files that the model opened and imported until its first step, and of the "
        "packages it imports; <run>.code.json lists them",
        since=3,
    )
    order: int = _run("place in the run's plan, from 1", bounds="above 0")
    plan: str | None = _run(
        "hash of the cases, processes and seed asked for: --resume goes on with no other plan; "
        "of another node that took cases over, the first run's name too"
    )
    process: int = _run("number of the case's process, from 1", bounds="above 0")
    processes: int | None = _run("fresh processes asked for per case")
    seed: int | None = _run(
        "seed of the plan's order, the weights and the batches; in the task accuracy "
        "the seed of the process"
    )
    time_budget_s: float | None = _run("seconds of timed steps asked for", unit="s")
    concurrent: bool | None = _run(
        "whether other benchmark runs were allowed beside it (--allow-concurrent)"
    )
    command_started: str | None = _run(
        "when the command that measured it was started", unit="UTC, ISO 8601", since=6
    )
    took_s: float | None = _moment("its end")
    windows_from_s: float | None = _moment("the first window")
    windows_until_s: float | None = _moment("the end of the last window")
    sustained_from_s: float | None = _moment("the last quarter of the sustained steps")
    sustained_until_s: float | None = _moment("the end of the sustained steps")
    status: str = _run("ok, unsteady (measured, but the step time did not hold still), error, ...")
    error: str | None = _run("one line that says what went wrong")

    model: str = _case("model by name, or package.module:builder")
    task: str = _case(
        "train or infer; accuracy trains on MNIST, waterfall times the parts of Keras's calls"
    )
    device: str = _case("cpu or gpu:N")
    batch_size: int = _case(
        "samples per replica per step, as asked for", unit="samples", bounds="above 0"
    )
    effective_batch_size: int | None = _case("samples per step over all replicas", unit="samples")
    precision: str = _case(
        "what the layers compute in: float32 (TF32 off), tf32, a mixed Keras dtype policy, "
        "another dtype, or a mixture such as float32+mixed_bfloat16; of an exported model the form "
        "of its file"
    )
    jit: str = _case(
        "whether the framework's optional compiler is asked for: on or off; JAX always compiles"
    )
    replicas: int = _case(
        "copies of the model, one per device, GPUs from `device` on", bounds="above 0"
    )
    cluster: str | None = _case(
        "empty: replicas in one process; local: one each on the machine; hostsN: N machines"
    )
    threads: str = _case("intra-op and inter-op threads in force, or default")
    asked: str | None = _case(
        "what was asked for, if the model changed it, such as precision=float32", since=3
    )
    input_shape: str | None = _case(
        "one sample's shape, such as 28x28x1; of several inputs name=28x28x1,other=4"
    )
    asked_shape: str | None = _case("what --input-shape asked for", since=3)
    call_path: str | None = _case("how the step is called: tf.function, jax.jit, ...")
    backend: str = _case("framework that runs the step")
    recipe: str | None = _case(
        "what --optimizer, --learning-rate and --loss asked for, such as optimizer=adam", since=3
    )
    runtime: str | None = _case(
        "what runs the forward pass: keras, or what loads the file that Keras has exported; empty "
        "is keras",
        since=4,
    )
    cpus: str | None = _case(
        "CPUs to which --cpus bound the process, such as 0-3; numaN if --numa bound "
        "it to a NUMA node with its memory; empty if neither did",
        since=6,
    )
    pool_threads: int | None = _case(
        "threads of operations: those asked for; by default the framework's number, "
        "in TensorFlow and JAX one for each CPU that the process may use",
        since=6,
    )
    training: str | None = _case(
        "what decides how the model is trained: model (its compile or its own methods; step and "
        "loss are those of fit, the loss a mean since the first step) or harness",
        since=3,
    )
    optimizer: str | None = _case("class of the optimizer; several are joined by +", since=3)
    loss_name: str | None = _case(
        "Keras's name of the loss, or the model's own method that computes it", since=3
    )
    isolation: str | None = _case("how the process was started: fork, spawn or none")

    machine: str | None = _environment("fingerprint of the hardware, the results folder's name")
    node: str | None = _environment("host that measured it; nodes of one kind share the machine")
    cpu: str | None = _environment("CPU model", title="CPU")
    cores: int | None = _environment(
        "logical CPUs that the process could use", title="logical CPUs"
    )
    physical_cores: int | None = _environment(
        "physical cores of these logical CPUs; hyperthreads share one", since=6
    )
    ram_bytes: int | None = _environment("memory of the machine", unit="bytes", title="memory")
    topology: str | None = _environment(
        "sockets, cores, logical CPUs and NUMA nodes of the whole machine",
        title="sockets and cores",
        since=5,
    )
    memory_modules: str | None = _environment(
        "modules of the memory, their type, speed and channels, as far as the user may read them",
        title="memory modules",
        since=5,
    )
    frequency: str | None = _environment("governor and turbo", title="clock", since=5)
    product: str | None = _environment(
        "vendor and product; on Amazon EC2 the type of the instance", title="product", since=5
    )
    virtualisation: str | None = _environment(
        "virtual machine, container and CPU quota, or none", title="virtualisation", since=5
    )
    cooling: str | None = _environment(
        "how the machine is cooled, from --cooling", title="cooling", since=5
    )
    gpu: str | None = _environment("name of the GPU that was measured", title="GPU")
    gpu_memory_bytes: int | None = _environment("memory of that GPU", unit="bytes")
    driver: str | None = _environment("version of the GPU driver")
    gpu_uuid: str | None = _environment("the GPU's or MIG slice's own identity")
    compute_capability: str | None = _environment("of the GPU, as CUDA counts it")
    driver_cuda: str | None = _environment("newest CUDA version that the driver runs")
    pcie: str | None = _environment("fastest generation of GPU and slot, lanes in use: gen4 x16")
    ecc: str | None = _environment("whether the GPU's memory corrects errors: on or off")
    mig: str | None = _environment("off, or the MIG slice that was measured, such as 1g.20gb")
    power_limit_w: float | None = _environment("power limit that the GPU enforces", unit="W")
    max_sm_clock_mhz: int | None = _environment("highest clock of its multiprocessors", unit="MHz")
    max_memory_clock_mhz: int | None = _environment("highest clock of its memory", unit="MHz")
    cuda: str | None = _environment("CUDA version that the framework was built for")
    cudnn: str | None = _environment("cuDNN version that the framework was built for")
    os: str | None = _environment("operating system", title="system")
    python: str | None = _environment("version of the measured Python")
    tensorflow: str | None = _environment("version of TensorFlow, where it runs the step")
    jax: str | None = _environment("version of JAX, where it runs the step")
    torch: str | None = _environment("version of PyTorch, where it runs the step")
    keras: str | None = _environment("version of Keras")
    numpy: str | None = _environment("version of the measured interpreter's NumPy")
    flags: str | None = _environment("environment variables that change speed")
    packages: str | None = _environment(
        "distributions that the model's own files import: NAME==VERSION, in order", since=3
    )
    state: str | None = _environment(
        "settings of the process that differ from the default: NAME=value, in order; "
        "those set by the model's own code begin with model:",
        since=3,
    )
