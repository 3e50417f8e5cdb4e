"""What outputs tell whether other samples were computed."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

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
