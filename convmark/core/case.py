"""Case: what is measured, its name, and the grid of cases that options expand to.

The worker loads this module too, so it needs the standard library alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND, with_property
from convmark.core.errors import CaseError
from convmark.core.runtimes import (
    DEFAULT_RUNTIME,
    RUNTIME_PRECISIONS,
    RUNTIME_TASKS,
    RUNTIMES,
    Runtime,
    runtime_of_file,
)
from convmark.core.tasks import TASKS

PRECISIONS = ("float32", "tf32", "mixed_float16", "mixed_bfloat16")
"""Those that can be asked for."""
JIT_STATES = ("off", "on")
SIDE_SETTINGS = ("backend", "cpus", "jit", "precision", "runtime", "threads")
"""What one side of a comparison may set of its case alone."""
ISOLATIONS = ("fork", "spawn", "none")

CLUSTERS = re.compile(r"local|hosts([1-9][0-9]{0,8})")
THREADS = re.compile(r"default|0{0,8}[1-9][0-9]{0,8}")
"""Python reads no number of thousands of digits, which a file may hold."""
NUMA = "numa"
"""How a case's CPUs begin that are those of a NUMA node."""
_CPU = r"(?:0|[1-9][0-9]{0,3})"
_CPUS = re.compile(rf"{_CPU}(?:-{_CPU}(?::{_CPU})?)?")

_DTYPE = (
    r"(?:u?int(?:4|8|16|32|64)|float(?:16|32|64)|bfloat16|float8[0-9a-z_]{0,12}|complex(?:64|128))"
)
_STORED = rf"(?:{_DTYPE}|(?:(?:gptq|awq)_[0-9]{{1,3}}|int4)_-?[0-9]{{1,6}})"
"""What weights are stored in; of GPTQ and AWQ with their bits, and of int4 too with the size of a
group."""
_KIND = rf"(?:tf32|dynamic_int8|(?:mixed_)?{_DTYPE}|{_STORED}_from_(?:mixed_)?{_DTYPE})"
FOUND_PRECISION = re.compile(rf"{_KIND}(?:\+{_KIND}){{0,7}}")
"""What layers are found to compute in: a precision as above, another dtype, or a mixture by its
parts, such as `float32+mixed_bfloat16`."""

_NAME = r"[A-Za-z][A-Za-z0-9_]{0,60}"
RECIPE = re.compile(
    rf"(?=.)(?:optimizer={_NAME})?(?:(?:^|(?<=\S) )learning_rate=[0-9.e+-]{{1,30}})?"
    rf"(?:(?:^|(?<=\S) )loss={_NAME})?"
)

