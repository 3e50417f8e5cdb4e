"""The default suites: the cases of `pytest bench` and `convmark run` unless options say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convmark.core.backends import BACKENDS, with_property
from convmark.core.case import Case, broken_rule, expand
from convmark.core.errors import CaseError, OptionError
from convmark.core.model_name import ModelName
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_TASKS, RUNTIMES
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import Say

FIRST = 32
"""The batch size that a search for sizes begins with."""

MOST_RULES = 3
"""That one line names."""

NETWORKS = ("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A default grid of cases; options replace its models and batch sizes."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    """Samples per replica per step."""
    fixed_models: bool = False
    """Whether `--models` may only choose among the suite's models, not replace them."""
    scaling: bool = False
    """Whether it measures several replicas: those of `--replicas`, or 1, 2, 4, ... up to the number
    of GPUs. It has no case if there are fewer than two GPUs."""

    def __post_init__(self) -> None:
        for name in ("models", "tasks", "batch_sizes"):
            value = getattr(self, name)
            if isinstance(value, (str, int)):
                raise CaseError(f"Suite: {name} must be a tuple, as in ({value!r},), got {value!r}")
        object.__setattr__(self, "models", tuple(str(ModelName.of(one)) for one in self.models))

    def cases(
        self,
        options: Options,
        devices: Sequence[str],
        backends: Sequence[str] | None = None,
        left_out: Say = lambda rule: None,
    ) -> list[Case]:
        """Return the suite's cases on these devices, as the options shape them.

        Args:
            backends: those that have the devices, all that were asked for by default.
            left_out: as in `expand`.
        """
        models: Sequence[str] = options.models or self.models
        if self.fixed_models:
            models = [model for model in self.models if model in models]
        sizes = (FIRST,) if options.batch_sizes == AUTO else options.batch_sizes
        return expand(
            models=models,
            tasks=[task for task in self.tasks if task in options.tasks],
            devices=devices,
            batch_sizes=sizes or self.batch_sizes,
            precisions=options.precisions,
            jit=options.jit,
            threads=options.threads,
            cpus=options.bound_to,
            recipe=options.recipe,
            runtimes=options.runtimes,
            left_out=left_out,
            backends=options.backends if backends is None else backends,
            replicas=options.replicas or (self._doublings(devices) if self.scaling else (1,)),
            cluster=options.cluster.name if options.cluster else None,
        )

    @staticmethod
    def _doublings(devices: Sequence[str]) -> tuple[int, ...]:
        gpus = sum(device != "cpu" for device in devices)
        return tuple(1 << power for power in range(gpus.bit_length())) if gpus > 1 else ()


def suite_of(task: str) -> Suite:
    return Suite(models=NETWORKS, tasks=(task,), batch_sizes=TASKS[task].batch_sizes)


TRAINING, INFERENCE = suite_of("train"), suite_of("infer")
LAYERS = Suite(
    models=("conv_layer", "separable_layer"),
    tasks=TIMED_TASKS,
    batch_sizes=(32,),
    fixed_models=True,
)
SCALING = Suite(models=("mini_resnet",), tasks=("train",), batch_sizes=(32,), scaling=True)
ACCURACY = suite_of("accuracy")
SUITES = (*map(suite_of, TIMED_TASKS), LAYERS, *(suite_of(x) for x in TASKS if not TASKS[x].timed))
"""Of `convmark run`, where `--replicas` spreads these and scaling is no suite of its own; untimed
tasks are measured where `--tasks` names them."""


def cases(
    options: Options, devices: Mapping[str, Sequence[str]], say: Say = lambda line: None
) -> list[Case]:
    """Return the cases of all default suites, each once.

    Args:
        devices: by backend those that it is to be measured on.
        say: what of the options no runtime can run, in one line.

    Raises:
        OptionError: none of what the options name can be run.
    """
    rules: list[str] = []
    found = [
        case
        for suite in SUITES
        for backend, its_devices in devices.items()
        for case in suite.cases(options, its_devices, [backend], rules.append)
    ]
    rules += runtimes_without_cases(options, found)
    if rules:
        first, more = list(dict.fromkeys(rules))[:MOST_RULES], len(set(rules)) - MOST_RULES
        words = "; ".join(first) + (f" and {more} more" if more > 0 else "")
        if not found:
            raise OptionError(f"--runtime: leaves nothing to measure: {words}")
        say(f"left out: {words}")
    return list(dict.fromkeys(found))


def runtimes_without_cases(options: Options, found: Sequence[Case]) -> list[str]:
    """Return for each runtime that no case is of the rule that keeps it from the last of them."""
    lacking = set(options.runtimes) - {case.runtime for case in found}
    names = [name for name in options.runtimes if name in lacking and found]
    rules = {name: broken_rule(RUNTIMES[name], found[-1]) for name in names}
    return [f"runtime {name} {rule}" for name, rule in rules.items() if rule]


def auto_name(case: Case) -> str:
    """Return the name of a case whose batch size is searched for from its own on."""
    return case.name.replace(f"-b{case.batch_size}-", f"-b{AUTO}-", 1)


def refuse_untimed(options: Options, what: str) -> None:
    """Refuse tasks whose steps are not timed one by one.

    Args:
        what: the command, and what it does with a task.
    """
    for task in options.tasks:
        if task not in TIMED_TASKS:
            raise OptionError(f"--tasks: {what} {' and '.join(TIMED_TASKS)} alone, got {task!r}")


def refuse_latency_limit(options: Options) -> None:
    """Refuse a latency limit where no rate can be searched at it."""
    if options.latency_limit_s is None:
        return
    if "infer" not in options.tasks:
        raise OptionError(
            f"--latency-limit: is of the task infer, got --tasks {','.join(options.tasks)}"
        )
    if options.batch_sizes == AUTO:
        raise OptionError(
            "--latency-limit: needs --batch-sizes in numbers, the most requests that a step "
            "answers, got auto"
        )
    if options.cluster is not None:
        raise OptionError("--latency-limit: must not be given with --cluster")


def refuse_replicas(options: Options) -> None:
    """Refuse what cannot be measured with several replicas or over a cluster."""
    most = max(options.replicas or (1,))
    others = [name for name in options.backends if not BACKENDS[name].replicas]
    if most > 1 and others:
        raise OptionError(
            f"--replicas: above 1 needs --backend {with_property('replicas')}, got {most} and "
            f"--backend {', '.join(others)}"
        )
    if options.cluster is None:
        return
    if most == 1:
        raise OptionError("--cluster: needs --replicas of at least 2, got 1")
    if options.isolation == "none":
        raise OptionError("--cluster: needs --isolation fork or spawn, got 'none'")
    if options.batch_sizes == AUTO and options.cluster.addresses:
        raise OptionError(
            "--batch-sizes: auto is for one machine, because each machine would choose "
            "by its own memory; give the sizes, or use --cluster local"
        )


def refuse_runtimes(options: Options) -> None:
    """Refuse a runtime that none of the cases asked for can be of."""
    for name in options.runtimes:
        runtime = RUNTIMES[name]
        rules = (
            ("--tasks", options.tasks, RUNTIME_TASKS),
            ("--backend", options.backends, (runtime.backend,)),
            ("--jit", options.jit, ("off",)),
            ("--precisions", options.precisions, runtime.precisions),
        )
        for flag, given, needed in rules:
            if name != DEFAULT_RUNTIME and not set(given) & set(needed):
                raise OptionError(
                    f"{flag}: the runtime {name} needs {' or '.join(needed)}, "
                    f"got {', '.join(given)}"
                )
