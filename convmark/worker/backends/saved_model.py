"""A SavedModel's folder as a model: the graph that one of its signatures holds, for inference.

Keras's own TFSMLayer copies each variable and leaves the original in memory, and casts the inputs
to the policy of the day, which the graph knows nothing of. So the signature is called as it is.

A Keras model's forward pass as one graph of TensorFlow's, which runtimes are converted from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import KERAS_RELEASE, keras

from convmark.worker.backends.tensorflow_training import leaves
from convmark.worker.failure import CaseFailure
from convmark.worker.model_files import is_trusted
from convmark.worker.runtimes.engine import INPUT, OUTPUT

SERVING = "serving_default"
_PRODUCTS = ("Conv", "MatMul", "Einsum")
_REACHING = {
    *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2", "PrintV2"),
    *("PyFunc", "PyFuncStateless", "EagerPyFunc"),
}
"""Operations that reach beyond a graph: files, and Python's own functions."""


class SavedModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A signature of a SavedModel, called on what it names."""

    nothing_to_train = (
        "nothing to train: a SavedModel is measured in inference only; use --tasks "
        "infer, or save the model as .keras"
    )

    def __init__(self, folder: str, signature: str = "") -> None:
        """Load the folder.

        Args:
            signature: the one that is asked for; by default the one that serves, or the only one.
        """
        if not is_trusted():
            _refuse_reaching(folder)
        loaded = tf.saved_model.load(folder)
        signatures = dict(loaded.signatures)
        only = next(iter(signatures)) if len(signatures) == 1 else SERVING
        chosen = signature or (SERVING if SERVING in signatures else only)
        if chosen not in signatures:
            names = ", ".join(sorted(signatures)) or "none"
            remedy = f"; choose one, as in {folder}#{min(signatures)}" if signatures else ""
            raise CaseFailure(f"{folder}: must have a signature {chosen}, it has {names}{remedy}")
        function = signatures[chosen]
        super().__init__(autocast=False)  # a folder's name need not be one that TensorFlow takes
        self.chosen = chosen if len(signatures) > 1 else ""
        if not function.structured_outputs:
            raise CaseFailure(f"{folder}: its signature has no outputs; save it with one")
        self.precision = _computed(folder, function)
        self._kept = (loaded,)  # its tables and variables live as long as it does
        self._function = function
        _, self._takes = function.structured_input_signature
        leaves = {name: _symbol(folder, name, spec) for name, spec in self._takes.items()}
        self._inputs_struct = next(iter(leaves.values())) if len(leaves) == 1 else leaves
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return what the signature gives, by name.

        Raises:
            ValueError: the graph is of another batch size.
        """
        given = inputs if isinstance(inputs, Mapping) else {next(iter(self._takes)): inputs}
        for name, spec in self._takes.items():
            size, wanted = given[name].shape[0], spec.shape[0]
            if wanted not in (None, size):
                raise ValueError(
                    f"the SavedModel takes batches of size {wanted}, got {size}; use "
                    f"--batch-sizes {wanted}"
                )
        outputs = self._function(**{name: given[name] for name in self._takes})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    @property
    def weights(self) -> list[Any]:
        """The variables that the graph holds."""
        return list(self._function.variables)

    @property
    def trainable_weights(self) -> list[Any]:
        """None: a graph that was saved is not trained."""
        return []

    trainable_variables = trainable_weights


def signature_words(model: Any) -> str:
    """Return which of several signatures a model calls, as its call path ends; empty for none."""
    chosen = model.chosen if isinstance(model, SavedModel) else ""
    return f", signature {chosen}" if chosen else ""


def _refuse_reaching(folder: str) -> None:
    """Refuse a graph that would read or write files, or call Python."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as Stored

    with open(f"{folder}/saved_model.pb", "rb") as file:
        data = file.read()
    try:
        stored = Stored.FromString(data)
    except Exception as error:  # protobuf's own, of several versions
        raise CaseFailure(f"{folder}: must be a SavedModel, it cannot be read: {error}") from None
    for graph in (meta.graph_def for meta in stored.meta_graphs):
        inner = (node for one in graph.library.function for node in one.node_def)
        for node in (*graph.node, *inner):
            if node.op in _REACHING:
                raise CaseFailure(
                    f"{folder}: contains code (the operation {node.op}); give --trust-models if "
                    "you trust the author of the file"
                )


def _symbol(folder: str, name: str, spec: Any) -> Any:
    if spec.shape.rank is None or spec.shape.rank == 0:
        raise CaseFailure(
            f"{folder}: its input {name} must have a batch axis, got the shape {spec.shape}"
        )
    return keras.Input(tuple(spec.shape[1:]), dtype=spec.dtype.name, name=name)


def _computed(folder: str, function: Any) -> str:
    """Return the precision that the graph's products are computed in, by Keras's name."""
    definition = function.graph.as_graph_def()
    nodes = [
        *definition.node,
        *(node for one in definition.library.function for node in one.node_def),
    ]
    products = {
        tf.as_dtype(node.attr[key].type).name
        for node in nodes
        for key in ("T", "Ta")  # of a product whose two sides may differ
        if key in node.attr and any(word in node.op for word in _PRODUCTS)
    }
    stored = {one.dtype.name for one in function.variables if not one.dtype.is_integer}
    kinds = (products or stored) - {"bool", "int32", "int64", "resource", "string"}
    if len(kinds) > 1:
        raise CaseFailure(
            f"{folder}: its products must be of one dtype, got {', '.join(sorted(kinds))}"
        )
    computed = next(iter(kinds), "float32")
    return f"mixed_{computed}" if "16" in computed and "float32" in stored else computed


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
