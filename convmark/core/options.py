"""The options: the metadata of each field of `Options` is an `Option`.

pytest, the command line and pyproject.toml have the same options. Each gives texts (pyproject may
give numbers and lists); `read` turns them into one frozen `Options`. An `OptionError` names the
option, the value and the rule.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convmark.core import option_values as rules
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import ISOLATIONS, NUMA, PRECISIONS
from convmark.core.cluster import Cluster, parse_cluster, with_index
from convmark.core.errors import OptionError
from convmark.core.option import (
    ALL,
    MEASURING,
    NAMED,
    ONE_SIDE,
    SESSIONS,
    by_source,
    option_field,
    options_of,
)
from convmark.core.option_values import Shapes
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_PRECISIONS, RUNTIMES
from convmark.core.tasks import TASKS, TIMED_TASKS, default_sizes

_of_case = functools.partial(option_field, group="what is measured")
_of_way = functools.partial(option_field, group="how it is measured")
_of_lesson = functools.partial(option_field, group="the task accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run; None where the suite or the command has its own default."""

    models: tuple[str, ...] | None = _of_case(
        "--models NAMES",
        rules.parse_models,
        "models: a name of the zoo, a name of keras.applications in lower case, your own as "
        "package.module:builder, package.module:builder(width=2) or package.module:model, "
        "a .keras, .h5, .onnx, .tflite or .xml file, a SavedModel folder, or keras_hub:preset "
        "(default: the suite's)",
        commands=NAMED,
    )
    trust_models: bool = _of_case(
        "--trust-models",
        rules.parse_switch,
        "run code from model files, such as Lambda layers; it can do anything, so use this only "
        "for files that you trust (default: no, refuse such files)",
        default="no",
    )
    tasks: tuple[str, ...] = _of_case(
        "--tasks TASKS",
        rules.choices_of(tuple(TASKS)),
        f"{', '.join(one.words for one in TASKS.values())} (default: {','.join(TIMED_TASKS)})",
        default=",".join(TIMED_TASKS),
        commands=MEASURING - {"pytest"},
    )
    devices: tuple[str, ...] = _of_case(
        "--devices DEVICES",
        rules.parse_devices,
        "cpu, gpu:0, ... or all available devices",
        default="all",
    )
    batch_sizes: tuple[int, ...] | Literal["auto"] | None = _of_case(
        "--batch-sizes SIZES",
        rules.parse_batch_sizes,
        "samples per replica per step, or auto: find the fastest and the largest that fits "
        f"(default: {default_sizes(TASKS)})",
    )
    precisions: tuple[str, ...] = _of_case(
        "--precisions PRECISIONS",
        rules.choices_of((*PRECISIONS, *RUNTIME_PRECISIONS)),
        "float32 (TF32 off), tf32 (GPUs only), mixed_float16, mixed_bfloat16; of exported models "
        f"also {', '.join(RUNTIME_PRECISIONS)}",
        default="float32",
    )
    jit: tuple[str, ...] = _of_case(
        "--jit STATE",
        rules.parse_jit,
        "compile the step: off, on or both; uses XLA in TensorFlow and torch.compile in PyTorch; "
        "JAX always compiles",
        default="off",
    )
    replicas: tuple[int, ...] | None = _of_case(
        "--replicas NUMBERS",
        rules.parse_counts,
        "number of model copies, each with its own batch: one per GPU, or logical CPUs; "
        "TensorFlow only (default: 1; bench/test_scaling.py: up to the number of GPUs)",
        commands=SESSIONS,
    )
    cluster: Cluster | None = _of_case(
        "--cluster WHERE",
        parse_cluster,
        "run replicas in several processes: local, one each on this machine; HOST:PORT,HOST:PORT, "
        "on these machines; or TF_CONFIG to read that variable; start the same command on each "
        "machine (default: one process)",
        commands=("run",),
    )
    index: int | None = _of_case(
        "--index N",
        rules.parse_place,
        "position of this machine in --cluster, from 0; the first machine saves the rows (no "
        "default)",
        commands=("run",),
    )
    optimizer: str | None = _of_case(
        "--optimizer NAME",
        rules.or_default(rules.parse_name),
        "an optimizer of keras.optimizers, such as adam, or default; for models that are not "
        "compiled (default: plain SGD)",
    )
    learning_rate: float | None = _of_case(
        "--learning-rate RATE",
        rules.or_default(rules.parse_rate),
        "learning rate for models that are not compiled, or default (default: 0.01, or the "
        "default of --optimizer)",
    )
    loss: str | None = _of_case(
        "--loss NAME",
        rules.or_default(rules.parse_name),
        "a loss of keras.losses, or default; for models that are not compiled; the step is then "
        "Keras's own train_step (default: cross-entropy for class scores, else mean squared error)",
    )
    threads: tuple[str, ...] = _of_way(
        "--threads NUMBERS",
        rules.parse_threads,
        "threads of the measured process: numbers, such as 1,2,4, or default, the framework's own "
        "choice",
        default="default",
    )
    cpus: str | None = _of_way(
        "--cpus LIST",
        rules.or_default(rules.parse_cpus),
        "bind the measured processes to these CPUs, such as 0-7 or 0,2,4, or default; Linux only "
        "(default: all CPUs)",
    )
    numa: int | None = _of_way(
        "--numa NODE",
        rules.or_default(rules.parse_place),
        "bind them to the CPUs and the memory of a NUMA node, such as 0, or default; Linux only "
        "(default: all nodes)",
    )
    backends: tuple[str, ...] = _of_case(
        "--backend NAMES",
        rules.choices_of(tuple(BACKENDS)),
        f"backends of Keras: {', '.join(BACKENDS)} (default: {DEFAULT_BACKEND})",
        default=DEFAULT_BACKEND,
        commands=(*MEASURING, "doctor", "fleet doctor"),
    )
    runtimes: tuple[str, ...] = _of_case(
        "--runtime NAMES",
        rules.choices_of(tuple(RUNTIMES)),
        f"what runs the forward pass in the task infer: {', '.join(RUNTIMES)}; all but keras load "
        "a file that Keras exports",
        default=DEFAULT_RUNTIME,
        commands=NAMED,
    )
    ceilings: str = _of_way(
        "--ceilings WHICH",
        rules.choice_of(("auto", "on", "off")),
        "measure the highest speed of each device once, for the column efficiency: auto (GPUs "
        "only), on or off",
        default="auto",
        commands=ONE_SIDE,
    )
    layers: bool = option_field(
        "--layers",
        rules.parse_switch,
        "also measure the time of each layer, in --processes sessions per case; a gate measures "
        "those of slower cases anyway (default: no)",
        default="no",
        commands=(*SESSIONS, "ab"),
    )
    processes: int = _of_way(
        "--processes N",
        rules.parse_count,
        "fresh processes per case",
        default="3",
        commands=ONE_SIDE,
    )
    time_budget_s: float = _of_way(
        "--time-budget SECONDS",
        rules.parse_seconds,
        "maximum seconds of timed steps per process; rounds take up to half of this",
        default="0.6",
        commands=(*ONE_SIDE, "ab"),
    )
    time_limit_s: float = _of_way(
        "--time-limit SECONDS",
        rules.parse_seconds,
        "end a worker that makes no progress for this many seconds",
        default="600",
    )
    isolation: str = _of_way(
        "--isolation HOW",
        rules.choice_of(ISOLATIONS),
        "fork: fork each process from a warm interpreter; spawn: start a new interpreter; none: "
        "use one process, for debuggers and profilers (default: fork on Linux, else spawn)",
        default="fork" if sys.platform == "linux" else "spawn",
    )
    results: Path = option_field(
        "--results FOLDER",
        rules.parse_folder,
        "folder of the results",
        default="results",
        commands=ALL,
    )
    seed: int = _of_way(
        "--seed N",
        rules.parse_seed,
        "seed for the order of cases, the weights and the batches",
        default="0",
    )
    seeds: tuple[int, ...] = _of_lesson(
        "--seeds SEEDS",
        rules.parse_seeds,
        "seeds of the task accuracy, one process each",
        default="0,1,2",
        commands=SESSIONS,
    )
    target_accuracy: float = _of_lesson(
        "--target-accuracy SHARE",
        rules.parse_share,
        "validation accuracy for the time to accuracy of the task accuracy",
        default="0.97",
        commands=SESSIONS,
    )
    fraction: float = _of_lesson(
        "--fraction SHARE",
        rules.parse_share,
        "share of the training and validation samples for the task accuracy, for quick checks",
        default="1",
        commands=SESSIONS,
    )
    mnist: Path | None = _of_lesson(
        "--mnist PATH",
        rules.parse_file,
        "MNIST file, an .npz with the arrays of keras.datasets.mnist (default: CONVMARK_MNIST, "
        "else downloaded by Keras)",
        commands=SESSIONS,
    )
    input_shape: Shapes | None = _of_case(
        "--input-shape SHAPE",
        rules.or_default(rules.parse_shapes),
        "shape of one sample, such as 224x224x3, or name=28x28x1,other=4 for several inputs, or "
        "default (default: from the model; axes of unknown size: 224 in images, 128 in sequences)",
    )
    pythons: tuple[str, ...] = _of_case(
        "--python PATH",
        rules.parse_text,
        "interpreter to measure, or the folder of its environment; it needs only the framework "
        "(default: this one; convmark run accepts several and makes one run for each)",
        repeatable=True,
        commands=(*SESSIONS, "doctor", "fleet doctor"),
    )
    environments: tuple[str, ...] = _of_case(
        "--env REQUIREMENTS",
        rules.parse_text,
        'requirements of the environment to measure, such as "tensorflow==2.20.*"; made once and '
        "reused, see convmark env list (default: the current environment)",
        repeatable=True,
        commands=(*SESSIONS, "doctor", "fleet doctor"),
    )
    sustain_s: float | None = _of_way(
        "--sustain TIME",
        rules.parse_duration,
        "continue the steps for this time in the first process of each case, such as "
        "20m, 90s or 1h, and find when the throughput drops (default: no)",
        commands=("run",),
    )
    latency_limit_s: float | None = _of_way(
        "--latency-limit LATENCY",
        rules.parse_latency,
        "search the highest rate of arriving requests whose 99th percentile of "
        "latency is within this limit, such as 10ms, in the first process of each "
        "case of the task infer (default: no)",
        commands=SESSIONS,
    )
    cooling: str | None = _of_way(
        "--cooling TEXT",
        rules.parse_text,
        "how the machine is cooled, such as 'air, 2 fans' or 'liquid'; saved in each "
        "row (no default)",
        commands=("run",),
    )
    wait: bool = _of_way(
        "--wait",
        rules.parse_switch,
        "wait until other benchmark runs on this machine have ended (default: no, stop with an "
        "error)",
        default="no",
    )
    allow_concurrent: bool = _of_way(
        "--allow-concurrent",
        rules.parse_switch,
        "measure at the same time as other benchmark runs, which disturb the results; rows are "
        "marked",
        default="no",
    )
    compare_budget_s: float = option_field(
        "--compare-budget SECONDS",
        rules.parse_budget,
        "with --benchmark-compare: maximum seconds for the live comparison, before a regression is "
        "checked in separate processes; or unlimited, which also decides changes of 3 %",
        default="600",
        commands=("pytest",),
    )
    margin: float = option_field(
        "--margin SHARE",
        rules.parse_margin,
        "with --benchmark-compare: the smallest slowdown that counts as a regression, as a share "
        "of the step time",
        default="0.03",
        commands=("pytest",),
    )
    allow_changes: tuple[str, ...] = option_field(
        "--allow-change CASE",
        rules.parse_text,
        "accept an intended change of this case: its name, or a pattern such as 'lenet5-*' "
        "(default: none)",
        repeatable=True,
        commands=("pytest", "compare"),
    )
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """By field what the user gave on the command line or in pyproject, before it was read."""
    from_file: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False)
    """Names of the options that pyproject alone gives."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster", with_index(self.cluster, self.index))
        if self.cpus is not None and self.numa is not None:
            raise OptionError(
                f"--numa: chooses the CPUs itself, got {self.numa} together with --cpus "
                f"{self.cpus}; leave one of them out, or give it as default"
            )
        if self.isolation == "none" and len(self.threads) > 1:
            raise OptionError(
                f"--threads: one process has one number of threads, got {','.join(self.threads)} "
                "and --isolation none; give one number, or leave --isolation out"
            )

    @property
    def named(self) -> frozenset[str]:
        """The fields that the user set on the command line or in pyproject."""
        return frozenset(self.given)

    def words(self, fields: Collection[str]) -> list[str]:
        """Return those of the fields that the user set, as a command line has them."""
        return [
            word
            for field, option in _OPTION_OF.items()
            if field in fields and field in self.given
            for word in option.words(self.given[field])
        ]

    @property
    def bound_to(self) -> str | None:
        """What the measured processes are bound to, as a case has it."""
        return self.cpus if self.numa is None else f"{NUMA}{self.numa}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether another interpreter measures than the one that runs."""
        return bool(self.pythons or self.environments)

    @property
    def recipe(self) -> str | None:
        """The training options for models that are not compiled, as a case has them."""
        rate = None if self.learning_rate is None else f"{self.learning_rate:g}"
        asked = {"optimizer": self.optimizer, "learning_rate": rate, "loss": self.loss}
        return " ".join(f"{name}={value}" for name, value in asked.items() if value) or None


