"""ONNX Runtime: an ONNX file, converted by tf2onnx as Keras's own export does."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import onnxruntime

from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.engine import Engine, Source, Taken
from convmark.worker.runtimes.files import onnx_precision, onnx_products

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def convert(source: Source, path: str, precision: str) -> None:
    """Write an ONNX file; in int8 the weights alone, whose activations are quantised as it runs."""
    import tf2onnx

    with contextlib.suppress(ImportError):  # of Keras 2, whose NumPy needs none
        from keras.src.export.tf2onnx_lib import patch_tf2onnx

        patch_tf2onnx()
    function = source.function
    count = len(function.structured_input_signature[1])  # after these come the variables
    names = [tensor.name for tensor in function.inputs[:count]]
    outputs = [tensor.name for tensor in function.outputs]
    graph = tf2onnx.tf_loader.from_function(function, names, outputs)
    written = path if precision == "float32" else f"{path}.float32"
    tf2onnx.convert.from_graph_def(
        graph, input_names=names, output_names=outputs, output_path=written
    )
    if written != path:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(written, path, weight_type=QuantType.QUInt8)  # ConvInteger takes no other
        os.remove(written)  # what lies beside the file counts as its bytes


class OnnxRuntime(Engine):
    """A session of one file."""

    call_path = "onnxruntime"

    def __init__(self, path: str, threads: str, device: str) -> None:
        self._path = path
        options = onnxruntime.SessionOptions()
        if threads != "default":
            options.intra_op_num_threads = int(threads)
        provider: Any = _CPU
        if device != "cpu":
            # else what CUDA has no kernel for runs on the CPU, between two copies
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            place = int(device.removeprefix("gpu:"))
            provider = (
                _CUDA,
                {"device_id": place, "use_tf32": 0},
            )  # float32 itself, as Keras has it
            if _CUDA not in onnxruntime.get_available_providers():
                raise CaseFailure(
                    f"device {device} needs {_CUDA}, this ONNX Runtime has "
                    f"{', '.join(onnxruntime.get_available_providers())}; install onnxruntime-gpu"
                )
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        used = self._session.get_providers()
        if device != "cpu" and _CUDA not in used:
            raise CaseFailure(f"device {device}: ONNX Runtime has fallen back to {', '.join(used)}")
        self._names = [one.name for one in self._session.get_inputs()]

    @property
    def taken(self) -> list[Taken]:
        return [
            Taken(
                one.name,
                tuple(axis if isinstance(axis, int) else None for axis in one.shape),
                _DTYPES.get(one.type) or one.type.removeprefix("tensor(").removesuffix(")"),
            )
            for one in self._session.get_inputs()
        ]

    def settings(self) -> dict[str, str]:
        options = self._session.get_session_options()
        spinning = "default"
        with contextlib.suppress(RuntimeError, KeyError):  # it is not set
            spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
        return {
            "graph_optimization": options.graph_optimization_level.name,
            "execution_mode": options.execution_mode.name,
            "providers": ",".join(self._session.get_providers()),
            "spinning": spinning,
        }

    def stored_precision(self) -> str:
        return onnx_precision(self._path)

    def multiplies_in(self) -> Collection[str]:
        return onnx_products(self._path)

    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        given = dict(zip(self._names, arrays, strict=True))
        return functools.partial(self._session.run, None, given)
