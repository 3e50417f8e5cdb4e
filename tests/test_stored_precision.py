"""What precision a row of a runtime has: read from the file, and from what the runtime tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.case import FOUND_PRECISION, Case
from convmark.worker import runtimes
from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.engine import Taken
from convmark.worker.runtimes.export import Exported
from convmark.worker.runtimes.files import onnx_precision


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
        ({"w": (10, 2), "v": (10, 2), "table": (1, 2)}, "float16"),
        ({"w": (10, 2), "v": (1, 2)}, "float16+float32"),
        ({"w": (1, 2), "v": (1, 2), "scale": (10, 0)}, "float32"),
        ({"scale": (10, 0)}, "float16"),
    ],
)
def test_an_onnx_file_of_halves_is_of_float32_too_where_its_weights_are(
    kinds: dict[str, tuple[int, int]], precision: str, tmp_path: Path
) -> None:
    """Converters leave some operations as they are; one constant makes no file of halves."""
    onnx = pytest.importorskip("onnx", reason="ONNX files are read by onnx")
    graph = onnx.GraphProto()
    for name, (kind, axes) in kinds.items():
        graph.initializer.append(onnx.TensorProto(name=name, data_type=kind, dims=[2] * axes))
        operation = "Add" if name in ("table", "scale") else "MatMul"
        graph.node.append(onnx.NodeProto(op_type=operation, input=["x", name]))
    (tmp_path / "a.onnx").write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    assert onnx_precision(str(tmp_path / "a.onnx")) == precision


@pytest.mark.parametrize(
    ("kinds", "precision", "multiplied"),
    [
        ({}, "float32", ()),
        ({0: "float16"}, "float16", ()),
        ({0: "int8"}, "dynamic_int8", ()),
        ({0: "int8", 1: "int8"}, "int8", {"int8"}),
        ({0: "int8", 1: "int8", 2: "float32"}, "int8", {"int8", "float32"}),
        ({0: "int8", 1: "int8", 2: "int32"}, "int8", {"int8", "int32"}),
        ({0: "int8", 1: "int16"}, "int16_from_int8", ()),
    ],
)
def test_the_precision_of_a_litert_file_is_that_of_weights_and_activations(
    kinds: dict[int, str], precision: str, multiplied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="the engine is written against it")
    from convmark.worker.runtimes import lite_rt

    tensors = []
    for index in (0, 1, 2):  # the weights, what an operation takes and makes, another one's
        kind = kinds.get(index, "float32")
        scales = [0.5] if "int" in kind else []
        tensors.append(
            {
                "index": index,
                "dtype": np.dtype(kind).type,
                "quantization_parameters": {"scales": scales},
            }
        )
    operations = [
        {"op_name": "CONV_2D", "inputs": [1, 0], "outputs": [1]},
        {"op_name": "FULLY_CONNECTED" if 2 in kinds else "ADD", "inputs": [2, 2], "outputs": [2]},
    ]
    stand_in = SimpleNamespace(
        get_tensor_details=lambda graph=0: tensors, _get_ops_details=lambda: operations
    )
    monkeypatch.setattr(lite_rt, "Interpreter", lambda *_, **__: stand_in)
    engine = lite_rt.LiteRT.__new__(lite_rt.LiteRT)
    engine._path = "net.tflite"
    assert engine.stored_precision() == precision
    assert engine.multiplies_in() == multiplied


def test_a_file_of_another_precision_than_was_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from convmark.worker.exported import ExportedBackend

    class Engine:
        taken = (Taken("input", (1, 2), "float32"),)
        call_path = "litert"

        def __init__(self, path: str, threads: str, device: str) -> None:
            self.stored_precision = lambda: path.partition(".")[0]
            self.multiplies_in = products.split

        def settings(self) -> dict[str, str]:
            return {"hint": "LATENCY"}

        def resize(self, shapes: Any) -> None:
            """Nothing: the test runs no step."""

    products = ""

    def loaded(stored: str, asked: str, *, named: bool, more: str = "") -> list[str]:
        its_case = Case(model="a.tflite", task="infer", runtime="litert", precision=asked)
        file = Exported(f"{stored}.tflite", [], [], {})
        backend = ExportedBackend(
            SimpleNamespace(asked_shapes={}, _inputs={}),
            its_case,
            file,
            0,
            lambda *_, **__: None,
            precision_asked=named,
        )
        found = backend.layer_precisions(backend.load(Engine))
        told = {"litert.multiplies_in": more} if more else {}
        assert backend.runtime_settings() == {"litert.hint": "LATENCY"} | told
        return found

    assert loaded("int8", "int8", named=True) == loaded("int8", "float32", named=False) == ["int8"]
    products = "float32 int8"  # of a part alone, of which `--precisions int8` has always been
    assert loaded("int8", "float32", named=False) == ["float32+int8"]
    assert loaded("int8", "int8", named=True, more="float32+int8") == ["int8"]
    products = "float32"
    with pytest.raises(CaseFailure, match="the file is of float32_from_int8, got int8; "):
        loaded("int8", "int8", named=True)
    products = "int8"  # which the precision tells already
    assert loaded("int8", "int8", named=True) == ["int8"]
    products = ""
    for stored, asked in (("float32", "int8"), ("int8", "float16"), ("int8", "float32")):
        with pytest.raises(CaseFailure, match=f"a.tflite: the file is of {stored}, got {asked}; "):
            loaded(stored, asked, named=True)
    monkeypatch.setattr(Engine, "taken", [Taken("words", (1, 2), "string")])
    with pytest.raises(
        CaseFailure, match=r"a.tflite: .* numbers, but its input words is of string"
    ):
        loaded("float32", "float32", named=False)
    built = {"built": {"input_shape": [2]}, "path": {"places": [0]}}
    exported_file = Exported("float32.tflite", [[np.ones((1, 2), np.float32)]], [], built)
    asked_for = Case(model="lenet5", task="infer", runtime="litert", precision="dynamic_int8")
    backend = ExportedBackend(None, asked_for, exported_file, 0, lambda *_, **__: None)
    with pytest.raises(CaseFailure, match="LiteRT's converter left its weights in float32, as"):
        backend.load(Engine)


@pytest.mark.parametrize(
    ("stored", "multiplied", "precision"),
    [
        ("int8", ["int8"], "int8"),
        ("int8", ["float32", "int8"], "float32+int8"),
        ("int8", ["float32"], "float32_from_int8"),
        ("bfloat16", ["float32"], "float32_from_bfloat16"),
        ("float32", ["bfloat16", "float32"], "bfloat16+float32"),
        ("float32", ["float32"], "float32"),
        ("dynamic_int8", ["float32"], "dynamic_int8"),
        ("float16", [], "float16"),
    ],
)
def test_what_a_runtime_multiplies_in_is_told_and_of_an_export_held_to_what_was_asked_for(
    stored: str, multiplied: list[str], precision: str
) -> None:
    assert runtimes.precision_of(stored, multiplied) == precision
    assert FOUND_PRECISION.fullmatch(precision)
    asked = Case(model="a.xml", task="infer", runtime="openvino", precision=stored)
    engine = SimpleNamespace(stored_precision=lambda: stored)
    if precision not in ("float32_from_int8", "bfloat16+float32"):  # halves as they are asked for
        runtimes.check_stored(asked, engine, multiplied)
        return
    with pytest.raises(CaseFailure, match=f"asked for precision {stored}, but OpenVINO multiplies"):
        runtimes.check_stored(asked, engine, multiplied)


def test_a_file_of_halves_is_multiplied_in_float32_by_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO makes and loads the file")
    import openvino
    from openvino import opset13

    from convmark.worker.runtimes.open_vino import OpenVino

    given = opset13.parameter([1, 64], openvino.Type.f32)
    weights = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    product = opset13.matmul(given, opset13.constant(weights), False, False)
    path = str(tmp_path / "a.xml")
    openvino.save_model(openvino.Model([product], [given]), path, compress_to_fp16=True)
    engine = OpenVino(path, "1", "cpu")
    found = runtimes.precision_of(engine.stored_precision(), engine.multiplies_in())
    assert found == "float32_from_float16"
