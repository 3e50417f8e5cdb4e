"""Throughput of replicas at a fixed batch each: of `--replicas`, or up to the GPUs there are."""

from typing import Any

import pytest

from convmark.core.suites import SCALING
from convmark.plugin.replay import Measured


@pytest.mark.convmark(SCALING)
def test_scaling(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
