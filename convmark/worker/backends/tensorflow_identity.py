"""What a step of TensorFlow is, in a hash: its graph, and every value that the graph reads.

Two steps of one hash compute the same operations on the same values, whatever their code is called
or how it is laid out. Names are left out, all else that TensorFlow keeps of an operation counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from convmark.worker.backends.tensorflow_graph import graph_of, is_own, needed_operations
from convmark.worker.work import NoRule

__all__ = ["step_digest"]

_NAMES = frozenset(["_user_specified_name", "_gradient_op_type", "_class", "_output_shapes"])
"""Attributes that hold an operation's name, or a number that the process counts up."""
_UNSEEN = ("PyFunc", "RemoteCall", "TPU", "Iterator", "HashTable", "LookupTable")
"""Parts of the names of operations whose work is in no graph: code of Python, or other state."""


def step_digest(function: Any, batch: Sequence[Any]) -> str | None:
    """Return the hash of a concrete function with its variables' values and its batch.

    None where the graph does not tell all that a call does: it runs Python, or operations that are
    not TensorFlow's own, or reads state that is no variable.
    """
    found = hashlib.sha256()
    try:
        for text in _described(function.graph, {}):
            found.update(text.encode())
    except NoRule:
        return None
    found.update(str(sorted(map(str, function.function_def.attr.items()))).encode())
    variables = {id(one.handle): one for one in function.variables}
    captured = [variables.get(id(one), one) for one in function.captured_inputs]
    if any(one.dtype in (tf.resource, tf.variant) for one in captured):
        return None
    for value in (*captured, *tf.nest.flatten(batch)):
        array = np.ascontiguousarray(value.numpy())
        found.update(f"{value.device} {array.dtype} {array.shape}".encode())
        is_text = array.dtype == object
        plain = str(array.tolist()).encode() if is_text else array.reshape(-1).view(np.uint8).data
        found.update(plain)
    return found.hexdigest()


def _described(graph: Any, seen: dict[str, int]) -> Iterator[str]:
    """Yield a text for each operation that the graph's results need, in the order of tracing.

    Args:
        seen: numbers of the called functions that were described before, by their names.
    """
    places = {one.op.name: place for place, one in enumerate(graph.inputs)}
    needed = {op.name for op in needed_operations(graph)}
    traced = [op for op in graph.get_operations() if op.name in needed]
    numbers = {op.name: number for number, op in enumerate(traced)}
    for op in traced:
        if any(part in op.type for part in _UNSEEN) or not is_own(op.type):
            raise NoRule(f"{op.type} is not described by its graph")
        taken = [(numbers[one.op.name], one.value_index) for one in op.inputs]
        after = sorted(numbers[one.name] for one in op.control_inputs)
        attributes = []
        for name, value in sorted(op.node_def.attr.items()):
            called = [value.func] if value.WhichOneof("value") == "func" else value.list.func
            if not called and name not in _NAMES:
                attributes.append((name, value.SerializeToString(deterministic=True)))
            for one in called:
                if one.name not in seen:
                    seen[one.name] = len(seen)
                    yield from _described(graph_of(op, one.name), seen)
                attributes.append((name, seen[one.name]))
        yield f"{op.type} {op.device} {places.get(op.name)} {taken} {after} {attributes}\n"
    yield str([(numbers[one.op.name], one.value_index) for one in graph.outputs])
