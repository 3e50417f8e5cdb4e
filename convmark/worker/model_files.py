"""Checks model files before loading: their kind, and the code that they would run.

A file that holds code of its own (the byte code of a Lambda layer, a graph by its path) is loaded
where the user trusts whoever made it, and refused elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from convmark.core.model_name import TRUST
from convmark.core.runtimes import DEFAULT_RUNTIME, runtime_of_file
from convmark.worker.failure import CaseFailure, UnknownModelError, first_sentence
from convmark.worker.protocol import one_line
from convmark.worker.runtimes.files import check_runtime_file, files_beside

_UNKNOWN = re.compile(r"(Could not locate (class|function)|Unknown \w+:) '?\w+'?")
"""How Keras names a class or function that nobody has registered, deep in its message."""

MOST_FILES = 1000
MOST_CONFIG_BYTES = 1 << 28


def is_trusted() -> bool:
    """Whether code that a model's file holds may run."""
    return os.environ.get(TRUST) == "1"


def check_file(path: str) -> None:
    """Hold a path to being a model's file, of no code that nobody trusts.

    Args:
        path: from the working folder; that of a SavedModel ends in a slash.
    """
    if not os.path.exists(path):
        raise UnknownModelError(f"{path}: no such file in the working folder")
    if path.endswith("/"):
        if not os.path.isfile(os.path.join(path, "saved_model.pb")):
            raise UnknownModelError(f"{path}: must be a SavedModel, it has no saved_model.pb")
        if not is_trusted() and _has_lambda(path):
            raise UnknownModelError(
                f"{path}: contains code (a Lambda layer); give --trust-models if you trust the "
                "author of the file"
            )
        return
    if runtime_of_file(path) != DEFAULT_RUNTIME:
        check_runtime_file(path)
        return
    if not path.endswith((".keras", ".h5", ".hdf5")):
        raise UnknownModelError(
            f"{path}: must be a .keras, .h5, .onnx, .tflite or .xml file, or the folder of a "
            "SavedModel; for any other format write a builder that loads it: package.module:builder"
        )
    config = _config(path)
    if not is_trusted() and (name := next(_own_code(config), None)) is not None:
        raise UnknownModelError(
            f"{path}: contains code ({name}), which loading would run; give --trust-models if you "
            "trust the author of the file"
        )


def _has_lambda(folder: str) -> bool:
    """Whether Keras 2 has kept the byte code of a Lambda layer in a SavedModel."""
    try:
        with open(os.path.join(folder, "keras_metadata.pb"), "rb") as file:
            return b'"class_name": "Lambda"' in file.read(MOST_CONFIG_BYTES)
    except FileNotFoundError:
        return False


def files_of(path: str) -> Iterator[str]:
    """Yield the files that a model's path names: itself, or all in a SavedModel's folder."""
    if not path.endswith("/"):
        yield from map(os.path.realpath, (path, *files_beside(path)))
        return
    found = (os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)
    for number, file in enumerate(sorted(found)):
        if number >= MOST_FILES:
            raise CaseFailure(f"{path}: must have at most {MOST_FILES:,} files; it has more")
        yield os.path.realpath(file)


def failed_to_load(path: str, error: Exception, keras_version: str) -> CaseFailure:
    """Return why a file was not loaded, and what helps.

    Args:
        keras_version: of the Keras that loaded it.
    """
    unknown = _UNKNOWN.search(str(error))
    reason = one_line(unknown.group() if unknown else first_sentence(error), limit=120)
    text = f"cannot be loaded: {reason}"
    saved_by = _saved_by(path)
    if saved_by and saved_by.partition(".")[0] != keras_version.partition(".")[0]:
        how = "with" if saved_by.startswith("2") else "without"
        text += (
            f"; it was saved by Keras {saved_by}, this is Keras {keras_version}: measure {how} "
            "TF_USE_LEGACY_KERAS=1 in the environment"
        )
    elif unknown:
        text += (
            f"; put the module that registers it before the file, as in package.module:{path}, or "
            "measure a builder of yours that loads it"
        )
    return CaseFailure(text)


def _config(path: str) -> Any:
    """Return the architecture that a file holds."""
    try:
        text = _archived(path, "config.json") or _attribute(path, "model_config")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        what = "a .keras archive" if path.endswith(".keras") else "an HDF5 file"
        raise UnknownModelError(
            f"{path}: must be {what} that Keras saved, it cannot be read: {one_line(error)}"
        ) from None
    if text is None:
        raise UnknownModelError(
            f"{path}: has weights but no architecture; write a builder that loads them: "
            "package.module:builder"
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnknownModelError(f"{path}: its architecture must be JSON, it is damaged") from None


def _archived(path: str, name: str) -> str | None:
    """Return a text of a .keras archive; None where the file is HDF5, as Keras 2.12 writes it.

    Raises:
        BadZipFile: it is neither.
    """
    if _is_hdf5(path):
        return None
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return file.read(MOST_CONFIG_BYTES).decode(errors="replace")


def _is_hdf5(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n" or not path.endswith(".keras")


def _attribute(path: str, name: str) -> str | None:
    """Return a text that an HDF5 file holds as an attribute; None where it has none of the name."""
    import h5py

    with h5py.File(path, "r") as file:
        found = file.attrs.get(name)
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def _saved_by(path: str) -> str:
    """Return the version of the Keras that saved a file; empty where it does not tell."""
    if path.endswith("/"):
        return ""
    if _is_hdf5(path):
        return _attribute(path, "keras_version") or ""
    try:
        return str(json.loads(_archived(path, "metadata.json") or "{}").get("keras_version", ""))
    except (KeyError, ValueError, AttributeError):
        return ""


def _own_code(config: Any) -> Iterator[str]:
    """Yield the names of layers that run code which lies in the file, or beside it."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            kind = part.get("class_name")
            if kind == "__lambda__" or part.get("function_type") == "lambda":
                yield "a Lambda layer"
            elif kind == "TFSMLayer":
                yield "a TFSMLayer"
