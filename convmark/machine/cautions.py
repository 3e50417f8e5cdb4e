"""Preflight checks: flags and machine states that make results unreliable, with advice."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from convmark.core.case import cpu_list
from convmark.core.errors import ConvmarkError
from convmark.core.text import counted, load_text, plain_text, share_text
from convmark.machine.hardware import GIB, Machine
from convmark.machine.state import State, read_cpu_ticks, read_state, stolen_fraction

LOAD_PER_CORE = 0.1
LEAST_LOAD = 0.5
STEAL_FRACTION = 0.01
LEAST_FREE_BYTES = 2 * GIB
HOT_CPU_C = 90.0

_SPEED_FLAGS = (
    *("TF_*", "TF2_*", "KERAS_*", "XLA_*", "JAX_*", "PJRT_*", "NPROC", "TORCH*", "PYTORCH_*"),
    *("ATEN_*", "TRITON_*", "NUMBA_*", "ORT_*", "OV_*", "OPENVINO_*", "XNNPACK_*"),
    *("ONEDNN_*", "DNNL_*", "ZENDNN_*", "LIBXSMM_*", "NPY_*"),
    *("MKL_*", "OPENBLAS_*", "GOTO_*", "BLIS_*", "VECLIB_*", "ACCELERATE_*", "*_NUM_THREADS"),
    *("OMP_*", "GOMP_*", "LIBOMP*", "KMP_*", "TBB_*"),
    *("CUDA_*", "CUBLAS*", "CUDNN_*", "NVIDIA_*", "NCCL_*"),
    *("ROCM_*", "ROCR_*", "HIP_*", "HSA_*", "MIOPEN_*"),
    *("GLIBC_*", "MALLOC_*", "TCMALLOC_*", "MIMALLOC_*"),
    *("LD_PRELOAD", "LD_AUDIT", "LD_BIND_NOW", "DYLD_INSERT_LIBRARIES"),
    *("PYTHONDEVMODE", "PYTHONMALLOC*", "PYTHONOPTIMIZE", "PYTHONPROFILEIMPORTTIME"),
    *("PYTHONTRACEMALLOC", "PYTHONPERFSUPPORT", "PYTHON_GIL", "PYTHON_JIT", "PYTHON_PERF_*"),
    "PYTHON_CPU_COUNT",
)
"""What may change speed: every variable of a framework, of its libraries, of the allocator, and
Python's own that do. A name that nobody has thought of counts, unless `_HARMLESS` has it."""

