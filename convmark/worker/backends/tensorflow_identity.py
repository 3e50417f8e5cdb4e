"""What a step of TensorFlow is, in a hash: its graph, and every value that the graph reads.

Two steps of one hash compute the same operations on the same values, whatever their code is called
or how it is laid out. Names are left out, all else that TensorFlow keeps of an operation counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from convmark.worker.backends.tensorflow_graph import (
    definition_of,
    graph_of,
    is_own,
    needed_operations,
)
from convmark.worker.work import NoRule

_NAMES = {
    *("_user_specified_name", "_gradient_op_type", "_class", "_output_shapes"),
    *("forward_function_name", "backward_function_name", "api_implements"),
}
"""Attributes that hold a name, or a number that the process counts up.

`_class` names the operations that one is placed with: those count by their numbers.
"""
_UNSEEN = re.compile(r"PyFunc|RemoteCall|File|Reader|Dataset|Vocab|Debug|Summary")
"""Operations whose work is in no graph: code of Python, or what lies in files."""
_OF_VARIABLES = re.compile(
    r"(Stateful)?PartitionedCall|If|Case|While|Placeholder|(Read|Assign|AssignAdd|AssignSub)VariableOp"
    r"|VarIsInitializedOp|VariableShape|DisableCopyOnRead|Resource(Gather|Scatter|Apply|SparseApply)\w*"
    r"|ResourceStridedSliceAssign|Random\w+|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial"
    r"|Stateful(Random|Standard|Truncated|Uniform)\w+|RngReadAndSkip|RngSkip|Stateless\w+"
    r"|SampleDistortedBoundingBox\w*|\w+CandidateSampler|CudnnRNN\w*|Tensor(Array|List)\w*"
    r"|Assert|CheckNumerics\w*|DeviceIndex|DeepCopy|Empty|GuaranteeConst"
)
"""Operations with a state that is in variables, which are hashed, or that begins with each call.

Others keep one elsewhere: a table, a queue, an iterator, a variable by its name alone, a clock.
"""


def step_digest(function: Any, batch: Sequence[Any]) -> str | None:
    """Return the hash of a concrete function with its variables' values and its batch.

    None where the graph does not tell all that a call does: it runs Python, or operations that are
    not TensorFlow's own, or reads files or state that is no variable.
    """
    found = hashlib.sha256()
    if getattr(function.graph, "deferred_external_captures", ()):  # Python gives them at each call
        return None
    try:
        for text in _described(function.graph, {}):
            found.update(text.encode())
    except NoRule:
        return None
    found.update(str(_attributes(function.function_def.attr)).encode())
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
    groups: dict[bytes, int] = {}
    for op in traced:
        elsewhere = op.op_def.is_stateful and not _OF_VARIABLES.fullmatch(op.type)
        if elsewhere or _UNSEEN.search(op.type) or not is_own(op.type):
            raise NoRule(f"{op.type} is not described by its graph")
        own = op.node_def.attr
        taken = [(numbers[one.op.name], one.value_index) for one in op.inputs]
        after = sorted(numbers[one.name] for one in op.control_inputs)
        attributes: list[Any] = _attributes(own)
        for name, value in sorted(own.items()):
            for one in _called(value):
                if one.name not in seen:
                    seen[one.name] = len(seen)
                    yield str(_attributes(definition_of(op, one.name).attr))
                    yield from _described(graph_of(op, one.name), seen)
                attributes.append((name, seen[one.name], _attributes(one.attr)))
            for one in value.list.s if name == "_class" else ():
                beside = numbers.get(one.decode().removeprefix("loc:@"))
                attributes.append((name, beside, groups.setdefault(one, len(groups))))
        yield f"{op.type} {op.device} {places.get(op.name)} {taken} {after} {attributes}\n"
    yield str([(numbers[one.op.name], one.value_index) for one in graph.outputs])


def _attributes(attributes: Any) -> list[Any]:
    """Return attributes of an operation or a function, without names and called functions."""
    return [
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(attributes.items())
        if not _called(value) and name not in _NAMES
    ]


def _called(value: Any) -> Sequence[Any]:
    """Return the functions that an attribute names."""
    return [value.func] if value.WhichOneof("value") == "func" else value.list.func
