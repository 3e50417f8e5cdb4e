"""The FLOPs of a traced TensorFlow function: each needed operation has a rule.

Functions that are called count at each call, both branches of a condition must count alike, and a
loop counts by its trips, which are found by running its condition on what is known.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from convmark.worker.work import (
    NoRule,
    Work,
    counted,
    einsum,
    elements,
    followed,
    note_compiled,
    product,
)

MOST_TRIPS = 100_000

Known = dict[str, Any]
"""Values of a graph's whole numbers and truths by their tensors' names; None: not known."""

_WITHOUT_RULE = re.compile(
    r"Conv2D|Conv3D|Convolution|^Conv$|DepthwiseConv|Mat[Mm]ul|Einsum|Dot|RNN|LSTM|GRU|^Quantized"
    r"|FFT|Cholesky|Determinant|MatrixInverse|Solve|MatrixExponential|MatrixLogarithm"
    r"|MatrixSquareRoot|Svd|^Qr$|Eig|^Lu$|PyFunc|TPU|RemoteCall|SparseFillEmptyRows|SparseSegment"
    r"|Spectrogram|Mfcc|NearestNeighbors"
)
"""Operations that multiply matrices, or run code that nobody sees; `_RULES` has the others.

SparseFillEmptyRows and SparseSegment are how a sparse matrix is multiplied: rows are looked up,
weighted and summed.
"""
_INNER = {
    *("Placeholder", "_Arg", "_Retval", "FakeParam", "XlaDynamicSlice", "XlaPad", "XlaGather"),
    *("XlaDynamicUpdateSlice", "XlaScatter", "XlaSort", "XlaKeyValueSort", "XlaSharding"),
}
"""Of TensorFlow's own, though `tf.raw_ops` does not have all of them."""


def graph_work(trace: Callable[[], Any]) -> Work:
    """Return the FLOPs of one run of the concrete function that `trace` makes."""
    return counted(lambda: _of_graph(followed(trace).graph, {}))


def forward_work(trace: Callable[[], Any]) -> Work:
    """Return the FLOPs of a function that changes no variable.

    A function that was traced for open axes, as a SavedModel's is, has its shapes once it is part
    of its caller, which needs its variables to be constants.
    """
    found = graph_work(trace)
    if found.flops is not None:
        return found
    whole = graph_work(lambda: convert_variables_to_constants_v2(trace(), lower_control_flow=False))
    return found if whole.flops is None else whole


LARGE = 1000
"""Elements of a constant: of fewer zeros TensorFlow makes one itself."""


def held_tensors(graph: Any) -> Iterator[Any]:
    """Yield the tensors that a graph has from outside: captured ones, and large constants.

    A frozen SavedModel has its weights as constants of a function that is called.
    """
    yield from (outer for outer, _ in graph.captures)
    yield from _large_constants(graph, set())


def _large_constants(graph: Any, seen: set[str]) -> Iterator[Any]:
    for op in graph.get_operations():
        if op.type == "Const" and (op.outputs[0].shape.num_elements() or 0) > LARGE:
            yield op.outputs[0]
        for name in _functions(op):
            if name not in seen:
                seen.add(name)
                with contextlib.suppress(NoRule):  # it is not to be had
                    yield from _large_constants(graph_of(op, name), seen)


def _of_graph(graph: Any, known: Known) -> int:
    return sum(_of_operation(op, known) for op in needed_operations(graph))


def needed_operations(graph: Any) -> Iterator[Any]:
    """Yield the operations that outputs and side effects need; TensorFlow prunes the others."""
    yield from _ancestors([*(output.op for output in graph.outputs), *graph.control_outputs])


def _ancestors(operations: Sequence[Any]) -> Iterator[Any]:
    """Yield these operations and all that they need, each once."""
    waiting = {op.name: op for op in operations}
    seen = set(waiting)
    while waiting:
        _, op = waiting.popitem()
        yield op
        for source in (*(tensor.op for tensor in op.inputs), *op.control_inputs):
            if source.name not in seen:
                seen.add(source.name)
                waiting[source.name] = source


_BRANCHING = ("If", "StatelessIf", "Case", "StatelessCase")
"""Their first input says which function is called with the others."""


def _of_operation(op: Any, known: Known) -> int:
    kind = op.type
    if kind in ("While", "StatelessWhile"):
        return _loop(op, known)[0]
    functions = _functions(op)
    if kind in _BRANCHING:
        counts = {_called(op, name, op.inputs[1:], known) for name in functions}
        if len(counts) > 1:
            raise NoRule(f"the branches of {op.name} count unlike")
        return counts.pop()
    if kind.endswith("PartitionedCall") and not kind.startswith("TPU"):
        return _called(op, functions[0], op.inputs, known)
    if functions:
        if any(_called(op, name, (), known) for name in functions):
            raise NoRule(f"{kind} calls a function that multiplies an unknown number of times")
        return 0
    if kind in _PROJECTIONS:  # of places, whose dtype is none of the network's
        return _projected(op)
    if kind in _RULES:
        kinds = [tensor.dtype.name for tensor in _factors(op)]
        return product(kind, kinds, lambda: _RULES[kind](op))
    if _WITHOUT_RULE.search(kind):
        raise NoRule(f"{kind} has no rule")
    if not is_own(kind):
        if op.graph._get_function(kind) is not None:  # a call by the function's name
            return _called(op, kind, op.inputs, known)
        raise NoRule(f"{kind} is no operation of TensorFlow's own")
    return 0


