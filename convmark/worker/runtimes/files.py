"""Checks the files of runtimes before they are loaded: their kind, and what they would reach.

Nothing of a file is run here. A runtime itself refuses operations that it does not know, for no
library of custom operations is ever registered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from convmark.core.runtimes import RUNTIMES, runtime_of_file
from convmark.worker.failure import UnknownModelError
from convmark.worker.protocol import one_line

__all__ = ["check_runtime_file"]

MOST_BYTES = 1 << 33
"""Of a file: a larger one is no ConvNet's."""
_HEAD_BYTES = 4096


def check_runtime_file(path: str) -> None:
    """Hold a path to being a file of its runtime that reaches nothing outside its folder.

    Raises:
        UnknownModelError: it is not; the message is one line and says what to do.
    """
    if not os.path.isfile(path):
        raise UnknownModelError(f"{path}: must be a file")
    if os.path.getsize(path) > MOST_BYTES:
        raise UnknownModelError(
            f"{path}: must have at most {MOST_BYTES:,} bytes, it has {os.path.getsize(path):,}"
        )
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    runtime = RUNTIMES[runtime_of_file(path)]
    if runtime.name == "onnxruntime":
        _check_onnx(path)
    elif runtime.name == "litert" and head[4:8] != b"TFL3":
        raise UnknownModelError(f"{path}: must be a TensorFlow Lite file, it does not begin as one")
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
            f"{path}: its weights, the .bin file of its name, must be beside it"
        )


def _check_onnx(path: str) -> None:
    """Refuse what is no ONNX file, and tensors that lie in files outside its folder."""
    try:
        import onnx
        from onnx import external_data_helper
    except ImportError as error:
        raise UnknownModelError(
            f"{path}: its parts cannot be checked ({error}); install "
            f"{RUNTIMES['onnxruntime'].extra} there"
        ) from None
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, of several versions
        raise UnknownModelError(
            f"{path}: must be an ONNX file, it cannot be read: {one_line(error, limit=120)}"
        ) from None
    folder = os.path.realpath(os.path.dirname(path) or ".")
    for place in _external(external_data_helper, model):
        real = os.path.realpath(os.path.join(folder, place))
        if os.path.isabs(place) or os.path.commonpath([folder, real]) != folder:
            raise UnknownModelError(
                f"{path}: its tensors must lie in its own folder, one is to be read from {place}"
            )


def _external(helper: Any, model: Any) -> Iterator[str]:
    """Yield the paths of the files that tensors of a model lie in."""
    for tensor in helper._get_all_tensors(model):
        if helper.uses_external_data(tensor):
            yield from (pair.value for pair in tensor.external_data if pair.key == "location")