_OPTION_OF = options_of(Options)
OPTIONS = tuple(_OPTION_OF.values())
"""In the order of the help."""

OWN_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "layers": {"tasks": "infer", "batch_sizes": "1", "ceilings": "on"},
    "bisect": {"devices": "cpu"},
}
"""By command the defaults in which it differs from `convmark run`, as texts by field."""

_UNTIMED = tuple(name for name in TASKS if name not in TIMED_TASKS)
_NOT_OF_A_PAIR = {"tasks": _UNTIMED, "isolation": ("none",)}
REFUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "layers": {"tasks": _UNTIMED},
    "ab": _NOT_OF_A_PAIR,
    "bisect": {**_NOT_OF_A_PAIR, "devices": ("all",)},
    "noise": _NOT_OF_A_PAIR,
}
"""By command and key the values of `convmark run` that it refuses."""


def of_command(command: str, options: Options) -> Options:
    """Return the options with the command's own defaults for those that the user did not set."""
    own = {
        field: _OPTION_OF[field].value(_OPTION_OF[field].flag, text)
        for field, text in OWN_DEFAULTS[command].items()
        if field not in options.named
    }
    return dataclasses.replace(options, **own)


def read(
    given: Mapping[str, Any], settings: Mapping[str, Any] | None = None, *, prefix: str = "--"
) -> Options:
    """Return the options: `given` by the user first, then `settings`, then the defaults.

    Args:
        given: texts by option key (`batch_sizes`), None or absent where the user gave none.
        settings: the values of `[tool.convmark]`, by the same keys.
        prefix: what the options' names begin with where they were given.
    """
    values: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    from_file = set()
    for field, option in _OPTION_OF.items():
        flag, value = f"{prefix}{option.name}", given.get(option.key)
        if value is None and settings and option.key in settings:
            flag, value = f"[tool.convmark] {option.name}", settings[option.key]
            from_file.add(option.name)
        if value is not None:
            values[field], texts[field] = option.value(flag, value), value
    try:
        return Options(**values, given=texts, from_file=frozenset(from_file))
    except OptionError as error:
        raise OptionError(by_source(str(error), from_file)) from None


KEYWORDS = {name: option for name, option in _OPTION_OF.items() if "run" in option.commands}
"""The options of a run by the names of their fields."""
