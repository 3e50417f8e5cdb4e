"""Runtime: what runs a model's forward pass, one object each; the only list of runtimes.

The code is the module of `convmark.worker.runtimes` that `module` names. The worker loads this
module too, so it needs the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One runtime: Keras itself, or what loads a file that Keras has exported."""

    name: str
    label: str
    """Its name as its makers write it."""
    module: str = ""
    """In `convmark.worker.runtimes`; empty for Keras."""
    class_name: str = ""
    """In its module."""
    package: str = ""
    """What it is imported as; empty where the backend brings it."""
    makers: tuple[str, ...] = ()
    """What its files are made with beside the backend, by the names of their imports."""
    quantiser: str = ""
    """The same of those in int8; it has an extra of its name."""
    distributions: tuple[str, ...] = ()
    """On the package index: its own, and those that make its files."""
    suffix: str = ""
    """Of the files that it loads; a folder's is a slash."""
    backend: str = "tensorflow"
    """That whose models are exported to it."""
    precisions: tuple[str, ...] = ("float32",)
    """Those that can be asked for."""
    gpu: bool = False
    """Whether it runs on a GPU."""
    takes_files: bool = False
    """Whether a file of its suffix that is there already is a case."""

    @property
    def extra(self) -> str:
        """What installs it, and what exports to it."""
        return f"convmark[{self.name}]"

    def exports_with(self, precision: str) -> dict[str, str]:
        """Return what an export in a precision imports, and the extra that installs each."""
        needed = dict.fromkeys(self.makers, self.extra)
        if self.quantiser and precision == "int8":
            needed[self.quantiser] = f"convmark[{self.quantiser}]"
        return needed


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        one.name: one
        for one in (
            Runtime(name="keras", label="Keras", gpu=True),
            Runtime(
                name="savedmodel",
                label="SavedModel",
                module="saved_model",
                class_name="SavedModel",
                suffix="/",
                gpu=True,
            ),
            Runtime(
                name="litert",
                label="LiteRT",
                module="lite_rt",
                class_name="LiteRT",
                package="ai_edge_litert",
                distributions=("ai-edge-litert",),
                suffix=".tflite",
                takes_files=True,
                precisions=("float32", "float16", "dynamic_int8", "int8"),
            ),
            Runtime(
                name="onnxruntime",
                label="ONNX Runtime",
                module="onnx_runtime",
                class_name="OnnxRuntime",
                package="onnxruntime",
                makers=("onnx", "tf2onnx"),
                distributions=("onnxruntime", "onnxruntime-gpu", "onnx", "tf2onnx"),
                suffix=".onnx",
                takes_files=True,
                precisions=("float32", "dynamic_int8"),
                gpu=True,
            ),
            Runtime(
                name="openvino",
                label="OpenVINO",
                module="open_vino",
                class_name="OpenVino",
                package="openvino",
                quantiser="nncf",
                distributions=("openvino", "nncf"),
                suffix=".xml",
                takes_files=True,
                precisions=("float32", "int8"),
            ),
            Runtime(
                name="torchexport",
                label="torch.export",
                module="torch_export",
                class_name="TorchExport",
                suffix=".pt2",
                backend="torch",
            ),
        )
    }
)
"""By name; the default first."""

DEFAULT_RUNTIME = next(iter(RUNTIMES))

EXPORTS = "CONVMARK_EXPORTS"
"""The variable that names the folder where a worker keeps exported files."""

RUNTIME_PRECISIONS = ("float16", "dynamic_int8", "int8")
"""Of exported models alone: weights in half precision; weights in int8; activations too."""


ERROR_BOUNDS: Mapping[str, float] = MappingProxyType(
    {"float32": 1e-4, "tf32": 1e-2, "float16": 5e-3, "dynamic_int8": 0.06, "int8": 0.25}
)
"""Of an export's largest relative error, by precision: docs/decisions/bounds-of-agreement.md."""

RUNTIME_TASKS = ("infer", "accuracy")
"""What a runtime does beside Keras: it takes the steps, or the test of what Keras has trained."""


_SIGNED = re.compile(r"(.*(?:\.tflite|/))#([^#/.]+)")


def parted_signature(name: str) -> tuple[str, str]:
    """Return a model's file, and the signature in it that `FILE#SIGNATURE` asks for, else empty."""
    found = _SIGNED.fullmatch(name)
    return (found[1], found[2]) if found else (name, "")


def runtime_of_file(name: str) -> str:
    """Return the runtime that a model's file is loaded by: Keras where it is no other's."""
    path, _ = parted_signature(name)
    found = (one.name for one in RUNTIMES.values() if one.takes_files)
    return next((name for name in found if path.endswith(RUNTIMES[name].suffix)), DEFAULT_RUNTIME)


def as_hashed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a case for a hash that a file keeps.

    What came later is left out at its default, so that hashes from before it still match.
    """
    later = (("runtime", DEFAULT_RUNTIME), ("cpus", None), ("node", None))
    return {name: fact for name, fact in facts.items() if (name, fact) not in later}
