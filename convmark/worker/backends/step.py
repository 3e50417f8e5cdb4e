"""A step of a case: what is run again and again, and the batch on the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """Called, it runs once on its own batch and returns a token, (probe, result).

    The backend's `synchronise` waits for the probe, which is there only when the whole step has
    finished; its `fingerprint` reads the result.
    """

    run: Callable[..., tuple[Any, Any]]
    """Takes a batch: images, and in training the tuple of targets."""
    batch: tuple[Any, ...]
    """On the device since before the first step."""
    trace: Callable[[], Any] | None = None
    """Makes the graph without running it; None where there is none to be made."""
    takes_any: bool = True
    """Whether `run` takes any batch; else it has its own whatever it is given."""
    equations: Callable[[], Any] | None = None
    """Makes what the step's FLOPs are counted in, where that is not what `trace` makes."""
    failed_s: Callable[[], float] = float
    """Seconds that the first call or trace lost with batches that the step does not take."""

    def __call__(self) -> tuple[Any, Any]:
        return self.run(*self.batch)
