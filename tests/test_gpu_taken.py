"""How a worker takes its GPUs: which it sees, and that memory is taken as it is needed.

The framework is the real one, its GPUs are names.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workers import BUILDERS, environ

TENSORFLOW = """
import json, sys
import tensorflow as tf
from convmark.worker import backends

done = []
tf.config.list_physical_devices = lambda kind=None: [f"{kind} {n}" for n in range(3)]
tf.config.set_visible_devices = lambda devices, kind: done.append(["visible", kind, devices])
tf.config.experimental.set_memory_growth = lambda gpu, on: done.append(["growth", gpu, on])
answers = []
for device, replicas in json.loads(sys.argv[1]):
    backend = backends.load("tensorflow")
    if replicas > 1:
        backend = backends.replicated(replicas, None)
    done.clear()
    try:
        backend.configure(device=device, threads="default", precision="float32", seed=0)
    except RuntimeError as error:
        done.append(str(error))
    answers.append(list(done))
print(json.dumps(answers))
"""

JAX = """
import json, os
from convmark.worker import backends

try:
    backends.load("jax").configure(device="gpu:0", threads="default", precision="float32", seed=0)
except RuntimeError as error:
    said = str(error)
print(json.dumps([os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"], said]))
"""


def told(code: str, folder: Path, *arguments: object, **variables: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=BUILDERS,
        env=environ(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_tensorflow_sees_the_case_s_gpus_alone_and_their_memory_grows(tmp_path: Path) -> None:
    asked = [("cpu", 1), ("gpu:1", 1), ("gpu:1", 2), ("gpu:3", 1)]
    found = told(TENSORFLOW, tmp_path, json.dumps(asked), KERAS_BACKEND="tensorflow")
    assert found == [
        [["visible", "GPU", []]],
        [["visible", "GPU", ["GPU 1"]], ["growth", "GPU 1", True]],
        [
            ["visible", "GPU", ["GPU 1", "GPU 2"]],
            ["growth", "GPU 1", True],
            ["growth", "GPU 2", True],
        ],
        ["TensorFlow sees no 1 GPUs from gpu:3 on"],
    ]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_jax_takes_no_memory_beforehand_and_says_where_it_sees_no_gpu(tmp_path: Path) -> None:
    hidden = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    grows, said = told(JAX, tmp_path, **hidden)
    assert (grows, said) == ("false", "gpu:0: JAX sees no GPU, only cpu")