_CHOICES = {
    "task": tuple(TASKS),
    "jit": JIT_STATES,
    "backend": tuple(BACKENDS),
    "runtime": tuple(RUNTIMES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of the benchmark grid, fixed before anything runs."""

    model: str
    task: str
    """`train` or `infer`; `accuracy` trains on real data, `waterfall` takes Keras apart."""
    device: str = "cpu"
    """`cpu` or `gpu:N`."""
    batch_size: int = 1
    """Samples per replica per step, as asked for; never the size that fitted."""
    precision: str = "float32"
    """`float32` has TF32 off; `tf32` multiplies float32 in TF32; else a Keras dtype policy. A row
    may have another that the model's own code has set: see `FOUND_PRECISION`."""
    jit: str = "off"
    """Whether the framework's optional compiler is asked for: `on` or `off`."""
    replicas: int = 1
    """Copies of the model; of GPUs `device` is the first, and those after it have one each."""
    cluster: str | None = None
    """How replicas are spread over processes: None all in one, `local` one each on this machine,
    `hostsN` evenly over N machines."""
    threads: str = "default"
    """Intra-op and inter-op threads as a whole number, or `default`."""
    backend: str = DEFAULT_BACKEND
    recipe: str | None = None
    """In training, what was asked for models that bring no training of their own: `optimizer=`,
    `learning_rate=` and `loss=`, as many as were given, in this order, one space between."""
    runtime: str = DEFAULT_RUNTIME
    """What runs the forward pass: Keras, or what loads the file that Keras has exported."""
    cpus: str | None = None
    """The CPUs that the process is bound to, as `cpu_list` writes them, or `numaN`: those of a NUMA
    node, with its memory. None where it is bound to none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "runtime", self.runtime or DEFAULT_RUNTIME)  # an empty cell
        object.__setattr__(self, "cpus", self.cpus or None)
        if self.cpus is not None and not _are_cpus(self.cpus):
            raise CaseError(
                f"{self.model}: cpus must be a list such as 0-3,8, in order, or numaN, "
                f"got {self.cpus!r}"
            )
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise CaseError(
                    f"{self.model}: {field} must be one of {', '.join(choices)}, got {value!r}"
                )
        if not FOUND_PRECISION.fullmatch(self.precision):
            raise CaseError(
                f"{self.model}: precision must be one of {', '.join(PRECISIONS)}, "
                f"got {self.precision!r}"
            )
        if self.precision == "tf32" and self.device == "cpu":
            raise CaseError(f"{self.model}: precision tf32 needs a GPU, got the device 'cpu'")
        backend = BACKENDS[self.backend]
        if not TASKS[self.task].timed and (not backend.untimed_tasks or self.replicas != 1):
            raise CaseError(
                f"{self.model}: task {self.task} is of the backend "
                f"{with_property('untimed_tasks')} and one replica, got {self.backend!r} and "
                f"{self.replicas}"
            )
        if self.batch_size < 1:
            raise CaseError(f"{self.model}: batch size must be at least 1, got {self.batch_size}")
        if not THREADS.fullmatch(self.threads):
            raise CaseError(
                f"{self.model}: threads must be 'default' or a whole number of at least 1, "
                f"got {self.threads!r}"
            )
        if self.replicas < 1:
            raise CaseError(f"{self.model}: replicas must be at least 1, got {self.replicas}")
        if self.replicas > 1 and not backend.replicas:
            raise CaseError(
                f"{self.model}: replicas above 1 need the backend {with_property('replicas')}, got "
                f"{self.replicas} and the backend {self.backend!r}"
            )
        object.__setattr__(self, "cluster", self.cluster or None)  # an empty cell is none
        if self.cluster is not None:
            self._check_cluster(self.cluster)
        object.__setattr__(self, "recipe", self.recipe or None)
        if self.recipe is not None:
            self._check_recipe(self.recipe)
        if self.runtime != DEFAULT_RUNTIME and (rule := broken_rule(RUNTIMES[self.runtime], self)):
            raise CaseError(f"{self.model}: runtime {self.runtime} {rule}")

    def _check_recipe(self, recipe: str) -> None:
        if self.task != "train":
            raise CaseError(
                f"{self.model}: a recipe is of the task train, got {recipe!r} and {self.task!r}"
            )
        if not RECIPE.fullmatch(recipe):
            raise CaseError(
                f"{self.model}: recipe must be of optimizer=NAME, learning_rate=NUMBER and "
                f"loss=NAME, in this order, got {recipe!r}"
            )

    def _check_cluster(self, cluster: str) -> None:
        found = CLUSTERS.fullmatch(cluster)
        if found is None:
            raise CaseError(f"{self.model}: cluster must be local or hostsN, got {cluster!r}")
        if self.replicas == 1:
            raise CaseError(f"{self.model}: one replica needs no cluster, got {cluster!r}")
        hosts = int(found.group(1) or self.replicas)
        if self.replicas % hosts or (self.device == "cpu" and self.replicas != hosts):
            rule = "one for each" if self.device == "cpu" else f"a multiple of {hosts}"
            raise CaseError(
                f"{self.model}: replicas over {hosts} machines must be {rule} on {self.device}, "
                f"got {self.replicas}"
            )

    @property
    def name(self) -> str:
        """The case's key: its axes, those at their default left out beyond the first five."""
        parts = [self.model, self.task, self.device, f"b{self.batch_size}", self.precision]
        if self.jit == "on":
            parts.append("jit")
        if self.threads != "default":
            parts.append(f"t{self.threads}")
        if self.cpus is not None:
            of_a_node = self.cpus.startswith(NUMA)
            parts.append(self.cpus if of_a_node else f"cpus{self.cpus.replace(',', '+')}")
        if self.replicas != 1:
            parts.append(f"r{self.replicas}")
        if self.cluster is not None:
            parts.append(self.cluster)
        if self.backend != DEFAULT_BACKEND:
            parts.append(self.backend)
        if self.runtime != DEFAULT_RUNTIME:
            parts.append(self.runtime)
        parts += (pair.replace("learning_rate=", "lr=") for pair in (self.recipe or "").split())
        return "-".join(parts)

    @property
    def machines(self) -> int:
        """Machines that share the replicas."""
        return int((self.cluster or "").removeprefix("hosts")) if self.spans_machines else 1

    @property
    def devices_here(self) -> list[str]:
        """The devices that its replicas have on one machine: on GPUs, one each from `device` on."""
        kind, _, place = self.device.partition(":")
        if kind != "gpu" or not place.isdecimal():
            return [self.device]
        first = int(place)
        return [f"gpu:{first + number}" for number in range(self.replicas // self.machines)]

    @property
    def spans_machines(self) -> bool:
        """Whether the replicas run on several machines."""
        return self.cluster not in (None, "local")

    @property
    def group(self) -> str:
        """What a table puts side by side: all axes but the model."""
        return self.name.removeprefix(f"{self.model}-")

    def as_fields(self) -> dict[str, Any]:
        """The axes by name, for the protocol and for a record."""
        return asdict(self)


def cpu_numbers(text: str) -> list[int]:
    """Return the CPUs of a list as `taskset` and the kernel write it: `0-3,8`, `0-14:2`.

    Raises:
        ValueError: it is none.
    """
    found: set[int] = set()
    for part in text.split(","):
        if not _CPUS.fullmatch(part):
            raise ValueError(part)
        ends, _, step = part.partition(":")
        first, _, last = ends.partition("-")
        numbers = range(int(first), int(last or first) + 1, int(step or 1))
        if not numbers:
            raise ValueError(part)
        found.update(numbers)
    return sorted(found)


def cpu_list(numbers: Iterable[int]) -> str:
    """Return CPUs as a list in one spelling: ranges of neighbours, and of steps from three on."""
    left, parts = sorted(set(numbers)), []
    while left:
        step = left[1] - left[0] if len(left) > 1 else 1
        count = next((n for n, one in enumerate(left) if one != left[0] + n * step), len(left))
        if step > 1 and count < 3:
            count = 1
        ends = f"{left[0]}-{left[count - 1]}" if count > 1 else str(left[0])
        parts.append(ends + (f":{step}" if step > 1 and count > 1 else ""))
        del left[:count]
    return ",".join(parts)


def _are_cpus(text: str) -> bool:
    """Whether a case's CPUs are written as they are in every name."""
    if text.startswith(NUMA):
        return re.fullmatch(_CPU, text.removeprefix(NUMA)) is not None
    try:
        return cpu_list(cpu_numbers(text)) == text
    except ValueError:
        return False


def broken_rule(runtime: Runtime, case: Case) -> str:
    """Return which of a runtime's rules a case breaks; empty where none.

    A file that was there already may be of a precision that no model is exported in.
    """
    if runtime.name == DEFAULT_RUNTIME:
        others = [one.name for one in RUNTIMES.values() if case.precision in one.precisions]
        needed = f"has no precision {case.precision!r}, which is of {' and '.join(others)}"
        return needed if case.precision in RUNTIME_PRECISIONS else ""
    is_file = runtime_of_file(case.model) == runtime.name
    rules = (
        ("task", case.task, ("infer",) if is_file else RUNTIME_TASKS),
        ("backend", case.backend, (runtime.backend,)),
        ("jit", case.jit, JIT_STATES[:1]),
        ("replicas", case.replicas, (1,)),
        ("precision", case.precision, (case.precision,) if is_file else runtime.precisions),
    )
    for axis, value, allowed in rules:
        if value not in allowed:
            return f"needs {axis} {' or '.join(map(str, allowed))}, got {value!r}"
    return "" if runtime.gpu or case.device == "cpu" else f"needs device cpu, got {case.device!r}"


def expand(
    *,
    models: Iterable[str],
    tasks: Iterable[str],
    devices: Iterable[str],
    batch_sizes: Sequence[int],
    precisions: Sequence[str] = ("float32",),
    jit: Sequence[str] = ("off",),
    threads: Sequence[str] = ("default",),
    backends: Sequence[str] = (DEFAULT_BACKEND,),
    replicas: Sequence[int] = (1,),
    cluster: str | None = None,
    recipe: str | None = None,
    runtimes: Sequence[str] = (DEFAULT_RUNTIME,),
    cpus: str | None = None,
    left_out: Callable[[str], None] = lambda rule: None,
) -> list[Case]:
    """Return every combination once, models slowest, in the order given.

    Where both states of `jit` are asked for, a backend that compiles every step has the first
    alone. TF32 is of GPUs: a CPU beside one has no case of it. Of several GPUs the first begins
    each case of more than one replica. A runtime has the cases that it can run; a file of its own
    has those of no other.

    Args:
        cluster: what cases of more than one replica are spread over.
        recipe: what the cases of the task train ask for.
        left_out: is called with the rule that keeps a combination from all of the runtimes.

    Raises:
        CaseError: a value that a case refuses, or TF32 alone on CPUs alone.
    """
    devices = list(devices)
    if set(precisions) == {"tf32"} and set(devices) == {"cpu"}:
        raise CaseError("precision tf32 needs a GPU, got only the device 'cpu'")
    later_gpus = [device for device in devices if device != "cpu"][1:]
    axes = (models, tasks, devices, batch_sizes, precisions, jit, threads, backends, replicas)
    grid = itertools.product(*axes)
    found = (
        Case(
            model=model,
            task=task,
            device=device,
            batch_size=batch_size,
            precision=precision,
            jit=compiled,
            threads=count,
            backend=backend,
            replicas=copies,
            cluster=cluster if copies > 1 else None,
            recipe=recipe if task == "train" else None,
            cpus=cpus,
        )
        for model, task, device, batch_size, precision, compiled, count, backend, copies in grid
        if (BACKENDS[backend].optional_compiler or compiled == jit[0])
        and (device, precision) != ("cpu", "tf32")
        and (copies == 1 or device not in later_gpus)
    )
    every = (one for case in found for one in _on_runtimes(case, runtimes, left_out))
    return list(dict.fromkeys(every))


def _on_runtimes(
    case: Case, runtimes: Sequence[str], left_out: Callable[[str], None]
) -> list[Case]:
    """Return a case on each of the runtimes that can run it."""
    of_file = runtime_of_file(case.model)
    if of_file != DEFAULT_RUNTIME:
        if of_file not in runtimes:
            named = " or ".join(runtimes)
            left_out(f"{case.model}: its file is of the runtime {of_file}, not {named}")
        runtimes = (of_file,)
    rules = {runtime: broken_rule(RUNTIMES[runtime], case) for runtime in runtimes}
    if all(rules.values()):
        for runtime, rule in rules.items():
            left_out(f"{case.model}: runtime {runtime} {rule}")
    return [replace(case, runtime=runtime) for runtime, rule in rules.items() if not rule]
