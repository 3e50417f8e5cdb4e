"""LiteRT: a TensorFlow Lite file, converted by TensorFlow's own converter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from convmark.core.runtimes import parted_signature
from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.engine import Engine, Source, Taken

_PRODUCTS = ("CONV", "FULLY_CONNECTED", "MATMUL", "LSTM", "RNN")
"""In the names of operations that multiply."""


def convert(source: Source, path: str, precision: str) -> None:
    """Write a file of float32; of float16 or int8 weights; or of int8 activations too."""
    import tensorflow as tf

    # of variables that are not frozen it makes some that nobody gives a value
    converter = tf.lite.TFLiteConverter.from_concrete_functions([source.frozen()])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":

        def samples() -> Iterator[list[Any]]:
            yield from map(list, source.samples())

        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    written = converter.convert()
    with open(path, "wb") as file:
        file.write(written)


class LiteRT(Engine):
    """An interpreter of one file; its XNNPACK delegate is on, as it is by default."""

    call_path = "litert"
    _runner: Any = None
    """Calls one of several signatures, whose tensors have places of their own."""

    def __init__(self, path: str, threads: str, device: str) -> None:
        self._path, asked = parted_signature(path)
        count = None if threads == "default" else int(threads)
        self._interpreter = Interpreter(self._path, num_threads=count)
        signatures = self._interpreter.get_signature_list()
        if asked not in signatures and (asked or len(signatures) > 1):
            names = ", ".join(sorted(signatures)) or "none"
            remedy = f"; choose one, as in {self._path}#{min(signatures)}" if signatures else ""
            rule = f"must have a signature {asked}" if asked else "must have one signature"
            raise CaseFailure(f"{self._path}: {rule}, but it has {names}{remedy}")
        if len(signatures) > 1:
            self.call_path = f"litert, signature {asked}"
            self._runner = self._interpreter.get_signature_runner(asked)
            takes = self._runner.get_input_details()
            self._takes = [{**takes[name], "name": name} for name in sorted(takes)]
            return
        self._takes = self._interpreter.get_input_details()
        if not any(-1 in one["shape_signature"] for one in self._takes):
            self._interpreter.allocate_tensors()  # a size of 1 may be too small for others
        self._places = [one["index"] for one in self._takes]
        self._gives = [one["index"] for one in self._interpreter.get_output_details()]

    @property
    def taken(self) -> list[Taken]:
        return [
            Taken(
                one["name"],
                tuple(None if axis < 0 else int(axis) for axis in one["shape_signature"]),
                np.dtype(one["dtype"]).name,
            )
            for one in self._takes
        ]

    def resize(self, shapes: Sequence[Sequence[int]]) -> None:
        if self._runner:  # which does so itself at each call
            return
        for one, shape in zip(self._takes, shapes, strict=True):
            self._interpreter.resize_tensor_input(one["index"], list(shape))
        self._interpreter.allocate_tensors()

    def settings(self) -> dict[str, str]:
        if self._runner:  # a delegate takes operations of its graph at the first call
            return {}
        kinds = {one["op_name"] for one in self._interpreter._get_ops_details()}
        return {"xnnpack": str("DELEGATE" in kinds)}

    def multiplies_in(self) -> Collection[str]:
        if self.stored_precision() != "int8" or self._graph:
            return ()
        plain = Interpreter(self._path)
        dtypes = {one["index"]: np.dtype(one["dtype"]).name for one in plain.get_tensor_details()}
        products = (
            [dtypes[int(place)] for place in one["inputs"] if place >= 0]
            for one in plain._get_ops_details()
            if any(word in one["op_name"] for word in _PRODUCTS)
        )  # the first input of some is a shape
        return {
            next((one for one in taken if one != "int32"), "int32").removeprefix("u")
            for taken in products
        }

    @property
    def _graph(self) -> int:
        """The place in the file of the graph that runs."""
        return self._runner._subgraph_index if self._runner else 0

    def stored_precision(self) -> str:
        plain = Interpreter(self._path)  # of one that is ready a delegate has taken operations
        tensors = plain.get_tensor_details(self._graph)
        names = {one["index"]: np.dtype(one["dtype"]).name for one in tensors}
        scaled = {
            one["index"]: names[one["index"]]
            for one in tensors
            if len(one["quantization_parameters"]["scales"])
        }
        if {"int8", "uint8"} & {*scaled.values()}:
            made = {int(place) for one in plain._get_ops_details() for place in one["outputs"]}
            activations = {scaled[place] for place in made & {*scaled}}
            if self._graph:  # its operations are not told: int8 products add a bias of int32
                activations = {"int8"} if "int32" in scaled.values() else set()
            if "int16" in activations:
                return "int16_from_int8"
            return "int8" if {"int8", "uint8"} & activations else "dynamic_int8"
        return "float16" if "float16" in names.values() else "float32"

    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        if runner := self._runner:
            names = (one["name"] for one in self._takes)
            given = dict(zip(names, arrays, strict=True))
            return lambda: list(runner(**given).values())
        one = self._interpreter
        set_tensor, invoke, get_tensor = one.set_tensor, one.invoke, one.get_tensor
        pairs, gives = list(zip(self._places, arrays, strict=True)), self._gives

        def of_several() -> Sequence[Any]:
            for place, array in pairs:
                set_tensor(place, array)
            invoke()
            return [*map(get_tensor, gives)]

        if len(pairs) != 1 or len(gives) != 1:
            return of_several
        (place, array), (output,) = *pairs, gives

        def of_one() -> Sequence[Any]:  # a loop costs half a microsecond, of steps that take twenty
            set_tensor(place, array)
            invoke()
            return [get_tensor(output)]

        return of_one