_HARMLESS = (
    # they choose a device or a framework, which the case names
    *("*_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "JAX_PLATFORMS", "JAX_PLATFORM_NAME"),
    *("KERAS_BACKEND", "KERAS_TORCH_DEVICE", "TF_CONFIG"),
    # logging that is off, or a single line
    *("TF_CPP_MIN_LOG_LEVEL", "OMP_DISPLAY_ENV", "KMP_WARNINGS"),
    # Terraform's, some of them secret
    *("TF_CLI_*", "TF_VAR_*", "TF_TOKEN_*", "TF_LOG*", "TF_DATA_DIR", "TF_WORKSPACE"),
    "TF2_BEHAVIOR",  # TensorFlow sets it itself when it is imported
    *("TF_IN_AUTOMATION", "TF_INPUT", "TF_PLUGIN_CACHE_DIR", "TF_REGISTRY_*"),
    # places of files; of Keras's settings what they change is read back
    *("KERAS_HOME", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST", "TORCH_VERSION"),
    *("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "ORT_ROOT", "OPENVINO_LIB_PATHS"),
    *("CUDA_HOME", "CUDA_PATH", "CUDA_PATH_V*", "CUDA_ROOT", "CUDA_DIR", "CUDA_BIN_PATH"),
    *("CUDA_TOOLKIT_ROOT_DIR", "ROCM_PATH", "ROCM_HOME", "HIP_PATH", "MKL_ROOT", "TBB_ROOT"),
    # what the makers' images say of themselves
    *("CUDA_VERSION", "CUDA_*_VERSION", "CUDA_ARCH_LIST", "CUDNN_VERSION", "CUBLAS_VERSION"),
    *("NCCL_VERSION", "NVIDIA_*_VERSION", "NVIDIA_REQUIRE_*", "NVIDIA_DRIVER_CAPABILITIES"),
    *("NVIDIA_PRODUCT_NAME", "NVIDIA_BUILD_*", "ROCM_VERSION", "TF_VERSION", "JAX_VERSION"),
)
"""Variables of those prefixes that change nothing, each kind with its reason."""

_FLAG_EFFECTS = (
    ("*_NUM_THREADS", "fixes the number of threads"),
    ("TF_NUM_*_THREADS", "fixes the number of threads"),
    ("CUDA_LAUNCH_BLOCKING", "a debug setting: every kernel is waited for"),
    ("JAX_DISABLE_JIT", "a debug setting: nothing is compiled"),
    ("*NPROC", "fixes the number of threads"),
    ("ATEN_CPU_CAPABILITY", "turns the CPU's fast kernels on or off"),
    ("*TF32*OVERRIDE", "changes the precision of matrix products"),
    ("LD_PRELOAD", "replaces libraries of the system by other code"),
    ("PYTHON*", "a debug setting: changes how fast Python itself runs"),
    ("TF_CPP_*", "a debug setting: logging takes time"),
    ("TF_DETERMINISTIC_OPS", "chooses slower, repeatable kernels"),
    ("*FPMATH_MODE", "changes the precision of matrix products"),
    ("KERAS_MAX_*", "a debug setting: limits what Keras trains"),
    ("TF_ENABLE_ONEDNN_OPTS", "turns the CPU's fast kernels on or off"),
    ("*XLA_FLAGS", "changes what XLA compiles, and how"),
    ("*", "may change speed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """One thing that makes figures unreliable."""

    subject: str
    finding: str
    """What is so, with its value and the rule it breaks."""
    remedy: str
    """What the user can do."""

    def __post_init__(self) -> None:
        for field in ("subject", "finding", "remedy"):
            if not getattr(self, field):
                raise ConvmarkError(f"caution {self.subject!r}: {field} must not be empty")

    def __str__(self) -> str:
        return f"{self.subject}: {self.finding}; {self.remedy}"


def cautions(machine: Machine, state: State, environ: Mapping[str, str]) -> list[Caution]:
    """Return what will make figures unreliable, in a fixed order; an unknown state gives nothing.

    The thresholds, each crossed strictly:
        load: 0.1 per core, as that many rivals slow a step on all cores by about 10 %, the most by
            which fresh processes differ on a quiet machine; never below 0.5, which the command just
            typed can cause by itself.
        governor: any but `performance`, as the clock then follows the load of seconds before.
        steal: 1 % of the CPU time wanted, as much as a paired comparison can see.
        temperature: 90 degrees Celsius; CPUs begin to throttle between 95 and 105.
        memory: below 2 GiB, about what one large case and its framework hold.
        quota: fewer cores than the process sees, as the framework starts a thread for each of these
            and all are stopped together when the quota is used up.
    """
    rules: tuple[Callable[[Machine, State], Caution | None], ...] = (
        _load,
        _governor,
        _battery,
        _steal,
        _temperature,
        _memory,
        _quota,
    )
    found = [caution for rule in rules if (caution := rule(machine, state))]
    return found + _flags(environ)


def speed_flags(environ: Mapping[str, str]) -> str:
    """Return the variables that may change speed, as sorted `NAME=value` separated by spaces.

    A variable set to nothing counts as not set; values are quoted as a shell wants them.
    """
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in _set_flags(environ))


def changes_speed(name: str) -> bool:
    """Whether an environment variable of this name may change speed."""
    if any(fnmatchcase(name, pattern) for pattern in _HARMLESS):
        return False
    return any(fnmatchcase(name, pattern) for pattern in _SPEED_FLAGS)


def _set_flags(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (plain_text(name), plain_text(value))
        for name, value in sorted(environ.items())
        if plain_text(value) and changes_speed(name)
    ]


def _load(machine: Machine, state: State) -> Caution | None:
    limit = max(LEAST_LOAD, LOAD_PER_CORE * machine.cores)
    if state.load_average_1min is None or state.load_average_1min <= limit:
        return None
    return Caution(
        subject="load",
        finding=f"1-min load {state.load_average_1min:.2f} on {counted(machine.cores, 'core')}, "
        f"above {limit:.2f}: other programs, or a run just before, took CPU time",
        remedy="close other programs, wait a minute and check again",
    )


def _governor(machine: Machine, state: State) -> Caution | None:
    if set(state.governors) <= {"performance"}:
        return None
    return Caution(
        subject="governor",
        finding=f"{', '.join(state.governors)}, not performance: the clock follows the load",
        remedy="sudo cpupower frequency-set -g performance",
    )


def _battery(machine: Machine, state: State) -> Caution | None:
    if not state.on_battery:
        return None
    return Caution(
        subject="power",
        finding="on battery: the clock is reduced to save energy",
        remedy="connect the machine to mains power",
    )


def _steal(machine: Machine, state: State) -> Caution | None:
    if state.steal_fraction is None or state.steal_fraction <= STEAL_FRACTION:
        return None
    return Caution(
        subject="steal",
        finding=f"{share_text(state.steal_fraction)} of the CPU time wanted went to other virtual "
        f"machines, above {load_text(STEAL_FRACTION)}",
        remedy="use a dedicated host, or an instance type with CPUs of its own",
    )


def _temperature(machine: Machine, state: State) -> Caution | None:
    if state.cpu_temperature_c is None or state.cpu_temperature_c <= HOT_CPU_C:
        return None
    return Caution(
        subject="temperature",
        finding=f"CPU at {state.cpu_temperature_c:.0f} degrees Celsius, above {HOT_CPU_C:.0f}: "
        "it will lower its clock",
        remedy="let the machine cool down, then check its fans and filters",
    )


def _memory(machine: Machine, state: State) -> Caution | None:
    if state.available_memory_bytes >= LEAST_FREE_BYTES:
        return None
    return Caution(
        subject="memory",
        finding=f"{state.available_memory_bytes / GIB:.2f} GiB available, "
        f"below {LEAST_FREE_BYTES / GIB:.0f} GiB: cases may swap or be killed",
        remedy="close programs that use memory, or measure smaller models and batches",
    )


def _quota(machine: Machine, state: State) -> Caution | None:
    if state.cpu_quota_cores is None or state.cpu_quota_cores >= machine.cores:
        return None
    whole = max(1, int(state.cpu_quota_cores))
    own = cpu_list((state.cpus or range(machine.cores))[:whole])
    return Caution(
        subject="CPU quota",
        finding=f"the container may use {state.cpu_quota_cores:.2f} of the "
        f"{counted(machine.cores, 'core')} it sees: threads pause when the quota is used up",
        remedy=f"raise the quota to {machine.cores} (docker run --cpus={machine.cores}), "
        f"or pin the run to {whole} (taskset -c {own})",
    )


def _flags(environ: Mapping[str, str]) -> list[Caution]:
    effects = _FLAG_EFFECTS
    return [
        Caution(
            subject=name,
            finding=f"set to {value}: "
            f"{next(effect for pattern, effect in effects if fnmatchcase(name, pattern))}",
            remedy=f"unset {name}, unless it is what you measure: "
            "only rows with equal flags are compared",
        )
        for name, value in _set_flags(environ)
    ]


class Preflight:
    """The machine's state, read before the run's own workers start and load it."""

    def __init__(self) -> None:
        self._state = read_state()
        self._ticks = read_cpu_ticks()

    def lines(self, machine: Machine) -> list[str]:
        """Return a line for each thing that will make figures unreliable, with what to do.

        CPU time is only stolen from who wants it: it is counted from the reading of the state on,
        while the workers started.
        """
        stolen = stolen_fraction(read_cpu_ticks(), self._ticks)
        state = self._state if stolen is None else replace(self._state, steal_fraction=stolen)
        return list(map(str, cautions(machine, state, {})))
