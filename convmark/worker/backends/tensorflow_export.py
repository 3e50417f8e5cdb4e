"""A Keras model's forward pass as one graph of TensorFlow's, which runtimes are converted from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import KERAS_RELEASE

from convmark.worker.backends.tensorflow_training import leaves
from convmark.worker.runtimes.engine import INPUT, OUTPUT


def forward_function(model: Any, structure: Any, batch: Sequence[Any]) -> Any:
    """Return the concrete function of a forward pass, of this batch's size alone."""
    specs = {
        INPUT.format(place): tf.TensorSpec(one.shape, one.dtype, name=INPUT.format(place))
        for place, one in enumerate(batch)
    }

    @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
    def forward(**inputs: Any) -> Any:
        given = tf.nest.pack_sequence_as(structure, [inputs[name] for name in sorted(inputs)])
        found = leaves(model(given, training=False))
        return {OUTPUT.format(place): tf.identity(one) for place, one in enumerate(found)}

    return forward.get_concrete_function(**specs)


def outputs_of(function: Any, batch: Sequence[Any]) -> list[Any]:
    """Return the arrays that the function gives, in order."""
    given = {INPUT.format(place): tf.constant(one) for place, one in enumerate(batch)}
    found = function(**given)
    return [np.asarray(found[name]) for name in sorted(found)]


def digest_of(function: Any) -> str:
    """Return a hash of all that an export is made of: the graph, what it holds, and the software.

    Keras patches the converter to ONNX, so that its version counts too.

    Large tensors that the model's code has made are held as weights are. What a table holds cannot
    be read: each hash of a graph with one is another.
    """
    made_by = tf.version.GIT_VERSION, tf.__version__, KERAS_RELEASE, np.__version__
    found = hashlib.sha256(" ".join(map(str, made_by)).encode())
    found.update(function.graph.as_graph_def().SerializeToString(deterministic=True))
    variables = {id(one.handle): one for one in function.variables}  # in any order
    for one in function.captured_inputs:
        held = variables.get(id(one), one)
        if held.dtype in (tf.resource, tf.variant):
            found.update(os.urandom(16))
            continue
        array = np.asarray(held)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
