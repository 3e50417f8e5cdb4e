"""What a model computes, counted from the operations that TensorFlow runs; not a test itself.

    python tests/eager_counts.py SAMPLES MODEL...

Nothing is traced: each model runs so many samples eagerly, and every product counts by the shapes
that it really had. Prints a JSON line for each: its name, `count_params()`, its FLOPs per sample.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from convmark.worker import backends
from convmark.worker.builders import builder
from convmark.worker.inputs import mapped


def of_operation(kind: str, inputs: Any, attributes: dict[str, Any], output: Any) -> int:
    """Return the multiply-adds of an operation that has run."""
    shapes = [tuple(one.shape) for one in inputs]
    if kind in ("Conv2D", "Conv3D"):
        return math.prod(output.shape) * math.prod(shapes[1][:-1])
    if kind == "DepthwiseConv2dNative":
        return math.prod(output.shape) * math.prod(shapes[1][:2])
    if kind.startswith(("Conv2DBackpropInput", "Conv3DBackpropInput")):  # a transposed one
        return math.prod(shapes[2]) * math.prod(shapes[1][:-1])
    if kind.startswith(("MatMul", "BatchMatMul")):
        turned = attributes["transpose_a" if kind == "MatMul" else "adj_x"]
        return math.prod(output.shape) * shapes[0][-2 if turned else -1]
    if kind == "Einsum":
        equation = attributes["equation"]
        return of_einsum(equation if isinstance(equation, str) else equation.decode(), shapes)
    return 0


def of_einsum(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Return the product of all axes where some are summed over; one of one operand has none."""
    names, result = equation.split("->")
    axes: dict[str, int] = {}
    for labels, shape in zip(names.split(","), shapes, strict=True):
        hidden = "ABCDEFG"[: len(shape) - len(labels.replace("...", ""))]
        axes.update(zip(labels.replace("...", hidden), shape, strict=True))
        result = result.replace("...", hidden)
    return math.prod(axes.values()) if len(shapes) > 1 and set(axes) - set(result) else 0


def counted(name: str, samples: int, backend: Any) -> dict[str, Any]:
    build = builder(name, backend)
    model = build()
    inputs = backend.take_inputs(model, build.input_spec)
    batch = mapped(tf.convert_to_tensor, inputs.batch(samples, 0))
    model(batch)  # weights that are made when it is called
    found = [0]

    def see(kind: Any, given: Any, attributes: Any, outputs: Any, *_: Any) -> None:
        named = dict(zip(attributes[::2], attributes[1::2], strict=True))
        kind = kind.decode() if isinstance(kind, bytes) else kind
        found[0] += of_operation(kind, given, named, outputs[0] if outputs else None)

    op_callbacks.add_op_callback(see)
    try:
        model(batch, training=False)
    finally:
        op_callbacks.remove_op_callback(see)
    return {"model": name, "parameters": model.count_params(), "flops": 2 * found[0] / samples}


def main() -> None:
    tf.config.run_functions_eagerly(True)
    backend = backends.load("tensorflow")
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    for name in sys.argv[2:]:
        print(json.dumps(counted(name, int(sys.argv[1]), backend)), flush=True)
        backend.keras.backend.clear_session()


if __name__ == "__main__":
    main()
