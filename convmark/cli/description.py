"""`convmark run --describe`: each model's layers and their diagram, kept beside the results."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.option_values import Shapes
from convmark.interpreter import Answer
from convmark.report.describe import DESCRIPTION_SCHEMA, FOLDER, layers_of
from convmark.report.diagram import diagram
from convmark.results.store import StoreWarning

__all__ = ["describe_models"]


class Answers(Protocol):
    """What of an interpreter is used."""

    def answer(self, request: Any) -> Answer: ...


def describe_models(
    models: Sequence[str],
    interpreter: Answers,
    seed: int,
    machine_folder: Path,
    *,
    backend: str = DEFAULT_BACKEND,
    input_shape: Shapes | None = None,
) -> list[Path]:
    """Have a fresh process describe each model; return the files written, JSON and SVG.

    A model that cannot be described is left out with a `StoreWarning`.

    Raises:
        StoreError: the folder cannot be written.
        WorkerError: no worker can be started at all.
    """
    written = []
    for model in dict.fromkeys(models):
        case = Case(model=model, task="infer", backend=backend)
        request = {"kind": "describe", "case": case.as_fields(), "seed": seed}
        if input_shape:
            request["input_shapes"] = dict(input_shape)
        answer = interpreter.answer(request)
        described, built = answer.event("described"), answer.event("built")
        environment = answer.event("environment")
        if answer.status != "ok" or None in (described, built, environment):
            reason = answer.message or answer.status
            warnings.warn(f"{model}: is not described: {reason}", StoreWarning, stacklevel=2)
            continue
        value = {**(built or {}), **(environment or {}), **(described or {}), "model": model}
        written += _keep(machine_folder / FOLDER, value)
    return written


def _keep(folder: Path, value: dict[str, Any]) -> list[Path]:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", value["model"])[:100]
    paths = [folder / f"{stem}.json", folder / f"{stem}.svg"]
    facts = {key: value[key] for key in value if key not in ("event", "layers")}
    text = json.dumps({"schema": DESCRIPTION_SCHEMA, **facts, "layers": value["layers"]}, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(text + "\n", encoding="utf-8")
        drawn = diagram(value["model"], layers_of(value["layers"]))
        paths[1].write_text(drawn + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: must be writable: {error.strerror or error}") from None
    return paths
