"""A convolution and its depthwise separable twin, side by side, training and inference."""

from typing import Any

import pytest

from convmark.core.suites import LAYERS
from convmark.plugin.replay import Measured


@pytest.mark.convmark(LAYERS)
def test_layers(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
