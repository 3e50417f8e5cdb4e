"""The events of PyTorch's profiler: each unit is a range of its own, on a GPU of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType

from convmark.worker.profiled import Event, on_device

named = torch.profiler.record_function


def traced(
    backend: Any,
    function: Callable[[Any], list[Any]],
    layers: Sequence[Any],
    values: Sequence[Any],
    passes: int,
) -> list[Event]:
    """Return the events of so many passes, in microseconds."""
    step = backend.piece(function, layers, False)
    backend.synchronise(step(values))
    with torch.profiler.profile() as profile:
        for _ in range(passes):
            backend.synchronise(step(values))
    return on_device(
        (one.device_type != DeviceType.CPU, (one.name, one.time_range.start, one.time_range.end))
        for one in profile.events()
    )
