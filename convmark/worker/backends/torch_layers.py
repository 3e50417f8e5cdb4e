"""What the layers of a PyTorch model need besides pieces: its profiler's events, gradients' ways.

Each unit is a range of the profiler, on a GPU one of its kernels. What the profiler has recorded is
read as it is: its own list of events, with a tree of them, takes many times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType

from convmark.worker.backends.step import Event, Piece

named = torch.profiler.record_function


def traced(
    backend: Any, one: Piece, values: Sequence[Any], passes: Iterable[object]
) -> Iterator[tuple[bool, Event]]:
    """Return the events of the passes, in nanoseconds, of older versions in microseconds."""
    step = backend.piece(one, False)
    backend.synchronise(step(values))
    with torch.profiler.profile() as profile:
        for _ in passes:
            backend.synchronise(step(values))
    recorded: Any = profile.profiler
    return (
        (one.device_type() != DeviceType.CPU, (one.name(), *_lasted(one)))
        for one in recorded.kineto_results.events()
    )


def _lasted(event: Any) -> tuple[float, float]:
    """Return the begin and the end of what the profiler has recorded."""
    start, duration = (
        getattr(event, f"{name}_ns", None) or getattr(event, f"{name}_us")
        for name in ("start", "duration")
    )
    return start(), start() + duration()


def reached(backend: Any, piece: Piece, values: Sequence[Any]) -> list[list[bool]]:
    """Return where gradients come: of each result to each value, and last to any weight."""
    weights = [
        one.value for layer in piece.layers for one in getattr(layer, "trainable_variables", [])
    ]
    passed = [one.detach().requires_grad_(one.is_floating_point()) for one in values]
    wanted = [*(one for one in passed if one.requires_grad), *weights]
    rows = []
    for one in piece.function(passed):
        found: Sequence[Any] = [None] * len(wanted)
        if one.requires_grad:
            found = torch.autograd.grad(
                one, wanted, torch.ones_like(one), retain_graph=True, allow_unused=True
            )
        left = iter(found)
        row = [value.requires_grad and next(left) is not None for value in passed]
        rows.append([*row, any(gradient is not None for gradient in left)])
    return rows
