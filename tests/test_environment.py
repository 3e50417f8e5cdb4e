"""The fingerprint, the state of a run, the flags, and the cautions that follow from them."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import re
import socket
import string
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from convmark.core.errors import ConvmarkError
from convmark.core.text import plain_text
from convmark.machine.cautions import Caution, cautions, speed_flags
from convmark.machine.gpu.devices import Gpu, load_nvml, read_gpus
from convmark.machine.hardware import GIB, Machine, cpu_model, machine_name, read_machine
from convmark.machine.state import (
    CpuTicks,
    State,
    cpu_quota,
    cpu_ticks,
    read_cpu_ticks,
    read_state,
    stolen_fraction,
)

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz
stepping\t: 7

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz
stepping\t: 7
"""
RYZEN = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen 7 5800H with Radeon Graphics
"""
GRAVITON2 = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
BIG_LITTLE = """\
processor\t: 0
CPU implementer\t: 0x41
CPU part\t: 0xd03

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor\t: 2
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2711
Model\t\t: A board
"""
UNLISTED_ARM = """\
processor\t: 0
CPU implementer\t: 0x77
CPU part\t: 0x123
"""
POWER9 = """\
processor\t: 0
cpu\t\t: POWER9 (architected), altivec supported
clock\t\t: 2200.000000MHz
"""
RISC_V = """\
processor\t: 0
hart\t\t: 1
isa\t\t: rv64imafdc
uarch\t\t: sifive,u74-mc
"""
STAT = "cpu  100 20 30 4000 500 6 7 37 8 9\ncpu0 100 20 30 4000 500 6 7 37 8 9\n"

MACHINE = Machine(
    name="amd-epyc-8cpu-32gib-00000000",
    cpu="AMD EPYC",
    cores=8,
    physical_cores=4,
    ram_bytes=32 * GIB,
    gpus=(),
    driver=None,
    os="Linux 6.1.0 (Debian GNU/Linux 12)",
)
QUIET = State(
    load_average_1min=0.1,
    available_memory_bytes=16 * GIB,
    governors=("performance",),
    on_battery=False,
    steal_fraction=0.0,
    cpu_temperature_c=40.0,
    cpu_quota_cores=None,
)


class FakeNvml:
    """A recorded stand-in for pynvml: two cards, answers as nvidia-ml-py 13 gives them."""

    class NVMLError(Exception):
        pass

    names: Any = ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB")
    driver: Any = "550.54.15"
    shut_down = 0

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.shut_down += 1

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self.driver

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return self.names[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * GIB)

    def nvmlDeviceGetUUID(self, handle: int) -> Any:
        return f"GPU-{handle}"


def refuse(nvml: type[FakeNvml]) -> Any:
    """Return a function that fails as an NVML function does."""

    def fail(*_: Any) -> None:
        raise nvml.NVMLError("not supported")

    return fail


def no_nvml() -> None:
    return None


def machine_root(tmp_path: Path, **files: str) -> Path:
    """Write `proc__stat="..."` as tmp_path/proc/stat."""
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def subjects(state: State, machine: Machine = MACHINE) -> list[str]:
    return [caution.subject for caution in cautions(machine, state, {})]


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (XEON, "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz"),
        (RYZEN, "AMD Ryzen 7 5800H with Radeon Graphics"),
        (GRAVITON2, "ARM Neoverse-N1"),
        (BIG_LITTLE, "ARM Cortex-A53 + ARM Cortex-A72"),
        (UNLISTED_ARM, "0x77 part 0x123"),
        (POWER9, "POWER9 (architected), altivec supported"),
        (RISC_V, "sifive,u74-mc"),
        ("model name : \x1b[31mEvil\x07  CPU\x00\n", "Evil CPU"),
        ("model name :\nprocessor : 0\n", None),
        ("", None),
    ],
)
def test_a_cpu_is_named_from_its_cpuinfo(cpuinfo: str, name: str | None) -> None:
    assert cpu_model(cpuinfo) == name


@pytest.mark.parametrize(
    ("cpuinfo", "slug"),
    [
        (XEON, "intel-xeon-platinum-8259cl-2cpu-24gib"),
        (RYZEN, "amd-ryzen-7-5800h-2cpu-24gib"),
        (GRAVITON2, "arm-neoverse-n1-2cpu-24gib"),
        ("model name : AMD Ryzen 9 5950X 16-Core Processor", "amd-ryzen-9-5950x-2cpu-24gib"),
    ],
)
def test_a_machine_name_is_a_readable_slug_and_eight_hex_digits(cpuinfo: str, slug: str) -> None:
    name = machine_name(cpu=cpu_model(cpuinfo) or "", cores=2, ram_bytes=24 * GIB, gpu_names=[])
    assert re.fullmatch(re.escape(slug) + "-[0-9a-f]{8}", name)


def test_a_machine_name_counts_equal_gpus() -> None:
    gpus = ["NVIDIA H200", "NVIDIA L4", "NVIDIA H200"]
    name = machine_name(cpu="AMD EPYC", cores=16, ram_bytes=128 * GIB, gpu_names=gpus)
    assert name.startswith("amd-epyc-16cpu-128gib-2x-nvidia-h200-nvidia-l4-")
    assert name == machine_name(
        cpu="AMD EPYC", cores=16, ram_bytes=128 * GIB, gpu_names=sorted(gpus)
    )


def test_a_machine_name_never_changes_for_the_same_hardware() -> None:
    # Results are kept under this name: a change of it here loses every user's history.
    name = machine_name(cpu="AMD EPYC", cores=2, ram_bytes=25276510208, gpu_names=[])
    assert name == "amd-epyc-2cpu-24gib-b1e42e6f"


def test_each_hardware_fact_changes_the_machine_name() -> None:
    facts: dict[str, Any] = {"cpu": "A", "cores": 2, "ram_bytes": 8 * GIB, "gpu_names": ["G"]}
    changes: list[dict[str, Any]] = [
        {"cpu": "B"},
        {"cores": 4},
        {"ram_bytes": 16 * GIB},
        {"gpu_names": ["G", "G"]},
    ]
    names = {machine_name(**facts), *(machine_name(**{**facts, **change}) for change in changes)}
    assert len(names) == 5


def test_ram_counts_in_whole_gib_rounded_up() -> None:
    def name(ram_bytes: int) -> str:
        return machine_name(cpu="A", cores=1, ram_bytes=ram_bytes, gpu_names=[])

    assert name(7 * GIB + 1) == name(8 * GIB)
    assert name(8 * GIB) != name(8 * GIB + 1)


@pytest.mark.parametrize(
    "cpu",
    [
        "",
        "../../etc/passwd",
        "\x1b[2J\x00\n\r",
        "日本語",
        "x" * 500,
        "-" * 90,
        "a/b\\c:d*?",
        "\udcff",
    ],
)
def test_a_machine_name_is_a_safe_folder_whatever_the_cpu_is_called(cpu: str) -> None:
    gpu_names = [cpu, cpu, "NVIDIA " + "long " * 30]
    name = machine_name(cpu=cpu, cores=128, ram_bytes=2048 * GIB, gpu_names=gpu_names)
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert len(name) <= 80
    assert name[0] != "-"
    assert "--" not in name
    assert "128cpu-2048gib" in name


def test_the_fingerprint_outlives_a_new_host_name_kernel_and_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = machine_root(tmp_path, proc__cpuinfo=XEON)
    before = read_machine(root=root, nvml=FakeNvml)
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    monkeypatch.setattr(platform, "node", lambda: "renamed")
    monkeypatch.setattr(platform, "release", lambda: "99.0.0")
    monkeypatch.setattr(FakeNvml, "driver", "999.1")
    after = read_machine(root=root, nvml=FakeNvml)
    assert (before.driver, after.driver) == ("550.54.15", "999.1")
    assert before.os != after.os
    assert before.name == after.name


def test_this_machine_has_a_fingerprint() -> None:
    machine = read_machine(nvml=no_nvml)
    assert machine.cores >= 1
    assert machine.ram_bytes > GIB / 4
    assert machine.gpus == ()
    assert machine.driver is None
    assert machine.os.startswith(platform.system())
    assert machine == read_machine(nvml=no_nvml)


def test_a_machine_without_cpuinfo_takes_the_name_python_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6, GenuineIntel")
    assert read_machine(root=tmp_path, nvml=no_nvml).cpu == "Intel64 Family 6, GenuineIntel"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "")
    assert read_machine(root=tmp_path, nvml=no_nvml).cpu == "unknown"


def test_macos_is_asked_for_the_cpus_brand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def run(command: Sequence[str], **_: Any) -> Any:
        calls.append(list(command))
        return SimpleNamespace(stdout=b"Apple M2 Pro\n", returncode=0)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert read_machine(root=tmp_path, nvml=no_nvml).cpu == "Apple M2 Pro"
    assert calls == [["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]]


def test_the_os_is_its_kernel_and_its_product(monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"NAME": "Debian GNU/Linux", "VERSION_ID": "12", "PRETTY_NAME": "unused"}
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.1.0")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert read_machine(nvml=no_nvml).os == "Linux 6.1.0 (Debian GNU/Linux 12)"


def test_an_os_without_a_product_is_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", absent)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("", ("", "", ""), ""))
    monkeypatch.setattr(platform, "win32_ver", lambda: ("", "", "", ""))
    assert read_machine(nvml=no_nvml).os == f"{platform.system()} {platform.release()}"


@pytest.mark.parametrize(
    ("field", "value"), [("name", "../up"), ("name", ""), ("cores", 0), ("ram_bytes", 0)]
)
def test_a_machine_refuses_nonsense(field: str, value: Any) -> None:
    with pytest.raises(ConvmarkError):
        dataclasses.replace(MACHINE, **{field: value})


def test_gpus_are_read_from_nvml_and_it_is_shut_down() -> None:
    nvml = FakeNvml()
    gpus, driver = read_gpus(nvml)
    assert driver == "550.54.15"
    assert gpus == tuple(
        Gpu(index=i, name="NVIDIA A100-SXM4-80GB", memory_bytes=80 * GIB, uuid=f"GPU-{i}")
        for i in range(2)
    )
    assert nvml.shut_down == 1


def test_absent_or_failing_nvml_gives_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_gpus(None) == ((), None)
    with monkeypatch.context() as patch:
        patch.setattr(FakeNvml, "nvmlDeviceGetCount", refuse(FakeNvml))
        assert read_gpus(FakeNvml()) == ((), None)
    monkeypatch.setattr(FakeNvml, "nvmlInit", refuse(FakeNvml))
    assert read_gpus(FakeNvml()) == ((), None)


def test_nvml_is_none_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load_nvml() is None


def test_what_a_gpu_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for question in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUUID", "nvmlSystemGetDriverVersion"):
        monkeypatch.setattr(FakeNvml, question, refuse(FakeNvml))
    gpus, driver = read_gpus(FakeNvml())
    assert driver is None
    assert [(gpu.memory_bytes, gpu.uuid) for gpu in gpus] == [(None, None)] * 2


def test_a_gpu_fallen_off_the_bus_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: FakeNvml, index: int) -> int:
        if index == 0:
            raise FakeNvml.NVMLError("GPU is lost")
        return index

    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetHandleByIndex", handle)
    assert [gpu.index for gpu in read_gpus(FakeNvml())[0]] == [1]


def test_an_old_nvml_answers_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeNvml, "names", (b"Tesla \x1b[0mK80",))
    monkeypatch.setattr(FakeNvml, "driver", b"470.1")
    gpus, driver = read_gpus(FakeNvml())
    assert (gpus[0].name, driver) == ("Tesla K80", "470.1")


def test_cpu_ticks_leave_idle_and_guest_time_out() -> None:
    # 100 + 20 + 30 + 6 + 7 + 37
    assert cpu_ticks(STAT) == CpuTicks(stolen=37, wanted=200)


@pytest.mark.parametrize("stat", ["", "intr 1 2 3\n", "cpu  1 2 3 4 5 6 7\n"])
def test_cpu_ticks_are_none_where_the_kernel_does_not_tell(stat: str) -> None:
    assert cpu_ticks(stat) is None


def test_the_stolen_fraction_is_of_the_time_wanted() -> None:
    now = CpuTicks(stolen=37, wanted=200)
    assert stolen_fraction(now) == 0.185
    assert stolen_fraction(now, CpuTicks(stolen=27, wanted=100)) == 0.1


@pytest.mark.parametrize(
    ("now", "earlier"),
    [
        (None, None),
        (CpuTicks(stolen=1, wanted=99), None),
        (CpuTicks(stolen=37, wanted=200), CpuTicks(stolen=27, wanted=101)),
        (CpuTicks(stolen=5, wanted=300), CpuTicks(stolen=9, wanted=100)),
        (CpuTicks(stolen=0, wanted=10), CpuTicks(stolen=9, wanted=100)),
    ],
)
def test_the_stolen_fraction_is_none_over_too_little_time(
    now: CpuTicks | None, earlier: CpuTicks | None
) -> None:
    assert stolen_fraction(now, earlier) is None


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2.0),
        ("0::/a\n", {"a/cpu.max": "max 100000", "other/cpu.max": "1000 100000"}, None),
        ("0::/../..\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "1000"}, None),
        ("3:cpuset:/\n", {"cpuset/cpu.max": "1000 100000"}, None),
        ("0::/\n", {"unified/cpu.max": "400000 100000"}, 4.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_the_cpu_quota_is_the_strictest_cgroups(
    tmp_path: Path, membership: str, files: dict[str, str], cores: float | None
) -> None:
    machine_root(tmp_path, **{name.replace("/", "__"): text for name, text in files.items()})
    assert cpu_quota(membership, tmp_path) == cores


def test_the_state_is_read_from_proc_and_sys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = machine_root(
        tmp_path,
        proc__stat=STAT,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cpu_max="",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="schedutil\n",
        sys__devices__system__cpu__cpu1__cpufreq__scaling_governor="performance\n",
        sys__devices__system__cpu__cpu10__cpufreq__scaling_governor="performance\n",
        sys__devices__system__cpu__cpufreq__scaling_governor="not a CPU",
    )
    (root / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    sensors = {
        "k10temp": [SimpleNamespace(current=51.5), SimpleNamespace(current=62.0)],
        "nvme": [SimpleNamespace(current=80.0)],
    }
    battery = SimpleNamespace(power_plugged=False)
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    state = read_state(root=root)
    assert state.governors == ("performance", "schedutil")
    assert state.steal_fraction == 0.185
    assert state.cpu_quota_cores == 1.0
    assert state.cpu_temperature_c == 62.0
    assert state.on_battery is True
    assert read_cpu_ticks(root) == CpuTicks(stolen=37, wanted=200)


def test_the_state_is_none_or_empty_where_nothing_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    memory = SimpleNamespace(available=GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert read_state(root=tmp_path) == State(load_average_1min=None, available_memory_bytes=GIB)


@pytest.mark.parametrize(
    ("plugged", "on_battery"), [(True, False), (False, True), (None, None), ("no battery", None)]
)
def test_a_battery_that_does_not_tell_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plugged: Any, on_battery: bool | None
) -> None:
    battery = None if plugged == "no battery" else SimpleNamespace(power_plugged=plugged)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert read_state(root=tmp_path).on_battery is on_battery


def test_this_machines_state_can_be_read() -> None:
    state = read_state(earlier=read_cpu_ticks())
    assert state.available_memory_bytes > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("steal_fraction", 1.01), ("steal_fraction", -0.01), ("available_memory_bytes", -1)],
)
def test_a_state_refuses_nonsense(field: str, value: Any) -> None:
    with pytest.raises(ConvmarkError):
        dataclasses.replace(QUIET, **{field: value})


def test_plain_text_is_one_printable_line() -> None:
    dirty = "\x1b]0;title\x07a\x1b[31;1mb\x1b[0m\r\nc\x00\x9b2Jd\u202ee\u2028f\udcff\x1b"
    assert plain_text(dirty) == "ab cde f"
    assert plain_text("a \x00 b") == "a b"
    assert plain_text("Ångström 日本") == "Ångström 日本"


def test_speed_flags_are_sorted_and_quoted() -> None:
    environ = {
        "XLA_FLAGS": "--xla_a --xla_b",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "OMP_NUM_THREADS": "4",
        "KMP_AFFINITY": "granularity=fine,compact",
        "TF_CUDNN_USE_AUTOTUNE": "0",
        "PATH": "/usr/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    assert speed_flags(environ) == (
        "KMP_AFFINITY=granularity=fine,compact OMP_NUM_THREADS=4 TF_CUDNN_USE_AUTOTUNE=0 "
        "TF_XLA_FLAGS=--tf_xla_auto_jit=2 XLA_FLAGS='--xla_a --xla_b'"
    )


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_LAUNCH_BLOCKING",
        "LD_PRELOAD",
        "MALLOC_ARENA_MAX",
        "MKL_NUM_THREADS",
        "NVIDIA_TF32_OVERRIDE",
        "TF_ENABLE_ONEDNN_OPTS",
        "TF_FORCE_GPU_ALLOW_GROWTH",
        "TF_GPU_ALLOCATOR",
        "TF_GPU_THREAD_MODE",
        "TF_NUM_INTEROP_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_SET_ONEDNN_FPMATH_MODE",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "KERAS_MAX_EPOCHS",
        "XLA_SOMETHING_OF_NEXT_YEAR",
        "JAX_DEFAULT_MATMUL_PRECISION",
        "GLIBC_TUNABLES",
        "CUDA_FORCE_PTX_JIT",
        "TORCHDYNAMO_DISABLE",
        "PYTHONOPTIMIZE",
        "PYTHON_CPU_COUNT",
        "ATEN_CPU_CAPABILITY",
        "TRITON_INTERPRET",
        "NUMBA_DISABLE_JIT",
        "NPROC",
    ],
)
def test_every_variable_that_changes_speed_is_a_flag_and_a_caution(name: str) -> None:
    assert speed_flags({name: "1"}) == f"{name}=1"
    assert [caution.subject for caution in cautions(MACHINE, QUIET, {name: "1"})] == [name]


def test_speed_flags_are_empty_when_none_is_set() -> None:
    assert speed_flags({}) == ""
    assert speed_flags({"XLA_FLAGS": "", "HOME": "/home/a"}) == ""


def test_variables_that_choose_a_device_or_name_a_place_are_no_flags() -> None:
    harmless = (
        *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "KERAS_BACKEND"),
        *("TF_CPP_MIN_LOG_LEVEL", "KERAS_HOME", "CUDA_HOME", "CUDA_VERSION", "TF_CONFIG"),
        *("TF_CLI_CONFIG_FILE", "TF_VAR_password"),  # Terraform's
        *("NVIDIA_REQUIRE_CUDA", "NVIDIA_DRIVER_CAPABILITIES", "LD_LIBRARY_PATH", "PYTHONPATH"),
    )
    assert speed_flags(dict.fromkeys(harmless, "1")) == ""
    assert cautions(MACHINE, QUIET, dict.fromkeys(harmless, "1")) == []


def test_speed_flags_hold_no_control_characters() -> None:
    assert speed_flags({"TF_GPU_\x1b[1mX": "1\n2\x1b[0m"}) == "TF_GPU_X='1 2'"


def test_a_quiet_machine_gives_no_caution() -> None:
    assert cautions(MACHINE, QUIET, {"HOME": "/home/a"}) == []


def test_an_unknown_state_gives_no_caution() -> None:
    unknown = State(load_average_1min=None, available_memory_bytes=16 * GIB)
    assert cautions(MACHINE, unknown, {}) == []


@pytest.mark.parametrize(
    ("subject", "field", "allowed", "crossed"),
    [
        ("load", "load_average_1min", 0.8, 0.81),
        ("governor", "governors", ("performance",), ("performance", "powersave")),
        ("governor", "governors", (), ("schedutil",)),
        ("power", "on_battery", False, True),
        ("steal", "steal_fraction", 0.01, math.nextafter(0.01, 1)),
        ("temperature", "cpu_temperature_c", 90.0, 90.5),
        ("memory", "available_memory_bytes", 2 * GIB, 2 * GIB - 1),
        ("CPU quota", "cpu_quota_cores", 8.0, 7.99),
    ],
)
def test_a_caution_begins_just_beyond_its_threshold(
    subject: str, field: str, allowed: Any, crossed: Any
) -> None:
    assert subjects(dataclasses.replace(QUIET, **{field: allowed})) == []
    assert subjects(dataclasses.replace(QUIET, **{field: crossed})) == [subject]


def test_a_machine_of_few_cores_may_have_a_load_of_one_half() -> None:
    small = dataclasses.replace(MACHINE, cores=2)
    assert subjects(dataclasses.replace(QUIET, load_average_1min=0.5), small) == []
    assert subjects(dataclasses.replace(QUIET, load_average_1min=0.51), small) == ["load"]


def test_cautions_come_in_a_fixed_order_and_each_says_what_to_do() -> None:
    bad = State(
        load_average_1min=6.0,
        available_memory_bytes=GIB,
        governors=("powersave",),
        on_battery=True,
        steal_fraction=0.05,
        cpu_temperature_c=97.0,
        cpu_quota_cores=0.5,
    )
    found = cautions(MACHINE, bad, {"TF_XLA_FLAGS": "--x", "OMP_NUM_THREADS": "1"})
    assert [caution.subject for caution in found] == [
        "load",
        "governor",
        "power",
        "steal",
        "temperature",
        "memory",
        "CPU quota",
        "OMP_NUM_THREADS",
        "TF_XLA_FLAGS",
    ]
    quota = found[6]
    assert "0.50 of the 8 cores" in quota.finding
    assert "--cpus=8" in quota.remedy
    assert "taskset -c 0)" in quota.remedy
    assert "fixes the number of threads" in found[7].finding


def test_a_run_under_a_quota_is_pinned_to_cpus_that_the_process_may_use() -> None:
    """A container's cpuset may begin at any CPU."""
    limited = dataclasses.replace(QUIET, cpu_quota_cores=2.5, cpus=(4, 5, 6, 7))
    (caution,) = cautions(MACHINE, limited, {})
    assert caution.remedy.endswith("or pin the run to 2 (taskset -c 4-5)")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process")
def test_the_state_has_the_cpus_that_this_process_may_use() -> None:
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(own)})
        assert read_state().cpus == (max(own),)
    finally:
        os.sched_setaffinity(0, own)


def test_a_flag_is_quoted_with_its_value_and_effect() -> None:
    (caution,) = cautions(MACHINE, QUIET, {"TF_ENABLE_ONEDNN_OPTS": "0"})
    assert caution.finding == "set to 0: turns the CPU's fast kernels on or off"
    assert caution.remedy.startswith("unset TF_ENABLE_ONEDNN_OPTS")


def test_a_caution_refuses_to_say_nothing() -> None:
    with pytest.raises(ConvmarkError, match="remedy must not be empty"):
        Caution(subject="load", finding="high", remedy="")
