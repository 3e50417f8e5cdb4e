"""The text of `convmark doctor`: the machine, the framework, and problems with their remedies;
among them why the framework lists fewer GPUs than the driver.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.fitting import wrapped
from convmark.core.text import plain_text, share_text
from convmark.machine.cautions import Caution
from convmark.machine.gpu.cards import choosing, visible_cards
from convmark.machine.gpu.devices import Gpu
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
        return [
            Caution(
                subject="GPU",
                finding=f"the framework lists {listed}, NVML shows none: "
                "the results cannot name the GPU that was measured",
                remedy="pip install nvidia-ml-py where convmark runs, and check that nvidia-smi "
                "works",
            )
        ]
    return []


def left_out_gpus(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str]
) -> list[str]:
    """Return a line on the GPUs that a run on all devices leaves out; none on hidden ones."""
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


def _devices(framework: Mapping[str, Any]) -> list[str]:
    return [plain_text(str(device)) for device in framework.get("devices") or ()]


def _told(framework: Mapping[str, Any], key: str, when_none: str = _UNKNOWN) -> object:
    return (framework[key] or when_none) if key in framework else _UNKNOWN


def _backend(framework: Mapping[str, Any]) -> str:
    return str(framework.get("backend") or _there(framework))


def _there(framework: Mapping[str, Any]) -> str:
    return next((name for name in BACKENDS if framework.get(name)), DEFAULT_BACKEND)


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
    is_unused = framework.get("cuda") and set(_devices(framework)) <= {"cpu"}
    none = "none found" + ", so the framework's CUDA is not used" * bool(is_unused)
    return [
        ("framework", listed or _told(framework, "devices", "none")),
        ("driver", f"{machine.driver or none}{runs}"),
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
        ("CPU time stolen", share_text(state.steal_fraction) or _UNKNOWN),
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


# -- why the framework lists fewer GPUs than the driver --------------------------------------------


# Source: CUDA Toolkit release notes, "Minimum required driver version for CUDA minor version
# compatibility", Linux.
_LEAST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580"}

_INSTALL_ELSEWHERE = {
    "amd": "pip install tensorflow-rocm, of the version that your ROCm needs",
    "apple": "pip install tensorflow-metal",
}

# Source: CUDA driver API, CUresult; the remedies are those of NVIDIA's own guides.
_DRIVER_ERRORS = {
    "CUDA_ERROR_NO_DEVICE": "check that CUDA_VISIBLE_DEVICES names a GPU of `nvidia-smi -L`, "
    "and that a container was started with --gpus all",
    "CUDA_ERROR_SYSTEM_NOT_READY": "sudo systemctl start nvidia-fabricmanager",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "restart the machine: the driver was updated while it ran",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "remove CUDA's compat folder from LD_LIBRARY_PATH",
    "CUDA_ERROR_UNKNOWN": "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm",
    "CUDA_ERROR_OPERATING_SYSTEM": "check that you can read and write /dev/nvidia*",
    "CUDA_ERROR_INSUFFICIENT_DRIVER": "update the driver",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a GPU is not seen, and what mends it."""

    finding: str
    remedy: str


def why_unseen(
    machine: Machine, framework: Mapping[str, Any], environ: Mapping[str, str], listed: int
) -> Cause:
    """Return why the framework lists fewer GPUs than the driver shows, the surest cause first.

    Args:
        framework: what the worker reports; `cuda_trouble` only where it was asked to explain.
        listed: the GPUs that the framework lists.
    """
    if machine.os.startswith("Windows"):
        return Cause(
            finding="TensorFlow since 2.11 uses no GPU on Windows", remedy="run it in WSL 2"
        )
    seen = len(visible_cards(machine.gpus, environ))
    if listed >= seen and (hidden := _hidden(machine, environ, seen)):
        return hidden
    if listed:
        return Cause(finding="some are hidden or too old for it", remedy="see CUDA_VISIBLE_DEVICES")
    vendor = machine.gpus[0].vendor if machine.gpus else "nvidia"
    if vendor in _INSTALL_ELSEWHERE:
        return Cause(
            finding="it was built without support for them", remedy=_INSTALL_ELSEWHERE[vendor]
        )
    cuda = plain_text(str(framework.get("cuda") or ""))
    if not cuda:
        remedy = BACKENDS[_there(framework)].gpu_install
        packages = framework.get("packages") or ()
        if "tensorflow-cpu" in packages:
            remedy = f"pip uninstall tensorflow-cpu, then {remedy}"
        return Cause(finding="it was built without CUDA", remedy=remedy)
    return (
        _old_driver(machine, cuda)
        or _from_the_worker(framework, cuda)
        or _old_card(machine, framework)
        or _unknown(machine, framework, cuda)
    )


