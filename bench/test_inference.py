"""Inference of the lecture's networks: latency at batch 1, throughput at batch 32."""

from typing import Any

import pytest

from convmark.core.suites import INFERENCE
from convmark.plugin.replay import Measured


@pytest.mark.convmark(INFERENCE)
def test_inference(measured: Measured, benchmark: Any) -> None:
    measured.replay(benchmark)
