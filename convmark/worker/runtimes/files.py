"""Checks the files of runtimes before they are loaded: their kind, and what they would reach.

Nothing of a file is run here. A runtime itself refuses operations that it does not know, for no
library of custom operations is ever registered.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterable, Iterator
from typing import Any

from convmark.core.runtimes import RUNTIMES, runtime_of_file
from convmark.worker.failure import UnknownModelError
from convmark.worker.protocol import one_line

MOST_BYTES = 1 << 33
"""Of a file: a larger one is no ConvNet's."""
_HEAD_BYTES = 4096
_INT8 = ("QLinear", "QuantizeLinear", "QGemm", "QAttention")
"""How operations on activations of int8 begin."""
_INTEGER = ("ConvInteger", "MatMulInteger")
_INT8_WEIGHTS = (*_INTEGER, "DequantizeLinear", "DynamicQuantize", "MatMulN")
"""The same where the weights alone are kept so."""
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INT8_PRODUCTS = ("QLinearConv", "QLinearMatMul", "QGemm", "QAttention", *_INTEGER)


def check_runtime_file(path: str, *, ours: bool = False) -> None:
    """Hold a path to being a file of its runtime that reaches nothing outside its folder.

    Args:
        ours: whether it is an export whose hash was compared: what reads its parts need not be
            installed.
    """
    if not os.path.isfile(path):
        raise UnknownModelError(f"{path}: must be a file")
    if os.path.getsize(path) > MOST_BYTES:
        raise UnknownModelError(
            f"{path}: must have at most {MOST_BYTES:,} bytes, but it has {os.path.getsize(path):,}"
        )
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    runtime = RUNTIMES[runtime_of_file(path)]
    if runtime.name == "onnxruntime":
        if not ours or importlib.util.find_spec("onnx"):
            _check_onnx(path)
    elif runtime.name == "litert" and head[4:8] != b"TFL3":
        raise UnknownModelError(
            f"{path}: must be a TensorFlow Lite file, but it does not begin like one"
        )
    elif runtime.name == "openvino":
        _check_xml(path, head)


def _check_xml(path: str, head: bytes) -> None:
    with open(path, "rb") as file:
        text = file.read()
    declares = b"<!" in head or b"<!DOCTYPE" in text or b"<!ENTITY" in text
    if not head.lstrip().startswith((b"<?xml", b"<net")) or declares:
        raise UnknownModelError(
            f"{path}: must be an .xml file of OpenVINO without document type or entities"
        )
    if not os.path.isfile(path.removesuffix(".xml") + ".bin"):
        raise UnknownModelError(
            f"{path}: its weights, the .bin file of the same name, must be in the same folder"
        )


def _check_onnx(path: str) -> None:
    """Refuse what is no ONNX file, and tensors that lie in files outside its folder."""
    try:
        places = _places(path)
    except ImportError as error:
        raise UnknownModelError(
            f"{path}: its parts cannot be checked ({error}); install "
            f"{RUNTIMES['onnxruntime'].extra} in the measured environment"
        ) from None
    except Exception as error:  # protobuf's own, of several versions
        raise UnknownModelError(
            f"{path}: must be an ONNX file, it cannot be read: {one_line(error, limit=120)}"
        ) from None
    folder = os.path.realpath(os.path.dirname(path) or ".")
    for place in places:
        real = os.path.realpath(os.path.join(folder, place))
        if os.path.isabs(place) or os.path.commonpath([folder, real]) != folder:
            raise UnknownModelError(
                f"{path}: its tensors must be in its own folder, but one is in {place}"
            )


@functools.lru_cache(maxsize=1)
def _onnx(path: str, changed_ns: int) -> tuple[tuple[str, ...], str, frozenset[str]]:
    """Return the files that tensors of an ONNX file lie in, from its folder, and its precision.

    And, of int8, the dtypes of its products.

    Kept from the check on: a large file is read before the memory of the case is measured alone.

    Args:
        changed_ns: when it was changed.
    """
    import onnx
    from onnx import external_data_helper as helper

    model = onnx.load(path, load_external_data=False)
    tensors = filter(helper.uses_external_data, helper._get_all_tensors(model))
    pairs = (pair for tensor in tensors for pair in tensor.external_data)
    places = dict.fromkeys(pair.value for pair in pairs if pair.key == "location")
    precision = _precision(model, onnx.TensorProto)
    products = _products(model, onnx.TensorProto) if precision == "int8" else frozenset()
    return tuple(places), precision, products


