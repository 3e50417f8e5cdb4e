"""How a worker takes its GPUs: which it sees, and that memory is taken as it is needed.

The framework is the real one, its GPUs are names.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from forks import Forks, printed

ForksOf = Callable[[str], Forks]

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
import jax
from convmark.worker import backends

jax.config.update("jax_platforms", "cpu")
try:
    backends.load("jax").configure(device="gpu:0", threads="default", precision="float32", seed=0)
except RuntimeError as error:
    said = str(error)
print(json.dumps([os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"], said]))
"""


def test_tensorflow_sees_the_case_s_gpus_alone_and_their_memory_grows(forks_of: ForksOf) -> None:
    asked = [("cpu", 1), ("gpu:1", 1), ("gpu:1", 2), ("gpu:3", 1)]
    found = printed(forks_of("tensorflow").run(TENSORFLOW, json.dumps(asked)))
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


def test_jax_takes_no_memory_beforehand_and_says_where_it_sees_no_gpu(forks_of: ForksOf) -> None:
    grows, said = printed(forks_of("jax").run(JAX))
    assert (grows, said) == ("false", "gpu:0: JAX sees no GPU, only cpu")
