"""Ceilings and checks of a device: FLOP/s and bytes/s; does a sync wait, is the allocator right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from convmark.worker import host, timing

PRODUCT_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Rows and columns of the square matrices."""
COPY_BYTES = (1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30, 1 << 31)
LONG_S = 0.05
"""An operation of this length is large enough: a larger one would not be faster."""

Emit = Callable[..., None]
MakeStep = Callable[[int], Callable[[], Any]]


BLOCKS, BLOCK_STEPS = 8, 5
WARM_UP_STEPS = 10

Step = Callable[[], Any]
Clock = Callable[[], float]


def measure(backend: Any, emit: Emit, sizes: int | None = None) -> None:
    """Measure both ceilings of the device in the precision that the backend is set to.

    Args:
        sizes: how many of the sizes are tried at most; a device's true ceiling may need all.

    Raises:
        Exception: whatever the smallest operation raises, out of memory included.
    """
    before = host.usage()
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    emit("phase", phase="ceilings")
    squares, copies = PRODUCT_SIZES[:sizes], COPY_BYTES[:sizes]
    size, products_per_s = _best(backend.matrix_product, squares, _flops, backend, pulse)
    emit("product", matrix_size=size, flops_per_s=products_per_s)
    # each byte is read once and written once
    copied, bytes_per_s = _best(backend.copy, copies, lambda size: 2 * size, backend, pulse)
    emit("copy", copy_bytes=copied, bytes_per_s=bytes_per_s)
    emit("state", other_cpu_share=host.other_cpu_share(before, host.usage()))
    emit("finished")


def _flops(size: int) -> int:
    """Return the FLOPs of a product of two square matrices: 2 x multiply-adds."""
    return 2 * size**3


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


@dataclass(frozen=True)
class Synchronised:
    """Seconds of one step, three ways."""

    unsynchronised_s: float
    """The call alone, median: on an asynchronous device the time to queue the step."""
    synchronised_s: float
    """Ended by a sync, median."""
    window_s: float
    """Wall seconds of a block of unsynchronised calls and one sync at its end / their number."""


def synchronised(step: Step, backend: Any, clock: Clock = time.perf_counter) -> Synchronised:
    """Time the step without a sync, with one sync at the end of a block, and with one each.

    Blocks of both kinds take turns, so that a noisy machine slows both.
    """
    for _ in range(WARM_UP_STEPS):
        backend.synchronise(step())
    calls_s: list[float] = []
    each_s: list[float] = []
    windows_s: list[float] = []
    for _ in range(BLOCKS):
        began = clock()
        for _ in range(BLOCK_STEPS):
            called = clock()
            token = step()
            calls_s.append(clock() - called)
        backend.synchronise(token)
        windows_s.append((clock() - began) / BLOCK_STEPS)
        each_s += [timing.timed_step(step, backend, clock)[0] for _ in range(BLOCK_STEPS)]
    return Synchronised(*(timing.median(times) for times in (calls_s, each_s, windows_s)))


def held_bytes(allocate: Callable[[], Any], backend: Any) -> int | None:
    """Return by how much the device's peak grows while something is allocated and held.

    None where the device's allocator does not count.
    """
    backend.reset_peak_memory()
    before = backend.peak_memory()
    held = allocate()
    after = backend.peak_memory()
    del held
    return None if before is None or after is None else after - before
