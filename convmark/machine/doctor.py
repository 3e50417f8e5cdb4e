"""The text of `convmark doctor`: the machine, the framework, and problems with their remedies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.fitting import wrapped
from convmark.core.text import plain_text
from convmark.machine.cautions import Caution
from convmark.machine.gpu.devices import Gpu
from convmark.machine.gpu.visible import visible_cards
from convmark.machine.gpu_diagnosis import why_unseen
from convmark.machine.hardware import GIB, Machine
from convmark.machine.state import State

UNRELIABLE = "What will make figures unreliable"
"""The section of the problems."""

_UNKNOWN = "unknown"

Rows = Sequence[tuple[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a section: a fact, or a problem with its remedy."""

    section: str
    name: str
    value: str
    remedy: str = ""


def findings(
    machine: Machine,
    state: State,
    cautions: Sequence[Caution],
    framework: Mapping[str, Any],
    results: Path,
    *,
    flags: str | None = None,
    environ: Mapping[str, str] | None = None,
    more: Rows = (),
) -> list[Finding]:
    """Return what was found, section by section; a section without a problem has no finding.

    The cautions of `device_cautions` are added where they are not among `cautions` already.

    Args:
        framework: what the worker reports; any key may be absent: `python`, `executable`,
            `tensorflow` (or `jax`, `torch`), `keras`, `numpy`, `devices`, `cuda`, `cudnn`, `error`;
            and `backend`, which of the three it was asked for.
        results: the folder of all machines' results.
        flags: the text of `speed_flags`; None says that they were not looked at.
        environ: the variables under which the framework was looked at.
        more: what else is known of the machine, a name and a value each.
    """
    found = list(dict.fromkeys([*device_cautions(machine, framework, environ), *cautions]))
    sections = (
        (
            "Interpreter",
            [(word, _told(framework, word.lower())) for word in ("Python", "executable")],
        ),
        ("Framework", _framework_rows(framework)),
        ("Devices", _device_rows(machine, framework)),
        ("Machine", [*_machine_rows(machine, results), *more]),
        ("State", _state_rows(state)),
        ("Flags", [("set", "not looked at" if flags is None else flags or "none")]),
    )
    facts = [
        Finding(section=title, name=plain_text(name), value=plain_text(str(value)))
        for title, rows in sections
        for name, value in rows
    ]
    return facts + [
        Finding(
            section=UNRELIABLE,
            name=plain_text(one.subject),
            value=plain_text(one.finding),
            remedy=plain_text(one.remedy),
        )
        for one in found
    ]


def findings_text(found: Sequence[Finding]) -> str:
    """Return all sections, one blank line between them, ended by a newline."""
    titles = dict.fromkeys([*(one.section for one in found), UNRELIABLE])
    return "\n".join(
        _section(title, [one for one in found if one.section == title]) for title in titles
    )


def device_cautions(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> list[Caution]:
    """Return what keeps the framework from the devices, or the harness from knowing them."""
    error = plain_text(str(framework.get("error") or ""))
    if error:
        return [
            Caution(
                subject="framework",
                finding=f"could not be loaded: {error}",
                remedy=f"install it where the cases run (pip install {_backend(framework)}), "
                "or name another interpreter with --python, or another framework with --backend",
            )
        ]
    if framework.get("devices") is None:
        return []
    listed = sum(device.startswith("gpu") for device in _devices(framework))
    if listed < len(machine.gpus):
        return [_unlisted_gpus(machine, framework, environ or {}, listed)]
    if listed and not machine.gpus:
        return [_unnamed_gpus(listed)]
    return []


def left_out_gpus(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str]
) -> list[str]:
    """Return a line on the GPUs that a run on all devices leaves out; none on those hidden from it.

    Args:
        framework: what the worker reports, as that of `findings`.
    """
    listed = sum(device.startswith("gpu") for device in _devices(framework))
    if listed >= len(visible_cards(machine.gpus, environ)):
        return []
    found = _unlisted_gpus(machine, framework, environ, listed)
    return [f"{found}; `convmark doctor` looks closer"]


