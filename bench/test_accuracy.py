"""The lecture's networks trained on MNIST, one process a seed; measured with `--accuracy` alone."""

from typing import Any

import pytest

from convmark.core.suites import ACCURACY
from convmark.plugin.replay import Measured


@pytest.mark.convmark(ACCURACY)
def test_accuracy(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
