"""The text of `convmark doctor`: what the machine and the framework are, and what to put right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark.cautions import Caution
from convmark.environment import GIB, Machine, State, plain_text

__all__ = ["device_cautions", "findings"]

_UNKNOWN = "unknown"
_INSTALL_CUDA = "pip install 'tensorflow[and-cuda]'"

Rows = Sequence[tuple[str, object]]


def findings(
    machine: Machine,
    state: State,
    cautions: Sequence[Caution],
    framework: Mapping[str, Any],
    results: Path,
    *,
    flags: str | None = None,
) -> str:
    """Return all sections, one blank line between them, ended by a newline.

    The cautions of `device_cautions` are added where they are not among `cautions` already.

    Args:
        framework: what the worker reports; any key may be absent: `python`, `executable`,
            `tensorflow`, `keras`, `numpy`, `devices`, `cuda`, `cudnn`, `error`.
        results: the folder of all machines' results.
        flags: the text of `speed_flags`; None says that they were not looked at.
    """
    found = list(dict.fromkeys([*device_cautions(machine, framework), *cautions]))
    sections = (
        _section("Interpreter", _interpreter_rows(framework)),
        _section("Framework", _framework_rows(framework)),
        _section("Devices", _device_rows(machine, framework)),
        _section("Machine", _machine_rows(machine, results)),
        _section("State", _state_rows(state)),
        _section("Flags", [("set", "not looked at" if flags is None else flags or "none")]),
        _section("What will make figures unreliable", _caution_rows(found)),
    )
    return "\n".join(sections)


def device_cautions(machine: Machine, framework: Mapping[str, Any]) -> list[Caution]:
    """Return what keeps the framework from the devices, or the harness from knowing them."""
    error = plain_text(str(framework.get("error") or ""))
    if error:
        return [
            Caution(
                subject="framework",
                finding=f"could not be loaded: {error}",
                remedy="install it where the cases run (pip install tensorflow), "
                "or name another interpreter",
            )
        ]
    if framework.get("devices") is None:
        return []
    listed = sum(device.startswith("gpu") for device in _devices(framework))
    if listed < len(machine.gpus):
        return [_unlisted_gpus(machine, framework, listed)]
    if listed and not machine.gpus:
        return [_unnamed_gpus(listed)]
    return []


def _unlisted_gpus(machine: Machine, framework: Mapping[str, Any], listed: int) -> Caution:
    cause, remedy = _likely_cause(machine, framework, listed)
    return Caution(
        subject="GPU",
        finding=f"the driver shows {len(machine.gpus)}, the framework lists {listed}: {cause}",
        remedy=remedy,
    )


def _likely_cause(machine: Machine, framework: Mapping[str, Any], listed: int) -> tuple[str, str]:
    """Return why the framework lists fewer GPUs than the driver shows, and what to do."""
    if listed:
        return "some are hidden or too old for it", "see CUDA_VISIBLE_DEVICES"
    if machine.os.startswith("Windows"):
        return "TensorFlow since 2.11 uses no GPU on Windows", "run it in WSL 2"
    cuda = plain_text(str(_told(framework, "cuda", "")))
    if not cuda:
        return "it was built without CUDA", _INSTALL_CUDA
    return (
        f"the libraries of CUDA {cuda} are missing, "
        f"or the driver ({machine.driver or _UNKNOWN}) is too old for them",
        f"{_INSTALL_CUDA}, else update the driver; see too that CUDA_VISIBLE_DEVICES hides none",
    )


def _unnamed_gpus(listed: int) -> Caution:
    return Caution(
        subject="GPU",
        finding=f"the framework lists {listed}, NVML shows none: "
        "the results cannot name the GPU that was measured",
        remedy="pip install nvidia-ml-py where convmark runs, and see that nvidia-smi answers",
    )


def _devices(framework: Mapping[str, Any]) -> list[str]:
    return [plain_text(str(device)) for device in framework.get("devices") or ()]


def _told(framework: Mapping[str, Any], key: str, when_none: str = _UNKNOWN) -> object:
    return (framework[key] or when_none) if key in framework else _UNKNOWN


def _interpreter_rows(framework: Mapping[str, Any]) -> Rows:
    return [
        ("Python", _told(framework, "python")),
        ("executable", _told(framework, "executable")),
    ]


def _framework_rows(framework: Mapping[str, Any]) -> Rows:
    return [
        *([("error", framework["error"])] if framework.get("error") else []),
        ("TensorFlow", _told(framework, "tensorflow", "not installed")),
        ("Keras", _told(framework, "keras", "not installed")),
        ("NumPy", _told(framework, "numpy", "not installed")),
        ("CUDA", _told(framework, "cuda", "built without")),
        ("cuDNN", _told(framework, "cudnn", "built without")),
    ]


def _device_rows(machine: Machine, framework: Mapping[str, Any]) -> Rows:
    listed = ", ".join(_devices(framework))
    return [
        ("framework", listed or _told(framework, "devices", "none")),
        ("driver", machine.driver or "none found"),
        *((f"GPU {gpu.index}", f"{gpu.name}, {_gib(gpu.memory_bytes)}") for gpu in machine.gpus),
    ]


def _machine_rows(machine: Machine, results: Path) -> Rows:
    physical = _UNKNOWN if machine.physical_cores is None else machine.physical_cores
    return [
        ("name", machine.name),
        ("CPU", machine.cpu),
        ("cores", f"{machine.cores} usable, {physical} physical"),
        ("RAM", _gib(machine.ram_bytes)),
        ("OS", machine.os),
        ("results", results / machine.name),
    ]


def _state_rows(state: State) -> Rows:
    power = {None: "no battery known", True: "battery", False: "mains"}
    return [
        ("load, 1 min", _figure(state.load_average_1min, ".2f")),
        ("available memory", _gib(state.available_memory_bytes)),
        ("governor", ", ".join(state.governors) or _UNKNOWN),
        ("power", power[state.on_battery]),
        ("CPU time stolen", _figure(state.steal_fraction, ".1%")),
        ("CPU temperature", _figure(state.cpu_temperature_c, ".0f", " degrees Celsius")),
        ("CPU quota", _figure(state.cpu_quota_cores, ".2f", " cores", absent="none")),
    ]


def _caution_rows(cautions: Sequence[Caution]) -> Rows:
    rows: list[tuple[str, object]] = []
    for caution in cautions:
        rows += [(caution.subject, caution.finding), ("", f"-> {caution.remedy}")]
    return rows or [("nothing found", "")]


def _section(title: str, rows: Rows) -> str:
    texts = [(plain_text(label), plain_text(str(value))) for label, value in rows]
    width = max(len(label) for label, _ in texts)
    lines = [f"  {label:<{width}}  {value}".rstrip() for label, value in texts]
    return "\n".join([title, *lines, ""])


def _gib(size_bytes: int | None) -> str:
    return _figure(None if size_bytes is None else size_bytes / GIB, ".1f", " GiB")


def _figure(value: float | None, form: str, unit: str = "", *, absent: str = _UNKNOWN) -> str:
    return absent if value is None else f"{value:{form}}{unit}"
