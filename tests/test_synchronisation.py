"""A step time is the device's, not the call's: shown on a CPU that answers before it has finished.

No clock is faked here: `asynchronous.py` runs TensorFlow's asynchronous mode, and JAX as it is, in
which the call of a step of 25 ms returns after one, and compares what the worker's loops report
with the wall, of TensorFlow's two replicas on logical CPUs too. PyTorch has no such mode on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, printed

KINDS = ("training", "inference", "reference")
LOOPS = ("timed_step", "steps", "windows", "rounds", "turn")
AGREES = (0.6, 1.6)
"""Reported over true seconds of a loop that waits."""
FRACTION = 0.75
"""Of that: what a loop that does not wait reports at most."""


@pytest.fixture(scope="module", params=["tensorflow", "replicas", "jax"])
def ratios(request: pytest.FixtureRequest, forks_of: Callable[[str], Forks]) -> dict[str, Any]:
    """Reported over true seconds of a step, by kind of step, loop and backend."""
    framework = "tensorflow" if request.param == "replicas" else request.param
    script = Path(__file__).with_name("asynchronous.py")
    found: dict[str, Any] = printed(
        forks_of(framework).run(script, request.param, *map(str, (*AGREES, FRACTION)))
    )
    return {**found, "backend": request.param}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_reported_step_lasts_until_the_device_has_finished(
    kind: str, loop: str, ratios: dict[str, Any]
) -> None:
    assert AGREES[0] < ratios[kind][loop]["careful"] < AGREES[1]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_without_the_wait_a_reported_step_would_be_a_fraction_of_that(
    kind: str, loop: str, ratios: dict[str, Any]
) -> None:
    if ratios["backend"] == "replicas" and kind == "training":
        pytest.skip("on CPUs the call of a step that sums gradients over replicas waits by itself")
    assert ratios[kind][loop]["careless"] < FRACTION * ratios[kind][loop]["careful"]
