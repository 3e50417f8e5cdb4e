"""The state of the process, read back: settings of Python, Keras, framework and system.

They are read three times: before the user's module is imported, after the model is built, and at
the end of the case. What differs from the default at first was inherited; what differs later the
model's own code has set. A reader whose subject is not there gives nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from convmark.core.case import Case
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.tasks import TASKS
from convmark.worker import precisions
from convmark.worker.binding import cores_of, kinds_of, memory_state, of_other_threads
from convmark.worker.failure import CaseFailure
from convmark.worker.framework_functions import pythons_replaced, some_of
from convmark.worker.host import children

Emit = Callable[..., None]
Settings = dict[str, str]

_DEFAULTS: Mapping[str, str] = {
    "optimize": "0",
    "dev_mode": "False",
    "trace": "",
    "profile": "",
    "monitoring": "",
    "perf_trampoline": "False",
    "timers": "",
    "tracemalloc": "False",
    "switch_interval_s": "0.005",
    "gc": "True",
    "flush_denormal": "False",
    "huge_pages": "1",
    "locked_memory": "False",
    "nice": "0",
    "scheduler": "0",
    "limit_as": "",
    "limit_cpu": "",
    "limit_data": "",
    "limit_rss": "",
}
"""Of a process that nobody has set up; what is not here has no default to differ from."""
_NOT_MEASURED_WITH = frozenset(
    ["__import__", "breakpoint", "exit", "help", "input", "open", "print", "quit", "sleep"]
)
"""Python's own functions that others may stand in for: no figure is worked out with them."""


def process_settings() -> Settings:
    """Return the settings of Python and of the system as text, by name."""
    found: Settings = {}
    for name, read in _READERS.items():
        with contextlib.suppress(AttributeError, LookupError, OSError, ValueError):
            found[name] = str(read())
    return found


def _limit(which: str) -> Callable[[], str]:
    """Read a resource limit; unlimited is empty."""

    def read() -> str:
        soft, _ = resource.getrlimit(getattr(resource, which))
        return "" if soft == resource.RLIM_INFINITY else str(soft)

    return read


def _name_of(function: Any) -> str:
    """Return the name of a trace or profile function; empty where none is set."""
    return "" if function is None else str(getattr(function, "__name__", type(function).__name__))


def _monitors() -> str:
    """Return the names of the tools that monitor Python's execution, from Python 3.12 on."""
    monitoring: Any = vars(sys)["monitoring"]
    names = (monitoring.get_tool(number) for number in range(6))
    return ",".join(name for name in names if name)


_TIMERS = {
    "real": signal.ITIMER_REAL,
    "virtual": signal.ITIMER_VIRTUAL,
    "profile": signal.ITIMER_PROF,
}


AGAIN_S = 1.0
"""What is left of a timer that is set again with each signal; a watchdog's time limit has more."""
_OF_WORK = ("dtypes", "by_dtype", "compiled", "untracked")


def _timers() -> str:
    """Return the timers that go on and on sending signals, as a sampling profiler's do."""
    left = {name: signal.getitimer(one) for name, one in _TIMERS.items()}
    return ",".join(name for name, one in left.items() if one[1] or 0 < one[0] < AGAIN_S)


