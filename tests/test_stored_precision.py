"""What precision a row has of a file that is there already: read from the file itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.mark.parametrize("place", ["graph", "branch", "function"])
@pytest.mark.parametrize(
    "precision", ["bfloat16", "dynamic_int8", "float16", "float32", "float64", "int8"]
)
def test_the_precision_of_an_onnx_file_is_read_from_it(
    precision: str, place: str, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="ONNX files are read by onnx")
    pytest.importorskip("onnxruntime", reason="the module of ONNX Runtime imports it")
    from convmark.worker.runtimes.onnx_runtime import OnnxRuntime

    operation = {"dynamic_int8": "DequantizeLinear", "int8": "QLinearConv"}.get(precision, "Relu")
    kind = {"float16": 10, "bfloat16": 16, "float64": 11}.get(precision, 1)
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=[1, 1])
    constant = onnx.NodeProto(op_type="Constant")
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    node, model = onnx.NodeProto(op_type=operation), onnx.ModelProto()
    if place == "graph":
        model.graph.node.append(node)
        model.graph.initializer.append(tensor)
    elif place == "branch":
        chosen = onnx.NodeProto(op_type="If")
        chosen.attribute.add(name="then_branch", type=5).g.node.extend([constant, node])
        model.graph.node.append(chosen)
    else:
        model.functions.add(name="block").node.extend([constant, node])
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    engine = OnnxRuntime.__new__(OnnxRuntime)  # ONNX Runtime itself need not load it
    engine._path = str(tmp_path / "a.onnx")
    assert engine.stored_precision() == precision


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        ({}, "float32"),
        ({0: "float16"}, "float16"),
        ({0: "int8"}, "dynamic_int8"),
        ({0: "int8", 1: "int8"}, "int8"),
        ({0: "int8", 1: "int16"}, "int16_from_int8"),
    ],
)
def test_the_precision_of_a_litert_file_is_that_of_weights_and_activations(
    kinds: dict[int, str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="the engine is written against it")
    from convmark.worker.runtimes import lite_rt

    tensors = []
    for index in (0, 1):  # the weights, and what an operation makes
        kind = kinds.get(index, "float32")
        scales = [0.5] if "int" in kind else []
        tensors.append(
            {
                "index": index,
                "dtype": np.dtype(kind).type,
                "quantization_parameters": {"scales": scales},
            }
        )
    stand_in = SimpleNamespace(
        get_tensor_details=lambda: tensors, _get_ops_details=lambda: [{"outputs": [1]}]
    )
    monkeypatch.setattr(lite_rt, "Interpreter", lambda *_, **__: stand_in)
    engine = lite_rt.LiteRT.__new__(lite_rt.LiteRT)
    engine._path = "net.tflite"
    assert engine.stored_precision() == precision