def _places(path: str) -> tuple[str, ...]:
    return _onnx(path, os.stat(path).st_mtime_ns)[0]


def onnx_precision(path: str) -> str:
    """Return what an ONNX file computes in, or keeps its weights in.

    Without onnx an export of ours alone is loaded, which is of float32 or has these operations.
    """
    try:
        return _onnx(path, os.stat(path).st_mtime_ns)[1]
    except ImportError:
        with open(path, "rb") as file:
            data = file.read()
    # the field op_type of a node: its number, the length of the text, the text
    named = (b"\x22" + bytes([len(name)]) + name.encode() for name in _INTEGER)
    return "dynamic_int8" if any(one in data for one in named) else "float32"


def onnx_products(path: str) -> frozenset[str]:
    """Return the dtypes of the products of an ONNX file of int8; none of others, or without onnx.

    A part of the layers may have been left out when it was quantised.
    """
    try:
        return _onnx(path, os.stat(path).st_mtime_ns)[2]
    except ImportError:
        return frozenset()


def _products(model: Any, kinds: Any) -> frozenset[str]:
    """Return the dtypes of the products: of int8 where what they take was dequantised just before.

    A runtime makes one operation of these two.
    """
    nodes = _all_nodes(model)
    made_by = {name: node.op_type for node in nodes for name in node.output}
    halves = {one.name for one in model.graph.initializer if one.data_type == kinds.FLOAT16}
    found = {"int8" for node in nodes if node.op_type in _INT8_PRODUCTS}
    for node in (one for one in nodes if one.op_type in _PRODUCTS):
        if made_by.get(node.input[0]) == "DequantizeLinear":
            found.add("int8")
        else:
            found.add("float16" if halves & set(node.input) else "float32")
    return frozenset(found)


def _all_nodes(model: Any) -> list[Any]:
    return [*_nodes(model.graph.node), *_nodes(one for f in model.functions for one in f.node)]


def _precision(model: Any, kinds: Any) -> str:
    nodes = _all_nodes(model)
    operations = {node.op_type for node in nodes}
    if any(name.startswith(_INT8) for name in operations):
        return "int8"
    if any(name.startswith(_INT8_WEIGHTS) for name in operations):
        return "dynamic_int8"
    made = (node.attribute for node in nodes if node.op_type == "Constant")
    constants = (one.t for attributes in made for one in attributes)
    inner = (one for graph in _graphs(nodes) for one in graph.initializer)
    held = [*model.graph.initializer, *inner, *constants]
    halves = {kinds.FLOAT16: "float16", kinds.BFLOAT16: "bfloat16"}
    weights = {kinds.FLOAT: "float32", kinds.DOUBLE: "float64"}
    large = [one for one in held if len(one.dims) > 1]  # of fewer axes are shapes and scales
    found = {halves.get(one.data_type) for one in large or held} - {None}
    if found:  # beside halves, tables such as those of a resize are of float32
        taken = {name for node in nodes if node.op_type in _PRODUCTS for name in node.input}
        large = [one for one in large if one.name in taken]
    found |= {weights.get(one.data_type) for one in large} - {None}
    return "+".join(sorted(map(str, found))) or "float32"


def _graphs(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield the graphs inside nodes: branches and bodies of loops."""
    for attribute in (one for node in nodes for one in node.attribute):
        yield from (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)


def _nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in _graphs([node]):
            yield from _nodes(graph.node)


def files_beside(path: str) -> Iterator[str]:
    """Yield the files that a runtime reads with one that was checked: its weights."""
    runtime = runtime_of_file(path)
    if runtime == "openvino":
        yield path.removesuffix(".xml") + ".bin"
    elif runtime == "onnxruntime":
        yield from (os.path.join(os.path.dirname(path), place) for place in _places(path))
