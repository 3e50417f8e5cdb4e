"""A convolution and its depthwise separable twin, side by side, training and inference."""

from typing import Any

import pytest

from convmark.plugin.replay import Measured
from convmark.suites import LAYERS


@pytest.mark.convmark(LAYERS)
def test_layers(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