def _hidden(machine: Machine, environ: Mapping[str, str], seen: int) -> Cause | None:
    """Return what hides GPUs from every program, None where nothing does."""
    shown = len(machine.gpus)
    bare = [gpu.index for gpu in machine.gpus if gpu.mig and not gpu.slices]
    if bare:
        return Cause(
            finding=f"GPU {bare[0]} is in MIG mode and has no slice",
            remedy=f"make one (sudo nvidia-smi mig -i {bare[0]} -cgi 0 -C), "
            f"or leave MIG mode (sudo nvidia-smi -i {bare[0]} -mig 0)",
        )
    if seen >= shown:
        return None
    said = [f"{name}={shlex.quote(text)}" for name, text in choosing(environ).items()]
    settings = " ".join(said) or "the environment"
    names = " ".join(choosing(environ)) or "CUDA_VISIBLE_DEVICES"
    return Cause(finding=f"{settings} hides {shown - seen} of {shown}", remedy=f"unset {names}")


def _old_driver(machine: Machine, cuda: str) -> Cause | None:
    """Return that the driver is too old for the framework's CUDA, where that is known."""
    major = _number(cuda)
    newest = next((gpu.driver_cuda for gpu in machine.gpus if gpu.driver_cuda), None)
    if newest is None or major is None or _number(newest) is None:
        return None
    if (_number(newest) or 0) >= major:
        return None
    least = _LEAST_DRIVER.get(major)
    return Cause(
        finding=f"the driver ({machine.driver or 'unknown'}) runs CUDA up to {newest}, "
        f"too old for CUDA {cuda}",
        remedy=f"update the driver to {least} or later" if least else "update the driver",
    )


def _from_the_worker(framework: Mapping[str, Any], cuda: str) -> Cause | None:
    """Return what the worker found when it was asked to explain."""
    told = framework.get("cuda_trouble")
    if not isinstance(told, Mapping):
        return None
    if told.get("driver_library") is False:
        return Cause(
            finding="the driver's library libcuda.so.1 is missing",
            remedy="install the driver's compute part (apt install libcuda1), or start the "
            "container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    if error := plain_text(str(told.get("driver_error") or "")):
        remedy = _DRIVER_ERRORS.get(error, "restart the machine, else install the driver again")
        return Cause(finding=f"CUDA does not start: {error}", remedy=remedy)
    missing = [plain_text(str(name)) for name in told.get("missing_libraries") or ()]
    if missing:
        return Cause(
            finding=f"libraries of CUDA {cuda} are missing: {', '.join(missing)}",
            remedy=BACKENDS[_there(framework)].gpu_install,
        )
    return None


def _old_card(machine: Machine, framework: Mapping[str, Any]) -> Cause | None:
    """Return that no card is new enough for what the framework was compiled for."""
    least = [
        number
        for name in framework.get("architectures") or ()
        if (number := _architecture(str(name)))
    ]
    cards = [gpu for gpu in machine.gpus if gpu.compute_capability]
    if not least or len(cards) < len(machine.gpus):
        return None
    newest = max(cards, key=lambda gpu: _capability(gpu.compute_capability or "0.0"))
    if _capability(newest.compute_capability or "0.0") >= min(least):
        return None
    wanted = ".".join(map(str, min(least)))
    return Cause(
        finding=f"{newest.name} has compute capability {newest.compute_capability}, "
        f"it was compiled for {wanted} and later",
        remedy="install an older version of the framework, or one compiled for this card",
    )


def _unknown(machine: Machine, framework: Mapping[str, Any], cuda: str) -> Cause:
    if isinstance(framework.get("cuda_trouble"), Mapping):
        return Cause(
            finding=f"CUDA {cuda} starts and its libraries are installed; the cause is unknown",
            remedy="run the framework's own list of devices with TF_CPP_MIN_LOG_LEVEL=0 "
            "and read what it says",
        )
    return Cause(
        finding=f"the libraries of CUDA {cuda} are missing, "
        f"or the driver ({machine.driver or 'unknown'}) is too old for them",
        remedy=f"{BACKENDS[_there(framework)].gpu_install}, else update the driver; also check "
        "that CUDA_VISIBLE_DEVICES hides no GPU",
    )


def _number(version: str) -> int | None:
    digits = re.match(r"\d+", version)
    return int(digits.group()) if digits else None


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _architecture(name: str) -> tuple[int, int] | None:
    """Return (9, 0) of `sm_90` or `compute_90`, None of what is neither."""
    digits = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[af]?", name)
    return (int(digits.group(1)), int(digits.group(2))) if digits else None