def _functions(op: Any) -> list[str]:
    """Return the names of the functions that an operation has as attributes."""
    names = []
    for value in op.node_def.attr.values():
        if value.WhichOneof("value") == "func":
            names.append(value.func.name)
        names.extend(one.name for one in value.list.func)
    return names


def is_own(kind: str) -> bool:
    """Whether an operation is of TensorFlow's own, and no function and none of a library."""
    return kind in _INNER or hasattr(tf.raw_ops, kind)


def graph_of(op: Any, name: str) -> Any:
    """Return the graph of a function that an operation has as an attribute.

    Raises:
        NoRule: it is not to be had.
    """
    graph, function = _found(op, name)
    made = getattr(function, "graph", None)
    taken = op.inputs[1:] if op.type in _BRANCHING else op.inputs
    return made or _read(graph, function, [tensor.shape for tensor in taken])


def definition_of(op: Any, name: str) -> Any:
    """Return the definition of a function that an operation has as an attribute.

    Raises:
        NoRule: it is not to be had.
    """
    return _found(op, name)[1].definition


def _found(op: Any, name: str) -> tuple[Any, Any]:
    """Return a function and the graph that has it."""
    graph = op.graph
    while graph is not None:
        function = graph._get_function(name)  # public only as the text of the whole library
        if function is not None:
            return graph, function
        graph = getattr(graph, "outer_graph", None)
    raise NoRule(f"the function of {op.type} cannot be read")


def _read(within: Any, function: Any, shapes: Sequence[Any]) -> Any:
    """Return the graph of a function that is there as a definition alone, as old loops are."""
    with within.as_default():
        return function_def_to_graph(function.definition, input_shapes=shapes)


def _called(op: Any, name: str, arguments: Sequence[Any], known: Known) -> int:
    if "_XlaMustCompile" in op.node_def.attr and op.node_def.attr["_XlaMustCompile"].b:
        note_compiled()
    graph = graph_of(op, name)
    given = [_value(tensor, known) for tensor in arguments]
    return _of_graph(graph, _bound(graph, given))


def _bound(graph: Any, values: Sequence[Any]) -> Known:
    return {
        tensor.name: value
        for tensor, value in zip(graph.inputs, values, strict=False)
        if value is not None
    }


# loops


def _loop(op: Any, known: Known) -> tuple[int, list[Any]]:
    """Return the FLOPs of a loop, and its variables at the end, as far as they are known."""
    condition = graph_of(op, op.get_attr("cond").name)
    body = graph_of(op, op.get_attr("body").name)
    state = [_value(tensor, known) for tensor in op.inputs]
    per_trip = _of_graph(body, _bound(body, _lasting(body, state)))
    for trips in range(MOST_TRIPS):
        goes_on = _value(condition.outputs[0], _bound(condition, state))
        if goes_on is None:
            break
        if not goes_on:
            return trips * per_trip, state
        bound = _bound(body, state)
        state = [_value(tensor, bound) for tensor in body.outputs]
    if per_trip:
        raise NoRule(f"the number of iterations of {op.name} depends on the data")
    return 0, [None] * len(state)


def _lasting(body: Any, state: Sequence[Any]) -> list[Any]:
    """Return the variables' values that no trip changes; None of the others."""
    return [
        value if _source(output).name == tensor.name else None
        for tensor, output, value in zip(body.inputs, body.outputs, state, strict=True)
    ]


def _source(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _value(tensor: Any, known: Known) -> Any:
    """Return what a whole number or truth is worth, from constants and what is known, or None."""
    if not (tensor.dtype.is_integer or tensor.dtype.is_bool):
        return None
    if tensor.name not in known:
        known[tensor.name] = None  # should it need itself
        known[tensor.name] = _evaluated(tensor, known)
    return known[tensor.name]


def _evaluated(tensor: Any, known: Known) -> Any:
    op = tensor.op
    if op.type in ("While", "StatelessWhile"):
        return _loop(op, known)[1][tensor.value_index]
    value = tf.get_static_value(tensor)
    if value is not None or not (op.type in _ARITHMETIC or op.type == "StridedSlice"):
        return value
    values = [_value(source, known) for source in op.inputs]
    if op.type == "LogicalAnd" and any(one is not None and not one for one in values):
        return False
    if any(one is None for one in values):
        return None
    if op.type == "StridedSlice":  # one element of a vector, such as an axis of a shape
        one = op.get_attr("shrink_axis_mask") == 1 and np.ndim(values[0]) == 1
        return values[0][int(values[1][0])] if one else None
    return _ARITHMETIC[op.type](*values)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "LogicalNot": np.logical_not,
    "Identity": lambda value: value,
    "Squeeze": np.squeeze,
    "Cast": lambda value: value,  # of whole numbers and truths
    "Max": lambda value, axis: np.max(value),
    "Min": lambda value, axis: np.min(value),
    "Prod": lambda value, axis: np.prod(value),
}