def _told(name: str) -> str:
    """Return what the kernel tells of this process, where it does."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        return dict(line.split(":", 1) for line in lines)[name].strip()


LOCKED_BYTES = 1 << 20
"""Of memory that is kept from being swapped, as by `mlockall`: libraries lock less, for secrets."""


def _cgroup() -> str:
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
        return ",".join(lines.read().split())


_READERS: Mapping[str, Callable[[], object]] = {
    "optimize": lambda: sys.flags.optimize,
    "dev_mode": lambda: sys.flags.dev_mode,
    "trace": lambda: _name_of(sys.gettrace()),
    "profile": lambda: _name_of(sys.getprofile()),
    "monitoring": _monitors,
    "perf_trampoline": lambda: vars(sys)["is_stack_trampoline_active"](),  # from 3.12 on
    "timers": _timers,
    "tracemalloc": tracemalloc.is_tracing,
    "switch_interval_s": lambda: round(sys.getswitchinterval(), 6),
    "gc": gc.isenabled,
    "flush_denormal": lambda: float(sys.float_info.min) / 2 == 0,  # of this thread's processor
    "gc_threshold": lambda: ",".join(map(str, gc.get_threshold())),
    "gc_callbacks": lambda: len(gc.callbacks),
    "huge_pages": lambda: _told("THP_enabled"),
    "locked_memory": lambda: int(_told("VmLck").split()[0]) * 1024 > LOCKED_BYTES,
    "store_bypass": lambda: _told("Speculation_Store_Bypass"),
    "indirect_branch": lambda: _told("SpeculationIndirectBranch"),
    "nice": lambda: os.getpriority(os.PRIO_PROCESS, 0),
    "scheduler": lambda: os.sched_getscheduler(0),
    "affinity": lambda: ",".join(map(str, sorted(os.sched_getaffinity(0)))),
    **of_other_threads(),
    "cgroup": _cgroup,
    "python_threads": threading.active_count,
    "child_processes": lambda: len(children()),
    "limit_as": _limit("RLIMIT_AS"),
    "limit_cpu": _limit("RLIMIT_CPU"),
    "limit_data": _limit("RLIMIT_DATA"),
    "limit_rss": _limit("RLIMIT_RSS"),
    "limit_nofile": _limit("RLIMIT_NOFILE"),
    "limit_nproc": _limit("RLIMIT_NPROC"),
    "limit_memlock": _limit("RLIMIT_MEMLOCK"),
}


def called_by(case: Case, backend: Any, *, compiled: bool) -> str:
    """Return how the step is called, and whether a part of it is compiled by itself."""
    path, compiler = str(backend.call_path), str(backend.compiler)
    inside = compiled and case.jit == "off" and compiler not in path
    return f"{path}, {compiler} inside" if inside else path


_GOING_ON = ("latency limit", "sustained")
"""Phases after the measurement, which Ctrl-C may end: the row then has what was read before."""


class Witness:
    """Reads the process of one case, and reports what it was.

    The events of the case pass through `emit`: at `built` and before `finished` the state is read,
    and `read_back` is reported before `finished`, and before steps that go on.
    """

    def __init__(
        self,
        case: Case,
        asked: set[str],
        backend: Any,
        emit: Emit,
        left: Mapping[str, str | None] | None = None,
    ) -> None:
        """Read the process as it is before the user's module is imported.

        Args:
            asked: names of what the user has asked for, `precision` or `threads`.
            left: variables that models before this one have changed, as they were; None of unset.
        """
        self._left = left or {}
        self._case = case
        self._asked = asked
        self._backend = backend
        self._emit = emit
        self._model: Any = None
        defaults = {**_DEFAULTS, **backend.default_settings(case.precision)}
        self._inherited = {
            name: value
            for name, value in self._settings().items()
            if name in defaults and value != defaults[name]
        }
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        if case.cpus is None and (
            kinds := kinds_of(cpus)
        ):  # whoever has started the run chose them
            self._inherited["cpu_kinds"] = kinds
        self._changed: Settings = {}
        self._work: Mapping[str, Any] = {}
        self._reads = 0
        self._running: dict[int, bytes] = {}
        """Hashes of weights that inference is to leave as they are."""
        self._cpus: list[set[int]] = []
        self.begin()

    def begin(self) -> None:
        """Take the process as it is now for what the model's code begins with."""
        self._before = self._settings()
        self._threads = self._backend.thread_counts()
        before = {**os.environ, **self._left}
        self._environ = {name: value for name, value in before.items() if value is not None}

    def watched(self, builder: Callable[[], Any]) -> Callable[[], Any]:
        """Return the builder; the model that it gives is looked at when it is built."""

        def build() -> Any:
            self._model = builder()
            return self._model

        return build

    def emit(self, event: str, **fields: Any) -> None:
        """Report an event.

        Raises:
            CaseFailure: the model's code has made the case another than was asked for.
        """
        if event == "work":
            self._work = {name: fields.pop(name) for name in _OF_WORK}
            self._work = {**self._work, "is_all": fields["flops_note"] is None}
        if event == "peaks" and fields["elsewhere"]:
            self._changed["works_elsewhere"] = "True"
        if event == "sizes":
            read = self._read()
            fields |= {name: read[name] for name in ("precision", "call_path", "threads")}
            fields["settings"] = {**read["model"], **self._changed_environ()}
        goes_on = event == "phase" and fields["phase"] in _GOING_ON
        if (event == "finished" or goes_on) and self._model is not None:
            self._emit("read_back", **self._read())
        self._emit(event, **fields)
        if event == "built":
            self._running = self._running_weights()
            self._read()

    def _settings(self) -> Settings:
        return {**process_settings(), **self._backend.settings()}

    def _read(self) -> dict[str, Any]:
        now = self._settings()
        if self._reads and self._backend.has_compiler:
            now |= {
                name: self._before.get(name, "") for name in ("python_threads", "child_processes")
            }
        self._reads += 1
        for name in sorted({*now, *self._before}):
            if (value := now.get(name, "")) != self._before.get(name, ""):
                self._changed[name] = value
        if hasattr(os, "sched_getaffinity"):
            self._cpus.append(os.sched_getaffinity(0))
        kinds = Counter(self._backend.layer_precisions(self._model))
        of_steps = self._of_steps()
        layers = ",".join(f"{kind}:{count}" for kind, count in sorted(kinds.items()))
        held = self._backend.weights_by_device(self._model)
        weights = ",".join(f"{kind}:{size}" for kind, size in sorted(held.items()))
        of_runtime = self._of_runtime()
        hidden = self._work.get("untracked")  # parameters that Keras neither counts nor trains
        return {
            "inherited": {**self._inherited, **memory_state(self._case), **of_runtime},
            "model": {
                **({} if of_runtime else self._changed),
                **self._thread_pairs(),
                **({"layers": layers} if len(kinds) > 1 else {}),
                **({"weight_bytes": weights} if len(held) > 1 else {}),
                **self._changing_weights(),
                **self._aside(),
                **({"untracked_parameters": str(hidden)} if hidden else {}),
                **self._replaced(),
                **self._spread(),
            },
            "environ": self._changed_environ(),
            "threads": self._threads_in_force(),
            **self._of_cpus(),
            **of_steps,
        }

    def _running_weights(self) -> dict[int, bytes]:
        if TASKS[self._case.task].trains:
            return {}
        self._backend.settle(self._model)
        found: dict[int, bytes] = self._backend.running_weights(self._model)
        return found

    def _changing_weights(self) -> Settings:
        """Return how many weights the steps of inference have changed, such as running means."""
        now = self._running_weights()
        changed = sum(now.get(one, value) != value for one, value in self._running.items())
        return {"changing_weights": str(changed)} if changed else {}

    def _aside(self) -> Settings:
        """Return what of the model's own `fit` or `predict` a step leaves out, or has."""
        if self._case.task not in ("infer", "train") or self._case.runtime != DEFAULT_RUNTIME:
            return {}
        if self._case.task == "train":
            return dict(self._backend.training_aside(self._model))
        found: Settings = self._backend.inference_aside(self._model)
        if self._case.jit == "on" or self._backend.always_compiles:
            found.pop("jit_compile", None)
        return found

    def _of_runtime(self) -> Settings:
        """Return how a runtime runs in Keras's place, and what it has set: no model's code has."""
        if (runtime := self._case.runtime) == DEFAULT_RUNTIME:
            return {}
        changed = {f"{runtime}.{name}": value for name, value in self._changed.items()}
        return {**changed, **self._backend.runtime_settings()}

    def _replaced(self) -> Settings:
        """Return which of Python's own functions the model's code has replaced."""
        found = pythons_replaced()
        used = [one for one in found if one.rpartition(".")[2] not in _NOT_MEASURED_WITH]
        if used:
            raise CaseFailure(
                f"{self._case.model}: the model's code must not replace functions of Python "
                f"that the measurement uses, but it replaced {some_of(used)}"
            )
        return {"replaced": ",".join(found)} if found else {}

    def _spread(self) -> Settings:
        """Return what a model of one replica was built for, such as a strategy of TensorFlow's."""
        case = self._case
        if case.replicas > 1 or case.runtime != DEFAULT_RUNTIME:
            return {}
        name, count = self._backend.spread(self._model)
        if count > 1:
            raise CaseFailure(
                f"{case.model}: a case of one replica needs a model on one device, but its own "
                f"code spread it over {count} by {name}; remove that, and give --replicas {count}"
            )
        return {"strategy": name} if name else {}

    def _of_steps(self) -> dict[str, str]:
        """Return what the layers compute in, by the operations of a step once these are known.

        And how the step is called.

        Raises:
            CaseFailure: the precision is not what was asked for.
        """
        kinds = Counter(self._backend.layer_precisions(self._model))
        asked, work = "precision" in self._asked, self._work
        exported = "export" in self._asked
        precision = precisions.checked_precision(self._case, kinds, asked=asked, exported=exported)
        if work:
            precision = precisions.worked_precision(
                *(self._case, kinds, work["dtypes"], work["by_dtype"]),
                is_all=work["is_all"],
                asked=asked,
            )
            is_keras = self._case.runtime == DEFAULT_RUNTIME
            if is_keras and (self._inherited or self._changed or precisions.may_be_set(os.environ)):
                precision = precisions.computed_precision(
                    self._case, precision, self._backend, asked=asked
                )
        compiled = bool(work.get("compiled"))
        path = called_by(self._case, self._backend, compiled=compiled)
        return {"precision": precision, "call_path": path}

    def _of_cpus(self) -> dict[str, int | None]:
        """Return the logical CPUs and the cores of the process, and the threads of its pool.

        The pool was made for the CPUs that there were then: where they have changed, it is not
        known for which.
        """
        fewest = min(self._cpus, key=len, default=None)
        steady = all(cpus == fewest for cpus in self._cpus)
        return {
            "cores": len(fewest) if fewest else None,
            "physical_cores": cores_of(fewest) if fewest else None,
            "pool_threads": self._backend.pool_threads() if steady else None,
        }

    def _threads_in_force(self) -> str:
        case, now = self._case, self._backend.thread_counts()
        changing = self._changed.get("changing_threads")
        if now == self._threads and not changing:
            return case.threads
        intra, inter = now
        if "threads" in self._asked:
            found = str(intra) if intra == inter else f"{intra} within and {inter} between them"
            if changing:
                found = f"{changing} in a part of the steps"
            raise CaseFailure(
                f"{case.model}: asked for threads {case.threads}, but the model's code set "
                f"the threads of operations to {found}; leave out --threads, or do not set "
                "threads in the model's code"
            )
        return case.threads if now == self._threads else str(intra) if intra else "default"

    def _thread_pairs(self) -> Settings:
        """Return both counts of threads where one number does not tell them."""
        intra, inter = now = self._backend.thread_counts()
        if now == self._threads or intra == inter:
            return {}
        return {"intra_op_threads": str(intra), "inter_op_threads": str(inter)}

    def _changed_environ(self) -> Settings:
        """Return the variables that the model's code has set, or unset: then empty."""
        return {
            name: os.environ.get(name, "")
            for name in sorted({*os.environ, *self._environ})
            if os.environ.get(name) != self._environ.get(name)
        }
