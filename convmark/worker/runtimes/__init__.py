"""The runtimes that load an exported model, one module each, imported only for a case of theirs.

A module has two things: `convert`, which writes a file from a model's forward pass, and the class
of its name, which loads one. Importing a runtime starts threads: no zygote imports a module here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import Any

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS, RUNTIMES, runtime_of_file
from convmark.worker.failure import CaseFailure, message_of

_TELEMETRY = "openvino_telemetry"
"""Sends a message to its makers at each import of OpenVINO, which does without it."""

_UNKNOWN = re.compile(
    r"(?:No Op registered for|(?:Custom|Flex|TF Select) ops:"
    r'|No conversion rule found for operations:|In Node, \("[^"]*",) *(\w+(?:, \w+)*)'
)
"""How runtimes and converters name operations that they do not know, deep in their messages."""

_PLACES = re.compile(r"Exception from \S+:\d+:\s*")
"""Of OpenVINO's own source, which stand before what it has to say."""


def reason(error: BaseException) -> str:
    """Return in one line why a runtime or converter has failed."""
    text = str(error)
    if found := _UNKNOWN.search(text):
        return f"it does not know the operation {found.group(1)}"
    said = _PLACES.sub("", text)
    return message_of(error if said == text else RuntimeError(said))


def check_installed(case: Case) -> None:
    """Hold a case's runtime to being installed; nothing is imported.

    And what exports to it, where no earlier export is kept that may be of the same model.
    """
    runtime = RUNTIMES[case.runtime]
    if runtime.package and importlib.util.find_spec(runtime.package) is None:
        raise CaseFailure(_lacks(case, runtime.label, runtime.extra))
    if runtime_of_file(case.model) != case.runtime and not _has_exports(runtime.suffix):
        check_makers(case)


def check_makers(case: Case) -> None:
    """Hold what exports a case to being installed."""
    runtime = RUNTIMES[case.runtime]
    for name, extra in runtime.exports_with(case.precision).items():
        if importlib.util.find_spec(name) is None:
            what = f"{name}, which exports to {runtime.label},"
            raise CaseFailure(_lacks(case, what, extra))


def _lacks(case: Case, what: str, extra: str) -> str:
    return f"{case.model}: {what} is not installed; install {extra} in the measured environment"


def _has_exports(suffix: str) -> bool:
    """Whether any file of a runtime is kept."""
    folder = os.environ.get(EXPORTS)
    try:
        names = os.listdir(folder) if folder else []
    except FileNotFoundError:
        return False
    return any(os.path.exists(os.path.join(str(folder), one, f"model{suffix}")) for one in names)


def imported(name: str, model: str) -> tuple[Any, Any]:
    """Import a runtime; return what converts to it, and the class that loads its files.

    Raises:
        CaseFailure: it is not installed, or cannot be imported; the message names its extra.
    """
    runtime = RUNTIMES[name]
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]  # its import then fails
    try:
        module = importlib.import_module(f"convmark.worker.runtimes.{runtime.module}")
    except ImportError as error:
        raise CaseFailure(
            f"{model}: {runtime.label} cannot be imported ({error}); install {runtime.extra} "
            "in the measured environment"
        ) from None
    return module.convert, getattr(module, runtime.class_name)


def loaded(case: Case, make: Callable[[str, str, str], Any], path: str) -> Any:
    """Return a file in the runtime of a case.

    Raises:
        CaseFailure: the runtime refuses it, such as for an operation that it does not know.
    """
    try:
        return make(path, case.threads, case.device)
    except (CaseFailure, MemoryError):
        raise
    except Exception as error:  # each runtime has its own
        raise CaseFailure(
            f"{case.model}: {RUNTIMES[case.runtime].label} cannot load the file: {reason(error)}"
        ) from error


def precision_of(stored: str, multiplied: Collection[str]) -> str:
    """Return what a file computes in.

    Args:
        stored: what it says itself.
        multiplied: the dtypes of the products on this machine, as far as they are known.
    """
    if stored in ("int8", "float16", "bfloat16") and set(multiplied) == {"float32"}:
        return f"float32_from_{stored}"
    if stored in ("int8", "float32") and set(multiplied) - {stored}:
        return "+".join(sorted(multiplied))
    return stored


def check_stored(case: Case, engine: Any, multiplied: Collection[str]) -> None:
    """Hold an export to its precision: a converter may leave weights as they are.

    Args:
        multiplied: the dtypes of its products, as far as they are known.

    Raises:
        CaseFailure: it has left all of them so, or they are multiplied in another one.
    """
    stored = case.precision if case.precision == "float32" else str(engine.stored_precision())
    if stored != case.precision:
        raise CaseFailure(
            f"{case.model}: cannot be exported in {case.precision}: "
            f"{RUNTIMES[case.runtime].label}'s converter left its weights in {stored}, as "
            "it does with few weights or with operations that have no "
            f"{case.precision}; use --precisions float32"
        )
    others = set(multiplied) - {"float32"} if case.precision == "float32" else ()
    if others or (case.precision == "int8" and multiplied and "int8" not in multiplied):
        raise CaseFailure(
            f"{case.model}: asked for precision {case.precision}, but "
            f"{RUNTIMES[case.runtime].label} multiplies in {', '.join(sorted(multiplied))} on this "
            "machine; use another --precisions"
        )


def versions(name: str) -> str:
    """Return NAME==VERSION of what makes and loads a runtime's files, as far as installed."""
    found = []
    for distribution in RUNTIMES[name].distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{distribution}=={importlib.metadata.version(distribution)}")
    return " ".join(found)


def code_hash(name: str) -> str:
    """Return a hash of the modules that make a runtime's files; they are not imported."""
    found = hashlib.sha256()
    for module in ("engine", RUNTIMES[name].module):
        with open(f"{os.path.dirname(__file__)}/{module}.py", "rb") as file:
            found.update(file.read())
    return found.hexdigest()