def _unlisted_gpus(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str], listed: int
) -> Caution:
    cause = why_unseen(machine, framework, environ, listed)
    return Caution(
        subject="GPU",
        finding=f"the driver shows {len(machine.gpus)}, the framework lists {listed}: "
        f"{cause.finding}",
        remedy=cause.remedy,
    )


def _unnamed_gpus(listed: int) -> Caution:
    return Caution(
        subject="GPU",
        finding=f"the framework lists {listed}, NVML shows none: "
        "the results cannot name the GPU that was measured",
        remedy="pip install nvidia-ml-py where convmark runs, and check that nvidia-smi works",
    )


def _devices(framework: Mapping[str, Any]) -> list[str]:
    return [plain_text(str(device)) for device in framework.get("devices") or ()]


def _told(framework: Mapping[str, Any], key: str, when_none: str = _UNKNOWN) -> object:
    return (framework[key] or when_none) if key in framework else _UNKNOWN


def _backend(framework: Mapping[str, Any]) -> str:
    """Return which of the frameworks was asked for."""
    there = next((name for name in BACKENDS if framework.get(name)), DEFAULT_BACKEND)
    return str(framework.get("backend") or there)


def _framework_rows(framework: Mapping[str, Any]) -> Rows:
    backend = _backend(framework)
    label = BACKENDS[backend].label if backend in BACKENDS else backend
    return [
        *([("error", framework["error"])] if framework.get("error") else []),
        (label, _told(framework, backend, "not installed")),
        ("Keras", _told(framework, "keras", "not installed")),
        ("NumPy", _told(framework, "numpy", "not installed")),
        ("CUDA", _told(framework, "cuda", "built without")),
        ("cuDNN", _told(framework, "cudnn", "built without")),
    ]


def _device_rows(machine: Machine, framework: Mapping[str, Any]) -> Rows:
    listed = ", ".join(_devices(framework))
    newest = next((gpu.driver_cuda for gpu in machine.gpus if gpu.driver_cuda), None)
    runs = f", runs CUDA up to {newest}" if newest else ""
    return [
        ("framework", listed or _told(framework, "devices", "none")),
        ("driver", f"{machine.driver or 'none found'}{runs}"),
        *((f"GPU {gpu.index}", _gpu(gpu)) for gpu in machine.gpus),
        *(
            (f"MIG {gpu.index}:{piece.index}", f"{piece.profile}, {piece.uuid or _UNKNOWN}")
            for gpu in machine.gpus
            for piece in gpu.slices
        ),
    ]


def _gpu(gpu: Gpu) -> str:
    facts = [gpu.name, _gib(gpu.memory_bytes)]
    if gpu.compute_capability:
        facts.append(f"compute capability {gpu.compute_capability}")
    if gpu.pcie:
        facts.append(f"PCIe {gpu.pcie}")
    if gpu.ecc is not None:
        facts.append(f"ECC {'on' if gpu.ecc else 'off'}")
    if gpu.mig is not None:
        facts.append(f"MIG {'on' if gpu.mig else 'off'}")
    if gpu.power_limit_w is not None:
        facts.append(f"{gpu.power_limit_w:.0f} W")
    return ", ".join(facts)


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


def _section(title: str, found: Sequence[Finding]) -> str:
    texts: list[tuple[str, str]] = []
    for one in found:
        texts += [(one.name, one.value), *([("", f"-> {one.remedy}")] if one.remedy else [])]
    texts = texts or [("nothing found", "")]
    width = max(len(label) for label, _ in texts)
    lines = [_line(f"  {label:<{width}}  ", value) for label, value in texts]
    return "\n".join([title, *lines, ""])


def _line(label: str, value: str) -> str:
    return f"{label}{wrapped(value, before=label, indent=' ' * len(label))}".rstrip()


def _gib(size_bytes: int | None) -> str:
    return _figure(None if size_bytes is None else size_bytes / GIB, ".1f", " GiB")


def _figure(value: float | None, form: str, unit: str = "", *, absent: str = _UNKNOWN) -> str:
    return absent if value is None else f"{value:{form}}{unit}"
