"""The machine and its state, under one name; each has a module of its own."""

from __future__ import annotations

from convmark.core.text import plain_text
from convmark.machine.cgroups import cpu_quota, own_cpu_quota
from convmark.machine.gpu.devices import Gpu, read_gpus
from convmark.machine.gpu.nvml import load_nvml
from convmark.machine.hardware import GIB, Machine, cpu_model, machine_name, read_machine
from convmark.machine.state import (
    CpuTicks,
    State,
    cpu_ticks,
    read_cpu_ticks,
    read_state,
    stolen_fraction,
)

__all__ = [
    "GIB",
    "CpuTicks",
    "Gpu",
    "Machine",
    "State",
    "cpu_model",
    "cpu_quota",
    "cpu_ticks",
    "load_nvml",
    "machine_name",
    "own_cpu_quota",
    "plain_text",
    "read_cpu_ticks",
    "read_gpus",
    "read_machine",
    "read_state",
    "stolen_fraction",
]
