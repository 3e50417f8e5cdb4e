"""Ceilings of a device: FLOP/s of a large matrix product, bytes/s of a large copy.

Both grow until one operation lasts long enough to be told from its launch; the best window of the
best size is the ceiling.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from convmark.worker import rivals, timing

__all__ = ["measure"]

PRODUCT_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Rows and columns of the square matrices."""
COPY_BYTES = (1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30, 1 << 31)
LONG_S = 0.05
"""An operation of this length is large enough: a larger one would not be faster."""

Emit = Callable[..., None]
MakeStep = Callable[[int], Callable[[], Any]]


def measure(backend: Any, emit: Emit, sizes: int | None = None) -> None:
    """Measure both ceilings of the device in the precision that the backend is set to.

    Args:
        sizes: how many of the sizes are tried at most; a device's true ceiling may need all.

    Raises:
        Exception: whatever the smallest operation raises, out of memory included.
    """
    before = rivals.usage()
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    squares, copies = PRODUCT_SIZES[:sizes], COPY_BYTES[:sizes]
    size, products_per_s = _best(backend.matrix_product, squares, _flops, backend, pulse)
    emit("product", matrix_size=size, flops_per_s=products_per_s)
    copied, bytes_per_s = _best(backend.copy, copies, _moved_bytes, backend, pulse)
    emit("copy", copy_bytes=copied, bytes_per_s=bytes_per_s)
    emit("state", other_cpu_share=rivals.other_cpu_share(before, rivals.usage()))
    emit("finished")


def _flops(size: int) -> int:
    """Return the FLOPs of a product of two square matrices: 2 x multiply-adds."""
    return 2 * size**3


def _moved_bytes(size: int) -> int:
    """Return the bytes that a copy moves: each is read once and written once."""
    return 2 * size


def _best(
    make: MakeStep,
    sizes: tuple[int, ...],
    work: Callable[[int], int],
    backend: Any,
    pulse: timing.Pulse,
) -> tuple[int, float]:
    """Return the size of the highest rate and that rate, work per second."""
    rates = {size: work(size) / seconds for size, seconds in _seconds(make, sizes, backend, pulse)}
    size = max(rates, key=lambda size: rates[size])
    return size, rates[size]


def _seconds(
    make: MakeStep, sizes: tuple[int, ...], backend: Any, pulse: timing.Pulse
) -> Iterator[tuple[int, float]]:
    """Yield each size with one operation's seconds in its best window."""
    for size in sizes:
        try:
            seconds = _operation_s(make(size), backend, pulse)
        except Exception as error:
            if size == sizes[0] or not backend.is_out_of_memory(error):
                raise
            return
        yield size, seconds
        if seconds >= LONG_S:
            return


def _operation_s(step: Callable[[], Any], backend: Any, pulse: timing.Pulse) -> float:
    backend.synchronise(step())  # compiles, and chooses its kernel
    quick_s = min(timing.timed_step(step, backend)[0] for _ in range(2))
    windows = timing.windows(step, backend, quick_s, pulse)
    return min(windows.times_s) / windows.steps
