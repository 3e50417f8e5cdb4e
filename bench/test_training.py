"""Training throughput of the lecture's networks: one step is forward, backward and update."""

from typing import Any

import pytest

from convmark.core.suites import TRAINING
from convmark.plugin.replay import Measured


@pytest.mark.convmark(TRAINING)
def test_training(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
