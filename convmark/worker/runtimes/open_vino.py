"""OpenVINO: its own .xml and .bin files, converted from the frozen graph."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import openvino

from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.engine import Engine, Source, Taken

_LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
_HALVES = {"f16": "float16", "bf16": "bfloat16"}
_PROPERTIES: Mapping[str, str] = MappingProxyType(
    {"hint": "PERFORMANCE_HINT", "mode": "EXECUTION_MODE_HINT", "streams": "NUM_STREAMS"}
)
"""By the names that a row has."""
_PRODUCTS = ("onvolution", "FullyConnected", "MatMul", "RNN", "LSTM", "GRU")
"""In the types of nodes that multiply, as the plugin of the CPU calls them."""
_DTYPES: Mapping[str, str] = MappingProxyType(
    {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "int8"}
)


def convert(source: Source, path: str, precision: str) -> None:
    """Write an .xml file and the .bin beside it, their weights in float32 or int8."""
    frozen = source.frozen()
    with tempfile.TemporaryDirectory() as folder:
        graph = os.path.join(folder, "graph.pb")  # of a function it takes no frozen one
        with open(graph, "wb") as file:
            file.write(frozen.graph.as_graph_def().SerializeToString())
        model = _in_order(openvino.convert_model(graph), frozen)
        if precision == "int8":
            import nncf

            model = nncf.quantize(model, nncf.Dataset([list(one) for one in source.samples()]))
        openvino.save_model(model, path, compress_to_fp16=False)


def _in_order(model: Any, function: Any) -> Any:
    """Return a converted model with the function's order of inputs and outputs.

    Its own is another in each process. An output that is an input has lost its name.
    """
    parameters = {name: one for one in model.get_parameters() for name in one.output(0).names}
    if lost := [one.name for one in function.inputs if one.name not in parameters]:
        raise CaseFailure(f"OpenVINO leaves out the input {lost[0]}; have the model use it")
    found = [parameters[one.name] for one in function.inputs]
    named: list[Any] = []
    left = list(model.get_results())
    for one in function.outputs:
        named.append(next((two for two in left if one.name in two.input_value(0).names), None))
        left = [two for two in left if two is not named[-1]]
    results = [left.pop(0) if one is None else one for one in named]
    return openvino.Model(results, found)


class OpenVino(Engine):
    """A compiled model, asked for latency and for the precision that the file has."""

    call_path = "openvino"

    def __init__(self, path: str, threads: str, device: str) -> None:
        self._path = path
        settings: dict[str, Any] = {**_LATENCY, "INFERENCE_PRECISION_HINT": "f32"}
        if threads != "default":
            settings["INFERENCE_NUM_THREADS"] = int(threads)
        self._compiled = openvino.Core().compile_model(path, "CPU", settings)
        computes = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if computes != "f32":  # of which a processor may make less
            raise CaseFailure(
                f"{path}: OpenVINO computes in {computes} here, but f32 was asked for"
            )
        self._infer = self._compiled.create_infer_request().infer

    @property
    def taken(self) -> list[Taken]:
        return [
            Taken(
                _name(one, f"input_{place:02}"),
                tuple(axis.get_length() if axis.is_static else None for axis in one.partial_shape),
                np.dtype(one.element_type.to_dtype()).name,
            )
            for place, one in enumerate(self._compiled.inputs)
        ]

    def threads(self) -> int | None:
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    def settings(self) -> dict[str, str]:
        found = {}
        for name, one in _PROPERTIES.items():
            with contextlib.suppress(RuntimeError):  # of another version
                value = self._compiled.get_property(one)
                found[name] = str(getattr(value, "name", value))
        return found

    def multiplies_in(self) -> Collection[str]:
        found = set()
        for one in self._compiled.get_runtime_model().get_ops():
            facts = {name: fact.get() for name, fact in one.get_rt_info().items()}
            kind, kernel = (str(facts.get(name, "")) for name in ("layerType", "primitiveType"))
            if any(word in kind for word in _PRODUCTS):  # such as brgemm_avx512_f32
                dtype = kernel.rpartition("_")[2].lower().replace("fp", "f")
                found.add(_DTYPES.get(dtype, dtype))
        return found

    def stored_precision(self) -> str:
        operations = openvino.Core().read_model(self._path).get_ops()
        if any(one.get_type_name() == "FakeQuantize" for one in operations):
            return "int8"
        constants = [
            one
            for one in operations
            if one.get_type_name() == "Constant" and len(one.get_output_partial_shape(0)) > 1
        ]  # of fewer axes are shapes and scales
        kinds = {one.get_output_element_type(0).get_type_name() for one in constants}
        if kinds & {"i8", "u8", "i4", "u4"}:
            return "dynamic_int8"
        return next((name for kind, name in _HALVES.items() if kind in kinds), "float32")

    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        # in a list OpenVINO looks for numbers, which takes some of the microseconds of a step
        infer, given = self._infer, arrays[0] if len(arrays) == 1 else tuple(arrays)

        def step() -> Sequence[Any]:
            found = infer(given, share_inputs=True, share_outputs=False)
            return found.to_tuple()  # type: ignore[no-any-return]

        return step


def _name(port: Any, default: str) -> str:
    with contextlib.suppress(RuntimeError):  # it has none
        return str(port.any_name)
    return default