# rules: an operation gives its FLOPs


def _size(tensor: Any, *, of: slice = slice(None)) -> int:
    shape = None if tensor.shape.rank is None else tensor.shape.as_list()[of]
    return elements(shape, tensor.op.name)


def _factors(op: Any) -> list[Any]:
    """Return the operands that are multiplied; a gradient's shape of whole numbers is none."""
    if op.type == "CudnnRNNV3":
        return list(op.inputs[:1])
    return [t for t in op.inputs if "Backprop" not in op.type or t.dtype.name != "int32"]


_EACH, _DEPTHWISE = slice(-1), slice(2)
"""Axes of a kernel whose elements count once for each position."""


def _convolution(op: Any, axes: slice = _EACH) -> int:
    """Count each kernel element once per output position and group, where nothing was padded.

    A dilated one may be a plain one between SpaceToBatch and BatchToSpace, which pad; what comes
    out at the end counts.
    """
    output = end = op.outputs[0]
    while len(after := end.consumers()) == 1 and after[0].type in (*_RESHAPED, "BatchToSpaceND"):
        end = after[0].outputs[0]
        if after[0].type == "BatchToSpaceND":
            output = end
            break
    return 2 * _size(output) * _size(op.inputs[1], of=axes)


def _to_input(op: Any, axes: slice = _EACH) -> int:
    """Count a transposed convolution: each kernel element once per input position."""
    return 2 * _size(_unpadded(op.inputs[2])) * _size(op.inputs[1], of=axes)


def _to_filter(op: Any, axes: slice = _EACH) -> int:
    return 2 * _size(_unpadded(op.inputs[2])) * _size(op.outputs[0], of=axes)


_RESHAPED = ("ExpandDims", "Identity", "Reshape", "Squeeze")


def _unpadded(given: Any) -> Any:
    """Return what SpaceToBatch made this of: the slopes of a dilated convolution, unpadded."""
    start = given
    while start.op.type in (*_RESHAPED, "SpaceToBatchND"):
        before = start.op.inputs[0]
        if start.op.type == "SpaceToBatchND":
            return before
        start = before
    return given


def _matrix_product(op: Any) -> int:
    """Count a product of matrices, or of batches of them: each output sums over one axis."""
    turned = op.get_attr("adj_x" if op.type.startswith("Batch") else "transpose_a")
    summed = op.inputs[0].shape[-2 if turned else -1]
    return 2 * _size(op.outputs[0]) * elements([summed], op.name)


def _einsum(op: Any) -> int:
    if any(tensor.shape.rank is None for tensor in op.inputs):
        raise NoRule(f"the shape of {op.name} is known only while it runs")
    shapes = [tensor.shape.as_list() for tensor in op.inputs]
    return einsum(op.name, op.get_attr("equation").decode(), shapes)


def _cudnn(op: Any) -> int:
    """Count one layer of a recurrent network in one direction: its gates' products at each step."""
    gates = {b"lstm": 4, b"gru": 3}.get(op.get_attr("rnn_mode"), 1)
    layers = op.inputs[1].shape[0]
    if layers != 1 or op.get_attr("direction") != b"unidirectional" or op.get_attr("num_proj"):
        raise NoRule(f"{op.type} of several layers or directions has no rule")
    units = op.inputs[1].shape[-1]
    features = op.inputs[0].shape[-1]
    vectors = _size(op.inputs[0], of=slice(-1))
    return 2 * vectors * gates * elements([units], op.name) * elements([features + units], op.name)


_PROJECTIONS = ("ImageProjectiveTransformV2", "ImageProjectiveTransformV3")


def _projected(op: Any) -> int:
    """Count a matrix of 3 x 3 times the place of each output, as Keras turns and shifts pictures.

    What comes out may have its shape only behind EnsureShape.
    """
    (output,) = op.outputs
    after = output.consumers()
    if len(after) == 1 and after[0].type == "EnsureShape":
        output = after[0].outputs[0]
    return 2 * 9 * _size(output)


_RULES: dict[str, Callable[[Any], int]] = {
    "Conv": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "Conv2DBackpropInput": _to_input,
    "Conv3DBackpropInputV2": _to_input,
    "Conv2DBackpropFilter": _to_filter,
    "Conv3DBackpropFilterV2": _to_filter,
    "DepthwiseConv2dNative": partial(_convolution, axes=_DEPTHWISE),
    "DepthwiseConv2dNativeBackpropInput": partial(_to_input, axes=_DEPTHWISE),
    "DepthwiseConv2dNativeBackpropFilter": partial(_to_filter, axes=_DEPTHWISE),
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
    "CudnnRNNV3": _cudnn,
}
