"""What outputs tell whether other samples were computed."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.case import Case

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None, reason="outputs are arrays"
)


@pytest.mark.parametrize(
    ("output", "tells"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], False),
        ([[1.0 - 1e-7, 1e-7], [1.0, 1e-20]], False),  # one class, whatever the weights are
        ([[255.0, 1e-4], [254.999, -255.0]], False),
        ([[0.5, 0.5], [0.5, 0.5]], False),
        ([[0.9, 0.1], [1.0, 0.0]], True),
        ([[0.999, 0.001], [1.0, 0.0]], True),
        ([[3.0, 1.0], [2.0, 5.0]], True),
    ],
)
def test_classes_that_are_all_but_certain_do_not_tell_that_a_model_keeps_its_output(
    output: list[Any], tells: bool
) -> None:
    from convmark.worker.other_samples import _tells

    assert _tells(np.array(output, np.float32)) is tells


class KeepsTheNewest:
    """A step, and its clocks: of samples that it has just seen it takes 0.1 ms, of others 2 ms."""

    takes_any = True

    def __init__(self, stalled: int) -> None:
        """Describe it: other programs hold up the step of this number, and the third after it."""
        self.batch = (np.random.RandomState(0).random_sample((4, 8)).astype(np.float32),)
        self.cpu_s = self.wall_s = 0.0
        self._stalled, self._taken, self._kept = stalled, 0, b""

    def __call__(self) -> Any:
        return self.run(*self.batch)

    def run(self, samples: Any) -> Any:
        work_s = 0.0001 if samples.tobytes() == self._kept else 0.002
        self._kept = samples.tobytes()
        self.cpu_s += work_s
        self.wall_s += work_s + 0.03 * (self._taken - self._stalled in (0, 3))
        self._taken += 1
        return None, samples


def test_a_busy_machine_does_not_hide_that_a_model_keeps_its_newest_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from convmark.worker import other_samples
    from convmark.worker.failure import CaseFailure

    case = Case(model="nets:kept", task="infer", batch_size=4)
    backend = SimpleNamespace(
        always_compiles=False,
        array=lambda tensor: tensor,
        device_batch=lambda model, samples, seed: np.random.RandomState(seed).rand(samples, 8),
        leaves=lambda outputs: [outputs],
        synchronise=lambda token: None,
        tensor=lambda array: array,
    )
    for stalled in range(1, 42):
        step = KeepsTheNewest(stalled)
        step()
        clocks = {"perf_counter": lambda: step.wall_s, "process_time": lambda: step.cpu_s}  # noqa: B023
        monkeypatch.setattr(other_samples, "time", SimpleNamespace(**clocks))
        with pytest.raises(CaseFailure, match="a step on nearly equal samples takes 20 times"):
            other_samples.hold_other_samples(case, None, step, 0, backend, each=False)
