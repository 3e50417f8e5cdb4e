"""OpenVINO's converter has an order of its own for several inputs and outputs."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmark.worker.runtimes.engine import Source

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("tensorflow", "openvino"))),
    reason="exports a graph of TensorFlow's to OpenVINO",
)


def test_inputs_and_outputs_keep_their_places(tmp_path: Path) -> None:
    tf = importlib.import_module("tensorflow")
    from convmark.worker.runtimes.open_vino import OpenVino, convert

    names = [f"input_{place:02}" for place in range(8)]

    @tf.function  # type: ignore[untyped-decorator]
    def forward(**given: Any) -> Any:
        taken = [given[name] for name in reversed(names)]
        made = [float(place) * one for place, one in enumerate(taken, 1)]
        return {f"output_{place:02}": one for place, one in enumerate(made[::-1])} | {
            "output_08": tf.identity(given["input_03"])
        }

    specs = {name: tf.TensorSpec((1, 2), tf.float32, name=name) for name in names}
    function = forward.get_concrete_function(**specs)
    convert(Source(function, None, list), str(tmp_path / "a.xml"), "float32")
    engine = OpenVino(str(tmp_path / "a.xml"), "1", "cpu")
    batch = [np.full((1, 2), place + 1, np.float32) for place in range(8)]
    found = [float(one[0, 0]) for one in engine.run(batch)]
    assert found == [(8.0 - place) * (place + 1) for place in range(8)] + [4.0]
